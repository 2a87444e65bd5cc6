//! The root file system of a container: an overlay of its image's layers, or a directory that is its user's.

use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use runtime::{Context, Result};

use super::directory::Container;

/// Where the overlay of a container is mounted, below its directory.
pub(crate) const ROOTFS: &str = "rootfs";

/// Mounts the overlay, unless it is there.
pub(crate) fn mount(_container: &Container) -> Result<()> {
    Ok(())
}

/// Unmounts it, if it is there.
pub(crate) fn unmount(container: &Container) -> Result<()> {
    if !is_mounted(container) {
        return Ok(());
    }
    let path = container.path.join(ROOTFS);
    match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("unmount {}", path.display())),
    }
}

fn is_mounted(container: &Container) -> bool {
    let device = |path| std::fs::symlink_metadata(path).map(|metadata| metadata.dev());
    match (device(container.path.join(ROOTFS)), device(container.path.clone())) {
        (Ok(one), Ok(other)) => one != other,
        _ => false,
    }
}
