//! One open directory of a hierarchy, and the files in it.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd;

use crate::refusal;
use crate::{Error, Result};

/// An open cgroup directory. The path serves error messages only.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens the directory at an absolute path; `None` when it does not exist.
    pub(crate) fn open(path: PathBuf) -> Result<Option<Dir>> {
        match openat(
            AT_FDCWD,
            &path,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        ) {
            Ok(fd) => Ok(Some(Dir { fd, path })),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            Err(errno) => Err(Error::io("open cgroup", path, errno)),
        }
    }

    /// Opens the directory `name` in this one.
    pub(crate) fn child(&self, name: &Path) -> Result<Option<Dir>> {
        match self.open_file(name, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(fd) => Ok(Some(Dir {
                fd,
                path: self.path.join(name),
            })),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            Err(errno) => Err(Error::io("open cgroup", self.path.join(name), errno)),
        }
    }

    /// Where this directory was found.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file in this directory, close-on-exec.
    pub(crate) fn open_file(&self, file: impl AsRef<Path>, flags: OFlag) -> Result<OwnedFd, Errno> {
        openat(
            &self.fd,
            file.as_ref(),
            flags | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
    }

    /// Reads a whole file; `None` when the file, or by now the cgroup, does not exist.
    pub(crate) fn read(&self, file: impl AsRef<Path>) -> Result<Option<String>> {
        let file = file.as_ref();
        let text = self
            .open_file(file, OFlag::O_RDONLY)
            .and_then(|fd| read_all(fd.as_fd()));
        self.unless_missing(file, text)
    }

    /// The same of a file that is one line.
    pub(crate) fn read_line(&self, file: &str) -> Result<Option<String>> {
        let file = Path::new(file);
        self.unless_missing(file, read_line(&self.fd, file))
    }

    fn unless_missing(&self, file: &Path, text: Result<String, Errno>) -> Result<Option<String>> {
        match text {
            Ok(text) => Ok(Some(text)),
            // EOPNOTSUPP: the kernel has the file and was told not to serve it (`psi=0`, `cgroup.procs` when threaded).
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(None),
            Err(errno) => Err(Error::io("read", self.path.join(file), errno)),
        }
    }

    /// Writes a value in one `write(2)`, as cgroup files demand it.
    pub(crate) fn try_write(&self, file: impl AsRef<Path>, value: &str) -> Result<(), Errno> {
        let fd = self.open_file(file, OFlag::O_WRONLY)?;
        loop {
            match unistd::write(&fd, value.as_bytes()) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Writes a value; the error names the file and the value.
    pub(crate) fn write(&self, file: &str, value: &str) -> Result<()> {
        self.try_write(file, value)
            .map_err(|errno| self.write_error(file, value, errno))
    }

    /// The error for a write that failed.
    pub(crate) fn write_error(&self, file: &str, value: &str, errno: Errno) -> Error {
        let hint = match (file, errno) {
            (_, Errno::EROFS) => Some(refusal::READ_ONLY),
            ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", Errno::EBUSY) => {
                Some("more memory is in use than the new limit allows")
            }
            ("cgroup.procs", Errno::EBUSY) => {
                Some("processes may not live in a cgroup that hands controllers to its children")
            }
            ("cgroup.procs" | "cgroup.subtree_control", Errno::EOPNOTSUPP) => {
                Some("the cgroup is, or lies below, a threaded one")
            }
            ("cpuset.cpus" | "cpuset.mems", Errno::EBUSY) => Some("a sub-cgroup needs the others"),
            ("cpu.max" | "cpu.cfs_quota_us" | "cpu.cfs_period_us", Errno::EINVAL) => {
                Some("a quota is at least 1000 and a period 1000 to 1000000, in microseconds")
            }
            ("cpu.max.burst" | "cpu.cfs_burst_us", Errno::EINVAL) => {
                Some("a burst is at most the quota")
            }
            ("cpu.max.burst" | "cpu.cfs_burst_us", Errno::ENOENT) => {
                Some("the kernel must be 5.14 or later")
            }
            ("cpu.idle", Errno::ENOENT) => Some("the kernel must be 5.15 or later"),
            ("memory.swap.max" | "memory.memsw.limit_in_bytes", Errno::ENOENT) => {
                Some("the kernel does not account swap")
            }
            ("io.weight" | "io.bfq.weight", Errno::EOPNOTSUPP) => Some(
                "the device takes no weights: give it the bfq scheduler, or turn io.cost.qos on for it",
            ),
            ("io.max" | "io.weight" | "io.bfq.weight", Errno::ENODEV) => {
                Some("no disk has this number; partitions have no limits of their own")
            }
            ("rdma.max", Errno::ENODEV) => Some("no RDMA device has this name"),
            (file, Errno::ENOENT) if file.starts_with("hugetlb.") => {
                Some("the machine has no huge pages of this size: see /sys/kernel/mm/hugepages")
            }
            (file, Errno::ENODEV) if file.starts_with("blkio.") => {
                Some("no disk has this number; partitions have no limits of their own")
            }
            ("devices.allow", Errno::EPERM) => Some("the parent cgroup does not allow this device"),
            _ => None,
        };
        Error::Io {
            action: format!("write {value:?} to"),
            path: self.path.join(file),
            errno,
            hint: match (file, errno) {
                ("cpuset.cpus" | "cpuset.mems", Errno::EACCES | Errno::EINVAL | Errno::ERANGE) => {
                    self.offered(file)
                }
                _ => hint.map(Into::into),
            },
        }
    }

    /// The CPUs or memory nodes that a sub-cgroup of the parent can have.
    fn offered(&self, file: &str) -> Option<Cow<'static, str>> {
        let (what, v1) = match file {
            "cpuset.cpus" => ("CPUs", "../cpuset.effective_cpus"),
            _ => ("memory nodes", "../cpuset.effective_mems"),
        };
        let read = |file: &str| self.read(file).ok().flatten();
        let there = read(&format!("../{file}.effective")).or_else(|| read(v1))?;
        Some(format!("the {what} there are: {}", there.trim()).into())
    }

    /// The names of the sub-cgroups.
    pub(crate) fn children(&self) -> Result<Vec<PathBuf>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let failed = |errno| Error::io("list cgroup", &self.path, errno);
        let mut listing = match dir::Dir::openat(&self.fd, ".", flags, Mode::empty()) {
            Ok(listing) => listing,
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(Vec::new()),
            Err(errno) => return Err(failed(errno)),
        };
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::ENOENT | Errno::ENODEV) => break,
                Err(errno) => return Err(failed(errno)),
            };
            let name = entry.file_name().to_bytes();
            if entry.file_type() == Some(dir::Type::Directory) && name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).into());
            }
        }
        Ok(names)
    }

    /// Adds the ids in `cgroup.procs` of this cgroup and of all below it.
    pub(crate) fn processes(&self, found: &mut Vec<i32>) -> Result<()> {
        let mut add = |text: Option<String>| {
            let text = text.unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        };
        add(self.read("cgroup.procs")?);
        self.each_below(|parent, name| {
            add(parent.read(name.join("cgroup.procs"))?);
            Ok(())
        })
    }

    /// Visits every sub-cgroup by its parent and name, deepest first. However deep they lie, one descriptor is open: whoever may
    /// make cgroups may make thousands, one below the other.
    pub(crate) fn each_below(
        &self,
        mut visit: impl FnMut(&Dir, &Path) -> Result<()>,
    ) -> Result<()> {
        // What is still to be visited on each level, and the directory of the last level, `None` for this one.
        let mut levels = vec![self.children()?];
        let mut inner: Option<Dir> = None;
        while let Some(names) = levels.last_mut() {
            let here = inner.as_ref().unwrap_or(self);
            if let Some(name) = names.last() {
                match here.child(name)? {
                    Some(child) => {
                        levels.push(child.children()?);
                        // A path that grows with each step would cost more than the walk.
                        inner = Some(Dir {
                            fd: child.fd,
                            path: self.path.clone(),
                        });
                    }
                    None => drop(names.pop()),
                }
                continue;
            }
            levels.pop();
            inner = if levels.len() > 1 {
                let parent = here.child(Path::new(".."))?;
                // It stays reachable from a directory that is removed meanwhile.
                let lost = || Error::io("walk through cgroup", &self.path, Errno::ENOENT);
                Some(parent.ok_or_else(lost)?)
            } else {
                None
            };
            if let Some(name) = levels.last_mut().and_then(Vec::pop) {
                visit(inner.as_ref().unwrap_or(self), &name)?;
            }
        }
        Ok(())
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads a file of a hierarchy that is one line: the kernel gives it whole in one read, or as much as fits.
pub(crate) fn read_line(dir: impl AsFd, file: &Path) -> Result<String, Errno> {
    let fd = openat(dir, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut line = [0; 4096];
    let length = unistd::read(&fd, &mut line)?;
    Ok(String::from_utf8_lossy(&line[..length]).into_owned())
}

/// Reads a file of /proc that the kernel makes as a whole (proc_pid_cgroup): less than was asked for is all there is.
pub(crate) fn read_at_once(path: &Path) -> Result<String, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let fd = openat(AT_FDCWD, path, flags, Mode::empty())?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 8 << 10];
    loop {
        let length = unistd::read(&fd, &mut chunk)?;
        bytes.extend_from_slice(&chunk[..length]);
        if length < chunk.len() {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

/// Reads from the current position to the end.
pub(crate) fn read_all(fd: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match unistd::read(fd, &mut chunk) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // The kernel writes ASCII here, except for device names it was given.
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned()))
}
