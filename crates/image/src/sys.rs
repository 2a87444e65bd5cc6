//! System calls that nix and libc do not wrap safely. The only `unsafe` of this crate.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// fsetxattr(2).
pub(crate) fn set_xattr(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: pointer and length are those of the slice, and the name is a C string.
    Errno::result(unsafe {
        libc::fsetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })
    .map(drop)
}

/// lsetxattr(2): of the file itself where `path` is a symbolic link.
pub(crate) fn set_link_xattr(path: &CStr, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: pointer and length are those of the slice, and path and name are C strings.
    Errno::result(unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })
    .map(drop)
}

/// fgetxattr(2); the kernel's limit of a value is 64 KiB.
pub(crate) fn xattr(file: BorrowedFd<'_>, name: &CStr) -> nix::Result<Vec<u8>> {
    let mut value = vec![0_u8; 1 << 16];
    // SAFETY: pointer and length are those of the buffer, and the name is a C string.
    let length = Errno::result(unsafe {
        libc::fgetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    })?;
    value.truncate(length as usize);
    Ok(value)
}

/// flistxattr(2): names with a NUL behind each; the kernel's limit of the list is 64 KiB.
pub(crate) fn xattr_names(file: BorrowedFd<'_>) -> nix::Result<Vec<u8>> {
    let mut names = vec![0_u8; 1 << 16];
    // SAFETY: pointer and length are those of the buffer.
    let length = Errno::result(unsafe {
        libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len())
    })?;
    names.truncate(length as usize);
    Ok(names)
}

/// fremovexattr(2).
pub(crate) fn remove_xattr(file: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    // SAFETY: the name is a C string.
    Errno::result(unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// flock(2). nix's wrapper takes the descriptor away; a directory's is needed for more than its lock.
pub(crate) fn flock(file: BorrowedFd<'_>, operation: i32) -> nix::Result<()> {
    // SAFETY: only integers are passed.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
}

/// Takes over a descriptor that was handed to this process at its start.
pub(crate) fn inherited(number: i32) -> nix::Result<OwnedFd> {
    // SAFETY: only an integer is passed; a number that is no descriptor is an error.
    let fd = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// renameat2(2) with `RENAME_NOREPLACE`, which nix has for glibc only: EEXIST where something is in the way.
pub(crate) fn rename_new(
    from: BorrowedFd<'_>,
    old: &CStr,
    to: BorrowedFd<'_>,
    new: &CStr,
) -> nix::Result<()> {
    // SAFETY: both names are C strings.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            from.as_raw_fd(),
            old.as_ptr(),
            to.as_raw_fd(),
            new.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    })
    .map(drop)
}

/// capset(2): of the permitted capabilities those in `keep` stay, and are in effect; none is inherited.
pub(crate) fn drop_capabilities(keep: u64) -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // _LINUX_CAPABILITY_VERSION_3, which has two words of each.
    let mut header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 of the call writes two structs.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    for (word, data) in data.iter_mut().enumerate() {
        data.permitted &= (keep >> (32 * word)) as u32;
        data.effective = data.permitted;
        data.inheritable = 0;
    }
    // SAFETY: version 3 of the call reads two structs.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })
        .map(drop)
}

/// Landlock: of all file systems this process can from now on use what lies below `directory`, and execute none of it. ENOSYS or
/// EOPNOTSUPP where the kernel has no Landlock, or one that cannot allow links between directories (before 5.19).
pub(crate) fn restrict_to(directory: BorrowedFd<'_>) -> nix::Result<()> {
    const CREATE_RULESET_VERSION: u32 = 1;
    const RULE_PATH_BENEATH: u32 = 1;
    const EXECUTE: u64 = 1;
    // Up to REFER, which the second version of the interface brought.
    const HANDLED: u64 = (1 << 14) - 1;
    let none = std::ptr::null::<u64>();
    // SAFETY: asking for the version takes no attributes.
    let version = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0_usize,
            CREATE_RULESET_VERSION,
        )
    })?;
    if version < 2 {
        return Err(Errno::EOPNOTSUPP);
    }
    let handled = HANDLED;
    // SAFETY: pointer and size are those of struct landlock_ruleset_attr, as long as it was at first.
    let rules = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const handled,
            size_of_val(&handled),
            0_u32,
        )
    })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    let rules = unsafe { OwnedFd::from_raw_fd(rules as i32) };
    #[repr(C, packed)]
    struct PathBeneath {
        allowed: u64,
        parent: i32,
    }
    let rule = PathBeneath {
        allowed: HANDLED & !EXECUTE,
        parent: directory.as_raw_fd(),
    };
    // SAFETY: the rule is a live struct landlock_path_beneath_attr.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    })?;
    // SAFETY: only integers are passed.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0_u32)
    })
    .map(drop)
}

/// fsopen(2).
pub(crate) fn fsopen(kind: &CStr) -> nix::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    // SAFETY: the name is a C string.
    let fd =
        Errno::result(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn fsconfig(
    context: BorrowedFd<'_>,
    command: u32,
    name: Option<&CStr>,
    value: Option<&CStr>,
) -> nix::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: name and value are C strings, or absent where the command takes none.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            pointer(name),
            pointer(value),
            0,
        )
    })
    .map(drop)
}

/// fsconfig(2) `FSCONFIG_SET_STRING`. A value with a NUL is EINVAL.
pub(crate) fn fsconfig_string(
    context: BorrowedFd<'_>,
    name: &CStr,
    value: &[u8],
) -> nix::Result<()> {
    let value = std::ffi::CString::new(value).map_err(|_| Errno::EINVAL)?;
    fsconfig(context, 1, Some(name), Some(&value))
}

/// fsconfig(2) `FSCONFIG_SET_FLAG`.
pub(crate) fn fsconfig_flag(context: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    fsconfig(context, 0, Some(name), None)
}

/// fsconfig(2) `FSCONFIG_CMD_CREATE`.
pub(crate) fn fsconfig_create(context: BorrowedFd<'_>) -> nix::Result<()> {
    fsconfig(context, 6, None, None)
}

/// fsmount(2): a mount that is attached nowhere yet.
pub(crate) fn fsmount(context: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    const FSMOUNT_CLOEXEC: u32 = 1;
    // SAFETY: only integers are passed.
    let fd = Errno::result(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0)
    })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// move_mount(2) of a mount that is attached nowhere onto a directory.
pub(crate) fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> nix::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
    const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
    // SAFETY: both paths are empty C strings.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}
