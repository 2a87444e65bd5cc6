//! What the runtime and the process that becomes the container say to each other: datagrams (`SOCK_SEQPACKET`), one byte for the kind,
//! then text. The end of the stream means that the other side is gone.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::{Context, Error, Result};

/// A longer error text is cut.
const TEXT_MAX: usize = 8192;

/// Bytes before a filter's instructions, and of each of these.
const FILTER_HEAD: usize = size_of::<u32>() + 1;
const INSTRUCTION: usize = size_of::<seccomp::Instruction>();

#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// From the intermediate process: the pid of the real child.
    Pid(i32),
    /// To the child: its id maps are written, and it stands in state.json, so that it may outlive the runtime.
    Recorded,
    /// From the child: everything is mounted; time for the hooks of the runtime's namespace.
    Hooks,
    /// To the child: the hooks went well.
    Continue,
    /// From the child: only the user's program is left to be executed.
    Ready,
    /// To the child: execute it. A closed connection is the answer that it has.
    Go,
    /// From the child: the descriptor that listens to its seccomp filter, for the runtime to take; it waits for `Continue`.
    Listener(RawFd),
    /// From the child: what went wrong.
    Failed(String),
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        let (kind, text) = match self {
            Message::Pid(pid) => (b'P', pid.to_string()),
            Message::Recorded => (b'W', String::new()),
            Message::Hooks => (b'H', String::new()),
            Message::Continue => (b'C', String::new()),
            Message::Ready => (b'R', String::new()),
            Message::Go => (b'G', String::new()),
            Message::Listener(fd) => (b'L', fd.to_string()),
            Message::Failed(text) => (b'F', text.clone()),
        };
        let mut bytes = vec![kind];
        bytes.extend(text.bytes().take(TEXT_MAX));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, text) = bytes.split_first()?;
        let text = String::from_utf8_lossy(text);
        Some(match kind {
            b'P' => Message::Pid(text.parse().ok()?),
            b'W' => Message::Recorded,
            b'H' => Message::Hooks,
            b'C' => Message::Continue,
            b'R' => Message::Ready,
            b'G' => Message::Go,
            b'L' => Message::Listener(text.parse().ok()?),
            b'F' => Message::Failed(text.into_owned()),
            _ => return None,
        })
    }
}

/// One end of the conversation.
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// The two ends.
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let (one, other) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .context("make a socket pair")?;
        Ok((Channel(one), Channel(other)))
    }

    /// Sends. That the other side is gone is no error here: the absence of an answer shows it.
    pub(crate) fn send(&self, message: &Message) -> Result<()> {
        self.send_bytes(&message.encode())
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<()> {
        loop {
            match send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("talk to the other side of the set-up"),
            }
        }
    }

    /// From the child, in whose seccomp filter sendto(2) and recvfrom(2) may wait for who gets the listener: by write(2) and read(2) only.
    pub(crate) fn hand_over(&self, listener: RawFd) -> Result<()> {
        let handing = "linux.seccomp: hand the listener over";
        nix::unistd::write(&self.0, &Message::Listener(listener).encode()).context(handing)?;
        let mut answer = [0; TEXT_MAX + 1];
        let length = nix::unistd::read(&self.0, &mut answer).context(handing)?;
        match Message::decode(&answer[..length]) {
            Some(Message::Continue) => Ok(()),
            _ => Err(Error::failed(format!("{handing}: nobody has taken it"))),
        }
    }

    /// Sends the seccomp filter, without what it skips: a datagram of its flags, whether it notifies, and its instructions.
    pub(crate) fn send_filter(&self, filter: &seccomp::Program) -> Result<()> {
        let mut bytes = Vec::with_capacity(FILTER_HEAD + filter.instructions.len() * INSTRUCTION);
        bytes.extend(filter.flags.to_ne_bytes());
        bytes.push(filter.notify.into());
        for instruction in &filter.instructions {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_ne_bytes());
        }
        self.send_bytes(&bytes)
    }

    /// Waits for that.
    pub(crate) fn receive_filter(&self) -> Result<seccomp::Program> {
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
        let mut bytes = vec![0; self.receive_bytes(&mut [], peek)?];
        self.receive_bytes(&mut bytes, MsgFlags::empty())?;
        let (flags, rest) = bytes.split_first_chunk().ok_or_else(gone)?;
        let (notify, instructions) = rest.split_first().ok_or_else(gone)?;
        let instruction = |bytes: &[u8; INSTRUCTION]| {
            let [a, b, jt, jf, k @ ..] = *bytes;
            seccomp::Instruction {
                code: u16::from_ne_bytes([a, b]),
                jt,
                jf,
                k: u32::from_ne_bytes(k),
            }
        };
        Ok(seccomp::Program {
            instructions: instructions.as_chunks().0.iter().map(instruction).collect(),
            flags: u32::from_ne_bytes(*flags),
            notify: *notify != 0,
            skipped: Vec::new(),
        })
    }

    /// Sends what went wrong, as the last word before exiting.
    pub(crate) fn send_failure(&self, error: &Error) {
        let _ = self.send(&Message::Failed(error.to_string()));
    }

    /// Waits for a message; `None` when the other side is gone.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        let mut buffer = [0; TEXT_MAX + 1];
        match self.receive_bytes(&mut buffer, MsgFlags::empty())? {
            0 => Ok(None),
            length => {
                let unknown =
                    || Error::failed("the other side of the set-up sent something unknown");
                Message::decode(&buffer[..length])
                    .ok_or_else(unknown)
                    .map(Some)
            }
        }
    }

    /// The length of a datagram; 0 when the other side is gone.
    fn receive_bytes(&self, buffer: &mut [u8], flags: MsgFlags) -> Result<usize> {
        loop {
            match recv(self.0.as_raw_fd(), buffer, flags) {
                Ok(length) => return Ok(length),
                // The other side left with something unread: the kernel says so once, before what it still had to say.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(error) => return Err(error).context("wait for the other side of the set-up"),
            }
        }
    }

    /// Waits for one particular message.
    pub(crate) fn expect(&self, expected: &Message) -> Result<()> {
        match self.receive()? {
            Some(message) if message == *expected => Ok(()),
            Some(Message::Failed(text)) => Err(Error::failed(text)),
            Some(other) => Err(Error::failed(format!(
                "expected {expected:?} in the set-up, not {other:?}"
            ))),
            None => Err(gone()),
        }
    }
}

fn gone() -> Error {
    Error::failed("the other side of the set-up is gone")
}

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Channel(socket)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole() {
        let (one, other) = Channel::pair().unwrap();
        for message in [
            Message::Pid(77),
            Message::Ready,
            Message::Listener(4),
            Message::Failed("mounts[1]: no".into()),
            Message::Go,
        ] {
            one.send(&message).unwrap();
            assert_eq!(other.receive().unwrap(), Some(message));
        }
        one.send(&Message::Failed("x".repeat(100_000))).unwrap();
        assert_eq!(
            other.receive().unwrap(),
            Some(Message::Failed("x".repeat(TEXT_MAX)))
        );
        // The last word arrives even when something was left unread.
        other.send(&Message::Recorded).unwrap();
        one.send(&Message::Failed("last".into())).unwrap();
        drop(one);
        assert_eq!(
            other.receive().unwrap(),
            Some(Message::Failed("last".into()))
        );
        assert_eq!(other.receive().unwrap(), None);
        other.send(&Message::Go).unwrap();
    }

    #[test]
    fn a_filter_arrives_as_it_was_sent() {
        let (one, other) = Channel::pair().unwrap();
        let instruction = |k: u32| seccomp::Instruction {
            code: 0x1234,
            jt: 5,
            jf: 6,
            k: k << 16,
        };
        let filter = |count| seccomp::Program {
            instructions: (0..count).map(instruction).collect(),
            flags: 1 << 31,
            notify: true,
            skipped: Vec::new(),
        };
        // The most that the kernel takes.
        for filter in [filter(1), filter(4096)] {
            one.send_filter(&filter).unwrap();
            assert_eq!(other.receive_filter().unwrap(), filter);
        }
        drop(one);
        assert!(other.receive_filter().is_err());
    }

    #[test]
    fn an_unexpected_message_is_an_error() {
        let (one, other) = Channel::pair().unwrap();
        one.send(&Message::Failed("because".into())).unwrap();
        assert_eq!(
            other.expect(&Message::Ready).unwrap_err().to_string(),
            "because"
        );
        one.send(&Message::Go).unwrap();
        assert!(other.expect(&Message::Ready).is_err());
    }
}
