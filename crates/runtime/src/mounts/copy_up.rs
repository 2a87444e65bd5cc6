//! `tmpcopyup`: a tmpfs starts with what was at its destination.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::sendfile::sendfile;
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, fchownat, ftruncate, linkat, lseek, symlinkat};

use crate::sys::xattr;

/// Copies the contents of the directory `from` into the directory `to`, and what it is itself: its times, its extended attributes, and its
/// owner unless `to` was given one. Its mode is the caller's.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd, with_owner: bool) -> nix::Result<()> {
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let from = openat(from, ".", directory, Mode::empty())?;
    let to = openat(to, ".", directory, Mode::empty())?;
    let mut copier = Copier {
        top: &to,
        linked: HashMap::new(),
    };
    copier.copy_directory(&from, &to, Path::new(""))?;
    let stat = fstat(&from)?;
    if with_owner {
        copy_owner(&stat, &to, ".")?;
    }
    copy_extended_attributes(&from, &to)?;
    copy_times(&stat, &to, ".")
}

struct Copier<'a> {
    top: &'a OwnedFd,
    /// The copies, as paths below `top`, of files that have more than one name, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl Copier<'_> {
    /// `path` is that of the directory `to` below the top.
    fn copy_directory(&mut self, from: &OwnedFd, to: &OwnedFd, path: &Path) -> nix::Result<()> {
        let mut entries =
            Dir::openat(from, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        for entry in entries.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            // By stat(2): not every file system says so in its directories.
            let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
            if kind != SFlag::S_IFDIR && stat.st_nlink > 1 {
                match self.linked.entry((stat.st_dev, stat.st_ino)) {
                    Entry::Occupied(copy) => {
                        linkat(self.top, copy.get(), to, name, AtFlags::empty())?;
                        continue;
                    }
                    Entry::Vacant(place) => drop(place.insert(path.clone())),
                }
            }
            let open = |at: &OwnedFd, flags| {
                openat(
                    at,
                    name,
                    flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                    Mode::from_bits_truncate(0o600),
                )
            };
            let mut opened = None;
            match kind {
                SFlag::S_IFDIR => {
                    mkdirat(to, name, Mode::S_IRWXU)?;
                    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
                    let (from, to) = (open(from, directory)?, open(to, directory)?);
                    self.copy_directory(&from, &to, &path)?;
                    opened = Some((from, to));
                }
                SFlag::S_IFLNK => symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?,
                SFlag::S_IFREG => {
                    let from = open(from, OFlag::O_RDONLY)?;
                    let to = open(to, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
                    copy_data(&from, &to)?;
                    ftruncate(&to, stat.st_size)?;
                    opened = Some((from, to));
                }
                kind => {
                    mknodat(to, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, stat.st_rdev)?;
                }
            }
            copy_attributes(from, to, name)?;
            if let Some((from, to)) = opened {
                copy_extended_attributes(&from, &to)?;
            }
        }
        Ok(())
    }
}

/// What lies between the holes.
fn copy_data(from: &OwnedFd, to: &OwnedFd) -> nix::Result<()> {
    let mut end = 0;
    loop {
        let mut at = match lseek(from, end, Whence::SeekData) {
            Err(Errno::ENXIO) => return Ok(()),
            start => start?,
        };
        end = lseek(from, at, Whence::SeekHole)?;
        lseek(to, at, Whence::SeekSet)?;
        while at < end {
            let left = (end - at) as usize;
            if sendfile(to, from, Some(&mut at), left)? == 0 {
                return Ok(());
            }
        }
    }
}

fn copy_owner<N: nix::NixPath + ?Sized>(
    stat: &FileStat,
    to: &OwnedFd,
    name: &N,
) -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(to, name, Some(user), Some(group), flags)
}

/// Capabilities, access control lists, and whatever a tmpfs of this kernel takes from us. Last of all: a change of owner takes capabilities
/// away.
fn copy_extended_attributes(from: &OwnedFd, to: &OwnedFd) -> nix::Result<()> {
    for name in xattr::list(from.as_fd())? {
        let Some(value) = xattr::get(from.as_fd(), &name)? else {
            continue;
        };
        match xattr::set(to.as_fd(), &name, &value) {
            // user.* is there since Linux 6.6, and what is trusted is not for the root of a user namespace; capabilities must not be lost.
            Err(Errno::EOPNOTSUPP | Errno::EPERM) if name.as_c_str() != CAPABILITIES => {}
            set => set?,
        }
    }
    Ok(())
}

/// Where capabilities(7) of a program are kept.
const CAPABILITIES: &CStr = c"security.capability";

/// Owner first, since a change of owner clears the set-user-ID bit; times last.
fn copy_attributes<N: nix::NixPath + ?Sized>(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &N,
) -> nix::Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    copy_owner(&stat, to, name)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
        fchmodat(
            to,
            name,
            Mode::from_bits_truncate(stat.st_mode),
            FchmodatFlags::FollowSymlink,
        )?;
    }
    copy_times(&stat, to, name)
}

fn copy_times<N: nix::NixPath + ?Sized>(
    stat: &FileStat,
    to: &OwnedFd,
    name: &N,
) -> nix::Result<()> {
    let (accessed, modified) = (
        TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
        TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
    );
    utimensat(
        to,
        name,
        &accessed,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )
}
