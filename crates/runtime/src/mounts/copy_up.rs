//! `tmpcopyup`: a tmpfs starts with what was at its destination.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

/// Copies the contents of the directory `from` into the directory `to`, and its owner and mode onto it.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> nix::Result<()> {
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let from = openat(from, ".", directory, Mode::empty())?;
    let to = openat(to, ".", directory, Mode::empty())?;
    copy_directory(&from, &to)?;
    copy_attributes(&from, &to, ".")
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd) -> nix::Result<()> {
    let mut entries = Dir::openat(from, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let open = |at: &OwnedFd, flags| {
            openat(
                at,
                name,
                flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::from_bits_truncate(0o600),
            )
        };
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        // By stat(2): not every file system says so in its directories.
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => {
                mkdirat(to, name, Mode::S_IRWXU)?;
                let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
                copy_directory(&open(from, directory)?, &open(to, directory)?)?;
            }
            SFlag::S_IFLNK => symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?,
            SFlag::S_IFREG => {
                let (from, to) = (
                    open(from, OFlag::O_RDONLY)?,
                    open(to, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?,
                );
                while nix::sys::sendfile::sendfile(to.as_fd(), from.as_fd(), None, 1 << 20)? > 0 {}
            }
            kind => {
                mknodat(to, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, stat.st_rdev)?;
            }
        }
        copy_attributes(from, to, name)?;
    }
    Ok(())
}

/// Owner first, since a change of owner clears the set-user-ID bit; times last.
fn copy_attributes<N: nix::NixPath + ?Sized>(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &N,
) -> nix::Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    fchownat(
        to,
        name,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
        fchmodat(
            to,
            name,
            Mode::from_bits_truncate(stat.st_mode),
            FchmodatFlags::FollowSymlink,
        )?;
    }
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
