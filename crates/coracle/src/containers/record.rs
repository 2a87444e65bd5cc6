//! What is kept of a container: the [`Record`] of what was asked for, written once, and the [`Status`] that its monitor keeps up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

use image::Digest;
use runtime::{CgroupManager, Settings};
use serde::{Deserialize, Serialize};

use super::log::LogOptions;
use super::network::NetworkOptions;
use super::restart::RestartPolicy;
use super::userns::UserNamespace;

/// `container.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// 64 hexadecimal digits; also the runtime's id of the container.
    pub(crate) id: String,
    pub(crate) name: String,
    /// RFC 3339.
    pub(crate) created: String,
    /// The runtime's `--root`, and how it makes cgroups.
    pub(crate) root: PathBuf,
    pub(crate) cgroup_manager: CgroupManager,
    pub(crate) rootless: Option<bool>,
    /// The digest of the image's manifest: what the image's removal looks for.
    pub(crate) image: Option<Digest>,
    /// The digest of its configuration.
    pub(crate) image_id: Option<Digest>,
    /// As it was asked for.
    pub(crate) image_name: Option<String>,
    /// The overlay's lower directories, top first.
    pub(crate) layers: Vec<PathBuf>,
    /// The directory that `--rootfs` named.
    pub(crate) rootfs: Option<PathBuf>,
    /// What runs, for people.
    pub(crate) command: Vec<String>,
    pub(crate) tty: bool,
    /// Standard input is a pipe, not /dev/null.
    pub(crate) interactive: bool,
    /// Standard input ends with that of `run`.
    pub(crate) stdin_once: bool,
    /// `--rm`.
    pub(crate) remove: bool,
    pub(crate) restart: RestartPolicy,
    pub(crate) stop_signal: i32,
    /// Seconds between the stop signal and SIGKILL.
    pub(crate) stop_timeout: u32,
    pub(crate) log: LogOptions,
    /// It has the AppArmor profile that is the machine's default whenever it starts.
    #[serde(default)]
    pub(crate) default_apparmor: bool,
    pub(crate) network: NetworkOptions,
    /// `80/tcp`: what the image says of itself.
    #[serde(default)]
    pub(crate) exposed_ports: BTreeSet<String>,
    pub(crate) mounts: Vec<MountPoint>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) privileged: bool,
    pub(crate) cgroup_parent: Option<String>,
    #[serde(default)]
    pub(crate) userns: UserNamespace,
}

/// A mount that was asked for, in the words of Docker's `inspect`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MountPoint {
    /// `bind`, `volume` or `tmpfs`.
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) source: PathBuf,
    pub(crate) destination: PathBuf,
    #[serde(rename = "RW")]
    pub(crate) writable: bool,
    pub(crate) propagation: String,
    /// A volume that nobody gave a name: it goes with the container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) anonymous: bool,
}

impl Record {
    /// The runtime's settings for this container.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            root: self.root.clone(),
            cgroup_manager: self.cgroup_manager,
            rootless: self.rootless,
        }
    }

    /// As `list` and Docker show an id.
    pub(crate) fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// What `list` shows as the image.
    pub(crate) fn origin(&self) -> String {
        let rootfs = self.rootfs.iter().map(|path| path.display().to_string());
        self.image_name
            .iter()
            .cloned()
            .chain(rootfs)
            .next()
            .unwrap_or_default()
    }
}

/// What a container is doing, as far as its monitor is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Its files are there, and nothing runs yet.
    #[default]
    Created,
    Running,
    /// It has ended, and starts again after a pause.
    Restarting,
    Exited,
}

/// `status.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) phase: Phase,
    /// The boot that `phase` is about.
    pub(crate) boot_id: String,
    pub(crate) pid: i32,
    pub(crate) started: Option<SystemTime>,
    pub(crate) finished: Option<SystemTime>,
    pub(crate) exit_code: i32,
    /// The kernel killed a process of it for want of memory.
    pub(crate) oom_killed: bool,
    /// Why it could not be started again, or how it ended.
    pub(crate) error: String,
    pub(crate) restarts: u32,
}

impl Status {
    /// Docker's words: `Up 3 minutes`, `Exited (0) 2 hours ago`.
    pub(crate) fn summary(&self, now: SystemTime, paused: bool) -> String {
        let since = |time: Option<SystemTime>| {
            time.and_then(|time| now.duration_since(time).ok())
                .map_or_else(|| "a while".into(), |span| rough(span.as_secs()))
        };
        match self.phase {
            Phase::Created => "Created".into(),
            Phase::Running if paused => format!("Up {} (Paused)", since(self.started)),
            Phase::Running => format!("Up {}", since(self.started)),
            Phase::Restarting => {
                format!(
                    "Restarting ({}) {} ago",
                    self.exit_code,
                    since(self.finished)
                )
            }
            Phase::Exited => format!("Exited ({}) {} ago", self.exit_code, since(self.finished)),
        }
    }
}

/// Seconds as go-units' `HumanDuration` says them.
fn rough(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// The kernel's name for this boot.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn spans_are_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (30 * 86400, "4 weeks"),
        ] {
            assert_eq!(rough(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_summary_tells_the_exit_code() {
        let finished = SystemTime::UNIX_EPOCH;
        let status = Status {
            phase: Phase::Exited,
            finished: Some(finished),
            exit_code: 3,
            ..Status::default()
        };
        let now = finished + Duration::from_secs(5);
        assert_eq!(status.summary(now, false), "Exited (3) 5 seconds ago");
    }
}
