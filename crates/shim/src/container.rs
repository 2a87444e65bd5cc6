//! What is known of a container and of its processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cgroups::{Cgroup, Location, OomWatch};
use serde::Deserialize;

use crate::error::{Code, Context, Failure, Result};
use crate::io::{Io, Owner, Stdio};
use crate::protos::Timestamp;
use crate::protos::events::TaskCreate;
use crate::protos::options::Options;
use crate::runtime::Runtime;
use crate::ttrpc::Reply;

/// Who may wait for the end of one process at once.
const MAX_WAITERS: usize = 4096;

/// One process of one container; no exec id means its first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) container: String,
    pub(crate) exec: String,
}

impl Key {
    pub(crate) fn new(container: &str, exec: &str) -> Key {
        Key {
            container: container.to_owned(),
            exec: exec.to_owned(),
        }
    }

    pub(crate) fn is_init(&self) -> bool {
        self.exec.is_empty()
    }

    /// The process's own id, which is the container's for its first one.
    pub(crate) fn id(&self) -> &str {
        match self.is_init() {
            true => &self.container,
            false => &self.exec,
        }
    }
}

/// How far a process has come. What is under way has answered nobody yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The runtime makes the container; nobody sees it yet.
    Creating,
    Created,
    /// The runtime starts it.
    Starting,
    Running,
    Stopped,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The exit status, or 128 and the signal.
    pub(crate) status: u32,
    pub(crate) at: Timestamp,
}

/// A process that somebody waits to have deleted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deletion {
    pub(crate) reply: Reply,
    /// Until then its output may be passed on.
    pub(crate) deadline: Instant,
    /// The runtime is at it.
    pub(crate) under_way: bool,
}

/// A process of a container.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) status: Status,
    /// 0 while there is none.
    pub(crate) pid: i32,
    pub(crate) stdio: Stdio,
    pub(crate) io: Io,
    pub(crate) exit: Option<Exit>,
    /// It has ended, and something has to be told before that.
    pub(crate) held_exit: Option<Exit>,
    pub(crate) waiters: Vec<Reply>,
    pub(crate) deletion: Option<Deletion>,
}

impl Process {
    pub(crate) fn new(stdio: Stdio, status: Status) -> Process {
        Process {
            status,
            pid: 0,
            stdio,
            io: Io::default(),
            exit: None,
            held_exit: None,
            waiters: Vec::new(),
            deletion: None,
        }
    }

    /// Whether there is, or is about to be, a process.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.status, Status::Starting | Status::Running)
    }

    /// Has somebody told of its end.
    pub(crate) fn wait(&mut self, reply: Reply) -> Result<()> {
        if self.waiters.len() >= MAX_WAITERS {
            let text = "too many wait for this process";
            return Err(Failure::new(Code::ResourceExhausted, text));
        }
        self.waiters.push(reply);
        Ok(())
    }
}

/// A process besides the first one.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) process: Process,
    /// process.json, until it is started.
    pub(crate) spec: Vec<u8>,
}

/// From what a container is to go on.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) image: PathBuf,
    pub(crate) parent: PathBuf,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) runtime: Runtime,
    pub(crate) options: Options,
    pub(crate) init: Process,
    pub(crate) execs: BTreeMap<String, Exec>,
    pub(crate) paused: bool,
    /// It has no pid namespace of its own, so that its processes survive the first one.
    pub(crate) shares_pids: bool,
    pub(crate) cgroup: Option<Location>,
    pub(crate) oom: Option<(u32, OomWatch)>,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// What is told of it once it is created.
    pub(crate) event: TaskCreate,
}

impl Container {
    /// Where its root file system is mounted, if containerd says how.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner {
            uid: self.options.io_uid,
            gid: self.options.io_gid,
        }
    }

    /// The process with an exec id.
    pub(crate) fn process(&mut self, exec: &str) -> Result<&mut Process> {
        if exec.is_empty() {
            return Ok(&mut self.init);
        }
        match self.execs.get_mut(exec) {
            Some(found) => Ok(&mut found.process),
            None => Err(no_process(exec)),
        }
    }

    pub(crate) fn processes(&mut self) -> impl Iterator<Item = (&str, &mut Process)> {
        let execs = self.execs.iter_mut();
        std::iter::once(("", &mut self.init))
            .chain(execs.map(|(id, exec)| (id.as_str(), &mut exec.process)))
    }

    /// Its cgroup with the directories open.
    pub(crate) fn cgroup(&self) -> Result<Cgroup> {
        let location = self
            .cgroup
            .as_ref()
            .ok_or_else(|| Failure::new(Code::NotFound, "cgroup does not exist"))?;
        Ok(Cgroup::open(location)?)
    }
}

/// Containerd's words for a process that is not there.
pub(crate) fn no_process(exec: &str) -> Failure {
    Failure::new(
        Code::NotFound,
        format!("process does not exist {exec}: not found"),
    )
}

/// A process, also of a container that nobody sees yet.
pub(crate) fn process_of<'a>(
    containers: &'a mut BTreeMap<String, Container>,
    key: &Key,
) -> Result<&'a mut Process> {
    containers
        .get_mut(&key.container)
        .ok_or_else(Failure::no_container)?
        .process(&key.exec)
}

/// What is read of config.json.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

/// Containers with the same value of the first of these share a shim.
const GROUPS: [&str; 2] = [
    "io.containerd.runc.v2.group",
    "io.kubernetes.cri.sandbox-id",
];

impl Config {
    pub(crate) fn read(bundle: &Path) -> Result<Config> {
        let path = bundle.join("config.json");
        let reading = || format!("read {}", path.display());
        let json = fs::read(&path).context(reading)?;
        serde_json::from_slice(&json).context(reading)
    }

    /// The group of containers that it belongs to.
    pub(crate) fn group(&self) -> Option<&str> {
        GROUPS
            .iter()
            .find_map(|name| self.annotations.get(*name))
            .map(String::as_str)
    }

    /// Whether it has no pid namespace of its own: then the end of its first process does not end the others.
    pub(crate) fn shares_pids(&self) -> bool {
        let namespaces = self.linux.namespaces.as_deref().unwrap_or_default();
        !namespaces
            .iter()
            .any(|namespace| namespace.kind == "pid" && namespace.path.is_empty())
    }
}

/// An id that may become part of a path and of a command line.
pub(crate) fn check_id(what: &str, id: &str) -> Result<()> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-+".contains(&byte);
    let starts_well = id
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if starts_well && id.len() <= 255 && id.bytes().all(word) {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "{what}: {id:?} is no id: letters, digits and _.-+ are"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn pods_are_groups() {
        let cri = r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "pod", "x": "y"}}"#;
        assert_eq!(config(cri).group(), Some("pod"));
        let both = r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "pod", "io.containerd.runc.v2.group": "g"}}"#;
        assert_eq!(config(both).group(), Some("g"));
        assert_eq!(config("{}").group(), None);
    }

    #[test]
    fn a_new_pid_namespace_ends_with_its_first_process() {
        let of = |namespaces: &str| {
            config(&format!(r#"{{"linux": {{"namespaces": {namespaces}}}}}"#)).shares_pids()
        };
        assert!(!of(r#"[{"type": "mount"}, {"type": "pid"}]"#));
        assert!(of(r#"[{"type": "pid", "path": "/proc/7/ns/pid"}]"#));
        assert!(of("[]") && of("null"));
        assert!(config("{}").shares_pids());
    }

    #[test]
    fn ids_are_words() {
        for good in ["a", "0123abc", "exec-1_b.c", "_x"] {
            assert_eq!(check_id("id", good), Ok(()), "{good}");
        }
        let long = "x".repeat(256);
        for bad in [
            "", ".", "..", "a/b", "../a", "-flag", "a b", "a\n", "ä", &long,
        ] {
            assert_eq!(
                check_id("id", bad).unwrap_err().code,
                Code::InvalidArgument,
                "{bad}"
            );
        }
    }
}
