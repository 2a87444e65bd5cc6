//! What a process gives up before it looks at the first byte of a layer: everything but one directory and what it was handed.
//!
//! Whoever takes the process over by a crafted layer finds no path to another file (chroot(2), Landlock), no way to make a socket, a
//! process or a mapping that can be executed (seccomp(2)), and of root's capabilities those that files in a container's root need.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{chroot, fchdir};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::error::{Context, Error, Kind, Result};
use crate::sys;

/// Owners, modes, devices, file capabilities, and `trusted.overlay.…` (capabilities(7)).
const CAPABILITIES: u64 = 1 << 0 // CAP_CHOWN
    | 1 << 1 // CAP_DAC_OVERRIDE
    | 1 << 3 // CAP_FOWNER
    | 1 << 4 // CAP_FSETID
    | 1 << 21 // CAP_SYS_ADMIN
    | 1 << 27 // CAP_MKNOD
    | 1 << 31; // CAP_SETFCAP

/// Address space: a zstd window of 128 MiB, our buffers, and room.
const ADDRESS_SPACE: u64 = 512 << 20;
const DESCRIPTORS: u64 = 64;

/// Everything that extraction and merging call.
const CALLS: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_getrandom,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_lsetxattr,
    libc::SYS_madvise,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_openat2,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Locks this process into `directory`, for good.
pub fn enter(directory: BorrowedFd<'_>) -> Result<()> {
    for (resource, limit) in [
        (Resource::RLIMIT_AS, ADDRESS_SPACE),
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
        (Resource::RLIMIT_CORE, 0),
    ] {
        getrlimit(resource)
            .and_then(|(_, hard)| setrlimit(resource, limit.min(hard), limit.min(hard)))
            .context(|| "limit the unpacker's resources")?;
    }
    fchdir(directory).context(|| "enter the unpacker's directory")?;
    match chroot(".") {
        // Without the capability, Landlock and the filter have to do.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error).context(|| "make the unpacker's directory its root"),
    }
    sys::drop_capabilities(CAPABILITIES).context(|| "drop the unpacker's capabilities")?;
    set_no_new_privs().context(|| "keep the unpacker from gaining privileges")?;
    match sys::restrict_to(directory) {
        // Not in this kernel, or not in its list of security modules.
        Ok(()) | Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
        Err(error) => return Err(error).context(|| "restrict the unpacker by Landlock"),
    }
    filter().map_err(|error| {
        Error::new(
            Kind::Failed,
            format!("install the unpacker's seccomp filter: {error}"),
        )
    })
}

/// Any other call ends the process.
fn filter() -> Result<(), Box<dyn std::error::Error>> {
    // Memory yes, code no.
    let not_executable = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64),
        0,
    )?;
    let memory = SeccompRule::new(vec![not_executable])?;
    let rules = CALLS
        .iter()
        .map(|call| (*call, Vec::new()))
        .chain([libc::SYS_mmap, libc::SYS_mprotect].map(|call| (call, vec![memory.clone()])))
        .collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}
