//! System calls that nix and the standard library do not wrap safely. The only `unsafe` of this crate.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{ForkResult, Pid, fork, pipe2};

/// Takes over the listening socket that was handed to this process under a number, if it is one.
pub(crate) fn listener(fd: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: only borrowed until the kernel has said what it is; nothing of this process has been opened with this number yet.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    if !getsockopt(&borrowed, sockopt::AcceptConn)? {
        return Err(Errno::ENOTSOCK);
    }
    // SAFETY: an open descriptor that the parent left to this process and that nothing else here owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has a command start with these descriptors as 3, 4, ….
pub(crate) fn hand_over(command: &mut Command, descriptors: Vec<OwnedFd>) {
    let install = move || {
        // First out of the way of the numbers they are to have, then to those numbers, where they survive execve(2).
        let first = 3 + descriptors.len() as RawFd;
        let mut moved = Vec::with_capacity(descriptors.len());
        for descriptor in &descriptors {
            // SAFETY: fcntl with F_DUPFD_CLOEXEC takes no pointer.
            let copy = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first) };
            moved.push(Errno::result(copy)?);
        }
        for (number, from) in (3..).zip(moved) {
            // SAFETY: dup2 takes no pointer, and what it may close is this child's copy.
            Errno::result(unsafe { libc::dup2(from, number) })?;
        }
        Ok(())
    };
    // SAFETY: this process has one thread, so that the child may allocate; the closure makes system calls besides.
    unsafe { command.pre_exec(install) };
}

/// Sets the size of a terminal by its master.
pub(crate) fn resize(master: BorrowedFd<'_>, width: u16, height: u16) -> nix::Result<()> {
    let size = libc::winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}

/// kill(2) with a plain number, so that real-time signals pass.
pub(crate) fn kill(pid: i32, signal: i32) -> nix::Result<()> {
    // SAFETY: kill takes no pointers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Puts this process, and so its children, into a core-scheduling group of their own (`prctl(2)`, `PR_SCHED_CORE`).
pub(crate) fn own_scheduling_core() -> nix::Result<()> {
    const CREATE: libc::c_ulong = 1;
    const PROCESS_GROUP: libc::c_ulong = 2;
    const NONE: libc::c_ulong = 0;
    // SAFETY: no pointers.
    let result = unsafe { libc::prctl(libc::PR_SCHED_CORE, CREATE, NONE, PROCESS_GROUP, NONE) };
    Errno::result(result).map(drop)
}

/// Takes ownership of a descriptor that recvmsg(2) has just brought.
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has made it for this process and told nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A child that does nothing but be in a user namespace of its own, until it is dropped.
#[derive(Debug)]
pub(crate) struct Sleeper(Pid);

impl Sleeper {
    /// Returns when the child is there, and in its namespace.
    pub(crate) fn in_new_user_namespace() -> nix::Result<Sleeper> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: this process has one thread, so that nothing can be half done in the child's copy of it.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                let sleeper = Sleeper(child);
                drop(write);
                match nix::unistd::read(&read, &mut [0])? {
                    0 => Err(Errno::EPERM),
                    _ => Ok(sleeper),
                }
            }
            ForkResult::Child => {
                let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
                    .and_then(|()| nix::unistd::write(&write, &[1]))
                    .map(|_| nix::unistd::pause());
                // SAFETY: ends this process without running anything of the parent's.
                unsafe { libc::_exit(1) }
            }
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.0
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = kill(self.0.as_raw(), libc::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.0, None);
    }
}

/// A detached copy of the mount that a directory is in, from there on (`open_tree(2)`).
pub(crate) fn clone_tree(directory: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    // SAFETY: the path is a C string.
    let fd = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            directory.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    })?;
    // SAFETY: the kernel has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Maps the ids of a detached mount as a user namespace does (`mount_setattr(2)`).
pub(crate) fn map_ids(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> nix::Result<()> {
    /// `struct mount_attr`.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        namespace: u64,
    }
    let attributes = Attributes {
        set: libc::MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        namespace: namespace.as_raw_fd() as u64,
    };
    // SAFETY: the path is a C string, and the kernel reads one mount_attr of the size given.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
    .map(drop)
}

/// Mounts a detached mount on a directory (`move_mount(2)`).
pub(crate) fn attach(mount: BorrowedFd<'_>, directory: BorrowedFd<'_>) -> nix::Result<()> {
    let empty_paths = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are C strings.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            directory.as_raw_fd(),
            c"".as_ptr(),
            empty_paths,
        )
    })
    .map(drop)
}
