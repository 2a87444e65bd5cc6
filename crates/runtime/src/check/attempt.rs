//! Trying something in a child that is gone afterwards, with all its namespaces.

use std::fs;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid};

use crate::protocol::{Channel, Message};
use crate::spawn::spawn;
use crate::sys::process::{Cloned, exit_now, pidfd_send_signal};
use crate::{Context, Error, Result, userns};

/// Runs `act` in a child with new namespaces (`CLONE_NEW*`), after `prepare` has had its pid.
///
/// # Errors
/// Where the namespaces cannot be made, with what helps; or why `prepare` or `act` failed.
pub(super) fn attempt(
    flags: i32,
    prepare: impl FnOnce(Pid) -> Result<()>,
    act: impl FnOnce() -> nix::Result<()>,
) -> Result<()> {
    let (ours, childs) = Channel::pair()?;
    let (pid, pidfd) = match spawn(flags, None)? {
        Cloned::Child { .. } => {
            // Without our copy the end of the parent is the end of the conversation.
            drop(ours);
            let done = childs.expect(&Message::Recorded).map(|()| act());
            exit_now(match done {
                Ok(Ok(())) => 0,
                Ok(Err(errno)) => errno as i32,
                Err(_) => Errno::ECANCELED as i32,
            })
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(childs);
    let prepared = prepare(pid).and_then(|()| ours.send(&Message::Recorded));
    if prepared.is_err() {
        let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    }
    let ended = waitpid(pid, Some(WaitPidFlag::__WALL)).context("wait for the attempt");
    prepared?;
    match ended? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno)).context("try it"),
        _ => Err(Error::failed("the attempt was killed")),
    }
}

/// [`attempt`] in new namespaces and, unless we may make them as we are, in a user namespace that maps our own ids.
pub(super) fn isolated(flags: i32, act: impl FnOnce() -> nix::Result<()>) -> Result<()> {
    if userns::privileged() {
        return attempt(flags, |_| Ok(()), act);
    }
    let (uid, gid) = (geteuid(), getegid());
    let mapped = move || {
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
        write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        act()
    };
    attempt(flags | libc::CLONE_NEWUSER, |_| Ok(()), mapped)
}

fn write(file: &str, text: &str) -> nix::Result<()> {
    fs::write(file, text).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

/// In a new mount namespace: nothing that is mounted from here on is seen outside.
pub(super) fn cut_off() -> nix::Result<()> {
    let flags = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
}
