//! Which networks and addresses are free.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cidr::Cidr;
use crate::error::{Context, Error, Result};
use crate::state::{Bridge, State};

/// The number of the bridge's own address in its networks.
pub(crate) const GATEWAY: u32 = 1;
/// The numbers that containers get: without network, gateway and broadcast.
const FIRST: u32 = 2;
const LAST: u32 = 254;

/// The first of our IPv4 networks that has nothing in common with the machine's routes.
pub(crate) fn free_subnet(routes: &[Cidr]) -> Result<Cidr> {
    (0..=255)
        .map(|third| Cidr::new(Ipv4Addr::new(10, 89, third, 0), 24))
        .find(|subnet| is_free(*subnet, routes))
        .ok_or_else(|| {
            Error::in_use("every network below 10.89.0.0/16 overlaps with a route of this machine")
        })
}

/// Whether a network has nothing in common with the machine's routes.
pub(crate) fn is_free(subnet: Cidr, routes: &[Cidr]) -> bool {
    !routes.iter().any(|route| route.overlaps(subnet))
}

/// A network of unique local addresses, random as RFC 4193 wants it.
pub(crate) fn unique_local_subnet() -> Result<Cidr> {
    let mut id = [0; 5];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut id))
        .context(|| "read /dev/urandom")?;
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&id);
    Ok(Cidr::new(Ipv6Addr::from(octets), 64))
}

/// The addresses of one attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The number of the IPv4 address in its network.
    pub(crate) number: u32,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Option<Ipv6Addr>,
}

/// Finds addresses on a bridge: the wanted ones, or the first that are free after the last that were given.
pub(crate) fn addresses(
    state: &State,
    bridge: &Bridge,
    ip: Option<Ipv4Addr>,
    ip6: Option<Ipv6Addr>,
) -> Result<Addresses> {
    let number = match ip {
        Some(ip) => fixed(state, bridge.subnet, ip.into(), LAST.into())? as u32,
        None => next(state, bridge)?,
    };
    let v6 = match (bridge.subnet6, ip6) {
        (None, None) => None,
        (None, Some(ip6)) => {
            let message =
                format!("invalid address {ip6}: the network has no IPv6, as this machine has none");
            return Err(Error::invalid(message));
        }
        (Some(subnet), Some(ip6)) => {
            fixed(state, subnet, ip6.into(), u64::MAX)?;
            Some(ip6)
        }
        // The same number, or one beyond those of IPv4 when somebody has asked for it.
        (Some(subnet), None) => (number..)
            .step_by(1 << 8)
            .map(|number| subnet.host(number))
            .find(|address| owner(state, *address).is_none())
            .and_then(v6),
    };
    let v4 = match bridge.subnet.host(number) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => return Err(Error::failed("the IPv4 network on record is none")),
    };
    Ok(Addresses { number, v4, v6 })
}

/// The number of an address that was asked for.
fn fixed(state: &State, subnet: Cidr, address: IpAddr, last: u64) -> Result<u64> {
    if !subnet.contains(address) {
        let message = format!("invalid address {address}: the network is {subnet}");
        return Err(Error::invalid(message));
    }
    let number = match address {
        IpAddr::V4(address) => u64::from(u32::from(address) & 0xff),
        IpAddr::V6(address) => u128::from(address) as u64,
    };
    if !(u64::from(FIRST)..=last).contains(&number) {
        let message = format!(
            "invalid address {address}: network, gateway and broadcast of {subnet} are taken"
        );
        return Err(Error::invalid(message));
    }
    match owner(state, address) {
        Some(id) => Err(Error::in_use(format!(
            "address {address} belongs to {id} already"
        ))),
        None => Ok(number),
    }
}

fn next(state: &State, bridge: &Bridge) -> Result<u32> {
    let after = (bridge.last + 1..=LAST).chain(FIRST..=bridge.last.min(LAST));
    after
        .filter(|number| *number >= FIRST)
        .find(|number| owner(state, bridge.subnet.host(*number)).is_none())
        .ok_or_else(|| Error::in_use(format!("every address of {} is taken", bridge.subnet)))
}

/// The id of the attachment that has an address.
fn owner(state: &State, address: IpAddr) -> Option<&str> {
    let has = |id| {
        state
            .attached
            .get(id)
            .is_some_and(|attached: &crate::Attached| {
                attached.addresses.iter().any(|own| own.address == address)
            })
    };
    state
        .attached
        .keys()
        .map(String::as_str)
        .find(|id| has(*id))
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attached;
    use crate::names::Dns;

    fn bridge() -> Bridge {
        Bridge {
            interface: "cor0".into(),
            subnet: "10.89.0.0/24".parse().unwrap(),
            subnet6: Some("fd12::/64".parse().unwrap()),
            last: GATEWAY,
            changed: Vec::new(),
        }
    }

    /// Takes the addresses as an attachment does.
    fn take(
        state: &mut State,
        bridge: &mut Bridge,
        ip: Option<&str>,
        ip6: Option<&str>,
    ) -> Result<String> {
        let ip = ip.map(|ip| ip.parse().unwrap());
        let ip6 = ip6.map(|ip| ip.parse().unwrap());
        let found = addresses(state, bridge, ip, ip6)?;
        bridge.last = found.number;
        let v6 = found.v6.unwrap();
        let attached = Attached {
            network: String::new(),
            interface: String::new(),
            host_interface: String::new(),
            bridge: String::new(),
            mac: None,
            addresses: vec![Cidr::new(found.v4, 24), Cidr::new(v6, 64)],
            gateways: Vec::new(),
            ports: Vec::new(),
            netns: "/".into(),
            dns: Dns::default(),
        };
        state
            .attached
            .insert(format!("c{}", state.attached.len()), attached);
        Ok(format!("{} {v6}", found.v4))
    }

    #[test]
    fn the_first_that_is_free_after_the_last() {
        let (mut state, mut bridge) = (State::default(), bridge());
        assert_eq!(
            take(&mut state, &mut bridge, None, None).unwrap(),
            "10.89.0.2 fd12::2"
        );
        assert_eq!(
            take(&mut state, &mut bridge, Some("10.89.0.9"), None).unwrap(),
            "10.89.0.9 fd12::9"
        );
        assert_eq!(
            take(&mut state, &mut bridge, None, Some("fd12::b")).unwrap(),
            "10.89.0.10 fd12::b"
        );
        assert_eq!(
            take(&mut state, &mut bridge, None, None).unwrap(),
            "10.89.0.11 fd12::10b"
        );
        for _ in 0..249 {
            take(&mut state, &mut bridge, None, None).unwrap();
        }
        let error = take(&mut state, &mut bridge, None, None)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "every address of 10.89.0.0/24 is taken");
        state.attached.remove("c0");
        assert_eq!(
            take(&mut state, &mut bridge, None, None).unwrap(),
            "10.89.0.2 fd12::2"
        );
    }

    #[test]
    fn what_is_asked_for_has_to_be_free_and_of_the_network() {
        let (mut state, mut bridge) = (State::default(), bridge());
        take(&mut state, &mut bridge, Some("10.89.0.9"), Some("fd12::77")).unwrap();
        for ip in [
            "10.89.0.9",
            "10.89.0.0",
            "10.89.0.1",
            "10.89.0.255",
            "10.89.1.9",
        ] {
            assert!(
                take(&mut state, &mut bridge, Some(ip), None).is_err(),
                "{ip}"
            );
        }
        for ip in ["fd12::77", "fd12::", "fd12::1", "fd13::5"] {
            assert!(
                take(&mut state, &mut bridge, None, Some(ip)).is_err(),
                "{ip}"
            );
        }
        bridge.subnet6 = None;
        let error = addresses(&state, &bridge, None, Some("fd12::5".parse().unwrap())).unwrap_err();
        assert!(
            error.to_string().contains("this machine has none"),
            "{error}"
        );
    }

    #[test]
    fn a_network_that_nobody_else_has() {
        let routes =
            ["10.89.0.0/25", "10.89.1.0/24", "0.0.0.0/1"].map(|text| text.parse().unwrap());
        assert_eq!(
            free_subnet(&routes[..2]).unwrap().to_string(),
            "10.89.2.0/24"
        );
        assert!(free_subnet(&routes).is_err());
        let ula = unique_local_subnet().unwrap();
        assert!("fd00::/8".parse::<Cidr>().unwrap().contains(ula.address));
        assert_ne!(ula, unique_local_subnet().unwrap());
    }
}
