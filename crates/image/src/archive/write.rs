//! `save`: images of the store as one tar archive.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::str::FromStr;

use tar::{Builder, Header};

use super::Saved;
use crate::descriptor::{Descriptor, REF_NAME};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::layout::CONTAINERD_NAME;
use crate::reference::Reference;
use crate::store::{Image, Index, LAYOUT, Store};

/// Which archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An image layout: manifests and digests stay what they are.
    OciArchive,
    /// What `docker load` of any age reads: configuration and layers.
    DockerArchive,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "oci-archive" => Ok(Format::OciArchive),
            "docker-archive" => Ok(Format::DockerArchive),
            _ => Err(Error::invalid(format!(
                "archive format {text:?} is neither oci-archive nor docker-archive"
            ))),
        }
    }
}

/// Writes images under the names that are in `names` of each.
pub fn save(store: &Store, images: &[Image], format: Format, output: &mut dyn Write) -> Result<()> {
    let _hold = store.hold()?;
    let mut archive = Output {
        store,
        tar: Builder::new(output),
        written: BTreeSet::new(),
    };
    match format {
        Format::OciArchive => archive.layout(images)?,
        Format::DockerArchive => archive.saved(images)?,
    }
    archive
        .tar
        .into_inner()
        .and_then(Write::flush)
        .context(|| "write the archive")
}

struct Output<'a> {
    store: &'a Store,
    tar: Builder<&'a mut dyn Write>,
    /// What layers share is written once.
    written: BTreeSet<String>,
}

impl Output<'_> {
    fn layout(&mut self, images: &[Image]) -> Result<()> {
        let mut entries = Vec::new();
        for image in images {
            for blob in [&image.manifest, &image.config]
                .into_iter()
                .chain(&image.layers)
            {
                self.blob(format!("blobs/sha256/{}", blob.digest.hex()), blob)?;
            }
            entries.extend(entries_of(image)?);
        }
        self.bytes("oci-layout", LAYOUT)?;
        self.bytes("index.json", &Index::new(entries).to_json())
    }

    fn saved(&mut self, images: &[Image]) -> Result<()> {
        let mut list = Vec::new();
        for image in images {
            // Docker has no place for artifacts.
            image.configuration(self.store)?;
            let config = format!("{}.json", image.id().hex());
            self.blob(config.clone(), &image.config)?;
            let mut layers = Vec::new();
            for layer in &image.layers {
                let path = format!("{}.tar", layer.digest.hex());
                self.blob(path.clone(), layer)?;
                layers.push(path);
            }
            // Docker takes full names and shows short ones. A digest is no tag.
            let tags = image.names.iter().filter(|name| !name.contains('@'));
            let repo_tags = tags.map(|name| Ok(name.parse::<Reference>()?.familiar()));
            list.push(Saved {
                config,
                repo_tags: repo_tags.collect::<Result<_>>()?,
                layers,
            });
        }
        let json = serde_json::to_vec(&list).context(|| "write manifest.json")?;
        self.bytes("manifest.json", &json)
    }

    fn blob(&mut self, path: String, blob: &Descriptor) -> Result<()> {
        if self.written.contains(&path) {
            return Ok(());
        }
        let file = self.store.blob(&blob.digest)?;
        self.append(&path, blob.size, file.take(blob.size))?;
        self.written.insert(path);
        Ok(())
    }

    fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.append(path, bytes.len() as u64, bytes)
    }

    /// The same images always make the same archive.
    fn append(&mut self, path: &str, size: u64, content: impl Read) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        self.tar
            .append_data(&mut header, path, content)
            .context(|| format!("write {path} of the archive"))
    }
}

/// One entry for each name, or one without.
fn entries_of(image: &Image) -> Result<Vec<Descriptor>> {
    if image.names.is_empty() {
        return Ok(vec![image.manifest.clone()]);
    }
    let entry = |name: &String| {
        let reference: Reference = name.parse()?;
        let tag = reference.tag().map_or_else(
            || reference.digest().map(Digest::to_string),
            |tag| Some(tag.to_owned()),
        );
        let mut entry = image.manifest.clone();
        entry
            .annotations
            .insert(CONTAINERD_NAME.into(), name.clone());
        entry
            .annotations
            .insert(REF_NAME.into(), tag.unwrap_or_default());
        Ok(entry)
    };
    image.names.iter().map(entry).collect()
}
