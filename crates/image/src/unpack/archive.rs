//! The entries of a tar archive: headers with what PAX records and GNU's long names and sparse maps change in them.
//!
//! Sizes follow Go's archive/tar, which every other engine reads layers with: a reader that disagrees about where the next header
//! stands sees other files than the one that scanned the image.

use std::collections::BTreeMap;

use nix::sys::time::TimeSpec;

use super::header::{BLOCK, Header, sparse_extension};
use super::stream::Stream;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};

/// How large a block of PAX records or a long name may be (Go's limit as well).
const LONGEST_RECORDS: u64 = 1 << 20;
/// How long a path may be: what the kernel takes (PATH_MAX, with the NUL).
const LONGEST_PATH: usize = 4095;
/// How long a sparse map may be.
const MOST_PIECES: usize = 1 << 18;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    /// With a target as its link says.
    Symlink,
    /// One more name for the entry that the link names.
    Hardlink,
    Character,
    Block,
    Fifo,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// As written in the archive: nobody has looked at it.
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    /// Permissions and setuid, setgid, sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: TimeSpec,
    pub(super) device: (u32, u32),
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Length of the file, in bytes.
    pub(super) size: u64,
    /// Where the data goes in a file with holes: offsets and lengths, in order.
    pub(super) pieces: Option<Vec<(u64, u64)>>,
}

/// A layer, entry by entry.
pub(super) struct Archive {
    stream: Stream,
    /// Bytes of the current entry that are still to come, and the padding behind them.
    remaining: u64,
    padding: u64,
}

/// PAX records: the last one of a name counts, and an empty one says that there is none.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

impl Archive {
    pub(super) fn new(stream: Stream) -> Self {
        Archive {
            stream,
            remaining: 0,
            padding: 0,
        }
    }

    /// The next entry, `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let (mut path, mut link) = (None, None);
        let mut records = Records::new();
        let mut map = Vec::new();
        loop {
            self.skip()?;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let Some(header) = Header::parse(&block)? else {
                return Ok(None);
            };
            match header.kind() {
                // Records for all that follow: no builder of layers writes them, and no engine reads them.
                b'g' => self.begin(size_of(&header)?),
                b'x' => {
                    records.clear();
                    map.clear();
                    let text = self.contents(size_of(&header)?, LONGEST_RECORDS)?;
                    parse_records(&text, &mut records, &mut map)?;
                }
                b'L' => path = Some(self.long_name(&header)?),
                b'K' => link = Some(self.long_name(&header)?),
                kind => {
                    let path = path.unwrap_or_else(|| header.path());
                    let link = link.unwrap_or_else(|| header.link());
                    let name = records.get(&b"path"[..]).unwrap_or(&path).clone();
                    return self
                        .entry(kind, &header, path, link, records, map)
                        .context(|| format!("{}", name.escape_ascii()))
                        .map(Some);
                }
            }
        }
    }

    /// The next piece of the current entry's data, `most` bytes at most; nothing at its end.
    pub(super) fn data(&mut self, most: u64) -> Result<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let piece = self.stream.take(self.remaining.min(most))?;
        if piece.is_empty() {
            return Err(ends_early());
        }
        self.remaining -= piece.len() as u64;
        Ok(piece)
    }

    /// Reads what follows the archive too: the digest of the whole layer.
    pub(super) fn finish(self) -> Result<Digest> {
        self.stream.finish()
    }

    fn entry(
        &mut self,
        kind: u8,
        header: &Header<'_>,
        path: Vec<u8>,
        link: Vec<u8>,
        mut records: Records,
        mut map: Vec<i64>,
    ) -> Result<Entry> {
        let mut size = match records.get(&b"size"[..]) {
            Some(text) => size_from(decimal(text)?)?,
            None => size_of(header)?,
        };
        let old_directory = kind == 0 && path.ends_with(b"/");
        let kind = match kind {
            _ if old_directory => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let kind = other.escape_ascii();
                return Err(Error::invalid(format!("unknown type {kind} of tar entry")));
            }
        };
        if kind != Kind::File {
            size = 0;
        }
        self.begin(size);
        let pieces = match header.kind() {
            b'S' => Some(self.old_sparse(header)?),
            _ if kind == Kind::File => self.pax_sparse(&mut records, &mut map)?,
            _ => None,
        };
        let (pieces, size) = match pieces {
            None => (None, size),
            Some((map, size)) => (Some(check_map(&map, size, self.remaining)?), size),
        };
        let number = |name: &str, fallback: Result<i64>| match records.get(name.as_bytes()) {
            Some(text) => decimal(text),
            None => fallback,
        };
        Ok(Entry {
            kind,
            mode: header.mode()?,
            uid: id("uid", number("uid", header.uid())?)?,
            gid: id("gid", number("gid", header.gid())?)?,
            mtime: match records.get(&b"mtime"[..]) {
                Some(text) => time(text)?,
                None => TimeSpec::new(header.mtime()?, 0),
            },
            device: match kind {
                Kind::Character | Kind::Block => {
                    let (major, minor) = header.device()?;
                    (id("major", major)?, id("minor", minor)?)
                }
                _ => (0, 0),
            },
            path: name(records.remove(&b"path"[..]).unwrap_or(path))?,
            link: name(records.remove(&b"linkpath"[..]).unwrap_or(link))?,
            xattrs: xattrs(records),
            size,
            pieces,
        })
    }

    /// What follows the header is `size` bytes and padding.
    fn begin(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// Reads over what is left of the current entry. Some writers leave the padding of the last one away.
    fn skip(&mut self) -> Result<()> {
        while self.remaining > 0 {
            self.data(u64::MAX)?;
        }
        while self.padding > 0 {
            match self.stream.take(self.padding)?.len() as u64 {
                0 => self.padding = 0,
                length => self.padding -= length,
            }
        }
        Ok(())
    }

    /// A block at the start of an entry, `None` where the layer ends.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let piece = self.stream.take((BLOCK - filled) as u64)?;
            match (piece.len(), filled) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(ends_early()),
                (length, _) => block[filled..filled + length].copy_from_slice(piece),
            }
            filled += piece.len();
        }
        Ok(Some(block))
    }

    /// All data of a header that describes the next one.
    fn contents(&mut self, size: u64, most: u64) -> Result<Vec<u8>> {
        if size > most {
            return Err(Error::invalid(format!(
                "tar header: {size} bytes of names and records, at most {most} are allowed"
            )));
        }
        self.begin(size);
        let mut contents = Vec::new();
        loop {
            match self.data(u64::MAX)? {
                [] => return Ok(contents),
                piece => contents.extend_from_slice(piece),
            }
        }
    }

    fn long_name(&mut self, header: &Header<'_>) -> Result<Vec<u8>> {
        let mut name = self.contents(size_of(header)?, LONGEST_RECORDS)?;
        let end = name.iter().position(|byte| *byte == 0);
        name.truncate(end.unwrap_or(name.len()));
        Ok(name)
    }

    /// GNU's own sparse files: part of the map stands in the header, the rest in blocks that the size does not count.
    fn old_sparse(&mut self, header: &Header<'_>) -> Result<(Vec<i64>, u64)> {
        let (mut pieces, mut more, size) = header.sparse()?;
        while more {
            let block = self.block()?.ok_or_else(ends_early)?;
            let (next, another) = sparse_extension(&block)?;
            pieces.extend(next);
            more = another;
            if pieces.len() > MOST_PIECES {
                return Err(too_many_pieces());
            }
        }
        let map = pieces
            .into_iter()
            .flat_map(|(start, length)| [start, length]);
        Ok((map.collect(), size_from(size)?))
    }

    /// Sparse files in PAX archives: GNU's versions 0.0, 0.1 (the map is in the records) and 1.0 (it stands before the data).
    fn pax_sparse(
        &mut self,
        records: &mut Records,
        map: &mut Vec<i64>,
    ) -> Result<Option<(Vec<i64>, u64)>> {
        let mut record = |name: &str| records.remove(format!("GNU.sparse.{name}").as_bytes());
        let version = (record("major"), record("minor"));
        let size = record("realsize").or_else(|| record("size"));
        let text = record("map");
        let path = record("name");
        if version == (Some(b"1".to_vec()), Some(b"0".to_vec())) {
            *map = self.leading_map()?;
        } else if let Some(text) = text {
            *map = text
                .split(|byte| *byte == b',')
                .map(decimal)
                .collect::<Result<_>>()?;
        } else if map.is_empty() {
            return Ok(None);
        }
        if let Some(path) = path {
            records.insert(b"path".to_vec(), path);
        }
        let size = size.ok_or_else(|| Error::invalid("a sparse file without its real size"))?;
        Ok(Some((std::mem::take(map), size_from(decimal(&size)?)?)))
    }

    /// Numbers, a line each: how many pieces, and offset and length of each one. Filled up to a block, and part of the size.
    fn leading_map(&mut self) -> Result<Vec<i64>> {
        let mut numbers = Vec::new();
        let mut line = Vec::new();
        let mut wanted = 1;
        let mut blocks = 0..;
        while numbers.len() < wanted {
            if self.remaining < BLOCK as u64 || blocks.next() > Some(2 * MOST_PIECES) {
                return Err(Error::invalid("a sparse map that does not end"));
            }
            let block = self.block()?.ok_or_else(ends_early)?;
            self.remaining -= BLOCK as u64;
            for byte in block {
                if numbers.len() == wanted {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                numbers.push(decimal(&line)?);
                line.clear();
                if numbers.len() == 1 {
                    wanted = match usize::try_from(numbers[0]) {
                        Ok(count) if count <= MOST_PIECES => 1 + 2 * count,
                        _ => return Err(too_many_pieces()),
                    };
                }
            }
        }
        numbers.remove(0);
        Ok(numbers)
    }
}

/// A sparse map has to be in order, inside the file, and as long as the data.
fn check_map(map: &[i64], size: u64, data: u64) -> Result<Vec<(u64, u64)>> {
    let bad = || Error::invalid("a sparse map that is out of order or does not fit its file");
    if !map.len().is_multiple_of(2) {
        return Err(bad());
    }
    let (mut pieces, mut end, mut sum) = (Vec::with_capacity(map.len() / 2), 0, 0);
    for piece in map.chunks_exact(2) {
        let (Ok(start), Ok(length)) = (u64::try_from(piece[0]), u64::try_from(piece[1])) else {
            return Err(bad());
        };
        if start < end {
            return Err(bad());
        }
        end = start
            .checked_add(length)
            .filter(|end| *end <= size)
            .ok_or_else(bad)?;
        sum += length;
        pieces.push((start, length));
    }
    match sum == data {
        true => Ok(pieces),
        false => Err(bad()),
    }
}

/// `LENGTH KEY=VALUE\n`, one after the other. `map` gets what version 0.0 of sparse files says in records of one name.
fn parse_records(mut text: &[u8], records: &mut Records, map: &mut Vec<i64>) -> Result<()> {
    let bad = || Error::invalid("tar header: a PAX record is not \"length key=value\"");
    while !text.is_empty() {
        let space = text.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length = usize::try_from(decimal(&text[..space])?).map_err(|_| bad())?;
        let record = text.get(space + 1..length).ok_or_else(bad)?;
        let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"" => return Err(bad()),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => map.push(decimal(value)?),
            _ if value.is_empty() && !key.starts_with(XATTR) => drop(records.remove(key)),
            _ => drop(records.insert(key.to_vec(), value.to_vec())),
        }
        text = &text[length..];
    }
    Ok(())
}

const XATTR: &[u8] = b"SCHILY.xattr.";

fn xattrs(records: Records) -> BTreeMap<Vec<u8>, Vec<u8>> {
    records
        .into_iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.to_vec(), value)))
        .collect()
}

fn name(name: Vec<u8>) -> Result<Vec<u8>> {
    if name.contains(&0) {
        return Err(Error::invalid("tar header: a NUL in a name"));
    }
    if name.len() > LONGEST_PATH {
        return Err(Error::invalid(format!(
            "tar header: a name of {} bytes, at most {LONGEST_PATH} are allowed",
            name.len()
        )));
    }
    Ok(name)
}

fn size_of(header: &Header<'_>) -> Result<u64> {
    size_from(header.size()?)
}

fn size_from(size: i64) -> Result<u64> {
    u64::try_from(size).map_err(|_| Error::invalid(format!("tar header: size {size}")))
}

/// An id or device number; the highest one means "none" to the kernel.
fn id(field: &str, id: i64) -> Result<u32> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Error::invalid(format!("tar header: {field} {id}")))
}

fn decimal(text: &[u8]) -> Result<i64> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            let text = text.escape_ascii();
            Error::invalid(format!("tar header: \"{text}\" is not a number"))
        })
}

/// Seconds since 1970 with a fraction.
fn time(text: &[u8]) -> Result<TimeSpec> {
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let whole = parts.next().unwrap_or_default();
    let fraction = parts.next().unwrap_or_default();
    let seconds = decimal(whole)?;
    let digits = [fraction, b"000000000"].concat();
    let nanoseconds = decimal(&digits[..9])?;
    Ok(match nanoseconds {
        0 => TimeSpec::new(seconds, 0),
        // -0.5 is half a second before 1970.
        _ if whole.starts_with(b"-") => TimeSpec::new(seconds - 1, 1_000_000_000 - nanoseconds),
        _ => TimeSpec::new(seconds, nanoseconds),
    })
}

fn ends_early() -> Error {
    Error::invalid("the tar archive ends inside an entry")
}

fn too_many_pieces() -> Error {
    Error::invalid(format!("a sparse file of more than {MOST_PIECES} pieces"))
}
