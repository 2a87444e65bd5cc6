//! The network of a container: what was asked for, and what of it its monitor holds.

use std::os::fd::BorrowedFd;

use nix::poll::PollFlags;
use runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::directory::Container;

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
    /// NAME:IP of `--add-host`.
    pub(crate) add_host: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) ip: Option<std::net::IpAddr>,
    pub(crate) ports: Vec<String>,
}

/// What the monitor holds of it.
pub(crate) struct Network {
    mode: NetworkMode,
}

impl Network {
    pub(crate) fn of(container: &Container) -> Result<Self> {
        Ok(Network {
            mode: container.record.network.mode.clone(),
        })
    }

    /// Takes the published ports, so that a clash is an error before anything starts.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        match &self.mode {
            NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => Ok(()),
            mode => Err(Error::invalid(format!("--network {} is not there yet", mode.name()))),
        }
    }

    /// Gives a container whose process is there, and has not started, its network.
    pub(crate) fn attach(&mut self, _pid: i32) -> Result<()> {
        Ok(())
    }

    /// Takes it away again.
    pub(crate) fn detach(&mut self) {}

    /// Gives the ports back.
    pub(crate) fn release(&mut self) {}

    /// What to wait for.
    pub(crate) fn watched(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        Vec::new()
    }

    /// One of them is ready.
    pub(crate) fn handle(&mut self, _at: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for text in ["bridge", "host", "none", "container:web", "cni:net1"] {
            assert_eq!(NetworkMode::parse(text).unwrap().name(), text);
        }
        for bad in ["", "container:", "cni:../x", "overlay", "host:1", "container"] {
            assert!(NetworkMode::parse(bad).is_err(), "{bad}");
        }
    }
}
