//! A container's new network namespace, made while the runtime does something else: that takes the kernel longer than all the other kinds
//! together, and then somebody has to bring its loopback device up. The container's process waits for it when it needs it.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use oci_spec::runtime::Spec;

use crate::namespaces::Namespaces;
use crate::{Context, Result, affinity, config, sys, terminal};

/// A namespace that is being made.
pub(crate) struct NewNetwork {
    /// Where it arrives. The other end is the thread's alone.
    socket: OwnedFd,
}

impl NewNetwork {
    /// Begins to make it, where a thread of this process may and can at once: for a namespace of the runtime's own user namespace, and nothing that
    /// is to be moved there before its process lives.
    pub(crate) fn begin(spec: &Spec) -> Option<Self> {
        let linux = config::linux(spec);
        // What is wrong with them is told by the plan.
        let namespaces = Namespaces::of(&linux).ok()?;
        let is_wanted = namespaces.is_new(libc::CLONE_NEWNET)
            && !namespaces.is_private(libc::CLONE_NEWUSER)
            && linux
                .net_devices()
                .as_ref()
                .is_none_or(|all| all.is_empty());
        if !is_wanted || !sys::credentials::started_by_root() || affinity::cpus() < 2 {
            return None;
        }
        let (socket, others) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .ok()?;
        sys::network::make_beside(&others).ok()?;
        Some(NewNetwork { socket })
    }

    /// In the container's process: goes there as soon as it is made, or makes another one.
    fn enter(&self) -> Result<()> {
        match terminal::receive_fd(self.socket.as_fd()) {
            Ok(Some(made)) => {
                sys::process::setns(made.as_fd(), libc::CLONE_NEWNET)
                    .context("linux.namespaces: enter the network namespace")?;
                sys::process::leave(made);
            }
            Ok(None) | Err(_) => {
                sys::process::unshare(libc::CLONE_NEWNET)
                    .context("linux.namespaces: make a network namespace")?;
                raise()?;
            }
        }
        Ok(())
    }
}

/// In the container's process: enters the one that is being made, if it has not yet.
pub(crate) fn enter(network: &mut Option<&NewNetwork>) -> Result<()> {
    network.take().map_or(Ok(()), NewNetwork::enter)
}

/// Brings the loopback device of a new namespace up.
pub(crate) fn raise() -> Result<()> {
    let socket = sys::network::loopback_up().context("bring the loopback device up")?;
    sys::process::leave(socket);
    Ok(())
}
