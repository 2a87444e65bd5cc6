//! URLs, as far as a registry's client needs them: whose they are, and what a redirect means.

use std::fmt;
use std::net::IpAddr;

use crate::error::{Error, Result};

/// `http` or `https`, a host with its port, and a path with its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) is_https: bool,
    /// `host` or `host:port`, in lower case.
    pub(crate) authority: String,
    /// Begins with a slash.
    pub(crate) path: String,
}

impl Url {
    /// The root of a server.
    pub(crate) fn root(is_https: bool, authority: &str) -> Self {
        Url {
            is_https,
            authority: authority.to_ascii_lowercase(),
            path: "/".into(),
        }
    }

    /// An absolute URL. One that names a user is refused.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("{text:?} is no http or https URL"));
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(bad()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
        if authority.is_empty()
            || !authority.bytes().all(plain)
            || !path.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(bad());
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Url {
            path: format!("{slash}{path}"),
            ..Url::root(is_https, authority)
        })
    }

    /// Where a `Location` leads from here.
    pub(crate) fn join(&self, location: &str) -> Result<Self> {
        let scheme = if self.is_https { "https" } else { "http" };
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Url::parse(location);
        }
        if location.starts_with("//") {
            return Url::parse(&format!("{scheme}:{location}"));
        }
        let path = self.path.split('?').next().unwrap_or_default();
        let path = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') | None => format!("{path}{location}"),
            Some(_) => {
                let directory = path.rfind('/').map_or("", |end| &path[..end]);
                format!("{directory}/{location}")
            }
        };
        Url::parse(&format!("{scheme}://{}{path}", self.authority))
    }

    /// Another path of the same server.
    pub(crate) fn at(&self, path: String) -> Self {
        Url {
            path,
            ..self.clone()
        }
    }

    /// Scheme, host and port are the same.
    pub(crate) fn same_origin(&self, other: &Url) -> bool {
        self.is_https == other.is_https
            && self.host() == other.host()
            && self.port() == other.port()
    }

    /// Without the port.
    pub(crate) fn host(&self) -> &str {
        host(&self.authority)
    }

    fn port(&self) -> &str {
        let port = self.authority[self.host().len()..].trim_start_matches(':');
        match (port, self.is_https) {
            ("", true) => "443",
            ("", false) => "80",
            (port, _) => port,
        }
    }

    /// The server is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.authority)
    }
}

/// The host of `host:port`; an IPv6 address keeps its brackets.
fn host(authority: &str) -> &str {
    let end = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    &authority[..end]
}

/// `localhost`, 127.0.0.0/8 or `[::1]`, with or without a port.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = host(authority);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_lead_where_rfc_3986_says() {
        let from = Url::parse("https://Registry.example:5000/v2/a/blobs/x?y=1").unwrap();
        assert_eq!(
            from.to_string(),
            "https://registry.example:5000/v2/a/blobs/x?y=1"
        );
        for (location, to) in [
            ("/v2/b", "https://registry.example:5000/v2/b"),
            ("z?k=v", "https://registry.example:5000/v2/a/blobs/z?k=v"),
            ("?k=v", "https://registry.example:5000/v2/a/blobs/x?k=v"),
            ("http://cdn.example/x#part", "http://cdn.example/x"),
            ("//cdn.example?x", "https://cdn.example/?x"),
            (
                "/x?u=http://y",
                "https://registry.example:5000/x?u=http://y",
            ),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), to, "{location}");
        }
        for location in [
            "ftp://x/",
            "https://user@x/",
            "https:///x",
            "https://x/a b",
            "https://x/\r\nY: z",
            "https://é/",
        ] {
            assert!(from.join(location).is_err(), "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| Url::parse(a).unwrap().same_origin(&Url::parse(b).unwrap());
        assert!(same("https://a/x", "https://A:443/y"));
        assert!(same("http://[::1]/", "http://[::1]:80/"));
        assert!(!same("https://a/", "http://a/"));
        assert!(!same("https://a/", "https://a:5000/"));
        assert!(!same("https://a/", "https://a.b/"));
    }

    #[test]
    fn this_machine_is_known() {
        for here in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.9.8.7:1",
            "[::1]",
            "[::1]:5000",
        ] {
            assert!(is_loopback(here), "{here}");
        }
        for away in [
            "localhost.example",
            "128.0.0.1",
            "[::2]:5000",
            "example",
            "127.0.0.1.example",
        ] {
            assert!(!is_loopback(away), "{away}");
        }
    }
}
