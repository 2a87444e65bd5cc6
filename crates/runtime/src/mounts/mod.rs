//! Mounts (runtime-spec config.md "Mounts"), in three steps:
//!
//! 1. [`Mount::new`]: from the configuration to what the kernel wants. Pure.
//! 2. [`Mount::prepare`], while the host's paths are still there: a detached mount, as a descriptor.
//! 3. [`Prepared::attach`]: the destination is resolved inside the container's root, also as a descriptor, and the two are joined by
//!    move_mount(2). No path is walked twice, so there is nothing to race with (CVE-2021-30465).

mod by_mount;
mod cgroup;
mod copy_up;
mod idmapped;
pub(crate) mod options;
pub(crate) mod staged;

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::MsFlags;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::lsm::MountLabel;
use crate::namespaces::Namespaces;
use crate::rootfs::{Place, Propagation, Root};
use crate::sys::mount::{FsContext, MountAttr, attach, clone_tree, set_attributes};
use crate::sys::process::leave;
use crate::userns::in_initial_namespace;
use crate::{Context, Error, Result};
pub(crate) use idmapped::UserNamespaces;
pub use idmapped::mount_shifted;
use idmapped::{IdMap, Mapping};
use options::Options;

/// One mount of a container.
#[derive(Clone, Debug)]
pub(crate) struct Mount {
    /// Its place in `mounts`, for error messages.
    index: usize,
    /// Absolute, without `.` and `..`.
    destination: PathBuf,
    kind: Kind,
    /// A host path for binds, a name or device for file systems.
    source: CString,
    options: Options,
    idmap: Option<IdMap>,
    /// Of its root directory, where the file system takes no option for it.
    label: Option<MountLabel>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Bind { recursive: bool },
    Remount,
    Cgroup,
    FileSystem(CString),
}

/// What preparing a mount needs to know of the container.
pub(crate) struct Surroundings<'a> {
    /// A directory that a mount may be made on for a moment, in the container's own mount namespace.
    pub scratch: &'a Path,
    /// Where the container's cgroup is.
    pub cgroup: Option<&'a cgroups::Location>,
    /// The container's namespaces.
    pub namespaces: &'a Namespaces,
    /// When the places of mounts are known, nothing of the host is there any more, and its root's rights are.
    pub alone: bool,
}

/// What [`Mount::prepare`] has found to be done before the rest is.
pub(crate) enum Prepared {
    /// Nothing: the mount changes another.
    Remount,
    /// Nothing: it is made where it is to be.
    InPlace,
    /// It waits to be attached.
    Detached(Detached),
}

/// A detached mount that waits to be attached.
pub(crate) struct Detached {
    tree: OwnedFd,
    /// What it does not have from birth: set once it is attached, since mount(2) cannot do it before.
    attributes: MountAttr,
    /// Mounts, with what they do not have from birth, and symbolic links inside it (a cgroup v1 view).
    parts: Vec<(String, OwnedFd, MountAttr)>,
    links: Vec<(String, String)>,
    /// Made read-only only when everything is inside.
    readonly: bool,
    /// It was opened in the host's mount namespace, so it may be a peer of the host's mount.
    from_host: bool,
    /// Its ids are mapped only when everything is inside: whoever writes it may have no id in there.
    mapping: Option<Mapping>,
}

/// What the runtime has opened for a mount.
pub(crate) enum Source {
    /// What is bound.
    Tree(OwnedFd),
    /// What the ids of a file system are mapped by.
    Mapping(Mapping),
}

impl Mount {
    /// Checks one entry of `mounts`, of a container with a user namespace of its own or without.
    pub(crate) fn new(
        index: usize,
        configured: &oci_spec::runtime::Mount,
        bundle: &Path,
        user_namespace: bool,
    ) -> Result<Self> {
        let invalid =
            |field: &str, text: String| Error::invalid(format!("mounts[{index}].{field}: {text}"));
        let listed = configured.options().as_deref().unwrap_or_default();
        let options = Options::parse(listed.iter().map(String::as_str))
            .map_err(|option| invalid("options", format!("{option} contains a null byte")))?;
        let destination = clean(configured.destination());
        if configured.destination().as_os_str().is_empty() {
            return Err(invalid("destination", "must not be empty".into()));
        }
        let fs_type = configured.typ().as_deref().unwrap_or_default();
        let kind = match (fs_type, options.bind) {
            _ if options.remount => Kind::Remount,
            (_, Some(recursive)) => Kind::Bind { recursive },
            ("bind", None) => Kind::Bind { recursive: false },
            ("rbind", None) => Kind::Bind { recursive: true },
            ("cgroup" | "cgroup2", _) => Kind::Cgroup,
            ("" | "none", _) => {
                return Err(invalid(
                    "type",
                    "must not be empty unless the mount is a bind".into(),
                ));
            }
            (fs_type, _) => Kind::FileSystem(
                CString::new(fs_type)
                    .map_err(|_| invalid("type", "contains a null byte".into()))?,
            ),
        };
        if let (Kind::Bind { .. }, Some((key, _))) = (
            &kind,
            options.data.iter().find(|(key, _)| !is_superblock(key)),
        ) {
            return Err(invalid(
                "options",
                format!("unknown option {:?} of a bind mount", key.to_string_lossy()),
            ));
        }
        if destination == Path::new("/") && kind != Kind::Remount {
            return Err(invalid(
                "destination",
                "cannot mount over the root of the container".into(),
            ));
        }
        if options.copy_up && kind != Kind::FileSystem(c"tmpfs".into()) {
            return Err(invalid("options", "tmpcopyup is for tmpfs only".into()));
        }
        let idmap = IdMap::new(index, configured, options.idmap, &kind, user_namespace)?;
        let source = configured.source().as_deref();
        let source = match (&kind, source) {
            (Kind::Bind { .. }, None) => {
                return Err(invalid("source", "a bind mount needs one".into()));
            }
            (Kind::Bind { .. }, Some(path)) => bundle.join(path),
            (_, source) => source.unwrap_or(Path::new("none")).to_path_buf(),
        };
        let source = CString::new(source.into_os_string().into_encoded_bytes())
            .map_err(|_| invalid("source", "contains a null byte".into()))?;
        Ok(Mount {
            index,
            destination,
            kind,
            source,
            options,
            idmap,
            label: None,
        })
    }

    /// Labels what is the container's own: not what it shares with the host, nor what gets its labels from the policy (proc, sysfs and
    /// cgroups), nor what has a label by its own options.
    pub(crate) fn set_label(&mut self, label: &MountLabel) {
        let own = match &self.kind {
            Kind::FileSystem(fs_type) => fs_type.to_bytes(),
            // Of v1: the tmpfs that holds the hierarchies.
            Kind::Cgroup => b"tmpfs",
            Kind::Bind { .. } | Kind::Remount => return,
        };
        match own {
            b"proc" | b"sysfs" => {}
            // One per ipc namespace, made with it.
            b"mqueue" => self.label = Some(label.clone()),
            _ if self.options.contexts().next().is_some() => {}
            _ => {
                let option = (label.option.to_owned(), Some(label.label.clone()));
                self.options.data.push(option);
            }
        }
    }

    /// Whether something else than the image is mounted at `path`.
    pub(crate) fn is_at(&self, path: &str) -> bool {
        self.destination == Path::new(path)
    }

    /// Whether a file system is made for it.
    pub(crate) fn is_file_system(&self) -> bool {
        matches!(self.kind, Kind::FileSystem(_))
    }

    /// Whether it shows the network namespace of whoever makes it.
    pub(crate) fn shows_network(&self) -> bool {
        self.kind == Kind::FileSystem(c"sysfs".into())
    }

    /// Whether the container may change its cgroups here.
    pub(crate) fn is_writable_cgroup(&self) -> bool {
        self.kind == Kind::Cgroup
            && self.is_at("/sys/fs/cgroup")
            && self.options.attributes.set & options::RDONLY == 0
    }

    /// Whether the mount shows a part of the host.
    pub(crate) fn is_bind(&self) -> bool {
        matches!(self.kind, Kind::Bind { .. })
    }

    /// Whether the ids of its files are mapped.
    pub(crate) fn is_idmapped(&self) -> bool {
        self.idmap.is_some()
    }

    /// Opens the source of a bind in the runtime's own namespaces, and maps its ids if that is asked for; or what another mount's ids are
    /// mapped by.
    pub(crate) fn open_source(
        &self,
        user_namespaces: &mut UserNamespaces<'_>,
    ) -> Result<Option<Source>> {
        self.check_idmap()?;
        let Kind::Bind { recursive } = self.kind else {
            let mapping = self
                .idmap
                .as_ref()
                .map(|idmap| idmap.mapping(self, user_namespaces));
            return Ok(mapping.transpose()?.map(Source::Mapping));
        };
        let tree = self.clone_source(recursive)?;
        if let Some(idmap) = &self.idmap {
            idmap.apply(self, &tree, user_namespaces)?;
        }
        Ok(Some(Source::Tree(tree)))
    }

    fn clone_source(&self, recursive: bool) -> Result<OwnedFd> {
        let binding = || {
            format!(
                "mounts[{}].source: bind {}",
                self.index,
                self.source.to_string_lossy()
            )
        };
        match clone_tree(AT_FDCWD, &self.source, recursive) {
            Err(Errno::EINVAL) if !recursive && !in_initial_namespace() => {
                Err(Error::failed(format!(
                    "{}: invalid argument: a user namespace may not uncover what is below the mounts in there: use rbind",
                    binding()
                )))
            }
            tree => tree.with_context(binding),
        }
    }

    /// Makes the mount, detached, unless there is a shorter way.
    pub(crate) fn prepare(
        &self,
        source: Option<Source>,
        around: &Surroundings<'_>,
    ) -> Result<Prepared> {
        if around.alone && self.is_made_in_place() {
            return Ok(Prepared::InPlace);
        }
        let (source, mapping) = match source {
            Some(Source::Tree(tree)) => (Some(tree), None),
            Some(Source::Mapping(mapping)) => (None, Some(mapping)),
            None => (None, None),
        };
        let made = |tree, attributes| Detached {
            tree,
            attributes,
            parts: Vec::new(),
            links: Vec::new(),
            readonly: false,
            from_host: false,
            mapping: None,
        };
        let mut prepared = match &self.kind {
            Kind::Remount => return Ok(Prepared::Remount),
            Kind::Cgroup => cgroup::prepare(self, around)?,
            Kind::Bind { recursive } => match source {
                // The runtime's own.
                Some(tree) => Detached {
                    from_host: self.options.propagation.is_empty(),
                    ..made(tree, self.options.attributes)
                },
                None => made(self.clone_source(*recursive)?, self.options.attributes),
            },
            Kind::FileSystem(fs_type) => {
                // A tmpfs is empty: what is written into it, and the places of other mounts, come before read-only.
                let late = fs_type.as_c_str() == c"tmpfs" && self.is_readonly();
                let mut attributes = self.options.attributes;
                if late {
                    attributes.set &= !options::RDONLY;
                }
                // fsmount(2) knows it since Linux 5.14, mount(2) since 5.10.
                let from_birth = attributes.set & !options::NOSYMFOLLOW;
                let rest = MountAttr {
                    set: attributes.set & options::NOSYMFOLLOW,
                    ..MountAttr::default()
                };
                let prepared = match self.make(fs_type, from_birth, around.scratch) {
                    Err(error) => match self.hosts(fs_type, around) {
                        Some(tree) => made(tree, attributes),
                        None => return Err(error),
                    },
                    Ok(tree) => {
                        if let Some(label) = &self.label {
                            label.apply_to(&tree).with_context(|| {
                                format!("linux.mountLabel: label {}", self.destination.display())
                            })?;
                        }
                        made(tree, rest)
                    }
                };
                Detached {
                    readonly: late,
                    ..prepared
                }
            }
        };
        prepared.mapping = mapping;
        prepared.readonly |=
            self.kind == Kind::Cgroup && !prepared.parts.is_empty() && self.is_readonly();
        Ok(Prepared::Detached(prepared))
    }

    /// The host's mount that stands in for a file system where the container's user namespace does not own the namespace that it shows, so
    /// that the kernel makes no new one. The host's queues and processes are shown only to who shares them.
    fn hosts(&self, fs_type: &CStr, around: &Surroundings<'_>) -> Option<OwnedFd> {
        let shared = |namespace| !around.namespaces.is_private(namespace);
        let path = match fs_type.to_bytes() {
            _ if in_initial_namespace() => return None,
            b"sysfs" => c"/sys",
            b"mqueue" if shared(libc::CLONE_NEWIPC) => c"/dev/mqueue",
            b"proc" if shared(libc::CLONE_NEWPID) => c"/proc",
            _ => return None,
        };
        clone_tree(AT_FDCWD, path, true).ok()
    }

    /// What the kernel's refusal of a file system in a user namespace stands for.
    fn hint(&self, errno: Errno, option: Option<&CStr>) -> &'static str {
        if in_initial_namespace() {
            return "";
        }
        match (self.what().as_bytes(), errno, option.map(CStr::to_bytes)) {
            (_, Errno::EINVAL, Some(b"gid" | b"uid")) => {
                ": the id is not mapped in the container's user namespace: map it, or leave the option out"
            }
            // A file system with the older interface says no more.
            (_, Errno::EINVAL, None)
                if self
                    .options
                    .data
                    .iter()
                    .any(|(key, _)| matches!(key.to_bytes(), b"gid" | b"uid")) =>
            {
                ": perhaps the id of its uid= or gid= is not mapped in the container's user namespace: map it, or leave the option out"
            }
            (b"proc" | b"sysfs", Errno::EPERM, _) => {
                ": a user namespace gets a new one only where nothing covers parts of the one around it, as another container's masked paths do \
                 (podman: --security-opt unmask=ALL)"
            }
            (b"overlay", Errno::EPERM, None) => {
                ": a user namespace mounts overlays since Linux 5.11"
            }
            (_, Errno::EPERM, None) => ": this file system cannot be mounted in a user namespace",
            _ => "",
        }
    }

    /// A new file system as a detached mount.
    fn make(&self, fs_type: &CStr, attributes: u64, scratch: &Path) -> Result<OwnedFd> {
        if self.is_for_mount() {
            return self.make_by_mount(fs_type, attributes, scratch);
        }
        let context = FsContext::open(fs_type).with_context(|| self.describe())?;
        context
            .set(c"source", Some(&self.source))
            .or_else(|error| self.refused(context.message(), error, None))?;
        self.configure(&context)?;
        // A device that is read-only can only be mounted so; file systems without one don't care.
        if attributes & options::RDONLY != 0 && self.source.as_bytes().starts_with(b"/dev/") {
            let _ = context.set(c"ro", None);
        }
        let made = context
            .mount(attributes)
            .or_else(|error| self.refused(context.message(), error, None))?;
        context.leave();
        Ok(made)
    }

    /// Hands the options that are the file system's to it.
    fn configure(&self, context: &FsContext) -> Result<()> {
        self.options.data.iter().try_for_each(|(key, value)| {
            context
                .set(key, value.as_deref())
                .or_else(|error| self.refused(context.message(), error, Some(key)))
        })
    }

    /// The error for what the kernel has refused, an option or the whole, with what it says about it.
    fn refused<T>(
        &self,
        message: Option<String>,
        error: Errno,
        option: Option<&CStr>,
    ) -> Result<T> {
        let kernel = message.map(|text| format!(" ({text})")).unwrap_or_default();
        let text = match option {
            Some(key) => format!(
                "mounts[{}].options: {:?} for {}",
                self.index,
                key.to_string_lossy(),
                self.what()
            ),
            None => self.describe(),
        };
        let reason = error.desc().to_lowercase();
        let hint = self.hint(error, option);
        Err(Error::failed(format!("{text}{kernel}: {reason}{hint}")))
    }

    fn set_attributes(
        &self,
        tree: &OwnedFd,
        attributes: &MountAttr,
        recursive: &MountAttr,
    ) -> Result<()> {
        for (attributes, recursive) in [(recursive, true), (attributes, false)] {
            if *attributes == MountAttr::default() {
                continue;
            }
            match set_attributes(tree.as_fd(), recursive, attributes) {
                Err(Errno::ENOSYS) if recursive => {
                    return Err(Error::failed(format!(
                        "{}: {} needs mount_setattr(2), which Linux has since 5.12",
                        self.applying(),
                        self.options.recursive_option
                    )));
                }
                set => set.with_context(|| self.applying())?,
            }
        }
        Ok(())
    }

    fn propagate(&self, mount: &OwnedFd) -> Result<()> {
        let mut all = self.options.propagation.iter();
        all.try_for_each(|propagation| propagation.apply(mount.as_fd()))
            .with_context(|| self.applying())
    }

    /// A tmpfs without a mode of its own takes that of the directory which it covers.
    fn takes_mode(&self) -> bool {
        self.kind == Kind::FileSystem(c"tmpfs".into()) && !self.has_data(c"mode")
    }

    /// An option of the file system itself is given.
    fn has_data(&self, wanted: &CStr) -> bool {
        let mut data = self.options.data.iter();
        data.any(|(key, _)| key.as_c_str() == wanted)
    }

    fn is_readonly(&self) -> bool {
        self.options.attributes.set & options::RDONLY != 0
    }

    fn what(&self) -> Cow<'_, str> {
        match &self.kind {
            Kind::FileSystem(fs_type) => fs_type.to_string_lossy(),
            Kind::Cgroup => "cgroup".into(),
            Kind::Remount => "remount".into(),
            Kind::Bind { .. } => self.source.to_string_lossy(),
        }
    }

    fn describe(&self) -> String {
        format!(
            "mounts[{}]: mount {} at {}",
            self.index,
            self.what(),
            self.destination.display()
        )
    }

    fn applying(&self) -> String {
        format!(
            "mounts[{}].options: apply them at {}",
            self.index,
            self.destination.display()
        )
    }

    /// Attaches a prepared mount at its destination inside `root`; or changes the mount that is there. The mount comes back if
    /// [`Mount::make_readonly`] is to follow when everything is inside.
    pub(crate) fn attach(&self, prepared: Prepared, root: &Root) -> Result<Option<OwnedFd>> {
        match (prepared, &self.kind) {
            (Prepared::Detached(tree), _) => self.attach_tree(tree, root),
            (Prepared::InPlace, Kind::FileSystem(fs_type)) => {
                self.make_in_place(fs_type, root).map(|()| None)
            }
            _ => self.remount(root).map(|()| None),
        }
    }

    /// Changes the mount that is there.
    fn remount(&self, root: &Root) -> Result<()> {
        let there = root
            .open_path(&self.destination, OFlag::O_PATH)
            .with_context(|| self.describe())?;
        if !self.options.data.is_empty() {
            let context = FsContext::pick(there.as_fd()).with_context(|| self.describe())?;
            self.configure(&context)?;
            context
                .reconfigure()
                .or_else(|error| self.refused(context.message(), error, None))?;
        }
        self.set_attributes(&there, &self.options.attributes, &self.options.recursive)?;
        self.propagate(&there)
    }

    fn attach_tree(&self, prepared: Detached, root: &Root) -> Result<Option<OwnedFd>> {
        let covered = match self.takes_mode() {
            true => root
                .open_path(&self.destination, OFlag::O_PATH | OFlag::O_DIRECTORY)
                .ok(),
            false => None,
        };
        let place = self.place(Some(&prepared.tree), root)?;
        self.check_proc(Some(&prepared.tree), &place)?;
        if let Some(covered) = covered {
            let mode = fstat(covered).map(|stat| Mode::from_bits_truncate(stat.st_mode));
            mode.and_then(|mode| fchmodat(&prepared.tree, ".", mode, FchmodatFlags::FollowSymlink))
                .with_context(|| self.describe())?;
        }
        if self.options.copy_up {
            let with_owner = !self.has_data(c"uid") && !self.has_data(c"gid");
            copy_up::copy(&place.fd, &prepared.tree, with_owner)
                .with_context(|| format!("{}: tmpcopyup", self.describe()))?;
        }
        if let Some(mapping) = &prepared.mapping {
            mapping.apply(self, &prepared.tree)?;
        }
        attach(prepared.tree.as_fd(), place.fd.as_fd()).with_context(|| self.describe())?;
        root.mounted_upon(place, &self.destination);
        self.set_attributes(
            &prepared.tree,
            &prepared.attributes,
            &self.options.recursive,
        )?;
        // Only now: what is detached cannot keep a peer group.
        if prepared.from_host {
            // Inside the container's mount namespace it would have been a slave from the start.
            let slave = Propagation {
                kind: MsFlags::MS_SLAVE,
                recursive: true,
            };
            slave
                .apply(prepared.tree.as_fd())
                .with_context(|| self.applying())?;
        }
        self.propagate(&prepared.tree)?;
        cgroup::attach_parts(self, &prepared)?;
        if prepared.readonly {
            return Ok(Some(prepared.tree));
        }
        leave(prepared.tree);
        Ok(None)
    }

    /// Makes read-only what [`Mount::attach`] has left writable.
    pub(crate) fn make_readonly(&self, tree: &OwnedFd) -> Result<()> {
        let readonly = MountAttr {
            set: options::RDONLY,
            ..MountAttr::default()
        };
        self.set_attributes(tree, &readonly, &MountAttr::default())
    }

    /// The destination, made where missing: a file for a file, else a directory.
    fn place(&self, tree: Option<&OwnedFd>, root: &Root) -> Result<Place> {
        // An image that makes /proc or /sys a symbolic link would have masks and labels written somewhere else.
        if let Kind::FileSystem(fs_type) = &self.kind
            && (fs_type.as_c_str() == c"proc" || fs_type.as_c_str() == c"sysfs")
        {
            match root.open_ordinary(&self.destination, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Ok(fd) => return Ok(Place::found(fd, true)),
                Err(Errno::ENOENT) => {}
                Err(error) if !matches!(error, Errno::ELOOP | Errno::ENOTDIR) => {
                    return Err(error).with_context(|| self.describe());
                }
                Err(_) => {
                    return Err(Error::invalid(format!(
                        "mounts[{}].destination: {}: filesystem {:?} must be mounted on ordinary directory",
                        self.index,
                        self.destination.display(),
                        fs_type.to_string_lossy()
                    )));
                }
            }
        }
        let place = match (&self.kind, tree) {
            (Kind::Bind { .. }, Some(tree)) => ensure_like(tree, &self.destination, root),
            _ => root.ensure_place(&self.destination),
        };
        place.with_context(|| {
            format!(
                "mounts[{}].destination: create {}",
                self.index,
                self.destination.display()
            )
        })
    }

    /// Nothing but a procfs may cover /proc, and inside it only what container engines are known to fake.
    fn check_proc(&self, tree: Option<&OwnedFd>, place: &Place) -> Result<()> {
        const ALLOWED: &[&str] = &[
            "/proc/cpuinfo",
            "/proc/diskstats",
            "/proc/meminfo",
            "/proc/stat",
            "/proc/swaps",
            "/proc/uptime",
            "/proc/loadavg",
            "/proc/slabinfo",
            "/proc/net/dev",
            "/proc/sys/kernel/ns_last_pid",
            "/proc/sys/crypto/fips_enabled",
        ];
        if self.kind == Kind::FileSystem(c"proc".into()) {
            return Ok(());
        }
        let is_proc =
            |fd: &OwnedFd| fstatfs(fd).map(|stat| stat.filesystem_type() == PROC_SUPER_MAGIC);
        let inside = match place.ordinary && !self.destination.starts_with("/proc") {
            true => false,
            false => is_proc(&place.fd).with_context(|| self.describe())?,
        };
        let at_proc = self.destination == Path::new("/proc");
        if !inside && !at_proc || ALLOWED.iter().any(|allowed| self.is_at(allowed)) {
            return Ok(());
        }
        let shown = self.destination.display();
        let is_one = tree.map_or(Ok(false), is_proc);
        match is_one.with_context(|| self.describe())? {
            true => Ok(()),
            false if at_proc => Err(Error::invalid(format!(
                "mounts[{}].destination: {shown} cannot be mounted because it is not of type proc",
                self.index
            ))),
            false => Err(Error::invalid(format!(
                "mounts[{}].destination: {shown} cannot be mounted because it is inside /proc",
                self.index
            ))),
        }
    }
}

/// The directory or file at `path`, made where missing: what a mount needs to be attached to.
fn ensure_like(tree: &OwnedFd, path: &Path, root: &Root) -> nix::Result<Place> {
    let mode = fstat(tree)?.st_mode;
    match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        true => root.ensure_place(path),
        false => root.ensure_file(path).map(|fd| Place::found(fd, false)),
    }
}

/// Options of the superblock mean nothing to a bind, but do no harm.
fn is_superblock(key: &CStr) -> bool {
    options::names().any(|name| name.as_bytes() == key.to_bytes())
}

/// Whether this process may make mounts where it is: root in a user namespace may own its mount namespace, or not.
pub(crate) fn may_mount_here() -> bool {
    in_initial_namespace() || clone_tree(AT_FDCWD, c"/", false).is_ok()
}

/// An absolute path without `.` and `..`, from whatever the configuration says (relative ones start at the root).
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mount(json: serde_json::Value) -> Result<Mount> {
        Mount::new(
            3,
            &serde_json::from_value(json).unwrap(),
            Path::new("/bundle"),
            false,
        )
    }

    #[test]
    fn kinds() {
        let kind = |json| mount(json).unwrap().kind;
        assert_eq!(
            kind(json!({ "destination": "/d", "type": "tmpfs" })),
            Kind::FileSystem(c"tmpfs".into())
        );
        assert_eq!(
            kind(json!({ "destination": "/d", "source": "s", "options": ["rbind"] })),
            Kind::Bind { recursive: true }
        );
        assert_eq!(
            kind(json!({ "destination": "/d", "type": "bind", "source": "s" })),
            Kind::Bind { recursive: false }
        );
        assert_eq!(
            kind(json!({ "destination": "/d", "type": "cgroup" })),
            Kind::Cgroup
        );
    }

    #[test]
    fn relative_sources_start_at_the_bundle() {
        let mount =
            mount(json!({ "destination": "/d", "type": "bind", "source": "data" })).unwrap();
        assert_eq!(mount.source.as_c_str(), c"/bundle/data");
    }

    #[test]
    fn refused_with_the_field() {
        let error = |json| mount(json).unwrap_err().to_string();
        assert!(
            error(json!({ "destination": "/d", "type": "bind" })).starts_with("mounts[3].source: ")
        );
        assert!(error(json!({ "destination": "/d" })).starts_with("mounts[3].type: "));
        assert!(
            error(json!({ "destination": "", "type": "tmpfs" }))
                .starts_with("mounts[3].destination: ")
        );
        let unknown =
            json!({ "destination": "/d", "type": "bind", "source": "/s", "options": ["bogus"] });
        assert!(error(unknown).starts_with("mounts[3].options: "));
    }

    #[test]
    fn cleaned_destinations() {
        assert_eq!(clean(Path::new("/a/../../b/./c")), Path::new("/b/c"));
        assert_eq!(clean(Path::new("a")), Path::new("/a"));
    }
}
