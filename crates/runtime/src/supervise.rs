//! For whoever stays with a container, as the monitor of a detached one does: making it in two steps, and its process as something to
//! wait for, also by one who is not its parent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::launch::{Gate, Launched, launch};
use crate::state::Container;
use crate::sys::process::pidfd_send_signal;
use crate::sys::pty::open_peer;
use crate::sys::wait::{Whose, ended, exit_of_reaped};
use crate::{Context, CreateOptions, Error, Kind, Result, Settings, procfs, protect};

/// A container whose process waits for [`Prepared::start`]. Dropped, it is undone.
pub struct Prepared(Launched);

/// Does all of `run` but the last step. The caller's standard streams become the container's, or it gets a terminal, which comes back from
/// [`Prepared::start`].
pub fn prepare(settings: &Settings, options: &CreateOptions) -> Result<Prepared> {
    protect::ensure()?;
    launch(settings, options, Gate::Run { detached: false }).map(Prepared)
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
        let terminal = self.0.terminal.take().map(|master| {
            let peer = open_peer(master.as_fd()).context("open the other end of the terminal")?;
            Ok::<_, Error>((master, peer))
        });
        let terminal = terminal.transpose()?;
        self.0.start()?;
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
