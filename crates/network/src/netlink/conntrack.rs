//! ctnetlink: forgetting connections that were begun under other rules.

use libc::{NFNL_SUBSYS_CTNETLINK, NLM_F_DUMP};
use nix::errno::Errno;

use super::message::{Attributes, Message, Read};
use super::{Refusal, Socket};

const GET: i32 = 1;
const DELETE: i32 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
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
    /// past a mapping that is new and to a container that is gone.
    pub(crate) fn forget_udp(&mut self, ports: &[u16]) -> Result<(), Refusal> {
        let mut flows = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            self.0.get(&udp_flows(family as u8), |answer| {
                let attributes = answer.attributes(4);
                if let Some(tuple) = attributes.nested(TUPLE_ORIGINAL)
                    && let Some((protocol, port)) = destination(tuple)
                    && protocol == libc::IPPROTO_UDP as u8
                    && ports.contains(&port)
                {
                    let mut flow = Attributes::new().nest_bytes(TUPLE_ORIGINAL, tuple.0);
                    if let Some(zone) = attributes.get(ZONE) {
                        flow = flow.bytes(ZONE, zone);
                    }
                    flows.push(message(DELETE, 0, family as u8, flow));
                }
            })?;
        }
        for flow in flows {
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

/// Asks for all flows of UDP; the kernel leaves the others out.
fn udp_flows(family: u8) -> Message {
    let protocol = Attributes::new().bytes(PROTOCOL_NUMBER, &[libc::IPPROTO_UDP as u8]);
    let tuple = Attributes::new().nest(TUPLE_PROTOCOL, protocol);
    let filter = Attributes::new().u32(FILTER_ORIGINAL, BY_PROTOCOL);
    let attributes = Attributes::new()
        .nest(TUPLE_ORIGINAL, tuple)
        .nest(FILTER, filter);
    message(GET, NLM_F_DUMP, family, attributes)
}

/// Protocol and destination port of a tuple.
fn destination(tuple: Read<'_>) -> Option<(u8, u16)> {
    let protocol = tuple.nested(TUPLE_PROTOCOL)?;
    let number = *protocol.get(PROTOCOL_NUMBER)?.first()?;
    let port = protocol.get(PROTOCOL_DESTINATION)?.first_chunk()?;
    Some((number, u16::from_be_bytes(*port)))
}
