//! `linux.maskedPaths` and `linux.readonlyPaths`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};

use crate::mounts::options::RDONLY;
use crate::rootfs::Root;
use crate::sys::mount::{FsContext, MountAttr, attach, clone_tree, set_attributes};
use crate::{Context, Error, Result, devices};

/// Hides paths: files behind /dev/null, directories behind one empty read-only tmpfs. Missing ones are left alone.
pub(crate) fn mask(root: &Root, paths: &[String]) -> Result<()> {
    let (mut null, mut empty) = (None, None);
    for path in paths {
        let masking = || format!("linux.maskedPaths: mask {path}");
        let Some(place) = open_existing(root, path).with_context(masking)? else {
            continue;
        };
        // Looked at before: a bind that fails with ENOTDIR costs far more than a stat.
        let mode = fstat(&place).with_context(masking)?.st_mode;
        let cover = match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => first_or_clone(&mut empty, empty_directory).with_context(masking)?,
            _ => first_or_clone(&mut null, || null_device(root))?,
        };
        attach(cover.as_fd(), place.as_fd()).with_context(masking)?;
    }
    Ok(())
}

/// Makes paths read-only, with what is mounted below them. Missing ones are left alone.
pub(crate) fn make_readonly(root: &Root, paths: &[String]) -> Result<()> {
    let readonly = MountAttr {
        set: RDONLY,
        ..MountAttr::default()
    };
    for path in paths {
        let changing = || format!("linux.readonlyPaths: make {path} read-only");
        let Some(place) = open_existing(root, path).with_context(changing)? else {
            continue;
        };
        let tree = clone_tree(&place, c"", true).with_context(changing)?;
        attach(tree.as_fd(), place.as_fd()).with_context(changing)?;
        match set_attributes(tree.as_fd(), true, &readonly) {
            // Before Linux 5.12 only the mount itself, as with other runtimes.
            Err(Errno::ENOSYS) => set_attributes(tree.as_fd(), false, &readonly),
            set => set,
        }
        .with_context(changing)?;
    }
    Ok(())
}

fn open_existing(root: &Root, path: &str) -> nix::Result<Option<OwnedFd>> {
    match root.open_path(Path::new(path), OFlag::O_PATH) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The cover is made once; each further place gets a copy of that mount.
fn first_or_clone<E: crate::error::IntoCause>(
    cover: &mut Option<OwnedFd>,
    make: impl FnOnce() -> Result<OwnedFd, E>,
) -> Result<OwnedFd> {
    let first = match cover {
        Some(first) => first,
        None => cover.insert(make().context("make the cover")?),
    };
    clone_tree(&*first, c"", false).context("copy the cover")
}

fn empty_directory() -> nix::Result<OwnedFd> {
    let context = FsContext::open(c"tmpfs")?;
    context.set(c"nr_inodes", Some(c"1"))?;
    context.set(c"mode", Some(c"755"))?;
    context.mount(RDONLY)
}

/// The container's own /dev/null, if it is one (CVE-2025-31133: an image may put a symbolic link there).
fn null_device(root: &Root) -> Result<OwnedFd> {
    let checking = "linux.maskedPaths: use /dev/null";
    let null = root
        .open_ordinary(Path::new("/dev/null"), OFlag::O_PATH)
        .context(checking)?;
    match devices::is_character_device(&null, 1, 3).context(checking)? {
        true => clone_tree(&null, c"", false).context(checking),
        false => Err(Error::failed(format!(
            "{checking}: it is not the null device"
        ))),
    }
}
