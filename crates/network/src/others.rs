//! Networks that other programs make: CNI plugins, and pasta for ordinary users. They are on record like our own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::names::Dns;
use crate::netlink::inside;
use crate::networks::open_netns;
use crate::state::{self, By, Locked, Other, check_id};
use crate::{Attach, Attached, Networks, bridge, cni, pasta};

/// How an interface is called inside.
const INTERFACE: &str = "eth0";
/// The name of the network that pasta makes.
const PASTA: &str = "pasta";

impl Networks {
    /// Attaches a network namespace to the CNI network with this name. The plugins publish the ports, as far as they can. On failure nothing
    /// is left.
    pub fn attach_cni(&self, name: &str, request: &Attach<'_>) -> Result<Attached> {
        let mut network = cni::Network::find(name)?;
        let full_name = format!("cni:{name}");
        let netns = open_netns(request.netns)?;
        let mut other = Other {
            attached: blank(&full_name, request),
            by: By::Cni(network.clone()),
        };
        self.begin(request, &other)?;
        let ips: Vec<_> = request
            .ip
            .map(IpAddr::from)
            .into_iter()
            .chain(request.ip6.map(IpAddr::from))
            .collect();
        let container = cni::Container {
            ips: &ips,
            mac: request.mac,
            ..container(request.id, &other.attached)
        };
        let made = inside(&netns, bridge::loopback_up).and_then(|()| network.add(&container));
        let made = self.finish(request.id, &other, made)?;
        other.by = By::Cni(network);
        other.attached = Attached {
            mac: made.mac,
            addresses: made.addresses,
            gateways: made.gateways,
            dns: made.dns,
            ..other.attached
        };
        let attached = other.attached.clone();
        let mut locked = Locked::open(&self.directory)?;
        locked.state.others.insert(request.id.to_owned(), other);
        locked.save()?;
        Ok(attached)
    }

    /// Lets the plugins of an attachment look whether everything is as they have left it. One that is not by CNI is in order.
    pub fn check_cni(&self, id: &str) -> Result<()> {
        match state::read(&self.directory)?.others.get(id) {
            Some(Other {
                attached,
                by: By::Cni(network),
            }) => network.check(&container(id, attached)),
            _ => Ok(()),
        }
    }

    /// Connects a network namespace to the machine's network by pasta, without privileges. `userns` is the user namespace that owns it, where
    /// that is not the caller's own.
    ///
    /// Pasta binds the ports itself, so a reservation has to be dropped just before.
    pub fn attach_pasta(&self, request: &Attach<'_>, userns: Option<&Path>) -> Result<Attached> {
        let other = Other {
            attached: blank(PASTA, request),
            by: By::Pasta,
        };
        self.begin(request, &other)?;
        let namespaces = pasta::Namespaces {
            netns: request.netns,
            userns,
            interface: INTERFACE,
        };
        let started = pasta::start(namespaces, request.ports, &self.pid_file(request.id));
        self.finish(request.id, &other, started)?;
        Ok(other.attached)
    }

    /// Writes an attachment down before it is made. The lock is free again when a program is executed: it may take its time, and others are
    /// not to wait for that.
    fn begin(&self, request: &Attach<'_>, other: &Other) -> Result<()> {
        check_id(request.id)?;
        let mut locked = Locked::open(&self.directory)?;
        locked.state.check_free(request.id, request.ports)?;
        locked
            .state
            .others
            .insert(request.id.to_owned(), other.clone());
        locked.save()
    }

    /// Undoes what has failed.
    fn finish<T>(&self, id: &str, other: &Other, made: Result<T>) -> Result<T> {
        if made.is_err()
            && let Err(left) = self.undo(id, other)
        {
            log::warn!("undo the attachment of {id}: {left}");
            self.cross_out(id)?;
        }
        made.context(|| format!("attach {id} to the network {}", other.attached.network))
    }

    /// Undoes an attachment, then crosses it out.
    pub(crate) fn undo(&self, id: &str, other: &Other) -> Result<()> {
        match &other.by {
            By::Cni(network) => network.delete(&container(id, &other.attached))?,
            By::Pasta => pasta::stop(&self.pid_file(id))?,
        }
        self.cross_out(id)
    }

    /// What a restart of the machine has left of an attachment keeps nobody from another one.
    pub(crate) fn undo_lost(&self, id: &str, other: &Other) -> Result<()> {
        if let By::Cni(network) = &other.by
            && let Err(left) = network.delete(&container(id, &other.attached))
        {
            log::warn!("clean up after the restart of the machine: {left}");
        }
        let mut locked = Locked::open(&self.directory)?;
        locked.state.lost.remove(id);
        locked.save()
    }

    fn cross_out(&self, id: &str) -> Result<()> {
        let mut locked = Locked::open(&self.directory)?;
        locked.state.others.remove(id);
        locked.save()
    }

    fn pid_file(&self, id: &str) -> PathBuf {
        self.directory.join(format!("pasta-{id}.pid"))
    }
}

fn container<'a>(id: &'a str, attached: &'a Attached) -> cni::Container<'a> {
    // DEL is for containers that are gone as well: their namespace is then no path.
    let netns = if attached.netns.exists() {
        &attached.netns
    } else {
        Path::new("")
    };
    cni::Container {
        id,
        netns,
        interface: &attached.interface,
        ports: &attached.ports,
        ips: &[],
        mac: None,
    }
}

/// What is known before anything is made.
fn blank(network: &str, request: &Attach<'_>) -> Attached {
    Attached {
        network: network.to_owned(),
        interface: INTERFACE.to_owned(),
        host_interface: String::new(),
        bridge: String::new(),
        mac: None,
        addresses: Vec::new(),
        gateways: Vec::new(),
        ports: request.ports.to_vec(),
        netns: request.netns.to_owned(),
        dns: Dns::default(),
    }
}
