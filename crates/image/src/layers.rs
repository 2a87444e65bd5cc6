//! Layers as directories of overlayfs: `layers/sha256-HEX` in the store for each diff_id, complete or not there at all.
//!
//! A layer is made in `layers/new-HEX`, which is locked (flock(2)) by who makes it and renamed once it is on disk. Whoever gets the lock
//! of a directory that still has this name has found what a killed process left, and begins again with it emptied.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::unistd::syncfs;

use crate::digest::Digest;
use crate::error::{Context, Result};
use crate::sys;
use crate::unpack::{self, Identity, Layer, clearing};

pub use crate::overlay::mount;

const DIRECTORY: &str = "layers";

/// A layer that is being made.
struct Claim {
    layer: Layer,
    /// The directory, and its lock: a copy goes to the unpacker, so that the lock holds as long as either lives.
    directory: File,
}

/// Makes sure that the layers of an image are unpacked, those that are missing side by side.
///
/// `store` is the store's directory, `layers` are from the bottom up. Gives the directories for [`mount`], the topmost first.
pub fn ensure(store: &Path, layers: Vec<Layer>) -> Result<Vec<PathBuf>> {
    let mut making = Making::begin(store)?;
    let mut paths: Vec<_> = layers
        .iter()
        .map(|layer| making.place.path(&layer.diff_id))
        .collect();
    paths.reverse();
    let mut seen = BTreeSet::new();
    let (mut claims, mut busy) = (Vec::new(), Vec::new());
    for layer in layers {
        if !seen.insert(layer.diff_id.clone()) {
            continue;
        }
        match making.place.claim(&layer.diff_id, false)? {
            Claimed::Yes(directory) => claims.push(Claim { layer, directory }),
            Claimed::Done => {}
            Claimed::Busy => busy.push(layer),
        }
    }
    making.extract(claims)?;
    making.complete()?;
    // Nothing is held while waiting for others, so nobody waits in a circle.
    for layer in busy {
        if let Claimed::Yes(directory) = making.place.claim(&layer.diff_id, true)? {
            making.extract(vec![Claim { layer, directory }])?;
            making.complete()?;
        }
    }
    Ok(paths)
}

/// Removes every layer that is not in `used`, and gives the digests of those. The caller holds the store's lock, so that nobody is about
/// to use one of them.
pub fn remove_unused(store: &Path, used: &BTreeSet<Digest>) -> Result<Vec<Digest>> {
    let place = Place::open(store)?;
    let mut removed = Vec::new();
    let listing = || format!("list {}", place.path.display());
    for entry in fs::read_dir(&place.path).context(listing)? {
        let name = entry.context(listing)?.file_name();
        let name = name.to_string_lossy();
        let (hex, complete) = match (name.strip_prefix(COMPLETE), name.strip_prefix(NEW)) {
            (Some(hex), _) => (hex, true),
            (_, Some(hex)) => (hex, false),
            _ => continue,
        };
        let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() else {
            continue;
        };
        if complete && used.contains(&digest) {
            continue;
        }
        if complete {
            // From here on it is what a killed process could have left.
            match fs::rename(place.path(&digest), place.new_path(&digest)) {
                // There is such a thing already: it goes first, and this one next time.
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
                renamed => renamed.context(|| format!("remove layer {digest}"))?,
            }
        }
        if let Claimed::Yes(directory) = place.claim(&digest, false)? {
            place.discard(&digest, directory)?;
            if complete {
                removed.push(digest);
            }
        }
    }
    Ok(removed)
}

const COMPLETE: &str = "sha256-";
const NEW: &str = "new-";

enum Claimed {
    /// The caller holds the lock of an empty directory.
    Yes(File),
    /// The layer is complete.
    Done,
    /// Somebody else is at it.
    Busy,
}

/// The directory of all layers.
struct Place {
    path: PathBuf,
    identity: Identity,
}

impl Place {
    fn open(store: &Path) -> Result<Self> {
        let path = store.join(DIRECTORY);
        make_directory(&path).context(|| format!("create {}", path.display()))?;
        Ok(Place {
            path,
            identity: Identity::current(),
        })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.path.join(format!("{COMPLETE}{}", digest.hex()))
    }

    fn new_path(&self, digest: &Digest) -> PathBuf {
        self.path.join(format!("{NEW}{}", digest.hex()))
    }

    fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_dir()
    }

    /// Takes the right to make a layer.
    fn claim(&self, digest: &Digest, wait: bool) -> Result<Claimed> {
        let path = self.new_path(digest);
        let claiming = || format!("create {}", path.display());
        loop {
            if self.has(digest) {
                return Ok(Claimed::Done);
            }
            make_directory(&path).context(claiming)?;
            let directory = match File::open(&path) {
                // Complete in the meantime.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.context(claiming)?,
            };
            let operation = match wait {
                true => libc::LOCK_EX,
                false => libc::LOCK_EX | libc::LOCK_NB,
            };
            match sys::flock(directory.as_fd(), operation) {
                Err(Errno::EWOULDBLOCK) => return Ok(Claimed::Busy),
                Err(Errno::EINTR) => continue,
                locked => locked.context(claiming)?,
            }
            // While we waited, it may have been completed and renamed, or removed.
            let locked = directory.metadata().context(claiming)?;
            match fs::symlink_metadata(&path) {
                Ok(found) if (found.dev(), found.ino()) == (locked.dev(), locked.ino()) => {
                    self.clear(digest, &directory)?;
                    return Ok(Claimed::Yes(directory));
                }
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).context(claiming);
                }
                _ => {}
            }
        }
    }

    /// Empties a directory by an unpacker, who may remove files of any owner that an unpacker made.
    fn clear(&self, digest: &Digest, directory: &File) -> Result<()> {
        let name = format!("layer {digest}");
        let clearing = clearing(&name, copy(directory)?);
        let empty = fs::read_dir(self.new_path(digest))
            .context(|| name)?
            .next()
            .is_none();
        match empty {
            true => Ok(()),
            false => unpack::run(vec![clearing], self.identity),
        }
    }

    fn discard(&self, digest: &Digest, directory: File) -> Result<()> {
        // The layer's own mode may keep its owner out.
        let _ = directory.set_permissions(fs::Permissions::from_mode(0o700));
        self.clear(digest, &directory)?;
        fs::remove_dir(self.new_path(digest)).context(|| format!("remove layer {digest}"))
    }
}

/// Layers that are being made. They become complete together; those that are not when this is dropped go again.
pub(crate) struct Making {
    place: Place,
    extracted: Mutex<Vec<(Digest, File)>>,
}

impl Making {
    pub(crate) fn begin(store: &Path) -> Result<Self> {
        Ok(Making {
            place: Place::open(store)?,
            extracted: Mutex::default(),
        })
    }

    /// Extracts a layer, unless it is there or somebody else is at it. `begun` is called when it has to be done.
    pub(crate) fn layer(&self, layer: Layer, begun: impl FnOnce()) -> Result<()> {
        match self.place.claim(&layer.diff_id, false)? {
            Claimed::Yes(directory) => {
                begun();
                self.extract(vec![Claim { layer, directory }])
            }
            Claimed::Done | Claimed::Busy => Ok(()),
        }
    }

    fn extract(&self, claims: Vec<Claim>) -> Result<()> {
        let mut jobs = Vec::with_capacity(claims.len());
        for Claim { layer, directory } in claims {
            let own = copy(&directory)?;
            self.extracted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((layer.diff_id.clone(), directory));
            jobs.push(layer.job(true, own));
        }
        unpack::run(jobs, self.place.identity)
    }

    /// What was extracted is from now on what its name says, also after a crash.
    pub(crate) fn complete(&mut self) -> Result<()> {
        let extracted = self
            .extracted
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if extracted.is_empty() {
            return Ok(());
        }
        let place = &self.place;
        let syncing = || format!("write {} to disk", place.path.display());
        let directory = File::open(&place.path).context(syncing)?;
        syncfs(&directory).context(syncing)?;
        while let Some((digest, _)) = extracted.last() {
            fs::rename(place.new_path(digest), place.path(digest))
                .context(|| format!("complete layer {digest}"))?;
            extracted.pop();
        }
        directory.sync_all().context(syncing)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let extracted = self
            .extracted
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for (digest, directory) in extracted.drain(..) {
            // Why it is not complete is the error to tell; what stays is found under its lock next time.
            let _ = self.place.discard(&digest, directory);
        }
    }
}

fn copy(directory: &File) -> Result<OwnedFd> {
    Ok(directory
        .try_clone()
        .context(|| "copy a descriptor")?
        .into())
}

/// A directory that nobody else may enter; one that is there is fine.
fn make_directory(path: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}
