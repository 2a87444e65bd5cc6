//! Messages and attributes of netlink(7): a fixed header, a header of the family, then attributes that may hold attributes.

use libc::{NLA_F_NESTED, NLM_F_REQUEST};

/// The size of `struct nlmsghdr`.
pub const HEADER: usize = 16;
const ALIGNMENT: usize = 4;

/// A request before it is numbered and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    kind: u16,
    pub(crate) flags: u16,
    /// The header of the family and the attributes.
    body: Vec<u8>,
}

impl Message {
    /// A request of the given kind; `flags` come on top of `NLM_F_REQUEST`.
    pub fn new(kind: u16, flags: i32, header: &[u8], attributes: Attributes) -> Self {
        let mut body = header.to_vec();
        pad(&mut body);
        body.extend(attributes.0);
        Message {
            kind,
            flags: (flags | NLM_F_REQUEST) as u16,
            body,
        }
    }

    /// Appends the message as the kernel reads it.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>, extra_flags: i32, sequence: u32) {
        bytes.extend(((HEADER + self.body.len()) as u32).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((self.flags | extra_flags as u16).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(&self.body);
        pad(bytes);
    }
}

/// A list of attributes that grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// An empty list.
    pub fn new() -> Self {
        Attributes::default()
    }

    /// What has been written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Raw bytes. They have to be fewer than 64 KiB.
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).expect("an attribute is below 64 KiB");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        pad(&mut self.0);
        self
    }

    /// Text with the NUL that ends it.
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// A number as the machine writes it: rtnetlink.
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number as the network writes it: nfnetlink.
    pub fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Attributes inside an attribute.
    pub fn nest(self, kind: u16, inner: Attributes) -> Self {
        self.nest_bytes(kind, &inner.0)
    }

    /// Attributes that were received, as they are.
    pub fn nest_bytes(self, kind: u16, inner: &[u8]) -> Self {
        self.bytes(kind | NLA_F_NESTED as u16, inner)
    }

    /// An attribute that is a family's header and attributes.
    pub fn message(self, kind: u16, header: &[u8], inner: Attributes) -> Self {
        self.nest_bytes(kind, &[header, &inner.0].concat())
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

/// One message of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    /// The header of the family and the attributes.
    pub body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The attributes behind a family's header of `header` bytes.
    pub fn attributes(&self, header: usize) -> Read<'a> {
        Read(self.body.get(header..).unwrap_or_default())
    }
}

/// Splits what was received into messages. A message that says to be longer than what is there ends the list.
pub(crate) fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let body = bytes.get(HEADER..length)?;
        let answer = Answer {
            kind: u16_at(bytes, 4)?,
            sequence: u32_at(bytes, 8)?,
            body,
        };
        bytes = bytes
            .get(length.next_multiple_of(ALIGNMENT)..)
            .unwrap_or_default();
        Some(answer)
    })
}

/// Attributes that were received.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a>(
    /// As they were received.
    pub &'a [u8],
);

impl<'a> Read<'a> {
    /// The value of the first attribute of this kind.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter()
            .find_map(|(k, value)| (k == kind).then_some(value))
    }

    /// The attributes inside the first attribute of this kind.
    pub fn nested(self, kind: u16) -> Option<Read<'a>> {
        self.get(kind).map(Read)
    }

    /// A number as the machine writes it.
    pub fn u32(self, kind: u16) -> Option<u32> {
        u32_at(self.get(kind)?, 0)
    }

    /// A number as the network writes it.
    pub fn be32(self, kind: u16) -> Option<u32> {
        self.u32(kind).map(u32::from_be)
    }

    /// Text up to its NUL; `None` as well when it is not UTF-8.
    pub fn text(self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        let end = value
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(value.len());
        std::str::from_utf8(&value[..end]).ok()
    }
}

impl<'a> IntoIterator for Read<'a> {
    type Item = (u16, &'a [u8]);
    type IntoIter = Attribute<'a>;

    fn into_iter(self) -> Attribute<'a> {
        Attribute(self.0)
    }
}

/// Iterates over attributes.
#[derive(Debug)]
pub struct Attribute<'a>(&'a [u8]);

impl<'a> Iterator for Attribute<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & libc::NLA_TYPE_MASK as u16;
        let value = self.0.get(4..length)?;
        self.0 = self
            .0
            .get(length.next_multiple_of(ALIGNMENT)..)
            .unwrap_or_default();
        Some((kind, value))
    }
}

/// A number of the machine at this offset, when there are bytes enough.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A number of the machine at this offset, when there are bytes enough.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let inner = Attributes::new().u32(7, 99).bytes(8, &[1, 2, 3]);
        let attributes = Attributes::new()
            .text(1, "coracle")
            .nest(2, inner)
            .be32(3, 8);
        let message = Message::new(0x0a06, libc::NLM_F_CREATE, &[1, 0, 0, 0], attributes);
        let mut bytes = Vec::new();
        message.write(&mut bytes, libc::NLM_F_ACK, 5);
        message.write(&mut bytes, 0, 6);
        let read: Vec<_> = answers(&bytes).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].sequence), (0x0a06, 5));
        let flags = NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_ACK;
        assert_eq!(u16_at(&bytes, 6), Some(flags as u16));
        let attributes = read[1].attributes(4);
        assert_eq!(attributes.text(1), Some("coracle"));
        assert_eq!(attributes.be32(3), Some(8));
        let inner = attributes.nested(2).unwrap();
        assert_eq!(inner.u32(7), Some(99));
        assert_eq!(inner.get(8), Some(&[1u8, 2, 3][..]));
    }

    #[test]
    fn lengths_that_lie_end_the_list() {
        for length in [0u32, 3, 15, 17, u32::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend([0; 12]);
            assert_eq!(answers(&bytes).count(), 0, "{length}");
        }
        for length in [0u16, 3, 9, u16::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend([1, 0, 0, 0, 0, 0]);
            assert_eq!(Read(&bytes).into_iter().count(), 0, "{length}");
        }
    }
}
