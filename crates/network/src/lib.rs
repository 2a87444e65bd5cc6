//! Networks of containers on one machine: bridge, veth, addresses, nftables rules, published ports. Knows the path of a network
//! namespace, never a container.
//!
//! [`Networks`] attaches and detaches; [`Port`] and [`Reservation`] are what `-p` means before anything starts.

#![deny(unsafe_code)]

mod bridge;
mod cidr;
mod cni;
mod error;
mod execute;
mod forward;
mod ipam;
mod legacy;
mod mac;
mod names;
mod netlink;
mod networks;
mod others;
mod pasta;
mod ports;
mod proxy;
mod reserve;
mod rules;
mod state;
mod sys;
mod sysctl;

pub use cidr::Cidr;
pub use error::{Error, Kind, Result};
pub use mac::Mac;
pub use names::{Dns, Hosts, hostname, hosts, resolv_conf};
pub use networks::{Attach, Attached, DEFAULT, Network, Networks, loopback_up};
pub use ports::{Port, Protocol};
pub use proxy::Proxy;
pub use reserve::Reservation;
