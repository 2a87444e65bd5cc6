//! Forwarding in user space for what the kernel cannot lead on: connections to `[::1]`, and IPv6 to a container without it.
//!
//! One epoll descriptor stands for everything: whoever has an event loop polls that and calls [`Proxy::handle`]. Nothing blocks, and what
//! is kept for slow readers is bounded.

mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::error::{Context, Result};
use crate::ports::Protocol;
use crate::{Attached, Reservation};
use tcp::Connection;
use udp::Flows;

/// Connections at once; further ones wait in the listener's queue. Each has two descriptors.
const CONNECTIONS: usize = 256;
const EVENTS: usize = 64;
/// What is moved at once, and kept at most for each direction of a connection.
const BUFFER: usize = 32 << 10;

/// Forwards from the IPv6 sockets of a [`Reservation`] to a container.
#[derive(Debug)]
pub struct Proxy {
    epoll: Epoll,
    listeners: Vec<Listener>,
    connections: BTreeMap<u64, Connection>,
    /// The number of the next connection. None is used twice, so an event that comes late finds nothing.
    next: u64,
    /// New connections are not looked at, as there are too many.
    full: bool,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Listener {
    socket: Socket,
    /// The container's addresses for this port, in the order in which they are tried.
    targets: Vec<SocketAddr>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket, Flows),
}

/// Whose an event is, as a number that epoll keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// The listener at this place.
    Listener(usize),
    /// A connection's client.
    Client(u64),
    /// A connection's server, which is the container.
    Server(u64),
    /// A flow of the listener at this place.
    Flow(usize, u32),
}

impl Token {
    fn number(self) -> u64 {
        match self {
            Token::Listener(at) => (at as u64) << 2,
            Token::Client(key) => key << 2 | 1,
            Token::Server(key) => key << 2 | 2,
            Token::Flow(at, key) => (at as u64) << 34 | u64::from(key) << 2 | 3,
        }
    }

    fn of(number: u64) -> Token {
        let rest = number >> 2;
        match number & 3 {
            0 => Token::Listener(rest as usize),
            1 => Token::Client(rest),
            2 => Token::Server(rest),
            _ => Token::Flow((rest >> 32) as usize, rest as u32),
        }
    }
}

impl AsFd for Proxy {
    /// Readable when [`Proxy::handle`] has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Proxy {
    /// A proxy for the ports of an attachment, or `None` when the kernel does it all. It holds the reserved sockets by descriptors of
    /// its own.
    pub fn new(reservation: &Reservation, attached: &Attached) -> Result<Option<Proxy>> {
        let mut addresses: Vec<IpAddr> = attached.addresses.iter().map(|own| own.address).collect();
        // What speaks to us by IPv6 is led on by IPv6, if the program in the container listens there.
        addresses.sort_by_key(IpAddr::is_ipv4);
        let mut listeners = Vec::new();
        for held in reservation
            .sockets
            .iter()
            .filter(|held| held.address.is_ipv6())
        {
            let clone = || {
                held.fd
                    .try_clone()
                    .context(|| format!("publish port {}", held.port.host()))
            };
            let socket = match held.port.protocol {
                Protocol::Tcp => Socket::Tcp(clone()?.into()),
                Protocol::Udp => Socket::Udp(clone()?.into(), Flows::default()),
                Protocol::Sctp => continue,
            };
            let target = |address: &IpAddr| SocketAddr::new(*address, held.port.container_port);
            listeners.push(Listener {
                socket,
                targets: addresses.iter().map(target).collect(),
            });
        }
        if listeners.is_empty() {
            return Ok(None);
        }
        let flags = EpollCreateFlags::EPOLL_CLOEXEC;
        let proxy = Proxy {
            epoll: Epoll::new(flags).context(|| "make an epoll descriptor for the proxy")?,
            listeners,
            connections: BTreeMap::new(),
            next: 0,
            full: false,
            buffer: Vec::new(),
        };
        for (at, listener) in proxy.listeners.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Listener(at).number());
            proxy
                .epoll
                .add(listener.socket.as_fd(), event)
                .context(|| "watch a published port")?;
        }
        Ok(Some(proxy))
    }

    /// Does what can be done at once, and returns. What goes wrong with one connection ends that one.
    pub fn handle(&mut self) -> Result<()> {
        self.buffer.resize(BUFFER, 0);
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno).context(|| "wait for the proxy's sockets"),
        };
        for event in &events[..count] {
            let token = Token::of(event.data());
            match token {
                Token::Listener(at) => self.listener(at)?,
                Token::Client(key) | Token::Server(key) => {
                    self.connection(key, token, event.events())
                }
                Token::Flow(at, key) => {
                    if let Socket::Udp(socket, flows) = &mut self.listeners[at].socket {
                        flows.answer(socket, key, &mut self.buffer);
                    }
                }
            }
        }
        Ok(())
    }

    fn listener(&mut self, at: usize) -> Result<()> {
        let Listener { socket, targets } = &mut self.listeners[at];
        let listener = match socket {
            Socket::Tcp(listener) => listener,
            Socket::Udp(socket, flows) => {
                flows.ask(socket, targets, &self.epoll, at, &mut self.buffer);
                return Ok(());
            }
        };
        let full = match listener.accept() {
            Ok((client, _)) => {
                let key = self.next;
                self.next += 1;
                // A container that does not listen refuses: the client is let go.
                if let Some(connection) = Connection::open(client, targets, &self.epoll, key) {
                    self.connections.insert(key, connection);
                }
                self.connections.len() >= CONNECTIONS
            }
            // Nothing to accept after all, or no descriptor left to do it with.
            Err(error) => error
                .raw_os_error()
                .is_some_and(|errno| [libc::EMFILE, libc::ENFILE].contains(&errno)),
        };
        if full && !self.connections.is_empty() {
            self.watch_listeners(false)?;
        }
        Ok(())
    }

    fn connection(&mut self, key: u64, token: Token, events: EpollFlags) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if connection.advance(token, events, &self.epoll, &mut self.buffer) {
            return;
        }
        self.connections.remove(&key);
        if self.full
            && let Err(error) = self.watch_listeners(true)
        {
            log::warn!("{error}");
        }
    }

    /// Looks at new connections again, or leaves them in their queue.
    fn watch_listeners(&mut self, watch: bool) -> Result<()> {
        let flags = if watch {
            EpollFlags::EPOLLIN
        } else {
            EpollFlags::empty()
        };
        for (at, listener) in self.listeners.iter().enumerate() {
            if let Socket::Tcp(socket) = &listener.socket {
                let mut event = EpollEvent::new(flags, Token::Listener(at).number());
                self.epoll
                    .modify(socket.as_fd(), &mut event)
                    .context(|| "watch a published port")?;
            }
        }
        self.full = !watch;
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Udp(socket, _) => socket.as_fd(),
        }
    }
}
