//! The runtime's own binary must not be reachable for writing from a container, where `/proc/self/exe` of a process that is about to
//! become the container, or an entrypoint or `#!` line of that name, leads to it (CVE-2019-5736).
//!
//! So commands that put a process into a container first execute themselves again from a read-only, detached copy of the mount that
//! holds the binary: opening it for writing fails there, and nobody can change the mount, since it is in no mount namespace. Where that
//! cannot be had (before Linux 5.12, or without the right to mount), from a sealed memfd.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, SealFlag, fcntl, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;
use nix::sys::stat::{Mode, fstat};
use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};

use crate::mounts::options::RDONLY;
use crate::sys::mount::{MountAttr, clone_tree, clone_tree_with, set_attributes};
use crate::{Context, Result, sys};

/// The file that this process executes.
const SELF: &CStr = c"/proc/self/exe";

/// Whether it is known to be out of reach.
static DONE: AtomicBool = AtomicBool::new(false);

/// The mount that the binary is executed from, as long as it is open. The kernel takes 100 µs to close it, waiting for all CPUs.
static COPY: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// For a program that has seen to it by itself: it has found its binary on a read-only mount, if one of its own making on this. Nothing that a
/// caller passes can say so.
pub fn set_protected(copy: Option<OwnedFd>) {
    DONE.store(true, Ordering::Relaxed);
    *COPY.lock().unwrap_or_else(PoisonError::into_inner) = copy;
}

/// Closes the mount, which stays as long as the binary is executed: first in a process that has a copy of the descriptor, then, where there is time
/// for it, in the one that made that process.
pub(crate) fn let_go() {
    drop(COPY.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Returns at once when the running binary is out of reach already; else executes it again from where it is.
pub fn ensure() -> Result<()> {
    if DONE.load(Ordering::Relaxed) {
        return Ok(());
    }
    let protecting = "protect the runtime's binary";
    let is_readonly = |found: Statvfs| found.flags().contains(FsFlags::ST_RDONLY);
    // Nothing that a caller passes can talk us out of it.
    if is_readonly(statvfs(SELF).context(protecting)?) {
        set_protected(None);
        return Ok(());
    }
    let copy = match readonly_mount() {
        Ok(mount) => mount,
        Err(_) => {
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
            let binary = openat(AT_FDCWD, SELF, flags, Mode::empty()).context(protecting)?;
            if is_sealed(&binary) {
                set_protected(None);
                return Ok(());
            }
            sealed_copy(&binary).context(protecting)?
        }
    };
    let args: Vec<CString> = crate::arguments()
        .iter()
        .filter_map(|arg| CString::new(arg.as_bytes()).ok())
        .collect();
    let pointers: Vec<_> = args
        .iter()
        .map(|arg| arg.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    Err(sys::process::exec_self(copy.as_fd(), &pointers)).context(protecting)
}

fn readonly_mount() -> nix::Result<OwnedFd> {
    let readonly = MountAttr {
        set: RDONLY,
        ..MountAttr::default()
    };
    match clone_tree_with(AT_FDCWD, SELF, false, &readonly) {
        Err(Errno::ENOSYS) => {
            let mount = clone_tree(AT_FDCWD, SELF, false)?;
            set_attributes(mount.as_fd(), false, &readonly)?;
            Ok(mount)
        }
        mount => mount,
    }
}

const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

fn is_sealed(binary: &OwnedFd) -> bool {
    fcntl(binary, FcntlArg::F_GET_SEALS)
        .is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SEALS))
}

fn sealed_copy(binary: &OwnedFd) -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // MFD_EXEC says so where vm.memfd_noexec would have it otherwise; kernels before 6.3 do not know it.
    let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let copy =
        memfd_create("coracle", flags | executable).or_else(|_| memfd_create("coracle", flags))?;
    let mut left = fstat(binary)?.st_size as usize;
    while left > 0 {
        match sendfile(&copy, binary, None, left)? {
            0 => return Err(Errno::EIO),
            sent => left -= sent,
        }
    }
    fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(copy)
}
