//! System calls that nix does not wrap safely. The only `unsafe` of this crate.

#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};
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

/// pidfd_open(2) of a child that nobody has waited for.
pub(crate) fn pidfd(child: &Child) -> nix::Result<OwnedFd> {
    // SAFETY: only integers are passed.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
