//! What is said at a container's control socket: a unix socket of whole messages (SOCK_SEQPACKET), mode 0600, in the container's
//! directory. A message is one byte for its kind and what belongs to it. Whoever connects may send any of them, several times.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair};
use runtime::{Context, Error, Result};

/// The most bytes of input or output in one message.
pub(crate) const CHUNK: usize = 16 * 1024;
/// The longest message: an error's text may be a little longer than a chunk.
const LONGEST: usize = 2 * CHUNK;

/// Which of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    // What a command says. The first two only to a monitor that it has started itself, before anything else.
    /// Start the container.
    Start,
    /// Another monitor is dead: take its container over, or clean up after it.
    Adopt,
    /// From now on every output comes to me.
    Attach,
    /// For the container's standard input.
    Input(Vec<u8>),
    /// There will be no more.
    InputEnd,
    /// The terminal has so many rows and columns.
    Resize(u16, u16),
    /// Send it to the container's process.
    Signal(i32),
    /// End the container by a signal, after so many seconds by SIGKILL, and then perhaps start it again.
    Stop {
        signal: i32,
        seconds: u32,
        restart: bool,
    },
    /// Tell me when the container has ended for good.
    Wait,

    // What the monitor says.
    /// The container runs.
    Started,
    /// It will run, but something is not as one might expect. Before the word on the start.
    Warning(String),
    /// It could not be started: the exit status for that, and why.
    Failed(i32, String),
    /// What it has written.
    Output(Stream, Vec<u8>),
    /// It has ended for good, and everything that is to go with it is gone.
    Exited(i32),
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        let with = |kind: u8, parts: &[&[u8]]| [&[kind], parts.concat().as_slice()].concat();
        match self {
            Message::Start => with(b'S', &[]),
            Message::Adopt => with(b'A', &[]),
            Message::Attach => with(b'a', &[]),
            Message::Input(bytes) => with(b'i', &[bytes]),
            Message::InputEnd => with(b'I', &[]),
            Message::Resize(rows, columns) => {
                with(b'r', &[&rows.to_le_bytes(), &columns.to_le_bytes()])
            }
            Message::Signal(signal) => with(b'k', &[&signal.to_le_bytes()]),
            Message::Stop {
                signal,
                seconds,
                restart,
            } => with(
                b's',
                &[
                    &signal.to_le_bytes(),
                    &seconds.to_le_bytes(),
                    &[u8::from(*restart)],
                ],
            ),
            Message::Wait => with(b'w', &[]),
            Message::Started => with(b'!', &[]),
            Message::Warning(text) => with(b'h', &[text.as_bytes()]),
            Message::Failed(status, text) => with(b'f', &[&status.to_le_bytes(), text.as_bytes()]),
            Message::Output(Stream::Stdout, bytes) => with(b'o', &[bytes]),
            Message::Output(Stream::Stderr, bytes) => with(b'e', &[bytes]),
            Message::Exited(status) => with(b'x', &[&status.to_le_bytes()]),
        }
    }

    /// `None` for what no version of ours says.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let number = |from: usize| -> Option<i32> {
            Some(i32::from_le_bytes(
                rest.get(from..from + 4)?.try_into().ok()?,
            ))
        };
        let half = |from: usize| -> Option<u16> {
            Some(u16::from_le_bytes(
                rest.get(from..from + 2)?.try_into().ok()?,
            ))
        };
        Some(match kind {
            b'S' => Message::Start,
            b'A' => Message::Adopt,
            b'a' => Message::Attach,
            b'i' => Message::Input(rest.to_vec()),
            b'I' => Message::InputEnd,
            b'r' => Message::Resize(half(0)?, half(2)?),
            b'k' => Message::Signal(number(0)?),
            b's' => Message::Stop {
                signal: number(0)?,
                seconds: number(4)? as u32,
                restart: *rest.get(8)? != 0,
            },
            b'w' => Message::Wait,
            b'!' => Message::Started,
            b'h' => Message::Warning(String::from_utf8_lossy(rest).into_owned()),
            b'f' => {
                let text = String::from_utf8_lossy(rest.get(4..)?).into_owned();
                Message::Failed(number(0)?, text)
            }
            b'o' => Message::Output(Stream::Stdout, rest.to_vec()),
            b'e' => Message::Output(Stream::Stderr, rest.to_vec()),
            b'x' => Message::Exited(number(0)?),
            _ => return None,
        })
    }
}

/// One end of a conversation.
#[derive(Debug)]
pub(crate) struct Connection(OwnedFd);

impl Connection {
    /// Two ends: the first ours, the second for a new monitor.
    pub(crate) fn pair() -> Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .context("make a socket pair for the monitor")?;
        Ok((Connection(ours), other))
    }

    /// Sends a message; `false` when the other end takes no more for now and `wait` is not set.
    pub(crate) fn send(&self, message: &Message, wait: bool) -> nix::Result<bool> {
        let mut flags = MsgFlags::MSG_NOSIGNAL;
        flags.set(MsgFlags::MSG_DONTWAIT, !wait);
        let bytes = message.encode();
        let bytes = [IoSlice::new(&bytes[..bytes.len().min(LONGEST)])];
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &bytes, &[], flags, None) {
                Ok(_) => return Ok(true),
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Says something to a monitor.
    pub(crate) fn say(&self, message: &Message) -> Result<()> {
        match self.send(message, true) {
            // It is just ending: listening tells.
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(error) => Err(error).context("speak to the container's monitor"),
        }
    }

    /// The next message, waiting for it; `None` when the other end is gone.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        self.take(MsgFlags::empty())
            .context("listen to the container's monitor")
    }

    /// The next message if there is one: `Err(EAGAIN)` when not, `None` at the end, or after nonsense, which is the same.
    pub(crate) fn try_receive(&self) -> nix::Result<Option<Message>> {
        self.take(MsgFlags::MSG_DONTWAIT)
    }

    fn take(&self, flags: MsgFlags) -> nix::Result<Option<Message>> {
        let mut buffer = [0; LONGEST];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, flags) {
                Ok(length) => return Ok(Message::decode(&buffer[..length])),
                // Said once, and before what waits to be read: the other end had not read everything when it went.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the monitor has started the container, or says why it could not.
    pub(crate) fn started(&self) -> Result<Started> {
        loop {
            match self.receive()? {
                Some(Message::Started) => return Ok(Started::Running),
                Some(Message::Exited(_)) => return Ok(Started::Ended),
                Some(Message::Failed(status, text)) => return Ok(Started::Failed(status, text)),
                Some(Message::Warning(text)) => log::warn!("{text}"),
                Some(_) => {}
                None => {
                    return Err(Error::failed(
                        "the container's monitor ended before it said a word",
                    ));
                }
            }
        }
    }
}

/// How a start, a restart or an adoption went.
#[derive(Debug)]
pub(crate) enum Started {
    Running,
    /// It has ended meanwhile.
    Ended,
    Failed(i32, String),
}

impl From<OwnedFd> for Connection {
    fn from(socket: OwnedFd) -> Self {
        Connection(socket)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for message in [
            Message::Start,
            Message::Adopt,
            Message::Attach,
            Message::Input(b"ls\n".to_vec()),
            Message::InputEnd,
            Message::Resize(24, 80),
            Message::Signal(15),
            Message::Stop {
                signal: 10,
                seconds: 70_000,
                restart: true,
            },
            Message::Wait,
            Message::Started,
            Message::Warning("a firewall".into()),
            Message::Failed(127, "no such file".into()),
            Message::Output(Stream::Stderr, vec![0; CHUNK]),
            Message::Exited(137),
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn nonsense_is_the_end() {
        for bytes in [
            &b""[..],
            b"?",
            b"r1",
            b"k",
            b"s123456789"[..8].as_ref(),
            b"f1",
        ] {
            assert_eq!(Message::decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_full_socket_says_so() {
        let (ours, other) = Connection::pair().unwrap();
        let message = Message::Output(Stream::Stdout, vec![b'x'; CHUNK]);
        while ours.send(&message, false).unwrap() {}
        drop(other);
        assert!(ours.send(&message, false).is_err());
    }
}
