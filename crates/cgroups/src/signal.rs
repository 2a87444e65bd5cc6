//! Signals to all processes of a cgroup, and waiting for the last one.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Whence, lseek};

use crate::cgroup::Cgroup;
use crate::dir::{Dir, read_all};
use crate::{Error, Result, sys};

/// Rounds of killing what is left, for cgroups that fork as fast as they are killed and cannot be frozen.
const ROUNDS: usize = 64;

impl Cgroup {
    /// Kills every process in this cgroup and below: by `cgroup.kill` (Linux 5.14), else one by one while they are
    /// frozen. Returns when the signals are sent; [`Cgroup::wait_empty`] waits for the end.
    ///
    /// # Errors
    /// When the processes cannot be listed or signalled.
    pub fn kill(&self) -> Result<()> {
        self.refuse_root("kill")?;
        if let Some(dir) = self.unified() {
            match dir.try_write("cgroup.kill", "1") {
                // On a hybrid machine a v1 freezer would keep them from dying.
                Ok(()) => {
                    return self.let_die();
                }
                // Absent before 5.14, refused in threaded cgroups, or the cgroup is gone.
                Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(dir.write_error("cgroup.kill", "1", errno)),
            }
        }
        for _ in 0..ROUNDS {
            let frozen = self.freeze();
            let left = self.processes()?;
            let sent = left.iter().try_for_each(|&pid| send(pid, libc::SIGKILL));
            // On every way out: a killed process has to run to die.
            let _ = self.thaw();
            self.let_die()?;
            sent?;
            if left.is_empty() || frozen.is_ok() {
                break;
            }
        }
        Ok(())
    }

    /// Sends a signal, by number, to every process in this cgroup and below. They are frozen meanwhile where possible, so
    /// that none escapes by forking; a cgroup that was frozen before stays so, except for SIGKILL.
    ///
    /// # Errors
    /// When the processes cannot be listed or signalled.
    pub fn signal(&self, number: i32) -> Result<()> {
        if number == libc::SIGKILL {
            return self.kill();
        }
        self.refuse_root("signal")?;
        let was_frozen = self.is_frozen()?;
        if !was_frozen && let Err(error) = self.freeze() {
            log::debug!("signal {number} without freezing: {error}");
        }
        let sent = self
            .processes()
            .and_then(|all| all.into_iter().try_for_each(|pid| send(pid, number)));
        if !was_frozen {
            let _ = self.thaw();
        }
        sent
    }

    /// Waits until no process is left in this cgroup and below; `false` when the time is over. Watches `cgroup.events` on
    /// v2, and pidfds of the processes on v1.
    ///
    /// # Errors
    /// When the hierarchy cannot be read.
    pub fn wait_empty(&self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        match (self.unified(), self.census()) {
            (Some(dir), _) => match Events::open(dir)? {
                Some(mut events) => events.wait("populated", "0", deadline),
                None => Ok(true),
            },
            (None, Some(dir)) => wait_processes(dir, deadline),
            (None, None) => Ok(true),
        }
    }
}

/// Sends one signal; a process that is gone is fine.
pub(crate) fn send(pid: i32, number: i32) -> Result<()> {
    // 0 stands for a process of another pid namespace: kill(0) would hit our own process group.
    if pid <= 0 {
        return Ok(());
    }
    match sys::kill(pid, number) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::io(
            format!("send signal {number} to"),
            format!("process {pid}"),
            errno,
        )),
    }
}

/// Waits until all processes below a directory have ended, by their pidfds.
pub(crate) fn wait_processes(dir: &Dir, deadline: Instant) -> Result<bool> {
    loop {
        let mut left = Vec::new();
        dir.processes(&mut left)?;
        if left.is_empty() {
            return Ok(true);
        }
        for pid in left {
            match sys::pidfd_open(pid) {
                Ok(fd) => {
                    if !wait_fd(&fd, PollFlags::POLLIN, deadline)? {
                        return Ok(false);
                    }
                }
                // Over, or (EINVAL) of a pid namespace we cannot see.
                Err(Errno::ESRCH | Errno::EINVAL) if Instant::now() < deadline => {
                    let _ = nix::sched::sched_yield();
                }
                Err(Errno::ESRCH | Errno::EINVAL) => return Ok(false),
                Err(errno) => return Err(Error::io("watch", format!("process {pid}"), errno)),
            }
        }
    }
}

/// Polls one descriptor until it is ready or the time is over.
fn wait_fd(fd: &OwnedFd, flags: PollFlags, deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last millisecond is not spent spinning.
        let timeout =
            PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), flags)], timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::io("poll", "cgroup events", errno)),
        }
    }
}

/// An open `cgroup.events`, which the kernel marks POLLPRI when a value changes (`cgroup-v2.rst`).
pub(crate) struct Events {
    fd: OwnedFd,
}

impl Events {
    /// `None` when the cgroup is gone.
    pub(crate) fn open(dir: &Dir) -> Result<Option<Events>> {
        match dir.open_file("cgroup.events", OFlag::O_RDONLY) {
            Ok(fd) => Ok(Some(Events { fd })),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            Err(errno) => Err(Error::io("open", dir.path().join("cgroup.events"), errno)),
        }
    }

    /// Waits until a key has a value; `false` when the time is over. A removed cgroup has every value.
    pub(crate) fn wait(&mut self, key: &str, value: &str, deadline: Instant) -> Result<bool> {
        loop {
            // Reading also arms the next notification, so a change between read and poll is not lost.
            let read = lseek(&self.fd, 0, Whence::SeekSet).and_then(|_| read_all(self.fd.as_fd()));
            let text = match read {
                Ok(text) => text,
                Err(Errno::ENODEV) => return Ok(true),
                Err(errno) => return Err(Error::io("read", "cgroup.events", errno)),
            };
            if field(&text, key) == Some(value) {
                return Ok(true);
            }
            if Instant::now() >= deadline || !wait_fd(&self.fd, PollFlags::POLLPRI, deadline)? {
                return Ok(false);
            }
        }
    }
}

/// The value after `key` in a file of `key value` lines.
pub(crate) fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_words() {
        let text = "oom 1\noom_kill 7\nmax 3\n";
        assert_eq!(field(text, "oom_kill"), Some("7"));
        assert_eq!(field(text, "oom"), Some("1"));
        assert_eq!(field(text, "low"), None);
    }

    #[test]
    fn no_signal_goes_to_pid_zero() {
        send(0, libc::SIGKILL).unwrap();
    }
}
