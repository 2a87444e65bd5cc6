//! What criu takes a restored container's bind mounts from.
//!
//! criu makes the file systems that are the container's own by itself, from its images. The root and the binds are taken from where the host
//! has them, in a mount namespace of criu's own: one peer group of the host may be behind several of them, and criu has them all follow it
//! by the mount that one of their sources lies in, which has to show what the others show as well. What is mounted upon has to be there,
//! and binds with mapped ids are to be found at paths: that is put together in this namespace, on a tmpfs that covers the container's state
//! directory there. So it is gone with criu, whatever happens.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cgroups::Location;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, umask};

use super::{Kind, Mount, cgroup, ensure_like};
use crate::namespaces::Namespaces;
use crate::rootfs::{Propagation, Root};
use crate::sys::mount::{FsContext, attach, clone_tree};
use crate::{Context, Result};

/// The root, with all that is mounted in it, to have the mount points made.
const SCRATCH: &str = "scratch";
/// The bind mounts with mapped ids, by their place in the configuration.
const BINDS: &str = "binds";
const STAGING: &str = "prepare the container's mounts for criu";

/// The mounts that show what is not the container's own: the place of each, by which criu knows it, and where a container that is staged
/// at `stage` gets it from.
pub(crate) fn externals(
    mounts: &[Mount],
    rootfs: &Root,
    stage: &Path,
    location: Option<&Location>,
    namespaces: &Namespaces,
) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut externals = Vec::new();
    for mount in mounts {
        let place = || {
            let resolved = rootfs.resolve(&mount.destination);
            resolved.with_context(|| mount.describe())
        };
        match (&mount.kind, location) {
            (Kind::Bind { .. }, _) => externals.push((place()?, mount.staged_at(stage))),
            (Kind::Cgroup, Some(location)) => {
                externals.extend(cgroup::binds(place()?, location, namespaces));
            }
            _ => {}
        }
    }
    Ok(externals)
}

/// Puts it all together. `sources` are those binds that only the runtime could open. For a new mount namespace.
pub(crate) fn stage(
    mounts: &[Mount],
    sources: Vec<Option<OwnedFd>>,
    rootfs: &Path,
    stage: &Path,
) -> Result<()> {
    umask(Mode::empty());
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).context(STAGING)?;
    let rootfs = Root::find(rootfs)?;
    let tmpfs = empty_tmpfs().context(STAGING)?;
    attach(tmpfs.as_fd(), Root::find(stage)?.as_fd()).context(STAGING)?;
    let stage = Root::at(tmpfs);
    let scratch = clone_tree(&rootfs, c"", true)
        .and_then(|copy| {
            let place = stage.ensure_directory(Path::new(SCRATCH))?;
            attach(copy.as_fd(), place.as_fd())?;
            Ok(Root::at(copy))
        })
        .context(STAGING)?;
    for (mount, source) in mounts.iter().zip(sources) {
        mount.stage(source, &scratch, &stage)?;
    }
    Ok(())
}

fn empty_tmpfs() -> nix::Result<OwnedFd> {
    let tmpfs = FsContext::open(c"tmpfs")?;
    tmpfs.set(c"mode", Some(c"755"))?;
    tmpfs.mount(0)
}

impl Mount {
    /// Where criu finds a bind.
    fn staged_at(&self, stage: &Path) -> PathBuf {
        if self.is_idmapped() {
            return stage.join(BINDS).join(self.index.to_string());
        }
        let source = Path::new(OsStr::from_bytes(self.source.to_bytes()));
        // criu follows no link at its end.
        source.canonicalize().unwrap_or_else(|_| source.to_owned())
    }

    /// Makes the mount point, and mounts there what later ones may have theirs in: a bind, or for what criu makes itself something empty.
    /// `source` is what criu finds below [`BINDS`].
    fn stage(&self, source: Option<OwnedFd>, scratch: &Root, stage: &Root) -> Result<()> {
        let tree = match self.kind {
            Kind::Remount => return Ok(()),
            Kind::Bind { recursive } => match source {
                Some(tree) => {
                    // It is a peer of the host's mount.
                    let slave = Propagation {
                        kind: MsFlags::MS_SLAVE,
                        recursive: true,
                    };
                    let path = Path::new(BINDS).join(self.index.to_string());
                    ensure_like(&tree, &path, stage)
                        .and_then(|place| {
                            attach(tree.as_fd(), place.fd.as_fd())?;
                            stage.mounted_upon(place, &path);
                            Ok(())
                        })
                        .and_then(|()| slave.apply(tree.as_fd()))
                        .and_then(|()| clone_tree(&tree, c"", true))
                }
                None => Ok(self.clone_source(recursive)?),
            },
            Kind::Cgroup | Kind::FileSystem(_) => empty_tmpfs(),
        };
        let tree = tree.context(STAGING)?;
        let place = self.place(Some(&tree), scratch)?;
        attach(tree.as_fd(), place.fd.as_fd()).with_context(|| self.describe())?;
        scratch.mounted_upon(place, &self.destination);
        Ok(())
    }
}
