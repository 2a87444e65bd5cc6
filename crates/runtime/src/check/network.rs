//! What engines connect containers with. Drivers may be modules that are loaded when they are first used: those are not tried.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use nix::sys::utsname::uname;

use super::attempt::isolated;
use super::{Check, number};
use crate::userns;

pub(super) fn checks() -> Vec<Check> {
    vec![
        driver(
            "nftables",
            "nf_tables",
            nf_tables,
            "published ports and masquerading need nftables.",
        ),
        driver(
            "bridge",
            "bridge",
            || new_link(b"bridge"),
            "networks of several containers need a bridge.",
        ),
        driver(
            "veth",
            "veth",
            || new_link(b"veth"),
            "a container's link to the host is a veth pair.",
        ),
        driver(
            "tun",
            "tun",
            tun,
            "networks of ordinary users (pasta, slirp4netns) need /dev/net/tun.",
        ),
        forwarding(),
        low_ports(),
    ]
}

/// In the kernel, loaded, on disk, or not there.
fn driver(
    name: &'static str,
    module: &str,
    attempt: impl FnOnce() -> nix::Result<()>,
    what_for: &str,
) -> Check {
    if fs::exists(format!("/sys/module/{module}")).unwrap_or(false) {
        return Check::ok(name, "in the kernel");
    }
    if listed("modules.builtin", module) {
        return Check::ok(name, "in the kernel");
    }
    if modules().is_some() {
        return unloaded(name, module, what_for);
    }
    // Without a directory of modules nothing can be loaded by trying.
    match isolated(libc::CLONE_NEWNET, attempt) {
        Ok(()) => Check::ok(name, "in the kernel"),
        Err(error) => Check::missing(name, error.to_string(), what_for),
    }
}

/// A driver that is not in the kernel now, but may be when it is wanted.
pub(super) fn unloaded(name: &'static str, module: &str, what_for: &str) -> Check {
    match listed("modules.dep", module) {
        true if userns::privileged() => Check::ok(name, format!("module {module}, not loaded yet")),
        true => Check::limited(
            name,
            format!("module {module}, not loaded"),
            format!("an ordinary user's request may not load it: modprobe {module}."),
        ),
        false => Check::missing(name, "neither in the kernel nor a module", what_for),
    }
}

/// The directory of the running kernel's modules.
fn modules() -> Option<String> {
    let release = uname().ok()?.release().to_string_lossy().into_owned();
    let directory = format!("/lib/modules/{release}");
    fs::exists(format!("{directory}/modules.dep"))
        .unwrap_or(false)
        .then_some(directory)
}

/// Whether a list of modules (`kernel/net/bridge/bridge.ko.xz: …`) has this one.
fn listed(list: &str, module: &str) -> bool {
    let text =
        modules().and_then(|directory| fs::read_to_string(format!("{directory}/{list}")).ok());
    text.unwrap_or_default().lines().any(|line| {
        let path = line.split(':').next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split(".ko")
            .next()
            .is_some_and(|name| name.replace('-', "_") == module)
    })
}

/// Asks for the generation of the rule set, which changes nothing.
fn nf_tables() -> nix::Result<()> {
    const GET_GENERATION: u16 = 10 << 8 | 16;
    ask(SockProtocol::NetlinkNetFilter, GET_GENERATION, 0, &[0; 4])
}

/// Makes a link in the network namespace of the attempt, with which it goes.
fn new_link(kind: &[u8]) -> nix::Result<()> {
    const NEW_LINK: u16 = 16;
    const CREATE: u16 = 0x400 | 0x200 | ACKNOWLEDGE;
    const LINK_INFO: u16 = 18;
    const INFO_KIND: u16 = 1;
    let mut text = kind.to_vec();
    text.resize(kind.len().next_multiple_of(4), 0);
    let inner = attribute(INFO_KIND, kind.len(), &text);
    let mut body = vec![0; 16];
    body.extend(attribute(LINK_INFO, inner.len(), &inner));
    ask(SockProtocol::NetlinkRoute, NEW_LINK, CREATE, &body)
}

fn attribute(kind: u16, length: usize, padded: &[u8]) -> Vec<u8> {
    let mut bytes = ((length + 4) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(padded);
    bytes
}

const ACKNOWLEDGE: u16 = 4;

/// One netlink(7) request and the first answer to it.
fn ask(protocol: SockProtocol, kind: u16, flags: u16, body: &[u8]) -> nix::Result<()> {
    const REQUEST: u16 = 1;
    const ERROR: u16 = 2;
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?;
    let mut message = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags | REQUEST).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    let fd = socket.as_fd().as_raw_fd();
    send(fd, &message, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(fd, &mut answer, MsgFlags::empty())?;
    if length < 20 {
        return Err(Errno::EBADMSG);
    }
    match u16::from_ne_bytes([answer[4], answer[5]]) {
        ERROR => match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
            0 => Ok(()),
            errno => Err(Errno::from_raw(-errno)),
        },
        _ => Ok(()),
    }
}

fn tun() -> nix::Result<()> {
    match fs::exists("/sys/class/misc/tun") {
        Ok(true) => Ok(()),
        _ => Err(Errno::ENODEV),
    }
}

fn forwarding() -> Check {
    let name = "ip_forward";
    match number("/proc/sys/net/ipv4/ip_forward") {
        Some(1) => Check::ok(name, "1"),
        value => Check::limited(
            name,
            value.map_or("unknown".into(), |value| value.to_string()),
            "containers on a bridge reach nothing beyond the host: sysctl -w net.ipv4.ip_forward=1 (engines do so themselves).",
        ),
    }
}

fn low_ports() -> Check {
    let name = "unprivileged_port_start";
    let first = number("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or(1024);
    match first > 80 && !userns::privileged() {
        true => Check::limited(
            name,
            first.to_string(),
            format!(
                "an ordinary user publishes no ports below {first}: sysctl -w net.ipv4.ip_unprivileged_port_start=80."
            ),
        ),
        false => Check::ok(name, first.to_string()),
    }
}
