//! Ids and capability sets of the calling process.

use super::check;

/// `_LINUX_CAPABILITY_VERSION_3`: 64-bit sets in two halves.
const VERSION_3: u32 = 0x2008_0522;

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

/// Whether the effective user was root when this program was started, which its auxiliary vector tells (getauxval(3)).
pub(crate) fn started_by_root() -> bool {
    // SAFETY: the vector lies in this process's own memory.
    unsafe { libc::getauxval(libc::AT_EUID) == 0 }
}

/// capset(2): bit n of each set is capability n.
pub(crate) fn set_capabilities(
    effective: u64,
    permitted: u64,
    inheritable: u64,
) -> nix::Result<()> {
    let half = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let (header, data) = (
        Header {
            version: VERSION_3,
            pid: 0,
        },
        [half(0), half(32)],
    );
    // SAFETY: version 3 reads a header and two data structs.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// capget(2): the permitted set.
pub(crate) fn permitted_capabilities() -> nix::Result<u64> {
    let (mut header, mut data) = (
        Header {
            version: VERSION_3,
            pid: 0,
        },
        [Data::default(); 2],
    );
    // SAFETY: version 3 writes two data structs.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// prctl(2) `PR_CAPBSET_DROP`.
pub(crate) fn drop_bounding(capability: u32) -> nix::Result<()> {
    super::process::prctl(libc::PR_CAPBSET_DROP, capability.into()).map(drop)
}

/// prctl(2) `PR_CAP_AMBIENT_RAISE`.
pub(crate) fn raise_ambient(capability: u32) -> nix::Result<()> {
    // SAFETY: only integers are passed.
    check(
        unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE as u64,
                u64::from(capability),
                0_u64,
                0_u64,
            )
        }
        .into(),
    )
    .map(drop)
}

/// Whether a file has capabilities of its own (capabilities(7), "File capabilities").
pub(crate) fn has_file_capabilities(file: &std::path::Path) -> bool {
    let Ok(path) = std::ffi::CString::new(file.as_os_str().as_encoded_bytes()) else {
        return false;
    };
    // SAFETY: both names are C strings, and a size of 0 only asks for the length.
    unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            std::ptr::null_mut(),
            0,
        ) > 0
    }
}

/// setgroups(2). The raw call: libc's tells threads that do not exist here.
pub(crate) fn set_groups(gids: &[u32]) -> nix::Result<()> {
    // SAFETY: pointer and length are those of the slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) }).map(drop)
}

/// setresgid(2) of all three.
pub(crate) fn set_gid(gid: u32) -> nix::Result<()> {
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// setresuid(2) of all three.
pub(crate) fn set_uid(uid: u32) -> nix::Result<()> {
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}
