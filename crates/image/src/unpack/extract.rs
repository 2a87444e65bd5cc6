//! Entries of a layer become files.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, makedev, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchdir, fchown, fchownat, linkat, symlinkat};

use super::archive::{Archive, Entry, Kind};
use super::marks::{self, Mark};
use super::tree::{self, clean, split};
use crate::error::{Context, Error, Result};
use crate::sys;

const WHITEOUT: &[u8] = b".wh.";
/// Behind [`WHITEOUT`]: the directory that it lies in hides what is below.
const OPAQUE: &[u8] = b".wh..opq";
/// Behind [`WHITEOUT`]: what AUFS kept for itself.
const AUFS: &[u8] = b".wh.";

/// How much memory the names of directories may take, whose times are set last.
const MOST_DIRECTORIES: usize = 32 << 20;
/// How many entries a layer may have: more than any file system of reasonable size has room for.
const MOST_ENTRIES: u64 = 1 << 26;

/// What a layer's statements about lower layers become.
pub(super) enum Form {
    /// What overlayfs understands; with `userxattr` its attributes are `user.overlay.…`.
    Overlay { userxattr: bool },
    /// A list beside the tree.
    Plain(marks::Writer),
}

/// What may be done to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    /// Owners are set; otherwise everything is the caller's, because nobody else exists in its user namespace.
    pub(super) owners: bool,
    /// Devices are made; otherwise they become empty files, because a user namespace cannot have them.
    pub(super) devices: bool,
}

/// A layer on its way into a directory.
pub(super) struct Extraction {
    root: OwnedFd,
    form: Form,
    rights: Rights,
    /// The directory of the last entry: the next one is most often in the same.
    parent: (Vec<u8>, OwnedFd),
    /// Directories with times that are set last, since every file that is made changes them.
    directories: Vec<u8>,
    times: Vec<(usize, TimeSpec)>,
    root_seen: bool,
}

/// What stood at a place before.
#[derive(PartialEq, Eq)]
enum Before {
    Nothing,
    Directory,
    /// A whiteout: what is made instead of it does not show what is below either.
    Whiteout,
}

impl Extraction {
    /// Into `root`, which is empty.
    pub(super) fn new(root: OwnedFd, form: Form, rights: Rights) -> Result<Self> {
        // A default ACL around us would change the permissions of all that is made.
        let _ = sys::remove_xattr(root.as_fd(), c"system.posix_acl_default");
        let parent = tree::open_directory(&root, b"").context(|| "open the layer's directory")?;
        Ok(Extraction {
            root,
            form,
            rights,
            parent: (Vec::new(), parent),
            directories: Vec::new(),
            times: Vec::new(),
            root_seen: false,
        })
    }

    /// Every entry of an archive.
    pub(super) fn all(mut self, archive: &mut Archive) -> Result<()> {
        let mut count = 0;
        while let Some(entry) = archive.next()? {
            count += 1;
            if count > MOST_ENTRIES {
                return Err(Error::invalid("more entries than any layer has"));
            }
            self.entry(&entry, archive)
                .context(|| entry.path.escape_ascii().to_string())?;
        }
        self.finish()
    }

    fn entry(&mut self, entry: &Entry, archive: &mut Archive) -> Result<()> {
        let path = clean(&entry.path);
        let Some((parent, name)) = split(&path) else {
            return self.root(entry);
        };
        self.enter(parent)?;
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(parent, hidden);
        }
        match entry.kind {
            Kind::File => self.file(name, entry, archive),
            Kind::Directory => self.directory(&path, name, entry),
            Kind::Symlink => self.symlink(name, entry),
            Kind::Hardlink => self.hardlink(&path, name, entry),
            Kind::Character | Kind::Block if !self.rights.devices => {
                self.file(name, entry, archive)
            }
            Kind::Character => self.node(name, entry, SFlag::S_IFCHR),
            Kind::Block => self.node(name, entry, SFlag::S_IFBLK),
            Kind::Fifo => self.node(name, entry, SFlag::S_IFIFO),
        }
    }

    /// The layer's `/`, which is there already.
    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::invalid("/ has to be a directory"));
        }
        self.root_seen = true;
        self.describe(self.root.as_fd(), entry)?;
        self.later(b"", entry.mtime)
    }

    fn file(&mut self, name: &[u8], entry: &Entry, archive: &mut Archive) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let mode = Mode::from_bits_truncate(entry.mode & 0o777);
        let make = |parent: BorrowedFd<'_>| tree::open(parent, name, flags, mode);
        let file = File::from(self.make(name, make).context(|| "create the file")?);
        write(&file, entry, archive)?;
        self.own(file.as_fd(), entry)?;
        // Given at its birth, except for the bits that writing and a change of owner take away.
        if entry.mode & 0o7000 != 0 {
            set_mode(file.as_fd(), entry.mode)?;
        }
        self.set_xattrs(file.as_fd(), entry)?;
        futimens(&file, &entry.mtime, &entry.mtime).context(|| "set the times")
    }

    fn directory(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<()> {
        let parent = self.parent.1.as_fd();
        let before = match mkdirat(parent, name, Mode::S_IRWXU) {
            Err(Errno::EEXIST) => {
                let before = self
                    .vacate(name, true)
                    .context(|| "replace an earlier entry")?;
                if before != Before::Directory {
                    mkdirat(parent, name, Mode::S_IRWXU).context(|| "create the directory")?;
                }
                before
            }
            result => {
                result.context(|| "create the directory")?;
                Before::Nothing
            }
        };
        let directory = tree::open_child(parent, name).context(|| "open the directory")?;
        match (&mut self.form, &before) {
            (Form::Overlay { userxattr }, Before::Whiteout) => {
                set_opaque(directory.as_fd(), *userxattr)?;
            }
            (Form::Plain(marks), Before::Directory) => marks.add(&Mark::Explicit(path.to_vec()))?,
            _ => {}
        }
        self.describe(directory.as_fd(), entry)?;
        self.parent = (path.to_vec(), directory);
        self.later(path, entry.mtime)
    }

    fn symlink(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        if entry.link.is_empty() {
            return Err(Error::invalid("a symbolic link to nothing"));
        }
        let make = |parent: BorrowedFd<'_>| symlinkat(&entry.link[..], parent, name);
        self.make(name, make)
            .context(|| "create the symbolic link")?;
        self.describe_by_name(name, entry)
    }

    fn node(&mut self, name: &[u8], entry: &Entry, kind: SFlag) -> Result<()> {
        let mode = Mode::from_bits_truncate(entry.mode);
        let device = makedev(entry.device.0.into(), entry.device.1.into());
        let make = |parent: BorrowedFd<'_>| mknodat(parent, name, kind, mode, device);
        self.make(name, make)
            .context(|| "create the device or fifo")?;
        // No link, since it was just made: following makes no difference.
        fchmodat(&self.parent.1, name, mode, FchmodatFlags::FollowSymlink)
            .context(|| "set the mode")?;
        self.describe_by_name(name, entry)
    }

    /// One more name. The target's directory is resolved inside; the target itself is never followed.
    fn hardlink(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<()> {
        let target = clean(&entry.link);
        if target == path {
            return Ok(());
        }
        let linking = || format!("link to {}", entry.link.escape_ascii());
        let (directory, target_name) =
            split(&target).ok_or_else(|| Error::invalid("a hard link to /"))?;
        let directory = match tree::open_directory(&self.root, directory) {
            Ok(directory) => Some(directory),
            Err(Errno::ENOENT) => None,
            Err(error) => return Err(error).context(linking),
        };
        let found = match &directory {
            Some(directory) => tree::look(directory, target_name).context(linking)?,
            None => None,
        };
        let (Some(directory), Some(found)) = (directory, found) else {
            return match &mut self.form {
                Form::Plain(marks) => marks.add(&Mark::Link(target, path.to_vec())),
                Form::Overlay { .. } => {
                    Err(Error::invalid("no such file in this layer")).context(linking)
                }
            };
        };
        if tree::kind(&found) == SFlag::S_IFDIR {
            return Err(Error::invalid("a directory has one name only")).context(linking);
        }
        // By another way to the same name, so that what is there must not go.
        if tree::look(&self.parent.1, name)
            .context(linking)?
            .is_some_and(|own| (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino))
        {
            return Ok(());
        }
        let make = |parent: BorrowedFd<'_>| {
            linkat(&directory, target_name, parent, name, AtFlags::empty())
        };
        self.make(name, make).context(linking)
    }

    /// Makes something at a place of the current directory, instead of what an earlier entry put there.
    fn make<T>(
        &self,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> nix::Result<T>,
    ) -> nix::Result<T> {
        match make(self.parent.1.as_fd()) {
            Err(Errno::EEXIST) => {
                self.vacate(name, false)?;
                make(self.parent.1.as_fd())
            }
            made => made,
        }
    }

    /// Removes what is at a place, unless it is a directory and to be kept.
    fn vacate(&self, name: &[u8], keep: bool) -> nix::Result<Before> {
        let parent = &self.parent.1;
        let before = match tree::look(parent, name)? {
            Some(found) if keep && tree::kind(&found) == SFlag::S_IFDIR => {
                return Ok(Before::Directory);
            }
            Some(found) if self.is_whiteout(&found) => Before::Whiteout,
            _ => Before::Nothing,
        };
        tree::remove(parent, name)?;
        Ok(before)
    }

    fn is_whiteout(&self, found: &nix::sys::stat::FileStat) -> bool {
        matches!(self.form, Form::Overlay { .. })
            && tree::kind(found) == SFlag::S_IFCHR
            && found.st_rdev == 0
    }

    /// `hidden` is what follows `.wh.` in a name.
    fn whiteout(&mut self, parent: &[u8], hidden: &[u8]) -> Result<()> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Error::invalid("a whiteout of nothing"));
        }
        let (opaque, aufs) = (hidden == OPAQUE, hidden.starts_with(AUFS));
        match &mut self.form {
            Form::Plain(marks) if opaque => marks.add(&Mark::Opaque(parent.to_vec())),
            Form::Overlay { userxattr } if opaque => set_opaque(self.parent.1.as_fd(), *userxattr),
            _ if aufs => Ok(()),
            Form::Plain(marks) => marks.add(&Mark::Whiteout(join(parent, hidden))),
            Form::Overlay { userxattr } => {
                let userxattr = *userxattr;
                let directory = self.parent.1.as_fd();
                let made = mknodat(directory, hidden, SFlag::S_IFCHR, Mode::empty(), 0);
                if made != Err(Errno::EEXIST) {
                    return made.context(|| "create the whiteout");
                }
                // This layer's own files stay, whatever the order: only what is below is hidden.
                match tree::open_child(directory, hidden) {
                    Ok(own) => set_opaque(own.as_fd(), userxattr),
                    Err(Errno::ENOTDIR | Errno::ELOOP) => Ok(()),
                    Err(error) => Err(error).context(|| "open the directory"),
                }
            }
        }
    }

    /// Makes `path` the current directory.
    fn enter(&mut self, path: &[u8]) -> Result<()> {
        if self.parent.0 == path {
            return Ok(());
        }
        let directory = match tree::open_directory(&self.root, path) {
            Ok(directory) => directory,
            Err(Errno::ENOENT | Errno::ENOTDIR) => self.imply(path)?,
            Err(error) => return Err(error).context(|| "open the directory it is in"),
        };
        self.parent = (path.to_vec(), directory);
        Ok(())
    }

    /// Makes the directories of a path that the layer did not mention.
    fn imply(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let making = || "make the directory it is in";
        let mut current = tree::open_directory(&self.root, b"").context(making)?;
        let mut end = 0;
        for name in path.split(|byte| *byte == b'/') {
            end += name.len() + usize::from(end > 0);
            let so_far = &path[..end];
            current = match tree::open_directory(&self.root, so_far) {
                Ok(directory) => directory,
                Err(Errno::ENOENT | Errno::ENOTDIR) => {
                    let before = tree::look(&current, name).context(making)?;
                    let whiteout = before.is_some_and(|found| self.is_whiteout(&found));
                    if whiteout {
                        tree::remove(&current, name).context(making)?;
                    }
                    match mkdirat(&current, name, Mode::from_bits_truncate(0o755)) {
                        Err(Errno::EEXIST) => {
                            let so_far = so_far.escape_ascii();
                            return Err(Error::invalid(format!("{so_far} is not a directory")));
                        }
                        made => made.context(making)?,
                    }
                    let made = tree::open_child(&current, name).context(making)?;
                    match &mut self.form {
                        Form::Plain(marks) => marks.add(&Mark::Implied(so_far.to_vec()))?,
                        Form::Overlay { userxattr } if whiteout => {
                            set_opaque(made.as_fd(), *userxattr)?;
                        }
                        Form::Overlay { .. } => {}
                    }
                    made
                }
                Err(error) => return Err(error).context(making),
            };
        }
        Ok(current)
    }

    /// Owner, mode and extended attributes, in this order: a change of owner takes setuid and capabilities away.
    fn describe(&self, file: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
        self.own(file, entry)?;
        set_mode(file, entry.mode)?;
        self.set_xattrs(file, entry)
    }

    fn own(&self, file: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
        if !self.rights.owners {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchown(file, Some(uid), Some(gid)).context(|| owning(entry))
    }

    fn set_xattrs(&self, file: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
        self.each_xattr(entry, |name, value| sys::set_xattr(file, name, value))
    }

    /// Like [`Extraction::describe`], and the times, for what cannot be opened: a name in the current directory that was just made.
    fn describe_by_name(&self, name: &[u8], entry: &Entry) -> Result<()> {
        let parent = &self.parent.1;
        if self.rights.owners {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(parent, name, Some(uid), Some(gid), flags).context(|| owning(entry))?;
        }
        if !entry.xattrs.is_empty() {
            // There is no call that takes a directory and a name, but one that takes a name of the current directory.
            fchdir(parent).context(|| "enter the directory it is in")?;
            let name = CString::new(name).expect("names without NUL");
            self.each_xattr(entry, |key, value| sys::set_link_xattr(&name, key, value))?;
        }
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(parent, name, &entry.mtime, &entry.mtime, flags).context(|| "set the times")
    }

    fn each_xattr(
        &self,
        entry: &Entry,
        set: impl Fn(&std::ffi::CStr, &[u8]) -> nix::Result<()>,
    ) -> Result<()> {
        for (name, value) in &entry.xattrs {
            let shown = name.escape_ascii();
            let name = self.escape(name);
            let name = CString::new(name)
                .map_err(|_| Error::invalid(format!("extended attribute {shown}")))?;
            match set(&name, value) {
                Ok(()) => {}
                // No engine insists on labels that this file system, or a user namespace, does not have.
                Err(Errno::EOPNOTSUPP) => {}
                Err(Errno::EPERM) if !self.rights.devices => {}
                Err(error) => {
                    return Err(error).context(|| format!("set the extended attribute {shown}"));
                }
            }
        }
        Ok(())
    }

    /// An image has no say in how its layers lie upon each other: overlayfs takes one `overlay.` away again when it shows these.
    fn escape(&self, name: &[u8]) -> Vec<u8> {
        let prefix: &[u8] = match self.form {
            Form::Overlay { userxattr: true } => b"user.overlay.",
            Form::Overlay { userxattr: false } => b"trusted.overlay.",
            Form::Plain(_) => return name.to_vec(),
        };
        match name.strip_prefix(prefix) {
            Some(rest) => [prefix, b"overlay.", rest].concat(),
            None => name.to_vec(),
        }
    }

    /// Remembers the times of a directory.
    fn later(&mut self, path: &[u8], time: TimeSpec) -> Result<()> {
        if self.directories.len() + path.len() > MOST_DIRECTORIES {
            return Err(Error::invalid("more directories than any layer has"));
        }
        self.directories.extend_from_slice(path);
        self.times.push((self.directories.len(), time));
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let mut start = 0;
        for (end, time) in &self.times {
            let path = &self.directories[start..*end];
            start = *end;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            match tree::open(&self.root, path, flags, Mode::empty()) {
                Ok(directory) => futimens(&directory, time, time),
                // A later entry took its place.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(()),
                Err(error) => Err(error),
            }
            .context(|| format!("{}: set the times", path.escape_ascii()))?;
        }
        if let Form::Plain(mut marks) = self.form {
            if !self.root_seen {
                marks.add(&Mark::Implied(Vec::new()))?;
            }
            marks.finish()?;
        }
        self.directories.clear();
        Ok(())
    }
}

/// The data of an entry.
fn write(mut file: &File, entry: &Entry, archive: &mut Archive) -> Result<()> {
    let writing = || "write the file";
    let Some(pieces) = &entry.pieces else {
        loop {
            match archive.data(u64::MAX)? {
                [] => return Ok(()),
                data => file.write_all(data).context(writing)?,
            }
        }
    };
    for (mut offset, length) in pieces.iter().copied() {
        let end = offset + length;
        while offset < end {
            let data = archive.data(end - offset)?;
            file.write_all_at(data, offset).context(writing)?;
            offset += data.len() as u64;
        }
    }
    file.set_len(entry.size).context(writing)
}

fn set_mode(file: BorrowedFd<'_>, mode: u32) -> Result<()> {
    fchmod(file, Mode::from_bits_truncate(mode)).context(|| "set the mode")
}

fn owning(entry: &Entry) -> String {
    format!("set the owner {}:{}", entry.uid, entry.gid)
}

fn set_opaque(directory: BorrowedFd<'_>, userxattr: bool) -> Result<()> {
    let name = match userxattr {
        true => c"user.overlay.opaque",
        false => c"trusted.overlay.opaque",
    };
    sys::set_xattr(directory, name, b"y").context(|| "make the directory opaque")
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent {
        [] => name.to_vec(),
        parent => [parent, b"/", name].concat(),
    }
}
