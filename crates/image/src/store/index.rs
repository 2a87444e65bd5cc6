//! `index.json`: which images there are, and their names.

use std::fs::File;
use std::io::Read;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::{Store, lock_file, open_directory, replace_file};
use crate::descriptor::{Descriptor, REF_NAME, media_type};
use crate::error::{Context, Error, Result};

/// `oci-layout`.
pub(crate) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The list of all images is no longer than this, in bytes.
const LIMIT: u64 = 64 << 20;

/// `index.json` of an image layout.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    schema_version: u32,
    #[serde(default = "index_type")]
    media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

fn index_type() -> String {
    media_type::INDEX.to_owned()
}

impl Index {
    pub(crate) fn new(manifests: Vec<Descriptor>) -> Self {
        Index {
            schema_version: 2,
            media_type: index_type(),
            manifests,
        }
    }

    /// Reads it, also that of somebody else's layout.
    pub(crate) fn read(reader: impl Read, limit: u64) -> Result<Self> {
        let mut bytes = Vec::new();
        let count = reader
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .context(|| "read index.json")?;
        if count as u64 > limit {
            return Err(Error::invalid("index.json is too large"));
        }
        serde_json::from_slice(&bytes).context(|| "index.json")
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Writing text to memory cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Store {
    /// Writes what makes the directory an image layout, where it is missing.
    pub(super) fn complete_layout(&self) -> Result<()> {
        if self.read("oci-layout")?.is_some() {
            return Ok(());
        }
        let _lock = self.lock_index()?;
        if self.read("index.json")?.is_none() {
            self.write_index(Vec::new())?;
        }
        replace_file(&self.images, "oci-layout", LAYOUT).context(|| "write oci-layout")
    }

    /// Every image with every name, as it is at this moment.
    pub(super) fn index(&self) -> Result<Vec<Descriptor>> {
        let context = || "the image store's list of images";
        match self.read("index.json")? {
            Some(file) => Ok(Index::read(file, LIMIT).context(context)?.manifests),
            None => Ok(Vec::new()),
        }
    }

    /// Changes the index, alone.
    pub(super) fn change_index<T>(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>) -> Result<T>,
    ) -> Result<T> {
        let _lock = self.lock_index()?;
        let mut entries = self.index()?;
        let answer = change(&mut entries)?;
        self.write_index(entries)?;
        Ok(answer)
    }

    fn write_index(&self, entries: Vec<Descriptor>) -> Result<()> {
        let json = Index::new(entries).to_json();
        replace_file(&self.images, "index.json", &json)
            .context(|| "write the image store's list of images")
    }

    /// The directory is the lock of its index.
    fn lock_index(&self) -> Result<File> {
        let directory = open_directory(&self.images, ".".as_ref())
            .context(|| "open the image store's list of images")?;
        lock_file(directory.into(), File::lock).context(|| "lock the image store's list of images")
    }

    fn read(&self, name: &str) -> Result<Option<File>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        match openat(&self.images, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).context(|| format!("open {name} of the image store")),
        }
    }
}

/// The name of an entry; one without is of an image that has lost its last name.
pub(super) fn name_of(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str)
}

/// Adds an image, without a name so far.
pub(super) fn add(entries: &mut Vec<Descriptor>, manifest: &Descriptor) {
    if !entries.iter().any(|entry| entry.digest == manifest.digest) {
        entries.push(Descriptor {
            annotations: Default::default(),
            ..manifest.clone()
        });
    }
}

/// Gives the name to this image. The image that had it stays, without a name if it had no other.
pub(super) fn set_name(entries: &mut Vec<Descriptor>, manifest: &Descriptor, name: &str) {
    take_name(entries, name);
    entries.retain(|entry| entry.digest != manifest.digest || name_of(entry).is_some());
    let mut entry = manifest.clone();
    entry.annotations = [(REF_NAME.to_owned(), name.to_owned())].into();
    entries.push(entry);
}

/// Takes a name away from the image that has it.
pub(super) fn take_name(entries: &mut Vec<Descriptor>, name: &str) {
    let Some(at) = entries
        .iter()
        .position(|entry| name_of(entry) == Some(name))
    else {
        return;
    };
    let mut entry = entries.remove(at);
    entry.annotations.clear();
    add(entries, &entry);
}
