//! An address together with the length of its network's prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A network, or an address in one; as text `10.89.0.2/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// How many bits of it are the network's.
    pub prefix: u8,
}

impl Cidr {
    /// A network or an address in one.
    pub fn new(address: impl Into<IpAddr>, prefix: u8) -> Self {
        let address = address.into();
        Cidr { address, prefix }
    }

    /// Whether an address is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && bits(self.address, self.prefix) == bits(address, self.prefix)
    }

    /// Whether two networks have addresses in common: one of them holds the other.
    pub fn overlaps(&self, other: Cidr) -> bool {
        let wider = if self.prefix < other.prefix {
            *self
        } else {
            other
        };
        wider.contains(self.address) && wider.contains(other.address)
    }

    /// The address with this number in the network.
    pub(crate) fn host(&self, number: u32) -> IpAddr {
        match self.address {
            IpAddr::V4(network) => Ipv4Addr::from(u32::from(network) | number).into(),
            IpAddr::V6(network) => Ipv6Addr::from(u128::from(network) | u128::from(number)).into(),
        }
    }
}

/// The first bits of an address.
fn bits(address: IpAddr, count: u8) -> u128 {
    let (value, length) = match address {
        IpAddr::V4(address) => (u32::from(address).into(), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let rest = u32::from(length - count.min(length));
    value.checked_shr(rest).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl TryFrom<String> for Cidr {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let cidr = Cidr::new(address.parse::<IpAddr>().ok()?, prefix.parse().ok()?);
            let longest = if cidr.address.is_ipv4() { 32 } else { 128 };
            (cidr.prefix <= longest).then_some(cidr)
        };
        parse().ok_or_else(|| {
            Error::invalid(format!(
                "invalid network {text:?}: ADDRESS/PREFIX is wanted"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        for (one, other, overlap) in [
            ("10.89.0.0/24", "10.89.0.0/24", true),
            ("10.89.0.0/24", "10.0.0.0/8", true),
            ("10.89.0.0/24", "10.89.0.7/32", true),
            ("10.89.0.0/24", "10.89.1.0/24", false),
            ("10.89.0.0/24", "0.0.0.0/0", true),
            ("fd00::/64", "fd00:0:0:1::/64", false),
            ("fd00::/64", "fd00::/8", true),
            ("::/0", "0.0.0.0/0", false),
        ] {
            assert_eq!(cidr(one).overlaps(cidr(other)), overlap, "{one} {other}");
            assert_eq!(cidr(other).overlaps(cidr(one)), overlap, "{other} {one}");
        }
    }

    #[test]
    fn addresses_are_counted_from_the_network() {
        assert_eq!(cidr("10.89.3.0/24").host(17).to_string(), "10.89.3.17");
        assert_eq!(cidr("fd12::/64").host(17).to_string(), "fd12::11");
    }

    #[test]
    fn what_is_no_network() {
        for text in [
            "",
            "10.89.0.0",
            "10.89.0.0/33",
            "fd00::/129",
            "10.89.0/24",
            "10.89.0.0/-1",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
