//! When a container that has ended starts again, and how long it waits before that: Docker's rules.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `--restart`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RestartPolicy {
    #[default]
    No,
    /// When the exit status is not 0, at most so many times.
    OnFailure(Option<u32>),
    Always,
    /// The same as `Always` here: nothing is started at boot.
    UnlessStopped,
}

impl RestartPolicy {
    /// Whether a container that ended by itself with this status, and was restarted so many times, starts again.
    pub(crate) fn applies(self, status: i32, restarts: u32) -> bool {
        match self {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure(most) => {
                status != 0 && most.is_none_or(|most| restarts < most)
            }
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        }
    }

    /// Docker's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::OnFailure(_) => "on-failure",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            RestartPolicy::OnFailure(Some(most)) => write!(f, ":{most}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, most) = match text.split_once(':') {
            Some((name, most)) => (name, Some(most)),
            None => (text, None),
        };
        match (name, most) {
            ("no", None) => Ok(RestartPolicy::No),
            ("always", None) => Ok(RestartPolicy::Always),
            ("unless-stopped", None) => Ok(RestartPolicy::UnlessStopped),
            ("on-failure", None) => Ok(RestartPolicy::OnFailure(None)),
            ("on-failure", Some(most)) => match most.parse() {
                // Docker: no limit.
                Ok(0) => Ok(RestartPolicy::OnFailure(None)),
                Ok(most) => Ok(RestartPolicy::OnFailure(Some(most))),
                Err(_) => Err("the number of restarts after \"on-failure:\" is not one".into()),
            },
            ("no" | "always" | "unless-stopped", Some(_)) => {
                Err(format!("{name} takes no number of restarts"))
            }
            _ => Err("expected no, always, unless-stopped or on-failure[:n]".into()),
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A container that ran for so long has come up well: the next pause is a short one again.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// The pauses between restarts: 100 ms, twice as long each time, a minute at most.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The pause before the next start of a container that has run for so long.
    pub(crate) fn next(&mut self, ran: Duration) -> Duration {
        let pause = match self.last {
            Some(last) if ran < GOOD_RUN => (last * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        self.last = Some(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_parsed_strictly() {
        for (text, policy) in [
            ("no", RestartPolicy::No),
            ("always", RestartPolicy::Always),
            ("unless-stopped", RestartPolicy::UnlessStopped),
            ("on-failure", RestartPolicy::OnFailure(None)),
            ("on-failure:3", RestartPolicy::OnFailure(Some(3))),
            ("on-failure:0", RestartPolicy::OnFailure(None)),
        ] {
            assert_eq!(text.parse(), Ok(policy));
        }
        for bad in [
            "",
            "yes",
            "always:3",
            "on-failure:",
            "on-failure:-1",
            "on-failure:x",
            "No",
        ] {
            assert!(bad.parse::<RestartPolicy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_failures_count_and_only_so_often() {
        let policy = RestartPolicy::OnFailure(Some(2));
        assert!(policy.applies(1, 0) && policy.applies(1, 1));
        assert!(!policy.applies(1, 2) && !policy.applies(0, 0));
        assert!(RestartPolicy::Always.applies(0, 1000));
        assert!(!RestartPolicy::No.applies(1, 0));
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_start_over_after_a_good_run() {
        let mut backoff = Backoff::default();
        let mut next = |ran| backoff.next(Duration::from_secs(ran)).as_millis();
        assert_eq!([next(0), next(0), next(1)], [100, 200, 400]);
        for _ in 0..20 {
            next(0);
        }
        assert_eq!(next(0), 60_000);
        assert_eq!(next(10), 100);
    }
}
