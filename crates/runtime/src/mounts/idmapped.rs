//! Idmapped mounts (runtime-spec config.md "Mounts", `idmap`, `ridmap`, `uidMappings`, `gidMappings`): a mount that shows the ids of
//! its files by a mapping of its own. The kernel takes the mapping from a user namespace, so one is made for it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{fstat, major, minor};
use nix::unistd::geteuid;
use oci_spec::runtime::LinuxIdMappingBuilder;

use super::{Kind, Mount};
use crate::idmap::Mappings;
use crate::namespaces::Joined;
use crate::plan::Plan;
use crate::procfs::Procfs;
use crate::sys::mount::{MountAttr, attach, clone_tree, set_attributes};
use crate::{Context, Error, Result};

/// `MOUNT_ATTR_IDMAP` of mount_setattr(2).
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// How a mount maps ids.
#[derive(Clone, Debug)]
pub(super) struct IdMap {
    /// The mounts below it too (`ridmap`).
    recursive: bool,
    /// `None` for those of the container's user namespace.
    mappings: Option<Mappings>,
}

impl IdMap {
    /// Checks what the configuration says of it; `option` is `Some(recursive)` for `idmap` and `ridmap`.
    pub(super) fn new(
        index: usize,
        configured: &oci_spec::runtime::Mount,
        option: Option<bool>,
        kind: &Kind,
        user_namespace: bool,
    ) -> Result<Option<Self>> {
        let invalid = |field: &str, text: &str| {
            Err(Error::invalid(format!("mounts[{index}].{field}: {text}")))
        };
        let (uids, gids) = (
            configured.uid_mappings().as_deref().unwrap_or_default(),
            configured.gid_mappings().as_deref().unwrap_or_default(),
        );
        if option.is_none() && uids.is_empty() && gids.is_empty() {
            return Ok(None);
        }
        if !matches!(kind, Kind::Bind { .. } | Kind::FileSystem(_)) {
            let field = if option.is_some() {
                "options"
            } else {
                "uidMappings"
            };
            return invalid(
                field,
                "id-mapped mounts are only supported for bind-mounts and file systems",
            );
        }
        let mappings = match (uids, gids) {
            ([], []) if user_namespace => None,
            ([], []) => {
                return invalid(
                    "options",
                    "an id-mapped mount of a container without a user namespace must have uidMappings and gidMappings",
                );
            }
            ([], _) | (_, []) => {
                return invalid(
                    if uids.is_empty() {
                        "uidMappings"
                    } else {
                        "gidMappings"
                    },
                    "id-mapped mounts must have both uid and gid mappings specified",
                );
            }
            (uids, gids) => Some(Mappings::of_mount(index, uids, gids)?),
        };
        Ok(Some(IdMap {
            recursive: option.unwrap_or(false),
            mappings,
        }))
    }

    /// Maps the ids of a mount that is still detached.
    pub(super) fn apply(
        &self,
        mount: &Mount,
        tree: &OwnedFd,
        namespaces: &mut UserNamespaces<'_>,
    ) -> Result<()> {
        let namespace = namespaces.with(self.mappings.as_ref());
        namespace
            .and_then(|namespace| take_mapping(tree, namespace, self.recursive))
            .with_context(|| mount.mapping())
    }
}

/// Gives a detached mount the mapping of a user namespace.
fn take_mapping(tree: &OwnedFd, namespace: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let attributes = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        userns_fd: namespace.as_raw_fd() as u64,
        ..MountAttr::default()
    };
    let why = match set_attributes(tree.as_fd(), recursive, &attributes) {
        Err(Errno::ENOSYS) => "id-mapped mounts need Linux 5.12".to_owned(),
        Err(Errno::EINVAL) => format!(
            "the file system ({}){} cannot have id-mapped mounts on this kernel",
            file_system(tree).unwrap_or_else(|| "of unknown type".to_owned()),
            if recursive {
                ", or one mounted below it,"
            } else {
                ""
            }
        ),
        Err(Errno::EPERM) => "the ids of the mount are mapped already, or its file system belongs to another user namespace".to_owned(),
        set => return set.context("mount_setattr"),
    };
    Err(Error::failed(why))
}

/// Mounts the directory `source` at `target` once more, without what is mounted below it, and so that every id of its files up to `count`
/// is seen as one that is `first` higher (Linux 5.12, and what file systems there are later).
pub fn mount_shifted(source: &Path, target: &Path, first: u32, count: u32) -> Result<()> {
    let mounting = || format!("mount {} with the ids from {first} on", source.display());
    let shift = LinuxIdMappingBuilder::default()
        .container_id(0_u32)
        .host_id(first)
        .size(count)
        .build()
        .map_err(|error| Error::failed(error.to_string()))?;
    let mappings = Mappings {
        uids: vec![shift],
        gids: vec![shift],
    };
    let open = |path| {
        open(
            path,
            OFlag::O_PATH | OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
    };
    let (from, to) = (
        open(source).with_context(mounting)?,
        open(target).with_context(mounting)?,
    );
    let tree = clone_tree(&from, c"", false).with_context(mounting)?;
    let namespace = mappings
        .namespace(&Procfs::open()?)
        .with_context(mounting)?;
    take_mapping(&tree, namespace.as_fd(), false).with_context(mounting)?;
    // A peer of the source would hand its unmounting on to what has been mounted there since.
    let private = MountAttr {
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    set_attributes(tree.as_fd(), false, &private).with_context(mounting)?;
    attach(tree.as_fd(), to.as_fd()).with_context(mounting)
}

/// The user namespace of a file system's mapping, for the child to apply: it makes the mount.
pub(crate) struct Mapping(OwnedFd);

impl Mapping {
    /// Maps the ids of a mount that is still detached.
    pub(super) fn apply(&self, mount: &Mount, tree: &OwnedFd) -> Result<()> {
        take_mapping(tree, self.0.as_fd(), false).with_context(|| mount.mapping())
    }
}

impl IdMap {
    /// The same for a mount that the child makes.
    pub(super) fn mapping(
        &self,
        mount: &Mount,
        namespaces: &mut UserNamespaces<'_>,
    ) -> Result<Mapping> {
        let namespace = namespaces.with(self.mappings.as_ref());
        let copy =
            namespace.and_then(|namespace| namespace.try_clone_to_owned().context("keep it open"));
        copy.map(Mapping).with_context(|| mount.mapping())
    }
}

impl Mount {
    /// Mapped ids take rights over the file system, which an ordinary user does not have: refused before anything is opened.
    pub(super) fn check_idmap(&self) -> Result<()> {
        match self.idmap.is_some() && !geteuid().is_root() {
            true => Err(Error::failed(format!(
                "{}: id-mapped mounts are not supported for rootless containers",
                self.mapping()
            ))),
            false => Ok(()),
        }
    }

    fn mapping(&self) -> String {
        let source = self.source.to_string_lossy();
        format!("mounts[{}]: map the ids of {source}", self.index)
    }
}

/// The type of the file system that a mount shows, by its device in the mount table; only to explain an error.
fn file_system(tree: &OwnedFd) -> Option<String> {
    let device = fstat(tree).ok()?.st_dev;
    let device = format!("{}:{}", major(device), minor(device));
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(&device))?;
    let (_, after) = line.split_once(" - ")?;
    after.split(' ').next().map(str::to_owned)
}

/// The user namespaces that mounts take their mappings from: one for each set of mappings.
pub(crate) struct UserNamespaces<'a> {
    procfs: &'a Procfs,
    container: Option<&'a Mappings>,
    joined: Option<BorrowedFd<'a>>,
    made: Vec<(Mappings, OwnedFd)>,
}

impl<'a> UserNamespaces<'a> {
    /// For the mounts of `plan`, whose namespaces to be joined are open already.
    pub(crate) fn new(plan: &'a Plan, procfs: &'a Procfs, joined: &'a [Joined]) -> Self {
        let user = joined
            .iter()
            .find(|namespace| namespace.flag == libc::CLONE_NEWUSER);
        UserNamespaces {
            procfs,
            container: plan.mappings.as_ref(),
            joined: user.map(Joined::as_fd),
            made: Vec::new(),
        }
    }

    /// The one with these mappings, or with those of the container.
    fn with(&mut self, mappings: Option<&Mappings>) -> Result<BorrowedFd<'_>> {
        let mappings = match (mappings.or(self.container), self.joined) {
            (Some(mappings), _) => mappings,
            (None, Some(joined)) => return Ok(joined),
            (None, None) => return Err(Error::failed("the container has no user namespace")),
        };
        let at = match self.made.iter().position(|(known, _)| known == mappings) {
            Some(at) => at,
            None => {
                let namespace = mappings.namespace(self.procfs)?;
                self.made.push((mappings.clone(), namespace));
                self.made.len() - 1
            }
        };
        Ok(self.made[at].1.as_fd())
    }
}
