//! The name of an image: `registry/repository:tag@digest`, with Docker's short forms.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// The registry of names that do not tell theirs.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Where Docker Hub keeps names without a user.
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// The longest repository with its domain.
const NAME_LENGTH: usize = 255;
const TAG_LENGTH: usize = 128;

/// A complete reference: the short forms are spelled out when it is parsed, and a tag is there unless a digest is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository in its registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; without a tag there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, where the reference tells it.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository: `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// As Docker shows it: without `docker.io/` and `library/`, unless that would be another image's name, as of `docker.io/a.b/c`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let name = full.strip_prefix("docker.io/");
        let short = name.and_then(|name| name.strip_prefix(OFFICIAL));
        let is_ours = |text: &&str| {
            parse(text)
                .is_ok_and(|other| (&other.domain, &other.path) == (&self.domain, &self.path))
        };
        let shorter = short.into_iter().chain(name).find(is_ours);
        shorter.unwrap_or(&full).to_owned()
    }

    /// [`Reference::familiar`] without tag and digest.
    pub fn familiar_name(&self) -> String {
        let bare = Reference {
            tag: None,
            digest: None,
            ..self.clone()
        };
        bare.familiar()
    }

    /// The same repository, and there the manifest with this digest.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Reference {
            digest: Some(digest),
            tag: None,
            ..self.clone()
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|why| Error::invalid(format!("invalid reference {text:?}: {why}")))
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse::<Digest>().map_err(|e| e.to_string())?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    // A colon before the last slash belongs to the domain's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (domain, path) = match name.split_once('/') {
        Some((first, path)) if is_domain(first) => (first, path.to_owned()),
        _ => (DEFAULT_DOMAIN, name.to_owned()),
    };
    let domain = match domain {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_DOMAIN,
        domain => domain,
    };
    let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
        if path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("64 hexadecimal digits are an image's id".into());
        }
        format!("{OFFICIAL}{path}")
    } else {
        path
    };
    check_domain(domain)?;
    check_path(&path)?;
    if domain.len() + 1 + path.len() > NAME_LENGTH {
        return Err(format!("the name is longer than {NAME_LENGTH} characters"));
    }
    let tag = match (tag, &digest) {
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference {
        domain: domain.to_owned(),
        path,
        tag,
        digest,
    })
}

/// What stands before the first slash is a registry, not a user of Docker Hub.
fn is_domain(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':', '['])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_domain(domain: &str) -> Result<(), String> {
    let bad = || format!("{domain:?} is no registry's host name");
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(bad)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            ("v6", port)
        }
        None => {
            let end = domain.find(':').unwrap_or(domain.len());
            domain.split_at(end)
        }
    };
    let labels = host.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    let port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
        });
    if labels && port { Ok(()) } else { Err(bad()) }
}

fn check_path(path: &str) -> Result<(), String> {
    for component in path.split('/') {
        check_component(component)
            .map_err(|why| format!("component {component:?} of the repository {why}"))?;
    }
    Ok(())
}

/// Lower-case letters and digits, with single `.`, `_` or `__`, or any number of `-` between them.
fn check_component(component: &str) -> Result<(), &'static str> {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if component.is_empty() {
        return Err("is empty");
    }
    if component.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("has an upper-case letter");
    }
    if !component.bytes().all(|b| is_word(b) || b"._-".contains(&b)) {
        return Err("has a character other than a-z, 0-9, '.', '_' and '-'");
    }
    let separators = component.split(|c: char| c.is_ascii_alphanumeric());
    let good = |s: &str| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    if !separators.clone().all(good) {
        return Err("has two separators in a row");
    }
    let ends = [
        component.as_bytes()[0],
        *component.as_bytes().last().unwrap_or(&0),
    ];
    if ends.into_iter().all(is_word) {
        Ok(())
    } else {
        Err("has to begin and end with a letter or digit")
    }
}

fn check_tag(tag: &str) -> Result<(), String> {
    let good = tag.len() <= TAG_LENGTH
        && !tag.starts_with(['.', '-'])
        && !tag.is_empty()
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good {
        Ok(())
    } else {
        Err(format!("{tag:?} is no tag"))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    // Proved with names that are shortened whatever they are read as.
    #[test]
    fn short_forms_are_spelled_out_and_found_again() {
        let long = format!("docker.io/library/a@sha256:{HEX}");
        for (text, full, familiar) in [
            (
                "docker.io/a.b/c",
                "docker.io/a.b/c:latest",
                "docker.io/a.b/c:latest",
            ),
            (
                "docker.io/library/a/b",
                "docker.io/library/a/b:latest",
                "library/a/b:latest",
            ),
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            (
                "alpine:3.20",
                "docker.io/library/alpine:3.20",
                "alpine:3.20",
            ),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            (
                "index.docker.io/me/app",
                "docker.io/me/app:latest",
                "me/app:latest",
            ),
            (
                "docker.io/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            (
                "docker.io/library/a/b:1",
                "docker.io/library/a/b:1",
                "library/a/b:1",
            ),
            (
                "localhost/app",
                "localhost/app:latest",
                "localhost/app:latest",
            ),
            (
                "localhost:5000/a/b:v1",
                "localhost:5000/a/b:v1",
                "localhost:5000/a/b:v1",
            ),
            (
                "127.0.0.1:5000/app",
                "127.0.0.1:5000/app:latest",
                "127.0.0.1:5000/app:latest",
            ),
            (
                "[::1]:5000/app",
                "[::1]:5000/app:latest",
                "[::1]:5000/app:latest",
            ),
            ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
            (
                "quay.io/a__b/c--d.e_f:T-1",
                "quay.io/a__b/c--d.e_f:T-1",
                "quay.io/a__b/c--d.e_f:T-1",
            ),
            (
                &format!("a@sha256:{HEX}"),
                &long,
                &format!("a@sha256:{HEX}"),
            ),
            (
                &format!("a:1@sha256:{HEX}"),
                &format!("docker.io/library/a:1@sha256:{HEX}"),
                &format!("a:1@sha256:{HEX}"),
            ),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(full.parse::<Reference>().unwrap(), reference);
            assert_eq!(familiar.parse::<Reference>().unwrap(), reference);
        }
        assert_eq!(
            "alpine:1".parse::<Reference>().unwrap().familiar_name(),
            "alpine"
        );
    }

    #[test]
    fn what_is_no_reference() {
        let long_name = format!("a.b/{}", "x".repeat(252));
        let long_tag = format!("a:{}", "x".repeat(129));
        for text in [
            "",
            ":",
            "a:",
            ":tag",
            "a b",
            "A",
            "me/App",
            "a//b",
            "/a",
            "a/",
            "a/../b",
            "..",
            ".a",
            "a.",
            "a..b",
            "a___b",
            "a._b",
            "-a",
            "a-",
            "a@",
            "a@sha256:12",
            "a:b:c",
            "a:.b",
            "a:-b",
            "a:ü",
            "http://a.b/c",
            "localhost:99999/a",
            "localhost:x/a",
            "-a.b/c",
            "a-.b/c",
            "[::1/a",
            "[x]/a",
            "[::1]x/a",
            "a.b/",
            "localhost:5000/",
            HEX,
            &long_name,
            &long_tag,
            &format!("a@sha512:{HEX}{HEX}"),
            &format!("a@sha256:{}", HEX.to_uppercase()),
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Invalid);
            assert!(
                error.to_string().starts_with("invalid reference "),
                "{error}"
            );
        }
    }
}
