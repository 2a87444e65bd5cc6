//! Making a process in namespaces: one clone3(2), or two where the kernel demands that somebody else goes in first.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::protocol::{Channel, Message};
use crate::sys::process::{Cloned, clone3, exit_now, pidfd_open, pidfd_send_signal};
use crate::{Context, Error, Result, userns};

const CREATING: &str = "create the container's process";

/// What the process in between does, given the one descriptor of its own that it has to keep open.
pub(crate) type Enter<'a> = &'a mut dyn FnMut(RawFd) -> Result<()>;

/// Makes a child of this process, into new namespaces (`CLONE_NEW*`) and, on cgroup v2, straight into `cgroup`.
///
/// With `enter` a short-lived process, in `cgroup` too, stands in between and calls it first. The child is still ours (`CLONE_PARENT`),
/// so its pid stays its own until we reap it.
pub(crate) fn spawn(
    flags: i32,
    cgroup: Option<BorrowedFd<'_>>,
    enter: Option<Enter<'_>>,
) -> Result<Cloned> {
    let flags = flags as u64;
    let Some(enter) = enter else {
        return clone3(flags, cgroup).map_err(|errno| refused(errno, flags, cgroup));
    };
    let (ours, theirs) = Channel::pair()?;
    match clone3(0, cgroup).map_err(|errno| refused(errno, 0, cgroup))? {
        Cloned::Child => {
            let parents = flags | libc::CLONE_PARENT as u64;
            let cloned = enter(theirs.as_raw_fd())
                .and_then(|()| clone3(parents, None).map_err(|errno| refused(errno, flags, None)));
            match cloned {
                Ok(Cloned::Child) => return Ok(Cloned::Child),
                Ok(Cloned::Parent { pid, pidfd }) => {
                    if theirs.send(&Message::Pid(pid.as_raw())).is_err() {
                        // Nobody would ever know of it.
                        let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
                    }
                }
                Err(error) => theirs.send_failure(&error),
            }
            exit_now(0)
        }
        Cloned::Parent {
            pid: intermediate, ..
        } => {
            drop(theirs);
            let answer = ours.receive();
            waitpid(intermediate, None).context("reap the process that joined the namespaces")?;
            match answer? {
                Some(Message::Pid(pid)) => {
                    let pid = Pid::from_raw(pid);
                    Ok(Cloned::Parent {
                        pid,
                        pidfd: pidfd_open(pid).context(CREATING)?,
                    })
                }
                Some(Message::Failed(text)) => Err(Error::failed(text)),
                _ => Err(Error::failed(
                    "the process that joins the namespaces ended unexpectedly",
                )),
            }
        }
    }
}

/// The kernel has one errno for many reasons.
fn refused(errno: Errno, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Error {
    let flags = flags as i32;
    let reason = match (errno, cgroup) {
        // Into a cgroup of another subtree (cgroup-v2.rst, "Delegation Containment"). No namespace gives this answer without AppArmor.
        (Errno::EACCES, Some(_)) if !userns::privileged() => Some(
            "linux.cgroupsPath: a process can only be moved within what is delegated to its user, and coracle itself is somewhere else \
             (/proc/self/cgroup): start it inside the delegated cgroup, or with \"systemd-run --user --scope -p Delegate=yes\""
                .to_owned(),
        ),
        _ => userns::refused(errno, flags),
    };
    let text = format!("{CREATING}: {}", errno.desc().to_lowercase());
    match reason {
        Some(reason) => Error::failed(format!("{text}: {reason}")),
        None => Error::failed(text),
    }
}
