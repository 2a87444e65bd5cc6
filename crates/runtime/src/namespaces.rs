//! Namespaces (runtime-spec config-linux.md "Namespaces"): which are new, which are joined by path.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType};

use crate::{Context, Error, Result, sys};

/// `CLONE_NEWTIME`, which libc does not have.
pub(crate) const CLONE_NEWTIME: i32 = 0x80;

/// Every kind: the specification's name and its clone flag, in the order in which they are joined. The user namespace comes first,
/// since it gives the rights over those that it owns; the mount namespace last, since it changes what paths mean.
pub(crate) const KINDS: [(&str, LinuxNamespaceType, i32); 8] = [
    ("user", LinuxNamespaceType::User, libc::CLONE_NEWUSER),
    ("ipc", LinuxNamespaceType::Ipc, libc::CLONE_NEWIPC),
    ("uts", LinuxNamespaceType::Uts, libc::CLONE_NEWUTS),
    ("network", LinuxNamespaceType::Network, libc::CLONE_NEWNET),
    ("pid", LinuxNamespaceType::Pid, libc::CLONE_NEWPID),
    ("cgroup", LinuxNamespaceType::Cgroup, libc::CLONE_NEWCGROUP),
    ("time", LinuxNamespaceType::Time, CLONE_NEWTIME),
    ("mount", LinuxNamespaceType::Mount, libc::CLONE_NEWNS),
];

/// The namespaces of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces {
    /// Clone flags of those to be made.
    pub new: i32,
    /// Clone flag and path of those to be joined, in the order of [`KINDS`].
    pub joined: Vec<(i32, PathBuf)>,
}

impl Namespaces {
    /// Those of a configuration.
    pub(crate) fn of(linux: &Linux) -> Result<Self> {
        Self::new(linux.namespaces().as_deref().unwrap_or_default())
    }

    /// Sorts the configured list out.
    pub(crate) fn new(configured: &[LinuxNamespace]) -> Result<Self> {
        let mut namespaces = Namespaces::default();
        for (name, kind, flag) in KINDS {
            let mut same = configured
                .iter()
                .filter(|namespace| namespace.typ() == kind);
            let Some(namespace) = same.next() else {
                continue;
            };
            if same.next().is_some() {
                return Err(Error::invalid(format!(
                    "linux.namespaces: duplicated namespace {name}"
                )));
            }
            match namespace.path() {
                None => namespaces.new |= flag,
                Some(path) if path.as_os_str().is_empty() => namespaces.new |= flag,
                Some(path) if path.is_absolute() => namespaces.joined.push((flag, path.clone())),
                Some(path) => {
                    let text = format!(
                        "linux.namespaces: path of the {name} namespace is not absolute: {}",
                        path.display()
                    );
                    return Err(Error::invalid(text));
                }
            }
        }
        Ok(namespaces)
    }

    /// Whether the namespace is new.
    pub(crate) fn is_new(&self, flag: i32) -> bool {
        self.new & flag != 0
    }

    /// Whether the container has a namespace of this kind that is not (necessarily) the runtime's.
    pub(crate) fn is_private(&self, flag: i32) -> bool {
        self.is_new(flag) || self.joined.iter().any(|(joined, _)| *joined == flag)
    }

    /// The clone flags of all of them.
    pub(crate) fn all(&self) -> i32 {
        self.joined
            .iter()
            .fold(self.new, |flags, (flag, _)| flags | flag)
    }

    /// Opens those to be joined, while their paths still mean what the configuration says.
    pub(crate) fn open(&self) -> Result<Vec<Joined>> {
        let open = |(flag, path): &(i32, PathBuf)| {
            let file = File::open(path).with_context(|| {
                format!(
                    "linux.namespaces: open {} namespace {}",
                    name(*flag),
                    path.display()
                )
            })?;
            Ok(Joined {
                flag: *flag,
                fd: file.into(),
            })
        };
        self.joined.iter().map(open).collect()
    }
}

/// An open namespace that is going to be joined.
pub(crate) struct Joined {
    /// Its clone flag; the kernel checks that the file is of this kind.
    pub flag: i32,
    fd: OwnedFd,
}

impl Joined {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn enter(&self) -> nix::Result<()> {
        sys::process::setns(self.fd.as_fd(), self.flag)
    }
}

/// Joins namespaces. Some are owned by the user namespace that is left (so they must be joined before), others by the one
/// that is entered (after): each is tried on both sides.
pub(crate) fn join(joined: &[Joined]) -> Result<()> {
    let joining = |namespace: &Joined| {
        format!(
            "linux.namespaces: join the {} namespace",
            name(namespace.flag)
        )
    };
    let (user, others): (Vec<_>, Vec<_>) = joined
        .iter()
        .partition(|namespace| namespace.flag == libc::CLONE_NEWUSER);
    let mut later = Vec::new();
    for namespace in others {
        match namespace.enter() {
            Ok(()) => {}
            Err(Errno::EPERM) if !user.is_empty() => later.push(namespace),
            Err(error) => return Err(error).with_context(|| joining(namespace)),
        }
    }
    for namespace in user.into_iter().chain(later) {
        namespace.enter().with_context(|| joining(namespace))?;
    }
    Ok(())
}

/// The kernel's name in /proc/PID/ns of a kind of namespace.
pub(crate) fn file(name: &str) -> &str {
    match name {
        "mount" => "mnt",
        "network" => "net",
        name => name,
    }
}

/// The specification's name of a clone flag.
pub(crate) fn name(flag: i32) -> &'static str {
    KINDS
        .iter()
        .find(|(_, _, known)| *known == flag)
        .map_or("unknown", |(name, ..)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn namespaces(json: serde_json::Value) -> Result<Namespaces> {
        Namespaces::new(&serde_json::from_value::<Vec<LinuxNamespace>>(json).unwrap())
    }

    #[test]
    fn new_and_joined() {
        let set = namespaces(
            json!([{ "type": "pid" }, { "type": "network", "path": "/n" }, { "type": "mount" }]),
        )
        .unwrap();
        assert_eq!(set.new, libc::CLONE_NEWPID | libc::CLONE_NEWNS);
        assert_eq!(set.joined, [(libc::CLONE_NEWNET, PathBuf::from("/n"))]);
        assert!(set.is_private(libc::CLONE_NEWNET) && !set.is_new(libc::CLONE_NEWNET));
    }

    #[test]
    fn refused() {
        assert!(namespaces(json!([{ "type": "pid" }, { "type": "pid" }])).is_err());
        assert!(namespaces(json!([{ "type": "pid", "path": "proc/1/ns/pid" }])).is_err());
    }
}
