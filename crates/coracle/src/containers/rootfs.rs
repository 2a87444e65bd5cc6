//! The root file system of a container: an overlay of its image's layers, or a directory that is its user's.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use runtime::{Context, Result};

use super::directory::{Container, Containers};
use super::userns::{self, UserNamespace};

/// Where the overlay of a container is mounted, below its directory.
const ROOTFS: &str = "rootfs";

/// What the container itself has written.
const UPPER: &str = "upper";
/// Where the store is for a moment, with the ids of a container's files.
const SHIFTED: &str = "store";

/// Mounts the overlay, unless it is there, with the ids that its files have on the disk.
pub(crate) fn mount(container: &Container) -> Result<()> {
    userns::enter()?;
    if container.record.rootfs.is_some() || is_mounted(container) {
        return Ok(());
    }
    overlay(container, None)
}

/// Mounts it for the container itself, with its own ids: those of the layers are shifted, and what is written has them on the disk.
pub(crate) fn mount_for_container(container: &Container) -> Result<()> {
    let UserNamespace::Auto(first) = container.record.userns else {
        return mount(container);
    };
    unmount(container)?;
    let store = Containers::around(container);
    let shifted = container.path.join(SHIFTED);
    make(&shifted)?;
    runtime::mount_shifted(store.store(), &shifted, first, userns::COUNT)
        .context("--userns auto")?;
    let upper = container.path.join(UPPER);
    make(&upper)?;
    chown(&upper, Some(first), Some(first))
        .context("--userns auto: give the container its layer")?;
    // What the overlay is made of it keeps by itself.
    let mounted = overlay(container, Some(&shifted));
    unmount_at(&shifted).and(mounted)
}

/// `shifted` is where the store is to be seen, if not in its own place.
fn overlay(container: &Container, shifted: Option<&Path>) -> Result<()> {
    let [rootfs, upper, work] = [ROOTFS, UPPER, "work"].map(|name| container.path.join(name));
    for directory in [&rootfs, &upper, &work] {
        make(directory)?;
    }
    let store = Containers::around(container);
    let seen = |path: &PathBuf| match (shifted, path.strip_prefix(store.store())) {
        (Some(shifted), Ok(inner)) => shifted.join(inner),
        _ => path.clone(),
    };
    let layers: Vec<_> = container.record.layers.iter().map(seen).collect();
    let rootless = !runtime::is_machines_root();
    image::layers::mount(&layers, &upper, &work, &rootfs, rootless).map_err(super::of_image)
}

fn make(directory: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .with_context(|| format!("create {}", directory.display()))
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
    // Never left where the files of the container are about to be removed.
    if let UserNamespace::Auto(_) = container.record.userns {
        unmount_at(&container.path.join(SHIFTED))?;
    }
    match is_mounted(container) {
        true => unmount_at(&container.path.join(ROOTFS)),
        false => Ok(()),
    }
}

fn unmount_at(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
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
