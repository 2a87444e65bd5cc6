//! The file-descriptor based mount calls (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::mount::MsFlags;

use super::check;
use super::process::leave;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 to leave it.
    pub propagation: u64,
    /// A user namespace for `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// `FSCONFIG_*` commands of fsconfig(2).
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;

/// A file system being configured.
pub(crate) struct FsContext(OwnedFd);

impl FsContext {
    /// fsopen(2).
    pub(crate) fn open(fs_type: &CStr) -> nix::Result<Self> {
        // SAFETY: the pointer is a valid C string for the duration of the call.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_fsopen,
                fs_type.as_ptr(),
                1, /* FSOPEN_CLOEXEC */
            )
        })?;
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        Ok(FsContext(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// fspick(2): the file system that `mount` shows.
    pub(crate) fn pick(mount: BorrowedFd<'_>) -> nix::Result<Self> {
        const CLOEXEC_AND_EMPTY_PATH: libc::c_uint = 0x1 | 0x8;
        // SAFETY: the path is a valid empty C string.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_fspick,
                mount.as_raw_fd(),
                c"".as_ptr(),
                CLOEXEC_AND_EMPTY_PATH,
            )
        })?;
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        Ok(FsContext(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// fsconfig(2): `key=value`, or the flag `key`.
    pub(crate) fn set(&self, key: &CStr, value: Option<&CStr>) -> nix::Result<()> {
        let (command, value) = match value {
            Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
            None => (FSCONFIG_SET_FLAG, std::ptr::null()),
        };
        // SAFETY: key and value are valid C strings (or null where the command takes none).
        check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                key.as_ptr(),
                value,
                0,
            )
        })
        .map(drop)
    }

    /// Creates the superblock and a detached mount of it with `MOUNT_ATTR_*` attributes.
    pub(crate) fn mount(&self, attributes: u64) -> nix::Result<OwnedFd> {
        self.command(FSCONFIG_CMD_CREATE)?;
        // SAFETY: only integers are passed.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                1, /* FSMOUNT_CLOEXEC */
                attributes as libc::c_uint,
            )
        })?;
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Changes the superblock of a file system that was picked: what is not mentioned stays.
    pub(crate) fn reconfigure(&self) -> nix::Result<()> {
        self.command(FSCONFIG_CMD_RECONFIGURE)
    }

    fn command(&self, command: libc::c_uint) -> nix::Result<()> {
        let null = std::ptr::null::<libc::c_char>();
        // SAFETY: the commands take neither key nor value.
        check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                null,
                null,
                0,
            )
        })
        .map(drop)
    }

    /// It is of no more use.
    pub(crate) fn leave(self) {
        leave(self.0);
    }

    /// What the kernel has to say about the failure: its last message, without the severity prefix.
    pub(crate) fn message(&self) -> Option<String> {
        let mut last = None;
        let mut buffer = [0; 512];
        while let Ok(length @ 1..) = nix::unistd::read(&self.0, &mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            last = Some(text.trim_end().get(2..).unwrap_or_default().to_owned());
        }
        last
    }
}

/// open_tree(2) with `OPEN_TREE_CLONE`: a detached copy of the mount at `path`. An empty path means `dir` itself.
pub(crate) fn clone_tree(dir: impl AsFd, path: &CStr, recursive: bool) -> nix::Result<OwnedFd> {
    // SAFETY: `path` is a valid C string.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            cloning(path, recursive),
        )
    })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The flags of open_tree(2).
fn cloning(path: &CStr, recursive: bool) -> i32 {
    let mut flags = libc::OPEN_TREE_CLONE as i32 | libc::OPEN_TREE_CLOEXEC as i32;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    flags
}

/// open_tree_attr(2), which libc does not have; on every architecture.
pub const SYS_OPEN_TREE_ATTR: libc::c_long = 467;

/// [`clone_tree`] with attributes from birth, by open_tree_attr(2). `ENOSYS` before Linux 6.15, where they are for [`set_attributes`].
pub(crate) fn clone_tree_with(
    dir: impl AsFd,
    path: &CStr,
    recursive: bool,
    attributes: &MountAttr,
) -> nix::Result<OwnedFd> {
    static IS_MISSING: AtomicBool = AtomicBool::new(false);
    if IS_MISSING.load(Ordering::Relaxed) {
        return Err(Errno::ENOSYS);
    }
    // SAFETY: `path` is a valid C string and `attributes` a live struct of the size given.
    let opened = check(unsafe {
        libc::syscall(
            SYS_OPEN_TREE_ATTR,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            cloning(path, recursive),
            attributes as *const MountAttr,
            size_of::<MountAttr>(),
        )
    });
    match opened {
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        // The two calls that it stands for say whether it is a seccomp filter around us that refuses it.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            IS_MISSING.store(true, Ordering::Relaxed);
            Err(Errno::ENOSYS)
        }
        Err(error) => Err(error),
    }
}

/// move_mount(2): attaches the mount `tree` at `destination`. Both are descriptors, so no path is walked.
pub(crate) fn attach(tree: BorrowedFd<'_>, destination: BorrowedFd<'_>) -> nix::Result<()> {
    attach_at(tree, destination, c"")
}

/// The same at a path from `dir` on, whose last name is not followed if it is a symbolic link. An empty one means `dir` itself.
pub(crate) fn attach_at(tree: BorrowedFd<'_>, dir: impl AsFd, path: &CStr) -> nix::Result<()> {
    const FROM_EMPTY_PATH: libc::c_uint = 0x4;
    const TO_EMPTY_PATH: libc::c_uint = 0x40;
    let flags = FROM_EMPTY_PATH | if path.is_empty() { TO_EMPTY_PATH } else { 0 };
    // SAFETY: the paths are valid C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Whether a directory is the root of a mount (statx(2) `STATX_ATTR_MOUNT_ROOT`, since Linux 5.8).
pub(crate) fn is_mount_root(directory: impl AsFd) -> bool {
    // SAFETY: statx is plain data for which all-zero is valid.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a valid empty C string, and one struct statx is filled.
    let asked = check(unsafe {
        libc::syscall(
            libc::SYS_statx,
            directory.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            0,
            &raw mut found,
        )
    });
    asked.is_ok() && found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0
}

/// Whether mount_setattr(2) is known to be there.
static HAS_MOUNT_SETATTR: AtomicBool = AtomicBool::new(false);

/// `MS_SLAVE`, `MS_PRIVATE` and the like for all mounts of this mount namespace, as far as they lie below this process's root.
pub(crate) fn set_propagation_of_all(kind: MsFlags) -> nix::Result<()> {
    let attributes = MountAttr {
        propagation: kind.bits(),
        ..MountAttr::default()
    };
    match mount_setattr(AT_FDCWD, c"/", libc::AT_RECURSIVE, &attributes) {
        Ok(()) => {
            HAS_MOUNT_SETATTR.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(_) => nix::mount::mount(
            None::<&str>,
            "/",
            None::<&str>,
            kind | MsFlags::MS_REC,
            None::<&str>,
        ),
    }
}

/// Whether the kernel has mount_setattr(2) (Linux 5.12). Without it attributes are set by mount(2), which wants mounts that are attached
/// and a path to them: [`set_attributes`] uses /proc/self/fd, so /proc must still be the host's.
pub(crate) fn has_mount_setattr() -> bool {
    if HAS_MOUNT_SETATTR.load(Ordering::Relaxed) {
        return true;
    }
    let null = std::ptr::null::<MountAttr>();
    // SAFETY: a size of 0 is refused before anything is read.
    let answer = unsafe { libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, null, 0) };
    check(answer) != Err(Errno::ENOSYS)
}

/// mount_setattr(2) on the mount that `mount` refers to; where the kernel lacks it mount(2), which cannot set attributes of the mounts below.
pub(crate) fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: &MountAttr,
) -> nix::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    match mount_setattr(mount, c"", flags, attributes) {
        Err(Errno::ENOSYS) => set_attributes_by_path(mount, recursive, attributes),
        set => set,
    }
}

fn mount_setattr(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    attributes: &MountAttr,
) -> nix::Result<()> {
    // SAFETY: `path` is a valid C string and `attributes` a live struct of the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags,
            attributes as *const MountAttr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

fn set_attributes_by_path(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: &MountAttr,
) -> nix::Result<()> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    let change = |flags| {
        nix::mount::mount(
            None::<&str>,
            path.as_str(),
            None::<&str>,
            flags,
            None::<&str>,
        )
    };
    let changed = attributes.set | attributes.clear;
    if changed != 0 && recursive || changed & !(LEGACY | ATIME) != 0 {
        return Err(Errno::ENOSYS);
    }
    if attributes.propagation != 0 {
        let below = if recursive {
            MsFlags::MS_REC
        } else {
            MsFlags::empty()
        };
        change(MsFlags::from_bits_retain(attributes.propagation) | below)?;
    }
    if changed == 0 {
        return Ok(());
    }
    // A remount sets all flags at once: those that are not changed are those that are.
    let current = attributes_of(mount)?;
    let flags = legacy_flags(current & !attributes.clear | attributes.set);
    change(MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags)
}

/// The `MOUNT_ATTR_*` that a mount has, as far as statvfs(3) shows them.
fn attributes_of(mount: BorrowedFd<'_>) -> nix::Result<u64> {
    // The values of ST_* are those of mount(2), but for these two.
    const ST_NOSYMFOLLOW: u64 = 0x2000;
    const ST_RELATIME: u64 = 0x1000;
    // SAFETY: statvfs is plain data for which all-zero is valid.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: fstatvfs fills one struct statvfs. (nix's hides the two flags below.)
    check(unsafe { libc::fstatvfs(mount.as_raw_fd(), &raw mut stat) }.into())?;
    let shown = stat.f_flag;
    let named = FLAGS
        .iter()
        .filter(|(_, flag)| *flag != MsFlags::MS_STRICTATIME && shown & flag.bits() != 0);
    let mut attributes = named.fold(0, |attributes, (bit, _)| attributes | bit) & !NOSYMFOLLOW;
    if shown & ST_NOSYMFOLLOW != 0 {
        attributes |= NOSYMFOLLOW;
    }
    if shown & (ST_RELATIME | MsFlags::MS_NOATIME.bits()) == 0 {
        attributes |= STRICTATIME;
    }
    Ok(attributes)
}

const ATIME: u64 = 0x70;
const STRICTATIME: u64 = 0x20;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// `MOUNT_ATTR_*` with the flags of mount(2). `MS_NOSYMFOLLOW` has no name in nix.
const FLAGS: [(u64, MsFlags); 8] = [
    (0x1, MsFlags::MS_RDONLY),
    (0x2, MsFlags::MS_NOSUID),
    (0x4, MsFlags::MS_NODEV),
    (0x8, MsFlags::MS_NOEXEC),
    (0x10, MsFlags::MS_NOATIME),
    (STRICTATIME, MsFlags::MS_STRICTATIME),
    (0x80, MsFlags::MS_NODIRATIME),
    (NOSYMFOLLOW, MsFlags::from_bits_retain(0x100)),
];

/// All attributes that have one.
pub(crate) const LEGACY: u64 = 0x20_00bf;

/// `MOUNT_ATTR_*` as the flags of mount(2), the policy of access times spelled out, since a remount without one keeps that of before.
pub(crate) fn legacy_flags(attributes: u64) -> MsFlags {
    let named = FLAGS.iter().filter(|(bit, _)| attributes & bit != 0);
    let flags = named.fold(MsFlags::empty(), |flags, (_, flag)| flags | *flag);
    match attributes & ATIME {
        0 => flags | MsFlags::MS_RELATIME,
        _ => flags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_that_has_a_flag() {
        assert_eq!(FLAGS.iter().fold(0, |all, (bit, _)| all | bit), LEGACY);
    }

    #[test]
    fn access_times_are_spelled_out() {
        assert_eq!(legacy_flags(0x1), MsFlags::MS_RDONLY | MsFlags::MS_RELATIME);
        assert_eq!(legacy_flags(STRICTATIME), MsFlags::MS_STRICTATIME);
    }
}
