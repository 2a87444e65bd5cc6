//! Layers as no tool would write them.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use image::Digest;
use image::unpack::Layer;

/// A tar archive in the making.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

/// One header; everything in it may be wrong.
#[derive(Clone)]
pub(crate) struct Header<'a> {
    pub(crate) kind: u8,
    pub(crate) path: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) uid: u32,
    pub(crate) device: (u32, u32),
}

impl<'a> Header<'a> {
    pub(crate) fn new(kind: u8, path: &'a [u8]) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        Header {
            kind,
            path,
            link: b"",
            mode,
            size: 0,
            uid: 0,
            device: (0, 0),
        }
    }

    fn block(&self) -> [u8; 512] {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
        put(0, &self.path[..self.path.len().min(100)]);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", self.uid).as_bytes());
        put(116, format!("{:07o}", self.uid).as_bytes());
        put(124, format!("{:011o}", self.size).as_bytes());
        put(136, b"07500000000");
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        seal(&mut block);
        block
    }
}

/// The checksum of a header.
pub(crate) fn seal(block: &mut [u8; 512]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn header(mut self, header: &Header<'_>) -> Self {
        self.0.extend(header.block());
        self
    }

    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, data: &[u8]) -> Self {
        self.header(&Header {
            size: data.len() as u64,
            ..Header::new(b'0', path.as_bytes())
        })
        .data(data)
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.header(&Header::new(b'5', path.as_bytes()))
    }

    pub(crate) fn link(self, kind: u8, path: &str, target: impl AsRef<Path>) -> Self {
        let target = target.as_ref().as_os_str().as_bytes();
        let short = Header {
            link: target,
            ..Header::new(kind, path.as_bytes())
        };
        match target.len() {
            ..=100 => self.header(&short),
            _ => self.pax(&[("linkpath", target)]).header(&short),
        }
    }

    pub(crate) fn symlink(self, path: &str, target: impl AsRef<Path>) -> Self {
        self.link(b'2', path, target)
    }

    pub(crate) fn hardlink(self, path: &str, target: impl AsRef<Path>) -> Self {
        self.link(b'1', path, target)
    }

    pub(crate) fn of(self, kind: u8, path: &str) -> Self {
        self.header(&Header::new(kind, path.as_bytes()))
    }

    /// Records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let text: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| record(key, value))
            .collect();
        self.raw_pax(&text)
    }

    pub(crate) fn raw_pax(self, text: &[u8]) -> Self {
        self.header(&Header {
            size: text.len() as u64,
            ..Header::new(b'x', b"pax")
        })
        .data(text)
    }

    /// The end of the archive.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    [length.to_string().as_bytes(), &rest].concat()
}

/// A layer whose digest is right.
pub(crate) fn layer(content: &[u8]) -> Layer {
    blob(content, content)
}

/// A layer that is `compressed`, and `content` without it.
pub(crate) fn blob(compressed: &[u8], content: &[u8]) -> Layer {
    let mut blob: File = tempfile::tempfile().expect("a file");
    blob.write_all(compressed).expect("a write");
    blob.rewind().expect("a seek");
    Layer {
        blob,
        diff_id: Digest::of(content),
    }
}
