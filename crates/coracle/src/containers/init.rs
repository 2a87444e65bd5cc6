//! `--init`: the first process of a container, which forwards signals to the user's and reaps what others leave behind. It is `coracle`
//! itself under another name.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::libc::{SIGCHLD, SIGTTIN, SIGTTOU};
use nix::sys::signal::{SigSet, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, isatty, setpgid, tcsetpgrp};
use runtime::{Context, Result};

use super::id;
use crate::logging::to_stderr;

/// The name under which `coracle` is an init.
pub(crate) const NAME: &str = "coracle-init";

/// A copy of this program in the store, for containers to have: where it runs from is in no mount namespace. It is made once for each
/// build.
pub(crate) fn provide(store: &Path) -> Result<PathBuf> {
    let place = store.join(concat!("init-", env!("CORACLE_COMMIT")));
    let own = fs::metadata("/proc/self/exe").context("look at our own program")?;
    if fs::metadata(&place).is_ok_and(|there| there.len() == own.len()) {
        return Ok(place);
    }
    let temporary = store.join(format!("init-{}", id::random()?));
    fs::copy("/proc/self/exe", &temporary)
        .and_then(|_| fs::set_permissions(&temporary, Permissions::from_mode(0o555)))
        .and_then(|()| fs::rename(&temporary, &place))
        .with_context(|| format!("--init: copy our own program to {}", place.display()))?;
    Ok(place)
}

/// Runs the command behind `--` until it ends. The exit status is its, 128 + signal when a signal ended it.
pub(crate) fn main() -> i32 {
    let mut args = runtime::arguments()
        .iter()
        .skip(1)
        .skip_while(|arg| *arg != "--")
        .skip(1);
    let Some(program) = args.next() else {
        to_stderr(&format!("{NAME}: no command"));
        return 125;
    };
    // A group of its own, so that the keys of a terminal reach it and not us.
    let spawned = Command::new(program).args(args).process_group(0).spawn();
    let all = SigSet::all();
    if all.thread_block().is_err() {
        return 125;
    }
    let child = match spawned {
        Ok(child) => Pid::from_raw(child.id() as i32),
        Err(error) => {
            to_stderr(&format!("{NAME}: exec {program:?}: {error}"));
            return match error.kind() {
                std::io::ErrorKind::NotFound => 127,
                _ => 126,
            };
        }
    };
    if isatty(std::io::stdin()).unwrap_or(false) {
        let _ = setpgid(child, child);
        let _ = tcsetpgrp(std::io::stdin(), child);
    }
    supervise(child, &all)
}

fn supervise(child: Pid, signals: &SigSet) -> i32 {
    loop {
        // Before the first wait too: it may have ended before the signal that says so was blocked.
        if let Some(status) = reap(child) {
            return status;
        }
        match signals.wait() {
            // These are ours: we touched the terminal.
            Ok(signal) if matches!(signal as i32, SIGTTIN | SIGTTOU | SIGCHLD) => {}
            Ok(signal) => drop(kill(child, signal)),
            Err(_) => {}
        }
    }
}

/// Takes the status of all that have ended; tells that of `child` when it is among them.
fn reap(child: Pid) -> Option<i32> {
    let mut status = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => status = Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                status = Some(128 + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return status,
            Ok(_) | Err(_) => {}
        }
    }
}
