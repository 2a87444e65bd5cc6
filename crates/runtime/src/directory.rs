//! The directory of one container below the state root, and the files in it:
//!
//! - `journal.json`: the record before the container's cgroup and process exist, so that `delete --force` finds what a killed
//!   `create` left behind, or what belongs to a damaged `state.json`;
//! - `state.json`: the record once there is a process; both are written atomically. Its mode says how far the container has got ([`Stage`]);
//! - `config.json`: the configuration that the container was created with, byte for byte, for `exec`;
//! - `notify/`: what is mounted into a container of a service manager's;
//! - `exec.sock`: where the container's process waits for `start`.
//!
//! The directory itself is the lock.

use std::cell::{Cell, OnceCell};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroups::FreezerPlace;
use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmodat, fstat, fstatat, mkdirat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::de::DeserializeOwned;

use crate::error::IntoCause;
use crate::state::Record;
use crate::sys::directory::names;
use crate::{Context, Error, Kind, Result, Settings, json};

/// Where the container's process waits for `start`.
pub(crate) const EXEC_SOCKET: &str = "exec.sock";
/// The directory that a container with `NOTIFY_SOCKET` sees, and the socket in it.
pub(crate) const NOTIFY_DIRECTORY: &str = "notify";
pub(crate) const NOTIFY_SOCKET: &str = "notify/notify.sock";
const STATE_FILE: &str = "state.json";
const JOURNAL_FILE: &str = "journal.json";
const CONFIG_FILE: &str = "config.json";
/// Most records have less bytes.
const RECORD: usize = 2 << 10;
/// The mode of all files but `state.json`.
const OWN: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// The directory of one container, open.
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    locked: bool,
    on_disk: OnceCell<bool>,
    stage: Cell<Stage>,
}

/// How far a container has got, which the mode of `state.json` says: sticky while what comes next is up to `start`, executable since that was
/// called. Who holds the lock changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// `create` or `run` is at work, or was killed, or somebody has copied the record without its mode.
    Creating,
    /// The container's process waits at [`EXEC_SOCKET`].
    Created,
    /// `start` is at work, or was killed.
    Starting,
    /// The user's program has been executed.
    Started,
}

impl Stage {
    fn mode(self) -> Mode {
        match self {
            Stage::Creating => OWN,
            Stage::Created => OWN | Mode::S_ISVTX,
            Stage::Starting => Mode::S_IRWXU | Mode::S_ISVTX,
            Stage::Started => Mode::S_IRWXU,
        }
    }

    fn of(state_file: FileStat) -> Self {
        let mode = Mode::from_bits_truncate(state_file.st_mode);
        let known = [Stage::Created, Stage::Starting, Stage::Started];
        let stage = known.into_iter().find(|stage| stage.mode() == mode);
        stage.unwrap_or(Stage::Creating)
    }
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
                    // Sticky: the XDG base directory specification's sign that old files there are still wanted.
                    .mode(0o1700)
                    .create(root)
                    .map_err(|error| not_writable(root, error))?;
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
            Err(error) if is_denied(error) => return Err(not_writable(&settings.root, error)),
            made => made.with_context(making)?,
        }
        let opened = Self::open(settings, id).and_then(|mut directory| {
            // Where somebody has removed it again, nothing can be written into it.
            directory.lock_any()?;
            Ok(directory)
        });
        opened.inspect_err(|_| {
            let _ = unlinkat(AT_FDCWD, &path, UnlinkatFlags::RemoveDir);
        })
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
                on_disk: OnceCell::new(),
                stage: Cell::new(Stage::Creating),
            }),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(missing(id)),
            Err(error) => {
                Err(error).with_context(|| format!("open state directory {}", path.display()))
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the exclusive lock, held until this process closes the directory.
    fn lock_any(&mut self) -> Result<()> {
        while let Err(error) = flock(&self.fd, libc::LOCK_EX) {
            if error != Errno::EINTR {
                return Err(error).with_context(|| self.locking());
            }
        }
        self.locked = true;
        Ok(())
    }

    fn locking(&self) -> String {
        format!("lock state directory {}", self.path.display())
    }

    /// The same, of a directory that may be gone by then.
    pub(crate) fn lock(&mut self) -> Result<()> {
        self.lock_any()?;
        match fstat(&self.fd).with_context(|| self.locking())?.st_nlink {
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
    pub(crate) fn is_locked(&self) -> Result<bool> {
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
    pub(crate) fn read_record(&self) -> Result<Record> {
        let path = || self.path.join(STATE_FILE);
        let mut buffer = Vec::new();
        match read_state(&self.fd, STATE_FILE, &mut buffer) {
            Err(Errno::ENOENT) => self.read_journal(),
            Err(error) => Err(error).with_context(|| format!("read {}", path().display())),
            Ok((bytes, stage)) => {
                self.stage.set(stage);
                parse_record(bytes, path)
            }
        }
    }

    /// Reads the journal.
    pub(crate) fn read_journal(&self) -> Result<Record> {
        let path = || self.path.join(JOURNAL_FILE);
        match self.read(JOURNAL_FILE, RECORD) {
            Ok(bytes) => parse_record(&bytes, path),
            // Between taking the id and the journal nothing else exists yet.
            Err(Errno::ENOENT) => Err(missing(
                &self.path.file_name().unwrap_or_default().to_string_lossy(),
            )),
            Err(error) => Err(error).with_context(|| format!("read {}", path().display())),
        }
    }

    /// The record of a container at which nothing is at work, by one look. `None` where something is, or is wrong: that takes a closer look.
    pub(crate) fn read_settled(
        settings: &Settings,
        id: &str,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<(Record<FreezerPlace>, Stage)>> {
        check_id(id)?;
        let mut path = settings.root.join(id);
        path.push(STATE_FILE);
        match read_state(AT_FDCWD, &path, buffer) {
            Ok((bytes, stage @ (Stage::Created | Stage::Started))) => {
                parse_record(bytes, || path).map(|record| Some((record, stage)))
            }
            _ => Ok(None),
        }
    }

    /// How far the container had got when its record was read.
    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// How far it has got by now.
    pub(crate) fn stage_now(&self) -> Result<Stage> {
        let looking = || format!("look at {}", self.path.join(STATE_FILE).display());
        let found = fstatat(&self.fd, STATE_FILE, AtFlags::AT_SYMLINK_NOFOLLOW);
        found.with_context(looking).map(Stage::of)
    }

    /// From now on the container has got so far.
    pub(crate) fn mark(&self, stage: Stage) -> Result<()> {
        let follow = FchmodatFlags::FollowSymlink;
        fchmodat(&self.fd, STATE_FILE, stage.mode(), follow)
            .context("write down how far the container has got")?;
        self.stage.set(stage);
        Ok(())
    }

    /// The records of the other containers below the same state root, as far as they have a process and can be read.
    pub(crate) fn others(&self) -> Result<Vec<Record>> {
        let root = self.path.parent().unwrap_or(&self.path);
        let entries = std::fs::read_dir(root)
            .with_context(|| format!("read state root {}", root.display()))?;
        let others = entries.flatten().map(|entry| entry.path());
        Ok(others
            .filter(|path| *path != self.path)
            .filter_map(|path| std::fs::read(path.join(STATE_FILE)).ok())
            .filter_map(|bytes| json::parse(&bytes).ok())
            .collect())
    }

    /// Writes the journal.
    pub(crate) fn write_journal(&self, record: &Record) -> Result<()> {
        self.replace(JOURNAL_FILE, &encode(record)?, OWN)
    }

    /// Replaces `state.json` atomically.
    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        self.replace(STATE_FILE, &encode(record)?, self.stage().mode())
    }

    /// Keeps the configuration for `exec`: once, and before there is anything to execute in.
    pub(crate) fn write_config(&self, bytes: &[u8]) -> Result<()> {
        self.write(CONFIG_FILE, bytes, OWN)
    }

    /// The configuration that the container was created with.
    pub(crate) fn read_config(&self) -> Result<Vec<u8>> {
        self.read(CONFIG_FILE, 2 << 10)
            .with_context(|| format!("read {}", self.path.join(CONFIG_FILE).display()))
    }

    /// Reads a file that usually has less than `expected` bytes.
    fn read(&self, name: &str, expected: usize) -> nix::Result<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let mut bytes = Vec::new();
        let file = openat(&self.fd, name, flags, Mode::empty())?;
        let length = read_whole(file, expected, &mut bytes)?.len();
        bytes.truncate(length);
        Ok(bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8], mode: Mode) -> Result<()> {
        let temporary = format!("{name}.new");
        self.write(&temporary, bytes, mode)?;
        let writing = || format!("write {}", self.path.join(name).display());
        renameat(&self.fd, temporary.as_str(), &self.fd, name).with_context(writing)?;
        match self.is_on_disk()? {
            true => nix::unistd::fsync(&self.fd).with_context(writing),
            false => Ok(()),
        }
    }

    fn write(&self, name: &str, bytes: &[u8], mode: Mode) -> Result<()> {
        let writing = || format!("write {}", self.path.join(name).display());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        let file = openat(&self.fd, name, flags, mode).with_context(writing)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = nix::unistd::write(&file, rest).with_context(writing)?;
            rest = &rest[written..];
        }
        match self.is_on_disk()? {
            true => nix::unistd::fsync(&file).with_context(writing),
            false => Ok(()),
        }
    }

    /// Whether what is written here may be there after a failure of the machine: on a tmpfs, such as /run, nothing is.
    pub(crate) fn is_on_disk(&self) -> Result<bool> {
        if let Some(known) = self.on_disk.get() {
            return Ok(*known);
        }
        let found = fstatfs(&self.fd);
        let found = found.with_context(|| format!("look at {}", self.path.display()))?;
        let on_disk = found.filesystem_type() != TMPFS_MAGIC;
        Ok(*self.on_disk.get_or_init(|| on_disk))
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

    pub(crate) fn has(&self, name: &str) -> Result<bool> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("look for {}", self.path.join(name).display()))
            }
        }
    }

    /// An address for a socket in this directory: its path, unless that is too long (sun_path has 108 bytes). Then it goes by way of our own
    /// descriptor table, which takes the kernel 50 µs to show.
    pub(crate) fn socket_address(&self, name: &str) -> Result<UnixAddr> {
        UnixAddr::new(&self.path.join(name))
            .or_else(|_| {
                let path = format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd());
                UnixAddr::new(path.as_str())
            })
            .context("address the exec socket")
    }

    /// Connects to [`EXEC_SOCKET`]; `None` when nobody listens there.
    pub(crate) fn connect(&self) -> Result<Option<OwnedFd>> {
        let socket = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .context("open a socket to the container")?;
        match connect(socket.as_raw_fd(), &self.socket_address(EXEC_SOCKET)?) {
            Ok(()) => Ok(Some(socket)),
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(None),
            Err(error) => Err(error).context("connect to the container's process"),
        }
    }

    /// Whether the container's process waits at [`EXEC_SOCKET`]. It sees a connection without a word and goes on waiting.
    pub(crate) fn is_waiting(&self) -> Result<bool> {
        Ok(self.connect()?.is_some())
    }

    /// Removes the directory with all that is in it. The journal is the last of the three files that every container has: until then `delete`
    /// can be repeated.
    pub(crate) fn remove(&self) -> Result<()> {
        for name in [STATE_FILE, CONFIG_FILE, JOURNAL_FILE] {
            self.remove_file(name)?;
        }
        let removing = || format!("remove {}", self.path.display());
        let remove = || match unlinkat(AT_FDCWD, &self.path, UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            removed => removed,
        };
        // Most have no others.
        match remove() {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            removed => return removed.with_context(removing),
        }
        for name in names(self.as_fd()).with_context(removing)? {
            match name.to_string_lossy().as_ref() {
                NOTIFY_DIRECTORY => {
                    self.remove_file(NOTIFY_SOCKET)?;
                    unlinkat(&self.fd, NOTIFY_DIRECTORY, UnlinkatFlags::RemoveDir)
                        .with_context(removing)?;
                }
                name => self.remove_file(name)?,
            }
        }
        remove().with_context(removing)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn is_denied(error: Errno) -> bool {
    matches!(error, Errno::EACCES | Errno::EPERM | Errno::EROFS)
}

/// The state root cannot be made, or nothing can be made in it.
fn not_writable(root: &Path, error: impl IntoCause) -> Error {
    let (_, cause) = error.into_cause();
    Error::failed(format!(
        "create state root {}: {cause}: choose a directory that this user may write to with --root, or with XDG_RUNTIME_DIR \
         (a proper login sets it to /run/user/UID)",
        root.display()
    ))
}

fn flock(fd: &OwnedFd, operation: i32) -> nix::Result<()> {
    crate::sys::process::flock(fd.as_fd(), operation)
}

/// Reads a `state.json`, and how far its container has got.
fn read_state<'a>(
    dir: impl AsFd,
    path: &(impl NixPath + ?Sized),
    buffer: &'a mut Vec<u8>,
) -> nix::Result<(&'a [u8], Stage)> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = openat(dir, path, flags, Mode::empty())?;
    let stage = Stage::of(fstat(&file)?);
    Ok((read_whole(file, RECORD, buffer)?, stage))
}

/// Reads a file that usually has less than `expected` bytes into a buffer that grows as is needed.
fn read_whole(file: OwnedFd, expected: usize, buffer: &mut Vec<u8>) -> nix::Result<&[u8]> {
    // Not by way of the stack, where it would take a page that nobody has needed yet.
    buffer.resize(buffer.len().max(expected), 0);
    let mut length = 0;
    loop {
        length += nix::unistd::read(&file, &mut buffer[length..])?;
        // A file that is replaced and never changed has come to its end where it gives less than was asked for.
        if length < buffer.len() {
            return Ok(&buffer[..length]);
        }
        buffer.resize(2 * length, 0);
    }
}

/// Parses the bytes of a state file or journal.
pub(crate) fn parse_record<Cgroup: DeserializeOwned>(
    bytes: &[u8],
    path: impl FnOnce() -> PathBuf,
) -> Result<Record<Cgroup>> {
    json::parse(bytes).map_err(|error| {
        let text = format!(
            "{} is damaged: {error}; delete --force removes the container",
            path().display()
        );
        Error::new(Kind::Damaged, text)
    })
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
}
