//! Frames: a header of ten bytes, and a message of up to 4 MiB.

/// Longer messages are refused.
pub(super) const MAX_LENGTH: usize = 4 << 20;
const HEADER: usize = 10;

pub(super) const REQUEST: u8 = 1;
pub(super) const RESPONSE: u8 = 2;

/// One frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) stream: u32,
    pub(super) kind: u8,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Message(Vec<u8>),
    /// It announced this many bytes, which are thrown away as they come.
    TooLong(usize),
}

/// Puts frames together from the pieces in which they come. Never holds more than one message and one piece.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of a message that is too long, yet to come.
    skip: usize,
}

impl Decoder {
    /// Takes the next piece.
    pub(super) fn push(&mut self, mut piece: &[u8]) {
        let skipped = self.skip.min(piece.len());
        self.skip -= skipped;
        piece = &piece[skipped..];
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Option<Frame> {
        let header: &[u8; HEADER] = self.buffer.first_chunk()?;
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = *header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let content = if length > MAX_LENGTH {
            let here = length.min(self.buffer.len() - HEADER);
            self.buffer.drain(..HEADER + here);
            self.skip = length - here;
            Content::TooLong(length)
        } else {
            let message = self.buffer.get(HEADER..HEADER + length)?.to_vec();
            self.buffer.drain(..HEADER + length);
            Content::Message(message)
        };
        if self.buffer.is_empty() {
            // A shim lives long, and its requests are rare.
            self.buffer = Vec::new();
        }
        Some(Frame {
            stream,
            kind,
            content,
        })
    }
}

/// A frame to send.
pub(super) fn encode(stream: u32, kind: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + message.len());
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(stream.to_be_bytes());
    frame.extend([kind, 0]);
    frame.extend(message);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut Decoder) -> Vec<Frame> {
        std::iter::from_fn(|| decoder.next()).collect()
    }

    #[test]
    fn frames_come_in_pieces_of_any_size() {
        let bytes = [
            encode(1, REQUEST, b"first"),
            encode(3, REQUEST, b""),
            encode(5, RESPONSE, b"x"),
        ]
        .concat();
        let expected: Vec<_> = [
            (1, REQUEST, &b"first"[..]),
            (3, REQUEST, b""),
            (5, RESPONSE, b"x"),
        ]
        .into_iter()
        .map(|(stream, kind, message)| Frame {
            stream,
            kind,
            content: Content::Message(message.to_vec()),
        })
        .collect();
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                found.extend(all(&mut decoder));
            }
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn the_header_is_big_endian() {
        assert_eq!(
            encode(0x0102_0304, RESPONSE, b"ab"),
            [0, 0, 0, 2, 1, 2, 3, 4, 2, 0, b'a', b'b']
        );
    }

    #[test]
    fn a_message_that_is_too_long_is_passed_over_without_being_kept() {
        let length = MAX_LENGTH + 100;
        let mut decoder = Decoder::default();
        let mut bytes = encode(7, REQUEST, &[]);
        bytes[..4].copy_from_slice(&(length as u32).to_be_bytes());
        decoder.push(&bytes);
        assert_eq!(
            all(&mut decoder),
            [Frame {
                stream: 7,
                kind: REQUEST,
                content: Content::TooLong(length)
            }]
        );
        let piece = [0_u8; 4096];
        let mut left = length;
        while left > 0 {
            let now = left.min(piece.len());
            decoder.push(&piece[..now]);
            left -= now;
            assert!(decoder.buffer.is_empty());
        }
        decoder.push(&encode(9, REQUEST, b"next"));
        assert_eq!(all(&mut decoder)[0].stream, 9);
    }

    #[test]
    fn half_a_frame_is_no_frame() {
        let bytes = encode(1, REQUEST, b"message");
        for end in 0..bytes.len() {
            let mut decoder = Decoder::default();
            decoder.push(&bytes[..end]);
            assert_eq!(decoder.next(), None);
        }
    }
}
