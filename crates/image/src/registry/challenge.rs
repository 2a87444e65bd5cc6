//! What a registry wants to see before it answers: `WWW-Authenticate`, and where tokens come from.

use super::url::Url;
use crate::error::{Error, Kind, Result};

/// How a registry wants to be convinced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token, which another server gives.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best of the challenges in these headers: a token rather than the password.
    pub(super) fn from_headers<'a>(headers: impl Iterator<Item = &'a str>) -> Result<Self> {
        let challenges: Vec<_> = headers.flat_map(parse).collect();
        let bearer = challenges.iter().find(|(scheme, _)| scheme == "bearer");
        if let Some((_, parameters)) = bearer {
            let get = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.clone())
            };
            let realm = get("realm").ok_or_else(|| {
                Error::new(
                    Kind::Denied,
                    "the registry wants a token and does not say whose",
                )
            })?;
            return Ok(Challenge::Bearer {
                realm,
                service: get("service"),
                scope: get("scope"),
            });
        }
        if challenges.iter().any(|(scheme, _)| scheme == "basic") {
            return Ok(Challenge::Basic);
        }
        Err(Error::new(
            Kind::Denied,
            "the registry wants credentials of a kind that is not known",
        ))
    }
}

/// The credentials of a registry may be shown to the server that gives its tokens: the same host, or a neighbour below the same
/// parent domain over https. A stranger gets none, whatever the registry says.
pub(super) fn may_have_credentials(registry: &Url, realm: &Url) -> bool {
    let same_host = registry.host() == realm.host();
    if !realm.is_https {
        return same_host && !registry.is_https;
    }
    same_host
        || parent(registry.host()).is_some_and(|domain| {
            let host = realm.host();
            host == domain
                || host
                    .strip_suffix(domain)
                    .is_some_and(|rest| rest.ends_with('.'))
        })
}

/// The domain around a host, when it is at least of the second level.
fn parent(host: &str) -> Option<&str> {
    if host.parse::<std::net::Ipv4Addr>().is_ok() || host.starts_with('[') {
        return None;
    }
    match host.split_once('.') {
        Some((_, parent)) if parent.contains('.') => Some(parent),
        // `ghcr.io` has neighbours below itself only.
        Some(_) => Some(host),
        None => None,
    }
}

type Parameters = Vec<(String, String)>;

/// `Bearer realm="…",service="…", Basic realm="…"`; what cannot be read ends the list.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        match (after.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = value_of(value);
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                challenges.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', ',']);
    }
    challenges
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// A quoted or bare value, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(header: &str) -> Option<Challenge> {
        Challenge::from_headers([header].into_iter()).ok()
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer {
            realm: realm.into(),
            service: owned(service),
            scope: owned(scope),
        })
    }

    #[test]
    fn challenges_are_read_as_rfc_9110_writes_them() {
        for (header, wanted) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:x:pull,push\"",
                bearer("https://a/t", Some("s"), Some("repository:x:pull,push")),
            ),
            (
                "Basic realm=\"x\", Bearer realm=https://a/t",
                bearer("https://a/t", None, None),
            ),
            (
                "Bearer  Realm=\"a\\\"b\" , service=\"\"",
                bearer("a\"b", Some(""), None),
            ),
            ("Bearer realm=\"unclosed", bearer("unclosed", None, None)),
            ("Bearer", None),
            ("Negotiate", None),
            ("=x", None),
            ("", None),
        ] {
            assert_eq!(challenge(header), wanted, "{header}");
        }
    }

    #[test]
    fn credentials_stay_with_the_registrys_own() {
        for (registry, realm, may) in [
            (
                "https://registry-1.docker.io/",
                "https://auth.docker.io/token",
                true,
            ),
            ("https://ghcr.io/", "https://ghcr.io/token", true),
            (
                "https://registry.gitlab.com/",
                "https://gitlab.com/jwt/auth",
                true,
            ),
            ("https://gitlab.com/", "https://auth.gitlab.com/", true),
            (
                "https://registry.example.com/",
                "https://evil.com/token",
                false,
            ),
            (
                "https://registry.example.com/",
                "https://notexample.com/token",
                false,
            ),
            ("https://example.com/", "https://other.com/", false),
            (
                "https://registry.example.com/",
                "http://registry.example.com/token",
                false,
            ),
            (
                "http://127.0.0.1:5000/",
                "http://127.0.0.1:5001/token",
                true,
            ),
            (
                "http://127.0.0.1:5000/",
                "http://127.0.0.2:5001/token",
                false,
            ),
            ("https://127.0.0.1/", "https://1.0.0.1/", false),
            ("https://localhost/", "https://evil.localhost/", false),
        ] {
            let parse = |text| Url::parse(text).unwrap();
            assert_eq!(
                may_have_credentials(&parse(registry), &parse(realm)),
                may,
                "{registry} {realm}"
            );
        }
    }
}
