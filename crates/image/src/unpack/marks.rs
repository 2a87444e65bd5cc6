//! What a layer says about the layers below it, written down beside its files until they are merged.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};

use crate::error::{Context, Error, Result};

/// One statement about lower layers; paths are clean.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// What lower layers have here is gone.
    Whiteout(Vec<u8>),
    /// What lower layers have in this directory is gone.
    Opaque(Vec<u8>),
    /// The layer has files in this directory, and nothing to say about the directory itself.
    Implied(Vec<u8>),
    /// It has something to say after all.
    Explicit(Vec<u8>),
    /// A hard link to a file of a lower layer: its target, its path.
    Link(Vec<u8>, Vec<u8>),
}

/// How much a layer may have to say: all of it is held in memory when it is merged.
const LARGEST: u64 = 16 << 20;

pub(super) struct Writer {
    file: BufWriter<File>,
    written: u64,
}

impl Writer {
    pub(super) fn new(file: File) -> Self {
        Writer {
            file: BufWriter::new(file),
            written: 0,
        }
    }

    pub(super) fn add(&mut self, mark: &Mark) -> Result<()> {
        let (kind, paths) = match mark {
            Mark::Whiteout(path) => (b'w', [path, &Vec::new()]),
            Mark::Opaque(path) => (b'o', [path, &Vec::new()]),
            Mark::Implied(path) => (b'i', [path, &Vec::new()]),
            Mark::Explicit(path) => (b'e', [path, &Vec::new()]),
            Mark::Link(target, path) => (b'l', [target, path]),
        };
        let line = [&[kind], &paths[0][..], b"\0", paths[1], b"\0"].concat();
        self.written += line.len() as u64;
        if self.written > LARGEST {
            return Err(Error::invalid("more whiteouts than any layer has"));
        }
        self.file
            .write_all(&line)
            .context(|| "write down a whiteout")
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.file.flush().context(|| "write down whiteouts")
    }
}

/// Everything that was written.
pub(super) fn read(file: File) -> Result<Vec<Mark>> {
    let bad = || Error::new(crate::Kind::Failed, "the list of whiteouts is damaged");
    let mut text = Vec::new();
    BufReader::new(file)
        .take(LARGEST)
        .read_to_end(&mut text)
        .context(|| "read the list of whiteouts")?;
    let mut words = text.split(|byte| *byte == 0);
    let mut marks = Vec::new();
    while let (Some(first), Some(second)) = (words.next(), words.next()) {
        let (kind, path) = first.split_first().ok_or_else(bad)?;
        let path = path.to_vec();
        marks.push(match kind {
            b'w' => Mark::Whiteout(path),
            b'o' => Mark::Opaque(path),
            b'i' => Mark::Implied(path),
            b'e' => Mark::Explicit(path),
            b'l' => Mark::Link(path, second.to_vec()),
            _ => return Err(bad()),
        });
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    #[test]
    fn what_is_written_is_read() {
        let marks = [
            Mark::Implied(Vec::new()),
            Mark::Whiteout(b"a/b\nc".to_vec()),
            Mark::Link(b"x".to_vec(), b"y".to_vec()),
            Mark::Opaque(b"etc".to_vec()),
        ];
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file.try_clone().unwrap());
        for mark in &marks {
            writer.add(mark).unwrap();
        }
        writer.finish().unwrap();
        file.rewind().unwrap();
        assert_eq!(read(file).unwrap(), marks);
    }
}
