//! Device nodes in the container's /dev (runtime-spec config-linux.md "Devices" and "Default Devices").

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, makedev, mknodat};
use nix::unistd::{AccessFlags, Gid, Uid, UnlinkatFlags, access, fchownat, symlinkat, unlinkat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use crate::masks::Known;
use crate::rootfs::Root;
use crate::sys::mount::{attach, clone_tree};
use crate::sys::process::leave;
use crate::{Context, Error, Result};

/// One device node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Device {
    pub path: PathBuf,
    kind: SFlag,
    number: libc::dev_t,
    mode: Mode,
    uid: u32,
    gid: u32,
}

/// The devices that every container has.
const DEFAULT: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Where it is, /dev has a link to it.
pub(crate) const KCORE: &str = "/proc/kcore";

/// The configured devices and those default ones that are not configured otherwise.
pub(crate) fn with_defaults(configured: &[LinuxDevice]) -> Result<Vec<Device>> {
    let mut devices = Vec::with_capacity(DEFAULT.len() + configured.len());
    for (index, device) in configured.iter().enumerate() {
        devices.push(Device::new(index, device)?);
    }
    for (path, major, minor) in DEFAULT {
        if !devices
            .iter()
            .any(|device: &Device| device.path == Path::new(path))
        {
            let mode = Mode::from_bits_truncate(0o666);
            devices.push(Device {
                path: path.into(),
                kind: SFlag::S_IFCHR,
                number: makedev(major, minor),
                mode,
                uid: 0,
                gid: 0,
            });
        }
    }
    Ok(devices)
}

impl Device {
    fn new(index: usize, device: &LinuxDevice) -> Result<Self> {
        let invalid = |field: &str, text: &str| {
            Error::invalid(format!("linux.devices[{index}].{field}: {text}"))
        };
        if !device.path().is_absolute() {
            return Err(invalid("path", "must be absolute"));
        }
        let number =
            |field, value: i64| u32::try_from(value).map_err(|_| invalid(field, "out of range"));
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
            LinuxDeviceType::B => SFlag::S_IFBLK,
            LinuxDeviceType::P => SFlag::S_IFIFO,
            LinuxDeviceType::A => {
                return Err(invalid("type", "a is for cgroup rules, not for a device"));
            }
        };
        Ok(Device {
            path: super::mounts::clean(device.path()),
            kind,
            number: makedev(
                number("major", device.major())?.into(),
                number("minor", device.minor())?.into(),
            ),
            mode: Mode::from_bits_truncate(device.file_mode().unwrap_or(0o666)),
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        })
    }

    /// In a user namespace no device can be made: the host's is bound. Its path must be opened while it still is the host's.
    pub(crate) fn open_source(&self) -> Result<OwnedFd> {
        let path = CString::new(self.path.as_os_str().as_encoded_bytes()).map_err(|_| {
            Error::invalid(format!(
                "linux.devices: path {} contains a null byte",
                self.path.display()
            ))
        })?;
        let bound = match clone_tree(AT_FDCWD, &path, false) {
            Err(Errno::ENOENT) => {
                return Err(Error::failed(format!(
                    "{}: the host has none there, and in a user namespace none can be made, only the host's bound",
                    self.describe()
                )));
            }
            bound => bound.with_context(|| self.describe())?,
        };
        match self.is(fstat(&bound).with_context(|| self.describe())?) {
            true => Ok(bound),
            false => Err(Error::failed(format!(
                "{}: the host has something else there, and in a user namespace none can be made, only the host's bound",
                self.describe()
            ))),
        }
    }

    /// Whether a file is this device.
    fn is(&self, there: FileStat) -> bool {
        let same_kind = SFlag::from_bits_truncate(there.st_mode) & SFlag::S_IFMT == self.kind;
        same_kind && (self.kind == SFlag::S_IFIFO || there.st_rdev == self.number)
    }

    /// Whether it is the null device, at its place.
    fn is_null(&self) -> bool {
        let (path, major, minor) = DEFAULT[0];
        self.path == Path::new(path)
            && self.kind == SFlag::S_IFCHR
            && self.number == makedev(major, minor)
    }

    /// Binds `source` inside `root`.
    fn bind(&self, root: &Root, source: &OwnedFd) -> Result<()> {
        root.ensure_file(&self.path)
            .and_then(|place| attach(source.as_fd(), place.as_fd()))
            .with_context(|| self.describe())
    }

    /// Makes the node in the directory that holds it.
    fn make(&self, parent: &OwnedFd) -> Result<()> {
        let name = self.path.file_name().ok_or(Errno::EINVAL);
        let name = name.with_context(|| self.describe())?;
        match mknodat(parent, name, self.kind, self.mode, self.number) {
            Ok(()) => {}
            // The image has something there: fine if it is the same device, and never silently taken for it otherwise.
            Err(Errno::EEXIST) => return self.check_existing(parent, name),
            Err(error) => return Err(error).with_context(|| self.describe()),
        }
        if self.uid != 0 || self.gid != 0 {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            fchownat(
                parent,
                name,
                Some(uid),
                Some(gid),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )
            .with_context(|| self.describe())?;
            // A change of owner clears bits of the mode.
            fchmodat(parent, name, self.mode, FchmodatFlags::FollowSymlink)
                .with_context(|| self.describe())?;
        }
        Ok(())
    }

    fn check_existing(&self, parent: &OwnedFd, name: &std::ffi::OsStr) -> Result<()> {
        let there = openat(
            parent,
            name,
            OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .and_then(fstat)
        .with_context(|| self.describe())?;
        match self.is(there) {
            true => Ok(()),
            false => Err(Error::failed(format!(
                "{}: the image has something else there",
                self.describe()
            ))),
        }
    }

    fn describe(&self) -> String {
        format!("linux.devices: create {}", self.path.display())
    }
}

/// The directory that was looked up last: several devices in a row are in the same one.
struct Last<'a> {
    path: &'a Path,
    directory: OwnedFd,
    /// It is that of a file system which was made in here.
    is_new: bool,
}

/// Makes all devices inside `root`, or binds `sources` there, and the symbolic links of /dev. A /dev that was made here, with
/// its null device, is known from then on.
pub(crate) fn create(
    devices: &[Device],
    sources: &[OwnedFd],
    root: &Root,
    known: &mut Known,
) -> Result<()> {
    let mut last: Option<Last<'_>> = None;
    for (index, device) in devices.iter().enumerate() {
        if let Some(source) = sources.get(index) {
            device.bind(root, source)?;
            continue;
        }
        let path = device.path.parent().unwrap_or(Path::new("/"));
        let parent = look_up(&mut last, path, root).with_context(|| device.describe())?;
        device.make(&parent.directory)?;
    }
    let dev = look_up(&mut last, Path::new("/dev"), root).context("create /dev")?;
    create_links(&dev.directory, known)?;
    let has_null = || sources.is_empty() && devices.iter().any(Device::is_null);
    match last {
        Some(dev) if dev.is_new && has_null() => known.dev = Some(dev.directory),
        last => last.into_iter().for_each(|last| leave(last.directory)),
    }
    Ok(())
}

/// The directory at `path`, made where missing.
fn look_up<'a, 'b>(
    last: &'b mut Option<Last<'a>>,
    path: &'a Path,
    root: &Root,
) -> nix::Result<&'b Last<'a>> {
    let found = match last.take() {
        Some(last) if last.path == path => last,
        _ => {
            let new = root.take_new(path);
            let is_new = new.is_some();
            let directory = new.map_or_else(|| root.ensure_directory(path), Ok)?;
            Last {
                path,
                directory,
                is_new,
            }
        }
    };
    Ok(last.insert(found))
}

/// The symbolic links of /dev.
fn create_links(dev: &OwnedFd, known: &Known) -> Result<()> {
    let has_kcore = match &known.proc {
        Some(proc) => proc.has(KCORE),
        None => access(KCORE, AccessFlags::F_OK).is_ok(),
    };
    let kcore = has_kcore.then_some((KCORE, "core"));
    for (target, link) in LINKS.into_iter().chain(kcore) {
        let linked = match symlinkat(target, dev, link) {
            // The image may bring a ptmx of its own; the container's is the one of its devpts.
            Err(Errno::EEXIST) if link == "ptmx" => unlinkat(dev, link, UnlinkatFlags::NoRemoveDir)
                .and_then(|()| symlinkat(target, dev, link)),
            Err(Errno::EEXIST) => Ok(()),
            linked => linked,
        };
        linked.with_context(|| format!("create /dev/{link}"))?;
    }
    Ok(())
}

/// Whether an open file is the character device with this number.
pub(crate) fn is_character_device(file: impl AsFd, major: u64, minor: u64) -> nix::Result<bool> {
    let stat = fstat(file)?;
    let is_character = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    Ok(is_character && stat.st_rdev == makedev(major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn configured_devices_replace_default_ones() {
        let configured: Vec<LinuxDevice> = serde_json::from_value(json!([
            { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 384, "uid": 5 },
            { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 },
        ]))
        .unwrap();
        let devices = with_defaults(&configured).unwrap();
        assert_eq!(devices.len(), 7);
        assert_eq!(
            (devices[0].mode, devices[0].uid),
            (Mode::from_bits_truncate(0o600), 5)
        );
    }

    #[test]
    fn refused() {
        let device = |json| {
            with_defaults(&[serde_json::from_value(json).unwrap()])
                .unwrap_err()
                .to_string()
        };
        assert!(
            device(json!({ "path": "dev/x", "type": "c" })).starts_with("linux.devices[0].path: ")
        );
        assert!(
            device(json!({ "path": "/x", "type": "c", "major": -1 }))
                .starts_with("linux.devices[0].major: ")
        );
        assert!(
            device(json!({ "path": "/x", "type": "a" })).starts_with("linux.devices[0].type: ")
        );
    }
}
