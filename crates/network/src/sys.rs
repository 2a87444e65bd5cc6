//! System calls that nix does not wrap safely. The only `unsafe` of this crate.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::sys::signal::SigSet;

/// The program starts with no signal blocked, whatever we have blocked for ourselves.
pub(crate) fn unblock_signals(command: &mut Command) {
    let unblock = || SigSet::empty().thread_set_mask().map_err(Into::into);
    // SAFETY: between fork and exec this is one system call, on memory of its own.
    unsafe { command.pre_exec(unblock) };
}

/// getsockopt(2) of an option that no library knows: fills the buffer, which the kernel reads too.
pub(crate) fn socket_option(
    socket: impl AsFd,
    level: i32,
    name: i32,
    buffer: &mut [u8],
) -> nix::Result<()> {
    let mut length = buffer.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which are the buffer's.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            buffer.as_mut_ptr().cast(),
            &mut length,
        )
    };
    Errno::result(done).map(drop)
}

/// Packets come to this socket by the link with this number alone. Nobody looks whether there is one.
pub(crate) fn bind_to_link(socket: impl AsFd, number: i32) -> nix::Result<()> {
    // SAFETY: the kernel reads an integer.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTOIFINDEX,
            (&raw const number).cast(),
            size_of_val(&number) as libc::socklen_t,
        )
    };
    Errno::result(done).map(drop)
}

/// pidfd_open(2) of a child that nobody has waited for.
pub(crate) fn pidfd(child: &Child) -> nix::Result<OwnedFd> {
    // SAFETY: only integers are passed.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
