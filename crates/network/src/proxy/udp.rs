//! UDP through the proxy: for each client a socket of its own towards the container, so that answers find back.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::Token;

/// Clients at once. A further one takes the place of whoever was silent for longest.
const CLIENTS: usize = 128;
/// Datagrams that are moved before the others get their turn.
const TURNS: usize = 32;

/// The clients of one published port.
#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: BTreeMap<u32, Flow>,
    next: u32,
    /// Counts the datagrams, to tell who was silent for longest.
    clock: u64,
}

#[derive(Debug)]
struct Flow {
    client: SocketAddr,
    server: UdpSocket,
    used: u64,
}

impl Flows {
    /// Moves what clients have sent to the container. A datagram that cannot be moved is lost, as datagrams are.
    pub(super) fn ask(
        &mut self,
        socket: &UdpSocket,
        targets: &[SocketAddr],
        epoll: &Epoll,
        at: usize,
        buffer: &mut [u8],
    ) {
        for _ in 0..TURNS {
            let Ok((length, client)) = socket.recv_from(buffer) else {
                return;
            };
            self.clock += 1;
            let known = self.flows.values_mut().find(|flow| flow.client == client);
            if let Some(flow) = known {
                flow.used = self.clock;
                let _ = flow.server.send(&buffer[..length]);
            } else if let Some(server) = targets.iter().find_map(|target| connect(*target)) {
                let _ = server.send(&buffer[..length]);
                self.add(client, server, epoll, at);
            }
        }
    }

    fn add(&mut self, client: SocketAddr, server: UdpSocket, epoll: &Epoll, at: usize) {
        if self.flows.len() >= CLIENTS {
            let silent = self.flows.iter().min_by_key(|(_, flow)| flow.used);
            if let Some(key) = silent.map(|(key, _)| *key) {
                self.flows.remove(&key);
            }
        }
        let key = self.next;
        self.next = self.next.wrapping_add(1);
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Flow(at, key).number());
        if epoll.add(&server, event).is_ok() {
            let used = self.clock;
            self.flows.insert(
                key,
                Flow {
                    client,
                    server,
                    used,
                },
            );
        }
    }

    /// Moves the container's answers to the client.
    pub(super) fn answer(&mut self, socket: &UdpSocket, key: u32, buffer: &mut [u8]) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        for _ in 0..TURNS {
            match flow.server.recv(buffer) {
                Ok(length) => {
                    flow.used = self.clock;
                    let _ = socket.send_to(&buffer[..length], flow.client);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // Nobody listens in the container: the client's next datagram tries again.
                Err(_) => {
                    self.flows.remove(&key);
                    return;
                }
            }
        }
    }
}

fn connect(target: SocketAddr) -> Option<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(target).ok()?;
    Some(socket)
}
