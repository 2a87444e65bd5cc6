//! The runtime's own /proc, opened before any namespace is entered and verified, so that nothing that a container mounts
//! over its /proc can redirect what is read and written here (CVE-2019-16884, CVE-2025-52881).

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::Pid;

use crate::{Context, Error, Result, sys};

/// An open procfs root.
pub(crate) struct Procfs(OwnedFd);

impl Procfs {
    /// Opens /proc and checks that it is one.
    pub(crate) fn open() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(AT_FDCWD, "/proc", flags, Mode::empty()).context("open /proc")?;
        match fstatfs(&fd).context("check /proc")?.filesystem_type() {
            PROC_SUPER_MAGIC => Ok(Procfs(fd)),
            _ => Err(Error::failed(
                "/proc is not a proc file system: mount it first",
            )),
        }
    }

    /// Opens a file below /proc: nothing that is mounted inside it is crossed, and no magic link followed.
    pub(crate) fn open_file(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_XDEV
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        openat2(&self.0, path, how)
    }

    /// Opens a namespace of a process by its file in /proc/PID/ns, which is a magic link.
    pub(crate) fn open_namespace(&self, pid: Pid, name: &str) -> nix::Result<OwnedFd> {
        let directory = self.open_file(&format!("{pid}/ns"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        openat(
            directory,
            name,
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
    }

    /// The signals that this process ignores, as bits, the lowest for signal 1; all of them where that cannot be read. For the container's
    /// process: the file is left open.
    pub(crate) fn ignored_signals(&self) -> u64 {
        let file = self.open_file("self/status", OFlag::O_RDONLY);
        let status = file.and_then(|file| {
            let read = read_start(&file);
            sys::process::leave(file);
            read
        });
        let status = status.unwrap_or_default();
        let status = String::from_utf8_lossy(&status);
        status
            .lines()
            .filter_map(|line| line.strip_prefix("SigIgn:\t"))
            // Whole, and not where the page ended.
            .filter(|bits| bits.len() == 16)
            .find_map(|bits| u64::from_str_radix(bits, 16).ok())
            .unwrap_or(u64::MAX)
    }

    /// Reads a short file below /proc: at most 4 KiB of it.
    pub(crate) fn read(&self, path: &str) -> nix::Result<Vec<u8>> {
        read_start(&self.open_file(path, OFlag::O_RDONLY)?)
    }

    /// Writes `value` in one write(2), as the files of /proc want it.
    pub(crate) fn write(&self, path: &str, value: &[u8]) -> nix::Result<()> {
        let file = self.open_file(path, OFlag::O_WRONLY)?;
        match nix::unistd::write(file, value)? {
            written if written == value.len() => Ok(()),
            _ => Err(Errno::EIO),
        }
    }
}

/// Reads a file of /proc that is short: at most 4 KiB of it.
pub(crate) fn read_small(path: &str) -> nix::Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    read_start(&openat(AT_FDCWD, path, flags, Mode::empty())?)
}

fn read_start(file: &OwnedFd) -> nix::Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    let length = nix::unistd::read(file, &mut buffer)?;
    Ok(buffer[..length].to_vec())
}
