//! `check`: what this kernel and machine offer, for people. (What the runtime implements, for engines, is `features`.)
//!
//! What can be tried is tried, in a child with namespaces of its own that go with it; the rest is read. Nothing of the machine changes: no
//! cgroup is made, and nothing is asked of the kernel for which it would load a module.

mod attempt;
mod cgroup;
mod filesystems;
mod kernel;
mod machine;
mod namespaces;
mod network;

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use crate::userns;

/// What `check` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether containers can run: nothing that is essential is missing.
    pub usable: bool,
    /// One entry for each thing looked at, in a fixed order. Names stay the same from version to version.
    pub checks: Vec<Check>,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at, as `namespace.user`.
    pub name: &'static str,
    /// How much of it there is.
    pub status: Availability,
    /// What was found, for people.
    pub value: String,
    /// What to do, in one sentence, where it is not all there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// No container runs without it.
    pub essential: bool,
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// All of it.
    Ok,
    /// Less than containers may ask for.
    Limited,
    /// Nothing.
    Missing,
}

impl Check {
    fn ok(name: &'static str, value: impl Into<String>) -> Self {
        Check {
            name,
            status: Availability::Ok,
            value: value.into(),
            advice: None,
            essential: false,
        }
    }

    fn limited(name: &'static str, value: impl Into<String>, advice: impl Into<String>) -> Self {
        Check {
            status: Availability::Limited,
            advice: Some(advice.into()),
            ..Self::ok(name, value)
        }
    }

    fn missing(name: &'static str, value: impl Into<String>, advice: impl Into<String>) -> Self {
        Check {
            status: Availability::Missing,
            ..Self::limited(name, value, advice)
        }
    }

    /// What an ordinary user can only have in a user namespace, where there is none to be had.
    fn needs_user(name: &'static str) -> Self {
        Self::missing(name, "takes a user namespace", "see namespace.user.")
    }

    /// Nothing runs without it.
    fn essential(self) -> Self {
        Check {
            essential: true,
            ..self
        }
    }
}

/// Looks at the machine as the calling user. `root` is where the state of containers is kept, or why that is not known.
pub fn check(root: Result<PathBuf, String>) -> Report {
    let user = namespaces::user();
    let has_rights = userns::privileged() || user.status == Availability::Ok;
    let checks: Vec<Check> = [
        kernel::checks(),
        namespaces::checks(user, has_rights),
        cgroup::checks(),
        filesystems::checks(has_rights),
        network::checks(),
        machine::checks(root),
    ]
    .into_iter()
    .flatten()
    .collect();
    let usable = !checks
        .iter()
        .any(|check| check.essential && check.status == Availability::Missing);
    Report { usable, checks }
}

/// The text of a file of the kernel, trimmed; `None` where there is none.
fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The number in a file of the kernel.
fn number(path: &str) -> Option<u64> {
    read(path)?.parse().ok()
}
