//! epoll(7), and what each of its events is about.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What an event is about. Numbers are never used twice, so an event that is late finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Somebody connects, to this one of our sockets.
    Listener(u32),
    /// A child has ended.
    Signals,
    /// The connection to containerd, for events.
    Events,
    /// A connection of containerd's.
    Connection(u32),
    /// A copy of output or input can go on.
    Relay(u32),
    /// Something may be out of memory.
    Oom(u32),
    /// A logger has something to say about its being ready.
    Ready(u32),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Token::Listener(number) => (0, number),
            Token::Signals => (1, 0),
            Token::Events => (2, 0),
            Token::Connection(number) => (3, number),
            Token::Relay(number) => (4, number),
            Token::Oom(number) => (5, number),
            Token::Ready(number) => (6, number),
        };
        kind << 32 | u64::from(number)
    }

    fn decode(data: u64) -> Token {
        let number = data as u32;
        match data >> 32 {
            0 => Token::Listener(number),
            1 => Token::Signals,
            2 => Token::Events,
            3 => Token::Connection(number),
            4 => Token::Relay(number),
            5 => Token::Oom(number),
            _ => Token::Ready(number),
        }
    }
}

/// Where a descriptor is waited for.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    last: u32,
}

impl Poller {
    pub(crate) fn new() -> nix::Result<Poller> {
        Ok(Poller {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            last: 0,
        })
    }

    /// A number that no token has had.
    pub(crate) fn number(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// Reports, from now on, whenever it can be read from.
    pub(crate) fn readable(&self, fd: impl AsFd, token: Token) -> nix::Result<()> {
        self.add(fd, EpollFlags::EPOLLIN, token)
    }

    /// Reports, from now on, whenever it can be written to.
    pub(crate) fn writable(&self, fd: impl AsFd, token: Token) -> nix::Result<()> {
        self.add(fd, EpollFlags::EPOLLOUT, token)
    }

    fn add(&self, fd: impl AsFd, flags: EpollFlags, token: Token) -> nix::Result<()> {
        self.epoll.add(fd, EpollEvent::new(flags, token.encode()))
    }

    /// For a descriptor that is read all the time: whether it is waited for room to write, too.
    pub(crate) fn also_writable(
        &self,
        fd: impl AsFd,
        token: Token,
        wanted: bool,
    ) -> nix::Result<()> {
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, wanted);
        self.epoll
            .modify(fd, &mut EpollEvent::new(flags, token.encode()))
    }

    /// No more reports.
    pub(crate) fn forget(&self, fd: impl AsFd) {
        // Closing it would do the same, unless a child has a copy.
        let _ = self.epoll.delete(fd);
    }

    /// Waits for events; none when the time is over. `timeout` is in milliseconds.
    pub(crate) fn wait(&self, timeout: Option<u32>) -> nix::Result<Vec<Token>> {
        let mut events = [EpollEvent::empty(); 32];
        let timeout = timeout.map_or(EpollTimeout::NONE, |milliseconds| {
            EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::MAX)
        });
        match self.epoll.wait(&mut events, timeout) {
            Ok(count) => Ok(events[..count]
                .iter()
                .map(|event| Token::decode(event.data()))
                .collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        let all = [
            Token::Listener(1),
            Token::Signals,
            Token::Events,
            Token::Connection(u32::MAX),
            Token::Relay(2),
            Token::Oom(3),
            Token::Ready(4),
        ];
        for token in all {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
