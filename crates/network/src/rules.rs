//! The table `inet coracle`, rendered whole from what is attached and replaced in one transaction: the same call sets it up, changes
//! it, and repairs it after a crash or after somebody has flushed the firewall.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::{
    NF_INET_FORWARD, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING, NF_INET_PRE_ROUTING,
    NF_IP_PRI_FILTER, NF_IP_PRI_NAT_DST, NF_IP_PRI_NAT_SRC, NF_IP_PRI_RAW,
};

use crate::cidr::Cidr;
use crate::error::{Context, Result};
use crate::netlink::Socket;
use crate::netlink::message::Message;
use crate::netlink::nft::{Family, Hook, Rule, Table, Type};
use crate::netlink::route::octets;
use crate::ports::Port;

const LOOPBACK: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);

// `enum ip_conntrack_info` as bits of `ct state`, and `IPS_DST_NAT`.
const INVALID: u32 = 1;
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
const DNAT: u32 = 1 << 5;

/// What the rules are about.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) bridge: &'a str,
    /// Of both versions, or of one.
    pub(crate) subnets: Vec<Cidr>,
    /// Published ports, and the addresses of the container that they lead to.
    pub(crate) published: Vec<(Port, Vec<IpAddr>)>,
}

impl Rules<'_> {
    /// Puts the table in force.
    pub(crate) fn apply(&self, socket: &mut Socket) -> Result<()> {
        let name = table_name(self.bridge);
        socket
            .transaction(&self.render(&name))
            .context(|| format!("replace the nftables table inet {name}"))
    }

    /// Adding before deleting makes it right whether or not the table is there.
    fn render(&self, name: &str) -> Vec<Message> {
        let table = inet(name);
        let mut messages = vec![table.add(), table.delete(), table.add()];
        for (name, hook) in CHAINS {
            messages.push(table.add_chain(name, *hook));
        }
        for (number, map) in Map::ALL.iter().enumerate() {
            let (key, data) = map.types();
            messages.push(table.add_map(map.name, 1 + number as u32, &key, &data));
            messages.extend(table.add_elements(map.name, &self.elements(*map)));
        }
        let rules = [
            ("guard", self.guard()),
            ("publish", publish()),
            ("prerouting", vec![Rule::new().local().jump("publish")]),
            ("output", vec![Rule::new().local().jump("publish")]),
            ("postrouting", self.postrouting()),
            ("forward", self.forward()),
        ];
        for (chain, rules) in rules {
            messages.extend(rules.into_iter().map(|rule| table.add_rule(chain, rule)));
        }
        messages
    }

    /// What must not come from outside. `route_localnet` on the bridge would open the machine's 127.0.0.1 to containers
    /// (CVE-2020-8558), and a neighbour could send to containers without a published port (CVE-2025-54410).
    fn guard(&self) -> Vec<Rule> {
        let (network, prefix) = LOOPBACK;
        let foreign = |rule: Rule| rule.iifname(false, "lo");
        let mut rules = vec![
            foreign(Rule::new()).destination(network, prefix).drop(),
            foreign(Rule::new()).source(network, prefix).drop(),
        ];
        rules.extend(self.subnets.iter().map(|subnet| {
            let inside = Rule::new().destination(subnet.address, subnet.prefix);
            foreign(inside.iifname(false, self.bridge)).drop()
        }));
        rules
    }

    /// Whose address has to change so that the answer finds its way back. A remote client keeps its own.
    fn postrouting(&self) -> Vec<Rule> {
        let (network, prefix) = LOOPBACK;
        let from_localhost = Rule::new()
            .oifname(true, self.bridge)
            .source(network, prefix);
        let mut rules = vec![from_localhost.masquerade()];
        for subnet in &self.subnets {
            let inside = || Rule::new().source(subnet.address, subnet.prefix);
            let hairpin = inside().oifname(true, self.bridge);
            rules.push(hairpin.connection(libc::NFT_CT_STATUS, DNAT).masquerade());
            rules.push(inside().oifname(false, self.bridge).masquerade());
        }
        rules
    }

    /// Into the bridge comes what was published, what belongs to a known connection, and what the bridge's own say to each other.
    fn forward(&self) -> Vec<Rule> {
        let from = |equal| Rule::new().iifname(equal, self.bridge);
        let to = |equal| Rule::new().oifname(equal, self.bridge);
        let state = |bits| Rule::new().connection(libc::NFT_CT_STATE, bits);
        vec![
            to(false).iifname(false, self.bridge).accept(),
            state(ESTABLISHED_OR_RELATED).accept(),
            state(INVALID).drop(),
            from(true).accept(),
            to(true).connection(libc::NFT_CT_STATUS, DNAT).accept(),
            to(true).drop(),
        ]
    }

    fn elements(&self, map: Map) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut elements = Vec::new();
        for (port, targets) in &self.published {
            let Some(target) = targets.iter().find(|target| target.is_ipv6() == map.v6) else {
                continue;
            };
            let address = match port.host_ip {
                None => None,
                // 0.0.0.0 and :: stand for every address of their own version.
                Some(ip) if ip.is_ipv6() != map.v6 => continue,
                Some(ip) => Some(ip).filter(|ip| !ip.is_unspecified()),
            };
            if address.is_some() == map.with_address {
                let mut key = vec![port.protocol as u8, 0, 0, 0];
                key.extend(address.map(octets).unwrap_or_default());
                key.extend(port_bytes(port.host_port));
                let mut data = octets(*target);
                data.extend(port_bytes(port.container_port));
                elements.push((key, data));
            }
        }
        elements
    }
}

/// Takes the table of a bridge out of force; one that is not there is as good.
pub(crate) fn remove(socket: &mut Socket, bridge: &str) -> Result<()> {
    let name = table_name(bridge);
    let table = inet(&name);
    socket
        .transaction(&[table.add(), table.delete()])
        .context(|| format!("delete the nftables table inet {name}"))
}

/// The first bridge of a machine has the plain name, which people know. Another one belongs to another state directory.
fn table_name(bridge: &str) -> String {
    match bridge {
        "cor0" => "coracle".to_owned(),
        bridge => format!("coracle_{bridge}"),
    }
}

fn inet(name: &str) -> Table<'_> {
    Table {
        family: Family::Inet,
        name,
    }
}

const CHAINS: &[(&str, Option<Hook>)] = &[
    ("guard", hook("filter", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW)),
    ("publish", None),
    (
        "prerouting",
        hook("nat", NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST),
    ),
    ("output", hook("nat", NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST)),
    (
        "postrouting",
        hook("nat", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC),
    ),
    ("forward", hook("filter", NF_INET_FORWARD, NF_IP_PRI_FILTER)),
];

const fn hook(kind: &'static str, number: i32, priority: i32) -> Option<Hook> {
    Some(Hook {
        kind,
        number,
        priority,
    })
}

/// One of the maps from what a packet is sent to, to where it goes: those with an address come first.
#[derive(Clone, Copy, Debug)]
struct Map {
    name: &'static str,
    v6: bool,
    with_address: bool,
}

impl Map {
    const ALL: [Map; 4] = [
        Map::of("dnat4", false, true),
        Map::of("dnat4_any", false, false),
        Map::of("dnat6", true, true),
        Map::of("dnat6_any", true, false),
    ];

    const fn of(name: &'static str, v6: bool, with_address: bool) -> Self {
        Map {
            name,
            v6,
            with_address,
        }
    }

    fn types(self) -> (Vec<Type>, [Type; 2]) {
        let address = if self.v6 {
            Type::Ipv6Address
        } else {
            Type::Ipv4Address
        };
        let mut key = vec![Type::Protocol];
        key.extend(self.with_address.then_some(address));
        key.push(Type::Port);
        (key, [address, Type::Port])
    }
}

/// The kernel does not route ::1 to a bridge, so what is sent there stays with the listener of the proxy.
fn publish() -> Vec<Rule> {
    let mut rules = vec![
        Rule::new()
            .destination(Ipv6Addr::LOCALHOST.into(), 128)
            .go_back(),
    ];
    rules.extend(Map::ALL.iter().map(|map| {
        let like = match map.v6 {
            false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            true => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Rule::new().dnat_by_map(like, map.with_address, map.name)
    }));
    rules
}

/// A port as a register of four bytes holds it.
fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(ports: &[&str], targets: &[&str]) -> Rules<'static> {
        let ports = ports.iter().flat_map(|text| Port::parse(text).unwrap());
        let targets: Vec<_> = targets.iter().map(|text| text.parse().unwrap()).collect();
        Rules {
            bridge: "cor0",
            subnets: ["10.89.0.0/24", "fd00::/64"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            published: ports.map(|port| (port, targets.clone())).collect(),
        }
    }

    /// What nft(8) 1.0.6 has sent for the same rules, one on each line.
    fn recorded(text: &str) -> Vec<Vec<u8>> {
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let line = |line: &str| line.as_bytes().chunks(2).map(byte).collect();
        text.lines().map(line).collect()
    }

    #[test]
    fn rules_are_what_nft_makes_of_them() {
        let own = |rules: Vec<Rule>| {
            rules
                .iter()
                .map(|rule| rule.bytes().to_vec())
                .collect::<Vec<_>>()
        };
        let rules = rules(&[], &[]);
        assert_eq!(
            own(rules.forward()),
            recorded(include_str!("recorded/forward.hex"))
        );
        let guard = own(rules.guard());
        assert_eq!(guard, recorded(include_str!("recorded/guard.hex")));
    }

    #[test]
    fn ports_stand_in_the_maps_of_their_addresses() {
        let ports = [
            "8080:80",
            "192.0.2.1:53:53/udp",
            "0.0.0.0:81:80",
            "[::]:82:80",
            "[2001:db8::1]:83:80",
        ];
        let host_ports = |rules: &Rules<'_>| {
            Map::ALL.map(|map| {
                let elements = rules.elements(map);
                let port = |(key, _): &(Vec<u8>, Vec<u8>)| {
                    u16::from_be_bytes([key[key.len() - 4], key[key.len() - 3]])
                };
                elements.iter().map(port).collect::<Vec<_>>()
            })
        };
        let both = rules(&ports, &["10.89.0.2", "fd00::2"]);
        assert_eq!(
            host_ports(&both),
            [vec![53], vec![8080, 81], vec![83], vec![8080, 82]]
        );
        // Without IPv6 in the container the proxy serves it.
        let one = rules(&ports, &["10.89.0.2"]);
        assert_eq!(host_ports(&one), [vec![53], vec![8080, 81], vec![], vec![]]);
        let (key, data) = both.elements(Map::ALL[0])[0].clone();
        assert_eq!(key, [17, 0, 0, 0, 192, 0, 2, 1, 0, 53, 0, 0]);
        assert_eq!(data, [10, 89, 0, 2, 0, 53, 0, 0]);
    }

    #[test]
    fn many_elements_take_several_messages() {
        let table = inet("coracle");
        let rules = rules(&["1-1000:1-1000"], &["10.89.0.2"]);
        let messages = table
            .add_elements("dnat4_any", &rules.elements(Map::ALL[1]))
            .count();
        assert_eq!(messages, 4);
    }
}
