//! The network of a container: what was asked for, and what of it its monitor holds.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use network::{Attach, Attached, Hosts, Networks, Port, Proxy, Reservation};
use runtime::{Context, Error, Kind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::directory::{Container, Containers};
use super::{of_network, userns};

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

/// The files by which a container knows names, in its directory and in its /etc.
const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// The link to the network namespace that a container joins, in its directory: followed at each start.
pub(crate) const NAMESPACE: &str = "netns";

/// What the monitor holds of a container's network.
pub(crate) struct Network {
    id: String,
    options: NetworkOptions,
    /// The container's own directory.
    path: PathBuf,
    store: Containers,
    reservation: Option<Reservation>,
    proxy: Option<Proxy>,
    /// What pasta was shown: it ends when they go.
    namespaces: Vec<userns::Namespace>,
}

impl Network {
    pub(crate) fn of(container: &Container) -> Self {
        Network {
            id: container.record.id.clone(),
            options: container.record.network.clone(),
            path: container.path.clone(),
            store: Containers::around(container),
            reservation: None,
            proxy: None,
            namespaces: Vec::new(),
        }
    }

    fn is_attached(&self) -> bool {
        matches!(self.options.mode, NetworkMode::Bridge | NetworkMode::Cni(_))
    }

    fn directory(&self) -> PathBuf {
        self.store.store().join("network")
    }

    fn open(&self) -> Result<Networks> {
        Networks::open(&self.directory()).map_err(of_network)
    }

    /// Takes the published ports, so that a clash is an error before anything starts; finds the network of another container.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        if let NetworkMode::Container(other) = &self.options.mode {
            return self.find_namespace(&self.store.get(other)?);
        }
        if self.is_attached() && self.reservation.is_none() {
            let reservation = self.open()?.reserve(&self.options.ports);
            self.reservation = Some(reservation.map_err(of_network)?);
        }
        Ok(())
    }

    fn find_namespace(&self, other: &Container) -> Result<()> {
        let record = &other.record;
        let pid = runtime::state(&record.settings(), &record.id).map_or(0, |state| state.pid);
        if pid == 0 {
            let text = format!(
                "cannot join the network of container {}: it is not running",
                record.name
            );
            return Err(Error::new(Kind::WrongStatus, text));
        }
        let link = self.path.join(NAMESPACE);
        let _ = fs::remove_file(&link);
        symlink(format!("/proc/{pid}/ns/net"), link).context("link to the network namespace")
    }

    /// Gives a container whose process is there, and has not started, its network.
    pub(crate) fn attach(&mut self, pid: i32) -> Result<()> {
        let Some(reservation) = &self.reservation else {
            return Ok(());
        };
        let ports = reservation.ports().to_vec();
        let (ip, ip6) = match self.options.ip {
            Some(IpAddr::V4(ip)) => (Some(ip), None),
            Some(IpAddr::V6(ip6)) => (None, Some(ip6)),
            None => (None, None),
        };
        let request = Attach {
            id: &self.id,
            netns: &PathBuf::from(format!("/proc/{pid}/ns/net")),
            ports: &ports,
            ip,
            ip6,
            mac: None,
        };
        let networks = self.open()?;
        let attached = match &self.options.mode {
            NetworkMode::Cni(name) => networks.attach_cni(name, &request),
            _ if runtime::is_machines_root() => networks.attach(&request),
            _ => {
                // pasta binds the ports itself.
                self.reservation = None;
                let namespace = |name: &str| userns::Namespace::of(pid, name, &self.path);
                let (net, user) = (namespace("net")?, namespace("user")?);
                let request = Attach {
                    netns: net.path(),
                    ..request
                };
                let attached = networks.attach_pasta(&request, Some(user.path()));
                self.namespaces = vec![net, user];
                attached
            }
        };
        let attached = attached.map_err(of_network)?;
        self.serve(&attached)?;
        write_files(&self.path, &self.options, Some(&attached))
    }

    /// Serves what the kernel cannot lead to the container.
    fn serve(&mut self, attached: &Attached) -> Result<()> {
        if let Some(reservation) = &self.reservation {
            self.proxy = Proxy::new(reservation, attached).map_err(of_network)?;
        }
        Ok(())
    }

    /// Takes over what another monitor has left.
    pub(crate) fn adopt(&mut self) -> Result<()> {
        if self.is_attached()
            && let Some((attached, reservation)) =
                self.open()?.adopt(&self.id).map_err(of_network)?
        {
            self.reservation = Some(reservation);
            self.serve(&attached)?;
        }
        Ok(())
    }

    /// Takes it away again.
    pub(crate) fn detach(&mut self) -> Result<()> {
        self.proxy = None;
        if self.is_attached() && self.directory().exists() {
            self.open()?.detach(&self.id).map_err(of_network)?;
        }
        self.namespaces.clear();
        Ok(())
    }

    /// Gives the ports back, and what else is held.
    pub(crate) fn release(&mut self) {
        self.reservation = None;
        self.namespaces.clear();
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
    if !network.directory().exists() {
        return Ok(None);
    }
    let found = network.open()?.list().map_err(of_network)?;
    let id = &container.record.id;
    Ok(found
        .into_iter()
        .find_map(|mut network| network.attached.remove(id)))
}

/// Makes the files of a new container, and gives the entries of `mounts` for them. One that shares another's network has its files too.
pub(crate) fn files(container: &Container, store: &Containers) -> Result<Vec<Value>> {
    let options = &container.record.network;
    let place = match &options.mode {
        NetworkMode::Container(other) => store.get(other)?.path,
        _ => {
            write_files(&container.path, options, None)?;
            container.path.clone()
        }
    };
    let entry = |name: &&str| {
        json!({
            "destination": format!("/etc/{name}"), "type": "bind", "source": place.join(name),
            "options": ["rbind", "rprivate"],
        })
    };
    Ok(FILES.iter().map(entry).collect())
}

/// In place, since they may be mounted already.
fn write_files(path: &Path, options: &NetworkOptions, attached: Option<&Attached>) -> Result<()> {
    let is_host = options.mode == NetworkMode::Host;
    let addresses: Vec<IpAddr> = attached
        .iter()
        .flat_map(|attached| &attached.addresses)
        .map(|own| own.address)
        .collect();
    let gateways = attached
        .map(|attached| attached.gateways.as_slice())
        .unwrap_or_default();
    let hosts = match is_host {
        // The machine's own names hold.
        true => {
            let own = fs::read_to_string("/etc/hosts").unwrap_or_default();
            let added = options
                .add_host
                .iter()
                .filter_map(|entry| entry.split_once(':'));
            added.fold(own, |text, (name, address)| {
                format!("{text}{address}\t{name}\n")
            })
        }
        false => ::network::hosts(&Hosts {
            names: &[&options.hostname],
            addresses: &addresses,
            add: &options.add_host,
            gateway: gateways.first().copied(),
        })
        .map_err(of_network)?,
    };
    let mut dns = attached
        .map(|attached| attached.dns.clone())
        .unwrap_or_default();
    if !options.dns.is_empty() {
        dns.nameservers.clone_from(&options.dns);
    }
    let resolv_conf = ::network::resolv_conf(&dns, !is_host).map_err(of_network)?;
    let hostname = format!("{}\n", options.hostname);
    for (name, text) in FILES.iter().zip([hostname, hosts, resolv_conf]) {
        fs::write(path.join(name), text).with_context(|| format!("write {name}"))?;
    }
    Ok(())
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
