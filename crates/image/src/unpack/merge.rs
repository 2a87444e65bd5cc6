//! A layer that was extracted by itself goes over what the layers below it made, as one plain tree.
//!
//! Both lie on one file system, so files and whole new directories are renamed, not copied: the cost is that of the directories which
//! both have.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, linkat};

use super::marks::Mark;
use super::tree::{self, split};
use crate::error::{Context, Error, Result};
use crate::sys;

/// Moves everything from `layer` to `root`.
pub(super) fn merge(layer: BorrowedFd<'_>, marks: Vec<Mark>, root: BorrowedFd<'_>) -> Result<()> {
    let mut implied = BTreeSet::new();
    let mut links = Vec::new();
    for mark in marks {
        match mark {
            Mark::Whiteout(path) => hide(root, &path)?,
            Mark::Opaque(path) => {
                let clear = |directory: BorrowedFd<'_>| tree::clear(directory);
                unseen(root, &path, clear).context(|| naming(&path, "empty the directory"))?;
            }
            Mark::Implied(path) => drop(implied.insert(path)),
            Mark::Explicit(path) => drop(implied.remove(&path)),
            Mark::Link(target, path) => links.push((target, path)),
        }
    }
    let mut directories = vec![Vec::new()];
    while let Some(path) = directories.pop() {
        directory(layer, root, &path, &implied, &mut directories)
            .context(|| naming(&path, "put it over the layers below"))?;
    }
    for (target, path) in links {
        link(root, &target, &path)
            .context(|| naming(&path, &format!("link to {}", target.escape_ascii())))?;
    }
    Ok(())
}

/// A whiteout: removes what lower layers made at `path`.
fn hide(root: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    let Some((parent, name)) = split(path) else {
        return Err(Error::invalid("a whiteout of /"));
    };
    unseen(root, parent, |directory| tree::remove(directory, name))
        .context(|| naming(path, "remove what the whiteout hides"))
}

/// Changes a directory of `root` without a trace in its times. One that is not there needs no change.
fn unseen(
    root: BorrowedFd<'_>,
    path: &[u8],
    change: impl FnOnce(BorrowedFd<'_>) -> nix::Result<()>,
) -> nix::Result<()> {
    let directory = match tree::open_directory(root, path) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        opened => opened?,
    };
    let before = fstat(&directory)?;
    change(directory.as_fd())?;
    set_times(directory.as_fd(), &before)
}

/// One directory that both have. What lies deeper in both is added to `directories`.
fn directory(
    layer: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    path: &[u8],
    implied: &BTreeSet<Vec<u8>>,
    directories: &mut Vec<Vec<u8>>,
) -> nix::Result<()> {
    let upper = tree::open_directory(layer, path)?;
    let lower = tree::open_directory(root, path)?;
    let (described, before) = (fstat(&upper)?, fstat(&lower)?);
    for (name, kind) in tree::names(upper.as_fd())? {
        let is_directory = match kind {
            Some(kind) => kind == Type::Directory,
            None => tree::look(&upper, name.to_bytes())?
                .is_some_and(|found| tree::kind(&found) == SFlag::S_IFDIR),
        };
        if !is_directory {
            replace(upper.as_fd(), lower.as_fd(), &name)?;
            continue;
        }
        match sys::rename_new(upper.as_fd(), &name, lower.as_fd(), &name) {
            Err(Errno::EEXIST) => {}
            renamed => {
                renamed?;
                continue;
            }
        }
        let path = match path {
            [] => name.to_bytes().to_vec(),
            path => [path, b"/", name.to_bytes()].concat(),
        };
        let below = tree::look(&lower, name.to_bytes())?.map(|found| tree::kind(&found));
        let shared = match below {
            Some(SFlag::S_IFDIR) => true,
            // The layer does not say that this is a directory, so it is whatever the link leads to.
            Some(SFlag::S_IFLNK) if implied.contains(&path) => {
                tree::open_directory(root, &path).is_ok()
            }
            _ => false,
        };
        match shared {
            true => directories.push(path),
            false => replace(upper.as_fd(), lower.as_fd(), &name)?,
        }
    }
    match implied.contains(path) {
        true => set_times(lower.as_fd(), &before),
        false => describe(upper.as_fd(), &described, lower.as_fd()),
    }
}

/// Renames over whatever is there.
fn replace(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    match renameat(from, name, to, name) {
        Err(Errno::EISDIR | Errno::ENOTDIR | Errno::ENOTEMPTY | Errno::EEXIST) => {
            tree::remove(to, name.to_bytes())?;
            renameat(from, name, to, name)
        }
        renamed => renamed,
    }
}

/// Gives a directory all that is known of another one.
fn describe(
    model: BorrowedFd<'_>,
    described: &FileStat,
    directory: BorrowedFd<'_>,
) -> nix::Result<()> {
    let (uid, gid) = (described.st_uid, described.st_gid);
    fchown(
        directory,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
    )?;
    fchmod(
        directory,
        Mode::from_bits_truncate(described.st_mode & 0o7777),
    )?;
    let wanted = xattrs(model)?;
    for name in xattrs(directory)?.difference(&wanted) {
        // Labels of the machine's own policy stay.
        match sys::remove_xattr(directory, name) {
            Err(Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP) => {}
            removed => removed?,
        }
    }
    for name in &wanted {
        match sys::set_xattr(directory, name, &sys::xattr(model, name)?) {
            Err(Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP) => {}
            set => set?,
        }
    }
    set_times(directory, described)
}

fn xattrs(directory: BorrowedFd<'_>) -> nix::Result<BTreeSet<CString>> {
    let names = match sys::xattr_names(directory) {
        Err(Errno::EOPNOTSUPP) => Vec::new(),
        names => names?,
    };
    Ok(names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

fn set_times(directory: BorrowedFd<'_>, model: &FileStat) -> nix::Result<()> {
    let accessed = TimeSpec::new(model.st_atime, model.st_atime_nsec);
    let modified = TimeSpec::new(model.st_mtime, model.st_mtime_nsec);
    futimens(directory, &accessed, &modified)
}

/// A hard link to a file of a lower layer.
fn link(root: BorrowedFd<'_>, target: &[u8], path: &[u8]) -> Result<()> {
    let none = || Error::invalid("no such file");
    let (Some((from, old)), Some((to, new))) = (split(target), split(path)) else {
        return Err(none());
    };
    let from = tree::open_directory(root, from).context(|| "open its directory")?;
    match tree::look(&from, old).context(|| "look at it")? {
        None => return Err(none()),
        Some(found) if tree::kind(&found) == SFlag::S_IFDIR => {
            return Err(Error::invalid("a directory has one name only"));
        }
        Some(_) => {}
    }
    unseen(root, to, |to| {
        tree::remove(to, new)?;
        linkat(&from, old, to, new, AtFlags::empty())
    })
    .context(|| "make the link")
}

fn naming(path: &[u8], doing: &str) -> String {
    format!("/{}: {doing}", path.escape_ascii())
}
