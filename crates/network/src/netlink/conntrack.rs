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
const FILTER_ORIGINAL: u16 = 1;
/// The bit of `CTA_PROTO_NUM` in the flags of a filter.
const BY_PROTOCOL: u32 = 1 << 3;

fn message(kind: i32, flags: i32, family: u8, attributes: Attributes) -> Message {
    let kind = (NFNL_SUBSYS_CTNETLINK << 8 | kind) as u16;
    Message::new(kind, flags, &[family, 0, 0, 0], attributes)
}

impl Socket {
    /// Forgets every UDP flow to one of these ports. UDP has no beginning: while a client goes on sending, the kernel goes on as it began,
    /// past a mapping that is new.
    pub(crate) fn forget_udp(&mut self, ports: &[u16]) -> Result<(), Refusal> {
        for family in [libc::AF_INET, libc::AF_INET6] {
            self.forget(family as u8, udp(), |original, _| {
                destination_port(original).is_some_and(|port| ports.contains(&port))
            })?;
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
        let own = octets(address);
        let is_from = |tuple: Read<'_>| {
            let addresses = tuple.nested(TUPLE_ADDRESSES);
            addresses.and_then(|addresses| addresses.get(attribute)) == Some(&own)
        };
        // The kernel could look for it, but what it finds for IPv6 are all the others (`ctnetlink_filter_match_tuple`, Linux 6.18).
        self.forget(family, Attributes::new(), |original, reply| {
            is_from(original) || is_from(reply)
        })
    }

    /// Forgets the flows whose tuples, the original one and that of replies, are `wanted`.
    fn forget(
        &mut self,
        family: u8,
        filter: Attributes,
        wanted: impl Fn(Read<'_>, Read<'_>) -> bool,
    ) -> Result<(), Refusal> {
        let mut found = Vec::new();
        self.0
            .get(&message(GET, NLM_F_DUMP, family, filter), |answer| {
                let attributes = answer.attributes(4);
                if let Some(original) = attributes.nested(TUPLE_ORIGINAL)
                    && let Some(reply) = attributes.nested(TUPLE_REPLY)
                    && wanted(original, reply)
                {
                    let mut flow = Attributes::new().nest_bytes(TUPLE_ORIGINAL, original.0);
                    if let Some(zone) = attributes.get(ZONE) {
                        flow = flow.bytes(ZONE, zone);
                    }
                    found.push(message(DELETE, 0, family, flow));
                }
            })?;
        for flow in found {
            match self.0.request(&flow) {
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

/// Lists only the flows of UDP.
fn udp() -> Attributes {
    let protocol = Attributes::new().bytes(PROTOCOL_NUMBER, &[libc::IPPROTO_UDP as u8]);
    let tuple = Attributes::new().nest(TUPLE_PROTOCOL, protocol);
    let filter = Attributes::new().u32(FILTER_ORIGINAL, BY_PROTOCOL);
    Attributes::new()
        .nest(TUPLE_ORIGINAL, tuple)
        .nest(FILTER, filter)
}

fn destination_port(tuple: Read<'_>) -> Option<u16> {
    let protocol = tuple.nested(TUPLE_PROTOCOL)?;
    let port = protocol.get(PROTOCOL_DESTINATION)?.first_chunk()?;
    Some(u16::from_be_bytes(*port))
}
