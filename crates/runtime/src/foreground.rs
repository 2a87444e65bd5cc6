//! A container's or exec's process in the foreground: signals are forwarded to it, its terminal is relayed, its status is ours.
//!
//! One thread, one loop, poll(2) over everything that can happen. Nothing in it may block but the poll: while a reader of our
//! output sleeps, signals still have to reach the process.

mod relay;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::notify::Notify;
use crate::sys::process::pidfd_send_signal;
use crate::sys::wait::{Whose, ended};
use crate::{Context, Error, Result};
use relay::Relay;

pub(crate) use relay::fit_terminal;
pub use relay::{RawMode, output_of_our_own};

/// Signals that stay what they are. Those of our own faults cannot be blocked to any use; SIGPIPE is an error of a write;
/// SIGURG nobody sends on purpose; SIGTTIN and SIGTTOU must stop us when we touch a terminal from the background.
const NOT_FORWARDED: [Signal; 10] = [
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGPIPE,
    Signal::SIGURG,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Signals by which somebody wants us to end.
const ENDS: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Blocks every signal that is forwarded to a container, and opens a signalfd for them: they do nothing any more but to be read there.
pub fn forwarded_signals() -> Result<SignalFd> {
    let mut forwarded = SigSet::all();
    NOT_FORWARDED
        .into_iter()
        .for_each(|signal| forwarded.remove(signal));
    forwarded.thread_block().context("block signals")?;
    SignalFd::with_flags(&forwarded, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("open a signalfd")
}

/// What has to exist before the process is cloned, so that no signal is lost.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: SignalFd,
    /// What came during the set-up and is for the process.
    early: RefCell<VecDeque<i32>>,
    /// The socket at which the container says that it is ready.
    notify: Option<Notify>,
}

impl Foreground {
    /// Blocks the signals that will be forwarded and opens a signalfd for them. The child empties its mask itself.
    ///
    /// They stay blocked for the rest of this process: a second Ctrl-C must not end us between the end of the container and
    /// the removal of what it leaves behind.
    pub(crate) fn prepare() -> Result<Self> {
        Ok(Foreground {
            signals: forwarded_signals()?,
            early: RefCell::default(),
            notify: None,
        })
    }

    /// What the container says at this socket is forwarded while it is waited for.
    pub(crate) fn with_notify(mut self, notify: Option<Notify>) -> Self {
        self.notify = notify;
        self
    }

    /// During the set-up: waits until there is something to be read at `fd`; an error when somebody wants us to end meanwhile. Who is not in the
    /// foreground has no signals to look at, and goes on at once to wait by reading.
    pub(crate) fn wait_for(foreground: Option<&Self>, fd: BorrowedFd<'_>) -> Result<()> {
        let Some(foreground) = foreground else {
            return Ok(());
        };
        loop {
            let mut watched = [
                PollFd::new(fd, PollFlags::POLLIN),
                PollFd::new(foreground.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("poll"),
            }
            // First: after what is to be read there, the signal may be meant for the container's program.
            if watched[0].any() == Some(true) {
                return Ok(());
            }
            foreground.check()?;
        }
    }

    /// An error when a signal has come by which somebody wants us to end; others are kept for the process.
    pub(crate) fn check(&self) -> Result<()> {
        while let Some(info) = self.signals.read_signal().context("read the signalfd")? {
            let signal = info.ssi_signo as i32;
            if ENDS.contains(&signal) {
                let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
                return Err(Error::failed(format!("interrupted by {name}")));
            }
            self.early.borrow_mut().push_back(signal);
        }
        Ok(())
    }

    /// Waits until `pid` (our child, with its `pidfd`) ends, and returns its exit status, 128 + signal when a signal ended it.
    ///
    /// Forwards signals to it. With `terminal` (a pty's master) relays our standard input and output, in raw mode if that is a
    /// terminal, follows changes of the window's size, and hands out the last output. `reap` tells to take the status of
    /// orphans that the kernel gives to us. Our terminal is as it was before on every way out.
    pub(crate) fn supervise(
        mut self,
        pid: Pid,
        pidfd: BorrowedFd<'_>,
        terminal: Option<OwnedFd>,
        reap: bool,
    ) -> Result<i32> {
        let mut relay = terminal.map(Relay::new).transpose()?;
        if !self.early.borrow().is_empty() {
            self.handle_signals(pid, pidfd, relay.as_ref(), reap)?;
        }
        let status = loop {
            let ready = wait(
                &self.signals,
                Some(pidfd),
                self.notify.as_ref(),
                relay.as_ref(),
            )?;
            if ready.notify {
                self.forward_notification();
            }
            // First: there is nobody any more for whom a signal could be.
            if ready.process
                && let Some(ended) =
                    ended(Whose::Process(pidfd), libc::WNOHANG).context("wait for the process")?
            {
                break ended.status;
            }
            if ready.signals {
                self.handle_signals(pid, pidfd, relay.as_ref(), reap)?;
            }
            if let Some(relay) = &mut relay {
                relay.advance(&ready);
            }
        };
        log::debug!("process {pid} ended with status {status}");
        if let Some(mut relay) = relay {
            relay.process_ended();
            while !relay.is_done() {
                let ready = wait(&self.signals, None, None, Some(&relay))?;
                if ready.signals && self.asked_to_end()? {
                    break;
                }
                relay.advance(&ready);
            }
        }
        // It goes with us.
        std::mem::forget(self.signals);
        Ok(status)
    }

    /// Once it is ready nobody listens any more. Nothing of it may end the container.
    fn forward_notification(&mut self) {
        // It is our end that the service manager is to wait for: then everything is cleared up.
        let pid = std::process::id().cast_signed();
        let forwarded = self.notify.as_ref().map(|notify| notify.forward(pid));
        match forwarded {
            Some(Ok(None)) | None => {}
            // We stay, so there is nothing to wait for at the barrier.
            Some(Ok(Some(_))) => self.notify = None,
            Some(Err(error)) => {
                log::warn!("{error}");
                self.notify = None;
            }
        }
    }

    fn handle_signals(
        &self,
        pid: Pid,
        pidfd: BorrowedFd<'_>,
        relay: Option<&Relay>,
        reap: bool,
    ) -> Result<()> {
        while let Some(signal) = self.next_signal()? {
            match signal {
                libc::SIGCHLD if reap => reap_orphans(pid),
                libc::SIGCHLD => {}
                libc::SIGWINCH => relay.into_iter().for_each(Relay::resize),
                _ => {
                    if signal == libc::SIGCONT {
                        // Whoever used the terminal while we were stopped has left it in their mode.
                        relay.into_iter().for_each(Relay::resume);
                    }
                    log::debug!("sending signal {signal} to process {pid}");
                    match pidfd_send_signal(pidfd, signal) {
                        // It is about to end; that is what the pidfd will tell.
                        Ok(()) | Err(Errno::ESRCH) => {}
                        Err(errno) => {
                            log::warn!("send signal {signal} to process {pid}: {}", errno.desc())
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether somebody who waits for us loses patience while a slow reader takes the last output.
    fn asked_to_end(&self) -> Result<bool> {
        let mut asked = false;
        while let Some(signal) = self.next_signal()? {
            asked |= ENDS.contains(&signal);
        }
        Ok(asked)
    }

    fn next_signal(&self) -> Result<Option<i32>> {
        if let Some(early) = self.early.borrow_mut().pop_front() {
            return Ok(Some(early));
        }
        let info = self.signals.read_signal().context("read the signalfd")?;
        Ok(info.map(|info| info.ssi_signo as i32))
    }
}

impl AsFd for Foreground {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

/// What poll(2) has found.
#[derive(Debug, Default)]
struct Ready {
    signals: bool,
    process: bool,
    notify: bool,
    master_readable: bool,
    master_writable: bool,
    stdin: bool,
    stdout: bool,
}

/// Waits until anything is ready that is of interest now.
fn wait(
    signals: &SignalFd,
    process: Option<BorrowedFd<'_>>,
    notify: Option<&Notify>,
    relay: Option<&Relay>,
) -> Result<Ready> {
    let readable = PollFlags::POLLIN;
    let mut places: Vec<fn(&mut Ready, PollFlags)> = Vec::with_capacity(5);
    let mut fds = Vec::with_capacity(5);
    let mut watch = |fd, events: PollFlags, place| {
        if !events.is_empty() {
            fds.push(PollFd::new(fd, events));
            places.push(place);
        }
    };
    watch(signals.as_fd(), readable, |ready, _| ready.signals = true);
    if let Some(process) = process {
        watch(process, readable, |ready, _| ready.process = true);
    }
    if let Some(notify) = notify {
        watch(notify.as_fd(), readable, |ready, _| ready.notify = true);
    }
    if let Some(relay) = relay {
        watch(relay.master(), relay.master_events(), |ready, found| {
            ready.master_writable = found.contains(PollFlags::POLLOUT);
            // Also when it has hung up: reading tells.
            ready.master_readable = found.intersects(!PollFlags::POLLOUT);
        });
        watch(relay.stdin(), relay.stdin_events(), |ready, _| {
            ready.stdin = true
        });
        watch(relay.stdout(), relay.stdout_events(), |ready, _| {
            ready.stdout = true
        });
    }
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno).context("poll"),
    }
    let mut ready = Ready::default();
    for (fd, place) in fds.iter().zip(places) {
        // A flag that nix does not know says as little as an error: something is up, try.
        let found = fd.revents().unwrap_or(PollFlags::POLLERR);
        if !found.is_empty() {
            place(&mut ready, found);
        }
    }
    Ok(ready)
}

/// Takes the status of every ended child but `pid`: its status is taken by its pidfd only.
fn reap_orphans(pid: Pid) {
    // Look first (WNOWAIT). When `pid` comes up it has ended, and with it this loop; init reaps what is left.
    while let Ok(Some(child)) = ended(Whose::Any, libc::WNOHANG | libc::WNOWAIT)
        && child.pid != pid
    {
        let _ = ended(Whose::Pid(child.pid), libc::WNOHANG);
    }
}

#[cfg(test)]
mod tests;
