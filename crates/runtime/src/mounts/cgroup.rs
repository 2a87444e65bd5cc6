//! The cgroup mount: cgroup2, or a tmpfs with one mount per v1 hierarchy.

use std::borrow::Cow;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroups::{Host, Layout, Location, Place, Version};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use super::{Detached, Mount, Surroundings, options};
use crate::namespaces::Namespaces;
use crate::sys::mount::{FsContext, MountAttr, attach, clone_tree, clone_tree_with};
use crate::{Context, Result};

/// Makes the view of the container's cgroup; one without a cgroup of its own sees the host's.
pub(super) fn prepare(mount: &Mount, around: &Surroundings<'_>) -> Result<Detached> {
    let hosts;
    let location = match around.cgroup {
        Some(location) => location,
        None => {
            hosts = Location::resolve(&Host::probe()?, Path::new("/"))?;
            &hosts
        }
    };
    if location.layout() == Layout::V2 {
        let place = &location.places()[0];
        // Without a namespace of its own the container sees the hierarchy as the host does.
        let shown = if around.namespaces.is_private(libc::CLONE_NEWCGROUP) {
            place.dir()
        } else {
            place.mount.clone()
        };
        let (tree, attributes) = hierarchy(mount, around, place, &shown)?;
        return Ok(Detached {
            tree,
            attributes,
            parts: Vec::new(),
            links: Vec::new(),
            readonly: false,
            from_host: false,
            mapping: None,
        });
    }
    let tmpfs = FsContext::open(c"tmpfs").with_context(|| mount.describe())?;
    tmpfs
        .set(c"mode", Some(c"755"))
        .with_context(|| mount.describe())?;
    for (option, label) in mount.options.contexts() {
        let set = tmpfs.set(option, label.as_deref());
        set.or_else(|error| mount.refused(tmpfs.message(), error, Some(option)))?;
    }
    let tree = tmpfs
        .mount(mount.options.attributes.set & !options::RDONLY)
        .with_context(|| mount.describe())?;
    let (mut parts, mut links) = (Vec::new(), Vec::new());
    for place in location.places() {
        let name = name(place).into_owned();
        // A merged hierarchy (`cpu,cpuacct`) is found under each of its controllers too.
        if name.contains(',') {
            links.extend(
                name.split(',')
                    .map(|controller| (controller.to_owned(), name.clone())),
            );
        }
        let (part, attributes) = hierarchy(mount, around, place, &place.dir())?;
        parts.push((name, part, attributes));
    }
    Ok(Detached {
        tree,
        attributes: MountAttr::default(),
        parts,
        links,
        readonly: false,
        from_host: false,
        mapping: None,
    })
}

/// One hierarchy: a new mount where the container has its own cgroup namespace, which makes its cgroup the root of it; else a bind of
/// `shown`. (A new cgroup2 mount in the host's namespace would change the host's mount options, and wait for RCU doing so.)
fn hierarchy(
    mount: &Mount,
    around: &Surroundings<'_>,
    place: &Place,
    shown: &Path,
) -> Result<(OwnedFd, MountAttr)> {
    let mut attributes = mount.options.attributes;
    let own_namespace = around.namespaces.is_private(libc::CLONE_NEWCGROUP);
    if own_namespace {
        match new_mount(place, attributes.set) {
            // A user namespace that does not own the cgroup namespace, or another root of the same hierarchy.
            Err(Errno::EPERM | Errno::EBUSY | Errno::ENODEV) => {}
            made => {
                let made = made.with_context(|| mount.describe())?;
                return Ok((made, MountAttr::default()));
            }
        }
    }
    if own_namespace || around.namespaces.is_private(libc::CLONE_NEWUSER) {
        // What the host shows must not become writable by accident (CVE-2023-25809).
        attributes.set |= options::RDONLY;
        attributes.clear &= !options::RDONLY;
    }
    let path = CString::new(shown.as_os_str().as_encoded_bytes()).unwrap_or_default();
    match clone_tree_with(AT_FDCWD, &path, true, &attributes) {
        Err(Errno::ENOSYS) => clone_tree(AT_FDCWD, &path, true).map(|tree| (tree, attributes)),
        tree => tree.map(|tree| (tree, MountAttr::default())),
    }
    .with_context(|| mount.describe())
}

fn new_mount(place: &Place, attributes: u64) -> nix::Result<OwnedFd> {
    if place.version == Version::V2 {
        let context = FsContext::open(c"cgroup2")?;
        let made = context.mount(attributes)?;
        context.leave();
        return Ok(made);
    }
    let context = FsContext::open(c"cgroup")?;
    for controller in &place.controllers {
        let option = CString::new(controller.as_str()).unwrap_or_default();
        match controller.strip_prefix("name=") {
            Some(name) => {
                // A named hierarchy has no controller.
                context.set(c"none", None)?;
                context.set(c"name", Some(&CString::new(name).unwrap_or_default()))?;
            }
            None => context.set(&option, None)?,
        }
    }
    context.mount(attributes)
}

/// The binds that a view at `view` consists of, and what each shows; none where its file systems are the container's own.
pub(super) fn binds(
    view: PathBuf,
    location: &Location,
    namespaces: &Namespaces,
) -> Vec<(PathBuf, PathBuf)> {
    let places = location.places();
    if namespaces.is_private(libc::CLONE_NEWCGROUP) {
        return Vec::new();
    }
    if location.layout() == Layout::V2 {
        return vec![(view, places[0].mount.clone())];
    }
    let part = |place: &Place| (view.join(&*name(place)), place.dir());
    places.iter().map(part).collect()
}

/// The name of a hierarchy's mount in the view.
pub(super) fn name(place: &Place) -> Cow<'_, str> {
    place
        .mount
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
}

/// Puts the hierarchies into the tmpfs that has just been attached.
pub(super) fn attach_parts(mount: &Mount, prepared: &Detached) -> Result<()> {
    for (name, part, attributes) in &prepared.parts {
        let place = mkdirat(
            &prepared.tree,
            name.as_str(),
            Mode::from_bits_truncate(0o755),
        )
        .and_then(|()| {
            openat(
                &prepared.tree,
                name.as_str(),
                OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            )
        });
        place
            .and_then(|place| attach(part.as_fd(), place.as_fd()))
            .with_context(|| format!("{}/{name}", mount.describe()))?;
        mount.set_attributes(part, attributes, &MountAttr::default())?;
    }
    for (link, target) in &prepared.links {
        symlinkat(target.as_str(), &prepared.tree, link.as_str())
            .with_context(|| format!("{}/{link}", mount.describe()))?;
    }
    Ok(())
}
