//! What is yet to be sent on a socket that does not block.

use std::io::{ErrorKind, Result, Write};
use std::os::unix::net::UnixStream;

/// Bytes that the socket has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    unsent: Vec<u8>,
}

impl Outbox {
    /// Puts bytes at the end.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        match self.unsent.is_empty() {
            true => self.unsent = bytes,
            false => self.unsent.extend(bytes),
        }
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self, mut socket: &UnixStream) -> Result<()> {
        while !self.unsent.is_empty() {
            match socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // Its memory is worth more to others until the next answer.
        self.unsent = Vec::new();
        Ok(())
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.unsent.len()
    }
}
