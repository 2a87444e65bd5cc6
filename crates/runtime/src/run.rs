//! `run`: create, start and, unless detached, wait and delete.

use std::os::fd::AsFd;

use crate::foreground::{Foreground, fit_terminal};
use crate::launch::{Gate, launch};
use crate::{CreateOptions, Result, Settings, notify, protect, sys};

/// The options of [`run`].
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The options that `run` shares with `create`.
    pub create: CreateOptions,
    /// Do not wait for the container.
    pub detach: bool,
    /// Do not delete the container when it has ended.
    pub keep: bool,
    /// Do not become the reaper of what the container leaves behind.
    pub no_subreaper: bool,
}

/// Creates and starts a container. Returns its exit status (128 + signal when a signal ended it), 0 when detached.
pub fn run(settings: &Settings, options: &RunOptions) -> Result<i32> {
    // First of all, so that nothing is done twice when it executes us again.
    protect::ensure()?;
    let host = notify::host();
    let launch = |foreground: Option<&Foreground>| {
        let detached = options.detach;
        let gate = Gate::Run { detached };
        launch(settings, &options.create, gate, host.is_some(), foreground)
    };
    if options.detach {
        let mut launched = launch(None)?;
        let notify = launched.notify(host.as_deref())?;
        launched.start(None)?;
        let (pid, pidfd) = launched.keep();
        return notify
            .map_or(Ok(()), |notify| notify.wait(pid.as_raw(), pidfd.as_fd()))
            .map(|()| 0);
    }
    let reap = !options.no_subreaper;
    if reap {
        // Without a pid namespace of its own the container's orphans come to us.
        let _ = sys::process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
    }
    // Before anything exists, so that no signal ends us half-way: those that are meant to end us undo what there is by then, the others
    // reach the container as soon as there is one.
    let foreground = Foreground::prepare()?;
    let mut launched = launch(Some(&foreground))?;
    let terminal = launched.terminal.take();
    terminal
        .iter()
        .for_each(|master| fit_terminal(master.as_fd()));
    let notify = launched.notify(host.as_deref())?;
    launched.start(Some(&foreground))?;
    let foreground = foreground.with_notify(notify);
    let status = foreground.supervise(launched.pid, launched.pidfd.as_fd(), terminal, reap)?;
    if options.keep {
        launched.release();
    } else {
        launched.delete()?;
        // Nothing comes after this: what is open goes with the process.
        std::mem::forget(launched);
    }
    Ok(status)
}
