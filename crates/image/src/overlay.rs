//! Layers and a container's own changes as one tree: a mount of overlayfs.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::MsFlags;

use crate::error::{Context, Error, Result};
use crate::sys;

/// The longest value that fsconfig(2) takes.
const LONGEST_VALUE: usize = 255;
/// What mount(2) reads of its options: a page.
const LONGEST_OPTIONS: usize = 4096;

/// A directory that the mount refers to, open.
struct Directory<'a> {
    path: &'a Path,
    fd: OwnedFd,
}

impl<'a> Directory<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).context(|| format!("open {}", path.display()))?;
        Ok(Directory {
            path,
            fd: file.into(),
        })
    }

    /// The path, by which people recognize it in /proc/mounts; where that is too long, by way of the descriptor.
    fn value(&self) -> Vec<u8> {
        match self.path.as_os_str().as_bytes() {
            path if path.len() <= LONGEST_VALUE => path.to_vec(),
            _ => self.descriptor().into_bytes(),
        }
    }

    fn descriptor(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }
}

/// Mounts the layers `lower` (the topmost first) with the changes of a container in `upper` at `target`.
///
/// `work` is an empty directory on the file system of `upper`. With `rootless` the attributes of overlayfs are `user.overlay.…`, as they
/// have to be in every mount inside a user namespace (Linux 5.11).
pub fn mount(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    rootless: bool,
) -> Result<()> {
    let mounting = || format!("mount {} layers at {}", lower.len(), target.display());
    if lower.is_empty() {
        return Err(Error::invalid("an image without layers")).context(mounting);
    }
    let lower: Vec<_> = lower
        .iter()
        .map(|path| Directory::open(path))
        .collect::<Result<_>>()?;
    let (upper, work) = (Directory::open(upper)?, Directory::open(work)?);
    let place = Directory::open(target)?;
    let mounted = match by_parameters(&lower, &upper, &work, rootless) {
        Ok(mount) => sys::move_mount(mount.as_fd(), place.fd.as_fd()),
        // Before Linux 6.5 overlayfs takes its layers in one option only.
        Err(Errno::EINVAL | Errno::ENOSYS) => by_options(&lower, &upper, &work, &place, rootless),
        Err(error) => Err(error),
    };
    let remedy = match mounted {
        Err(Errno::EPERM) if rootless => {
            " in a user namespace, which takes Linux 5.11 (before, unpack the image, and run it with --rootfs)"
        }
        _ => "",
    };
    mounted.context(|| mounting() + remedy)
}

/// Each layer in a parameter of its own: as many as overlayfs takes (500), however long their paths are.
fn by_parameters(
    lower: &[Directory<'_>],
    upper: &Directory<'_>,
    work: &Directory<'_>,
    userxattr: bool,
) -> nix::Result<OwnedFd> {
    let context = sys::fsopen(c"overlay")?;
    let set = |name, value: &[u8]| sys::fsconfig_string(context.as_fd(), name, value);
    set(c"source", b"coracle")?;
    for layer in lower {
        set(c"lowerdir+", &layer.value())?;
    }
    set(c"upperdir", &upper.value())?;
    set(c"workdir", &work.value())?;
    if userxattr {
        sys::fsconfig_flag(context.as_fd(), c"userxattr")?;
    }
    sys::fsconfig_create(context.as_fd())?;
    sys::fsmount(context.as_fd())
}

/// All layers in one option, by their descriptors' paths: the options of a mount have room for some 200.
fn by_options(
    lower: &[Directory<'_>],
    upper: &Directory<'_>,
    work: &Directory<'_>,
    target: &Directory<'_>,
    userxattr: bool,
) -> nix::Result<()> {
    let lower: Vec<_> = lower.iter().map(Directory::descriptor).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}{}",
        lower.join(":"),
        upper.descriptor(),
        work.descriptor(),
        if userxattr { ",userxattr" } else { "" },
    );
    // The kernel would ignore the rest.
    if options.len() >= LONGEST_OPTIONS {
        return Err(Errno::E2BIG);
    }
    nix::mount::mount(
        Some("coracle"),
        target.descriptor().as_str(),
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Both ways, with more layers than fit into a page by their paths.
    #[test]
    fn many_layers_are_mounted() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: mounting needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let make = |name: String| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let lower: Vec<_> = (0..130)
            .map(|number| {
                let path = make(format!("sha256-{number:064}"));
                fs::write(path.join(number.to_string()), "").unwrap();
                fs::write(path.join("top"), number.to_string()).unwrap();
                path
            })
            .collect();
        for options in [false, true] {
            let name = |part: &str| format!("{part}-{options}");
            let (upper, work) = (make(name("upper")), make(name("work")));
            let target = make(name("target"));
            let mounted = if options {
                let lower: Vec<_> = lower
                    .iter()
                    .map(|path| Directory::open(path).unwrap())
                    .collect();
                let (upper, work) = (
                    Directory::open(&upper).unwrap(),
                    Directory::open(&work).unwrap(),
                );
                by_options(
                    &lower,
                    &upper,
                    &work,
                    &Directory::open(&target).unwrap(),
                    false,
                )
                .context(|| "mount")
            } else {
                mount(&lower, &upper, &work, &target, false)
            };
            let found = mounted.map(|()| {
                let count = fs::read_dir(&target).unwrap().count();
                let top = fs::read_to_string(target.join("top")).unwrap();
                nix::mount::umount(&target).unwrap();
                (count, top)
            });
            assert_eq!(found.unwrap(), (131, "0".to_owned()));
        }
    }
}
