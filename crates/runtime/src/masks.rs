//! `linux.maskedPaths` and `linux.readonlyPaths`.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::lsm::MountLabel;
use crate::mounts::options::RDONLY;
use crate::plan::Plan;
use crate::rootfs::Root;
use crate::sys::directory::each_entry;
use crate::sys::mount::{
    FsContext, MountAttr, attach_at, clone_tree, clone_tree_with, set_attributes,
};
use crate::sys::process::leave;
use crate::{Context, Error, Result, devices};

/// Makes the plan's paths read-only, and hides its masked ones, in the container's root.
pub(crate) fn apply(root: &Root, plan: &Plan, known: Known) -> Result<()> {
    make_readonly(root, known.proc.as_ref(), &plan.readonly_paths)?;
    mask(root, &known, &plan.masked, plan.mount_label.as_ref())?;
    let directories = known.proc.map(|proc| proc.directory);
    directories.into_iter().chain(known.dev).for_each(leave);
    Ok(())
}

/// What need not be looked up again, as long as nobody else mounts anything in the container's root.
pub(crate) struct Known {
    pub proc: Option<Proc>,
    /// The directory of a /dev that was made here, with its null device.
    pub dev: Option<OwnedFd>,
}

impl Known {
    /// What there is before devices are made.
    pub(crate) fn look(root: &Root, plan: &Plan) -> Self {
        let proc = Proc::list(root, plan);
        Known { proc, dev: None }
    }
}

/// Hides paths: files behind /dev/null, directories behind one empty read-only tmpfs with that label. Missing ones are left alone.
fn mask(root: &Root, known: &Known, paths: &[String], label: Option<&MountLabel>) -> Result<()> {
    let (mut null, mut empty) = (None, None);
    for path in paths {
        let masking = || format!("linux.maskedPaths: mask {path}");
        let found = find(root, known.proc.as_ref(), path).with_context(masking)?;
        let Some((place, is_directory)) = found else {
            continue;
        };
        let cover = match (is_directory, &empty) {
            (true, None) => {
                empty = Some(place.cover_new(root, label).with_context(masking)?);
                continue;
            }
            (true, Some(empty)) => empty,
            (false, _) => match &null {
                Some(null) => null,
                None => null.insert(null_device(root, known)?),
            },
        };
        let (dir, name) = cover.at();
        clone_tree(dir, name, false)
            .and_then(|cover| place.cover(&cover).map(|()| leave(cover)))
            .with_context(masking)?;
        place.leave();
    }
    null.into_iter().chain(empty).for_each(Place::leave);
    Ok(())
}

/// Makes paths read-only, with what is mounted below them. Missing ones are left alone.
fn make_readonly(root: &Root, proc: Option<&Proc>, paths: &[String]) -> Result<()> {
    let readonly = MountAttr {
        set: RDONLY,
        ..MountAttr::default()
    };
    for path in paths {
        let changing = || format!("linux.readonlyPaths: make {path} read-only");
        let found = match proc.and_then(|proc| proc.find(path)) {
            Some(found) => found.map(|(place, _)| place),
            None => open_existing(root, path).with_context(changing)?,
        };
        let Some(place) = found else {
            continue;
        };
        let (dir, name) = place.at();
        let tree = match clone_tree_with(dir, name, true, &readonly) {
            Ok(tree) => place.cover(&tree).map(|()| tree),
            Err(Errno::ENOSYS) => bind_readonly(&place, &readonly),
            Err(error) => Err(error),
        };
        leave(tree.with_context(changing)?);
        place.leave();
    }
    Ok(())
}

/// What is to be covered, or to cover it.
enum Place<'a> {
    /// A name in the root of a file system where nobody can put something else in its place: a procfs, or a /dev that was made here.
    Named(BorrowedFd<'a>, &'a CStr),
    /// Anything.
    Open(OwnedFd),
}

impl<'a> Place<'a> {
    /// Where it is, as the calls for mounts take it.
    fn at(&self) -> (BorrowedFd<'_>, &CStr) {
        match self {
            Place::Named(directory, name) => (*directory, name),
            Place::Open(fd) => (fd.as_fd(), c""),
        }
    }

    fn cover(&self, tree: &OwnedFd) -> nix::Result<()> {
        let (dir, name) = self.at();
        attach_at(tree.as_fd(), dir, name)
    }

    /// Covers it by an empty read-only tmpfs, and says where that is: further ones are copied from there, since a detached mount can be copied
    /// only from Linux 6.15 on.
    fn cover_new(self, root: &Root, label: Option<&MountLabel>) -> nix::Result<Place<'a>> {
        if let (Place::Named(directory, name), None) = (&self, label) {
            let (empty, only_root) = (Some(c"tmpfs"), Some(c"nr_inodes=1"));
            let entered = root.enter(directory);
            let mounted = entered
                .and_then(|()| mount(None::<&CStr>, *name, empty, MsFlags::MS_RDONLY, only_root));
            if mounted.is_ok() {
                return Ok(self);
            }
        }
        let context = FsContext::open(c"tmpfs")?;
        context.set(c"nr_inodes", Some(c"1"))?;
        if let Some(MountLabel { option, label }) = label {
            context.set(option, Some(label))?;
        }
        let made = context.mount(RDONLY)?;
        context.leave();
        self.cover(&made)?;
        self.leave();
        Ok(Place::Open(made))
    }

    fn leave(self) {
        if let Place::Open(fd) = self {
            leave(fd);
        }
    }
}

/// A procfs at /proc, listed once instead of looked through for each path.
pub(crate) struct Proc {
    directory: OwnedFd,
    /// What there is of the names that were wanted, and of what kind (`DT_*`).
    entries: Vec<(CString, u8)>,
}

impl Proc {
    /// From so many paths on it is worth it.
    const LEAST: usize = 6;

    /// `None` where it is not, or something else is at /proc: then each path is looked up by itself.
    pub(crate) fn list(root: &Root, plan: &Plan) -> Option<Self> {
        let paths = plan.readonly_paths.iter().chain(&plan.masked);
        let paths = paths.map(String::as_str).chain([devices::KCORE]);
        let wanted: Vec<_> = paths.filter_map(Self::name).collect();
        // In another's pid namespace there may be thousands of processes.
        let is_short = plan.namespaces.is_new(libc::CLONE_NEWPID);
        if wanted.len() < Self::LEAST || !is_short {
            return None;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let directory = root.open_ordinary(Path::new("/proc"), flags).ok()?;
        if fstatfs(&directory).ok()?.filesystem_type() != PROC_SUPER_MAGIC {
            return None;
        }
        let mut entries = Vec::new();
        each_entry(directory.as_fd(), &mut [0; 4096], |name, kind| {
            if wanted
                .iter()
                .any(|wanted| wanted.as_bytes() == name.to_bytes())
            {
                entries.push((name.to_owned(), kind));
            }
        })
        .ok()?;
        Some(Proc { directory, entries })
    }

    /// Whether it has one of the paths.
    pub(crate) fn has(&self, path: &str) -> bool {
        Self::name(path).is_some_and(|name| self.entry(name).is_some())
    }

    fn entry(&self, wanted: &OsStr) -> Option<&(CString, u8)> {
        let mut entries = self.entries.iter();
        entries.find(|(name, _)| name.to_bytes() == wanted.as_bytes())
    }

    /// The name in /proc that a path means.
    fn name(path: &str) -> Option<&OsStr> {
        let path = Path::new(path);
        path.file_name()
            .filter(|_| path.parent() == Some(Path::new("/proc")))
    }

    /// What there is, and whether it is a directory; `None` if the listing does not tell.
    fn find(&self, path: &str) -> Option<Option<(Place<'_>, bool)>> {
        let Some((name, kind)) = self.entry(Self::name(path)?) else {
            return Some(None);
        };
        let place = Place::Named(self.directory.as_fd(), name);
        match *kind {
            libc::DT_DIR => Some(Some((place, true))),
            libc::DT_REG => Some(Some((place, false))),
            _ => None,
        }
    }
}

/// What is at a path, and whether it is a directory. Looked at before: a bind that fails with ENOTDIR costs far more than a second look.
fn find<'a>(
    root: &Root,
    proc: Option<&'a Proc>,
    path: &str,
) -> nix::Result<Option<(Place<'a>, bool)>> {
    if let Some(found) = proc.and_then(|proc| proc.find(path)) {
        return Ok(found);
    }
    match root.open_path(Path::new(path), OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Ok(directory) => Ok(Some((Place::Open(directory), true))),
        Err(Errno::ENOENT) => Ok(None),
        Err(Errno::ENOTDIR) => Ok(open_existing(root, path)?.map(|place| (place, false))),
        Err(error) => Err(error),
    }
}

/// The same where a copy of a mount cannot have attributes from birth: before Linux 5.12 they are only set once it is attached, and
/// only those of the mount itself, as with other runtimes.
fn bind_readonly(place: &Place<'_>, readonly: &MountAttr) -> nix::Result<OwnedFd> {
    let (dir, name) = place.at();
    let tree = clone_tree(dir, name, true)?;
    place.cover(&tree)?;
    match set_attributes(tree.as_fd(), true, readonly) {
        Err(Errno::ENOSYS) => set_attributes(tree.as_fd(), false, readonly),
        set => set,
    }
    .map(|()| tree)
}

fn open_existing(root: &Root, path: &str) -> nix::Result<Option<Place<'static>>> {
    match root.open_path(Path::new(path), OFlag::O_PATH) {
        Ok(place) => Ok(Some(Place::Open(place))),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The container's own /dev/null, if it is one (CVE-2025-31133: an image may put a symbolic link there).
fn null_device<'a>(root: &Root, known: &'a Known) -> Result<Place<'a>> {
    if let Some(dev) = &known.dev {
        return Ok(Place::Named(dev.as_fd(), c"null"));
    }
    let checking = "linux.maskedPaths: use /dev/null";
    let null = root
        .open_ordinary(Path::new("/dev/null"), OFlag::O_PATH)
        .context(checking)?;
    match devices::is_character_device(&null, 1, 3).context(checking)? {
        true => Ok(Place::Open(null)),
        false => Err(Error::failed(format!(
            "{checking}: it is not the null device"
        ))),
    }
}
