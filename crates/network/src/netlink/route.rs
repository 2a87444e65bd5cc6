//! rtnetlink(7): links, addresses and routes.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use nix::errno::Errno;

use super::message::{Attributes, Message, u32_at};
use super::{Refusal, Socket};
use crate::error::{Context, Result};
use crate::mac::Mac;

const IFINFOMSG: usize = 16;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `bridge`, `veth`…; empty for hardware.
    pub(crate) kind: String,
    /// The link-layer address, where it has one of six bytes.
    pub(crate) mac: Option<Mac>,
}

/// One end of a veth pair, and where the other one is born.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) name: &'a str,
    pub(crate) mtu: u32,
    pub(crate) peer: &'a str,
    pub(crate) peer_mac: Option<Mac>,
    pub(crate) peer_netns: BorrowedFd<'a>,
}

/// `struct ifinfomsg`.
fn ifinfo(family: i32, index: u32, up: bool) -> [u8; IFINFOMSG] {
    let up = if up { libc::IFF_UP as u32 } else { 0 };
    let mut header = [0; IFINFOMSG];
    header[0] = family as u8;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&up.to_ne_bytes());
    header[12..16].copy_from_slice(&up.to_ne_bytes());
    header
}

/// The octets of an address as attributes hold them.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}

impl Socket {
    /// The link with this name, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let attributes = Attributes::new().text(libc::IFLA_IFNAME, name);
        match self.links(0, attributes) {
            Ok(links) => Ok(links.into_iter().next()),
            Err(Refusal {
                errno: Errno::ENODEV,
                ..
            }) => Ok(None),
            Err(refusal) => Err(refusal).context(|| format!("look up network interface {name}")),
        }
    }

    /// Every link of one kind.
    pub(crate) fn links_of(&mut self, kind: &str) -> Result<Vec<Link>> {
        let info = Attributes::new().text(libc::IFLA_INFO_KIND, kind);
        let attributes = Attributes::new().nest(libc::IFLA_LINKINFO, info);
        let mut links = self
            .links(NLM_F_DUMP, attributes)
            .context(|| format!("list network interfaces of kind {kind}"))?;
        links.retain(|link| link.kind == kind);
        Ok(links)
    }

    fn links(&mut self, flags: i32, attributes: Attributes) -> Result<Vec<Link>, Refusal> {
        let header = ifinfo(libc::AF_UNSPEC, 0, false);
        let request = Message::new(libc::RTM_GETLINK, flags, &header, attributes);
        let mut links = Vec::new();
        self.0.get(&request, |answer| {
            let attributes = answer.attributes(IFINFOMSG);
            let info = attributes.nested(libc::IFLA_LINKINFO);
            links.push(Link {
                index: u32_at(answer.body, 4).unwrap_or(0),
                name: attributes.text(libc::IFLA_IFNAME).unwrap_or("").to_owned(),
                kind: info
                    .and_then(|info| info.text(libc::IFLA_INFO_KIND))
                    .unwrap_or("")
                    .to_owned(),
                mac: attributes
                    .get(libc::IFLA_ADDRESS)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Mac),
            });
        })?;
        Ok(links)
    }

    /// Makes a bridge that is down. Its address is given, because a bridge that takes one from its ports changes it as they come and go.
    pub(crate) fn add_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<()> {
        let info = Attributes::new().text(libc::IFLA_INFO_KIND, "bridge");
        let attributes = Attributes::new()
            .text(libc::IFLA_IFNAME, name)
            .bytes(libc::IFLA_ADDRESS, &mac.0)
            .u32(libc::IFLA_MTU, mtu)
            .nest(libc::IFLA_LINKINFO, info);
        self.new_link(&ifinfo(libc::AF_UNSPEC, 0, false), attributes)
            .context(|| format!("make bridge {name}"))
    }

    /// Makes a veth pair: this end here, the other one straight in its namespace.
    pub(crate) fn add_veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        let mut peer = Attributes::new().text(libc::IFLA_IFNAME, veth.peer);
        if let Some(mac) = veth.peer_mac {
            peer = peer.bytes(libc::IFLA_ADDRESS, &mac.0);
        }
        let peer = peer
            .u32(libc::IFLA_MTU, veth.mtu)
            .u32(libc::IFLA_NET_NS_FD, veth.peer_netns.as_raw_fd() as u32);
        // The peer has a whole message of its own inside: header and attributes.
        let data = Attributes::new().message(VETH_INFO_PEER, &ifinfo(0, 0, false), peer);
        let info = Attributes::new()
            .text(libc::IFLA_INFO_KIND, "veth")
            .nest(libc::IFLA_INFO_DATA, data);
        let attributes = Attributes::new()
            .text(libc::IFLA_IFNAME, veth.name)
            .u32(libc::IFLA_MTU, veth.mtu)
            .nest(libc::IFLA_LINKINFO, info);
        self.new_link(&ifinfo(libc::AF_UNSPEC, 0, true), attributes)
            .context(|| format!("make veth pair {} and {}", veth.name, veth.peer))
    }

    fn new_link(&mut self, header: &[u8], attributes: Attributes) -> Result<(), Refusal> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.0
            .request(&Message::new(libc::RTM_NEWLINK, flags, header, attributes))
    }

    /// Makes a link a port of a bridge, one that sends back out what came in by it, for who reaches itself by its published port.
    pub(crate) fn set_bridge(&mut self, link: &Link, bridge: &Link) -> Result<()> {
        let header = ifinfo(libc::AF_UNSPEC, link.index, true);
        let attributes = Attributes::new().u32(libc::IFLA_MASTER, bridge.index);
        self.0
            .request(&Message::new(libc::RTM_SETLINK, 0, &header, attributes))
            .context(|| format!("make {} a port of bridge {}", link.name, bridge.name))?;
        let port = Attributes::new().bytes(IFLA_BRPORT_MODE, &[1]);
        let attributes = Attributes::new().nest(libc::IFLA_PROTINFO, port);
        let header = ifinfo(libc::AF_BRIDGE, link.index, false);
        self.0
            .request(&Message::new(libc::RTM_SETLINK, 0, &header, attributes))
            .context(|| format!("set hairpin mode of bridge port {}", link.name))
    }

    pub(crate) fn set_up(&mut self, link: &Link) -> Result<()> {
        let header = ifinfo(libc::AF_UNSPEC, link.index, true);
        self.0
            .request(&Message::new(
                libc::RTM_SETLINK,
                0,
                &header,
                Attributes::new(),
            ))
            .context(|| format!("bring network interface {} up", link.name))
    }

    /// Deletes a link; one that has gone already is as good.
    pub(crate) fn delete_link(&mut self, link: &Link) -> Result<()> {
        let header = ifinfo(libc::AF_UNSPEC, link.index, false);
        match self.0.request(&Message::new(
            libc::RTM_DELLINK,
            0,
            &header,
            Attributes::new(),
        )) {
            Err(Refusal {
                errno: Errno::ENODEV,
                ..
            }) => Ok(()),
            verdict => verdict.context(|| format!("delete network interface {}", link.name)),
        }
    }

    /// Adds an address; one that is there already is as good. Nobody else can have it, so it is not looked for before it is used.
    pub(crate) fn add_address(&mut self, link: &Link, address: IpAddr, prefix: u8) -> Result<()> {
        let mut header = vec![family(address), prefix, libc::IFA_F_NODAD as u8, 0];
        header.extend(link.index.to_ne_bytes());
        let mut attributes = Attributes::new()
            .bytes(libc::IFA_LOCAL, &octets(address))
            .bytes(libc::IFA_ADDRESS, &octets(address));
        if let IpAddr::V4(local) = address {
            let broadcast = u32::from(local) | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            attributes = attributes.bytes(libc::IFA_BROADCAST, &broadcast.to_be_bytes());
        }
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.0
            .request(&Message::new(libc::RTM_NEWADDR, flags, &header, attributes))
            .context(|| format!("add address {address}/{prefix} to {}", link.name))
    }

    /// Makes `gateway` the way to everywhere.
    pub(crate) fn add_default_route(&mut self, link: &Link, gateway: IpAddr) -> Result<()> {
        let header = rtmsg(family(gateway));
        let attributes = Attributes::new()
            .bytes(libc::RTA_GATEWAY, &octets(gateway))
            .u32(libc::RTA_OIF, link.index);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.0
            .request(&Message::new(
                libc::RTM_NEWROUTE,
                flags,
                &header,
                attributes,
            ))
            .context(|| format!("add default route by {gateway} on {}", link.name))
    }

    /// The destinations that this machine has routes to, its own addresses among them, and the smallest MTU of the ways to
    /// everywhere else.
    pub(crate) fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        let request = Message::new(libc::RTM_GETROUTE, NLM_F_DUMP, &[0; 12], Attributes::new());
        self.0
            .get(&request, |answer| {
                let attributes = answer.attributes(12);
                let prefix = answer.body.get(1).copied().unwrap_or(0);
                routes.push(Route {
                    destination: attributes.get(libc::RTA_DST).and_then(address),
                    prefix,
                    link: attributes.u32(libc::RTA_OIF),
                });
            })
            .context(|| "list the machine's routes")?;
        Ok(routes)
    }

    /// The smallest MTU of the links that lead to everywhere: what is larger would be dropped or cut there.
    pub(crate) fn uplink_mtu(&mut self, routes: &[Route]) -> Option<u32> {
        let uplinks = routes.iter().filter(|route| route.destination.is_none());
        let mut smallest = None;
        for index in uplinks.filter_map(|route| route.link) {
            let header = ifinfo(libc::AF_UNSPEC, index, false);
            let request = Message::new(libc::RTM_GETLINK, 0, &header, Attributes::new());
            // A link that has just gone says nothing.
            let _ = self.0.get(&request, |answer| {
                let attributes = answer.attributes(IFINFOMSG);
                let loopback = attributes.text(libc::IFLA_IFNAME) == Some("lo");
                let mtu = attributes.u32(libc::IFLA_MTU).filter(|_| !loopback);
                smallest = smallest.into_iter().chain(mtu).min();
            });
        }
        smallest
    }
}

/// `struct rtmsg` of a unicast route in the main table.
fn rtmsg(family: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4] = libc::RT_TABLE_MAIN;
    header[5] = libc::RTPROT_STATIC;
    header[6] = libc::RT_SCOPE_UNIVERSE;
    header[7] = libc::RTN_UNICAST;
    header
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// `None` for everywhere.
    pub(crate) destination: Option<IpAddr>,
    pub(crate) prefix: u8,
    /// The index of the link that it leads out by.
    pub(crate) link: Option<u32>,
}
