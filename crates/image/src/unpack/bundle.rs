//! A plain bundle: the layers of an image as one tree, and a configuration for any runtime.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::errno::Errno;

use super::serve::{ROOTFS, Task};
use super::{Identity, Job, Layer, clearing, process};
use crate::error::{Context, Error, Kind, Result};
use crate::sys;

/// Beside the root file system until that is complete.
const WORK: &str = ".unpacking";

/// Unpacks `layers` into `DIRECTORY/rootfs`, which must not be there yet. All of it is there afterwards, or nothing.
///
/// The layers are extracted side by side, each by itself, and then put upon each other.
pub fn rootfs(directory: &Path, layers: Vec<Layer>) -> Result<()> {
    let identity = Identity::current();
    let target = directory.join(ROOTFS);
    if target.symlink_metadata().is_ok() {
        return Err(Error::new(
            Kind::InUse,
            format!("{} exists already", target.display()),
        ));
    }
    let work = directory.join(WORK);
    let lock = claim(&work)?;
    let result = extract(&work, layers, identity).and_then(|()| {
        fs::rename(work.join(ROOTFS), &target).context(|| format!("create {}", target.display()))
    });
    let cleared = clear(&work, lock, identity);
    result.and(cleared)
}

/// Makes the working directory, or takes over what a killed process left behind.
fn claim(work: &Path) -> Result<File> {
    let making = || format!("create {}", work.display());
    match DirBuilder::new().mode(0o700).create(work) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).context(making)?,
        _ => {}
    }
    let lock = File::open(work).context(making)?;
    match sys::flock(lock.as_fd(), libc::LOCK_EX | libc::LOCK_NB) {
        Err(Errno::EWOULDBLOCK) => Err(Error::new(
            Kind::InUse,
            format!("{}: somebody else is unpacking here", work.display()),
        )),
        locked => locked.context(making).map(|()| lock),
    }
}

fn extract(work: &Path, layers: Vec<Layer>, identity: Identity) -> Result<()> {
    let open = |path: &Path| -> Result<OwnedFd> {
        Ok(File::open(path)
            .context(|| format!("open {}", path.display()))?
            .into())
    };
    let make = |name: &str, mode: u32| -> Result<OwnedFd> {
        let path = work.join(name);
        DirBuilder::new()
            .mode(mode)
            .create(&path)
            .context(|| format!("create {}", path.display()))?;
        open(&path)
    };
    // What a killed process left.
    process::run(vec![clearing("the bundle", open(work)?)], identity)?;
    make(ROOTFS, 0o755)?;
    let count = layers.len();
    let mut jobs = Vec::with_capacity(count);
    for (at, layer) in layers.into_iter().enumerate() {
        jobs.push(layer.job(false, make(&at.to_string(), 0o700)?));
    }
    process::run(jobs, identity)?;
    for layer in 0..count {
        let layer = layer.to_string();
        let job = Job {
            name: format!("layer {layer}"),
            args: Task::Merge { layer }.to_args(),
            blob: None,
            directory: open(work)?,
        };
        process::run(vec![job], identity)?;
    }
    Ok(())
}

fn clear(work: &Path, lock: File, identity: Identity) -> Result<()> {
    process::run(vec![clearing("the bundle", lock.into())], identity)?;
    fs::remove_dir(work).context(|| format!("remove {}", work.display()))
}
