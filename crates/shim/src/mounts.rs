//! The root file system as containerd describes it: mounts that this shim makes and takes away.

use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Context, Failure, Result};
use crate::idmap::{Ids, Layers};
use crate::protos::task::Mount;

/// More than mount(2) takes in one page.
const MAX_DATA: usize = 4095;

/// Makes them all on `rootfs`. What was made before an error is taken away again.
pub(crate) fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    mounts
        .iter()
        .try_for_each(|mount| make(mount, rootfs))
        .inspect_err(|_| {
            if let Err(error) = unmount_all(rootfs) {
                log::warn!("{error}");
            }
        })
}

fn make(wanted: &Mount, rootfs: &Path) -> Result<()> {
    let target = below(rootfs, &wanted.target)?;
    if !wanted.target.is_empty() {
        fs::create_dir_all(&target).context(|| format!("make {}", target.display()))?;
    }
    let mut options = Options::parse(&wanted.options);
    let ids = options
        .ids
        .take()
        .map(|(uids, gids)| Ids::new(&uids, &gids))
        .transpose()?;
    // Until the overlay is mounted.
    let _layers = match &ids {
        Some(ids) if wanted.kind == "overlay" => {
            Some(options.map_layers(ids, &place_of_layers(rootfs))?)
        }
        _ => None,
    };
    let failed = |errno: Errno| {
        let Mount { kind, source, .. } = wanted;
        Failure::unknown(format!(
            "mount {kind} {source:?} on {}: {errno}",
            target.display()
        ))
    };
    let directory = options.shorten();
    let mounted = match &directory {
        None => options.mount(wanted, &target),
        Some(directory) => from(directory, || options.mount(wanted, &target)),
    };
    mounted.map_err(failed)?;
    match ids {
        Some(ids) if wanted.kind != "overlay" => ids.mount(&target, &target),
        _ => Ok(()),
    }
}

/// Where layers are while their ids are mapped: beside the root.
pub(crate) fn place_of_layers(rootfs: &Path) -> PathBuf {
    rootfs.with_file_name("layers")
}

/// The place of a mount inside the root file system.
fn below(rootfs: &Path, target: &str) -> Result<PathBuf> {
    let inner: PathBuf = Path::new(target)
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .collect();
    let leads_out = inner.components().any(|part| part == Component::ParentDir);
    if leads_out {
        return Err(Failure::invalid(format!(
            "rootfs: target {target:?} leads out of it"
        )));
    }
    Ok(match target.is_empty() {
        true => rootfs.to_owned(),
        false => rootfs.join(inner),
    })
}

/// With another current directory: this process has one thread.
fn from<T>(directory: &Path, action: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let before = nix::fcntl::open(
        ".",
        nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?;
    nix::unistd::chdir(directory)?;
    let result = action();
    nix::unistd::fchdir(&before)?;
    result
}

/// Mount options, the kernel's flags told apart from what the file system reads.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MsFlags,
    propagation: MsFlags,
    /// Maps of user and of group ids.
    ids: Option<(String, String)>,
    data: Vec<String>,
}

impl Options {
    fn parse(options: &[String]) -> Options {
        let mut parsed = Options {
            flags: MsFlags::empty(),
            propagation: MsFlags::empty(),
            ids: None,
            data: Vec::new(),
        };
        let (mut uids, mut gids) = (None, None);
        for option in options {
            if let Some((set, flag)) = flag(option) {
                parsed.flags.set(flag, set);
            } else if let Some(flag) = propagation(option) {
                parsed.propagation |= flag;
            } else if let Some(map) = option.strip_prefix("uidmap=") {
                uids = Some(map.to_owned());
            } else if let Some(map) = option.strip_prefix("gidmap=") {
                gids = Some(map.to_owned());
            } else if !matches!(&**option, "" | "defaults" | "loop") {
                parsed.data.push(option.clone());
            }
        }
        parsed.ids = uids.zip(gids);
        parsed
    }

    /// Which option names the layers of an overlay, and the layers.
    fn layers(&self) -> Option<(usize, Vec<&Path>)> {
        let mut options = self.data.iter().enumerate();
        options.find_map(|(at, option)| {
            let layers = option.strip_prefix("lowerdir=")?;
            Some((at, layers.split(':').map(Path::new).collect()))
        })
    }

    /// Puts layers with mapped ids in the place of the layers.
    fn map_layers(&mut self, ids: &Ids, directory: &Path) -> Result<Layers> {
        let none = || Failure::invalid("rootfs: an overlay with mapped ids has no lowerdir");
        let (at, layers) = self.layers().ok_or_else(none)?;
        let mapped = Layers::mount(&layers, ids, directory)?;
        let places: Vec<String> = (0..layers.len())
            .map(|number| mapped.place(number).display().to_string())
            .collect();
        self.data[at] = format!("lowerdir={}", places.join(":"));
        Ok(mapped)
    }

    fn mount(&self, wanted: &Mount, target: &Path) -> nix::Result<()> {
        let data = self.data.join(",");
        let data = (!data.is_empty()).then_some(&*data);
        let (source, kind) = (&*wanted.source, &*wanted.kind);
        mount(Some(source), target, Some(kind), self.flags, data)?;
        const BIND_READ_ONLY: MsFlags = MsFlags::MS_BIND.union(MsFlags::MS_RDONLY);
        if self.flags.contains(BIND_READ_ONLY) {
            // The first call ignores whatever else it is to be.
            mount(
                Some(""),
                target,
                Some(""),
                self.flags | MsFlags::MS_REMOUNT,
                None::<&str>,
            )?;
        }
        if !self.propagation.is_empty() {
            mount(Some(""), target, Some(""), self.propagation, None::<&str>)?;
        }
        Ok(())
    }

    /// Where the layers of an overlay are too many for one page: names them relative to the directory that all of them have in common,
    /// and tells it.
    fn shorten(&mut self) -> Option<PathBuf> {
        let length: usize = self.data.iter().map(|option| option.len() + 1).sum();
        if length <= MAX_DATA {
            return None;
        }
        let (at, layers) = self.layers()?;
        let common = common_directory(&layers)?;
        let short: Option<Vec<&str>> = layers
            .iter()
            .map(|layer| layer.strip_prefix(&common).ok()?.to_str())
            .collect();
        self.data[at] = format!("lowerdir={}", short?.join(":"));
        Some(common)
    }
}

/// The deepest directory that is above all of them.
fn common_directory(paths: &[&Path]) -> Option<PathBuf> {
    let first = paths.first()?.parent()?;
    let mut above = first.ancestors();
    above
        .find(|directory| {
            paths
                .iter()
                .all(|path| path.starts_with(directory) && path != directory)
        })
        .filter(|directory| directory.is_absolute())
        .map(Path::to_owned)
}

/// What an option does to a flag.
fn flag(option: &str) -> Option<(bool, MsFlags)> {
    Some(match option {
        "async" => (false, MsFlags::MS_SYNCHRONOUS),
        "atime" => (false, MsFlags::MS_NOATIME),
        "bind" => (true, MsFlags::MS_BIND),
        "dev" => (false, MsFlags::MS_NODEV),
        "diratime" => (false, MsFlags::MS_NODIRATIME),
        "dirsync" => (true, MsFlags::MS_DIRSYNC),
        "exec" => (false, MsFlags::MS_NOEXEC),
        "mand" => (true, MsFlags::MS_MANDLOCK),
        "noatime" => (true, MsFlags::MS_NOATIME),
        "nodev" => (true, MsFlags::MS_NODEV),
        "nodiratime" => (true, MsFlags::MS_NODIRATIME),
        "noexec" => (true, MsFlags::MS_NOEXEC),
        "nomand" => (false, MsFlags::MS_MANDLOCK),
        "norelatime" => (false, MsFlags::MS_RELATIME),
        "nostrictatime" => (false, MsFlags::MS_STRICTATIME),
        "nosuid" => (true, MsFlags::MS_NOSUID),
        "rbind" => (true, MsFlags::MS_BIND.union(MsFlags::MS_REC)),
        "relatime" => (true, MsFlags::MS_RELATIME),
        "remount" => (true, MsFlags::MS_REMOUNT),
        "ro" => (true, MsFlags::MS_RDONLY),
        "rw" => (false, MsFlags::MS_RDONLY),
        "strictatime" => (true, MsFlags::MS_STRICTATIME),
        "suid" => (false, MsFlags::MS_NOSUID),
        "sync" => (true, MsFlags::MS_SYNCHRONOUS),
        _ => return None,
    })
}

fn propagation(option: &str) -> Option<MsFlags> {
    Some(match option {
        "private" => MsFlags::MS_PRIVATE,
        "rprivate" => MsFlags::MS_PRIVATE | MsFlags::MS_REC,
        "shared" => MsFlags::MS_SHARED,
        "rshared" => MsFlags::MS_SHARED | MsFlags::MS_REC,
        "slave" => MsFlags::MS_SLAVE,
        "rslave" => MsFlags::MS_SLAVE | MsFlags::MS_REC,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        "runbindable" => MsFlags::MS_UNBINDABLE | MsFlags::MS_REC,
        _ => return None,
    })
}

/// Unmounts whatever is on a directory, with what is mounted below that. What is busy goes when its last user goes.
pub(crate) fn unmount_all(rootfs: &Path) -> Result<()> {
    let mut flags = MntFlags::UMOUNT_NOFOLLOW;
    loop {
        match umount2(rootfs, flags) {
            // There may be another one underneath.
            Ok(()) => flags = MntFlags::UMOUNT_NOFOLLOW,
            // Used by somebody, or by a mount below it: both end with it.
            Err(Errno::EBUSY) if !flags.contains(MntFlags::MNT_DETACH) => {
                flags |= MntFlags::MNT_DETACH;
            }
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno).context(|| format!("unmount {}", rootfs.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Options {
        Options::parse(
            &list
                .iter()
                .map(|&option| option.to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn flags_are_told_from_data() {
        let parsed = options(&[
            "ro",
            "rbind",
            "rprivate",
            "index=off",
            "lowerdir=/a:/b",
            "defaults",
            "suid",
        ]);
        assert_eq!(
            parsed.flags,
            MsFlags::MS_RDONLY | MsFlags::MS_BIND | MsFlags::MS_REC
        );
        assert_eq!(parsed.propagation, MsFlags::MS_PRIVATE | MsFlags::MS_REC);
        assert_eq!(parsed.data, ["index=off", "lowerdir=/a:/b"]);
        assert_eq!(options(&["ro", "rw"]).flags, MsFlags::empty());
    }

    #[test]
    fn many_layers_are_named_by_what_they_do_not_have_in_common() {
        let layers: Vec<String> = (0..100)
            .map(|number| format!("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/{number}/fs"))
            .collect();
        let mut long = options(&["workdir=/w", &format!("lowerdir={}", layers.join(":"))]);
        let common = long.shorten().unwrap();
        assert!(common.ends_with("snapshots"));
        assert!(long.data[1].starts_with("lowerdir=0/fs:1/fs:"));
        assert_eq!(options(&["lowerdir=/a/b:/a/c"]).shorten(), None);
    }

    #[test]
    fn maps_of_ids_come_in_pairs() {
        let both = options(&["uidmap=0:1:2", "gidmap=0:3:4", "lowerdir=/a"]);
        assert_eq!(both.ids, Some(("0:1:2".to_owned(), "0:3:4".to_owned())));
        assert_eq!(both.data, ["lowerdir=/a"]);
        assert_eq!(options(&["uidmap=0:1:2"]).ids, None);
    }

    #[test]
    fn targets_stay_inside() {
        let rootfs = Path::new("/b/rootfs");
        assert_eq!(below(rootfs, "").unwrap(), rootfs);
        assert_eq!(
            below(rootfs, "/etc/x").unwrap(),
            Path::new("/b/rootfs/etc/x")
        );
        assert!(below(rootfs, "a/../../x").is_err());
    }
}
