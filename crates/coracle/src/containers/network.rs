//! The network of a container: what was asked for, and what of it its monitor holds.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use network::{Attach, Attached, Networks, Port, Proxy, Reservation};
use runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::directory::{Container, Containers};

/// `--network`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NetworkMode {
    Bridge,
    Host,
    None,
    /// The network of another container, by its id.
    Container(String),
    /// A CNI configuration, by its name.
    Cni(String),
}

impl NetworkMode {
    /// The error says what there is.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        let named = |name: &str| !name.is_empty() && !name.contains('/');
        match text.split_once(':') {
            Some(("container", name)) if named(name) => Ok(NetworkMode::Container(name.into())),
            Some(("cni", name)) if named(name) => Ok(NetworkMode::Cni(name.into())),
            None if text == "bridge" || text == "default" => Ok(NetworkMode::Bridge),
            None if text == "host" => Ok(NetworkMode::Host),
            None if text == "none" => Ok(NetworkMode::None),
            _ => Err("expected bridge, host, none, container:ID or cni:NAME".into()),
        }
    }

    /// As it is written.
    pub(crate) fn name(&self) -> String {
        match self {
            NetworkMode::Bridge => "bridge".into(),
            NetworkMode::Host => "host".into(),
            NetworkMode::None => "none".into(),
            NetworkMode::Container(id) => format!("container:{id}"),
            NetworkMode::Cni(name) => format!("cni:{name}"),
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NetworkOptions {
    pub(crate) mode: NetworkMode,
    pub(crate) hostname: String,
    /// `NAME:ADDRESS` of `--add-host`.
    pub(crate) add_host: Vec<String>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) ports: Vec<Port>,
}

/// What the monitor holds of it.
pub(crate) struct Network {
    id: String,
    options: NetworkOptions,
    /// STORE/network.
    directory: PathBuf,
    reservation: Option<Reservation>,
    proxy: Option<Proxy>,
}

impl Network {
    pub(crate) fn of(container: &Container) -> Self {
        let store = Containers::around(container);
        Network {
            id: container.record.id.clone(),
            options: container.record.network.clone(),
            directory: store.store().join("network"),
            reservation: None,
            proxy: None,
        }
    }

    fn open(&self) -> Result<Networks> {
        Networks::open(&self.directory).map_err(super::of_network)
    }

    /// Takes the published ports, so that a clash is an error before anything starts.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        match &self.options.mode {
            NetworkMode::Bridge if self.reservation.is_none() => {
                let reservation = self.open()?.reserve(&self.options.ports);
                self.reservation = Some(reservation.map_err(super::of_network)?);
                Ok(())
            }
            NetworkMode::Cni(_) => Err(Error::invalid("--network cni:NAME is not there yet")),
            _ => Ok(()),
        }
    }

    /// Gives a container whose process is there, and has not started, its network.
    pub(crate) fn attach(&mut self, pid: i32) -> Result<()> {
        let Some(reservation) = &self.reservation else {
            return Ok(());
        };
        let (ip, ip6) = match self.options.ip {
            Some(IpAddr::V4(ip)) => (Some(ip), None),
            Some(IpAddr::V6(ip6)) => (None, Some(ip6)),
            None => (None, None),
        };
        let request = Attach {
            id: &self.id,
            netns: &PathBuf::from(format!("/proc/{pid}/ns/net")),
            ports: reservation.ports(),
            ip,
            ip6,
            mac: None,
        };
        let attached = self.open()?.attach(&request).map_err(super::of_network)?;
        self.proxy = Proxy::new(reservation, &attached).map_err(super::of_network)?;
        Ok(())
    }

    /// Takes it away again.
    pub(crate) fn detach(&mut self) {
        self.proxy = None;
        if matches!(self.options.mode, NetworkMode::Bridge)
            && self.directory.exists()
            && let Err(error) = self
                .open()
                .and_then(|networks| networks.detach(&self.id).map_err(super::of_network))
        {
            log::warn!("{error}");
        }
    }

    /// Gives the ports back.
    pub(crate) fn release(&mut self) {
        self.reservation = None;
    }

    /// What to wait for.
    pub(crate) fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.proxy.as_ref().map(AsFd::as_fd)
    }

    /// It is ready.
    pub(crate) fn handle(&mut self) {
        if let Some(proxy) = &mut self.proxy
            && let Err(error) = proxy.handle()
        {
            log::warn!("{error}");
        }
    }
}

/// How a container is attached, if it is.
pub(crate) fn attachment(container: &Container) -> Result<Option<Attached>> {
    let network = Network::of(container);
    if !network.directory.exists() {
        return Ok(None);
    }
    let found = network.open()?.list().map_err(super::of_network)?;
    let id = &container.record.id;
    Ok(found
        .into_iter()
        .find_map(|mut network| network.attached.remove(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for text in ["bridge", "host", "none", "container:web", "cni:net1"] {
            assert_eq!(NetworkMode::parse(text).unwrap().name(), text);
        }
        for bad in [
            "",
            "container:",
            "cni:../x",
            "overlay",
            "host:1",
            "container",
        ] {
            assert!(NetworkMode::parse(bad).is_err(), "{bad}");
        }
    }
}
