//! A plain bundle: the layers of an image as one tree, and a configuration for any runtime.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::errno::Errno;

use super::serve::{ROOTFS, Task};
use super::{Identity, Job, Layer, clearing, process};
use crate::convert::{self, Overrides};
use crate::error::{Context, Error, Kind, Result};
use crate::store::{Image, Store};
use crate::sys;

/// Beside the root file system until that is complete.
const WORK: &str = ".unpacking";
const CONFIG: &str = "config.json";

/// Makes a bundle of an image in the store: `rootfs` and `config.json`, which any runtime runs as they are.
pub fn bundle(store: &Store, image: &Image, directory: &Path) -> Result<()> {
    let _hold = store.hold()?;
    let configuration = image.configuration(store)?;
    let mut overrides = Overrides::default();
    if !convert::has_command(&configuration) {
        // As umoci and "runc spec" write it: a bundle is there to be edited.
        overrides.command.push("sh".to_owned());
    }
    convert::check(&configuration, &overrides)?;
    let layers = Layer::of(image, store)?;
    make(directory, layers, |rootfs| {
        let spec = convert::spec(&configuration, rootfs.as_fd(), &overrides)?;
        let text = serde_json::to_vec_pretty(&spec).context(|| "write config.json")?;
        Ok(Some(text))
    })
}

/// Unpacks `layers` into `DIRECTORY/rootfs`, which must not be there yet. All of it is there afterwards, or nothing.
pub fn rootfs(directory: &Path, layers: Vec<Layer>) -> Result<()> {
    make(directory, layers, |_| Ok(None))
}

/// Fills a bundle with the layers and the configuration that `describe` gives.
///
/// The layers are extracted side by side, each by itself, and then put upon each other.
fn make(
    directory: &Path,
    layers: Vec<Layer>,
    describe: impl FnOnce(&File) -> Result<Option<Vec<u8>>>,
) -> Result<()> {
    let identity = Identity::current();
    for name in [ROOTFS, CONFIG] {
        let path = directory.join(name);
        if path.symlink_metadata().is_ok() {
            let text = format!("{} exists already", path.display());
            return Err(Error::new(Kind::InUse, text));
        }
    }
    let making = || format!("create {}", directory.display());
    let made = match DirBuilder::new().create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        made => made.context(making).map(|()| true)?,
    };
    let work = directory.join(WORK);
    let result = claim(&work).and_then(|lock| {
        let filled = extract(&work, layers, identity).and_then(|rootfs| {
            if let Some(text) = describe(&rootfs)? {
                fs::write(work.join(CONFIG), text).context(making)?;
                fs::rename(work.join(CONFIG), directory.join(CONFIG)).context(making)?;
            }
            fs::rename(work.join(ROOTFS), directory.join(ROOTFS)).context(making)
        });
        let cleared = clear(&work, lock, identity);
        filled.and(cleared)
    });
    if made && result.is_err() {
        // Only if nothing is in it.
        let _ = fs::remove_dir(directory);
    }
    result
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

/// The root file system, complete but for its place.
fn extract(work: &Path, layers: Vec<Layer>, identity: Identity) -> Result<File> {
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
    let rootfs = make(ROOTFS, 0o755)?;
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
    Ok(rootfs.into())
}

fn clear(work: &Path, lock: File, identity: Identity) -> Result<()> {
    process::run(vec![clearing("the bundle", lock.into())], identity)?;
    fs::remove_dir(work).context(|| format!("remove {}", work.display()))
}
