//! What is kept of a container: one directory below the state root, with
//!
//! - `journal.json`: the [`Record`] before the container's cgroup and process exist, so that `delete --force` finds what a killed
//!   `create` left behind, or what belongs to a damaged `state.json`;
//! - `state.json`: the record once there is a process; both are written atomically;
//! - `config.json`: the configuration that the container was created with, byte for byte, for `exec`;
//! - `exec.sock`: where the container's process waits for `start` (`creating.sock` until `create` is through).
//!
//! The status is derived from the process, the socket and the freezer, and never stored.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};
use oci_spec::runtime::Hook;
use serde::{Deserialize, Serialize};

use crate::{Context, Error, Kind, Result, Settings, procfs};

/// Where the container's process waits for `start`.
pub(crate) const EXEC_SOCKET: &str = "exec.sock";
/// The same socket while `create` is still at work; an empty file while `run` is.
pub(crate) const CREATING_SOCKET: &str = "creating.sock";
const STATE_FILE: &str = "state.json";
const JOURNAL_FILE: &str = "journal.json";
const CONFIG_FILE: &str = "config.json";

/// What is kept of a container in `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
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
    pub cgroup: Option<cgroups::Location>,
    /// Hooks that run once the container has started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// Hooks that run once the container is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// A process that can be recognised again: a pid alone is reused by the kernel, and starts over at the next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessId {
    /// As the runtime's own pid namespace numbers it.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks since boot.
    pub start_time: u64,
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
}

impl ProcessId {
    /// The identity of a process that exists.
    pub(crate) fn of(pid: Pid) -> Result<Self> {
        let stat = Stat::read(pid.as_raw()).with_context(|| format!("read /proc/{pid}/stat"))?;
        Ok(ProcessId {
            pid: pid.as_raw(),
            start_time: stat.start_time,
            boot_id: boot_id()?.to_owned(),
        })
    }

    /// Whether this very process is still there and has not ended (a zombie has).
    pub(crate) fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| {
            stat.start_time == self.start_time
                && !matches!(stat.state, b'Z' | b'X')
                && boot_id().is_ok_and(|boot_id| boot_id == self.boot_id)
        })
    }

    /// A pidfd of this very process; `None` when it has ended or the pid now belongs to another.
    pub(crate) fn open(&self) -> Result<Option<OwnedFd>> {
        match crate::sys::process::pidfd_open(Pid::from_raw(self.pid)) {
            // Checked after opening: the descriptor cannot change its process any more.
            Ok(pidfd) => Ok(self.is_alive().then_some(pidfd)),
            Err(Errno::ESRCH) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("open process {}", self.pid)),
        }
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

/// Read once: it does not change under a running process.
fn boot_id() -> Result<&'static str> {
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
    Container::open(settings, id)?.state()
}

/// What hooks get on standard input: runtime-spec's state, without runc's additions.
pub(crate) fn for_hooks(record: &Record, pid: i32, status: Status) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct HookState<'a> {
        oci_version: &'a str,
        id: &'a str,
        status: Status,
        #[serde(skip_serializing_if = "is_zero")]
        pid: i32,
        bundle: &'a Path,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
    }
    fn is_zero(pid: &i32) -> bool {
        *pid == 0
    }
    let state = HookState {
        oci_version: &record.oci_version,
        id: &record.id,
        status,
        pid,
        bundle: &record.bundle,
        annotations: &record.annotations,
    };
    serde_json::to_vec(&state).unwrap_or_default()
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
        let record = directory.read_file(JOURNAL_FILE)?;
        Ok(Container {
            directory,
            record,
            damaged: true,
        })
    }

    /// The status, from what there is.
    pub(crate) fn status(&self) -> Result<Status> {
        let Some(init) = &self.record.init else {
            // `create` holds the lock for as long as it is at work.
            return Ok(if self.directory.is_locked()? {
                Status::Creating
            } else {
                Status::Stopped
            });
        };
        if !init.is_alive() {
            return Ok(Status::Stopped);
        }
        // Without the lock its creator was killed, and did not get to removing it.
        if self.directory.has(CREATING_SOCKET)? && self.directory.is_locked()? {
            return Ok(Status::Creating);
        }
        if self.is_frozen()? {
            return Ok(Status::Paused);
        }
        let waits = self.directory.has(EXEC_SOCKET)? && self.directory.is_listening(EXEC_SOCKET)?;
        Ok(if waits {
            Status::Created
        } else {
            Status::Running
        })
    }

    fn is_frozen(&self) -> Result<bool> {
        match &self.record.cgroup {
            Some(location) => Ok(location.is_frozen()?),
            None => Ok(false),
        }
    }

    /// The container's cgroup, unless it has none of its own.
    pub(crate) fn cgroup(&self) -> Result<Option<cgroups::Cgroup>> {
        Ok(self
            .record
            .cgroup
            .as_ref()
            .map(cgroups::Cgroup::open)
            .transpose()?)
    }

    /// The cgroup, for an operation that is nothing without one.
    pub(crate) fn required_cgroup(&self) -> Result<cgroups::Cgroup> {
        let message = || {
            Error::failed(format!(
                "container {} has no cgroup of its own",
                self.record.id
            ))
        };
        self.cgroup()?.ok_or_else(message)
    }

    /// The state as it is printed.
    pub(crate) fn state(&self) -> Result<State> {
        let status = self.status()?;
        let record = &self.record;
        Ok(State {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid: if status == Status::Stopped {
                0
            } else {
                record.init.as_ref().map_or(0, |init| init.pid)
            },
            status,
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: record.owner.clone(),
        })
    }
}

/// The directory of one container, open.
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    locked: bool,
}

impl Directory {
    /// Makes the directory of a new container, and with it takes the id: only one `create` of an id gets past here.
    pub(crate) fn create(settings: &Settings, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = settings.root.join(id);
        let making = || format!("create state directory {}", path.display());
        let made = match mkdirat(AT_FDCWD, &path, Mode::S_IRWXU) {
            Err(Errno::ENOENT) => {
                use std::os::unix::fs::DirBuilderExt;
                let root = &settings.root;
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(root)
                    .with_context(|| format!("create state root {}", root.display()))?;
                mkdirat(AT_FDCWD, &path, Mode::S_IRWXU)
            }
            made => made,
        };
        match made {
            Err(Errno::EEXIST) => {
                return Err(Error::new(
                    Kind::Exists,
                    format!("container with given ID already exists: {id}"),
                ));
            }
            made => made.with_context(making)?,
        }
        let mut directory = Self::open(settings, id)?;
        directory.lock()?;
        Ok(directory)
    }

    /// Opens the directory of an existing container.
    pub(crate) fn open(settings: &Settings, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = settings.root.join(id);
        match openat(
            AT_FDCWD,
            &path,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        ) {
            Ok(fd) => Ok(Directory {
                fd,
                path,
                locked: false,
            }),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(missing(id)),
            Err(error) => {
                Err(error).with_context(|| format!("open state directory {}", path.display()))
            }
        }
    }

    /// Takes the exclusive lock, held until this process closes the directory. The directory may be gone by then.
    pub(crate) fn lock(&mut self) -> Result<()> {
        let locking = || format!("lock state directory {}", self.path.display());
        while let Err(error) = flock(&self.fd, libc::LOCK_EX) {
            if error != Errno::EINTR {
                return Err(error).with_context(locking);
            }
        }
        self.locked = true;
        match fstat(&self.fd).with_context(locking)?.st_nlink {
            0 => Err(missing(
                &self.path.file_name().unwrap_or_default().to_string_lossy(),
            )),
            _ => Ok(()),
        }
    }

    /// Gives the lock back, and keeps the directory open.
    pub(crate) fn unlock(&mut self) -> Result<()> {
        self.locked = false;
        flock(&self.fd, libc::LOCK_UN).context("unlock the state directory")
    }

    /// Whether another command that changes the container is at work.
    fn is_locked(&self) -> Result<bool> {
        if self.locked {
            return Ok(false);
        }
        match flock(&self.fd, libc::LOCK_SH | libc::LOCK_NB) {
            Ok(()) => {
                let _ = flock(&self.fd, libc::LOCK_UN);
                Ok(false)
            }
            Err(Errno::EWOULDBLOCK) => Ok(true),
            Err(error) => Err(error).context("query the state lock"),
        }
    }

    /// Reads `state.json`; before there is a process, the journal.
    fn read_record(&self) -> Result<Record> {
        match self.read_file(STATE_FILE) {
            Err(error) if error.kind() == Kind::NotFound => self.read_file(JOURNAL_FILE),
            record => record,
        }
    }

    fn read_file(&self, name: &str) -> Result<Record> {
        let shown = || self.path.join(name).display().to_string();
        let bytes = match self.read(name) {
            Ok(bytes) => bytes,
            // Between taking the id and the journal nothing else exists yet.
            Err(Errno::ENOENT) => {
                return Err(missing(
                    &self.path.file_name().unwrap_or_default().to_string_lossy(),
                ));
            }
            Err(error) => return Err(error).with_context(|| format!("read {}", shown())),
        };
        serde_json::from_slice(&bytes).map_err(|error| {
            let text = format!(
                "{} is damaged: {error}; delete --force removes the container",
                shown()
            );
            Error::new(Kind::Damaged, text)
        })
    }

    /// Writes the journal.
    pub(crate) fn write_journal(&self, record: &Record) -> Result<()> {
        self.replace(JOURNAL_FILE, &encode(record)?)
    }

    /// Replaces `state.json` atomically.
    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        self.replace(STATE_FILE, &encode(record)?)
    }

    /// Keeps the configuration for `exec`.
    pub(crate) fn write_config(&self, bytes: &[u8]) -> Result<()> {
        self.replace(CONFIG_FILE, bytes)
    }

    /// The configuration that the container was created with.
    pub(crate) fn read_config(&self) -> Result<Vec<u8>> {
        self.read(CONFIG_FILE)
            .with_context(|| format!("read {}", self.path.join(CONFIG_FILE).display()))
    }

    fn read(&self, name: &str) -> nix::Result<Vec<u8>> {
        let file = openat(
            &self.fd,
            name,
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let mut bytes = vec![0; fstat(&file)?.st_size as usize + 1];
        let mut length = 0;
        loop {
            match nix::unistd::read(&file, &mut bytes[length..])? {
                0 => break,
                read => length += read,
            }
            if length == bytes.len() {
                bytes.resize(length * 2, 0);
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = format!("{name}.new");
        let writing = || format!("write {}", self.path.join(name).display());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        let file = openat(
            &self.fd,
            temporary.as_str(),
            flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        )
        .with_context(writing)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = nix::unistd::write(&file, rest).with_context(writing)?;
            rest = &rest[written..];
        }
        nix::unistd::fsync(&file).with_context(writing)?;
        renameat(&self.fd, temporary.as_str(), &self.fd, name).with_context(writing)?;
        nix::unistd::fsync(&self.fd).with_context(writing)
    }

    /// Marks the container as one that is being created, where no socket does.
    pub(crate) fn mark_creating(&self) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC;
        openat(&self.fd, CREATING_SOCKET, flags, Mode::S_IRUSR)
            .map(drop)
            .context("mark the container as being created")
    }

    /// `create` is through: the container's process now waits at [`EXEC_SOCKET`].
    pub(crate) fn publish_socket(&self) -> Result<()> {
        renameat(&self.fd, CREATING_SOCKET, &self.fd, EXEC_SOCKET)
            .context("publish the exec socket")
    }

    /// Removes a file of the directory; a missing one is fine.
    pub(crate) fn remove_file(&self, name: &str) -> Result<()> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("remove {}", self.path.join(name).display()))
            }
        }
    }

    fn has(&self, name: &str) -> Result<bool> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("look for {}", self.path.join(name).display()))
            }
        }
    }

    /// An address for a socket in this directory. It goes by way of our own descriptor table, so that the length of the state
    /// root's path does not matter (sun_path has 108 bytes).
    pub(crate) fn socket_address(&self, name: &str) -> Result<UnixAddr> {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd());
        UnixAddr::new(path.as_str()).context("address the exec socket")
    }

    /// Connects to a listening socket; `None` when nobody listens.
    pub(crate) fn connect(&self, name: &str) -> Result<Option<OwnedFd>> {
        let socket = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .context("open a socket to the container")?;
        match connect(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            &self.socket_address(name)?,
        ) {
            Ok(()) => Ok(Some(socket)),
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(None),
            Err(error) => Err(error).context("connect to the container's process"),
        }
    }

    /// Whether the container's process waits at the socket. It sees a connection without a word and goes on waiting.
    fn is_listening(&self, name: &str) -> Result<bool> {
        Ok(self.connect(name)?.is_some())
    }

    /// Removes the directory with all that is in it. The journal goes last: until then `delete` can be repeated.
    pub(crate) fn remove(&self) -> Result<()> {
        let removing = || format!("remove {}", self.path.display());
        let mut entries = Dir::openat(
            &self.fd,
            ".",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .with_context(removing)?;
        for entry in entries.iter() {
            let entry = entry.with_context(removing)?;
            let name = entry.file_name().to_string_lossy();
            if !matches!(name.as_ref(), "." | ".." | JOURNAL_FILE) {
                self.remove_file(&name)?;
            }
        }
        self.remove_file(JOURNAL_FILE)?;
        match unlinkat(AT_FDCWD, &self.path, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error).with_context(removing),
        }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn flock(fd: &OwnedFd, operation: i32) -> nix::Result<()> {
    crate::sys::process::flock(fd.as_fd(), operation)
}

fn encode(record: &Record) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|error| Error::failed(format!("encode the state: {error}")))
}

fn missing(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("container does not exist: {id}"))
}

/// An id is one path component of a restricted alphabet (runc's rule).
pub(crate) fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    match id {
        "" => Err(Error::invalid("container id cannot be empty")),
        "." | ".." => Err(Error::invalid(format!("invalid container ID format: {id}"))),
        id if id.len() > 1024 || !id.chars().all(allowed) => {
            Err(Error::invalid(format!("invalid container ID format: {id}")))
        }
        _ => Ok(()),
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
    fn ids() {
        for good in ["a", "web-1", "A_b+c.d", "...", &"x".repeat(1024)] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "ä",
            "a:b",
            "a@b",
            &"x".repeat(1025),
        ] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reused_pid_is_a_stranger() {
        let mut me = ProcessId::of(Pid::this()).unwrap();
        assert!(me.is_alive());
        me.start_time += 1;
        assert!(!me.is_alive());
        me.start_time -= 1;
        me.boot_id = "another boot".into();
        assert!(!me.is_alive());
    }
}
