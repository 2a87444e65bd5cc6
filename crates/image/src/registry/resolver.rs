//! Names of registries, looked up in a thread, so that it can be given up when it takes too long.
//!
//! ureq's own resolver does the same by std's channels. Their storage for each thread makes that of the first one too large for what the C
//! library has at hand, so that every command of the program would map memory for it.

use std::net::ToSocketAddrs;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Within the time that the configuration allows.
#[derive(Debug)]
pub(super) struct InTime;

impl Resolver for InTime {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let address = uri.scheme().zip(uri.authority());
        let address =
            address.and_then(|(scheme, host)| DefaultResolver::host_and_port(scheme, host));
        let address = address.ok_or(Error::HostNotFound)?;
        let answer = Arc::new((Mutex::new(None), Condvar::new()));
        let others = answer.clone();
        thread::spawn(move || {
            let found = address.to_socket_addrs();
            *others.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            others.1.notify_one();
        });
        let (answer, arrived) = &*answer;
        let waiting = answer.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut answer, _) = arrived
            .wait_timeout_while(waiting, *timeout.after, |answer| answer.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let found = answer.take().ok_or(Error::Timeout(timeout.reason))??;
        let mut wanted = self.empty();
        for address in config.ip_family().keep_wanted(found) {
            // There is room for so many, and one is enough.
            if wanted.try_push(address).is_err() {
                break;
            }
        }
        match wanted.is_empty() {
            true => Err(Error::HostNotFound),
            false => Ok(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::config::IpFamily;

    fn resolve(uri: &str, family: IpFamily) -> Result<Vec<String>, Error> {
        let config = ureq::Agent::config_builder().ip_family(family).build();
        let timeout = NextTimeout {
            after: std::time::Duration::from_secs(60).into(),
            ..NextTimeout::default()
        };
        let found = InTime.resolve(&uri.parse().unwrap(), &config, timeout)?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn addresses_with_the_schemes_port() {
        let any = |uri| resolve(uri, IpFamily::Any).unwrap();
        assert_eq!(any("http://127.0.0.1/v2/"), ["127.0.0.1:80"]);
        assert_eq!(any("https://[::1]/v2/"), ["[::1]:443"]);
        assert_eq!(any("https://127.0.0.1:5000/v2/"), ["127.0.0.1:5000"]);
    }

    #[test]
    fn none_of_the_wanted_family() {
        let error = resolve("http://127.0.0.1/", IpFamily::Ipv6Only).unwrap_err();
        assert!(matches!(error, Error::HostNotFound), "{error}");
    }
}
