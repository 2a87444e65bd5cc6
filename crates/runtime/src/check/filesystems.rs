//! What can be mounted, and how.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::AT_FDCWD;
use nix::mount::{MsFlags, mount};

use super::attempt::{cut_off, isolated};
use super::{Check, network, read};
use crate::sys::mount::{MountAttr, clone_tree, has_mount_setattr, set_attributes};
use crate::sys::process::{Cloned, clone, pidfd_send_signal, prctl};
use crate::sys::wait::{Whose, ended};
use crate::userns;

/// `MOUNT_ATTR_IDMAP`.
const IDMAP: u64 = 0x0010_0000;

pub(super) fn checks(has_rights: bool) -> Vec<Check> {
    let (proc, overlay) = match has_rights {
        true => (proc(), overlay()),
        false => (Check::needs_user("proc"), Check::needs_user("overlay")),
    };
    vec![proc, attributes(), idmapped(), overlay]
}

fn proc() -> Check {
    let name = "proc";
    match isolated(libc::CLONE_NEWNS | libc::CLONE_NEWPID, || {
        cut_off()?;
        mount(
            Some("proc"),
            "/proc",
            Some("proc"),
            MsFlags::empty(),
            None::<&str>,
        )
    }) {
        Ok(()) => Check::ok(name, "a new one can be mounted"),
        Err(error) => Check::missing(
            name,
            format!("mount a new one: {error}"),
            "parts of /proc are covered, as in another container: uncover them there (podman: --security-opt unmask=ALL).",
        ),
    }
}

fn attributes() -> Check {
    let name = "mount.setattr";
    match has_mount_setattr() {
        true => Check::ok(name, "mount_setattr"),
        false => Check::limited(
            name,
            "no mount_setattr",
            "recursive mount options (rro) and idmapped mounts need Linux 5.12.",
        ),
    }
}

/// Tried on a detached copy of the root's mount, with the user namespace of a process that does nothing else.
fn idmapped() -> Check {
    let name = "mount.idmap";
    let advice = "idmapped mounts need Linux 5.12 or later, a file system that can be mapped, and root's rights.";
    if !userns::privileged() {
        return Check::limited(name, "for root only", advice);
    }
    match isolated(libc::CLONE_NEWNS, map_root) {
        Ok(()) => Check::ok(name, "on the root file system"),
        Err(error) => Check::limited(name, format!("on the root file system: {error}"), advice),
    }
}

fn map_root() -> nix::Result<()> {
    let (pid, pidfd) = match clone(libc::CLONE_NEWUSER as u64, None)? {
        Cloned::Child { .. } => loop {
            // Until it is killed, or we are.
            let _ = prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64);
            nix::unistd::pause();
        },
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    let map = || {
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{pid}/{file}"), "0 100000 1000").map_err(errno)?;
        }
        let namespace = fs::File::open(format!("/proc/{pid}/ns/user")).map_err(errno)?;
        let tree = clone_tree(AT_FDCWD, c"/", false)?;
        let attributes = MountAttr {
            set: IDMAP,
            userns_fd: namespace.as_raw_fd() as u64,
            ..MountAttr::default()
        };
        set_attributes(tree.as_fd(), false, &attributes)
    };
    let mapped = map();
    let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    let _ = ended(Whose::Process(pidfd.as_fd()), 0);
    mapped
}

fn errno(error: std::io::Error) -> nix::errno::Errno {
    error
        .raw_os_error()
        .map_or(nix::errno::Errno::EIO, nix::errno::Errno::from_raw)
}

/// Mounted on a tmpfs, in a user namespace where the caller has one.
fn overlay() -> Check {
    let name = "overlay";
    let known = read("/proc/filesystems").unwrap_or_default();
    if !known
        .lines()
        .any(|line| line.split_whitespace().last() == Some("overlay"))
    {
        return network::unloaded(
            name,
            "overlay",
            "engines store images in layers with overlay or, slowly, with copies.",
        );
    }
    let place = "/proc";
    let tried = isolated(libc::CLONE_NEWNS, || {
        cut_off()?;
        mount(
            Some("tmpfs"),
            place,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )?;
        for part in ["lower", "upper", "work", "merged"] {
            fs::create_dir(format!("{place}/{part}")).map_err(errno)?;
        }
        let data = format!("lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work");
        let merged = format!("{place}/merged");
        mount(
            Some("overlay"),
            merged.as_str(),
            Some("overlay"),
            MsFlags::empty(),
            Some(data.as_str()),
        )
    });
    match (tried, userns::privileged()) {
        (Ok(()), true) => Check::ok(name, "can be mounted"),
        (Ok(()), false) => Check::ok(name, "can be mounted in a user namespace"),
        (Err(error), _) => Check::limited(
            name,
            error.to_string(),
            "engines need fuse-overlayfs or copies instead; in user namespaces overlay needs Linux 5.11.",
        ),
    }
}
