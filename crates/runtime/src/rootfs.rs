//! The container's root: resolved once to a descriptor, every later path is resolved from there and inside it
//! (openat2(2) `RESOLVE_IN_ROOT`), so nothing that an image holds can lead outside.

use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, readlink, readlinkat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use crate::mounts::clean;
use crate::sys::mount::{
    MountAttr, attach_at, clone_tree, is_mount_root, set_attributes, set_propagation_of_all,
};
use crate::sys::process::leave;
use crate::{Context, Error, Result};

const MOUNT_ATTR_RDONLY: u64 = 1;

/// How mounts travel between the container and the host (`linux.rootfsPropagation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub kind: MsFlags,
    /// For the mounts below as well.
    pub recursive: bool,
}

impl Propagation {
    /// `shared`, `rslave`, ….
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (recursive, kind) = match name.strip_prefix('r') {
            Some(kind) => (true, kind),
            None => (false, name),
        };
        let kind = match kind {
            "shared" => MsFlags::MS_SHARED,
            "slave" => MsFlags::MS_SLAVE,
            "private" => MsFlags::MS_PRIVATE,
            "unbindable" => MsFlags::MS_UNBINDABLE,
            _ => return None,
        };
        Some(Propagation { kind, recursive })
    }

    /// Applies to the mount that `mount` refers to.
    pub(crate) fn apply(self, mount: BorrowedFd<'_>) -> nix::Result<()> {
        let attributes = MountAttr {
            propagation: self.kind.bits(),
            ..MountAttr::default()
        };
        set_attributes(mount, self.recursive, &attributes)
    }
}

/// The root directory of a container.
pub(crate) struct Root {
    directory: OwnedFd,
    /// The mounts around it are peers of the host's: what is unmounted here goes there as well.
    among_peers: bool,
    /// The directory in which one was made last, by a path without symbolic links: the next may be made beside that.
    last: RefCell<Option<(PathBuf, OwnedFd)>>,
    /// A file system that was made in here.
    new: RefCell<Option<New>>,
}

/// A file system that was made in the container's root, which nobody else can see: what is made in it cannot become something else, so that it
/// may be named.
struct New {
    /// Where it is mounted.
    path: PathBuf,
    /// Its root directory, once something was made in it.
    directory: Option<OwnedFd>,
    /// That is the working directory.
    is_entered: bool,
}

/// A directory or file inside the root, to be mounted upon.
pub(crate) struct Place {
    /// The directory or file.
    pub fd: OwnedFd,
    /// No symbolic link leads there, so that it lies where its path says.
    pub ordinary: bool,
    /// It was made just now, so that there is nothing in it, and no mount upon it can cover anything.
    made: bool,
}

impl Place {
    /// One that was there.
    pub(crate) fn found(fd: OwnedFd, ordinary: bool) -> Self {
        let made = false;
        Place { fd, ordinary, made }
    }
}

impl Root {
    /// The directory `rootfs` as a descriptor, for [`Root::open`].
    pub(crate) fn find(rootfs: &Path) -> Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(AT_FDCWD, rootfs, flags, Mode::empty())
            .with_context(|| format!("root.path: open {}", rootfs.display()))
    }

    /// In a new mount namespace: cuts it off from the host as `propagation` says, and makes a detached copy of the mount tree at
    /// `path` from `rootfs` on.
    pub(crate) fn open(
        (rootfs, path): (impl AsFd, &CStr),
        propagation: Option<Propagation>,
    ) -> Result<Self> {
        // A private or unbindable root starts private, a shared one stays as shared as the host's is. The default is runc's: mounts
        // of the host arrive, none leave.
        let initial = match propagation.map(|propagation| propagation.kind) {
            Some(MsFlags::MS_SHARED) => None,
            Some(MsFlags::MS_PRIVATE | MsFlags::MS_UNBINDABLE) => Some(MsFlags::MS_PRIVATE),
            _ => Some(MsFlags::MS_SLAVE),
        };
        if let Some(initial) = initial {
            set_propagation_of_all(initial)
                .context("linux.rootfsPropagation: set the propagation of /")?;
        }
        let tree =
            clone_tree(rootfs, path, true).context("root.path: copy the mount of the root")?;
        if initial.is_none() {
            // pivot_root(2) refuses a shared root: until it is shared again, it only listens.
            let slave = Propagation {
                kind: MsFlags::MS_SLAVE,
                recursive: false,
            };
            slave
                .apply(tree.as_fd())
                .context("linux.rootfsPropagation: prepare the root")?;
        }
        Ok(Root {
            among_peers: initial.is_none(),
            ..Root::at(tree)
        })
    }

    /// The root of a process that is already inside (`exec`).
    pub(crate) fn current() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(AT_FDCWD, "/", flags, Mode::empty())
            .map(Self::at)
            .context("open the container's root")
    }

    /// A directory that is some container's root already, or is to be taken for one.
    pub(crate) fn at(directory: OwnedFd) -> Self {
        Root {
            directory,
            among_peers: false,
            last: RefCell::default(),
            new: RefCell::default(),
        }
    }

    /// Where a path inside the root leads, seen from the root: what there is of it without its symbolic links, and the rest as it is.
    pub(crate) fn resolve(&self, path: &Path) -> nix::Result<PathBuf> {
        for ancestor in path.ancestors() {
            let found = match self.open_path(ancestor, OFlag::O_PATH) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
                found => shown(found?.as_fd())?,
            };
            let below = found.strip_prefix(shown(self.as_fd())?);
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            let inside = Path::new("/").join(below.map_err(|_| Errno::EXDEV)?);
            // Joining an empty path would leave a trailing slash.
            return Ok(match rest.as_os_str().is_empty() {
                true => inside,
                false => inside.join(rest),
            });
        }
        Err(Errno::ENOENT)
    }

    /// Attaches the copy at `place`. Among peers of the host's its mount is made private first, so that the host does not see it.
    pub(crate) fn attach(&self, place: &Path) -> Result<()> {
        let attaching = || {
            format!(
                "root.path: mount the root file system at {}",
                place.display()
            )
        };
        let private = Propagation {
            kind: MsFlags::MS_PRIVATE,
            recursive: false,
        };
        let find = |path: &Path| {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            openat(AT_FDCWD, path, flags, Mode::empty()).with_context(attaching)
        };
        if self.among_peers {
            let mut made_private = private.apply(find(place)?.as_fd());
            for ancestor in place.ancestors().skip(1) {
                // Not the root of a mount: the one that holds it lies further up.
                if made_private == Err(Errno::EINVAL) {
                    made_private = private.apply(find(ancestor)?.as_fd());
                }
            }
            made_private.with_context(attaching)?;
        }
        let place = CString::new(place.as_os_str().as_encoded_bytes()).unwrap_or_default();
        attach_at(self.directory.as_fd(), AT_FDCWD, &place).with_context(attaching)
    }

    /// Makes this the root of the mount namespace, and lets go of the old one.
    pub(crate) fn pivot(&self) -> Result<()> {
        let old = match self.among_peers {
            true => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                Some(openat(AT_FDCWD, "/", flags, Mode::empty()).context("open the old root")?)
            }
            false => None,
        };
        fchdir(&self.directory).context("enter the root file system")?;
        // The old root ends up on top of the new one, and goes with the unmount (pivot_root(2), "pivot_root(".", ".")").
        pivot_root(".", ".").context(
            "pivot_root to the root file system (where a seccomp filter denies it, use --no-pivot)",
        )?;
        if let Some(old) = old {
            // From inside it: the new root lies below, and the propagation of its mounts is settled.
            fchdir(old).context("enter the old root")?;
            mount(
                None::<&str>,
                ".",
                None::<&str>,
                MsFlags::MS_SLAVE | MsFlags::MS_REC,
                None::<&str>,
            )
            .context("cut the old root off")?;
        }
        umount2(".", MntFlags::MNT_DETACH).context("unmount the old root")?;
        match self.among_peers {
            true => chdir("/").context("enter the new root"),
            false => Ok(()),
        }
    }

    /// Where pivot_root(2) cannot work (the old root is a ramdisk): moves the root over `/` and changes into it.
    pub(crate) fn move_and_chroot(&self) -> Result<()> {
        fchdir(&self.directory).context("enter the root file system")?;
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .context("move the root file system to /")?;
        chroot(".").context("chroot to the root file system")?;
        chdir("/").context("enter the new root")
    }

    /// `root.readonly`.
    pub(crate) fn set_readonly(&self) -> Result<()> {
        let attributes = MountAttr {
            set: MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        set_attributes(self.directory.as_fd(), false, &attributes)
            .context("root.readonly: make the root file system read-only")
    }

    /// The final `linux.rootfsPropagation` of the new `/`: of it alone, since each mount below has its own by now. Only after the pivot, which
    /// refuses a shared root.
    pub(crate) fn set_root_propagation(propagation: Propagation) -> Result<()> {
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            propagation.kind,
            None::<&str>,
        )
        .context("linux.rootfsPropagation: set the propagation of the container's root")
    }

    /// It is of no more use.
    pub(crate) fn leave(self) {
        leave(self.directory);
    }

    /// Opens a path inside the root.
    pub(crate) fn open_path(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        self.open_how(path, flags, ResolveFlag::empty())
    }

    /// Opens a path inside the root that must not go through any symbolic link.
    pub(crate) fn open_ordinary(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        self.open_how(path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    fn open_how(&self, path: &Path, flags: OFlag, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(resolve | ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        // EAGAIN: something was renamed on the way, and the kernel cannot tell whether `..` stayed inside.
        let mut deadline = None;
        loop {
            match openat2(&self.directory, path, how) {
                Err(Errno::EAGAIN)
                    if Instant::now()
                        < *deadline
                            .get_or_insert_with(|| Instant::now() + Duration::from_secs(1)) => {}
                result => return result,
            }
        }
    }

    /// The directory at `path`, made with all its parents (mode 0755) where missing.
    pub(crate) fn ensure_directory(&self, path: &Path) -> nix::Result<OwnedFd> {
        self.ensure_place(path).map(|place| place.fd)
    }

    /// The same, to be mounted upon.
    pub(crate) fn ensure_place(&self, path: &Path) -> nix::Result<Place> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let made = |fd| Place {
            made: true,
            ..Place::found(fd, true)
        };
        if let Some(fd) = self.make_beside(path) {
            return Ok(made(fd));
        }
        let opened = match self.open_ordinary(path, flags) {
            Err(Errno::ENOENT) => match self.make_last(path) {
                Ok(fd) => return Ok(made(fd)),
                Err(Errno::ENOENT | Errno::EEXIST | Errno::ELOOP) => self.make_directories(path),
                Err(error) => Err(error),
            },
            Err(Errno::ELOOP) => match self.open_path(path, flags) {
                Err(Errno::ENOENT) => self.make_directories(path),
                opened => opened,
            },
            opened => return opened.map(|fd| Place::found(fd, true)),
        };
        opened.map(|fd| Place::found(fd, false))
    }

    /// The usual case: of a path without links, only the last name is missing.
    fn make_last(&self, path: &Path) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let parent = path.parent().ok_or(Errno::ENOENT)?;
        let directory = self.open_ordinary(parent, flags)?;
        let made = make_in(&directory, path)?;
        if let Some((_, known)) = self.last.replace(Some((parent.to_owned(), directory))) {
            leave(known);
        }
        Ok(made)
    }

    /// The same where the parent is the one of the last that was made, and there is nothing of that name.
    fn make_beside(&self, path: &Path) -> Option<OwnedFd> {
        let last = self.last.borrow();
        let (parent, directory) = last.as_ref()?;
        match path.parent() == Some(parent.as_path()) {
            true => make_in(directory, path).ok(),
            false => None,
        }
    }

    /// A mount upon a place that was there before may cover what is known of the directories that lead further.
    pub(crate) fn mounted_upon(&self, place: Place, path: &Path) {
        let covers = |known: &Path| !place.made && (!place.ordinary || known.starts_with(path));
        let last = self.last.borrow_mut().take_if(|(known, _)| covers(known));
        let new = self.new.borrow_mut().take_if(|new| covers(&new.path));
        last.map(|(_, fd)| fd)
            .into_iter()
            .chain(new.and_then(|new| new.directory))
            .chain([place.fd])
            .for_each(leave);
    }

    /// An empty file system was just mounted at `path`, where no symbolic link leads, in a mount namespace that is the container's alone.
    pub(crate) fn mounted_new(&self, path: &Path) {
        let mut new = self.new.borrow_mut();
        if !self.among_peers && new.is_none() {
            *new = Some(New {
                path: path.to_owned(),
                directory: None,
                is_entered: false,
            });
        }
    }

    /// Makes the directory `path` in the new file system and enters that, so that the last name is enough for mount(2). `None` where it is to be
    /// somewhere else, or something is there.
    pub(crate) fn make_in_new<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let mut new = self.new.borrow_mut();
        let new = new
            .as_mut()
            .filter(|new| path.parent() == Some(&new.path))?;
        let name = path.file_name()?;
        let directory = match &new.directory {
            Some(directory) => directory,
            None => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
                let opened = self.open_ordinary(&new.path, flags).ok()?;
                // Whoever may write to the directory below it may have renamed that, and with it the mount is gone.
                if !is_mount_root(&opened) {
                    return None;
                }
                new.directory.insert(opened)
            }
        };
        mkdirat(directory, name, Mode::from_bits_truncate(0o755)).ok()?;
        if !new.is_entered {
            fchdir(directory).ok()?;
            new.is_entered = true;
        }
        Some(Path::new(name))
    }

    /// Changes the working directory.
    pub(crate) fn enter(&self, directory: impl AsFd) -> nix::Result<()> {
        if let Some(new) = &mut *self.new.borrow_mut() {
            new.is_entered = false;
        }
        fchdir(directory)
    }

    /// The root directory of the new file system, if that is at `path` and something was made in it.
    pub(crate) fn take_new(&self, path: &Path) -> Option<OwnedFd> {
        let new = self.new.borrow_mut().take_if(|new| new.path == path);
        new.and_then(|new| new.directory)
    }

    /// The file at `path`, made empty where missing. Anything but a directory will do: it is going to be mounted upon.
    pub(crate) fn ensure_file(&self, path: &Path) -> nix::Result<OwnedFd> {
        match self.open_path(path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => {}
            opened => {
                let file = opened?;
                return match SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT {
                    SFlag::S_IFDIR => Err(Errno::EISDIR),
                    _ => Ok(file),
                };
            }
        }
        let (parent, name) = self.parent(path)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&parent, name, flags, Mode::from_bits_truncate(0o644)) {
            Ok(_) => openat(
                &parent,
                name,
                OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            ),
            // A symbolic link that leads nowhere: its target is what is wanted.
            Err(Errno::EEXIST) => {
                self.ensure_file(&path.with_file_name(readlinkat(&parent, name)?))
            }
            Err(error) => Err(error),
        }
    }

    /// The directory that holds `path`, made where missing, and the last component.
    pub(crate) fn parent<'a>(&self, path: &'a Path) -> nix::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        Ok((
            self.ensure_directory(path.parent().unwrap_or(Path::new("/")))?,
            name,
        ))
    }

    /// Component by component, following symbolic links whose target is missing.
    fn make_directories(&self, path: &Path) -> nix::Result<OwnedFd> {
        let mut links = 0;
        let mut rest: Vec<_> = components(path);
        rest.reverse();
        let mut done = PathBuf::from("/");
        let mut directory = self.open_path(&done, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        while let Some(name) = rest.pop() {
            let next = done.join(&name);
            directory = match self.open_path(&next, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Err(Errno::ENOENT) => match mkdirat(
                    &directory,
                    name.as_os_str(),
                    Mode::from_bits_truncate(0o755),
                ) {
                    Ok(()) => self.open_path(&next, OFlag::O_PATH | OFlag::O_DIRECTORY)?,
                    Err(Errno::EEXIST) => {
                        links += 1;
                        if links > 40 {
                            return Err(Errno::ELOOP);
                        }
                        let target = PathBuf::from(readlinkat(&directory, name.as_os_str())?);
                        if target.is_absolute() {
                            done = PathBuf::from("/");
                            directory =
                                self.open_path(&done, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
                        }
                        rest.extend(components(&target).into_iter().rev());
                        continue;
                    }
                    Err(error) => return Err(error),
                },
                opened => opened?,
            };
            done = next;
        }
        Ok(directory)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Makes and opens the last directory of `path`, in the one that holds it.
fn make_in(parent: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let name = path.file_name().ok_or(Errno::ENOENT)?;
    mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Where an open file is, without symbolic links.
fn shown(fd: BorrowedFd<'_>) -> nix::Result<PathBuf> {
    readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str()).map(PathBuf::from)
}

/// The names along a path; `..` stays, since only the kernel knows what it means behind a symbolic link.
fn components(path: &Path) -> Vec<std::ffi::OsString> {
    let named = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(named).collect()
}

/// What lies at an absolute path without symbolic links, opened, and that path as the kernel would show it, where that takes one look.
pub(crate) fn ordinary(path: &Path, flags: OFlag) -> Option<(PathBuf, OwnedFd)> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let clean = clean(path);
    if !path.is_absolute() || path != clean {
        return None;
    }
    let opened = openat2(AT_FDCWD, &clean, how).ok()?;
    Some((clean, opened))
}

/// The absolute, resolved path of the root file system (`root.path`, relative to the bundle).
pub(crate) fn resolve(bundle: &Path, configured: &Path) -> Result<PathBuf> {
    if configured.as_os_str().is_empty() {
        return Err(Error::invalid("root.path: must not be empty"));
    }
    let path = bundle.join(configured);
    let finding = || format!("root.path: rootfs {}", path.display());
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    if let Some((path, _)) = ordinary(&path, flags) {
        return Ok(path);
    }
    match openat(AT_FDCWD, &path, flags | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(directory) => shown(directory.as_fd()).with_context(finding),
        Err(Errno::ENOTDIR) => Err(Error::invalid(format!(
            "root.path: {} is not a directory",
            path.display()
        ))),
        Err(error) => Err(error).with_context(finding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root in a temporary directory, removed afterwards.
    struct Fixture(PathBuf);

    impl Fixture {
        fn new(name: &str) -> (Self, Root) {
            let path =
                std::env::temp_dir().join(format!("coracle-rootfs-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            let fd = openat(
                AT_FDCWD,
                &path,
                OFlag::O_PATH | OFlag::O_DIRECTORY,
                Mode::empty(),
            )
            .unwrap();
            (Fixture(path), Root::at(fd))
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn links_stay_inside() {
        let (fixture, root) = Fixture::new("inside");
        std::os::unix::fs::symlink("/../../outside", fixture.0.join("link")).unwrap();
        std::os::unix::fs::symlink("run", fixture.0.join("var")).unwrap();
        root.ensure_directory(Path::new("/link/a/b")).unwrap();
        assert!(fixture.0.join("outside/a/b").is_dir());
        root.ensure_file(Path::new("/var/lock/file")).unwrap();
        assert!(fixture.0.join("run/lock/file").is_file());
        root.ensure_directory(Path::new("/x/../../../y")).unwrap();
        assert!(fixture.0.join("y").is_dir());
    }

    #[test]
    fn links_are_resolved_as_far_as_there_is_something() {
        let (fixture, root) = Fixture::new("resolve");
        std::os::unix::fs::symlink("/run", fixture.0.join("var")).unwrap();
        root.ensure_directory(Path::new("/run/lock")).unwrap();
        let resolve = |path: &str| root.resolve(Path::new(path)).unwrap();
        assert_eq!(resolve("/var/lock"), Path::new("/run/lock"));
        assert_eq!(resolve("/var/none/at"), Path::new("/run/none/at"));
        assert_eq!(resolve("/"), Path::new("/"));
    }

    #[test]
    fn circular_links() {
        let (fixture, root) = Fixture::new("circle");
        std::os::unix::fs::symlink("b", fixture.0.join("a")).unwrap();
        std::os::unix::fs::symlink("a", fixture.0.join("b")).unwrap();
        assert_eq!(
            root.ensure_directory(Path::new("/a/c")).unwrap_err(),
            Errno::ELOOP
        );
    }

    #[test]
    fn a_file_is_no_directory() {
        let (_fixture, root) = Fixture::new("kinds");
        root.ensure_file(Path::new("/f")).unwrap();
        assert_eq!(
            root.ensure_directory(Path::new("/f/g")).unwrap_err(),
            Errno::ENOTDIR
        );
        root.ensure_directory(Path::new("/d")).unwrap();
        assert_eq!(
            root.ensure_file(Path::new("/d")).unwrap_err(),
            Errno::EISDIR
        );
    }

    #[test]
    fn propagation_names() {
        let parsed = Propagation::parse("rslave").unwrap();
        assert_eq!(
            parsed,
            Propagation {
                kind: MsFlags::MS_SLAVE,
                recursive: true
            }
        );
        assert!(!Propagation::parse("shared").unwrap().recursive);
        assert!(Propagation::parse("public").is_none());
    }
}
