//! One pass over a tar archive: its files become blobs of the store, its descriptions stay in memory. The tar crate only parses.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path};
use std::rc::Rc;

use tar::{Archive, Entry, EntryType};

use super::Files;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::DOCUMENT_LIMIT;
use crate::progress::{Event, Progress};
use crate::store::Store;

/// No archive of images has more files.
const ENTRIES: usize = 100_000;
/// What stands between two files is not longer, in bytes: the parser would keep all of it in memory.
const HEADERS: u64 = 1 << 20;
/// No chain of links is longer.
const LINKS: usize = 8;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// `index.json` of an image layout.
    pub(super) index: Option<Vec<u8>>,
    /// `manifest.json` of `docker save`.
    pub(super) saved: Option<Vec<u8>>,
    files: Files,
    links: BTreeMap<String, String>,
}

impl Contents {
    /// The blob behind a path; a link stands for what it points to.
    pub(super) fn file(&self, path: &str) -> Result<&(Digest, u64)> {
        let missing = || Error::invalid(format!("the archive has no file {path:?}"));
        let mut at = normal(Path::new(path)).ok_or_else(missing)?;
        for _ in 0..LINKS {
            match self.links.get(&at) {
                Some(target) => at.clone_from(target),
                None => return self.files.get(&at).ok_or_else(missing),
            }
        }
        Err(Error::invalid(format!(
            "links of the archive lead in circles from {path:?}"
        )))
    }
}

/// Reads an archive to its end.
pub(super) fn read(
    store: &Store,
    input: &mut dyn Read,
    progress: &dyn Progress,
) -> Result<Contents> {
    let limit = Rc::new(Cell::new(Some(HEADERS)));
    let mut archive = Archive::new(Limited {
        input,
        limit: Rc::clone(&limit),
    });
    let mut contents = Contents::default();
    for (number, entry) in archive
        .entries()
        .context(|| "read the archive")?
        .enumerate()
    {
        let mut entry = entry.map_err(unreadable)?;
        if number == ENTRIES {
            return Err(Error::invalid(format!(
                "the archive has more than {ENTRIES} files"
            )));
        }
        limit.set(None);
        contents.add(store, &mut entry, progress)?;
        io::copy(&mut entry, &mut io::sink()).context(|| "read the archive")?;
        limit.set(Some(HEADERS));
    }
    Ok(contents)
}

/// What `tar` says of a field that is no number repeats the whole header, which then is none.
fn unreadable(error: io::Error) -> Error {
    let said = error.to_string();
    match said.contains(" when getting ") {
        true => Error::invalid("it is not a tar archive, or a damaged one"),
        false => Error::new(Kind::Failed, format!("read the archive: {said}")),
    }
}

impl Contents {
    fn add(
        &mut self,
        store: &Store,
        entry: &mut Entry<'_, impl Read>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let path = entry.path().context(|| "read the archive")?.into_owned();
        let Some(name) = normal(&path) else {
            return Err(Error::invalid(format!(
                "the archive has an entry {path:?}, which leads out of it"
            )));
        };
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Symlink | EntryType::Link => {
                let target = entry
                    .link_name()
                    .context(|| "read the archive")?
                    .unwrap_or_default();
                let is_symlink = entry.header().entry_type() == EntryType::Symlink;
                let base = path
                    .parent()
                    .filter(|_| is_symlink)
                    .unwrap_or(Path::new(""));
                if let Some(target) = normal(&base.join(target)) {
                    self.links.insert(name, target);
                }
                return Ok(());
            }
            EntryType::GNUSparse => {
                return Err(Error::invalid(format!(
                    "{name}: sparse files are not supported"
                )));
            }
            _ => return Ok(()),
        }
        match name.as_str() {
            "index.json" => self.index = Some(document(&name, entry)?),
            "oci-layout" | "repositories" => {}
            "manifest.json" => self.saved = Some(document(&name, entry)?),
            _ => {
                let blob = stage(store, &name, entry, progress)?;
                self.files.insert(name, blob);
            }
        }
        Ok(())
    }
}

/// A description, as a whole.
fn document(name: &str, entry: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry
        .take(DOCUMENT_LIMIT + 1)
        .read_to_end(&mut bytes)
        .context(|| format!("read {name} of the archive"))?;
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(Error::invalid(format!(
            "{name} of the archive is too large"
        )));
    }
    Ok(bytes)
}

/// A file becomes a blob. One that is called by its digest has to have it, and need not be read when it is there.
fn stage(
    store: &Store,
    name: &str,
    entry: &mut Entry<'_, impl Read>,
    progress: &dyn Progress,
) -> Result<(Digest, u64)> {
    let called = match name.strip_prefix("blobs/sha256/") {
        Some(hex) => Some(format!("sha256:{hex}").parse::<Digest>()?),
        None => None,
    };
    if let Some(digest) = &called {
        let blob = Descriptor::new("", digest.clone(), entry.size());
        if store.has(&blob)? {
            progress.blob(&blob, Event::Exists);
            return Ok((blob.digest, blob.size));
        }
    }
    let mut partial = store.unnamed()?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = entry
            .read(&mut buffer)
            .context(|| format!("read {name} of the archive"))?;
        if count == 0 {
            break;
        }
        partial.write(&buffer[..count])?;
    }
    if partial.written() != entry.size() {
        return Err(Error::invalid(format!("the archive ends within {name}")));
    }
    if called.is_some_and(|digest| digest != partial.digest()) {
        return Err(Error::invalid(format!(
            "{name} of the archive has another digest"
        )));
    }
    let (digest, size) = partial.finish()?;
    progress.blob(&Descriptor::new("", digest.clone(), size), Event::Complete);
    Ok((digest, size))
}

/// The path without `.` and `..`; none for one that leads out of the archive.
fn normal(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Some(parts.join("/"))
}

/// A reader that stops at a limit, while there is one.
struct Limited<'a> {
    input: &'a mut dyn Read,
    limit: Rc<Cell<Option<u64>>>,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if let Some(left) = self.limit.get() {
            let left = left
                .checked_sub(count as u64)
                .ok_or_else(|| io::Error::other("a header is too long"))?;
            self.limit.set(Some(left));
        }
        Ok(count)
    }
}
