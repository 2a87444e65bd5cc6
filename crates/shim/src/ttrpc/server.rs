//! One connection of containerd's: requests in, responses out, neither ever waited for.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use prost::Message;

use super::frame::{self, Content, Decoder};
use super::outbox::Outbox;
use crate::error::{Code, Failure, Result};
use crate::protos::{Request, Response, Status};

/// A peer that reads nothing may have this much waiting for it.
const MAX_UNSENT: usize = 2 * frame::MAX_LENGTH;

/// As much is read in one go.
const PIECE: usize = 8192;
/// After so many pieces somebody else has a turn.
const TURN: usize = 64;

/// Where the answer to a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) connection: u32,
    pub(crate) stream: u32,
}

/// A request as it came: what is asked for, or why it is none.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) stream: u32,
    pub(crate) request: Result<Request>,
}

/// A connection to this shim.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    decoder: Decoder,
    outbox: Outbox,
}

impl Connection {
    /// The socket must not block.
    pub(crate) fn new(socket: UnixStream) -> Connection {
        Connection {
            socket,
            decoder: Decoder::default(),
            outbox: Outbox::default(),
        }
    }

    /// Reads what has come; `false` when the peer has gone.
    pub(crate) fn receive(&mut self, calls: &mut Vec<Call>) -> io::Result<bool> {
        let mut piece = [0; PIECE];
        for _ in 0..TURN {
            match self.socket.read(&mut piece) {
                Ok(0) => return Ok(false),
                Ok(count) => self.decoder.push(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            while let Some(frame) = self.decoder.next() {
                // Data of streams, which nobody has opened, and answers to questions that nobody asked.
                if frame.kind == frame::REQUEST {
                    calls.push(Call {
                        stream: frame.stream,
                        request: request(frame.stream, frame.content),
                    });
                }
            }
        }
        Ok(true)
    }

    /// Answers a call. What the socket does not take now is sent by [`Connection::flush`].
    pub(crate) fn respond(&mut self, stream: u32, answer: Result<Vec<u8>>) -> io::Result<()> {
        let mut response = match answer {
            Ok(payload) => Response {
                status: None,
                payload,
            },
            Err(failure) => refusal(&failure),
        };
        if response.encoded_len() > frame::MAX_LENGTH {
            response = refusal(&Failure::new(
                Code::ResourceExhausted,
                "the answer is longer than a message may be",
            ));
        }
        let frame = frame::encode(stream, frame::RESPONSE, &response.encode_to_vec());
        if self.outbox.len() + frame.len() > MAX_UNSENT {
            return Err(io::Error::other("the peer does not read its answers"));
        }
        self.outbox.push(frame);
        self.flush()
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.outbox.flush(&self.socket)
    }

    /// Whether something waits to be sent.
    pub(crate) fn has_unsent(&self) -> bool {
        self.outbox.len() > 0
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn refusal(failure: &Failure) -> Response {
    Response {
        status: Some(Status {
            code: failure.code as i32,
            message: failure.message.clone(),
        }),
        payload: Vec::new(),
    }
}

fn request(stream: u32, content: Content) -> Result<Request> {
    let message = match content {
        Content::Message(message) => message,
        Content::TooLong(length) => {
            let text = format!(
                "message length {length} exceed maximum message size of {}",
                frame::MAX_LENGTH
            );
            return Err(Failure::new(Code::ResourceExhausted, text));
        }
    };
    if stream.is_multiple_of(2) {
        return Err(Failure::invalid(
            "StreamID must be odd for client initiated streams",
        ));
    }
    Request::decode(&*message)
        .map_err(|error| Failure::invalid(format!("unmarshal request: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pair() -> (UnixStream, Connection) {
        let (peer, socket) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        (peer, Connection::new(socket))
    }

    fn answer(peer: &mut UnixStream) -> (u32, Response) {
        let mut header = [0; 10];
        peer.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes(header[..4].try_into().unwrap());
        let mut message = vec![0; length as usize];
        peer.read_exact(&mut message).unwrap();
        let stream = u32::from_be_bytes(header[4..8].try_into().unwrap());
        (stream, Response::decode(&*message).unwrap())
    }

    fn received(connection: &mut Connection) -> (Vec<Call>, bool) {
        let mut calls = Vec::new();
        let open = connection.receive(&mut calls).unwrap();
        (calls, open)
    }

    #[test]
    fn a_request_is_read_and_answered() {
        let (mut peer, mut connection) = pair();
        let request = Request {
            service: "containerd.task.v2.Task".to_owned(),
            method: "Connect".to_owned(),
            payload: b"p".to_vec(),
            timeout_nano: 5,
        };
        let bytes = frame::encode(1, frame::REQUEST, &request.encode_to_vec());
        peer.write_all(&bytes).unwrap();
        let (calls, open) = received(&mut connection);
        assert!(open && calls.len() == 1);
        assert_eq!(calls[0].request.as_ref().unwrap(), &request);
        connection.respond(1, Ok(b"yes".to_vec())).unwrap();
        let (stream, response) = answer(&mut peer);
        assert_eq!(
            (stream, response.payload, response.status),
            (1, b"yes".to_vec(), None)
        );
        drop(peer);
        assert!(!received(&mut connection).1);
    }

    #[test]
    fn nonsense_is_answered_by_a_code() {
        let (mut peer, mut connection) = pair();
        peer.write_all(&frame::encode(1, frame::REQUEST, &[0xff; 20]))
            .unwrap();
        peer.write_all(&frame::encode(2, frame::REQUEST, &[]))
            .unwrap();
        peer.write_all(&[0x7f, 0, 0, 0, 0, 0, 0, 3, 1, 0]).unwrap();
        let (calls, _) = received(&mut connection);
        let codes: Vec<_> = calls
            .iter()
            .map(|call| (call.stream, call.request.as_ref().unwrap_err().code))
            .collect();
        assert_eq!(
            codes,
            [
                (1, Code::InvalidArgument),
                (2, Code::InvalidArgument),
                (3, Code::ResourceExhausted)
            ]
        );
    }

    #[test]
    fn a_peer_that_reads_nothing_is_given_up() {
        let (_peer, mut connection) = pair();
        let mut answers = (0..20).map(|_| connection.respond(1, Ok(vec![0; 1 << 20])));
        assert!(answers.any(|result| result.is_err()));
    }
}
