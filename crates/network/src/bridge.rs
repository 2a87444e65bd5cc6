//! The bridge of a network, and what connects a container to it.

use std::net::IpAddr;
use std::os::fd::AsFd;

use crate::Attached;
use crate::cidr::Cidr;
use crate::error::{Context, Error, Result};
use crate::ipam::{self, GATEWAY};
use crate::mac::Mac;
use crate::netlink::route::{Link, Route, Veth};
use crate::netlink::{Socket, inside};
use crate::state::{Bridge, State};
use crate::{forward, rules, sysctl};

const ETHERNET_MTU: u32 = 1500;
/// The least that IPv6 needs.
const LEAST_MTU: u32 = 1280;

impl Bridge {
    /// The networks of both versions.
    pub(crate) fn subnets(&self) -> Vec<Cidr> {
        std::iter::once(self.subnet).chain(self.subnet6).collect()
    }

    /// The bridge's own addresses, each in its network.
    pub(crate) fn gateways(&self) -> Vec<IpAddr> {
        self.subnets()
            .iter()
            .map(|subnet| subnet.host(GATEWAY))
            .collect()
    }

    /// An address that only a bridge of ours with this network has.
    fn mac(&self) -> Option<Mac> {
        match self.subnet.host(GATEWAY) {
            IpAddr::V4(gateway) => Some(Mac::of(gateway)),
            IpAddr::V6(_) => None,
        }
    }

    fn is(&self, link: &Link) -> bool {
        link.kind == "bridge" && link.mac == self.mac()
    }

    /// The link of this bridge, if it is there. A link of somebody else with its name is an error.
    fn find(&self, socket: &mut Socket) -> Result<Option<Link>> {
        let link = socket.link(&self.interface)?;
        if link.as_ref().is_some_and(|link| !self.is(link)) {
            let message = format!("the network interface {} is not ours", self.interface);
            return Err(Error::in_use(message));
        }
        Ok(link)
    }

    /// Decides on interface and addresses of the network: what is on record, unless something else has come to use it.
    pub(crate) fn choose(state: &State, socket: &mut Socket) -> Result<Bridge> {
        if let Some(bridge) = &state.bridge
            && !state.attached.is_empty()
        {
            return Ok(bridge.clone());
        }
        let routes = socket.routes()?;
        if let Some(bridge) = &state.bridge
            && let Ok(link) = bridge.find(socket)
            && bridge.subnet6.is_some() == sysctl::has_ipv6()
        {
            let others = destinations(&routes, link.as_ref());
            if bridge
                .subnets()
                .iter()
                .all(|subnet| ipam::is_free(*subnet, &others))
            {
                return Ok(bridge.clone());
            }
        }
        let others = destinations(&routes, None);
        let mut number = 0;
        while socket.link(&format!("cor{number}"))?.is_some() {
            number += 1;
        }
        Ok(Bridge {
            interface: format!("cor{number}"),
            subnet: ipam::free_subnet(&others)?,
            subnet6: match sysctl::has_ipv6() {
                true => Some(ipam::unique_local_subnet()?),
                false => None,
            },
            last: GATEWAY,
            changed: Vec::new(),
        })
    }

    /// Makes the bridge, or what is missing of it. The rules have to be in force: without them `route_localnet` would open the
    /// machine's 127.0.0.1 to containers.
    pub(crate) fn set_up(&self, socket: &mut Socket) -> Result<Link> {
        let name = &self.interface;
        let link = match self.find(socket)? {
            Some(link) => link,
            None => {
                let mac = self
                    .mac()
                    .ok_or_else(|| Error::failed("the IPv4 network on record is none"))?;
                let mtu = mtu(socket)?;
                socket.add_bridge(name, mac, mtu)?;
                self.find(socket)?.ok_or_else(|| {
                    Error::failed(format!("the bridge {name} is gone as soon as it is made"))
                })?
            }
        };
        if self.subnet6.is_some() {
            close_to_neighbours(name)?;
        }
        sysctl::set(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
        for subnet in self.subnets() {
            socket.add_address(&link, subnet.host(GATEWAY), subnet.prefix)?;
        }
        socket.set_up(&link)?;
        Ok(link)
    }

    /// Puts on record which parameters have to change for packets to go from one interface to another.
    ///
    /// A machine that forwards IPv6 no longer listens to routers, by which it may have its own address, unless it is told to.
    pub(crate) fn record_forwarding(&mut self) -> Result<()> {
        let mut add = |name: &str, from: &str, to: &str| {
            let change = [name, from, to].map(str::to_owned);
            if sysctl::read(name)?.as_deref() == Some(from) && !self.changed.contains(&change) {
                self.changed.push(change);
            }
            Ok(())
        };
        add("ipv4/ip_forward", "0", "1")?;
        if self.subnet6.is_some() && !sysctl::is("ipv6/conf/all/forwarding", "1") {
            let links = sysctl::list("ipv6/conf").filter(|link| link != "all" && link != "default");
            for link in links {
                add(&format!("ipv6/conf/{link}/accept_ra"), "1", "2")?;
            }
            add("ipv6/conf/all/forwarding", "0", "1")?;
        }
        Ok(())
    }

    /// Makes the changes on record, in their order, where they are not in force.
    pub(crate) fn forward(&self) -> Result<()> {
        for [name, from, to] in &self.changed {
            if sysctl::read(name)?.as_ref() == Some(from) {
                sysctl::set(name, to)?;
            }
        }
        Ok(())
    }

    /// Takes away all that stands for this network.
    pub(crate) fn tear_down(&self, route: &mut Socket, netfilter: &mut Socket) -> Result<()> {
        if let Ok(Some(link)) = self.find(route) {
            route.delete_link(&link)?;
        }
        forward::withdraw(netfilter, &self.interface)?;
        rules::remove(netfilter, &self.interface)?;
        // Other bridges rely on it by now, whoever switched it on.
        if route.links_of("bridge")?.is_empty() {
            for [name, from, to] in self.changed.iter().rev() {
                if sysctl::read(name)?.as_ref() == Some(to) {
                    sysctl::set(name, from)?;
                }
            }
        }
        Ok(())
    }

    /// Connects a container's namespace. On failure something of it may be left for [`disconnect`].
    pub(crate) fn connect(
        &self,
        socket: &mut Socket,
        bridge: &Link,
        netns: impl AsFd,
        attached: &Attached,
    ) -> Result<()> {
        let mtu = mtu(socket)?;
        socket.add_veth(&Veth {
            name: &attached.host_interface,
            mtu,
            peer: &attached.interface,
            peer_mac: attached.mac,
            peer_netns: netns.as_fd(),
        })?;
        plug(socket, bridge, attached)?;
        inside(netns, || set_up_inside(attached)).context(|| {
            format!(
                "set up network interface {} in the container",
                attached.interface
            )
        })?;
        plug(socket, bridge, attached)?;
        // See the end of `set_up_inside`; the machine's end is asked for when it is plugged.
        socket.link(&self.interface).map(drop)
    }
}

/// Makes the machine's end of a container's link a port of the bridge.
pub(crate) fn plug(socket: &mut Socket, bridge: &Link, attached: &Attached) -> Result<()> {
    match socket.link(&attached.host_interface)? {
        Some(link) => socket.set_bridge(&link, bridge),
        None => Ok(()),
    }
}

/// Removes a container's link, both ends of it. A namespace that is gone has taken them along.
pub(crate) fn disconnect(socket: &mut Socket, attached: &Attached) -> Result<()> {
    match socket.link(&attached.host_interface)? {
        Some(link) if link.kind == "veth" => socket.delete_link(&link),
        _ => Ok(()),
    }
}

/// Brings the loopback interface of a network namespace up.
pub(crate) fn loopback_up() -> Result<()> {
    let mut socket = Socket::route()?;
    match socket.link("lo")? {
        Some(lo) => socket.set_up(&lo),
        None => Err(Error::failed("the network namespace has no lo")),
    }
}

/// On both ends of our links nobody is a router to the other (CVE-2020-13401). Addresses are ours to give, so they are not looked for: that
/// would take the second after the start.
fn close_to_neighbours(link: &str) -> Result<()> {
    for parameter in ["accept_ra", "accept_dad"] {
        sysctl::set(&format!("ipv6/conf/{link}/{parameter}"), "0")?;
    }
    Ok(())
}

/// What is done inside of the container's namespace.
fn set_up_inside(attached: &Attached) -> Result<()> {
    loopback_up()?;
    let mut socket = Socket::route()?;
    let name = &attached.interface;
    let link = socket
        .link(name)?
        .ok_or_else(|| Error::failed(format!("{name} is gone as soon as it is made")))?;
    let ipv6 = sysctl::is(&format!("ipv6/conf/{name}/disable_ipv6"), "0");
    if ipv6 {
        close_to_neighbours(name)?;
    }
    let usable = |address: &IpAddr| address.is_ipv4() || ipv6;
    for own in attached.addresses.iter().filter(|own| usable(&own.address)) {
        socket.add_address(&link, own.address, own.prefix)?;
    }
    socket.set_up(&link)?;
    for gateway in attached.gateways.iter().filter(|gateway| usable(gateway)) {
        socket.add_default_route(&link, *gateway)?;
    }
    // The kernel lets packets through a link some time after it has come up, and loses those that come before. For who asks for the link
    // that is done at once (Linux 6.9).
    socket.link(name)?;
    Ok(())
}

/// Where the machine's routes lead, without the ways to everywhere and those by `own`.
fn destinations(routes: &[Route], own: Option<&Link>) -> Vec<Cidr> {
    let foreign = |route: &&Route| own.is_none_or(|own| route.link != Some(own.index));
    routes
        .iter()
        .filter(foreign)
        .filter(|route| route.prefix > 0)
        .filter_map(|route| Some(Cidr::new(route.destination?, route.prefix)))
        .collect()
}

fn mtu(socket: &mut Socket) -> Result<u32> {
    let routes = socket.routes()?;
    let uplink = socket.uplink_mtu(&routes);
    Ok(uplink.map_or(ETHERNET_MTU, |mtu| mtu.clamp(LEAST_MTU, ETHERNET_MTU)))
}
