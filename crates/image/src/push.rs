//! `push`: from the store to a registry.

use std::collections::BTreeSet;

use crate::descriptor::Descriptor;
use crate::error::{Context, Result};
use crate::parallel;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{Connection, Repository};
use crate::store::{Image, Store};

/// How to push.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// How to speak with the registry.
    pub connection: Connection,
}

/// Brings an image to a registry: its blobs, unless they are there, then its manifest as it is, so that the digest stays.
pub fn push(
    store: &Store,
    image: &Image,
    to: &Reference,
    options: &PushOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let _hold = store.hold()?;
    let context = || format!("push {}", to.familiar());
    let repository = Repository::open(to, &options.connection).context(context)?;
    let neighbours = neighbours(store, to)?;
    let mut seen = BTreeSet::new();
    let blobs: Vec<_> = std::iter::once(&image.config)
        .chain(&image.layers)
        .filter(|blob| seen.insert(&blob.digest))
        .collect();
    parallel::for_each(&blobs, |blob, cancel| {
        let file = store.blob(&blob.digest)?;
        let mount = neighbours.iter().find(|(_, image)| has(image, blob));
        let mount = mount.map(|(path, _)| path.as_str());
        repository.push_blob(blob, &file, mount, cancel, &|event| {
            progress.blob(blob, event);
        })
    })
    .context(context)?;
    let bytes = store.document(&image.manifest)?;
    let name = to.tag().unwrap_or(image.manifest.digest.as_str());
    repository
        .push_manifest(&image.manifest, &bytes, name)
        .context(context)
}

/// The other repositories of the same registry from which images came or to which they were given a name.
fn neighbours(store: &Store, to: &Reference) -> Result<Vec<(String, Image)>> {
    let mut found = Vec::new();
    for image in store.images()? {
        for name in &image.names {
            let name: Reference = name.parse()?;
            if name.domain() == to.domain() && name.path() != to.path() {
                found.push((name.path().to_owned(), image.clone()));
            }
        }
    }
    Ok(found)
}

fn has(image: &Image, blob: &Descriptor) -> bool {
    let digest = &blob.digest;
    image.config.digest == *digest || image.layers.iter().any(|layer| layer.digest == *digest)
}
