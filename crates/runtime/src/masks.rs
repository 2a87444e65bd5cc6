//! `linux.maskedPaths` and `linux.readonlyPaths`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::lsm::MountLabel;
use crate::mounts::options::RDONLY;
use crate::rootfs::Root;
use crate::sys::mount::{
    FsContext, MountAttr, attach, clone_tree, clone_tree_with, set_attributes,
};
use crate::sys::process::leave;
use crate::{Context, Error, Result, devices};

/// Hides paths: files behind /dev/null, directories behind one empty read-only tmpfs with that label. Missing ones are left alone.
pub(crate) fn mask(root: &Root, paths: &[String], label: Option<&MountLabel>) -> Result<()> {
    let (mut null, mut empty) = (None, None);
    for path in paths {
        let masking = || format!("linux.maskedPaths: mask {path}");
        // Looked at before: a bind that fails with ENOTDIR costs far more than a second look.
        let place = match root.open_path(Path::new(path), OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(directory) => {
                cover_directory(&mut empty, &directory, label).with_context(masking)?;
                leave(directory);
                continue;
            }
            Err(Errno::ENOENT) => continue,
            Err(Errno::ENOTDIR) => open_existing(root, path).with_context(masking)?,
            Err(error) => return Err(error).with_context(masking),
        };
        if let Some(place) = place {
            let null = match &null {
                Some(null) => null,
                None => null.insert(null_device(root)?),
            };
            clone_tree(null, c"", false)
                .and_then(|cover| attach(cover.as_fd(), place.as_fd()).map(|()| leave(cover)))
                .with_context(masking)?;
            leave(place);
        }
    }
    null.into_iter().chain(empty).for_each(leave);
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
        let tree = match clone_tree_with(&place, c"", true, &readonly) {
            Ok(tree) => attach(tree.as_fd(), place.as_fd()).map(|()| tree),
            Err(Errno::ENOSYS) => bind_readonly(&place, &readonly),
            Err(error) => Err(error),
        };
        leave(tree.with_context(changing)?);
        leave(place);
    }
    Ok(())
}

/// The same where a copy of a mount cannot have attributes from birth: before Linux 5.12 they are only set once it is attached, and
/// only those of the mount itself, as with other runtimes.
fn bind_readonly(place: &OwnedFd, readonly: &MountAttr) -> nix::Result<OwnedFd> {
    let tree = clone_tree(place, c"", true)?;
    attach(tree.as_fd(), place.as_fd())?;
    match set_attributes(tree.as_fd(), true, readonly) {
        Err(Errno::ENOSYS) => set_attributes(tree.as_fd(), false, readonly),
        set => set,
    }
    .map(|()| tree)
}

fn open_existing(root: &Root, path: &str) -> nix::Result<Option<OwnedFd>> {
    match root.open_path(Path::new(path), OFlag::O_PATH) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// One empty read-only tmpfs covers them all. It is copied from where it is attached first, since a detached mount can be copied only from
/// Linux 6.15 on.
fn cover_directory(
    empty: &mut Option<OwnedFd>,
    place: &OwnedFd,
    label: Option<&MountLabel>,
) -> nix::Result<()> {
    let Some(attached) = empty else {
        let context = FsContext::open(c"tmpfs")?;
        context.set(c"nr_inodes", Some(c"1"))?;
        context.set(c"mode", Some(c"755"))?;
        if let Some(MountLabel { option, label }) = label {
            context.set(option, Some(label))?;
        }
        let made = context.mount(RDONLY)?;
        context.leave();
        attach(made.as_fd(), place.as_fd())?;
        *empty = Some(made);
        return Ok(());
    };
    let cover = clone_tree(attached, c"", false)?;
    attach(cover.as_fd(), place.as_fd()).map(|()| leave(cover))
}

/// The container's own /dev/null, if it is one (CVE-2025-31133: an image may put a symbolic link there).
fn null_device(root: &Root) -> Result<OwnedFd> {
    let checking = "linux.maskedPaths: use /dev/null";
    let null = root
        .open_ordinary(Path::new("/dev/null"), OFlag::O_PATH)
        .context(checking)?;
    match devices::is_character_device(&null, 1, 3).context(checking)? {
        true => Ok(null),
        false => Err(Error::failed(format!(
            "{checking}: it is not the null device"
        ))),
    }
}
