//! `linux.netDevices`: network devices of the runtime's namespace that move into the container's (runtime-spec config-linux.md, "Network
//! Devices"). They come up there with their permanent global addresses, and stay when the container goes: the kernel takes care of them.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink::message::{Attributes, Message, u32_at};
use netlink::{Refusal, Socket};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use oci_spec::runtime::Linux;

use crate::error::IntoCause;
use crate::namespaces::Namespaces;
use crate::{Context, Error, Kind, Result};

/// The size of `struct ifinfomsg` and `struct ifaddrmsg`.
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
/// The flags of an address that go with it.
const KEPT_FLAGS: u32 = libc::IFA_F_NODAD | libc::IFA_F_NOPREFIXROUTE;

/// A device and what it is to be called; `%d` stands for the first free number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NetDevice {
    host_name: String,
    name: String,
}

/// Checks the section. In the order of their names, so that numbers are given out in it.
pub(crate) fn planned(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<NetDevice>> {
    let configured = linux.net_devices().iter().flatten();
    let mut devices: Vec<_> = configured
        .map(|(host_name, device)| NetDevice {
            host_name: host_name.clone(),
            name: device
                .name()
                .clone()
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| host_name.clone()),
        })
        .collect();
    devices.sort_by(|one, other| one.host_name.cmp(&other.host_name));
    let invalid =
        |name: &str, text: String| Error::invalid(format!("linux.netDevices.{name}: {text}"));
    if let (Some(device), false) = (devices.first(), namespaces.is_private(libc::CLONE_NEWNET)) {
        let text = "unable to move network devices without a private NET namespace";
        return Err(invalid(&device.host_name, text.into()));
    }
    for (index, NetDevice { host_name, name }) in devices.iter().enumerate() {
        for (wrong, is_valid) in [(host_name, is_valid(host_name)), (name, is_pattern(name))] {
            if !is_valid {
                return Err(invalid(
                    host_name,
                    format!("invalid network device name {wrong:?}"),
                ));
            }
        }
        let same = |other: &NetDevice| other.name == *name && !name.contains('%');
        if devices[..index].iter().any(same) {
            return Err(invalid(
                host_name,
                format!("another device is called {name:?} too"),
            ));
        }
    }
    Ok(devices)
}

/// The kernel's rule for names.
fn is_valid(name: &str) -> bool {
    let forbidden =
        |c: char| c == '/' || c == ':' || c == '%' || c.is_ascii_whitespace() || c == '\0';
    !matches!(name, "" | "." | "..") && name.len() < libc::IFNAMSIZ && !name.contains(forbidden)
}

/// A name, or one with one `%d`.
fn is_pattern(name: &str) -> bool {
    is_valid(&name.replacen("%d", "0", 1))
}

/// Devices that have been moved, as long as that can be undone.
#[derive(Debug)]
pub(crate) struct Moved {
    inside: Socket,
    devices: Vec<Device>,
}

/// One of them.
#[derive(Debug)]
struct Device {
    host_name: String,
    /// What it is called in the container.
    name: String,
    was_up: bool,
    addresses: Vec<Address>,
}

impl Moved {
    /// Moves devices into the network namespace `netns`. On failure those that have moved come back.
    pub(crate) fn all(devices: &[NetDevice], netns: BorrowedFd<'_>) -> Result<Self> {
        let mut outside = open(None)?;
        let mut moved = Moved {
            inside: open(Some(netns))?,
            devices: Vec::new(),
        };
        for device in devices {
            if let Err(error) = moved.add(device, &mut outside, netns) {
                moved.give_back();
                return Err(error)
                    .with_context(|| format!("linux.netDevices.{}", device.host_name));
            }
        }
        Ok(moved)
    }

    /// Moves one and brings it up.
    fn add(
        &mut self,
        device: &NetDevice,
        outside: &mut Socket,
        netns: BorrowedFd<'_>,
    ) -> Result<()> {
        let host_name = &device.host_name;
        let missing = || {
            Error::failed(format!(
                "link not found for interface {host_name} on runtime namespace"
            ))
        };
        let link = link(outside, host_name)?.ok_or_else(missing)?;
        let name = device.free_name(&mut self.inside)?;
        // Before it goes: it loses them on the way.
        let addresses = addresses(outside, link.index)?;
        rename_and_move(outside, link, &name, netns)?;
        self.devices.push(Device {
            host_name: host_name.clone(),
            name: name.clone(),
            was_up: link.is_up,
            addresses: addresses.clone(),
        });
        set_up(&mut self.inside, &name, &addresses, true)
    }

    /// Moves all back to where they came from, since there will be no container.
    pub(crate) fn give_back(mut self) {
        for device in std::mem::take(&mut self.devices).iter().rev() {
            if let Err(error) = self.give_one_back(device) {
                log::warn!("move network device {} back: {error}", device.host_name);
            }
        }
    }

    fn give_one_back(&mut self, device: &Device) -> Result<()> {
        let home = File::open("/proc/self/ns/net").context("open the own network namespace")?;
        if let Some(link) = link(&mut self.inside, &device.name)? {
            rename_and_move(&mut self.inside, link, &device.host_name, home.as_fd())?;
            set_up(
                &mut open(None)?,
                &device.host_name,
                &device.addresses,
                device.was_up,
            )?;
        }
        Ok(())
    }
}

/// A socket in the network namespace, or in our own.
fn open(netns: Option<BorrowedFd<'_>>) -> Result<Socket> {
    let socket = || Socket::open(SockProtocol::NetlinkRoute);
    let opened = match netns {
        Some(netns) => {
            netlink::inside(netns, socket).context("enter the container's network namespace")?
        }
        None => socket(),
    };
    opened.context("open a netlink socket")
}

impl NetDevice {
    /// The name without `%d`, which nothing else in there may have.
    fn free_name(&self, inside: &mut Socket) -> Result<String> {
        if !self.name.contains("%d") {
            return match link(inside, &self.name)? {
                None => Ok(self.name.clone()),
                Some(_) => Err(Error::failed(format!(
                    "the container's network namespace has a device {} already: file exists",
                    self.name
                ))),
            };
        }
        for number in 0..u32::MAX {
            let name = self.name.replacen("%d", &number.to_string(), 1);
            if !is_valid(&name) {
                break;
            }
            if link(inside, &name)?.is_none() {
                return Ok(name);
            }
        }
        Err(Error::failed(format!(
            "no number is free for {}",
            self.name
        )))
    }
}

impl IntoCause for Refusal {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        self.errno.into_cause()
    }
}

/// `struct ifinfomsg` of a device, with which it comes up or is left as it is.
fn ifinfo(index: u32, up: bool) -> [u8; IFINFOMSG] {
    let up = if up { libc::IFF_UP as u32 } else { 0 };
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&up.to_ne_bytes());
    header[12..16].copy_from_slice(&up.to_ne_bytes());
    header
}

/// A device as it is found.
#[derive(Clone, Copy, Debug)]
struct Link {
    index: u32,
    is_up: bool,
}

fn link(socket: &mut Socket, name: &str) -> Result<Option<Link>> {
    let attributes = Attributes::new().text(libc::IFLA_IFNAME, name);
    let request = Message::new(libc::RTM_GETLINK, 0, &ifinfo(0, false), attributes);
    let mut found = None;
    let answered = socket.get(&request, |answer| {
        let flags = u32_at(answer.body, 8).unwrap_or(0);
        found = u32_at(answer.body, 4).map(|index| Link {
            index,
            is_up: flags & libc::IFF_UP as u32 != 0,
        });
    });
    match answered {
        Err(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
        answered => answered
            .map(|()| found)
            .with_context(|| format!("look up network device {name}")),
    }
}

/// In one step, so that it never has a name there that it should not have. The kernel takes it down for that.
fn rename_and_move(
    socket: &mut Socket,
    link: Link,
    name: &str,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    let attributes = Attributes::new()
        .text(libc::IFLA_IFNAME, name)
        .u32(libc::IFLA_NET_NS_FD, netns.as_raw_fd() as u32);
    socket
        .request(&Message::new(
            libc::RTM_SETLINK,
            0,
            &ifinfo(link.index, false),
            attributes,
        ))
        .with_context(|| format!("move the network device, and call it {name}"))
}

/// Gives a device its addresses and then brings it up, so that it is never up without them.
fn set_up(socket: &mut Socket, name: &str, addresses: &[Address], up: bool) -> Result<()> {
    let gone = || Error::failed(format!("network device {name} has gone"));
    let index = link(socket, name)?.ok_or_else(gone)?.index;
    for address in addresses {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut header = address.header;
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let attributes = address.attributes.clone();
        socket
            .request(&Message::new(libc::RTM_NEWADDR, flags, &header, attributes))
            .with_context(|| format!("keep an address of network device {name}"))?;
    }
    socket
        .request(&Message::new(
            libc::RTM_SETLINK,
            0,
            &ifinfo(index, up),
            Attributes::new(),
        ))
        .with_context(|| format!("bring network device {name} up"))
}

/// An address of a device, as it is added again.
#[derive(Clone, Debug)]
struct Address {
    header: [u8; IFADDRMSG],
    attributes: Attributes,
}

/// Those that somebody has configured and that mean something elsewhere: permanent and global.
fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<Address>> {
    let request = Message::new(
        libc::RTM_GETADDR,
        libc::NLM_F_DUMP,
        &[0; IFADDRMSG],
        Attributes::new(),
    );
    let mut addresses = Vec::new();
    socket
        .get(&request, |answer| {
            let Some(header) = answer.body.first_chunk::<IFADDRMSG>() else {
                return;
            };
            let read = answer.attributes(IFADDRMSG);
            let flags = read
                .u32(libc::IFA_FLAGS)
                .unwrap_or_else(|| u32::from(header[2]));
            let wanted = flags & libc::IFA_F_PERMANENT != 0 && header[3] == libc::RT_SCOPE_UNIVERSE;
            if !wanted || u32_at(header, 4) != Some(index) {
                return;
            }
            let mut attributes = Attributes::new().u32(libc::IFA_FLAGS, flags & KEPT_FLAGS);
            for kind in [libc::IFA_LOCAL, libc::IFA_ADDRESS, libc::IFA_BROADCAST] {
                if let Some(value) = read.get(kind) {
                    attributes = attributes.bytes(kind, value);
                }
            }
            let [family, prefix, _, scope, ..] = *header;
            addresses.push(Address {
                header: [family, prefix, 0, scope, 0, 0, 0, 0],
                attributes,
            });
        })
        .context("list its addresses")?;
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn planned(devices: Value, namespaces: Value) -> Result<Vec<NetDevice>> {
        let linux: Linux =
            serde_json::from_value(json!({ "netDevices": devices, "namespaces": namespaces }))
                .unwrap();
        let namespaces = Namespaces::of(&linux)?;
        super::planned(&linux, &namespaces)
    }

    #[test]
    fn names_are_checked() {
        let private = json!([{ "type": "network" }]);
        let ok = planned(
            json!({ "eth1": { "name": "net%d" }, "eth0": {} }),
            private.clone(),
        )
        .unwrap();
        let names: Vec<_> = ok
            .iter()
            .map(|device| (device.host_name.as_str(), device.name.as_str()))
            .collect();
        assert_eq!(names, [("eth0", "eth0"), ("eth1", "net%d")]);
        for (devices, words) in [
            (
                json!({ "eth0": { "name": "a/b" } }),
                "invalid network device name \"a/b\"",
            ),
            (
                json!({ "eth0": { "name": "sixteen-is-a-lot" } }),
                "invalid network device name",
            ),
            (
                json!({ "eth0": { "name": "a%s" } }),
                "invalid network device name",
            ),
            (
                json!({ "eth0": { "name": "a%d%d" } }),
                "invalid network device name",
            ),
            (json!({ "..": {} }), "invalid network device name \"..\""),
            (json!({ "eth%d": {} }), "invalid network device name"),
            (
                json!({ "eth0": { "name": "x" }, "eth1": { "name": "x" } }),
                "called \"x\" too",
            ),
        ] {
            let error = planned(devices, private.clone()).unwrap_err().to_string();
            assert!(
                error.starts_with("linux.netDevices.") && error.contains(words),
                "{error}"
            );
        }
        let error = planned(json!({ "eth0": {} }), json!([]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("without a private NET namespace"), "{error}");
        assert!(planned(json!({}), json!([])).unwrap().is_empty());
    }
}
