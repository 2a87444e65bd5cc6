//! The bytes of a layer: a blob, decompressed, with the digest of everything that came out.

use std::fs::File;
use std::io::Read;

use flate2::{Decompress, FlushDecompress, Status};
use zstd_safe::{DCtx, InBuffer, OutBuffer};

use crate::digest::{Digest, Hasher};
use crate::error::{Context, Error, Result};

/// Large enough that system calls do not count, small enough that what was decompressed is hashed and written out of the cache.
const BUFFER: usize = 128 << 10;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// How a blob is compressed: what its first bytes say, since media types lie.
enum Compression {
    None,
    Gzip {
        inflate: Box<Decompress>,
        /// Between two members of the file.
        between: bool,
    },
    Zstd {
        context: DCtx<'static>,
        /// Between two frames of the file.
        between: bool,
    },
}

/// A pull parser's view of a layer.
pub(super) struct Stream {
    blob: File,
    compression: Compression,
    input: Buffer,
    output: Buffer,
    hash: Hasher,
}

/// Bytes that were read and not yet used: `bytes[start..end]`.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Buffer {
            bytes: vec![0; BUFFER],
            start: 0,
            end: 0,
        }
    }

    fn unused(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Reads more behind what is unused; `false` at the end.
    fn read(&mut self, blob: &mut File) -> Result<bool> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let count = blob
            .read(&mut self.bytes[self.end..])
            .context(|| "read the blob")?;
        self.end += count;
        Ok(count > 0)
    }
}

impl Stream {
    /// Reads a blob from its current position.
    pub(super) fn new(mut blob: File) -> Result<Self> {
        let mut input = Buffer::new();
        while input.end < ZSTD.len() && input.read(&mut blob)? {}
        Ok(Stream {
            compression: Compression::of(input.unused()),
            blob,
            input,
            output: Buffer::new(),
            hash: Hasher::default(),
        })
    }

    /// Between one and `most` of the next bytes; none at the end.
    pub(super) fn take(&mut self, most: u64) -> Result<&[u8]> {
        if self.output.start == self.output.end {
            self.decompress()?;
        }
        let start = self.output.start;
        let available = (self.output.end - start) as u64;
        self.output.start += available.min(most) as usize;
        Ok(&self.output.bytes[start..self.output.start])
    }

    /// Reads to the end: the digest of everything that there was.
    pub(super) fn finish(mut self) -> Result<Digest> {
        while !self.take(u64::MAX)?.is_empty() {}
        Ok(self.hash.finish())
    }

    /// Refills the output, which has been used up.
    fn decompress(&mut self) -> Result<()> {
        self.output.start = 0;
        self.output.end = 0;
        loop {
            let ended =
                self.input.unused().len() < GZIP.len() && !self.input.read(&mut self.blob)?;
            let (used, made, more) =
                self.compression
                    .step(self.input.unused(), &mut self.output.bytes, ended)?;
            self.input.start += used;
            if made > 0 {
                self.output.end = made;
                self.hash.update(&self.output.bytes[..made]);
                return Ok(());
            }
            if !more {
                return Ok(());
            }
        }
    }
}

impl Compression {
    fn of(magic: &[u8]) -> Self {
        if magic.starts_with(GZIP) {
            Compression::Gzip {
                inflate: Box::new(gzip()),
                between: true,
            }
        } else if is_zstd(magic) {
            Compression::Zstd {
                context: DCtx::create(),
                between: true,
            }
        } else {
            Compression::None
        }
    }

    /// Decompresses from `input`, of which nothing will follow if it has `ended`: how much was used, how much was made, and whether
    /// there may be more.
    fn step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        ended: bool,
    ) -> Result<(usize, usize, bool)> {
        let (used, made) = match self {
            Compression::None => {
                output[..input.len()].copy_from_slice(input);
                return Ok((input.len(), input.len(), !input.is_empty()));
            }
            Compression::Gzip { inflate, between } => {
                if *between {
                    // Like gzip(1): what follows a member and is none itself is not looked at.
                    if !input.starts_with(GZIP) {
                        return Ok((0, 0, false));
                    }
                    **inflate = gzip();
                    *between = false;
                }
                let before = (inflate.total_in(), inflate.total_out());
                let status = inflate
                    .decompress(input, output, FlushDecompress::None)
                    .map_err(|error| Error::invalid(format!("decompress gzip: {error}")))?;
                *between = status == Status::StreamEnd;
                (
                    (inflate.total_in() - before.0) as usize,
                    (inflate.total_out() - before.1) as usize,
                )
            }
            Compression::Zstd { context, between } => {
                if *between && input.is_empty() {
                    return Ok((0, 0, false));
                }
                let mut input = InBuffer::around(input);
                let mut output = OutBuffer::around(output);
                let hint = context
                    .decompress_stream(&mut output, &mut input)
                    .map_err(|code| {
                        let error = zstd_safe::get_error_name(code);
                        Error::invalid(format!("decompress zstd: {error}"))
                    })?;
                *between = hint == 0;
                (input.pos(), output.pos())
            }
        };
        if used == 0 && made == 0 && !self.is_between() && (ended || !input.is_empty()) {
            return Err(Error::invalid("the compressed data ends too early"));
        }
        Ok((used, made, true))
    }

    fn is_between(&self) -> bool {
        match self {
            Compression::None => false,
            Compression::Gzip { between, .. } | Compression::Zstd { between, .. } => *between,
        }
    }
}

/// A decoder of one gzip member (RFC 1952) with a window of any size.
fn gzip() -> Decompress {
    Decompress::new_gzip(15)
}

/// A frame of data, or one to be skipped (RFC 8878, 3.1).
fn is_zstd(magic: &[u8]) -> bool {
    magic.starts_with(ZSTD)
        || matches!(magic, [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50)
}
