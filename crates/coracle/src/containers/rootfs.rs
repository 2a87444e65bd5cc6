//! The root file system of a container: an overlay of its image's layers, or a directory that is its user's.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use runtime::{Context, Result};

use super::directory::Container;
use super::userns;

/// Where the overlay of a container is mounted, below its directory.
const ROOTFS: &str = "rootfs";

/// Mounts the overlay, unless it is there.
pub(crate) fn mount(container: &Container) -> Result<()> {
    userns::enter()?;
    let record = &container.record;
    if record.rootfs.is_some() || is_mounted(container) {
        return Ok(());
    }
    let [rootfs, upper, work] = [ROOTFS, "upper", "work"].map(|name| container.path.join(name));
    for directory in [&rootfs, &upper, &work] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("create {}", directory.display()))?;
    }
    let rootless = !userns::is_machines_root();
    image::layers::mount(&record.layers, &upper, &work, &rootfs, rootless).map_err(super::of_image)
}

/// Where the root of a container is, when it is mounted.
pub(crate) fn path(container: &Container) -> PathBuf {
    container
        .record
        .rootfs
        .clone()
        .unwrap_or_else(|| container.path.join(ROOTFS))
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
    match (
        device(container.path.join(ROOTFS)),
        device(container.path.clone()),
    ) {
        (Ok(one), Ok(other)) => one != other,
        _ => false,
    }
}
