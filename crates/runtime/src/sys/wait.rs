//! waitid(2) for every signal: nix loses the status of a process that a real-time signal has ended.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

/// Whose end is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose<'a> {
    /// Any child's.
    Any,
    /// That of the child behind a pidfd.
    Process(BorrowedFd<'a>),
    /// That of the child with this pid.
    Pid(Pid),
}

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Which one.
    pub(crate) pid: Pid,
    /// Its exit status, 128 + signal when a signal ended it.
    pub(crate) status: i32,
}

/// waitid(2) with `WEXITED` and the given further flags. `None` when `WNOHANG` is among them and none has ended.
pub(crate) fn ended(whose: Whose<'_>, flags: i32) -> nix::Result<Option<Ended>> {
    let (kind, id) = match whose {
        Whose::Any => (libc::P_ALL, 0),
        Whose::Process(pidfd) => (libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t),
        Whose::Pid(pid) => (libc::P_PID, pid.as_raw() as libc::id_t),
    };
    // __WALL: also a child that ends with another signal than SIGCHLD.
    let info = loop {
        match waitid(kind, id, flags | libc::WEXITED | libc::__WALL) {
            Err(Errno::EINTR) => {}
            info => break info?,
        }
    };
    // SAFETY: after waitid has succeeded, the fields for SIGCHLD are those that are set, or all is still zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let status = if info.si_code == libc::CLD_EXITED {
        status
    } else {
        128 + status
    };
    Ok((pid != 0).then(|| Ended {
        pid: Pid::from_raw(pid),
        status,
    }))
}

/// Whether a child that [`super::process::clone`] has made, and nobody has reaped, has executed a program: with that its end sends SIGCHLD
/// (execve(2)), and it is none any more that wait(2) finds by `__WCLONE`.
pub(crate) fn has_executed(child: BorrowedFd<'_>) -> nix::Result<bool> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WCLONE;
    match waitid(libc::P_PIDFD, child.as_raw_fd() as libc::id_t, flags) {
        Ok(_) => Ok(false),
        Err(Errno::ECHILD) => Ok(true),
        Err(errno) => Err(errno),
    }
}

fn waitid(kind: libc::idtype_t, id: libc::id_t, flags: i32) -> nix::Result<libc::siginfo_t> {
    // SAFETY: siginfo_t is plain data for which all-zero is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: waitid fills one siginfo_t.
    Errno::result(unsafe { libc::waitid(kind, id, &raw mut info, flags) })?;
    Ok(info)
}

/// `struct pidfd_info` of linux/pidfd.h, as large as its first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: the exit code is asked for, and is there.
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: u64 = (3 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xFF << 8) | 11;

/// What wait(2) told the parent of a process that it has reaped (Linux 6.15); `None` where the kernel does not tell.
pub(crate) fn exit_of_reaped(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo {
        mask: INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the kernel writes at most as much as the size in the request's number says, which is the structure's.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, &raw mut info) };
    (result == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::sys::process::{Cloned, clone, execve, exit_now};

    /// A child that ends at once, by another program or without.
    fn child(program: Option<&CStr>) -> OwnedFd {
        match clone(0, None).unwrap() {
            Cloned::Parent { pidfd, .. } => pidfd,
            Cloned::Child { .. } => {
                let nothing = [std::ptr::null()];
                program.map(|program| execve(program, &nothing, &nothing));
                exit_now(7)
            }
        }
    }

    #[test]
    fn a_child_that_has_executed_a_program_is_told_from_one_that_has_not() {
        for (program, executes) in [
            (Some(c"/bin/true"), true),
            (Some(c"/none"), false),
            (None, false),
        ] {
            let child = child(program);
            let whose = Whose::Process(child.as_fd());
            ended(whose, libc::WNOWAIT).unwrap();
            assert_eq!(has_executed(child.as_fd()), Ok(executes), "{program:?}");
            let status = ended(whose, 0).unwrap().unwrap().status;
            assert_eq!(status != 7, executes, "{program:?}");
        }
    }
}
