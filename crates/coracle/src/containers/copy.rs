//! `cp`: files into a container and out of one, also as a tar stream.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, makedev, minor, mknodat};
use nix::unistd::{getgid, getuid, symlinkat};
use runtime::{Context, Error, Kind, Result};
use tar::{Archive, Builder, EntryType, Header};

use super::directory::{Container, Containers, Lock};
use super::files::{self, DIRECTORY, Ids, Owner, open_inside};
use super::lifecycle::settle;
use super::record::Phase;
use super::rootfs;
use super::userns::{self, UserNamespace};

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `CONTAINER:PATH`
    Inside(String, PathBuf),
    Host(PathBuf),
    /// `-`
    Stream,
}

impl Place {
    /// A path of the host that has a colon in it is written with a `/` or a `.` in front.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text.split_once(':') {
            _ if text == "-" => Ok(Place::Stream),
            Some((name, path)) if !name.is_empty() && !name.starts_with(['/', '.']) => {
                Ok(Place::Inside(name.into(), Path::new("/").join(path)))
            }
            _ if text.is_empty() => Err(Error::invalid("a path is empty")),
            _ => {
                let path = std::path::absolute(text).with_context(|| format!("find {text}"))?;
                // What it is for is lost otherwise.
                let dot = text.ends_with("/.") || text == ".";
                Ok(Place::Host(if dot { path.join(".") } else { path }))
            }
        }
    }
}

/// Copies. `keep` is Docker's `--archive`: owners stay what they are, by the numbers that each side has for them.
pub(crate) fn copy(containers: &Containers, from: &Place, to: &Place, keep: bool) -> Result<()> {
    let owner = |ids, (uid, gid): (u32, u32)| {
        if keep {
            Owner::Keep(ids)
        } else {
            Owner::Is(uid, gid)
        }
    };
    let into = |container: &Container| {
        let to = first_id(container);
        let root = to.unwrap_or(0);
        owner(Ids { from: None, to }, (root, root))
    };
    let out_of = |container: &Container| Ids {
        from: first_id(container),
        to: None,
    };
    let ours = (getuid().as_raw(), getgid().as_raw());
    match (from, to) {
        (Place::Inside(name, path), Place::Host(target)) => {
            let container = containers.get(name)?;
            let root = Root::of(&container)?;
            between(
                &root.fd,
                path,
                &host()?,
                target,
                owner(out_of(&container), ours),
            )
        }
        (Place::Host(source), Place::Inside(name, path)) => {
            let container = containers.get(name)?;
            let root = Root::of(&container)?;
            between(&host()?, source, &root.fd, path, into(&container))
        }
        (Place::Inside(name, path), Place::Stream) => {
            let container = containers.get(name)?;
            let root = Root::of(&container)?;
            let out = Stream {
                archive: Builder::new(stdout().lock()),
                owner: Owner::Keep(out_of(&container)),
            };
            out.write(&root.fd, path)
        }
        (Place::Stream, Place::Inside(name, path)) => {
            let container = containers.get(name)?;
            let root = Root::of(&container)?;
            read_stream(stdin().lock(), &root.fd, path, into(&container))
        }
        _ => Err(Error::invalid(
            "cp: one of the two must be CONTAINER:PATH, the other a path or -",
        )),
    }
}

/// Where the ids of a container begin on the machine, if it has its own. An ordinary user's is looked at from inside its user namespace.
fn first_id(container: &Container) -> Option<u32> {
    match container.record.userns {
        UserNamespace::Auto(first) => Some(first),
        UserNamespace::Host | UserNamespace::KeepId(..) => None,
    }
}

fn host() -> Result<OwnedFd> {
    files::open_directory(Path::new("/"))
}

/// The root of a container, as long as it is looked at.
struct Root<'a> {
    fd: OwnedFd,
    /// It does not run: its file system is only mounted for us, and it must not start meanwhile.
    _mounted: Option<Mounted<'a>>,
}

struct Mounted<'a>(&'a Container, Lock);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = &self.1;
        if let Err(error) = rootfs::unmount(self.0) {
            log::warn!("{error}");
        }
    }
}

impl<'a> Root<'a> {
    fn of(container: &'a Container) -> Result<Self> {
        let record = &container.record;
        if settle(container)?.phase == Phase::Running
            && let Ok(state) = runtime::state(&record.settings(), &record.id)
            && state.pid != 0
        {
            userns::join(state.pid)?;
            // With everything that is mounted in it.
            let fd = files::open_directory(Path::new(&format!("/proc/{}/root", state.pid)))?;
            return Ok(Root { fd, _mounted: None });
        }
        let Some(lock) = container.try_lock()? else {
            let text = format!("container {} is just starting or ending", record.name);
            return Err(Error::new(Kind::WrongStatus, text));
        };
        rootfs::mount_for_container(container)?;
        let mounted = Mounted(container, lock);
        let fd = files::open_directory(&rootfs::path(container))?;
        Ok(Root {
            fd,
            _mounted: Some(mounted),
        })
    }
}

/// What is copied: a directory's content, or one thing by its name in a directory.
enum Source {
    Content(OwnedFd),
    Entry(OwnedFd, PathBuf, FileStat),
}

impl Source {
    fn open(root: &OwnedFd, path: &Path) -> Result<Self> {
        let finding = || format!("cp: {}", path.display());
        let content = path.as_os_str().as_bytes().ends_with(b"/.");
        let name = match path.components().next_back() {
            Some(Component::Normal(name)) if !content => PathBuf::from(name),
            _ => {
                return Ok(Source::Content(
                    open_inside(root, path, DIRECTORY).with_context(finding)?,
                ));
            }
        };
        let parent = open_inside(root, parent(path), DIRECTORY).with_context(finding)?;
        let status = fstatat(&parent, &name, AtFlags::AT_SYMLINK_NOFOLLOW).with_context(finding)?;
        Ok(Source::Entry(parent, name, status))
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn is(status: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == kind
}

/// Docker's rules for where a copy ends up.
fn between(from: &OwnedFd, source: &Path, to: &OwnedFd, target: &Path, owner: Owner) -> Result<()> {
    let source = Source::open(from, source)?;
    let finding = || format!("cp: {}", target.display());
    match (open_inside(to, target, DIRECTORY), source) {
        (Ok(directory), Source::Content(content)) => {
            files::copy_contents(content, directory, owner)
        }
        (Ok(directory), Source::Entry(parent, name, _)) => {
            files::copy(parent, &name, directory, &name, owner)
        }
        (Err(Errno::ENOENT | Errno::ENOTDIR), source) => {
            let directory = open_inside(to, parent(target), DIRECTORY).with_context(finding)?;
            let name = Path::new(target.file_name().unwrap_or_default());
            let exists = fstatat(&directory, name, AtFlags::empty()).is_ok();
            match source {
                Source::Entry(parent, old, status) if !is(&status, SFlag::S_IFDIR) => {
                    files::copy(parent, &old, directory, name, owner)
                }
                _ if exists => {
                    let text = format!(
                        "cp: cannot copy a directory to the file {}",
                        target.display()
                    );
                    Err(Error::invalid(text))
                }
                Source::Entry(parent, old, _) => files::copy(parent, &old, directory, name, owner),
                Source::Content(content) => {
                    let made = files::make_directory(directory, name).with_context(finding)?;
                    files::copy_contents(content, made, owner)
                }
            }
        }
        (Err(error), _) => Err(error).with_context(finding),
    }
}

/// A tar stream that is written.
struct Stream<W: Write> {
    archive: Builder<W>,
    /// Whose the entries are.
    owner: Owner,
}

impl<W: Write> Stream<W> {
    fn write(mut self, root: &OwnedFd, path: &Path) -> Result<()> {
        match Source::open(root, path)? {
            Source::Content(directory) => self.append_directory(directory, Path::new("."))?,
            Source::Entry(parent, name, status) => self.append(parent, &name, &name, &status)?,
        }
        self.archive
            .into_inner()
            .and_then(|mut out| out.flush())
            .context("write the tar stream")
    }

    fn append_directory(&mut self, fd: OwnedFd, path: &Path) -> Result<()> {
        let reading = || format!("read {}", path.display());
        let status = fstat(&fd).with_context(reading)?;
        let mut header = self.header(&status, EntryType::Directory)?;
        self.archive
            .append_data(&mut header, path.join(""), std::io::empty())
            .with_context(reading)?;
        let mut directory = Dir::from_fd(fd).with_context(reading)?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            names.push(entry.with_context(reading)?.file_name().to_owned());
        }
        names.sort();
        for name in names {
            let name = Path::new(OsStr::from_bytes(name.to_bytes()));
            if name == Path::new(".") || name == Path::new("..") {
                continue;
            }
            let status =
                fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).with_context(reading)?;
            self.append(&directory, name, &path.join(name), &status)?;
        }
        Ok(())
    }

    fn append(
        &mut self,
        parent: impl AsFd,
        name: &Path,
        path: &Path,
        status: &FileStat,
    ) -> Result<()> {
        let writing = || format!("write {} to the tar stream", path.display());
        let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
        let nofollow = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match kind {
            SFlag::S_IFDIR => {
                let fd = openat(&parent, name, DIRECTORY | nofollow, Mode::empty())
                    .with_context(writing)?;
                self.append_directory(fd, path)
            }
            SFlag::S_IFREG => {
                let fd = openat(&parent, name, OFlag::O_RDONLY | nofollow, Mode::empty())
                    .with_context(writing)?;
                let mut header = self.header(status, EntryType::Regular)?;
                header.set_size(status.st_size as u64);
                // It may grow or shrink meanwhile; the stream has to be in order all the same.
                let size = status.st_size as u64;
                let content = File::from(fd)
                    .take(size)
                    .chain(std::io::repeat(0))
                    .take(size);
                self.archive
                    .append_data(&mut header, path, content)
                    .with_context(writing)
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(&parent, name).with_context(writing)?;
                let mut header = self.header(status, EntryType::Symlink)?;
                self.archive
                    .append_link(&mut header, path, &target)
                    .with_context(writing)
            }
            SFlag::S_IFSOCK => Ok(()),
            kind => {
                let kind = match kind {
                    SFlag::S_IFIFO => EntryType::Fifo,
                    SFlag::S_IFBLK => EntryType::Block,
                    _ => EntryType::Char,
                };
                let mut header = self.header(status, kind)?;
                header
                    .set_device_major(major(status.st_rdev) as u32)
                    .and_then(|()| header.set_device_minor(minor(status.st_rdev) as u32))
                    .with_context(writing)?;
                self.archive
                    .append_data(&mut header, path, std::io::empty())
                    .with_context(writing)
            }
        }
    }

    fn header(&self, status: &FileStat, kind: EntryType) -> Result<Header> {
        let (uid, gid) = self.owner.of(status)?;
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(status.st_mode & 0o7777);
        header.set_uid(uid.as_raw().into());
        header.set_gid(gid.as_raw().into());
        header.set_mtime(u64::try_from(status.st_mtime).unwrap_or(0));
        header.set_size(0);
        Ok(header)
    }
}

/// Every entry is placed by way of the container's root: `..`, absolute names and links lead nowhere else.
fn read_stream(input: impl Read, root: &OwnedFd, target: &Path, owner: Owner) -> Result<()> {
    open_inside(root, target, DIRECTORY).with_context(|| format!("cp: {}", target.display()))?;
    let mut archive = Archive::new(input);
    for entry in archive.entries().context("read the tar stream")? {
        let mut entry = entry.context("read the tar stream")?;
        let path = entry.path().context("read the tar stream")?.into_owned();
        let extracting = || format!("cp: extract {}", path.display());
        let parts: PathBuf = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        let Some(name) = parts.file_name().map(PathBuf::from) else {
            continue;
        };
        let directory = target.join(parent(&parts));
        let parent = ensure_directory(root, &directory).with_context(extracting)?;
        extract(&mut entry, root, target, &parent, &name, owner).with_context(extracting)?;
    }
    Ok(())
}

/// Opens a directory, made with its parents where they are missing.
fn ensure_directory(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    match open_inside(root, path, DIRECTORY) {
        Err(Errno::ENOENT) if path.parent().is_some() => {
            let above = ensure_directory(root, parent(path))?;
            files::make_directory(above, Path::new(path.file_name().unwrap_or_default()))
        }
        opened => opened,
    }
}

fn extract(
    entry: &mut tar::Entry<'_, impl Read>,
    root: &OwnedFd,
    target: &Path,
    parent: &OwnedFd,
    name: &Path,
    owner: Owner,
) -> Result<()> {
    let header = entry.header().clone();
    let kind = header.entry_type();
    let link = || -> Result<PathBuf> {
        let link = entry.link_name().context("read its target")?;
        Ok(link
            .ok_or_else(|| Error::invalid("a link without a target"))?
            .into_owned())
    };
    match kind {
        EntryType::Directory => drop(files::make_directory(parent, name).context("create it")?),
        EntryType::Symlink => {
            let link = link()?;
            files::clear(parent, name).context("replace it")?;
            symlinkat(&link, parent, name).context("create it")?;
        }
        EntryType::Link => {
            let link = link()?;
            let parts: PathBuf = link
                .components()
                .filter(|part| matches!(part, Component::Normal(_)))
                .collect();
            let old = open_inside(root, &target.join(self::parent(&parts)), DIRECTORY)
                .context("find its target")?;
            let old_name = Path::new(parts.file_name().unwrap_or_default());
            return files::link(old, old_name, parent, name).context("create it");
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            files::clear(parent, name).context("replace it")?;
            files::create_file(parent, name, entry)?;
        }
        EntryType::Fifo | EntryType::Char | EntryType::Block => {
            let kind = match kind {
                EntryType::Fifo => SFlag::S_IFIFO,
                EntryType::Char => SFlag::S_IFCHR,
                _ => SFlag::S_IFBLK,
            };
            let number = |number: std::io::Result<Option<u32>>| {
                u64::from(number.ok().flatten().unwrap_or(0))
            };
            let device = makedev(number(header.device_major()), number(header.device_minor()));
            files::clear(parent, name).context("replace it")?;
            mknodat(parent, name, kind, Mode::S_IRUSR, device).context("create it")?;
        }
        _ => return Ok(()),
    }
    let mut status = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).context("look at it")?;
    let file_type = status.st_mode & SFlag::S_IFMT.bits();
    status.st_mode = file_type | header.mode().unwrap_or(0o644) & 0o7777;
    status.st_uid = header
        .uid()
        .ok()
        .and_then(|id| id.try_into().ok())
        .unwrap_or(0);
    status.st_gid = header
        .gid()
        .ok()
        .and_then(|id| id.try_into().ok())
        .unwrap_or(0);
    let time = header
        .mtime()
        .ok()
        .and_then(|time| time.try_into().ok())
        .unwrap_or(0);
    (status.st_atime, status.st_mtime) = (time, time);
    files::set_attributes(parent, name, &status, owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let inside = |name: &str, path: &str| Place::Inside(name.into(), path.into());
        assert_eq!(Place::parse("web:etc/x").unwrap(), inside("web", "/etc/x"));
        assert_eq!(Place::parse("web:/etc/.").unwrap(), inside("web", "/etc/."));
        assert_eq!(Place::parse("-").unwrap(), Place::Stream);
        assert_eq!(Place::parse("/a:b").unwrap(), Place::Host("/a:b".into()));
        assert!(matches!(Place::parse("./a:b").unwrap(), Place::Host(_)));
        assert!(Place::parse("").is_err());
    }
}
