//! Making a process in namespaces: by one clone3(2), or two where the kernel demands that somebody else goes in first.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use cgroups::Cgroup;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::IntoCause;
use crate::protocol::{Channel, Message};
use crate::sys::process::{Cloned, clone, exit_now, lend_memory, pidfd_open};
use crate::sys::wait::{Whose, ended};
use crate::{Context, Error, Result, affinity, userns};

const CREATING: &str = "create the container's process";
const GONE: &str = "the process that joins the namespaces ended unexpectedly";

/// Somebody who is made by a process in between.
pub(crate) trait Inside {
    /// What the process in between does. If there is something to `keep`, that has to stay open.
    fn enter(&mut self, keep: Option<RawFd>) -> Result<()>;
    /// The whole life of the process that it makes then.
    fn run(&mut self) -> !;
}

/// Makes a child of this process, into new namespaces (`CLONE_NEW*`) and, on cgroup v2, straight into `cgroup`.
pub(crate) fn spawn(flags: i32, cgroup: Option<&Cgroup>) -> Result<Cloned> {
    let flags = flags as u64;
    clone(flags, cgroup.and_then(Cgroup::clone_into)).map_err(|errno| refused(errno, flags, cgroup))
}

/// Makes a child by a short-lived process in between, in `cgroup` too. It is still ours (`CLONE_PARENT`), so its pid stays its own until we
/// reap it.
///
/// The process in between works in our memory, for a copy takes as long as all that it does. One that joins a time namespace has to have its own
/// (time_namespaces(7)).
pub(crate) fn spawn_inside(
    flags: i32,
    cgroup: Option<&Cgroup>,
    joins_time: bool,
    child: &mut dyn Inside,
) -> Result<(Pid, OwnedFd)> {
    let mut made = None;
    let lent = match joins_time {
        true => Err(Errno::ENOSYS),
        false => {
            let _here = affinity::Here::stay();
            lend_memory(cgroup.and_then(Cgroup::clone_into), &mut || {
                made = Some(between(flags, child, None));
            })
        }
    };
    let pid = match lent {
        Err(Errno::ENOSYS | Errno::EPERM) => spawn_by_message(flags, cgroup, child)?,
        lent => {
            reap(lent.map_err(|errno| refused(errno, 0, cgroup))?)?;
            made.unwrap_or_else(|| Err(Error::failed(GONE)))?
        }
    };
    Ok((pid, pidfd_open(pid).context(CREATING)?))
}

/// In the process in between: the pid of the child, where this does not return.
fn between(flags: i32, child: &mut dyn Inside, keep: Option<RawFd>) -> Result<Pid> {
    child.enter(keep)?;
    let cloned = clone((flags | libc::CLONE_PARENT) as u64, None);
    match cloned.map_err(|errno| refused(errno, flags as u64, None))? {
        Cloned::Child { .. } => child.run(),
        Cloned::Parent { pid, pidfd } => {
            // It goes with this process.
            let _ = pidfd.into_raw_fd();
            Ok(pid)
        }
    }
}

/// [`spawn_inside`] by a process with memory of its own.
fn spawn_by_message(flags: i32, cgroup: Option<&Cgroup>, child: &mut dyn Inside) -> Result<Pid> {
    let (ours, theirs) = Channel::pair()?;
    let intermediate = match spawn(0, cgroup)? {
        Cloned::Child { entered } => {
            // Before `enter` closes what is not its own, and somebody else gets its number.
            drop(ours);
            let made = entered
                .map_err(not_entered)
                .and_then(|()| between(flags, child, Some(theirs.as_raw_fd())));
            match made {
                Ok(pid) => {
                    if theirs.send(&Message::Pid(pid.as_raw())).is_err() {
                        // Nobody would ever know of it. It is not reaped, so the pid is its own.
                        let _ = kill(pid, Signal::SIGKILL);
                    }
                }
                Err(error) => theirs.send_failure(&error),
            }
            exit_now(0)
        }
        Cloned::Parent { pid, .. } => pid,
    };
    drop(theirs);
    let answer = ours.receive();
    reap(intermediate)?;
    match answer? {
        Some(Message::Pid(pid)) => Ok(Pid::from_raw(pid)),
        Some(Message::Failed(text)) => Err(Error::failed(text)),
        _ => Err(Error::failed(GONE)),
    }
}

fn reap(intermediate: Pid) -> Result<()> {
    ended(Whose::Pid(intermediate), 0)
        .map(drop)
        .context("reap the process that joined the namespaces")
}

/// The error of a process that could not be born in its cgroup, and not move there either.
pub(crate) fn not_entered(errno: Errno) -> Error {
    let reason = match errno {
        // Nothing else about a process is invalid there (CONFIG_RT_GROUP_SCHED).
        Errno::EINVAL => {
            ": its cpu.rt_runtime_us is 0, and this is a realtime process: set linux.resources.cpu.realtimeRuntime, or start coracle \
             with another scheduling policy (chrt --other 0)"
        }
        _ => "",
    };
    let (kind, cause) = errno.into_cause();
    Error::new(
        kind,
        format!("enter the container's cgroup: {cause}{reason}"),
    )
}

/// The kernel has one errno for many reasons.
fn refused(errno: Errno, flags: u64, cgroup: Option<&Cgroup>) -> Error {
    let reason = match (errno, cgroup) {
        // Processes count against the limits of v1 as well.
        (Errno::EAGAIN | Errno::EBUSY | Errno::EOPNOTSUPP | Errno::ENODEV, Some(cgroup)) => {
            return Error::failed(format!("{CREATING}: {}", cgroup.no_entry(errno)));
        }
        // Into a cgroup of another subtree (cgroup-v2.rst, "Delegation Containment"). No namespace gives this answer without AppArmor.
        (Errno::EACCES, Some(_)) if !userns::privileged() => Some(
            "linux.cgroupsPath: a process can only be moved within what is delegated to its user, and coracle itself is somewhere else \
             (/proc/self/cgroup): start it inside the delegated cgroup, or with \"systemd-run --user --scope -p Delegate=yes\""
                .to_owned(),
        ),
        _ => userns::refused(errno, flags as i32),
    };
    let reason = reason.map(|reason| format!(": {reason}"));
    let (kind, cause) = errno.into_cause();
    Error::new(
        kind,
        format!("{CREATING}: {cause}{}", reason.unwrap_or_default()),
    )
}
