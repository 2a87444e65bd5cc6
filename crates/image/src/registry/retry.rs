//! When to try again, and when to give up.

use std::time::{Duration, SystemTime};

use crate::error::Error;

/// How long a registry may take, and how often it is asked again.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes, once connected.
    pub read: Duration,
    /// So often something is tried that fails without any progress.
    pub tries: u32,
    /// The pause before the second try; each further one is twice as long.
    pub pause: Duration,
    /// All pauses of one transfer together.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(20),
            read: Duration::from_secs(60),
            tries: 6,
            pause: Duration::from_millis(500),
            total: Duration::from_secs(300),
        }
    }
}

/// What went wrong with one try.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may go better after a while, which the registry may have named.
    Transient(Error, Option<Duration>),
    /// It will not go better.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

/// The tries of one transfer.
#[derive(Debug)]
pub(super) struct Retry<'a> {
    patience: &'a Patience,
    failures: u32,
    waited: Duration,
}

impl<'a> Retry<'a> {
    pub(super) fn new(patience: &'a Patience) -> Self {
        Retry {
            patience,
            failures: 0,
            waited: Duration::ZERO,
        }
    }

    /// The last try got further than the one before.
    pub(super) fn progress(&mut self) {
        self.failures = 0;
    }

    /// How long to wait before the next try, or the error when there is to be none.
    pub(super) fn after(&mut self, failure: Failure) -> Result<(Duration, Error), Error> {
        let (error, wish) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Transient(error, wish) => (error, wish),
        };
        self.failures += 1;
        let doubled = self
            .patience
            .pause
            .saturating_mul(1 << (self.failures - 1).min(10));
        let pause = wish.unwrap_or(doubled);
        self.waited = self.waited.saturating_add(pause);
        if self.failures >= self.patience.tries || self.waited > self.patience.total {
            return Err(error);
        }
        Ok((pause, error))
    }
}

/// What `Retry-After` asks for: seconds, or a date that is still to come (RFC 9110, 10.2.3).
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = httpdate::parse_http_date(text).ok()?;
    time.duration_since(SystemTime::now()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn transient(wish: Option<u64>) -> Failure {
        Failure::Transient(Error::new(Kind::Failed, "x"), wish.map(Duration::from_secs))
    }

    #[test]
    fn pauses_double_until_patience_ends() {
        let patience = Patience {
            pause: Duration::from_secs(1),
            tries: 4,
            ..Patience::default()
        };
        let mut retry = Retry::new(&patience);
        let pauses: Vec<_> = std::iter::from_fn(|| retry.after(transient(None)).ok())
            .map(|(pause, _)| pause.as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4]);
    }

    #[test]
    fn a_registry_may_name_the_pause_but_not_hold_us_for_ever() {
        let patience = Patience::default();
        let mut retry = Retry::new(&patience);
        assert_eq!(
            retry.after(transient(Some(7))).unwrap().0,
            Duration::from_secs(7)
        );
        assert!(retry.after(transient(Some(86400))).is_err());
        assert!(
            Retry::new(&patience)
                .after(Failure::Final(Error::invalid("x")))
                .is_err()
        );
    }

    #[test]
    fn the_pause_is_named_in_seconds_or_by_its_end() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        let at = |time| retry_after(&httpdate::fmt_http_date(time));
        let soon = at(SystemTime::now() + Duration::from_secs(100)).unwrap();
        assert!((90..=100).contains(&soon.as_secs()), "{soon:?}");
        assert_eq!(at(SystemTime::now() - Duration::from_secs(100)), None);
        for bad in ["", "-1", "soon", "Sat, 99 Nov 2026 13:30:00 GMT"] {
            assert_eq!(retry_after(bad), None, "{bad}");
        }
    }

    #[test]
    fn progress_renews_the_tries() {
        let patience = Patience {
            tries: 2,
            ..Patience::default()
        };
        let mut retry = Retry::new(&patience);
        for _ in 0..5 {
            assert!(retry.after(transient(Some(1))).is_ok());
            retry.progress();
        }
        assert!(retry.after(transient(None)).is_ok());
        assert!(retry.after(transient(None)).is_err());
    }
}
