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
    loop {
        // SAFETY: siginfo_t is plain data for which all-zero is valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: waitid fills one siginfo_t. __WALL: also a child that ends with another signal than SIGCHLD.
        match Errno::result(unsafe {
            libc::waitid(
                kind,
                id,
                &raw mut info,
                flags | libc::WEXITED | libc::__WALL,
            )
        }) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        // SAFETY: after waitid has succeeded, the fields for SIGCHLD are those that are set, or all is still zero.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        let status = if info.si_code == libc::CLD_EXITED {
            status
        } else {
            128 + status
        };
        return Ok((pid != 0).then(|| Ended {
            pid: Pid::from_raw(pid),
            status,
        }));
    }
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
