//! What this crate says to the kernel by netlink(7): links, addresses, routes, nftables, conntrack.

pub(crate) mod conntrack;
pub(crate) mod nft;
pub(crate) mod route;

use std::os::fd::AsFd;

use nix::sys::socket::SockProtocol;

pub(crate) use ::netlink::{Refusal, message};
use message::Message;

use crate::error::{Cause, Context, Kind, Result};

impl Cause for Refusal {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        (Kind::Failed, self.to_string().into())
    }
}

/// An open socket of one netlink family, in the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket(::netlink::Socket);

impl Socket {
    /// Links, addresses, routes of this thread's namespace.
    pub(crate) fn route() -> Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// nftables and conntrack of this thread's namespace.
    pub(crate) fn netfilter() -> Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> Result<Self> {
        let opened = ::netlink::Socket::open(protocol);
        let socket = opened.context(|| format!("open a netlink socket ({protocol:?})"))?;
        Ok(Socket(socket))
    }

    /// Messages of nftables, of which the kernel takes all or none.
    pub(crate) fn transaction(&mut self, messages: &[Message]) -> Result<(), Refusal> {
        self.0.transaction(messages)
    }
}

/// Does something in another network namespace, as [`::netlink::inside`].
pub(crate) fn inside<T: Send>(
    netns: impl AsFd,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    ::netlink::inside(netns, work).context(|| "enter the network namespace")?
}
