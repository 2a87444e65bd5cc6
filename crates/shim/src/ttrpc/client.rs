//! A connection of ours to containerd, with one request under way at a time.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use prost::Message;

use super::frame::{self, Content, Decoder};
use super::outbox::Outbox;
use crate::protos::{Request, Response, Status};

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: UnixStream,
    decoder: Decoder,
    outbox: Outbox,
    /// Of the last request; clients count odd numbers.
    stream: u32,
}

impl Client {
    /// Connects; a unix socket that does not block does so at once or not at all.
    pub(crate) fn connect(path: &Path) -> io::Result<Client> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Client {
            socket: UnixStream::from(socket),
            decoder: Decoder::default(),
            outbox: Outbox::default(),
            stream: u32::MAX,
        })
    }

    /// Sends a request. The one before must have been answered.
    pub(crate) fn request(
        &mut self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
    ) -> io::Result<()> {
        self.stream = self.stream.wrapping_add(2);
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: 0,
        };
        let message = request.encode_to_vec();
        self.outbox
            .push(frame::encode(self.stream, frame::REQUEST, &message));
        self.flush()
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.outbox.flush(&self.socket)
    }

    /// The answer to the request, once it has come: its status, `None` for success.
    ///
    /// # Errors
    /// Also when the server has closed the connection.
    pub(crate) fn answer(&mut self) -> io::Result<Option<Option<Status>>> {
        let mut piece = [0; 512];
        loop {
            match self.socket.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Ok(count) => self.decoder.push(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            while let Some(frame) = self.decoder.next() {
                let Content::Message(message) = frame.content else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                if frame.kind == frame::RESPONSE && frame.stream == self.stream {
                    let response =
                        Response::decode(&*message).map_err(|_| io::ErrorKind::InvalidData)?;
                    return Ok(Some(response.status.filter(|status| status.code != 0)));
                }
            }
        }
    }

    /// Whether something waits to be sent.
    pub(crate) fn has_unsent(&self) -> bool {
        self.outbox.len() > 0
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
