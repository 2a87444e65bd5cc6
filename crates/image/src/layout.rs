//! An OCI image layout in a directory, as skopeo, buildah and umoci write it.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::descriptor::{Descriptor, REF_NAME};
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::DOCUMENT_LIMIT;
use crate::parallel::Cancel;
use crate::platform::Platform;
use crate::progress::Event;
use crate::store::{Index, Partial, read_document};
use crate::transfer::Origin;

/// The annotation in which BuildKit and containerd put the full name.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Somebody's layout. What it says is not trusted.
#[derive(Debug)]
pub(crate) struct Layout {
    directory: PathBuf,
}

impl Layout {
    /// The layout in this directory.
    pub(crate) fn new(directory: &Path) -> Self {
        Layout {
            directory: directory.to_owned(),
        }
    }

    /// What its index lists.
    pub(crate) fn manifests(&self) -> Result<Vec<Descriptor>> {
        let context = || format!("image layout {}", self.directory.display());
        let index = open(&self.directory.join("index.json")).context(context)?;
        Ok(Index::read(index, DOCUMENT_LIMIT)
            .context(context)?
            .manifests)
    }

    fn open(&self, blob: &Descriptor) -> Result<File> {
        let path = self.directory.join("blobs/sha256").join(blob.digest.hex());
        open(&path).context(|| {
            format!(
                "image layout {}: blob {}",
                self.directory.display(),
                blob.digest
            )
        })
    }
}

impl Origin for Layout {
    fn document(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        read_document(self.open(blob)?, blob)
    }

    fn blob(
        &self,
        blob: &Descriptor,
        into: &mut Partial<'_>,
        cancel: &Cancel,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<()> {
        into.restart()?;
        let mut file = self.open(blob)?.take(blob.size + 1);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = file
                .read(&mut buffer)
                .context(|| format!("read blob {}", blob.digest))?;
            if count == 0 {
                return Ok(());
            }
            into.write(&buffer[..count])?;
            tell(Event::Moved(into.written()));
            cancel.check()?;
        }
    }
}

/// Opens a regular file, and nothing that could block.
fn open(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::Error::other("it is no regular file")),
    }
}

/// The entry of an index that is meant: by its tag, or the only one, or the only one for the platform.
pub(crate) fn select<'a>(
    manifests: &'a [Descriptor],
    tag: Option<&str>,
    platform: &Platform,
) -> Result<&'a Descriptor> {
    if let Some(tag) = tag {
        let named = |entry: &&Descriptor| {
            let has = |key| {
                entry
                    .annotations
                    .get(key)
                    .is_some_and(|name: &String| name == tag)
            };
            has(REF_NAME) || has(CONTAINERD_NAME)
        };
        return manifests.iter().find(named).ok_or_else(|| {
            let names: Vec<_> = manifests.iter().filter_map(name_of).collect();
            Error::new(
                Kind::NotFound,
                format!("no image {tag:?} is in it, only: {}", names.join(", ")),
            )
        });
    }
    match manifests {
        [only] => Ok(only),
        several if several.iter().filter_map(name_of).nth(1).is_some() => {
            let names: Vec<_> = several.iter().filter_map(name_of).collect();
            Err(Error::invalid(format!(
                "there are several images, choose one: {}",
                names.join(", ")
            )))
        }
        several => platform.choose(several),
    }
}

/// What an index calls one of its images.
pub(crate) fn name_of(entry: &Descriptor) -> Option<&str> {
    [CONTAINERD_NAME, REF_NAME]
        .iter()
        .find_map(|key| entry.annotations.get(*key))
        .map(String::as_str)
}
