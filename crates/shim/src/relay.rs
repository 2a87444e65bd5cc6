//! Copying between a container and containerd's fifos: from one descriptor to another, never waiting for either.

use std::fs::File;
use std::io::ErrorKind;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use crate::poller::{Poller, Token};

/// As much is read in one go; what the other side does not take of it waits.
const PIECE: usize = 16 << 10;
/// After so many pieces somebody else has a turn.
const TURN: usize = 16;

/// One direction of one stream.
#[derive(Debug)]
pub(crate) struct Relay {
    number: u32,
    from: File,
    to: File,
    /// The read end of the fifo that is written to, so that writing goes on when containerd is away.
    _reader: Option<OwnedFd>,
    unsent: Vec<u8>,
    /// Which of the two is waited for.
    waits: Waits,
    /// Nothing more will come: what is there is the rest.
    last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Source,
    Sink,
}

impl Relay {
    /// Both descriptors must not block. Starts when [`Relay::pump`] is called first.
    pub(crate) fn new(
        poller: &mut Poller,
        from: OwnedFd,
        to: OwnedFd,
        reader: Option<OwnedFd>,
    ) -> nix::Result<Relay> {
        let number = poller.number();
        poller.readable(&from, Token::Relay(number))?;
        Ok(Relay {
            number,
            from: File::from(from),
            to: File::from(to),
            _reader: reader,
            unsent: Vec::new(),
            waits: Waits::Source,
            last: false,
        })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The process has ended: ends with what it has left, though somebody else may hold its terminal open.
    pub(crate) fn end_when_empty(&mut self) {
        self.last = true;
    }

    /// Copies what can be copied now; `false` when it is over.
    pub(crate) fn pump(&mut self, poller: &Poller) -> bool {
        let mut piece = [0; PIECE];
        for _ in 0..TURN {
            if !self.flush() {
                return self.wait_for(poller, Waits::Sink);
            }
            match self.from.read(&mut piece) {
                Ok(0) => return false,
                Ok(count) => self.write(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return !self.last && self.wait_for(poller, Waits::Source);
                }
                // A terminal that nobody has open any more gives EIO.
                Err(_) => return false,
            }
        }
        let next = if self.unsent.is_empty() {
            Waits::Source
        } else {
            Waits::Sink
        };
        self.wait_for(poller, next)
    }

    /// What cannot be kept for later (the disk is full, the reader is gone) is lost; the container goes on.
    fn write(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent = rest.to_vec();
                    return;
                }
                Err(error) => {
                    log::warn!("{} bytes of output are lost: {error}", rest.len());
                    return;
                }
            }
        }
    }

    /// Whether nothing is left to be written.
    fn flush(&mut self) -> bool {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            self.write(&unsent);
        }
        self.unsent.is_empty()
    }

    fn wait_for(&mut self, poller: &Poller, next: Waits) -> bool {
        if next == self.waits {
            return true;
        }
        let token = Token::Relay(self.number);
        // Not both at once: a source whose other end is closed would be reported all the time.
        let result = match next {
            Waits::Source => {
                poller.forget(&self.to);
                poller.readable(&self.from, token)
            }
            Waits::Sink => {
                poller.forget(&self.from);
                poller.writable(&self.to, token)
            }
        };
        self.waits = next;
        result
            .inspect_err(|error| log::warn!("a stream ends: wait for it: {error}"))
            .is_ok()
    }

    /// Ends it now.
    pub(crate) fn close(self, poller: &Poller) {
        match self.waits {
            Waits::Source => poller.forget(self.from.as_fd()),
            Waits::Sink => poller.forget(self.to.as_fd()),
        }
    }
}
