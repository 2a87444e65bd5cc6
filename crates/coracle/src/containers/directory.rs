//! The containers of a store: a directory for each, and a link for each name.
//!
//! ```text
//! STORE/containers/ID/   container.json status.json config.json log control.sock stdin stdout stderr rootfs/ …
//! STORE/names/NAME       → ID; the directory `names` is the lock under which names are given
//! ```
//!
//! The directory of a container is a lock too. Its monitor holds it for as long as it lives, so whoever gets it knows that there is none.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{UnlinkatFlags, mkfifoat, unlinkat};
use runtime::{Context, Error, Kind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::control::Connection;
use super::id;
use super::record::{Record, Status};
use super::userns::{self, UserNamespace};

const RECORD_FILE: &str = "container.json";
const STATUS_FILE: &str = "status.json";
/// The runtime's configuration.
pub(crate) const CONFIG_FILE: &str = "config.json";
/// Where the monitor listens.
pub(crate) const SOCKET: &str = "control.sock";

/// A store, as far as containers are concerned.
#[derive(Clone, Debug)]
pub(crate) struct Containers {
    store: PathBuf,
}

impl Containers {
    /// The containers of the store in a directory, which need not exist.
    pub(crate) fn of(store: &Path) -> Self {
        Containers {
            store: store.to_owned(),
        }
    }

    /// Those that a container is one of.
    pub(crate) fn around(container: &Container) -> Self {
        let store = container.path.ancestors().nth(2).unwrap_or(Path::new("/"));
        Self::of(store)
    }

    /// STORE itself.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    fn directory(&self) -> PathBuf {
        self.store.join("containers")
    }

    fn names(&self) -> PathBuf {
        self.store.join("names")
    }

    /// Makes the directory of a new container, locked, and takes its name, and ids of its own where it is to have some.
    pub(crate) fn create(&self, mut record: Record) -> Result<(Container, Lock)> {
        let make = |path: PathBuf| {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .with_context(|| format!("create {}", path.display()))
        };
        make(self.directory())?;
        make(self.names())?;
        let names = File::open(self.names()).context("open the names of containers")?;
        names.lock().context("lock the names of containers")?;
        if let Some(other) = self.named(&record.name) {
            return Err(Error::new(
                Kind::Exists,
                format!(
                    "the container name {:?} is already in use by container {other}: remove that (coracle rm) or use another name",
                    record.name
                ),
            ));
        }
        if let UserNamespace::Auto(first) = &mut record.userns {
            let taken: Vec<u32> = self
                .list()?
                .iter()
                .filter_map(|other| match other.record.userns {
                    UserNamespace::Auto(first) => Some(first),
                    _ => None,
                })
                .collect();
            *first = userns::free_ids(&taken)?;
        }
        let container = self.make_directory(record)?;
        match self.take(&container) {
            Ok(lock) => Ok((container, lock)),
            Err(error) => {
                let _ = userns::remove_dir_all(&container.path);
                Err(error)
            }
        }
    }

    /// Locks a new container, and gives it its name: by rename, since a link may be left of one that was never finished. The caller has the
    /// names' lock, so a temporary one is what a killed command has left.
    fn take(&self, container: &Container) -> Result<Lock> {
        let lock = container.lock()?;
        let link = self.names().join(&container.record.name);
        let temporary = self.names().join(".new");
        let _ = fs::remove_file(&temporary);
        symlink(&container.record.id, &temporary)
            .and_then(|()| fs::rename(&temporary, &link))
            .inspect_err(|_| drop(fs::remove_file(&temporary)))
            .with_context(|| format!("take the name {:?}", container.record.name))?;
        Ok(lock)
    }

    /// Makes a directory that is a container's as soon as it has its name. What a killed command, or a failure of the machine, has left on
    /// the way goes first: the caller has the names' lock, so nobody else is at it.
    fn make_directory(&self, record: Record) -> Result<Container> {
        let making = || {
            format!(
                "create the container's directory in {}",
                self.directory().display()
            )
        };
        for entry in fs::read_dir(self.directory()).with_context(making)? {
            let entry = entry.with_context(making)?;
            let is_new = entry.file_name().as_encoded_bytes().starts_with(b".");
            if is_new || is_unfinished(&entry.path()) {
                userns::remove_dir_all(&entry.path())?;
            }
        }
        let temporary = self.directory().join(format!(".{}", record.id));
        DirBuilder::new()
            .mode(0o700)
            .create(&temporary)
            .with_context(making)?;
        let place = self.directory().join(&record.id);
        let fill = || -> Result<Container> {
            let container = Container::open(temporary.clone(), record)?;
            container.write_record()?;
            container.write_status(&Status::default())?;
            fs::rename(&temporary, &place).with_context(making)?;
            Ok(container)
        };
        let filled = fill().inspect_err(|_| {
            let _ = userns::remove_dir_all(&temporary);
        });
        Ok(Container {
            path: place,
            ..filled?
        })
    }

    /// The id behind a name, if there is such a container.
    fn named(&self, name: &str) -> Option<String> {
        let id = fs::read_link(self.names().join(name)).ok()?;
        let id = id.to_str()?;
        self.has(id).then(|| id.to_owned())
    }

    fn has(&self, id: &str) -> bool {
        self.directory().join(id).join(RECORD_FILE).exists()
    }

    /// The container with this name, this id, or the only one whose id begins so.
    pub(crate) fn find(&self, wanted: &str) -> Result<Option<Container>> {
        if wanted.is_empty() || wanted.contains('/') || wanted.starts_with('.') {
            return Ok(None);
        }
        if let Some(id) = self.named(wanted) {
            return self.read(&id).map(Some);
        }
        if !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        // A whole id, as engines use: the others need not be looked at.
        if wanted.len() == id::LENGTH {
            return self.has(wanted).then(|| self.read(wanted)).transpose();
        }
        let mut ids = self.ids()?;
        ids.retain(|id| id.starts_with(wanted));
        match ids.as_slice() {
            [] => Ok(None),
            [id] => self.read(id).map(Some),
            _ => Err(Error::invalid(format!(
                "{wanted:?} is the beginning of the ids of {} containers",
                ids.len()
            ))),
        }
    }

    /// Like [`Containers::find`], where there must be one.
    pub(crate) fn get(&self, wanted: &str) -> Result<Container> {
        self.find(wanted)?.ok_or_else(|| missing(wanted))
    }

    /// Every container, sorted by the time of its creation. One that cannot be read is logged and left out.
    pub(crate) fn list(&self) -> Result<Vec<Container>> {
        let mut containers = Vec::new();
        for id in self.ids()? {
            match self.read(&id) {
                Ok(container) => containers.push(container),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => log::warn!("container {id}: {error}"),
            }
        }
        containers.sort_by(|one, other| one.record.created.cmp(&other.record.created));
        Ok(containers)
    }

    fn ids(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(self.directory()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context("read the store's containers")?,
        };
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect())
    }

    fn read(&self, id: &str) -> Result<Container> {
        let path = self.directory().join(id);
        let record = fs::read(path.join(RECORD_FILE)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => missing(id),
            _ => Error::failed(format!(
                "read {}: {error}",
                path.join(RECORD_FILE).display()
            )),
        })?;
        if record.is_empty() {
            return Err(missing(id));
        }
        let record = serde_json::from_slice(&record).map_err(|error| {
            Error::new(
                Kind::Damaged,
                format!("{} is damaged: {error}", path.join(RECORD_FILE).display()),
            )
        })?;
        Container::open(path, record)
    }

    /// Forgets a container whose lock the caller has: its name, and its directory with all that is in it.
    pub(crate) fn remove(&self, container: &Container) -> Result<()> {
        let record = &container.record;
        let names = File::open(self.names()).context("open the names of containers")?;
        names.lock().context("lock the names of containers")?;
        let link = self.names().join(&record.name);
        if fs::read_link(&link).is_ok_and(|id| id == Path::new(&record.id)) {
            fs::remove_file(&link).with_context(|| format!("remove {}", link.display()))?;
        }
        userns::remove_dir_all(&container.path)
    }
}

/// One container's directory, open, and its record.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) record: Record,
    pub(crate) path: PathBuf,
    pub(crate) directory: File,
}

impl Container {
    fn open(path: PathBuf, record: Record) -> Result<Self> {
        let directory = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing(&record.id)),
            directory => directory.with_context(|| format!("open {}", path.display()))?,
        };
        Ok(Container {
            record,
            path,
            directory,
        })
    }

    /// Writes the record again, while the container is being made.
    pub(crate) fn write_record(&self) -> Result<()> {
        self.write(RECORD_FILE, &self.record)
    }

    /// For the monitor: the directory that it was handed, with the lock.
    pub(crate) fn inherited(directory: File) -> Result<Self> {
        let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let path = fs::read_link(link).context("find the container's directory")?;
        let bytes = read_file(&directory, RECORD_FILE).context("read container.json")?;
        let record = serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(Kind::Damaged, format!("container.json: {error}")))?;
        Ok(Container {
            record,
            path,
            directory,
        })
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let lock = self.open_lock()?;
        lock.0
            .lock()
            .with_context(|| format!("lock container {}", self.record.name))?;
        self.check_linked(&lock)?;
        Ok(lock)
    }

    /// Takes the lock if nobody has it: then there is no monitor.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        let lock = self.open_lock()?;
        Ok(self.take_lock(&lock)?.then_some(lock))
    }

    fn take_lock(&self, lock: &Lock) -> Result<bool> {
        match lock.0.try_lock() {
            Ok(()) => self.check_linked(lock).map(|()| true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("lock container {}", self.record.name))
            }
        }
    }

    /// A descriptor of its own: the lock belongs to it, and to nobody who has the directory open otherwise.
    fn open_lock(&self) -> Result<Lock> {
        match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(missing(&self.record.name)),
            file => file
                .map(Lock)
                .with_context(|| format!("open {}", self.path.display())),
        }
    }

    /// It may have been removed while the lock was waited for.
    fn check_linked(&self, lock: &Lock) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        match lock.0.metadata() {
            Ok(metadata) if metadata.nlink() > 0 => Ok(()),
            _ => Err(missing(&self.record.name)),
        }
    }

    /// The directory once more, for somebody who keeps it.
    pub(crate) fn directory(&self) -> Result<File> {
        self.directory
            .try_clone()
            .context("copy the descriptor of the container's directory")
    }

    /// What the container was doing when its monitor last wrote it down.
    pub(crate) fn status(&self) -> Status {
        let bytes = read_file(&self.directory, STATUS_FILE).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    pub(crate) fn write_status(&self, status: &Status) -> Result<()> {
        self.write(STATUS_FILE, status)
    }

    /// Forces onto the disk what a container cannot be started without after a failure of the machine.
    pub(crate) fn sync(&self) -> Result<()> {
        for name in [RECORD_FILE, CONFIG_FILE] {
            self.sync_file(name)?;
        }
        self.directory
            .sync_all()
            .with_context(|| format!("force {} onto the disk", self.path.display()))
    }

    /// The same for how it has ended.
    pub(crate) fn sync_status(&self) -> Result<()> {
        self.sync_file(STATUS_FILE)
    }

    fn sync_file(&self, name: &str) -> Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let forcing = || format!("force {} onto the disk", self.path.join(name).display());
        let file = openat(&self.directory, name, flags, Mode::empty()).with_context(forcing)?;
        File::from(file).sync_all().with_context(forcing)
    }

    /// Replaces a JSON file atomically.
    pub(crate) fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(value)
            .map_err(|error| Error::failed(format!("encode {name}: {error}")))?;
        self.replace(name, &text)
    }

    /// Replaces a file atomically, but not on the disk yet: whatever runs ends with a failure of the machine.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let writing = || format!("write {}", self.path.join(name).display());
        let temporary = format!("{name}.new");
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = openat(&self.directory, temporary.as_str(), flags, mode);
        let mut file = File::from(file.with_context(writing)?);
        file.write_all(bytes).with_context(writing)?;
        renameat(&self.directory, temporary.as_str(), &self.directory, name).with_context(writing)
    }

    /// A JSON file of the container.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let bytes = read_file(&self.directory, name)
            .with_context(|| format!("read {}", self.path.join(name).display()))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(
                Kind::Damaged,
                format!("{}: {error}", self.path.join(name).display()),
            )
        })
    }

    /// Makes a named pipe unless it is there.
    pub(crate) fn make_fifo(&self, name: &str) -> Result<()> {
        match mkfifoat(&self.directory, name, Mode::S_IRUSR | Mode::S_IWUSR) {
            Err(Errno::EEXIST) => Ok(()),
            made => made.with_context(|| format!("make the pipe {name}")),
        }
    }

    /// Listens at a socket, in the place of somebody who is dead. It gets its name when there is somebody to hear.
    pub(crate) fn listen(&self, name: &str) -> Result<UnixListener> {
        const NEW: &str = "sock.new";
        let listening = || format!("listen at {name}");
        let _ = unlinkat(&self.directory, NEW, UnlinkatFlags::NoRemoveDir);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
            .with_context(listening)?;
        let previous = umask(Mode::from_bits_truncate(0o177));
        let bound = bind(listener.as_raw_fd(), &self.socket_address(NEW)?);
        umask(previous);
        bound.with_context(listening)?;
        listen(&listener, Backlog::MAXCONN).with_context(listening)?;
        renameat(&self.directory, NEW, &self.directory, name).with_context(listening)?;
        // The standard library accepts on any kind of unix socket; it only makes none of this one.
        Ok(UnixListener::from(listener))
    }

    pub(crate) fn remove_socket(&self) {
        let _ = unlinkat(&self.directory, SOCKET, UnlinkatFlags::NoRemoveDir);
    }

    /// Connects to the monitor; `None` when there is none that listens.
    pub(crate) fn connect(&self) -> Result<Option<Connection>> {
        self.connect_to(SOCKET)
    }

    /// Connects to who listens at a socket; `None` when there is nobody.
    pub(crate) fn connect_to(&self, name: &str) -> Result<Option<Connection>> {
        let connecting = || format!("connect to {name} of the container");
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
            .with_context(connecting)?;
        match connect(socket.as_raw_fd(), &self.socket_address(name)?) {
            Ok(()) => Ok(Some(Connection::from(socket))),
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(None),
            Err(error) => Err(error).with_context(connecting),
        }
    }

    /// A conversation with the monitor, or the lock where there is none. Waits for one that is just coming or going.
    pub(crate) fn hold(&self) -> Result<Held> {
        let waiting = || format!("wait for the monitor of container {}", self.record.name);
        let lock = self.open_lock()?;
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let changes = Inotify::init(flags).with_context(waiting)?;
        // The lock is free when a descriptor of the directory is closed, and a monitor is there when its socket has got its name.
        let kinds = AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_NOWRITE
            | AddWatchFlags::IN_DELETE_SELF;
        match changes.add_watch(&self.path, kinds) {
            Err(Errno::ENOENT) => return Err(missing(&self.record.name)),
            watched => watched.with_context(waiting)?,
        };
        let mut pause = None;
        loop {
            if let Some(connection) = self.connect()? {
                return Ok(Held::ByMonitor(connection));
            }
            if self.take_lock(&lock)? {
                return Ok(Held::ByUs(lock));
            }
            pause = wait(&changes, pause).with_context(waiting)?;
        }
    }

    /// By way of our own descriptor table: sun_path has 108 bytes only.
    fn socket_address(&self, name: &str) -> Result<UnixAddr> {
        let path = format!("/proc/self/fd/{}/{name}", self.directory.as_raw_fd());
        UnixAddr::new(path.as_str()).context("address the control socket")
    }
}

/// Waits for a change, at most for `pause` milliseconds, and gives the next pause. The kernel tells of a closed descriptor a moment before
/// the lock goes with it (`__fput`), and never again: after a change the lock has to be tried a few times.
fn wait(changes: &Inotify, pause: Option<u16>) -> nix::Result<Option<u16>> {
    const LONGEST: u16 = 1024;
    let timeout = pause.map_or(PollTimeout::NONE, PollTimeout::from);
    match poll(
        &mut [PollFd::new(changes.as_fd(), PollFlags::POLLIN)],
        timeout,
    ) {
        Ok(0) => Ok(pause
            .map(|pause| pause * 2)
            .filter(|pause| *pause <= LONGEST)),
        Ok(_) => changes.read_events().map(|_| Some(1)),
        Err(Errno::EINTR) => Ok(pause),
        Err(error) => Err(error),
    }
}

/// Who has the lock of a container.
#[derive(Debug)]
pub(crate) enum Held {
    ByMonitor(Connection),
    ByUs(Lock),
}

/// The lock of a container, until it is dropped or handed to a monitor.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl From<Lock> for std::process::Stdio {
    fn from(lock: Lock) -> Self {
        lock.0.into()
    }
}

/// A failure of the machine leaves a file empty that was not forced onto the disk: nobody had been told of that container.
fn is_unfinished(container: &Path) -> bool {
    let record = fs::metadata(container.join(RECORD_FILE));
    record.is_ok_and(|record| record.len() == 0)
}

fn missing(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("container does not exist: {name}"))
}

fn read_file(directory: &File, name: &str) -> std::io::Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let mut bytes = Vec::new();
    File::from(openat(directory, name, flags, Mode::empty())?).read_to_end(&mut bytes)?;
    Ok(bytes)
}
