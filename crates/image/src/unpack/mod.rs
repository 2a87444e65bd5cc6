//! Layers become files, by processes that can reach nothing else ([`jail`]).
//!
//! `process` starts them, `serve` is what they do: `stream` decompresses and hashes a blob, `header` and `archive` parse it as tar,
//! `extract` makes files of its entries below a directory (`tree`), either as overlayfs wants them, or with `marks` beside them, by
//! which `merge` puts one layer over those below.

mod archive;
mod bundle;
mod extract;
mod header;
mod identity;
pub mod jail;
mod marks;
mod merge;
mod process;
mod serve;
mod stream;
mod tree;

use std::fs::File;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::{Image, Store};

pub use bundle::{bundle, rootfs};
pub(crate) use identity::Identity;
pub use identity::map_ids;
pub(crate) use process::{Job, run};
pub use serve::serve;
pub(crate) use tree::open as open_inside;

/// The name (`argv[0]`) under which `coracle` is an unpacker.
pub const NAME: &str = "coracle-unpack";

/// One layer of an image, from the bottom up.
#[derive(Debug)]
pub struct Layer {
    /// Its content, compressed or not, at the start.
    pub blob: File,
    /// Digest of the content once it is decompressed.
    pub diff_id: Digest,
}

impl Layer {
    /// The layers of an image whose blobs are in the store.
    pub fn of(image: &Image, store: &Store) -> Result<Vec<Layer>> {
        let diff_ids = diff_ids(store, &image.config, &image.layers)?;
        std::iter::zip(&image.layers, diff_ids)
            .map(|(layer, diff_id)| Layer::new(store, &layer.digest, diff_id))
            .collect()
    }

    /// A layer whose blob is in the store.
    pub(crate) fn new(store: &Store, blob: &Digest, diff_id: Digest) -> Result<Layer> {
        let blob = store.blob(blob)?;
        Ok(Layer { blob, diff_id })
    }

    /// The job of extracting it into a directory that is empty.
    pub(crate) fn job(self, overlay: bool, directory: std::os::fd::OwnedFd) -> Job {
        let Layer { blob, diff_id } = self;
        Job {
            name: format!("layer {diff_id}"),
            args: serve::Task::Layer { overlay, diff_id }.to_args(),
            blob: Some(blob),
            directory,
        }
    }
}

/// Reads a layer to its end and makes nothing of it, or to where it is malformed.
#[cfg(fuzzing)]
pub(crate) fn read(blob: File) {
    let Ok(stream) = stream::Stream::new(blob) else {
        return;
    };
    let mut archive = archive::Archive::new(stream);
    while let Ok(Some(entry)) = archive.next() {
        let mut data = 0;
        while let Ok(piece @ [_, ..]) = archive.data(1 << 16) {
            data += piece.len() as u64;
        }
        match entry.pieces {
            None => assert!(data <= entry.size),
            Some(pieces) => {
                // In order, apart, inside the file.
                let end = pieces.iter().fold(0, |end, (at, length)| {
                    assert!(*at >= end);
                    at.checked_add(*length).expect("no overflow")
                });
                assert!(end <= entry.size);
            }
        }
    }
    let _ = archive.finish();
}

/// What an image's configuration, which is in the store, calls each of its layers.
pub(crate) fn diff_ids(
    store: &Store,
    config: &Descriptor,
    layers: &[Descriptor],
) -> Result<Vec<Digest>> {
    let configuration = store.configuration(config)?;
    let diff_ids = configuration.rootfs().diff_ids();
    if diff_ids.len() != layers.len() {
        return Err(Error::invalid(format!(
            "image {}: its manifest has {} layers, its configuration {}",
            config.digest,
            layers.len(),
            diff_ids.len()
        )));
    }
    diff_ids.iter().map(|diff_id| diff_id.parse()).collect()
}

/// The job of removing everything in a directory, which may have files of other ids than the caller's.
pub(crate) fn clearing(name: &str, directory: std::os::fd::OwnedFd) -> Job {
    Job {
        name: name.to_owned(),
        args: serve::Task::Clear.to_args(),
        blob: None,
        directory,
    }
}
