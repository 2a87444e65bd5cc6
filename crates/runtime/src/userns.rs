//! Why a user namespace cannot be had here (user_namespaces(7)): what the kernel's one errno stands for, and what to do about it.
//!
//! Only asked once something has failed, and by `check`. What is read are facts about the machine around, by ordinary paths.

use std::fs;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::stat::stat;
use nix::unistd::{getegid, geteuid};

use crate::namespaces::{KINDS, file};
use crate::procfs::read_small;
use crate::sys;

/// Debian's switch. Other kernels do not have it.
const DEBIAN: &str = "/proc/sys/kernel/unprivileged_userns_clone";
/// Ubuntu's: a user namespace of an unconfined program without privileges gives no rights.
const APPARMOR: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
/// `CAP_SYS_ADMIN`.
const SYS_ADMIN: u64 = 1 << 21;

/// What stands behind the failure of making a process with these `CLONE_NEW*`, and the remedy, as the rest of a sentence.
pub(crate) fn refused(errno: Errno, flags: i32) -> Option<String> {
    let new_user = flags & libc::CLONE_NEWUSER != 0;
    match errno {
        Errno::ENOSPC | Errno::EUSERS => limit(flags),
        Errno::EPERM | Errno::EACCES if new_user => denied(),
        Errno::EPERM if flags != 0 && !privileged() => Some(
            "namespaces take root's rights, or a user namespace of the container's own: add {\"type\": \"user\"} to linux.namespaces, \
             as \"coracle spec --rootless\" does"
                .into(),
        ),
        Errno::EINVAL if new_user && !exists("/proc/self/ns/user") => {
            Some("the kernel was built without user namespaces (CONFIG_USER_NS)".into())
        }
        _ => None,
    }
}

/// Why nobody without privileges gets a user namespace, or none that is of use.
fn denied() -> Option<String> {
    if !privileged() && reads(DEBIAN, "0") {
        return Some(
            "user namespaces are for root only: sysctl -w kernel.unprivileged_userns_clone=1"
                .into(),
        );
    }
    if let Some(reason) = without_rights() {
        return Some(reason);
    }
    if !is_mapped("/proc/self/uid_map", geteuid().as_raw())
        || !is_mapped("/proc/self/gid_map", getegid().as_raw())
    {
        return Some(
            "the calling user or group is not mapped in the user namespace around this process: map it there"
                .into(),
        );
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !mounts.is_empty()
        && !mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == Some("/"))
    {
        return Some(
            "the kernel makes no user namespace in a chroot: use pivot_root(2) or a container instead".into(),
        );
    }
    if status("Seccomp:").is_some_and(|mode| mode == "2") {
        return Some(
            "a seccomp filter around this process denies it: let clone3, clone and unshare through there (such as podman's \
             --security-opt seccomp=unconfined)"
                .into(),
        );
    }
    exists("/sys/fs/selinux/enforce").then(|| {
        "SELinux may deny user_namespace create: see the audit log (ausearch -m avc)".into()
    })
}

/// Ubuntu: the namespace can be made, and all that root would do in it fails.
pub(crate) fn without_rights() -> Option<String> {
    let confined_by = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    // A profile with `userns,`, even an unconfined one, lifts the restriction for its program.
    let unconfined = matches!(
        confined_by.trim_end_matches(['\n', '\0']),
        "" | "unconfined"
    );
    (!privileged() && unconfined && reads(APPARMOR, "1")).then(|| {
        "AppArmor gives no rights in the user namespaces of programs without a profile: install an AppArmor profile for coracle that \
         allows userns, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
            .into()
    })
}

/// Which limit on the number of namespaces has been reached.
fn limit(flags: i32) -> Option<String> {
    let limited: Vec<_> = KINDS
        .iter()
        .filter(|(_, _, flag)| flags & flag != 0)
        .filter_map(|(name, _, flag)| Some((*flag, sysctl(name), maximum(name)?)))
        .collect();
    let (_, sysctl, value) = match limited.iter().find(|(_, _, value)| *value == 0) {
        Some(none) => none,
        None => limited
            .iter()
            .min_by_key(|(flag, _, value)| (*value, *flag))?,
    };
    Some(match value {
        0 => format!("{sysctl} is 0: raise it (sysctl -w {sysctl}=15000)"),
        _ => format!(
            "a limit on namespaces is reached, as {sysctl} = {value} here or in a user namespace around this one, or user namespaces are \
             nested too deep (32): raise it, or end what holds them"
        ),
    })
}

/// The name of the limit on namespaces of one kind, by the specification's name of it.
pub(crate) fn sysctl(kind: &str) -> String {
    format!("user.max_{}_namespaces", file(kind))
}

/// The limit in the user namespace of this process.
pub(crate) fn maximum(kind: &str) -> Option<u64> {
    let file = format!("/proc/sys/{}", sysctl(kind).replace('.', "/"));
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Whether the user namespace of this process is the machine's initial one, where all ids are: there root's rights are the machine's.
pub(crate) fn in_initial_namespace() -> bool {
    // `USER_NS_INIT_INO` of linux/nsfs.h. Not every kernel that runs Linux programs has it, so another number says nothing.
    if stat("/proc/self/ns/user").is_ok_and(|found| found.st_ino == 0xEFFF_FFFD) {
        return true;
    }
    // A kernel without user namespaces has no such file.
    read_small("/proc/self/uid_map").map_or(true, |map| {
        String::from_utf8_lossy(&map)
            .split_ascii_whitespace()
            .eq(["0", "0", "4294967295"])
    })
}

/// The same of the one that this program was started in; looked up once.
pub(crate) fn started_in_initial_namespace() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(in_initial_namespace)
}

/// Whether we are the machine's root, and not one of a user namespace.
pub fn is_machines_root() -> bool {
    sys::credentials::started_by_root() && started_in_initial_namespace()
}

/// Whether we hold `CAP_SYS_ADMIN`, be it only in a user namespace.
pub(crate) fn privileged() -> bool {
    sys::credentials::permitted_capabilities().is_ok_and(|all| all & SYS_ADMIN != 0)
}

/// Whether a map (/proc/PID/uid_map) holds an id, as its second namespace numbers it.
fn is_mapped(map: &str, id: u32) -> bool {
    let Ok(map) = fs::read_to_string(map) else {
        return true;
    };
    map.lines().any(|line| {
        let mut numbers = line
            .split_ascii_whitespace()
            .map(|n| n.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        let (first, count) = (first.unwrap_or(0), count.unwrap_or(0));
        (first..first + count).contains(&id.into())
    })
}

/// A field of /proc/self/status.
pub(crate) fn status(field: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.trim().to_owned())
}

fn reads(file: &str, value: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.trim() == value)
}

fn exists(path: &str) -> bool {
    fs::exists(path).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_the_kernels_names() {
        for (name, ..) in KINDS {
            if exists(&format!("/proc/self/ns/{}", file(name))) {
                assert!(maximum(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn a_limit_names_itself() {
        let text = refused(Errno::ENOSPC, libc::CLONE_NEWUSER).unwrap();
        assert!(text.contains("user.max_user_namespaces"), "{text}");
    }

    #[test]
    fn own_ids_are_mapped() {
        assert!(is_mapped("/proc/self/uid_map", geteuid().as_raw()));
    }
}
