//! `pull`: from a source into the store.

use std::collections::BTreeMap;
use std::path::Path;

use crate::archive;
use crate::descriptor::Descriptor;
use crate::error::{Context, Error, Result};
use crate::layers::Making;
use crate::layout::{self, Layout};
use crate::manifest::{Document, Manifest, parse};
use crate::parallel::{self, Cancel};
use crate::platform::Platform;
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::registry::{Connection, Repository};
use crate::source::Source;
use crate::store::{Image, Partial, Store};
use crate::unpack::{self, Layer};

/// How to pull.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// The platform that is wanted; this machine's when nobody says.
    pub platform: Option<Platform>,
    /// Unpack the layers for overlayfs, each one as soon as it has come.
    pub unpack: bool,
    /// How to speak with registries.
    pub connection: Connection,
}

/// Brings an image into the store. When it is there already, only what has changed is fetched.
pub fn pull(
    store: &Store,
    source: &Source,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Image> {
    let _hold = store.hold()?;
    match source {
        Source::Registry(reference) => Repository::open(reference, &options.connection)
            .and_then(|repository| from_registry(store, reference, &repository, options, progress))
            .context(|| format!("pull {}", reference.familiar())),
        Source::Layout { directory, tag } => {
            from_layout(store, directory, tag.as_deref(), options, progress)
                .context(|| format!("pull from {}", directory.display()))
        }
        Source::OciArchive(file) | Source::DockerArchive(file) => {
            let images = archive::load(store, file, options, progress)?;
            match <[Image; 1]>::try_from(images) {
                Ok([image]) => Ok(image),
                Err(images) => Err(Error::invalid(format!(
                    "{} has {} images: use \"load\" for all of them",
                    file.display(),
                    images.len()
                ))),
            }
        }
    }
}

fn from_registry(
    store: &Store,
    reference: &Reference,
    repository: &Repository,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Image> {
    let top = repository.manifest(reference)?;
    let names = [reference.to_string()];
    let transfer = Transfer {
        store,
        origin: repository,
        options,
        progress,
    };
    transfer.image(top.descriptor, top.bytes, &names)
}

fn from_layout(
    store: &Store,
    directory: &Path,
    tag: Option<&str>,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Image> {
    let layout = Layout::new(directory);
    let manifests = layout.manifests()?;
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let entry = layout::select(&manifests, tag, &platform)?;
    let stem = directory
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let name = layout::name_of(entry).and_then(|name| full_name(name, stem.as_deref()));
    let bytes = layout.document(entry)?;
    let transfer = Transfer {
        store,
        origin: &layout,
        options,
        progress,
    };
    transfer.image(
        entry.clone(),
        bytes,
        name.map(|name| name.to_string()).as_slice(),
    )
}

/// What an image is called here that somebody's layout or archive calls `name`: a reference as it is, a mere tag with the name of
/// the directory or file.
pub(crate) fn full_name(name: &str, stem: Option<&str>) -> Option<Reference> {
    if name.contains(['/', ':']) {
        return name.parse().ok();
    }
    format!("localhost/{}:{name}", stem?.to_ascii_lowercase())
        .parse()
        .ok()
}

/// Where manifests and blobs come from.
pub(crate) trait Origin: Sync {
    /// A manifest or index, verified.
    fn document(&self, blob: &Descriptor) -> Result<Vec<u8>>;
    /// Everything of a blob that is not there yet. `moved` is told how much there is, and may want to stop.
    fn blob(
        &self,
        blob: &Descriptor,
        into: &mut Partial<'_>,
        cancel: &Cancel,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<()>;
}

/// One image on its way into the store.
pub(crate) struct Transfer<'a> {
    pub(crate) store: &'a Store,
    pub(crate) origin: &'a dyn Origin,
    pub(crate) options: &'a PullOptions,
    pub(crate) progress: &'a dyn Progress,
}

impl Transfer<'_> {
    /// From a verified document, which may be an index, to an image in the store.
    pub(crate) fn image(&self, top: Descriptor, bytes: Vec<u8>, names: &[String]) -> Result<Image> {
        let (descriptor, bytes, manifest) = self.choose(top, bytes)?;
        self.blobs(&manifest)?;
        self.check(&manifest)?;
        let digest = self.store.put(&bytes)?;
        debug_assert_eq!(digest, descriptor.digest);
        self.store.add(&descriptor, names)
    }

    /// The manifest itself, or that of the platform in an index (which may lie in another index).
    fn choose(&self, top: Descriptor, bytes: Vec<u8>) -> Result<(Descriptor, Vec<u8>, Manifest)> {
        let host = Platform::host();
        let platform = self.options.platform.as_ref().unwrap_or(&host);
        let (mut descriptor, mut bytes) = (top, bytes);
        for _ in 0..3 {
            let called = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
            let (document, media_type) = parse(&bytes, called)?;
            match document {
                Document::Manifest(manifest) => {
                    let descriptor =
                        Descriptor::new(media_type, descriptor.digest, descriptor.size);
                    return Ok((descriptor, bytes, manifest));
                }
                Document::Index(manifests) => {
                    descriptor = platform.choose(&manifests)?.clone();
                    bytes = self.origin.document(&descriptor)?;
                }
            }
        }
        Err(Error::invalid("indexes lie too deep in each other"))
    }

    /// Fetches what is missing.
    fn blobs(&self, manifest: &Manifest) -> Result<()> {
        if self.options.unpack && !manifest.is_artifact() {
            return self.layers(manifest);
        }
        let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
        let blobs = BTreeMap::from_iter(blobs.map(|blob| (&blob.digest, blob)));
        parallel::for_each(&Vec::from_iter(blobs.values()), |blob, cancel| {
            self.blob(blob, cancel)
        })
    }

    /// Fetches what is missing, and makes directories of the layers.
    fn layers(&self, manifest: &Manifest) -> Result<()> {
        self.blob(&manifest.config, &Cancel::default())?;
        let diff_ids = unpack::diff_ids(self.store, &manifest.config, &manifest.layers)?;
        let layers = std::iter::zip(&manifest.layers, diff_ids);
        let layers =
            BTreeMap::from_iter(layers.map(|(blob, diff_id)| (&blob.digest, (blob, diff_id))));
        let layers = Vec::from_iter(layers.values());
        let mut making = Making::begin(self.store.path())?;
        parallel::for_each(&layers, |(blob, diff_id), cancel| {
            self.blob(blob, cancel)?;
            let layer = Layer::new(self.store, &blob.digest, diff_id.clone())?;
            making.layer(layer, || self.progress.blob(blob, Event::Unpacking))
        })?;
        making.complete()?;
        for (blob, _) in layers {
            self.progress.blob(blob, Event::Unpacked);
        }
        Ok(())
    }

    fn blob(&self, blob: &Descriptor, cancel: &Cancel) -> Result<()> {
        let tell = |event: Event<'_>| self.progress.blob(blob, event);
        // What an earlier pull has left may be broken, which shows only at the end: then once more from the beginning.
        for _ in 0..2 {
            let Some(mut partial) = self.store.partial(blob)? else {
                tell(Event::Exists);
                return Ok(());
            };
            let resumed = partial.written() > 0;
            tell(Event::Moved(partial.written()));
            if partial.written() < blob.size || blob.size == 0 {
                self.origin.blob(blob, &mut partial, cancel, &tell)?;
            }
            if partial.is(blob) {
                partial.finish()?;
                tell(Event::Complete);
                return Ok(());
            }
            partial.discard()?;
            if !resumed {
                break;
            }
        }
        Err(Error::invalid(format!(
            "what came for {} has another digest or size",
            blob.digest
        )))
    }

    /// Only what can be read gets into the store, and no other platform than one that was asked for by name.
    fn check(&self, manifest: &Manifest) -> Result<()> {
        if manifest.is_artifact() {
            return Ok(());
        }
        unpack::diff_ids(self.store, &manifest.config, &manifest.layers)?;
        match &self.options.platform {
            Some(wanted) => wanted.require(&self.store.configuration(&manifest.config)?),
            None => Ok(()),
        }
    }
}
