//! What `/sys/fs/cgroup` offers on this machine.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, dir};

const ROOT: &str = "/sys/fs/cgroup";

/// The version of one hierarchy.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// Legacy: one hierarchy for each controller or group of controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// How the hierarchies are laid out as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Legacy hierarchies only.
    V1,
    /// Legacy hierarchies, and the unified one beside them.
    Hybrid,
    /// The unified hierarchy alone, at `/sys/fs/cgroup`.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) version: Version,
    /// The controllers by the kernel's names; a named v1 hierarchy has the single entry `name=…`.
    pub(crate) controllers: Vec<String>,
    pub(crate) mount: PathBuf,
}

/// The hierarchies of this machine.
///
/// Probing looks at the mount points below `/sys/fs/cgroup` alone and never reads the mount table, which may hold
/// thousands of lines.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) hierarchies: Vec<Hierarchy>,
}

impl Host {
    /// Looks at `/sys/fs/cgroup`: where it holds the controllers of the unified hierarchy that is mounted there, else each directory may be the
    /// mount point of one.
    ///
    /// # Errors
    /// [`Error::NotMounted`] when no hierarchy is mounted there at all.
    pub fn probe() -> Result<Host> {
        Host::probe_at(Path::new(ROOT))
    }

    fn probe_at(root: &Path) -> Result<Host> {
        let hierarchies = match unified(root.to_owned()) {
            Ok(unified) => vec![unified],
            Err(error) => match magic(root)? {
                Some(CGROUP2_SUPER_MAGIC) => return Err(error),
                Some(_) => mounted_below(root)?,
                None => Vec::new(),
            },
        };
        if hierarchies.is_empty() {
            return Err(Error::NotMounted(root.to_owned()));
        }
        Ok(Host { hierarchies })
    }

    /// How the hierarchies are laid out.
    pub fn layout(&self) -> Layout {
        layout(self.hierarchies.iter().map(|hierarchy| hierarchy.version))
    }

    /// All controllers by the kernel's names, whichever hierarchy has them; named v1 hierarchies appear as `name=…`.
    pub fn controllers(&self) -> impl Iterator<Item = &str> {
        self.hierarchies
            .iter()
            .flat_map(|hierarchy| hierarchy.controllers.iter().map(String::as_str))
    }
}

/// The layout that hierarchies of these versions make.
pub(crate) fn layout(mut versions: impl Iterator<Item = Version>) -> Layout {
    let first = versions.next();
    match (first, versions.any(|version| Some(version) != first)) {
        (_, true) => Layout::Hybrid,
        (Some(Version::V2), false) => Layout::V2,
        _ => Layout::V1,
    }
}

/// The type of the file system at a path; `None` when there is nothing.
fn magic(path: &Path) -> Result<Option<FsType>> {
    match statfs(path) {
        Ok(fs) => Ok(Some(fs.filesystem_type())),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Error::io("look at", path, errno)),
    }
}

fn unified(mount: PathBuf) -> Result<Hierarchy> {
    let file = mount.join("cgroup.controllers");
    let text = dir::read_line(AT_FDCWD, &file).map_err(|errno| Error::io("read", file, errno))?;
    Ok(Hierarchy {
        version: Version::V2,
        controllers: text.split_whitespace().map(str::to_owned).collect(),
        mount,
    })
}

/// The hierarchies mounted on directories in `root`. Symbolic links (`cpu` → `cpu,cpuacct`) are left out, and so are
/// directories on which nothing is mounted.
fn mounted_below(root: &Path) -> Result<Vec<Hierarchy>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let failed = |errno| Error::io("list", root, errno);
    let mut listing = Dir::open(root, flags, Mode::empty()).map_err(failed)?;
    let mut found = Vec::new();
    for entry in listing.iter() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() != Some(Type::Directory) || name.starts_with(b".") {
            continue;
        }
        let mount = root.join(OsStr::from_bytes(name));
        match magic(&mount)? {
            Some(CGROUP_SUPER_MAGIC) => {
                let controllers = controllers_in_name(&String::from_utf8_lossy(name));
                found.push(Hierarchy {
                    version: Version::V1,
                    controllers,
                    mount,
                });
            }
            Some(CGROUP2_SUPER_MAGIC) => found.push(unified(mount)?),
            _ => {}
        }
    }
    Ok(found)
}

/// By convention the mount point of a v1 hierarchy is named after its controllers.
fn controllers_in_name(name: &str) -> Vec<String> {
    match name {
        // Hierarchies that no controller is bound to; the kernel calls them by their name.
        "systemd" | "elogind" | "openrc" => vec![format!("name={name}")],
        _ => name.split(',').map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_controllers() {
        assert_eq!(controllers_in_name("cpu,cpuacct"), ["cpu", "cpuacct"]);
        assert_eq!(controllers_in_name("systemd"), ["name=systemd"]);
    }

    #[test]
    fn layouts() {
        use Version::*;
        assert_eq!(layout([V1, V1].into_iter()), Layout::V1);
        assert_eq!(layout([V1, V2, V1].into_iter()), Layout::Hybrid);
        assert_eq!(layout([V2, V1].into_iter()), Layout::Hybrid);
        assert_eq!(layout([V2].into_iter()), Layout::V2);
    }

    #[test]
    fn a_directory_without_hierarchies_is_an_error() {
        let error = Host::probe_at(Path::new("/proc/self"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("no cgroup hierarchy is mounted at or below /proc/self "),
            "{error}"
        );
        let nowhere = Host::probe_at(Path::new("/proc/self/none"));
        assert!(matches!(nowhere, Err(Error::NotMounted(_))));
    }
}
