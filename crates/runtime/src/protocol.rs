//! What the runtime and the process that becomes the container say to each other: datagrams (`SOCK_SEQPACKET`), one byte for the kind,
//! then text. The end of the stream means that the other side is gone.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::{Context, Error, Result};

/// A longer error text is cut.
const TEXT_MAX: usize = 8192;

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
    /// To the child: execute it.
    Go,
    /// From the child: the descriptor that listens to its seccomp filter, for the runtime to take; it waits for `Continue`.
    Listener(RawFd),
    /// From the child: what is left is execve(2). A closed connection after this is the answer that it worked.
    Executing,
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
            Message::Executing => (b'X', String::new()),
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
            b'X' => Message::Executing,
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
        let bytes = message.encode();
        loop {
            match send(self.0.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL) {
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

    /// Sends what went wrong, as the last word before exiting.
    pub(crate) fn send_failure(&self, error: &Error) {
        let _ = self.send(&Message::Failed(error.to_string()));
    }

    /// Waits for a message; `None` when the other side is gone.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        let mut buffer = [0; TEXT_MAX + 1];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(0) => return Ok(None),
                Ok(length) => {
                    let unknown =
                        || Error::failed("the other side of the set-up sent something unknown");
                    return Message::decode(&buffer[..length])
                        .ok_or_else(unknown)
                        .map(Some);
                }
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
            None => Err(Error::failed("the other side of the set-up is gone")),
        }
    }
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
