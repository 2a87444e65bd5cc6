//! Published ports, in the words of `docker run -p`.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What runs on top of IP; the numbers are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Protocol {
    /// Transmission Control Protocol.
    Tcp = libc::IPPROTO_TCP as u8,
    /// User Datagram Protocol.
    Udp = libc::IPPROTO_UDP as u8,
    /// Stream Control Transmission Protocol.
    Sctp = libc::IPPROTO_SCTP as u8,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// One port of the machine that leads to one port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// What it speaks.
    pub protocol: Protocol,
    /// The machine's address; `None` for all of them, `0.0.0.0` and `::` for all of one version.
    pub host_ip: Option<IpAddr>,
    /// The machine's port; 0 for any free one.
    pub host_port: u16,
    /// The container's port, never 0.
    pub container_port: u16,
}

impl Port {
    /// Reads `[[HOST-IP:][HOST-PORT[-END]]:]CONTAINER-PORT[-END][/tcp|udp|sctp]`. An IPv6 address stands in brackets; ranges have to be of the
    /// same length.
    pub fn parse(text: &str) -> Result<Vec<Port>> {
        let invalid = |why: &str| Error::invalid(format!("invalid published port {text:?}: {why}"));
        let (mapping, protocol) = match text.split_once('/') {
            Some((mapping, protocol)) => (mapping, protocol),
            None => (text, "tcp"),
        };
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(invalid("the protocol has to be tcp, udp or sctp")),
        };
        let (host_ip, host, container) = split(mapping).map_err(invalid)?;
        let (first, last) = range(container)
            .map_err(invalid)?
            .filter(|(first, _)| *first > 0)
            .ok_or_else(|| invalid("the container's port is missing"))?;
        let host = range(host).map_err(invalid)?;
        if let Some((start, end)) = host
            && end - start != last - first
        {
            return Err(invalid("the two ranges have different lengths"));
        }
        if host.is_some_and(|(start, end)| start == 0 && end > 0) {
            return Err(invalid("a range cannot begin with 0"));
        }
        let port = |offset| Port {
            protocol,
            host_ip,
            host_port: match host {
                None | Some((0, _)) => 0,
                Some((start, _)) => start + offset,
            },
            container_port: first + offset,
        };
        Ok((0..=last - first).map(port).collect())
    }

    /// Whether both cannot be published at once.
    pub(crate) fn clashes(&self, other: &Port) -> bool {
        let addresses = match (self.host_ip, other.host_ip) {
            (None, _) | (_, None) => true,
            (Some(one), Some(other)) => {
                one.is_ipv4() == other.is_ipv4()
                    && (one == other || one.is_unspecified() || other.is_unspecified())
            }
        };
        addresses && self.protocol == other.protocol && self.host_port == other.host_port
    }

    /// The machine's side: `192.0.2.1:8080/tcp`.
    pub(crate) fn host(&self) -> String {
        let Port {
            protocol,
            host_port,
            ..
        } = self;
        match self.host_ip {
            Some(IpAddr::V6(ip)) => format!("[{ip}]:{host_port}/{protocol}"),
            Some(ip) => format!("{ip}:{host_port}/{protocol}"),
            None => format!("{host_port}/{protocol}"),
        }
    }
}

impl fmt::Display for Port {
    /// What [`Port::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        let Port {
            protocol,
            host_port,
            container_port,
            ..
        } = self;
        write!(f, "{host_port}:{container_port}/{protocol}")
    }
}

type Split<'a> = (Option<IpAddr>, &'a str, &'a str);

/// Address, ports of the machine, ports of the container.
fn split(mapping: &str) -> Result<Split<'_>, &'static str> {
    const ADDRESS: &str = "the address is not an IP address (IPv6 stands in brackets)";
    if let Some(rest) = mapping.strip_prefix('[') {
        let (ip, rest) = rest.split_once("]:").ok_or(ADDRESS)?;
        let ip: IpAddr = ip.parse().map_err(|_| ADDRESS)?;
        let (host, container) = rest
            .split_once(':')
            .ok_or("the container's port is missing")?;
        return Ok((
            Some(ip).filter(IpAddr::is_ipv6).ok_or(ADDRESS)?.into(),
            host,
            container,
        ));
    }
    let parts: Vec<_> = mapping.split(':').collect();
    match parts[..] {
        [container] => Ok((None, "", container)),
        [host, container] => Ok((None, host, container)),
        ["", host, container] => Ok((None, host, container)),
        [ip, host, container] => {
            let ip: IpAddr = ip.parse().map_err(|_| ADDRESS)?;
            Ok((Some(ip), host, container))
        }
        _ => Err(ADDRESS),
    }
}

/// `80` or `80-85`; `None` for nothing.
fn range(text: &str) -> Result<Option<(u16, u16)>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true if !text.is_empty() => text.parse::<u16>().map_err(|_| "a port is at most 65535"),
        _ => Err("a port is a number"),
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err("a range ends before it begins");
    }
    Ok(Some((first, last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        match Port::parse(text) {
            Ok(ports) => ports
                .iter()
                .map(Port::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn dockers_grammar() {
        for (text, wanted) in [
            ("80", "0:80/tcp"),
            (":80", "0:80/tcp"),
            ("0:80", "0:80/tcp"),
            ("8080:80", "8080:80/tcp"),
            ("8080:80/udp", "8080:80/udp"),
            ("8080:80/SCTP", "8080:80/sctp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:0:80/tcp"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80/tcp"),
            ("[::1]:8080:80", "[::1]:8080:80/tcp"),
            ("[::]::53/udp", "[::]:0:53/udp"),
            ("8080-8082:80-82", "8080:80/tcp 8081:81/tcp 8082:82/tcp"),
            ("80-81", "0:80/tcp 0:81/tcp"),
            (
                "10.0.0.1:80-81:90-91/udp",
                "10.0.0.1:80:90/udp 10.0.0.1:81:91/udp",
            ),
            ("65535:65535", "65535:65535/tcp"),
            ("80-80:90", "80:90/tcp"),
        ] {
            assert_eq!(parsed(text), wanted, "{text}");
        }
        assert_eq!(Port::parse("1-65535:1-65535").unwrap().len(), 65535);
    }

    #[test]
    fn bad_ports_are_refused_with_a_reason() {
        for (text, why) in [
            ("", "the container's port is missing"),
            ("8080:", "the container's port is missing"),
            ("8080:0", "the container's port is missing"),
            ("0-5", "the container's port is missing"),
            ("/tcp", "the container's port is missing"),
            ("80/icmp", "the protocol has to be tcp, udp or sctp"),
            ("80/", "the protocol has to be tcp, udp or sctp"),
            ("80/tcp/udp", "the protocol has to be tcp, udp or sctp"),
            ("65536:80", "a port is at most 65535"),
            ("80:65536", "a port is at most 65535"),
            ("80:99999999999999999999", "a port is at most 65535"),
            ("-1:80", "a port is a number"),
            ("+1:80", "a port is a number"),
            ("80-:80", "a port is a number"),
            ("http:80", "a port is a number"),
            (" 80:80", "a port is a number"),
            ("٨٠:80", "a port is a number"),
            ("82-80:80-82", "a range ends before it begins"),
            ("8080-8082:80-81", "the two ranges have different lengths"),
            ("8080-8082:80", "the two ranges have different lengths"),
            ("0-2:80-82", "a range cannot begin with 0"),
            ("localhost:80:80", "the address is not an IP address"),
            ("::1:8080:80", "the address is not an IP address"),
            ("[::1:8080:80", "the address is not an IP address"),
            ("[127.0.0.1]:8080:80", "the address is not an IP address"),
            ("[::1]:80", "the container's port is missing"),
            ("1.2.3.256:80:80", "the address is not an IP address"),
        ] {
            let message = parsed(text);
            assert!(
                message.starts_with(&format!("invalid published port {text:?}: {why}")),
                "{message}"
            );
        }
    }

    #[test]
    fn what_clashes() {
        for (one, other, clash) in [
            ("80:80", "80:81", true),
            ("80:80", "80:80/udp", false),
            ("80:80", "81:80", false),
            ("0.0.0.0:80:80", "10.0.0.1:80:80", true),
            ("10.0.0.1:80:80", "10.0.0.2:80:80", false),
            ("80:80", "[::1]:80:80", true),
            ("0.0.0.0:80:80", "[::1]:80:80", false),
            ("[::]:80:80", "[fd00::1]:80:80", true),
        ] {
            let (one, other) = (Port::parse(one).unwrap()[0], Port::parse(other).unwrap()[0]);
            assert_eq!(one.clashes(&other), clash, "{one} {other}");
            assert_eq!(other.clashes(&one), clash, "{other} {one}");
        }
    }
}
