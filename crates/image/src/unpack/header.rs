//! One block of a tar archive as a header (POSIX.1-1988 ustar, GNU, and the format before both).

use crate::error::{Error, Result};

/// The unit of a tar archive.
pub(super) const BLOCK: usize = 512;

/// Offsets and lengths in a file with holes.
type Pieces = Vec<(i64, i64)>;

/// A header block with the right checksum.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

/// Which fields there are beyond the oldest format's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Gnu,
}

impl<'a> Header<'a> {
    /// `None` for a block of zeros, which ends an archive.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Result<Option<Self>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header(block);
        let wanted = header.number("checksum", 148, 8)?;
        // Some old tars added up signed bytes.
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        if wanted != unsigned && wanted != signed {
            return Err(Error::invalid("tar header: wrong checksum"));
        }
        Ok(Some(header))
    }

    fn format(&self) -> Format {
        match &self.0[257..265] {
            b"ustar  \0" => Format::Gnu,
            magic if magic.starts_with(b"ustar\0") => Format::Ustar,
            _ => Format::V7,
        }
    }

    /// Bytes up to the first NUL.
    fn text(&self, start: usize, length: usize) -> &'a [u8] {
        let field = &self.0[start..start + length];
        let end = field.iter().position(|byte| *byte == 0);
        &field[..end.unwrap_or(length)]
    }

    fn number(&self, name: &str, start: usize, length: usize) -> Result<i64> {
        number(&self.0[start..start + length])
            .ok_or_else(|| Error::invalid(format!("tar header: {name} is not a number")))
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = match self.format() {
            Format::Ustar => self.text(345, 155),
            Format::V7 | Format::Gnu => &[],
        };
        match prefix {
            [] => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn mode(&self) -> Result<u32> {
        Ok(self.number("mode", 100, 8)? as u32 & 0o7777)
    }

    pub(super) fn uid(&self) -> Result<i64> {
        self.number("uid", 108, 8)
    }

    pub(super) fn gid(&self) -> Result<i64> {
        self.number("gid", 116, 8)
    }

    pub(super) fn size(&self) -> Result<i64> {
        self.number("size", 124, 12)
    }

    pub(super) fn mtime(&self) -> Result<i64> {
        self.number("mtime", 136, 12)
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> Result<(i64, i64)> {
        match self.format() {
            Format::V7 => Ok((0, 0)),
            Format::Ustar | Format::Gnu => {
                Ok((self.number("major", 329, 8)?, self.number("minor", 337, 8)?))
            }
        }
    }

    /// GNU's first sparse map: the pieces that there are, whether more follow in blocks of their own, and the file's real size.
    pub(super) fn sparse(&self) -> Result<(Pieces, bool, i64)> {
        if self.format() != Format::Gnu {
            return Err(Error::invalid(
                "tar header: a sparse file outside of GNU's format",
            ));
        }
        let size = self.number("real size", 483, 12)?;
        Ok((sparse_pieces(&self.0[386..482])?, self.0[482] != 0, size))
    }
}

/// A block that continues GNU's sparse map: its pieces, and whether another one follows.
pub(super) fn sparse_extension(block: &[u8; BLOCK]) -> Result<(Pieces, bool)> {
    Ok((sparse_pieces(&block[..504])?, block[504] != 0))
}

/// Offsets and lengths, up to the first that is empty.
fn sparse_pieces(fields: &[u8]) -> Result<Pieces> {
    let bad = || Error::invalid("tar header: a sparse piece is not a number");
    fields
        .chunks_exact(24)
        .take_while(|piece| piece[0] != 0)
        .map(|piece| {
            let offset = number(&piece[..12]).ok_or_else(bad)?;
            Ok((offset, number(&piece[12..]).ok_or_else(bad)?))
        })
        .collect()
}

/// Octal digits between spaces or NULs, or GNU's binary form (the first bit set, then big endian two's complement).
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value = if negative { -1_i128 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = match at {
                0 if negative => byte | 0x80,
                0 => byte & 0x7f,
                _ => *byte,
            };
            value = value.checked_shl(8)? | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let end = field.iter().position(|byte| *byte == 0);
    let digits = field[..end.unwrap_or(field.len())].trim_ascii();
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        for (field, wanted) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777", Some(0o77777777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"0x12\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\0\x05", Some(5)),
            (b"\x80\0\0\0\0\0\0\0\0\x01\0\0", Some(65536)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
                Some(-2),
            ),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), wanted, "{field:?}");
        }
    }
}
