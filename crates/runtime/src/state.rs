//! What is known of a container: the [`Record`] that is kept, and the [`Status`] that is derived from the process, the socket and the
//! freezer, and never stored.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cgroups::{FreezerPlace, Location};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::Pid;
use oci_spec::runtime::Hook;
use serde::{Deserialize, Serialize};

use crate::directory::{Directory, Stage};
use crate::intel_rdt::Group;
use crate::{Context, Error, Kind, Result, Settings, procfs};

/// What is kept of a container in `state.json`. Of its cgroup `state` and `list` read no more than they need.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record<Cgroup = Location> {
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// /proc/sys/kernel/random/boot_id as it was at `create`: no process and no cgroup on record outlives that boot. `None` where the record
    /// itself does not, being on a tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The process of the container, once there is one.
    pub init: Option<ProcessId>,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// When the container was created (RFC 3339, nanoseconds).
    pub created: String,
    /// Name of the user that created it.
    pub owner: String,
    /// The configuration's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The container's cgroup, unless it stays in its creator's.
    pub cgroup: Option<Cgroup>,
    /// The pipes that are its standard streams, as criu names them; empty for each that is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stdio: Vec<String>,
    /// Its share of caches and memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<Group>,
    /// Hooks that run once the container has started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// Hooks that run once the container is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

impl<Cgroup> Record<Cgroup> {
    /// Whether it was made since the machine started. Whoever has the pid or lives in the cgroup of an older one is a stranger.
    pub(crate) fn is_of_this_boot(&self) -> Result<bool> {
        match &self.boot_id {
            Some(known) => Ok(known == boot_id()?),
            None => Ok(true),
        }
    }

    /// Whether the container's process is still there and has not ended.
    pub(crate) fn is_alive(&self) -> Result<bool> {
        match &self.init {
            Some(init) => Ok(init.is_alive()? && self.is_of_this_boot()?),
            None => Ok(false),
        }
    }

    /// The status of a container at which nothing is at work: its process waits for `start`, or it has been started.
    fn status_settled(
        &self,
        is_started: bool,
        is_frozen: impl FnOnce(&Cgroup) -> cgroups::Result<bool>,
    ) -> Result<Status> {
        if !self.is_alive()? {
            return Ok(Status::Stopped);
        }
        Ok(match self.cgroup.as_ref().map_or(Ok(false), is_frozen)? {
            true => Status::Paused,
            false if is_started => Status::Running,
            false => Status::Created,
        })
    }

    /// The state as it is printed.
    fn into_state(self, status: Status) -> State {
        State {
            oci_version: self.oci_version,
            id: self.id,
            pid: match (status, self.init) {
                (Status::Stopped, _) | (_, None) => 0,
                (_, Some(init)) => init.pid,
            },
            status,
            bundle: self.bundle,
            rootfs: self.rootfs,
            created: self.created,
            annotations: self.annotations,
            owner: self.owner,
        }
    }

    /// A pidfd of the container's process; `None` when there is none, or it has ended.
    pub(crate) fn open_init(&self) -> Result<Option<OwnedFd>> {
        match &self.init {
            Some(init) if self.is_of_this_boot()? => init.open(),
            _ => Ok(None),
        }
    }
}

impl Record {
    /// Whether its processes stand still.
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        match &self.cgroup {
            Some(location) => Ok(location.is_frozen()?),
            None => Ok(false),
        }
    }
}

/// A process that can be recognised again, for as long as the machine is up: a pid alone is reused by the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessId {
    /// As the runtime's own pid namespace numbers it.
    pub pid: i32,
    /// The inode of its pidfd, which no other process of this boot has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
    /// Where pidfds have no inodes of their own (before Linux 6.9): field 22 of /proc/PID/stat, clock ticks since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_time: Option<u64>,
}

impl ProcessId {
    /// The identity of a process that exists, and its pidfd.
    pub(crate) fn of(pid: Pid, pidfd: BorrowedFd<'_>) -> Result<Self> {
        let looking = || format!("look at process {pid}");
        let of_pidfs = fstatfs(pidfd).with_context(looking)?.filesystem_type() == PID_FS_MAGIC;
        // Where they have 32 bits they come round.
        let (inode, start_time) = match of_pidfs && cfg!(target_pointer_width = "64") {
            true => (Some(fstat(pidfd).with_context(looking)?.st_ino), None),
            false => {
                let stat = Stat::read(pid.as_raw()).with_context(looking)?;
                (None, Some(stat.start_time))
            }
        };
        Ok(ProcessId {
            pid: pid.as_raw(),
            inode,
            start_time,
        })
    }

    /// Whether this very process is still there and has not ended.
    fn is_alive(&self) -> Result<bool> {
        match self.inode {
            Some(_) => Ok(self.open()?.is_some()),
            None => self.is_alive_by_start_time(),
        }
    }

    fn is_alive_by_start_time(&self) -> Result<bool> {
        let stat = match Stat::read(self.pid) {
            Ok(stat) => stat,
            Err(Errno::ENOENT | Errno::ESRCH) => return Ok(false),
            // Whatever else went wrong says nothing about the process.
            Err(error) => {
                return Err(error).with_context(|| format!("read /proc/{}/stat", self.pid));
            }
        };
        // A zombie has.
        let ended = matches!(stat.state, b'Z' | b'X');
        Ok(Some(stat.start_time) == self.start_time && !ended)
    }

    /// A pidfd of this very process; `None` when it has ended or the pid now belongs to another.
    fn open(&self) -> Result<Option<OwnedFd>> {
        let opening = || format!("open process {}", self.pid);
        let pidfd = match crate::sys::process::pidfd_open(Pid::from_raw(self.pid)) {
            Ok(pidfd) => pidfd,
            // EINVAL: what kernels before 7.0 say of one that is being reaped. It, or ENOENT since 6.15: the number is a thread's.
            Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error).with_context(opening),
        };
        // Checked after opening: the descriptor cannot change its process any more.
        let is_alive = match self.inode {
            Some(inode) => {
                let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                fstat(&pidfd).with_context(opening)?.st_ino == inode
                    && poll(&mut ended, PollTimeout::ZERO).with_context(opening)? == 0
            }
            None => self.is_alive_by_start_time()?,
        };
        Ok(is_alive.then_some(pidfd))
    }
}

/// `PID_FS_MAGIC` of linux/magic.h, which libc does not have.
const PID_FS_MAGIC: FsType = FsType(0x5049_4446);

/// The processes that share a container's pid namespace.
pub(crate) struct PidNamespace {
    init: i32,
    /// The link in /proc/PID/ns; `None` where it is the runtime's own, or cannot be seen: then only init is known to belong to the container.
    link: Option<PathBuf>,
}

impl PidNamespace {
    fn of(init: i32) -> Self {
        let own = fs::read_link("/proc/self/ns/pid").ok();
        PidNamespace {
            init,
            link: Self::link(init).filter(|link| Some(link) != own.as_ref()),
        }
    }

    fn link(pid: i32) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
    }

    /// The members that can be seen, in ascending order.
    pub(crate) fn members(&self) -> Vec<i32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids: Vec<_> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| self.has(*pid))
            .collect();
        pids.sort_unstable();
        pids
    }

    /// A pidfd of a process that is still a member once it is open.
    pub(crate) fn open(&self, pid: i32) -> Option<OwnedFd> {
        let pidfd = crate::sys::process::pidfd_open(Pid::from_raw(pid)).ok()?;
        self.has(pid).then_some(pidfd)
    }

    fn has(&self, pid: i32) -> bool {
        pid == self.init || self.link.is_some() && Self::link(pid) == self.link
    }
}

/// What is needed of /proc/PID/stat.
struct Stat {
    state: u8,
    start_time: u64,
}

impl Stat {
    fn read(pid: i32) -> nix::Result<Self> {
        let bytes = procfs::read_small(&format!("/proc/{pid}/stat"))?;
        Self::parse(&String::from_utf8_lossy(&bytes)).ok_or(Errno::EINVAL)
    }

    /// The command name, in parentheses, may itself hold spaces and parentheses: count from the last one.
    fn parse(stat: &str) -> Option<Self> {
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        Some(Stat {
            state,
            start_time: fields.nth(18)?.parse().ok()?,
        })
    }
}

/// The kernel's name for this boot. Read once: it does not change under a running process.
pub(crate) fn boot_id() -> Result<&'static str> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(known) = BOOT_ID.get() {
        return Ok(known);
    }
    let bytes =
        procfs::read_small("/proc/sys/kernel/random/boot_id").context("read the boot id")?;
    Ok(BOOT_ID.get_or_init(|| String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

/// runtime-spec's status, and `paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// Set up, waiting for `start`.
    Created,
    /// The user's process runs.
    Running,
    /// Frozen.
    Paused,
    /// The process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// The state of a container as `state` and `list` print it (runtime-spec runtime.md "State", with runc's additions).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The pid of its process, 0 when stopped.
    pub pid: i32,
    /// What it is doing.
    pub status: Status,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// When it was created (RFC 3339, nanoseconds).
    pub created: String,
    /// The configuration's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Name of the user that created it.
    pub owner: String,
}

/// The state of one container.
pub fn state(settings: &Settings, id: &str) -> Result<State> {
    state_by(settings, id, &mut Vec::new())
}

/// The same, with memory to read the record into, which is worth having when there are many.
pub(crate) fn state_by(settings: &Settings, id: &str, buffer: &mut Vec<u8>) -> Result<State> {
    if let Some((record, stage)) = Directory::read_settled(settings, id, buffer)? {
        let is_started = stage == Stage::Started;
        let status = record.status_settled(is_started, FreezerPlace::is_frozen)?;
        return Ok(record.into_state(status));
    }
    let container = Container::open(settings, id)?;
    let status = container.status()?;
    Ok(container.record.into_state(status))
}

/// runtime-spec's state, without runc's additions: what hooks and seccomp agents get.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OciState<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> OciState<'a> {
    /// A `pid` of 0 is none.
    pub(crate) fn new(record: &'a Record, pid: i32, status: Status) -> Self {
        OciState {
            oci_version: &record.oci_version,
            id: &record.id,
            status,
            pid: Some(pid).filter(|pid| *pid != 0),
            bundle: &record.bundle,
            annotations: &record.annotations,
        }
    }
}

/// What hooks get on standard input.
pub(crate) fn for_hooks(record: &Record, pid: i32, status: Status) -> Vec<u8> {
    serde_json::to_vec(&OciState::new(record, pid, status)).unwrap_or_default()
}

/// A container's directory and its record.
pub(crate) struct Container {
    /// Its directory.
    pub directory: Directory,
    /// What is kept of it.
    pub record: Record,
    /// The record is only the journal's, though there was a process once.
    pub damaged: bool,
}

impl Container {
    /// Reads a container without locking it: `state.json` is replaced atomically, so this is a consistent view.
    pub(crate) fn open(settings: &Settings, id: &str) -> Result<Self> {
        let directory = Directory::open(settings, id)?;
        let record = directory.read_record()?;
        Ok(Container {
            directory,
            record,
            damaged: false,
        })
    }

    /// Opens a container for changing it: waits until no other command does.
    pub(crate) fn lock(settings: &Settings, id: &str) -> Result<Self> {
        let mut directory = Directory::open(settings, id)?;
        directory.lock()?;
        let record = directory.read_record()?;
        Ok(Container {
            directory,
            record,
            damaged: false,
        })
    }

    /// Opens a container whose `state.json` cannot be read, by its journal.
    pub(crate) fn lock_damaged(settings: &Settings, id: &str) -> Result<Self> {
        let mut directory = Directory::open(settings, id)?;
        directory.lock()?;
        let record = directory.read_journal()?;
        Ok(Container {
            directory,
            record,
            damaged: true,
        })
    }

    /// The status, from what there is.
    pub(crate) fn status(&self) -> Result<Status> {
        match self.directory.stage() {
            Stage::Created => return self.status_settled(false),
            Stage::Started => return self.status_settled(true),
            Stage::Creating | Stage::Starting => {}
        }
        if self.record.init.is_none() {
            // `create` holds the lock for as long as it is at work.
            return Ok(if self.directory.is_locked()? {
                Status::Creating
            } else {
                Status::Stopped
            });
        }
        if !self.record.is_alive()? {
            return Ok(Status::Stopped);
        }
        if self.is_creating()? {
            return Ok(Status::Creating);
        }
        // A `start` that is at work, or was killed, may have got to the container's process, or not.
        let is_waiting = self.directory.is_waiting()?;
        self.status_settled(!is_waiting)
    }

    fn status_settled(&self, is_started: bool) -> Result<Status> {
        self.record.status_settled(is_started, Location::is_frozen)
    }

    /// Whether `create` or `run` is still at work, with a process that is there already.
    pub(crate) fn is_creating(&self) -> Result<bool> {
        // Without the lock its creator was killed; with it, it may have come to its end since the record was read, and be followed by another.
        Ok(self.directory.stage() == Stage::Creating
            && self.directory.is_locked()?
            && self.directory.stage_now()? == Stage::Creating)
    }

    /// The container's cgroup, unless it has none of its own, or a reboot has taken it.
    pub(crate) fn cgroup(&self) -> Result<Option<cgroups::Cgroup>> {
        match &self.record.cgroup {
            Some(location) if self.record.is_of_this_boot()? => {
                Ok(Some(cgroups::Cgroup::open(location)?))
            }
            _ => Ok(None),
        }
    }

    /// Where to look for the processes of a container without a cgroup.
    pub(crate) fn pid_namespace(&self) -> Result<PidNamespace> {
        let init = self.record.init.as_ref().map(|init| init.pid);
        init.map(PidNamespace::of)
            .ok_or_else(|| Error::new(Kind::WrongStatus, "container not running"))
    }

    /// The cgroup, for an operation that is nothing without one.
    pub(crate) fn required_cgroup(&self) -> Result<cgroups::Cgroup> {
        let message = || {
            Error::failed(format!(
                "container {} has no cgroup of its own: it was created without the right to make one",
                self.record.id
            ))
        };
        self.cgroup()?.ok_or_else(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_parentheses_in_the_name() {
        let line = "77 (a) b (c) S 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.start_time), (b'S', 987654));
        assert!(Stat::parse("77 (a").is_none());
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn a_reused_pid_is_a_stranger() {
        let pidfd = crate::sys::process::pidfd_open(Pid::this()).unwrap();
        let me = ProcessId::of(Pid::this(), pidfd.as_fd()).unwrap();
        let start_time = Stat::read(me.pid).unwrap().start_time;
        let with = |inode, start_time| ProcessId {
            pid: me.pid,
            inode,
            start_time,
        };
        let next = |number: u64| number + 1;
        for known in [me.clone(), with(None, Some(start_time))] {
            assert!(known.is_alive().unwrap() && known.open().unwrap().is_some());
            let other = with(known.inode.map(next), known.start_time.map(next));
            assert!(!other.is_alive().unwrap() && other.open().unwrap().is_none());
        }
        let unknown = with(None, None);
        assert!(!unknown.is_alive().unwrap() && unknown.open().unwrap().is_none());
    }

    #[test]
    fn a_pid_that_is_now_a_threads_is_nobodys() {
        std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                tell.send(nix::unistd::gettid()).unwrap();
                let _ = ended.recv();
            });
            let thread = ProcessId {
                pid: told.recv().unwrap().as_raw(),
                inode: Some(1),
                start_time: None,
            };
            assert!(!thread.is_alive().unwrap());
            drop(end);
        });
    }
}
