//! The machine, the runtime's own protection, and the place for the state of containers.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};

use super::{Check, number, read};
use crate::sys::mount::has_mount_setattr;
use crate::userns;

const MIB: u64 = 1 << 20;

pub(super) fn checks(root: Result<PathBuf, String>) -> Vec<Check> {
    vec![memory(), cpus(), protection(), state(root)]
}

fn memory() -> Check {
    let text = read("/proc/meminfo").unwrap_or_default();
    let kib = |field: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.unwrap_or(0)
    };
    let (memory, swap) = (kib("MemTotal:") / 1024, kib("SwapTotal:") / 1024);
    Check::ok("memory", format!("{memory} MiB, swap {swap} MiB"))
}

fn cpus() -> Check {
    let online = read("/sys/devices/system/cpu/online").unwrap_or_default();
    let ours = userns::status("Cpus_allowed_list:").unwrap_or_default();
    match online == ours || online.is_empty() {
        true => Check::ok("cpus", ours),
        false => Check::ok(
            "cpus",
            format!("{online}, of which this process has {ours}"),
        ),
    }
}

/// How commands that put a process into a container keep the runtime's binary out of its reach.
fn protection() -> Check {
    let name = "binary";
    let on_readonly = std::env::current_exe()
        .ok()
        .and_then(|exe| statvfs(&exe).ok());
    if on_readonly.is_some_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY)) {
        return Check::ok(name, "on a read-only file system");
    }
    if userns::privileged() && has_mount_setattr() {
        return Check::ok(name, "protected by a read-only mount");
    }
    match number("/proc/sys/vm/memfd_noexec") {
        Some(2) => Check::missing(
            name,
            "cannot be protected: vm.memfd_noexec is 2",
            "put coracle on a read-only file system, or sysctl -w vm.memfd_noexec=1.",
        )
        .essential(),
        _ => Check::ok(name, "protected by a sealed copy in memory"),
    }
}

fn state(root: Result<PathBuf, String>) -> Check {
    let name = "state";
    let root = match root {
        Ok(root) => root,
        Err(reason) => {
            return Check::missing(name, "no directory", format!("{reason}.")).essential();
        }
    };
    let there = root
        .ancestors()
        .find(|path| fs::exists(path).unwrap_or(false));
    let there = there.unwrap_or(Path::new("/"));
    let shown = root.display();
    if access(there, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        return Check::missing(
            name,
            format!("{shown}: {} cannot be written", there.display()),
            "name a directory that this user may write to with --root, or with XDG_RUNTIME_DIR.",
        )
        .essential();
    }
    let kind = statfs(there).map_or(FsType(0), |fs| fs.filesystem_type());
    let (free, noexec) = statvfs(there).map_or((0, false), |fs| {
        (
            fs.blocks_available() * fs.fragment_size() / MIB,
            fs.flags().contains(FsFlags::ST_NOEXEC),
        )
    });
    let value = format!(
        "{shown} ({}, {free} MiB free{})",
        if kind == TMPFS_MAGIC {
            "tmpfs"
        } else {
            "on disk"
        },
        if noexec { ", noexec" } else { "" }
    );
    if free == 0 {
        return Check::missing(
            name,
            value,
            "make room there, or name another directory with --root.",
        )
        .essential();
    }
    match kind == TMPFS_MAGIC {
        true => Check::ok(name, value),
        false => Check::limited(
            name,
            value,
            "state that outlives a reboot is of no use: name a directory on a tmpfs with --root.",
        ),
    }
    .essential()
}
