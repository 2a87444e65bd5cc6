//! One TCP connection through the proxy: two sockets and a bounded remainder in each direction.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

use super::Token;

/// How often a side that always has more is read before the others get their turn.
const TURNS: usize = 8;

/// A client and the container.
#[derive(Debug)]
pub(super) struct Connection {
    key: u64,
    client: Side,
    server: Side,
    /// The connection to the container does not stand yet; these addresses are left to try.
    connecting: Option<Vec<SocketAddr>>,
}

/// One end, and what is on its way there.
#[derive(Debug)]
struct Side {
    stream: TcpStream,
    /// What it could not take yet. While there is something, the other side is not read.
    pending: Vec<u8>,
    /// It has said all that it will.
    ended: bool,
    /// It has been told that nothing more comes.
    told: bool,
    /// What epoll is asked for now; empty for not asked at all.
    interest: EpollFlags,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        Side {
            stream,
            pending: Vec::new(),
            ended: false,
            told: false,
            interest: EpollFlags::empty(),
        }
    }

    /// Asks epoll for what is needed now. A socket of which nothing is wanted is taken out: epoll would go on to tell of its end.
    fn watch(&mut self, epoll: &Epoll, token: Token, wanted: EpollFlags) -> nix::Result<()> {
        let mut event = EpollEvent::new(wanted, token.number());
        let change = match (self.interest.is_empty(), wanted.is_empty()) {
            _ if self.interest == wanted => Ok(()),
            (true, _) => epoll.add(&self.stream, event),
            (false, true) => epoll.delete(&self.stream),
            (false, false) => epoll.modify(&self.stream, &mut event),
        };
        self.interest = wanted;
        change
    }
}

impl Connection {
    /// Begins to connect a client to the first target that does not refuse at once. `None`, and the client is reset, when there is none.
    pub(super) fn open(
        client: TcpStream,
        targets: &[SocketAddr],
        epoll: &Epoll,
        key: u64,
    ) -> Option<Connection> {
        client.set_nonblocking(true).ok()?;
        let mut left = targets.to_vec();
        let Some(server) = next(&mut left) else {
            reset(&client);
            return None;
        };
        let mut connection = Connection {
            key,
            client: Side::new(client),
            server: Side::new(server),
            connecting: Some(left),
        };
        connection.watch(epoll).ok()?;
        Some(connection)
    }

    /// Goes on after an event; whether there is more to come.
    pub(super) fn advance(
        &mut self,
        token: Token,
        events: EpollFlags,
        epoll: &Epoll,
        buffer: &mut [u8],
    ) -> bool {
        let alive = match (token, &self.connecting) {
            (Token::Server(_), Some(_)) => self.connected(),
            // Nothing was asked of the client: it has gone.
            (_, Some(_)) => false,
            // What has failed has nothing left to read that would be worth it.
            _ if events.contains(EpollFlags::EPOLLERR) => false,
            _ => self.transfer(buffer).is_ok(),
        };
        let done = [&self.client, &self.server]
            .iter()
            .all(|side| side.told && side.pending.is_empty());
        if !alive {
            reset(&self.client.stream);
            reset(&self.server.stream);
        }
        alive && !done && self.watch(epoll).is_ok()
    }

    /// The attempt to connect has ended, well or badly.
    fn connected(&mut self) -> bool {
        if let Ok(None) = self.server.stream.take_error() {
            self.connecting = None;
            return true;
        }
        let Some(server) = self.connecting.as_mut().and_then(next) else {
            return false;
        };
        // Closing the old socket takes it out of epoll.
        self.server = Side::new(server);
        true
    }

    fn transfer(&mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        pump(&mut self.client, &mut self.server, buffer)?;
        pump(&mut self.server, &mut self.client, buffer)
    }

    fn watch(&mut self, epoll: &Epoll) -> nix::Result<()> {
        let (mut client, mut server) = (EpollFlags::empty(), EpollFlags::empty());
        if self.connecting.is_some() {
            server = EpollFlags::EPOLLOUT;
            // A client that goes away while it waits is not worth a connection.
            client = EpollFlags::EPOLLERR;
        } else {
            client.set(
                EpollFlags::EPOLLIN,
                !self.client.ended && self.server.pending.is_empty(),
            );
            client.set(EpollFlags::EPOLLOUT, !self.client.pending.is_empty());
            server.set(
                EpollFlags::EPOLLIN,
                !self.server.ended && self.client.pending.is_empty(),
            );
            server.set(EpollFlags::EPOLLOUT, !self.server.pending.is_empty());
        }
        self.client.watch(epoll, Token::Client(self.key), client)?;
        self.server.watch(epoll, Token::Server(self.key), server)
    }
}

/// Moves what there is from one side to the other, as far as it takes it, and the end of it too.
fn pump(from: &mut Side, to: &mut Side, buffer: &mut [u8]) -> std::io::Result<()> {
    let taken = write(&mut to.stream, &to.pending)?;
    to.pending.drain(..taken);
    for _ in 0..TURNS {
        if from.ended || !to.pending.is_empty() {
            break;
        }
        match from.stream.read(buffer) {
            Ok(0) => from.ended = true,
            Ok(count) => {
                let taken = write(&mut to.stream, &buffer[..count])?;
                to.pending.extend(&buffer[taken..count]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if to.pending.is_empty() {
        to.pending.shrink_to_fit();
        if from.ended && !to.told {
            to.told = true;
            to.stream.shutdown(Shutdown::Write)?;
        }
    }
    Ok(())
}

/// Writes what the socket takes now.
fn write(stream: &mut TcpStream, mut bytes: &[u8]) -> std::io::Result<usize> {
    let all = bytes.len();
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all - bytes.len())
}

/// Begins to connect to the first of these addresses that does not refuse at once.
fn next(targets: &mut Vec<SocketAddr>) -> Option<TcpStream> {
    while !targets.is_empty() {
        let target = targets.remove(0);
        if let Ok(fd) = begin(target) {
            return Some(fd.into());
        }
    }
    None
}

fn begin(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(errno) => Err(errno),
    }
}

/// Has the socket say "reset" when it is closed, so that the other side does not take it for an orderly end.
fn reset(stream: &TcpStream) {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let _ = setsockopt(&stream.as_fd(), sockopt::Linger, &at_once);
}
