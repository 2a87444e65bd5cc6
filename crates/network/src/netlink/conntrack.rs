//! ctnetlink: forgetting connections that were begun under other rules.

use std::net::IpAddr;

use libc::{NFNL_SUBSYS_CTNETLINK, NLM_F_DUMP};
use nix::errno::Errno;

use super::message::{Attributes, Message, Read};
use super::route::octets;
use super::{Refusal, Socket};

const GET: i32 = 1;
const DELETE: i32 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const SOURCE_V4: u16 = 1;
const SOURCE_V6: u16 = 3;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_DESTINATION: u16 = 3;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

/// What the kernel compares of a tuple: the bits of `CTA_IP_SRC` and `CTA_PROTO_NUM`.
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;

fn message(kind: i32, flags: i32, family: u8, attributes: Attributes) -> Message {
    let kind = (NFNL_SUBSYS_CTNETLINK << 8 | kind) as u16;
    Message::new(kind, flags, &[family, 0, 0, 0], attributes)
}

impl Socket {
    /// Forgets every UDP flow to one of these ports. UDP has no beginning: while a client goes on sending, the kernel goes on as it began,
    /// past a mapping that is new.
    pub(crate) fn forget_udp(&mut self, ports: &[u16]) -> Result<(), Refusal> {
        let protocol = Attributes::new().bytes(PROTOCOL_NUMBER, &[libc::IPPROTO_UDP as u8]);
        let udp = Attributes::new().nest(TUPLE_PROTOCOL, protocol);
        for family in [libc::AF_INET, libc::AF_INET6] {
            self.forget(
                family as u8,
                flows(family as u8, TUPLE_ORIGINAL, udp.clone(), BY_PROTOCOL),
                |tuple| destination_port(tuple).is_some_and(|port| ports.contains(&port)),
            )?;
        }
        Ok(())
    }

    /// Forgets every connection that a container with this address has begun or accepted: the next one to get the address, and whoever
    /// connects to the port that led there, begins anew.
    pub(crate) fn forget_address(&mut self, address: IpAddr) -> Result<(), Refusal> {
        let (family, attribute) = match address {
            IpAddr::V4(_) => (libc::AF_INET as u8, SOURCE_V4),
            IpAddr::V6(_) => (libc::AF_INET6 as u8, SOURCE_V6),
        };
        let source = Attributes::new().bytes(attribute, &octets(address));
        let addresses = Attributes::new().nest(TUPLE_ADDRESSES, source);
        // Whatever the packets of the other side were sent to, the container's own have its address.
        for direction in [TUPLE_ORIGINAL, TUPLE_REPLY] {
            let query = flows(family, direction, addresses.clone(), BY_SOURCE);
            self.forget(family, query, |_| true)?;
        }
        Ok(())
    }

    /// Forgets those of the listed flows whose original tuple is `wanted`.
    fn forget(
        &mut self,
        family: u8,
        query: Message,
        wanted: impl Fn(Read<'_>) -> bool,
    ) -> Result<(), Refusal> {
        let mut found = Vec::new();
        self.get(&query, |answer| {
            let attributes = answer.attributes(4);
            if let Some(tuple) = attributes.nested(TUPLE_ORIGINAL)
                && wanted(tuple)
            {
                let mut flow = Attributes::new().nest_bytes(TUPLE_ORIGINAL, tuple.0);
                if let Some(zone) = attributes.get(ZONE) {
                    flow = flow.bytes(ZONE, zone);
                }
                found.push(message(DELETE, 0, family, flow));
            }
        })?;
        for flow in found {
            match self.request(&flow) {
                Ok(())
                | Err(Refusal {
                    errno: Errno::ENOENT,
                    ..
                }) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }
}

/// Asks for the flows that are like this in one direction; the kernel leaves the others out.
fn flows(family: u8, direction: u16, tuple: Attributes, by: u32) -> Message {
    // The flags of a direction have the number of its tuple.
    let attributes = Attributes::new()
        .nest(direction, tuple)
        .nest(FILTER, Attributes::new().u32(direction, by));
    message(GET, NLM_F_DUMP, family, attributes)
}

fn destination_port(tuple: Read<'_>) -> Option<u16> {
    let protocol = tuple.nested(TUPLE_PROTOCOL)?;
    let port = protocol.get(PROTOCOL_DESTINATION)?.first_chunk()?;
    Some(u16::from_be_bytes(*port))
}
