//! Copying of trees, by descriptor: no path that an image or a container controls is ever walked as a string, and no link in it leads out
//! of its root.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat,
    mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use runtime::{Context, Error, Result};

use super::userns;

/// Who owns the copies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    /// The same as with the originals.
    Keep(Ids),
    /// Somebody else.
    Is(u32, u32),
}

/// How ids are numbered on two sides of a copy: as on the machine, or from a certain one on, where `--userns auto` has given a container
/// ids of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) from: Option<u32>,
    pub(crate) to: Option<u32>,
}

impl Ids {
    /// `None` for what a container has no number for.
    fn translate(self, id: u32) -> Option<u32> {
        /// As the kernel shows inside what belongs to nobody there.
        const NOBODY: u32 = 65_534;
        let is_container = |number: &u32| *number < userns::COUNT;
        let number = match self.from {
            Some(first) => id.checked_sub(first).filter(is_container).unwrap_or(NOBODY),
            None => id,
        };
        match self.to {
            Some(first) => Some(number)
                .filter(is_container)
                .map(|number| first + number),
            None => Some(number),
        }
    }
}

impl Owner {
    pub(crate) fn of(self, status: &FileStat) -> Result<(Uid, Gid)> {
        let (uid, gid) = match self {
            Owner::Keep(ids) => {
                let translate = |what: &str, id| {
                    ids.translate(id).ok_or_else(|| {
                        let text = format!("the {what} {id} is none of the container's");
                        Error::failed(text)
                    })
                };
                (
                    translate("user", status.st_uid)?,
                    translate("group", status.st_gid)?,
                )
            }
            Owner::Is(uid, gid) => (uid, gid),
        };
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }
}

/// Opens a path as seen from inside a root: `..` and links never leave it.
pub(crate) fn open_inside(root: impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    // NO_MAGICLINKS: a container's /proc has links to what is outside of any root.
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(resolve);
    loop {
        match openat2(&root, path, how) {
            // Somebody renamed something on the way.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            opened => return opened,
        }
    }
}

/// The flags for a directory that is going to be read.
pub(crate) const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// Gives a directory and everything in it to other owners. Bits that a change of owner takes away are set again.
pub(crate) fn change_owners(
    directory: OwnedFd,
    owner: &impl Fn(&FileStat) -> (Option<Uid>, Option<Gid>),
) -> Result<()> {
    let (uid, gid) = owner(&fstat(&directory).context("look at a directory")?);
    nix::unistd::fchown(&directory, uid, gid).context("change the owner of a directory")?;
    let mut entries = Dir::from_fd(directory).context("read a directory")?;
    let found: Vec<_> = entries
        .iter()
        .collect::<nix::Result<_>>()
        .context("read a directory")?;
    for entry in found {
        let name = entry.file_name();
        let changing = || format!("change the owner of {name:?}");
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        let status = fstatat(&entries, name, flags).with_context(changing)?;
        let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
        let mode = Mode::from_bits_truncate(status.st_mode);
        if kind == SFlag::S_IFDIR {
            if name != c"." && name != c".." {
                let below = openat(&entries, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty());
                change_owners(below.with_context(changing)?, owner)?;
            }
            continue;
        }
        let (uid, gid) = owner(&status);
        fchownat(&entries, name, uid, gid, flags).with_context(changing)?;
        if kind == SFlag::S_IFREG && mode.intersects(Mode::S_ISUID | Mode::S_ISGID) {
            fchmodat(&entries, name, mode, FchmodatFlags::FollowSymlink).with_context(changing)?;
        }
    }
    Ok(())
}

/// Opens a directory on the host's side.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    openat(AT_FDCWD, path, DIRECTORY, Mode::empty())
        .with_context(|| format!("open directory {}", path.display()))
}

/// Copies everything in one directory into another, and its mode and owner too.
pub(crate) fn copy_contents(from: OwnedFd, to: impl AsFd, owner: Owner) -> Result<()> {
    let status = fstat(&from).context("look at a directory")?;
    let mut entries = Dir::from_fd(from).context("read a directory")?;
    let names: Vec<_> = entries
        .iter()
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .collect::<nix::Result<_>>()
        .context("read a directory")?;
    for name in names {
        let name =
            Path::new(std::ffi::OsStr::new(name.to_str().map_err(|_| {
                Error::failed(format!("{name:?}: the name is not UTF-8"))
            })?));
        if name != Path::new(".") && name != Path::new("..") {
            copy(&entries, name, &to, name, owner)?;
        }
    }
    let (uid, gid) = owner.of(&status)?;
    nix::unistd::fchown(&to, Some(uid), Some(gid)).context("give a directory to its owner")?;
    fchmod(&to, Mode::from_bits_truncate(status.st_mode)).context("set a directory's mode")?;
    let times = times(&status);
    nix::sys::stat::futimens(&to, &times.0, &times.1).context("set a directory's times")
}

/// Copies one thing, and if it is a directory all that is in it. What is in its place already goes, except that directories are merged.
pub(crate) fn copy(
    from: impl AsFd,
    name: &Path,
    to: impl AsFd,
    new_name: &Path,
    owner: Owner,
) -> Result<()> {
    let copying = || format!("copy {}", name.display());
    let status = fstatat(&from, name, AtFlags::AT_SYMLINK_NOFOLLOW).with_context(copying)?;
    let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        let source = openat(&from, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())
            .with_context(copying)?;
        let target = make_directory(&to, new_name).with_context(copying)?;
        return copy_contents(source, target, owner).with_context(copying);
    }
    clear(&to, new_name).with_context(copying)?;
    match kind {
        SFlag::S_IFREG => {
            return copy_file(&from, name, &to, new_name, &status, owner).with_context(copying);
        }
        SFlag::S_IFLNK => {
            let target = readlinkat(&from, name).with_context(copying)?;
            symlinkat(target.as_os_str(), &to, new_name).with_context(copying)?;
        }
        // A socket is nothing without its process.
        SFlag::S_IFSOCK => return Ok(()),
        kind => {
            mknodat(&to, new_name, kind, Mode::S_IRUSR, status.st_rdev).with_context(copying)?
        }
    }
    set_attributes(&to, new_name, &status, owner).with_context(copying)
}

/// Makes a directory, or opens the one that is there; a link to one is no directory.
pub(crate) fn make_directory(to: impl AsFd, name: &Path) -> nix::Result<OwnedFd> {
    let open = || openat(&to, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty());
    match mkdirat(&to, name, Mode::S_IRWXU) {
        Ok(()) => open(),
        Err(Errno::EEXIST) => match open() {
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                clear(&to, name)?;
                mkdirat(&to, name, Mode::S_IRWXU)?;
                open()
            }
            opened => opened,
        },
        Err(error) => Err(error),
    }
}

/// Removes what is no directory.
pub(crate) fn clear(to: impl AsFd, name: &Path) -> nix::Result<()> {
    match unlinkat(&to, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn copy_file(
    from: impl AsFd,
    name: &Path,
    to: impl AsFd,
    new_name: &Path,
    status: &FileStat,
    owner: Owner,
) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let source = openat(&from, name, flags, Mode::empty()).context("open it")?;
    create_file(&to, new_name, &mut File::from(source))?;
    set_attributes(&to, new_name, status, owner)
}

/// Makes a file of what a reader gives.
pub(crate) fn create_file(to: impl AsFd, name: &Path, from: &mut impl io::Read) -> Result<()> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let target =
        openat(&to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).context("create the copy")?;
    io::copy(from, &mut File::from(target))
        .map(drop)
        .context("write the copy")
}

/// Makes a second name for a file.
pub(crate) fn link(old: impl AsFd, old_name: &Path, to: impl AsFd, name: &Path) -> nix::Result<()> {
    clear(&to, name)?;
    linkat(&old, old_name, &to, name, LinkatFlags::empty())
}

/// Owner, mode (setuid survives, so in this order) and times.
pub(crate) fn set_attributes(
    to: impl AsFd,
    name: &Path,
    status: &FileStat,
    owner: Owner,
) -> Result<()> {
    let (uid, gid) = owner.of(status)?;
    let nofollow = AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(&to, name, Some(uid), Some(gid), nofollow).context("give it to its owner")?;
    if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
        let mode = Mode::from_bits_truncate(status.st_mode & 0o7777);
        // Just made by us in a directory that may be somebody else's by now: a link is not followed where the kernel can help it.
        match fchmodat(&to, name, mode, FchmodatFlags::NoFollowSymlink) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                let flags =
                    OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                openat(&to, name, flags, Mode::empty())
                    .and_then(|file| fchmod(file, mode))
                    .context("set its mode")?;
            }
            changed => changed.context("set its mode")?,
        }
    }
    let (accessed, modified) = times(status);
    utimensat(
        &to,
        name,
        &accessed,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )
    .context("set its times")
}

fn times(status: &FileStat) -> (TimeSpec, TimeSpec) {
    (
        TimeSpec::new(status.st_atime, status.st_atime_nsec),
        TimeSpec::new(status.st_mtime, status.st_mtime_nsec),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_numbers_of_each_side() {
        let (host, first) = (None, Some(500_000));
        for (from, to, id, translated) in [
            (host, host, 4_000_000, Some(4_000_000)),
            (host, first, 0, Some(500_000)),
            (host, first, 65_535, Some(565_535)),
            (host, first, 65_536, None),
            (first, host, 500_033, Some(33)),
            (first, host, 0, Some(65_534)),
            (first, host, 600_000, Some(65_534)),
        ] {
            assert_eq!(Ids { from, to }.translate(id), translated, "{id}");
        }
    }
}
