//! A directory that an image's files go into: every path is resolved inside it, from its descriptor.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NONBLOCK);

/// Opens `path` as if `root` were `/`: neither `..` nor a symbolic link leads out of it.
pub(crate) fn open(root: impl AsFd, path: &[u8], flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(mode)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // EAGAIN: something was renamed on the way, and the kernel cannot tell whether `..` stayed inside.
    let mut deadline = None;
    loop {
        match openat2(&root, path, how) {
            Err(Errno::EAGAIN)
                if Instant::now()
                    < *deadline.get_or_insert_with(|| Instant::now() + Duration::from_secs(1)) => {}
            result => return result,
        }
    }
}

/// The directory at `path` inside `root`, wherever symbolic links lead.
pub(super) fn open_directory(root: impl AsFd, path: &[u8]) -> nix::Result<OwnedFd> {
    open(root, path, DIRECTORY, Mode::empty())
}

/// The directory `name` itself, no link to one.
pub(super) fn open_child(directory: impl AsFd, name: &[u8]) -> nix::Result<OwnedFd> {
    open(
        directory,
        name,
        DIRECTORY | OFlag::O_NOFOLLOW,
        Mode::empty(),
    )
}

/// What `name` is, itself; `None` where there is nothing.
pub(super) fn look(directory: impl AsFd, name: &[u8]) -> nix::Result<Option<FileStat>> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The type of file.
pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// The names in a directory.
pub(super) fn names(directory: BorrowedFd<'_>) -> nix::Result<Vec<(CString, Option<Type>)>> {
    // A descriptor of its own, since this one's position moves.
    let own = open_child(directory, b".")?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(own)?.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

/// Removes `name` with everything below it; nothing there is fine.
pub(super) fn remove(directory: impl AsFd, name: &[u8]) -> nix::Result<()> {
    match unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR) => {}
        Err(error) => return Err(error),
    }
    let doomed = open_child(&directory, name)?;
    clear(doomed.as_fd())?;
    unlinkat(&directory, name, UnlinkatFlags::RemoveDir)
}

/// Removes everything inside a directory. What lies deeper is moved up before it goes, so that it may be as deep as it likes.
pub(super) fn clear(directory: BorrowedFd<'_>) -> nix::Result<()> {
    let mut moved = 0_u64;
    loop {
        let names = names(directory)?;
        if names.is_empty() {
            return Ok(());
        }
        for (name, _) in names {
            match unlinkat(directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
                Err(Errno::EISDIR) => {}
                result => {
                    result?;
                    continue;
                }
            }
            let child = open_child(directory, name.to_bytes())?;
            for (below, _) in self::names(child.as_fd())? {
                match unlinkat(&child, below.as_c_str(), UnlinkatFlags::NoRemoveDir) {
                    Err(Errno::EISDIR) => {}
                    result => {
                        result?;
                        continue;
                    }
                }
                // A name that is taken already is tried again with the next number.
                loop {
                    moved += 1;
                    let above = CString::new(moved.to_string()).expect("digits");
                    match sys::rename_new(child.as_fd(), &below, directory, &above) {
                        Err(Errno::EEXIST) => {}
                        result => break result?,
                    }
                }
            }
            unlinkat(directory, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
        }
    }
}

/// A path of an archive without `.`, `..` and slashes too many, as if `/` were its directory.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// The directory that a clean path lies in, and its name there; `None` for `/`.
pub(super) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None if path.is_empty() => None,
        None => Some((&[], path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for (path, wanted) in [
            ("a/b", "a/b"),
            ("/a//b/", "a/b"),
            ("./a/./b", "a/b"),
            ("../../a", "a"),
            ("a/../../b", "b"),
            ("..", ""),
            ("/", ""),
            ("...", "..."),
        ] {
            assert_eq!(clean(path.as_bytes()), wanted.as_bytes(), "{path}");
        }
    }

    #[test]
    fn deep_trees_go() {
        let dir = tempfile::tempdir().unwrap();
        let top = std::fs::File::open(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("a/1/2/3/4")).unwrap();
        std::fs::create_dir_all(dir.path().join("1/1/1")).unwrap();
        std::fs::write(dir.path().join("a/1/2/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("a/link")).unwrap();
        remove(&top, b"a").unwrap();
        assert!(!dir.path().join("a").exists() && dir.path().join("1/1/1").exists());
        clear(top.as_fd()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        remove(&top, b"a").unwrap();
    }
}
