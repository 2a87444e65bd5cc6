//! Images in one file: an image layout in a tar archive, and what `docker save` writes.

mod read;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::descriptor::{Descriptor, media_type};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::manifest::DOCUMENT_LIMIT;
use crate::parallel::Cancel;
use crate::platform::Platform;
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::store::{Image, Index, Partial, Store};
use crate::transfer::{Origin, PullOptions, Transfer, full_name};

use read::Contents;
pub use write::{Format, save};

/// What begins so is compressed with gzip.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// One image in Docker's `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default, deserialize_with = "crate::descriptor::or_null")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "crate::descriptor::or_null")]
    layers: Vec<String>,
}

/// Brings all images of an archive into the store; which kind of archive it is shows inside. `-` is standard input.
pub fn load(
    store: &Store,
    file: &Path,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Vec<Image>> {
    let _hold = store.hold()?;
    let context = || match file.to_str() {
        Some("-") => "load from standard input".to_owned(),
        _ => format!("load {}", file.display()),
    };
    let input: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(file).context(context)?),
    };
    let mut input = inflated(input).context(context)?;
    let contents = read::read(store, &mut input, progress).context(context)?;
    let stem = file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let staged = Staged(store);
    let transfer = Transfer {
        store,
        origin: &staged,
        options,
        // Reading has told of every blob already.
        progress: &(),
    };
    // Current versions of Docker write both descriptions of the same images.
    let images = if let Some(index) = &contents.index {
        from_layout(
            &transfer,
            index,
            stem.as_deref().filter(|stem| *stem != "-"),
        )
    } else if let Some(saved) = &contents.saved {
        from_saved(&transfer, saved, &contents)
    } else {
        Err(Error::invalid(
            "it has neither an index.json nor a manifest.json: it is no archive of images",
        ))
    };
    images.context(context)
}

/// What `docker save | gzip` has made is read as well.
fn inflated(input: Box<dyn Read>) -> io::Result<Box<dyn Read>> {
    let mut input = BufReader::with_capacity(256 << 10, input);
    if input.fill_buf()?.starts_with(GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(input)));
    }
    Ok(Box::new(input))
}

/// The images of a layout: all that have a name, or the one for this platform.
fn from_layout(transfer: &Transfer<'_>, index: &[u8], stem: Option<&str>) -> Result<Vec<Image>> {
    let entries = Index::read(index, DOCUMENT_LIMIT)?.manifests;
    let mut named: Vec<_> = entries
        .iter()
        .filter(|entry| layout::name_of(entry).is_some())
        .collect();
    if named.is_empty() {
        let platform = transfer
            .options
            .platform
            .clone()
            .unwrap_or_else(Platform::host);
        named.push(layout::select(&entries, None, &platform)?);
    }
    let mut images: Vec<Image> = Vec::new();
    for entry in named {
        let name = layout::name_of(entry).and_then(|name| full_name(name, stem));
        let names: Vec<_> = name.iter().map(Reference::to_string).collect();
        let bytes = transfer.origin.document(entry)?;
        add(&mut images, transfer.image(entry.clone(), bytes, &names)?);
    }
    Ok(images)
}

/// One image for each, with all its names.
fn add(images: &mut Vec<Image>, new: Image) {
    match images
        .iter_mut()
        .find(|image| image.manifest.digest == new.manifest.digest)
    {
        Some(image) => image.names.extend(new.names),
        None => images.push(new),
    }
}

/// The images of Docker's description. They get a manifest that says the same.
fn from_saved(transfer: &Transfer<'_>, saved: &[u8], contents: &Contents) -> Result<Vec<Image>> {
    let saved: Vec<Saved> = serde_json::from_slice(saved).context(|| "manifest.json")?;
    let mut images = Vec::new();
    for (number, image) in saved.iter().enumerate() {
        let context = || format!("manifest.json: image {number}");
        let bytes = manifest_of(transfer.store, image, contents).context(context)?;
        let descriptor =
            Descriptor::new(media_type::MANIFEST, Digest::of(&bytes), bytes.len() as u64);
        let names = image
            .repo_tags
            .iter()
            .map(|name| Ok(name.parse::<Reference>()?.to_string()));
        let names: Vec<_> = names.collect::<Result<_>>().context(context)?;
        add(
            &mut images,
            transfer.image(descriptor, bytes, &names).context(context)?,
        );
    }
    Ok(images)
}

/// Writes the manifest that a saved image lacks.
fn manifest_of(store: &Store, image: &Saved, contents: &Contents) -> Result<Vec<u8>> {
    let (digest, size) = contents.file(&image.config)?;
    let config = Descriptor::new(media_type::CONFIG, digest.clone(), *size);
    let configuration: ImageConfiguration = serde_json::from_slice(&store.document(&config)?)
        .context(|| format!("configuration {}", image.config))?;
    let diff_ids = configuration.rootfs().diff_ids();
    if diff_ids.len() != image.layers.len() {
        return Err(Error::invalid(format!(
            "it has {} layers, its configuration {}",
            image.layers.len(),
            diff_ids.len()
        )));
    }
    let mut layers = Vec::new();
    for (path, diff_id) in image.layers.iter().zip(diff_ids) {
        let (digest, size) = contents.file(path)?;
        let compression = compression(store.blob(digest)?).context(|| format!("layer {path}"))?;
        if compression.is_empty() && digest.as_str() != diff_id {
            return Err(Error::invalid(format!(
                "layer {path} is not {diff_id} as its configuration says"
            )));
        }
        layers.push(Descriptor::new(
            format!("{}{compression}", media_type::LAYER),
            digest.clone(),
            *size,
        ));
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers
    });
    Ok(manifest.to_string().into_bytes())
}

/// What a layer's media type ends with.
fn compression(layer: File) -> Result<&'static str> {
    let mut magic = Vec::new();
    layer.take(6).read_to_end(&mut magic).context(|| "read")?;
    match magic.as_slice() {
        magic if magic.starts_with(GZIP) => Ok("+gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok("+zstd"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            Err(Error::invalid("compression with xz is not supported"))
        }
        [b'B', b'Z', b'h', ..] => Err(Error::invalid("compression with bzip2 is not supported")),
        _ => Ok(""),
    }
}

/// An archive whose files are in the store already.
struct Staged<'a>(&'a Store);

impl Origin for Staged<'_> {
    fn document(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        self.0.document(blob).context(|| "the archive")
    }

    fn blob(
        &self,
        blob: &Descriptor,
        _: &mut Partial<'_>,
        _: &Cancel,
        _: &dyn Fn(Event<'_>),
    ) -> Result<()> {
        Err(Error::invalid(format!(
            "the archive lacks blob {}",
            blob.digest
        )))
    }
}

/// Files by their path in an archive.
type Files = BTreeMap<String, (Digest, u64)>;
