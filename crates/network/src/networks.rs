//! Attaching containers to networks and detaching them again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bridge::{self, disconnect, plug};
use crate::cidr::Cidr;
use crate::error::{Context, Error, Kind, Result};
use crate::mac::Mac;
use crate::names::Dns;
use crate::netlink::route::Link;
use crate::netlink::{Socket, inside};
use crate::ports::{Port, Protocol};
use crate::reserve::Reservation;
use crate::rules::Rules;
use crate::state::{self, Bridge, Locked, State, check_id};
use crate::{forward, ipam};

/// The name of the default network.
pub const DEFAULT: &str = "bridge";

/// The networks of one state directory.
///
/// Dropping it after rules were replaced waits until the kernel has cleared the old ones away (some 10 ms, an RCU grace period): it does
/// that whenever a socket of nftables is closed. Who is in a hurry keeps it for a while.
#[derive(Debug)]
pub struct Networks {
    pub(crate) directory: PathBuf,
    netfilter: Option<Socket>,
}

/// What is wanted of an attachment.
#[derive(Clone, Copy, Debug)]
pub struct Attach<'a> {
    /// By which it is found again: the container's id.
    pub id: &'a str,
    /// The network namespace, as `/proc/PID/ns/net` or a file that it is mounted on.
    pub netns: &'a Path,
    /// Ports to publish, all chosen: [`Reservation::ports`].
    pub ports: &'a [Port],
    /// A certain IPv4 address.
    pub ip: Option<Ipv4Addr>,
    /// A certain IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// A certain link-layer address.
    pub mac: Option<Mac>,
}

/// An attachment, as it is kept on record and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// The name of the network.
    pub network: String,
    /// The interface in the container.
    pub interface: String,
    /// The other end of it on this machine; empty where another program has made it, as for `bridge`.
    pub host_interface: String,
    /// The bridge's interface.
    pub bridge: String,
    /// The link-layer address in the container, where it is known.
    pub mac: Option<Mac>,
    /// The container's addresses, IPv4 first.
    pub addresses: Vec<Cidr>,
    /// The way out for each of them: the bridge's own addresses.
    pub gateways: Vec<IpAddr>,
    /// The published ports.
    pub ports: Vec<Port>,
    /// The namespace as it was given.
    pub netns: PathBuf,
    /// What a CNI plugin says about looking up names.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// A network with what is attached to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// `bridge`.
    pub name: String,
    /// The bridge's interface; empty until somebody has been attached.
    pub interface: String,
    /// The networks of both versions.
    pub subnets: Vec<Cidr>,
    /// The bridge's own addresses.
    pub gateways: Vec<IpAddr>,
    /// By id.
    pub attached: BTreeMap<String, Attached>,
}

impl Network {
    fn named(name: &str) -> Self {
        Network {
            name: name.to_owned(),
            interface: String::new(),
            subnets: Vec::new(),
            gateways: Vec::new(),
            attached: BTreeMap::new(),
        }
    }
}

impl Networks {
    /// The networks on record in a directory, which is made when it is missing.
    pub fn open(directory: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .context(|| format!("make the directory {}", directory.display()))?;
        let directory = directory
            .canonicalize()
            .context(|| format!("find the directory {}", directory.display()))?;
        Ok(Networks {
            directory,
            netfilter: None,
        })
    }

    fn netfilter(&mut self) -> Result<&mut Socket> {
        match &mut self.netfilter {
            Some(socket) => Ok(socket),
            none => Ok(none.insert(Socket::netfilter()?)),
        }
    }

    /// Takes ports of this machine. Each is [`Kind::InUse`] when a process listens there, or a container on record has it; then none is
    /// taken.
    pub fn reserve(&self, ports: &[Port]) -> Result<Reservation> {
        let state = state::read(&self.directory)?;
        Reservation::new(ports, |port| state.check_unpublished(port))
    }

    /// For whoever takes over a container that is attached already: the attachment, and its ports taken once more.
    pub fn adopt(&self, id: &str) -> Result<Option<(Attached, Reservation)>> {
        check_id(id)?;
        let state = state::read(&self.directory)?;
        let Some((_, attached)) = state.all().find(|(other, _)| *other == id) else {
            return Ok(None);
        };
        let reservation = Reservation::new(&attached.ports, |_| Ok(()))?;
        Ok(Some((attached.clone(), reservation)))
    }

    /// Attaches a network namespace to the default network and publishes ports. On failure nothing is left.
    pub fn attach(&mut self, request: &Attach<'_>) -> Result<Attached> {
        check_id(request.id)?;
        let netns = open_netns(request.netns)?;
        let mut locked = Locked::open(&self.directory)?;
        locked.state.check_free(request.id, request.ports)?;
        let mut route = Socket::route()?;
        let attached = record(&mut locked.state, &mut route, request)?;
        locked.save()?;
        let netfilter = self.netfilter()?;
        let mut connect = |locked: &Locked| {
            let (bridge, link) =
                put_in_force(&locked.state, &mut route, netfilter, Some(request.id))?;
            bridge.connect(&mut route, &link, &netns, &attached)?;
            if !attached.ports.is_empty() {
                rules(&locked.state, &bridge, None).apply(netfilter)?;
            }
            forget_udp(netfilter, &attached.ports);
            Ok::<_, Error>(())
        };
        if let Err(error) = connect(&locked) {
            if let Err(left) = remove(&mut locked, netfilter, request.id) {
                log::warn!("undo the attachment of {}: {left}", request.id);
            }
            return Err(error)
                .context(|| format!("attach {} to the network {DEFAULT}", request.id));
        }
        Ok(attached)
    }

    /// Takes away everything that an attachment has left, however far it had come. One that is not on record is as good as detached.
    pub fn detach(&mut self, id: &str) -> Result<()> {
        check_id(id)?;
        // Most have never been attached: they need no lock.
        let state = state::read(&self.directory)?;
        if let Some(other) = state.lost.get(id) {
            self.undo_lost(id, other)?;
        }
        let Some((_, attached)) = state.all().find(|(other, _)| *other == id) else {
            return Ok(());
        };
        let mut locked = Locked::open(&self.directory)?;
        match locked.state.others.get(id).cloned() {
            // Other programs take their time, and nobody else is to wait for them.
            Some(other) => {
                drop(locked);
                self.undo(id, &other)
            }
            None => remove(&mut locked, self.netfilter()?, id),
        }
        .context(|| format!("detach {id} from the network {}", attached.network))
    }

    /// Puts everything back in force that is on record: after somebody has flushed the firewall, or deleted the bridge.
    pub fn reload(&mut self) -> Result<()> {
        let locked = Locked::open(&self.directory)?;
        if locked.state.attached.is_empty() {
            return Ok(());
        }
        let mut route = Socket::route()?;
        let (_, link) = put_in_force(&locked.state, &mut route, self.netfilter()?, None)?;
        for attached in locked.state.attached.values() {
            plug(&mut route, &link, attached)?;
        }
        Ok(())
    }

    /// What keeps packets from the default network although everything is in force, each with a remedy: other firewalls.
    pub fn obstacles(&mut self) -> Result<Vec<String>> {
        match state::read(&self.directory)?.bridge {
            Some(bridge) => forward::obstacles(self.netfilter()?, &bridge.interface),
            None => Ok(Vec::new()),
        }
    }

    /// Every network: the default one, and those of other programs that something is attached to.
    pub fn list(&self) -> Result<Vec<Network>> {
        let state = state::read(&self.directory)?;
        let mut networks = vec![Network::named(DEFAULT)];
        if let Some(bridge) = &state.bridge {
            networks[0].interface.clone_from(&bridge.interface);
            networks[0].subnets = bridge.subnets();
            networks[0].gateways = bridge.gateways();
        }
        for (id, attached) in state.all() {
            let at = networks
                .iter()
                .position(|network| network.name == attached.network);
            let at = at.unwrap_or_else(|| {
                networks.push(Network::named(&attached.network));
                networks.len() - 1
            });
            networks[at].attached.insert(id.clone(), attached.clone());
        }
        Ok(networks)
    }

    /// The network with this name, or [`Kind::NotFound`].
    pub fn inspect(&self, name: &str) -> Result<Network> {
        let found = self
            .list()?
            .into_iter()
            .find(|network| network.name == name);
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("no network has the name {name:?}")))
    }
}

/// Brings the loopback interface of a network namespace up: all that a container without a network has.
pub fn loopback_up(netns: &Path) -> Result<()> {
    inside(open_netns(netns)?, bridge::loopback_up)
        .context(|| format!("set up the loopback interface of {}", netns.display()))
}

/// Opens a namespace that is not our own: setting that up would cut the machine off.
pub(crate) fn open_netns(path: &Path) -> Result<File> {
    let open = |path: &Path| {
        File::open(path).context(|| format!("open the network namespace {}", path.display()))
    };
    let (netns, own) = (open(path)?, open(Path::new("/proc/thread-self/ns/net"))?);
    let identity = |file: &File| {
        let data = file
            .metadata()
            .context(|| format!("stat {}", path.display()))?;
        Ok::<_, Error>((data.dev(), data.ino()))
    };
    if identity(&netns)? == identity(&own)? {
        let message = format!(
            "invalid network namespace {}: it is the machine's own",
            path.display()
        );
        return Err(Error::invalid(message));
    }
    Ok(netns)
}

/// Decides on everything and writes it into the state.
fn record(state: &mut State, route: &mut Socket, request: &Attach<'_>) -> Result<Attached> {
    let mut bridge = Bridge::choose(state, route)?;
    let addresses = ipam::addresses(state, &bridge, request.ip, request.ip6)?;
    bridge.last = addresses.number;
    bridge.record_forwarding()?;
    let mut own = vec![Cidr::new(addresses.v4, bridge.subnet.prefix)];
    if let (Some(address), Some(subnet)) = (addresses.v6, bridge.subnet6) {
        own.push(Cidr::new(address, subnet.prefix));
    }
    let attached = Attached {
        network: DEFAULT.to_owned(),
        interface: "eth0".to_owned(),
        host_interface: format!("{}v{}", bridge.interface, addresses.number),
        bridge: bridge.interface.clone(),
        mac: Some(request.mac.unwrap_or_else(|| Mac::of(addresses.v4))),
        addresses: own,
        gateways: bridge.gateways(),
        ports: request.ports.to_vec(),
        netns: request.netns.to_owned(),
        dns: Dns::default(),
    };
    state.bridge = Some(bridge);
    state
        .attached
        .insert(request.id.to_owned(), attached.clone());
    Ok(attached)
}

/// Rules, forwarding and the bridge, in this order: nothing is open before it is guarded.
///
/// The ports of `unconnected` are not published yet: a client who is sent where no link is loses its packet, and waits for a second until it
/// sends the next one. Without the rule it is refused at once.
fn put_in_force(
    state: &State,
    route: &mut Socket,
    netfilter: &mut Socket,
    unconnected: Option<&str>,
) -> Result<(Bridge, Link)> {
    let bridge = state
        .bridge
        .clone()
        .ok_or_else(|| Error::failed("the network on record is missing"))?;
    rules(state, &bridge, unconnected).apply(netfilter)?;
    forward::accept(netfilter, &bridge.interface)?;
    bridge.forward()?;
    let link = bridge.set_up(route)?;
    Ok((bridge, link))
}

fn rules<'a>(state: &State, bridge: &'a Bridge, unconnected: Option<&str>) -> Rules<'a> {
    let connected = state.attached.iter();
    let connected = connected.filter(|(id, _)| Some(id.as_str()) != unconnected);
    let published = connected.flat_map(|(_, attached)| {
        let targets: Vec<_> = attached.addresses.iter().map(|own| own.address).collect();
        attached
            .ports
            .iter()
            .map(move |port| (*port, targets.clone()))
    });
    Rules {
        bridge: &bridge.interface,
        subnets: bridge.subnets(),
        published: published.collect(),
    }
}

/// Removes the kernel's objects of an attachment, then its record.
fn remove(locked: &mut Locked, netfilter: &mut Socket, id: &str) -> Result<()> {
    let Some(attached) = locked.state.attached.remove(id) else {
        return Ok(());
    };
    let mut route = Socket::route()?;
    disconnect(&mut route, &attached)?;
    if let Some(bridge) = &mut locked.state.bridge {
        if locked.state.attached.is_empty() {
            bridge.tear_down(&mut route, netfilter)?;
            bridge.changed.clear();
        } else if !attached.ports.is_empty() {
            let bridge = bridge.clone();
            rules(&locked.state, &bridge, None).apply(netfilter)?;
        }
    }
    // A connection that stays is a nuisance that ends by itself.
    for own in &attached.addresses {
        if let Err(refusal) = netfilter.forget_address(own.address) {
            log::warn!("forget the connections of {}: {refusal}", own.address);
        }
    }
    locked.save()
}

/// A flow that stays is a nuisance that ends by itself, so no attachment fails for it.
fn forget_udp(netfilter: &mut Socket, ports: &[Port]) {
    let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    let udp: Vec<_> = udp.map(|port| port.host_port).collect();
    if !udp.is_empty()
        && let Err(refusal) = netfilter.forget_udp(&udp)
    {
        log::warn!("forget the UDP flows to published ports: {refusal}");
    }
}
