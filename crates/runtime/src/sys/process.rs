//! Processes: clone3(2), pidfds, seccomp(2), closing of descriptors.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::check;
use super::raw::clone_calling;
use crate::scheduling::SchedAttr;

/// On which side of [`clone`] we are.
pub(crate) enum Cloned {
    /// In the caller.
    Parent {
        /// The child, as the caller's pid namespace numbers it.
        pid: Pid,
        /// A pidfd of the child.
        pidfd: OwnedFd,
    },
    /// In the new process.
    Child {
        /// Whether it is in the cgroup that was asked for.
        entered: nix::Result<()>,
    },
}

/// `CLONE_INTO_CGROUP` of clone3(2); libc's constant overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes a process without shared memory: like fork(2), into new namespaces (`CLONE_NEW*`) and, on cgroup v2, into `cgroup`, by
/// clone3(2), or where a seccomp filter around us denies that (it cannot look into its arguments) by clone(2), which cannot make a time
/// namespace.
///
/// Until it executes a program its end sends no signal: [`super::wait::ended`] waits for it all the same, and [`super::wait::has_executed`] tells
/// whether it has.
///
/// No other thread of the calling process may hold a lock, of an allocator for example.
pub(crate) fn clone(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Cloned> {
    match clone3(flags, cgroup) {
        // Filters that mean libc to fall back say ENOSYS, older ones EPERM.
        Err(Errno::ENOSYS | Errno::EPERM) => clone2(flags, cgroup),
        cloned => cloned,
    }
}

/// Whether clone3(2) may be called.
pub(crate) fn has_clone3() -> bool {
    let null = std::ptr::null::<libc::clone_args>();
    // SAFETY: a size of 0 is refused before anything is read.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, null, 0) };
    !matches!(check(answer), Err(Errno::ENOSYS | Errno::EPERM))
}

fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data for which all-zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child gets its own copy of everything, stack included, and no lock is held by a thread that does not exist
    // there.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        return Ok(Cloned::Child { entered: Ok(()) });
    }
    // SAFETY: the kernel stored a new descriptor there before the call returned.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent {
        pid: Pid::from_raw(pid),
        pidfd,
    })
}

/// clone(2); the child moves itself into the cgroup before it does anything else.
fn clone2(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Cloned> {
    // Opened by the caller, whose rights count.
    let members = cgroup
        .map(|cgroup| {
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            openat(cgroup, "cgroup.procs", flags, Mode::empty())
        })
        .transpose()?;
    let mut pidfd: RawFd = -1;
    let flags = flags | libc::CLONE_PIDFD as u64;
    // SAFETY: as for clone3; the third argument is where CLONE_PIDFD stores, and the fourth and fifth are not used.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) })?;
    if pid == 0 {
        let entered = members.map_or(Ok(()), |file| nix::unistd::write(file, b"0").map(drop));
        return Ok(Cloned::Child { entered });
    }
    // SAFETY: the kernel stored a new descriptor there before the call returned.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent {
        pid: Pid::from_raw(pid),
        pidfd,
    })
}

/// Makes a child, on cgroup v2 in `cgroup`, that does `work` in the caller's memory. The caller waits until it has ended, as with vfork(2), and
/// finds there what it has done; descriptors, credentials and namespaces are the child's own. Its end sends no signal, and neither does that of
/// what it makes, as with [`clone`]. `ENOSYS` where clone3(2) is not to be had.
///
/// No other thread may hold a lock, as for [`clone`].
pub(crate) fn lend_memory(
    cgroup: Option<BorrowedFd<'_>>,
    mut work: &mut dyn FnMut(),
) -> nix::Result<Pid> {
    /// The child's first function, on the caller's stack, below what the caller has there.
    unsafe extern "C" fn begin(work: usize) -> ! {
        // SAFETY: the caller waits with it on its stack.
        unsafe { (*(work as *mut &mut dyn FnMut()))() };
        exit_now(0)
    }
    // SAFETY: clone_args is plain data for which all-zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the child touches no more than the stack below this frame, and what `work` may touch; meanwhile the kernel does not let the caller
    // go on. There is no signal handler.
    unsafe { clone_calling(&args, begin, &raw mut work as usize) }
}

/// Ends this process at once: no destructors, no flushing of buffers that belong to the parent.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(status) }
}

/// pidfd_open(2).
pub(crate) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: only integers are passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_send_signal(2).
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks for what kill(2) would send.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            info,
            0,
        )
    })
    .map(drop)
}

/// pidfd_getfd(2): a copy of a descriptor of another process.
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: only integers are passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// setns(2) with several `CLONE_NEW*` at once when `fd` is a pidfd, or with one when it is a namespace.
pub(crate) fn setns(fd: BorrowedFd<'_>, flags: i32) -> nix::Result<()> {
    // SAFETY: only integers are passed.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) }.into()).map(drop)
}

/// unshare(2) of namespaces; nix has no CLONE_NEWTIME.
pub(crate) fn unshare(flags: i32) -> nix::Result<()> {
    // SAFETY: only namespaces are unshared (never CLONE_FILES or memory), which does not touch this process's memory.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// close_range(2): closes the descriptors `first..=last`.
pub(crate) fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: the caller (the last steps before exec) owns the whole process: nothing uses these descriptors afterwards.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// close(2) of a descriptor by its number.
pub(crate) fn close(fd: RawFd) -> nix::Result<()> {
    // SAFETY: as for close_range.
    check(unsafe { libc::close(fd) }.into()).map(drop)
}

/// How many descriptors [`leave`] leaves open.
pub(crate) const LEFT_MAX: usize = 128;
/// How many it has left.
static LEFT: AtomicUsize = AtomicUsize::new(0);

/// For the container's process: leaves a descriptor to [`close_range`], one call for all of them, which comes before anything of the
/// configuration is looked up by path. After so many they are closed, as the limit of open files counts them.
pub(crate) fn leave(fd: OwnedFd) {
    if LEFT.fetch_add(1, Ordering::Relaxed) < LEFT_MAX {
        let _ = fd.into_raw_fd();
    }
}

/// Where the limit of open files has no room for them: from now on [`leave`] closes.
pub(crate) fn leave_none() {
    LEFT.store(LEFT_MAX, Ordering::Relaxed);
}

/// seccomp(2) `SECCOMP_SET_MODE_FILTER` with `SECCOMP_FILTER_FLAG_*`. Where these ask for a listener, its descriptor is returned.
pub(crate) fn install_filter(program: &[seccomp::Instruction], flags: u32) -> nix::Result<RawFd> {
    #[repr(C)]
    struct SockFprog {
        len: u16,
        filter: *const seccomp::Instruction,
    }
    let program = SockFprog {
        len: program.len() as u16,
        filter: program.as_ptr(),
    };
    // SAFETY: `Instruction` has the layout of struct sock_filter, and the program outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })
}

/// execve(2) with ready-made null-terminated arrays: no allocation between the last step of set-up and the exec.
pub(crate) fn execve(
    path: &CStr,
    args: &[*const libc::c_char],
    env: &[*const libc::c_char],
) -> Errno {
    debug_assert!(
        args.last().is_some_and(|p| p.is_null()) && env.last().is_some_and(|p| p.is_null())
    );
    // SAFETY: `path` is a C string and both arrays end with null; their strings are owned by the caller until the exec.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Errno::last()
}

/// execveat(2) of an open file (`AT_EMPTY_PATH`) with our own arguments and environment.
pub(crate) fn exec_self(file: BorrowedFd<'_>, args: &[*const libc::c_char]) -> Errno {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    debug_assert!(args.last().is_some_and(|p| p.is_null()));
    // SAFETY: the path is an empty C string, `args` ends with null, and `environ` is this single-threaded process's own.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            environ,
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// prctl(2) with one argument.
pub(crate) fn prctl(option: i32, argument: u64) -> nix::Result<i32> {
    // SAFETY: the options used in this crate take integers.
    check(unsafe { libc::prctl(option, argument, 0, 0, 0) }.into())
}

/// personality(2).
pub(crate) fn personality(domain: u64) -> nix::Result<()> {
    // SAFETY: only an integer is passed.
    check(unsafe { libc::personality(domain) }.into()).map(drop)
}

/// Signals that are ignored (as bits, the lowest for signal 1; all of them where that is not known) back to their default disposition, and none
/// blocked, as we do SIGPIPE: callers may ignore some. execve(2) sees to those that have handlers.
pub(crate) fn reset_signals(ignored: Option<u64>) {
    let ignored = ignored.unwrap_or(u64::MAX);
    // struct sigaction of the kernel: handler, flags, restorer, mask. By the raw call, since libc keeps some signals to itself.
    let default = [libc::SIG_DFL as u64, 0, 0, 0];
    for signal in (1..=64).filter(|signal| ignored >> (signal - 1) & 1 == 1) {
        // SAFETY: SIG_DFL is always a valid disposition; SIGKILL and SIGSTOP give an error that does not matter.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8,
            )
        };
    }
    let none = 0_u64;
    // SAFETY: the new mask is a live 8-byte set, and no old one is asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null_mut::<u64>(),
            8,
        )
    };
}

/// A program that is started has every signal's default disposition and none blocked, whatever we have for ourselves.
pub(crate) fn with_reset_signals(command: &mut std::process::Command) {
    let reset = || {
        reset_signals(None);
        Ok(())
    };
    // SAFETY: between fork and exec these are system calls only.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, reset) };
}

/// set_mempolicy(2) of the calling process: `MPOL_*` with flags, and nodes as bits, the lowest byte first.
pub(crate) fn set_memory_policy(mode: u32, nodes: &[u8]) -> nix::Result<()> {
    // The kernel reads whole words, and takes one bit less than it is told.
    let mut mask = nodes.to_vec();
    mask.resize(nodes.len().next_multiple_of(8), 0);
    let bits = mask.len() * 8 + 1;
    // SAFETY: the mask has as many words as one bit less than `bits` needs.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask.as_ptr(), bits) }).map(drop)
}

/// sched_setaffinity(2) of the calling process.
pub(crate) fn set_affinity(cpus: &[u8]) -> nix::Result<()> {
    // SAFETY: pointer and length are those of the slice.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, cpus.len(), cpus.as_ptr()) })
        .map(drop)
}

/// A new session keyring named `name` (keyctl(2) `KEYCTL_JOIN_SESSION_KEYRING`) that its owner may search.
pub(crate) fn join_session_keyring(name: &CStr) -> nix::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: `name` is a C string.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
        .map(drop)
}

/// flock(2). nix's wrapper takes the descriptor away; a state directory's is needed for more than its lock.
pub(crate) fn flock(fd: BorrowedFd<'_>, operation: i32) -> nix::Result<()> {
    // SAFETY: only integers are passed.
    check(unsafe { libc::flock(fd.as_raw_fd(), operation) }.into()).map(drop)
}

/// dup2(2): makes `number`, whatever it was, a copy of a descriptor that stays open across execve(2).
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> nix::Result<()> {
    // SAFETY: as for close_range.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// Takes over a descriptor that the kernel has just made, as one that arrived by `SCM_RIGHTS`.
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel put the descriptor into our table for this message, and only the caller has seen its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// prlimit(2): sets one resource limit of a process, 0 being the caller.
pub(crate) fn set_limit(pid: Pid, resource: u32, soft: u64, hard: u64) -> nix::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: the new limit is a live struct, and no old one is asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid.as_raw(),
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit>(),
        )
    })
    .map(drop)
}

/// getrlimit(2) of this process: soft and hard.
pub(crate) fn limit(resource: u32) -> nix::Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one struct rlimit, and no new one is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            std::ptr::null::<libc::rlimit>(),
            &raw mut limit,
        )
    })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// sched_setattr(2) of the calling process.
pub(crate) fn set_scheduler(attributes: &SchedAttr) -> nix::Result<()> {
    // SAFETY: the struct carries its own size, which is how much the kernel reads.
    check(unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            0,
            attributes as *const SchedAttr,
            0,
        )
    })
    .map(drop)
}

/// ioprio_set(2) of the calling process.
pub(crate) fn set_io_priority(class: u32, level: u32) -> nix::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: only integers are passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            0,
            class << 13 | level,
        )
    })
    .map(drop)
}

/// Borrows a descriptor by its number: a standard stream, or one that the caller of this program handed over. Whether it is open is
/// for the kernel to say.
pub(crate) fn standard_stream(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: nothing in this program owns these descriptors, so none of them is closed while it is borrowed.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// setdomainname(2).
pub(crate) fn set_domain_name(name: &str) -> nix::Result<()> {
    // SAFETY: pointer and length are those of the string.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// Gives back the pages of a mapping that are exactly what its file holds: the next look at one reads it again.
///
/// Anything else than a range of whole, file-backed pages without private copies would lose what was written there.
pub(crate) fn give_back(start: usize, length: usize) -> nix::Result<()> {
    // SAFETY: the callers take the range from /proc/self/smaps, where it is a mapping of a file that is not writable and has no
    // anonymous page, so that its content is the same afterwards.
    let result = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    check(result.into()).map(drop)
}
