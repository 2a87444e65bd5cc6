//! The contents of a container's resolv.conf, hosts and hostname.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved keeps the servers that its own stub asks.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
/// Asked when the machine names no server that a container could reach; Docker's choice.
const FALLBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4)),
];

/// How names are looked up: `--dns`, `--dns-search`, `--dns-option`, or what a CNI plugin says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers in place of the machine's.
    pub nameservers: Vec<IpAddr>,
    /// Domains to search in place of the machine's; a single `.` for none.
    pub search: Vec<String>,
    /// Options in place of the machine's.
    pub options: Vec<String>,
}

impl Dns {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }
}

/// The content of resolv.conf(5): the machine's, with what is asked for in its place.
///
/// A server on the machine's loopback is out of reach from a network namespace of its own (`own_loopback`) and left out; when none is
/// left, 8.8.8.8 and 8.8.4.4 are asked.
pub fn resolv_conf(dns: &Dns, own_loopback: bool) -> Result<String> {
    let mut machine = read(Path::new(RESOLV_CONF))?.unwrap_or_default();
    if own_loopback
        && servers(&machine) == [STUB]
        && let Some(resolved) = read(Path::new(RESOLVED))?
    {
        machine = resolved;
    }
    render(&machine, dns, own_loopback)
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("read {}", path.display())),
    }
}

/// The values of all lines that begin with a word.
fn values<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let rest = line.trim().strip_prefix(name)?;
        rest.starts_with([' ', '\t']).then(|| rest.trim())
    })
}

fn servers(text: &str) -> Vec<IpAddr> {
    let parse = |text: &str| {
        // A link-local address names its interface, which the container does not have.
        text.split_whitespace().next()?.parse().ok()
    };
    values(text, "nameserver").filter_map(parse).collect()
}

fn render(machine: &str, dns: &Dns, own_loopback: bool) -> Result<String> {
    let words = |name| {
        // The last line counts.
        let last = values(machine, name).last().unwrap_or("");
        last.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let or = |asked: &[String], name| match asked {
        [] => words(name),
        asked => asked.to_vec(),
    };
    let mut nameservers = dns.nameservers.clone();
    if nameservers.is_empty() {
        nameservers = servers(machine);
        nameservers.retain(|server| !own_loopback || !server.is_loopback());
        if nameservers.is_empty() && own_loopback {
            nameservers = FALLBACK.to_vec();
        }
    }
    let mut search = or(&dns.search, "search");
    if search.is_empty() {
        search = words("domain");
    }
    search.retain(|domain| domain != ".");
    let options = or(&dns.options, "options");
    for (what, word) in search
        .iter()
        .map(|word| ("domain to search", word))
        .chain(options.iter().map(|word| ("resolver option", word)))
    {
        check_word(what, word)?;
    }
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    Ok(text)
}

/// What would begin another line or another word is none.
fn check_word(what: &str, word: &str) -> Result<()> {
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(Error::invalid(format!("invalid {what} {word:?}")));
    }
    Ok(())
}

/// What a container's hosts file is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hosts<'a> {
    /// Names of the container itself: its hostname, and by what else it is known.
    pub names: &'a [&'a str],
    /// The container's addresses. Without any its names lead to its loopback.
    pub addresses: &'a [IpAddr],
    /// `NAME:ADDRESS` or `NAME=ADDRESS` of `--add-host`.
    pub add: &'a [String],
    /// What the address `host-gateway` stands for.
    pub gateway: Option<IpAddr>,
}

/// The content of hosts(5).
pub fn hosts(hosts: &Hosts<'_>) -> Result<String> {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for entry in hosts.add {
        let (name, address) = added(entry, hosts.gateway)?;
        text.push_str(&format!("{address}\t{name}\n"));
    }
    let mut names: Vec<&str> = Vec::new();
    for name in hosts.names {
        check_word("hostname", name)?;
        if !names.contains(name) {
            names.push(name);
        }
    }
    let own = match hosts.addresses {
        [] => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        addresses => addresses,
    };
    for address in own.iter().filter(|_| !names.is_empty()) {
        text.push_str(&format!("{address}\t{}\n", names.join(" ")));
    }
    Ok(text)
}

fn added(entry: &str, gateway: Option<IpAddr>) -> Result<(&str, IpAddr)> {
    let invalid = |why: &str| Error::invalid(format!("invalid host to add {entry:?}: {why}"));
    let (name, address) = entry
        .split_once(['=', ':'])
        .ok_or_else(|| invalid("NAME:ADDRESS is wanted"))?;
    check_word("host to add", name)?;
    if address == "host-gateway" {
        let gateway =
            gateway.ok_or_else(|| invalid("this network has no gateway on the machine"))?;
        return Ok((name, gateway));
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare
        .unwrap_or(address)
        .parse()
        .map_err(|_| invalid("the address is not an IP address"))?;
    Ok((name, address))
}

/// The content of hostname(5): at most 64 bytes of letters, digits, `-`, `.` and `_`, as the kernel and most programs take it.
pub fn hostname(name: &str) -> Result<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || name.len() > 64 || name.starts_with(['-', '.']) || !name.bytes().all(good)
    {
        return Err(Error::invalid(format!("invalid hostname {name:?}")));
    }
    Ok(format!("{name}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(machine: &str, own_loopback: bool) -> String {
        render(machine, &Dns::default(), own_loopback).unwrap()
    }

    #[test]
    fn the_machines_resolv_conf_is_copied() {
        let machine = "# comment\ndomain old\nsearch a.example b.example\nnameserver 192.0.2.53\nnameserver\t2001:db8::53 # x\n\
                       options ndots:2 edns0\nsortlist 1.2.3.4\n;nameserver 1.1.1.1\nnameserverx 1.2.3.4\n";
        let wanted = "search a.example b.example\nnameserver 192.0.2.53\nnameserver 2001:db8::53\noptions ndots:2 edns0\n";
        assert_eq!(rendered(machine, true), wanted);
        assert_eq!(
            rendered("domain old\nnameserver 192.0.2.1", true),
            "search old\nnameserver 192.0.2.1\n"
        );
    }

    #[test]
    fn servers_on_loopback_are_out_of_reach() {
        let machine = "nameserver 127.0.0.1\nnameserver ::1\nnameserver 192.0.2.53\n";
        assert_eq!(rendered(machine, true), "nameserver 192.0.2.53\n");
        assert_eq!(rendered(machine, false), machine);
        for machine in [
            "",
            "nameserver 127.0.0.53\n",
            "nameserver fe80::1%eth0\n",
            "nameserver x\n",
        ] {
            assert_eq!(
                rendered(machine, true),
                "nameserver 8.8.8.8\nnameserver 8.8.4.4\n",
                "{machine:?}"
            );
        }
        assert_eq!(rendered("", false), "");
    }

    #[test]
    fn what_is_asked_for_takes_its_place() {
        let machine = "search a.example\nnameserver 192.0.2.53\noptions ndots:2\n";
        let dns = Dns {
            nameservers: vec!["127.0.0.1".parse().unwrap()],
            search: vec![".".into()],
            options: vec!["timeout:1".into(), "edns0".into()],
        };
        let wanted = "nameserver 127.0.0.1\noptions timeout:1 edns0\n";
        assert_eq!(render(machine, &dns, true).unwrap(), wanted);
        for bad in ["", "a b", "a\nnameserver 1.1.1.1"] {
            let dns = Dns {
                search: vec![bad.into()],
                ..Dns::default()
            };
            assert!(render(machine, &dns, true).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hosts_know_the_container_and_what_is_added() {
        let add = [
            "db:10.0.0.7",
            "six=[2001:db8::7]",
            "bare:2001:db8::8",
            "machine:host-gateway",
        ];
        let text = hosts(&Hosts {
            names: &["web", "web", "alias"],
            addresses: &["10.89.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            add: &add.map(str::to_owned),
            gateway: Some("10.89.0.1".parse().unwrap()),
        })
        .unwrap();
        let own: Vec<_> = text.lines().skip(6).collect();
        assert_eq!(
            own,
            [
                "10.0.0.7\tdb",
                "2001:db8::7\tsix",
                "2001:db8::8\tbare",
                "10.89.0.1\tmachine",
                "10.89.0.2\tweb alias",
                "fd00::2\tweb alias",
            ]
        );
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost"));
    }

    #[test]
    fn hosts_that_cannot_be_added() {
        for bad in [
            "",
            "db",
            "db:",
            ":10.0.0.1",
            "db:x",
            "a b:10.0.0.1",
            "a\nb:10.0.0.1",
            "db:host-gateway",
        ] {
            let add = [bad.to_owned()];
            let wanted = Hosts {
                add: &add,
                ..Hosts::default()
            };
            assert!(hosts(&wanted).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hostnames() {
        assert_eq!(hostname("web-1.example").unwrap(), "web-1.example\n");
        let long = "a".repeat(65);
        for bad in ["", "-a", ".", "a b", "a\n", "ä", &long] {
            assert!(hostname(bad).is_err(), "{bad:?}");
        }
    }
}
