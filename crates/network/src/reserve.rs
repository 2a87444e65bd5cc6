//! Ports that nobody else can have: bound sockets, held for as long as a container publishes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockProtocol, SockType, SockaddrStorage, bind,
    getsockname, listen, setsockopt, shutdown, socket, sockopt,
};

use crate::error::{Error, Result};
use crate::ports::{Port, Protocol};
use crate::sys;

/// How often another port is tried when one that was free for IPv4 is not for IPv6.
const ATTEMPTS: usize = 16;
/// The number of a link that there never is, and of no certain one.
const NO_LINK: i32 = i32::MAX;
const ANY_LINK: i32 = 0;

/// Ports of this machine that are taken until this is dropped.
///
/// Nothing is accepted on IPv4: the kernel leads such packets to the container before a socket sees them, and refuses connections as long
/// as no container is attached. IPv6 sockets listen for the [proxy](crate::Proxy), which serves what the kernel cannot lead on.
#[derive(Debug)]
pub struct Reservation {
    ports: Vec<Port>,
    pub(crate) sockets: Vec<Held>,
}

/// One socket, and which port it is for.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) fd: OwnedFd,
    pub(crate) port: Port,
    pub(crate) address: SocketAddr,
}

impl Reservation {
    /// The ports, with the machine's side chosen where any was good enough.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Takes all of the ports, or none.
    pub(crate) fn new(ports: &[Port], taken: impl Fn(&Port) -> Result<()>) -> Result<Self> {
        let mut reservation = Reservation {
            ports: Vec::new(),
            sockets: Vec::new(),
        };
        for port in ports {
            let sockets = match port.host_port {
                0 => any(port, &taken)?,
                _ => {
                    taken(port)?;
                    take(port).map_err(|(address, errno)| refused(port, address, errno))?
                }
            };
            let first = sockets.first();
            let chosen = first.map_or(port.host_port, |held| held.address.port());
            reservation.ports.push(Port {
                host_port: chosen,
                ..*port
            });
            reservation.sockets.extend(sockets);
        }
        Ok(reservation)
    }
}

fn refused(port: &Port, address: SocketAddr, errno: Errno) -> Error {
    let host = port.host();
    match errno {
        Errno::EADDRINUSE => Error::in_use(format!(
            "publish port {host}: it is in use on this machine already"
        )),
        Errno::EADDRNOTAVAIL => Error::invalid(format!(
            "publish port {host}: {} is no address of this machine",
            address.ip()
        )),
        // Nor could the container do anything with it.
        Errno::EPROTONOSUPPORT => Error::failed(format!(
            "publish port {host}: this kernel does not know the protocol: root can load it by \"modprobe {}\"",
            port.protocol
        )),
        errno => Error::failed(format!("publish port {host}: {}", errno.desc())),
    }
}

/// Some port that is free, on every address that it is wanted on.
fn any(port: &Port, taken: &impl Fn(&Port) -> Result<()>) -> Result<Vec<Held>> {
    let address = addresses(port)[0];
    let mut outcome = Err((SocketAddr::new(address, 0), Errno::EADDRINUSE));
    for _ in 0..ATTEMPTS {
        let number = free_number(address, port.protocol)
            .map_err(|errno| (SocketAddr::new(address, 0), errno));
        outcome = number.and_then(|number| {
            let port = Port {
                host_port: number,
                ..*port
            };
            match taken(&port) {
                Ok(()) => take(&port),
                Err(_) => Err((SocketAddr::new(address, number), Errno::EADDRINUSE)),
            }
        });
        if !matches!(outcome, Err((_, Errno::EADDRINUSE))) {
            break;
        }
    }
    outcome.map_err(|(address, errno)| refused(port, address, errno))
}

/// A port that the kernel calls free. It is bound again by its number: a port that the kernel chose goes back when its socket stops to listen.
fn free_number(address: IpAddr, protocol: Protocol) -> Result<u16, Errno> {
    let probe = bound(SocketAddr::new(address, 0), protocol, false)?;
    let name: SockaddrStorage = getsockname(probe.as_raw_fd())?;
    let v4 = name.as_sockaddr_in().map(|name| name.port());
    let v6 = name.as_sockaddr_in6().map(|name| name.port());
    v4.or(v6).ok_or(Errno::EAFNOSUPPORT)
}

fn addresses(port: &Port) -> Vec<IpAddr> {
    match port.host_ip {
        Some(ip) => vec![ip],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

fn take(port: &Port) -> Result<Vec<Held>, (SocketAddr, Errno)> {
    let mut held = Vec::new();
    for ip in addresses(port) {
        let address = SocketAddr::new(ip, port.host_port);
        match hold(address, port.protocol) {
            Ok(fd) => held.push(Held {
                fd,
                port: *port,
                address,
            }),
            // A machine without IPv6, where nobody has asked for it by name.
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)
                if ip.is_ipv6() && port.host_ip.is_none() => {}
            Err(errno) => return Err((address, errno)),
        }
    }
    Ok(held)
}

/// Takes one address so that it clashes with every other user of it, before and after.
fn hold(address: SocketAddr, protocol: Protocol) -> Result<OwnedFd, Errno> {
    if protocol != Protocol::Tcp {
        let fd = bound(address, protocol, false)?;
        if address.is_ipv4() {
            // What comes here before there are rules is for nobody.
            setsockopt(&fd, sockopt::RcvBuf, &0)?;
        }
        return Ok(fd);
    }
    // With SO_REUSEADDR connections that are still being closed do not stand in the way, but only listening clashes with others that
    // have set it.
    let fd = bound(address, protocol, true)?;
    if address.is_ipv6() {
        listen(&fd, Backlog::MAXCONN)?;
        return Ok(fd);
    }
    // A closed socket keeps its port, and clashes with everybody once it does not want to share any more. In this order nobody
    // fits in between. Nor is anybody let in while it listens, or loses a packet when it stops: no packet comes by that link.
    sys::bind_to_link(&fd, NO_LINK)?;
    listen(&fd, Backlog::MAXCONN)?;
    setsockopt(&fd, sockopt::ReuseAddr, &false)?;
    shutdown(fd.as_raw_fd(), Shutdown::Both)?;
    // An ordinary user may not, and then only those who are bound to a link of their own do not clash.
    match sys::bind_to_link(&fd, ANY_LINK) {
        Ok(()) | Err(Errno::EPERM) => Ok(fd),
        Err(errno) => Err(errno),
    }
}

fn bound(address: SocketAddr, protocol: Protocol, reuse: bool) -> Result<OwnedFd, Errno> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, kind, flags, number)?;
    if address.is_ipv6() {
        setsockopt(&fd.as_fd(), sockopt::Ipv6V6Only, &true)?;
    }
    setsockopt(&fd.as_fd(), sockopt::ReuseAddr, &reuse)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}
