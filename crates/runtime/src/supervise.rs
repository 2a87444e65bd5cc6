//! For whoever stays with a container, as the monitor of a detached one does: making it in two steps, and its process as something to
//! wait for, also by one who is not its parent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::launch::{Gate, Launched, launch};
use crate::state::Container;
use crate::sys::process::{give_back, pidfd_send_signal};
use crate::sys::pty::open_peer;
use crate::sys::wait::{Whose, ended, exit_of_reaped};
use crate::{Context, CreateOptions, Kind, Result, Settings, procfs, protect};

/// A container whose process waits for [`Prepared::start`]. Dropped, it is undone.
pub struct Prepared(Launched);

/// Does all of `run` but the last step. The caller's standard streams become the container's, or it gets a terminal, which comes back from
/// [`Prepared::start`].
pub fn prepare(settings: &Settings, options: &CreateOptions) -> Result<Prepared> {
    protect::ensure()?;
    launch(settings, options, Gate::Prepare, false, None).map(Prepared)
}

impl Prepared {
    /// The pid of the container's process.
    pub fn pid(&self) -> i32 {
        self.0.pid.as_raw()
    }

    /// Lets the user's program run. From here on the container lives without the caller. With its process come the two ends of its
    /// terminal, master first, if it has one: while the second is held, the first does not report a hang-up whenever the container
    /// closes its own.
    pub fn start(mut self) -> Result<(Init, Option<(OwnedFd, OwnedFd)>)> {
        let terminal = self.0.terminal.take().map(both_ends).transpose()?;
        self.0.start(None)?;
        let (pid, pidfd) = self.0.keep();
        let is_child = true;
        Ok((
            Init {
                pid,
                pidfd,
                is_child,
            },
            terminal,
        ))
    }
}

/// A terminal's master, and the other end of it.
pub fn both_ends(master: OwnedFd) -> Result<(OwnedFd, OwnedFd)> {
    let peer = open_peer(master.as_fd()).context("open the other end of the terminal")?;
    Ok((master, peer))
}

/// The first process of a container. Its descriptor, a pidfd, becomes readable when it ends.
#[derive(Debug)]
pub struct Init {
    pid: Pid,
    pidfd: OwnedFd,
    is_child: bool,
}

/// The process of a container that somebody else has made; `None` when it has ended.
pub fn init(settings: &Settings, id: &str) -> Result<Option<Init>> {
    let container = match Container::open(settings, id) {
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        container => container?,
    };
    let pid = container.record.init.as_ref().map_or(0, |init| init.pid);
    let pidfd = container.record.open_init()?;
    Ok(pidfd.map(|pidfd| Init {
        pid: Pid::from_raw(pid),
        pidfd,
        is_child: false,
    }))
}

impl Init {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends a signal. One that has ended gets none, which is no error.
    pub fn signal(&self, signal: i32) -> Result<()> {
        match pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("send signal {signal} to process {}", self.pid))
            }
        }
    }

    /// How it ended; `None` while it runs. It does not wait.
    pub fn exit(&self) -> Result<Option<Exit>> {
        if self.is_child {
            let ended = ended(Whose::Process(self.pidfd.as_fd()), libc::WNOHANG)
                .context("wait for the container's process")?;
            return Ok(ended.map(|ended| Exit::Status(ended.status)));
        }
        let mut watched = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::ZERO) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error).context("look for the end of the container's process"),
        }
        let status = exit_of_zombie(self.pid)
            .or_else(|| exit_of_reaped(self.pidfd.as_fd()))
            .map(shell_status);
        Ok(Some(status.map_or(Exit::Unknown, Exit::Status)))
    }
}

impl AsFd for Init {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Gives back the memory of our own program that was only needed for what has been done: whoever waits for a long time needs little of it.
pub fn give_back_program() {
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else {
        return;
    };
    for (start, length) in clean_mappings(&smaps) {
        if let Err(error) = give_back(start, length) {
            log::debug!("give back memory: {}", error.desc());
        }
    }
}

/// Start and length of every mapping of a file that nobody can write to, and that has no page of its own.
fn clean_mappings(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let first = fields.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let number = |text| usize::from_str_radix(text, 16).ok();
            let is_readonly = fields.next().is_some_and(|rights| rights.starts_with("r-"));
            // Offset and device lie between.
            let is_file = fields.nth(2).is_some_and(|inode| inode != "0");
            candidate = match (number(start), number(end)) {
                (Some(start), Some(end)) if is_readonly && is_file => Some((start, end - start)),
                _ => None,
            };
        } else if first == "Anonymous:" && fields.next() == Some("0") {
            found.extend(candidate.take());
        }
    }
    found
}

/// How a container's process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status, 128 + signal when a signal ended it.
    Status(i32),
    /// Whoever was its parent has taken the status, and the kernel (before Linux 6.15) keeps none for others.
    Unknown,
}

/// Field 52 of /proc/PID/stat, as long as nobody has reaped the process. The pidfd has told that it has ended, and the state that the pid
/// still belongs to one that has.
fn exit_of_zombie(pid: Pid) -> Option<i32> {
    let bytes = procfs::read_small(&format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    (fields.next()? == "Z").then_some(())?;
    fields.nth(48)?.parse().ok()
}

/// wait(2)'s encoding as a shell shows it.
fn shell_status(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use crate::sys::process::pidfd_open;

    /// A shell that ends, seen as by one who is not its parent.
    fn ended_by(script: &str) -> (Child, Init) {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let pidfd = pidfd_open(pid).unwrap();
        poll(
            &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
            PollTimeout::NONE,
        )
        .unwrap();
        let is_child = false;
        (
            child,
            Init {
                pid,
                pidfd,
                is_child,
            },
        )
    }

    #[test]
    fn only_what_the_file_holds_is_given_back() {
        let smaps = "\
7f00-8f00 r-xp 00001000 fe:00 42  /bin/x
Rss: 4 kB
Anonymous:             0 kB
8f00-9f00 r--p 00002000 fe:00 42  /bin/x
Anonymous:             4 kB
9f00-af00 rw-p 00003000 fe:00 42  /bin/x
Anonymous:             0 kB
af00-bf00 r--p 00000000 00:00 0  [vvar]
Anonymous:             0 kB
";
        assert_eq!(clean_mappings(smaps), [(0x7f00, 0x1000)]);
        give_back_program();
        assert!(!clean_mappings(&std::fs::read_to_string("/proc/self/smaps").unwrap()).is_empty());
    }

    #[test]
    fn a_strangers_status_is_known_while_it_is_a_zombie() {
        for (script, status) in [("exit 7", 7), ("kill -9 $$", 137)] {
            let (mut child, init) = ended_by(script);
            assert_eq!(init.exit().unwrap(), Some(Exit::Status(status)));
            child.wait().unwrap();
        }
    }

    #[test]
    fn and_where_the_kernel_keeps_it_after_that() {
        let (mut child, init) = ended_by("exit 9");
        child.wait().unwrap();
        let known = exit_of_reaped(init.pidfd.as_fd()).map(shell_status);
        let expected = known.map_or(Exit::Unknown, |_| Exit::Status(9));
        assert_eq!(init.exit().unwrap(), Some(expected));
    }
}
