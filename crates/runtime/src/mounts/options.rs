//! Mount options (runtime-spec config.md "Linux mount options"): one table from names to what they do.

use std::ffi::{CStr, CString};

use nix::mount::MsFlags;

use crate::lsm::is_context;
use crate::rootfs;
use crate::sys::mount::MountAttr;

// MOUNT_ATTR_* of mount_setattr(2).
pub(crate) const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const RELATIME: u64 = 0x00;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
pub(super) const NOSYMFOLLOW: u64 = 0x20_0000;

/// What one option does.
#[derive(Clone, Copy)]
enum Effect {
    /// Sets attributes of the mount.
    Set(u64),
    /// Clears them.
    Clear(u64),
    /// Replaces the access time policy.
    Atime(u64),
    /// The same for the mounts below as well.
    SetAll(u64),
    ClearAll(u64),
    AtimeAll(u64),
    /// Of the file system, not of the mount; by the name that fsconfig(2) knows.
    Superblock,
    Bind {
        recursive: bool,
    },
    IdMap {
        recursive: bool,
    },
    Remount,
    CopyUp,
    Propagation,
    /// Says what is so anyway.
    Nothing,
}

use Effect::*;

/// Every option that is not handed to the file system as it is. `features` lists the names.
const TABLE: &[(&str, Effect)] = &[
    ("async", Superblock),
    ("atime", Atime(RELATIME)),
    ("bind", Bind { recursive: false }),
    ("defaults", Nothing),
    ("dev", Clear(NODEV)),
    ("diratime", Clear(NODIRATIME)),
    ("dirsync", Superblock),
    ("exec", Clear(NOEXEC)),
    ("idmap", IdMap { recursive: false }),
    ("lazytime", Superblock),
    ("loud", Nothing),
    ("mand", Superblock),
    ("noatime", Atime(NOATIME)),
    ("nodev", Set(NODEV)),
    ("nodiratime", Set(NODIRATIME)),
    ("noexec", Set(NOEXEC)),
    ("nolazytime", Superblock),
    ("nomand", Superblock),
    ("norelatime", Atime(RELATIME)),
    ("nostrictatime", Atime(RELATIME)),
    ("nosuid", Set(NOSUID)),
    ("nosymfollow", Set(NOSYMFOLLOW)),
    ("private", Propagation),
    ("ratime", AtimeAll(RELATIME)),
    ("rbind", Bind { recursive: true }),
    ("rdev", ClearAll(NODEV)),
    ("rdiratime", ClearAll(NODIRATIME)),
    ("relatime", Atime(RELATIME)),
    ("remount", Remount),
    ("rexec", ClearAll(NOEXEC)),
    ("ridmap", IdMap { recursive: true }),
    ("rnoatime", AtimeAll(NOATIME)),
    ("rnodev", SetAll(NODEV)),
    ("rnodiratime", SetAll(NODIRATIME)),
    ("rnoexec", SetAll(NOEXEC)),
    ("rnorelatime", AtimeAll(RELATIME)),
    ("rnostrictatime", AtimeAll(RELATIME)),
    ("rnosuid", SetAll(NOSUID)),
    ("rnosymfollow", SetAll(NOSYMFOLLOW)),
    ("ro", Set(RDONLY)),
    ("rprivate", Propagation),
    ("rrelatime", AtimeAll(RELATIME)),
    ("rro", SetAll(RDONLY)),
    ("rrw", ClearAll(RDONLY)),
    ("rshared", Propagation),
    ("rslave", Propagation),
    ("rstrictatime", AtimeAll(STRICTATIME)),
    ("rsuid", ClearAll(NOSUID)),
    ("rsymfollow", ClearAll(NOSYMFOLLOW)),
    ("runbindable", Propagation),
    ("rw", Clear(RDONLY)),
    ("shared", Propagation),
    ("silent", Nothing),
    ("slave", Propagation),
    ("strictatime", Atime(STRICTATIME)),
    ("suid", Clear(NOSUID)),
    ("symfollow", Clear(NOSYMFOLLOW)),
    ("sync", Superblock),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation),
];

/// The names that the table knows.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// The flag of mount(2) for an option of the superblock that has one; none of its bits for one that only takes another back.
pub(super) fn superblock_flag(name: &CStr) -> Option<MsFlags> {
    let flag = match name.to_bytes() {
        b"dirsync" => MsFlags::MS_DIRSYNC,
        b"lazytime" => MsFlags::MS_LAZYTIME,
        b"mand" => MsFlags::MS_MANDLOCK,
        b"sync" => MsFlags::MS_SYNCHRONOUS,
        b"async" | b"nolazytime" | b"nomand" => MsFlags::empty(),
        _ => return None,
    };
    Some(flag)
}

/// The options of one mount, sorted out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Options {
    /// Of the mount itself.
    pub attributes: MountAttr,
    /// Of the mount and those below it, and the last option that said so.
    pub recursive: MountAttr,
    pub recursive_option: &'static str,
    /// In the order given.
    pub propagation: Vec<rootfs::Propagation>,
    /// `Some(recursive)` for a bind mount.
    pub bind: Option<bool>,
    /// `Some(recursive)` for a mount with mapped ids.
    pub idmap: Option<bool>,
    /// Changes a mount that is there.
    pub remount: bool,
    /// Fills a tmpfs with what it hides.
    pub copy_up: bool,
    /// For the file system: `key` or `key=value`.
    pub data: Vec<(CString, Option<CString>)>,
}

impl Options {
    /// Sorts a list of options out. The error is the option that contains a null byte.
    pub(crate) fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut parsed = Options::default();
        // One element may hold several options, as mount(8) writes them.
        for option in options
            .into_iter()
            .flat_map(split)
            .filter(|option| !option.is_empty())
        {
            match TABLE.binary_search_by_key(&option, |(name, _)| name) {
                Ok(at) => parsed.apply(TABLE[at]),
                Err(_) => parsed.hand_on(option)?,
            }
        }
        Ok(parsed)
    }

    /// Those that SELinux takes.
    pub(super) fn contexts(&self) -> impl Iterator<Item = &(CString, Option<CString>)> {
        self.data.iter().filter(|(key, _)| is_context(key))
    }

    fn apply(&mut self, (name, effect): (&'static str, Effect)) {
        if matches!(effect, SetAll(_) | ClearAll(_) | AtimeAll(_)) {
            self.recursive_option = name;
        }
        match effect {
            Set(bits) => set(&mut self.attributes, bits, 0),
            Clear(bits) => set(&mut self.attributes, 0, bits),
            Atime(policy) => set(&mut self.attributes, policy, ATIME),
            SetAll(bits) => set(&mut self.recursive, bits, 0),
            ClearAll(bits) => set(&mut self.recursive, 0, bits),
            AtimeAll(policy) => set(&mut self.recursive, policy, ATIME),
            Superblock => self
                .data
                .extend(CString::new(name).ok().map(|name| (name, None))),
            Bind { recursive } => self.bind = Some(recursive),
            IdMap { recursive } => self.idmap = Some(recursive),
            Remount => self.remount = true,
            CopyUp => self.copy_up = true,
            Propagation => self.propagation.extend(rootfs::Propagation::parse(name)),
            Nothing => {}
        }
    }

    fn hand_on(&mut self, option: &str) -> Result<(), String> {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        let c_string =
            |text: &str| CString::new(text).map_err(|_| option.escape_default().to_string());
        let key = c_string(key)?;
        // SELinux takes the quotes off that mount(2) needs, fsconfig(2) wants none.
        let value = value.map(|value| match is_context(&key) {
            true => value.trim_matches('"'),
            false => value,
        });
        self.data.push((key, value.map(c_string).transpose()?));
        Ok(())
    }
}

/// A later option overrides an earlier one. (mount_setattr(2) clears first, then sets.)
fn set(attributes: &mut MountAttr, set: u64, clear: u64) {
    attributes.set = attributes.set & !clear | set;
    attributes.clear = attributes.clear & !set | clear;
}

/// Splits at commas that are neither quoted (SELinux's `context="a:b:c0,c1"`) nor escaped (overlay's `lowerdir=a\,b`).
fn split(options: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in options.bytes().enumerate() {
        match byte {
            b'\\' if !escaped => {
                escaped = true;
                continue;
            }
            b'"' if !escaped => quoted = !quoted,
            b',' if !escaped && !quoted => {
                parts.push(&options[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        escaped = false;
    }
    parts.push(&options[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn later_options_win() {
        let options = Options::parse(["ro", "nosuid", "rw"]).unwrap();
        assert_eq!(
            (options.attributes.set, options.attributes.clear),
            (NOSUID, RDONLY)
        );
        let options = Options::parse(["noatime", "strictatime"]).unwrap();
        assert_eq!(
            (options.attributes.set, options.attributes.clear),
            (STRICTATIME, ATIME)
        );
    }

    #[test]
    fn recursion_is_kept_apart() {
        let options = Options::parse(["rbind", "rro", "nodev", "rprivate"]).unwrap();
        assert_eq!(options.bind, Some(true));
        assert_eq!(
            (options.recursive.set, options.attributes.set),
            (RDONLY, NODEV)
        );
        assert!(options.propagation[0].recursive);
        // A plain bind with rprivate stays a plain bind.
        assert_eq!(
            Options::parse(["bind", "rprivate"]).unwrap().bind,
            Some(false)
        );
    }

    #[test]
    fn what_the_file_system_gets() {
        let options = Options::parse([
            "mode=755,size=64k",
            "context=\"u:r:t:s0:c1,c2\"",
            "lowerdir=a\\,b",
            "ro",
        ])
        .unwrap();
        let data: Vec<_> = options
            .data
            .iter()
            .map(|(key, value)| {
                (
                    key.to_str().unwrap(),
                    value
                        .as_ref()
                        .map(|v| v.to_str().unwrap())
                        .unwrap_or_default(),
                )
            })
            .collect();
        let expected = [
            ("mode", "755"),
            ("size", "64k"),
            ("context", "u:r:t:s0:c1,c2"),
            ("lowerdir", "a\\,b"),
        ];
        assert_eq!(data, expected);
        assert!(Options::parse(["a\0b"]).is_err());
    }
}
