//! Why the kernel refused something, as far as its files tell. They are read only once it has.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::host::{Layout, Version};
use crate::signal::field;
use crate::{Error, Location};

impl Cgroup {
    /// The error for a new process that the kernel did not let into this cgroup (`fork(2)`, `clone3(2)` with
    /// `CLONE_INTO_CGROUP`).
    pub fn no_entry(&self, errno: Errno) -> Error {
        let counting = self.legacy("pids").or_else(|| self.census());
        let path = counting.map_or_else(PathBuf::new, |dir| dir.path().to_owned());
        let hint = match errno {
            Errno::EAGAIN => Some(too_many_processes(&path)),
            Errno::EBUSY => Some(
                "it hands controllers to its sub-cgroups, and so takes no process itself: see its cgroup.subtree_control"
                    .to_owned(),
            ),
            Errno::EOPNOTSUPP => Some(threaded(&path)),
            _ => None,
        };
        Error::Io {
            action: "put a process into cgroup".into(),
            path,
            errno,
            hint: hint.map(Into::into),
        }
    }
}

/// Who is at its limit of processes.
fn too_many_processes(path: &Path) -> String {
    let full = path.ancestors().find_map(|dir| {
        let limit: u64 = read(dir, "pids.max")?.parse().ok()?;
        let current: u64 = read(dir, "pids.current")?.parse().ok()?;
        (current >= limit).then(|| format!("{}/pids.max is reached: {limit}", dir.display()))
    });
    full.unwrap_or_else(|| {
        "RLIMIT_NPROC of the user, kernel.threads-max or kernel.pid_max is reached".to_owned()
    })
}

/// What a cgroup's type means for whoever wants to be in it.
fn threaded(path: &Path) -> String {
    let kind = read(path, "cgroup.type").unwrap_or_default();
    format!(
        "its cgroup.type is {kind:?}, since it lies in a threaded subtree, where whole processes cannot be limited: \
         choose a cgroup elsewhere"
    )
}

/// The limit on cgroups below `path`, which does not exist, that an ancestor is at.
pub(crate) fn too_many_cgroups(path: &Path) -> String {
    for (below, dir) in path.ancestors().enumerate().skip(1) {
        let number = |file| read(dir, file)?.parse::<usize>().ok();
        if number("cgroup.max.depth").is_some_and(|max| max < below) {
            return format!("{}/cgroup.max.depth is reached", dir.display());
        }
        let stat = read(dir, "cgroup.stat").unwrap_or_default();
        let there = field(&stat, "nr_descendants").and_then(|value| value.parse().ok());
        if let (Some(max), Some(there)) = (number("cgroup.max.descendants"), there)
            && max <= there
        {
            return format!("{}/cgroup.max.descendants is reached", dir.display());
        }
    }
    "cgroup.max.depth or cgroup.max.descendants of an ancestor is reached".to_owned()
}

/// Why a cgroup does not have a controller, as the continuation of a sentence that says so.
pub(crate) fn missing_controller(cgroup: &Cgroup, controller: &str) -> String {
    let mut withheld = cgroup.withheld.iter();
    if let Some(withheld) = withheld.find(|one| one.controller == controller) {
        let reason = withheld_because(&withheld.by, controller, withheld.errno);
        let by = withheld.by.display();
        return format!(": {by}/cgroup.subtree_control does not take \"+{controller}\": {reason}");
    }
    if let Some(by) = not_handed_down(&cgroup.location, controller) {
        let by = by.display();
        return format!(": {by}/cgroup.subtree_control does not have it");
    }
    if let (Layout::V2, Some(place)) = (cgroup.location.layout(), cgroup.location.places.first()) {
        let file = place.mount.join("cgroup.controllers");
        return format!(": {} does not list it", file.display());
    }
    let legacy = if controller == "io" {
        "blkio"
    } else {
        controller
    };
    match kernels_view(legacy) {
        Some((_, false)) => ": the kernel was started with cgroup_disable=".to_owned() + legacy,
        Some((true, true)) => {
            ": it is bound to a cgroup v1 hierarchy that is not mounted below /sys/fs/cgroup"
                .to_owned()
        }
        _ => ": no hierarchy below /sys/fs/cgroup has it".to_owned(),
    }
}

fn withheld_because(by: &Path, controller: &str, errno: Errno) -> String {
    match (errno, read(by, "cgroup.type").as_deref()) {
        (Errno::EBUSY, _) => "processes live in that cgroup, move them into a sub-cgroup".into(),
        (Errno::EOPNOTSUPP | Errno::ENOENT, Some("threaded" | "domain invalid")) => threaded(by),
        (Errno::EINVAL, _) if controller == "cpu" => {
            "realtime processes run outside of the root cgroup, give them another scheduling policy"
                .into()
        }
        (Errno::EACCES | Errno::EPERM, _) => {
            "it belongs to another user, have the controller delegated (with systemd: Delegate=)"
                .into()
        }
        (Errno::EROFS, _) => READ_ONLY.into(),
        (errno, _) => errno.desc().to_lowercase(),
    }
}

/// The v2 cgroup that has a controller and does not hand it on, above the cgroup there.
fn not_handed_down(location: &Location, controller: &str) -> Option<PathBuf> {
    let mut places = location.places.iter();
    let place = places.find(|place| place.version == Version::V2)?;
    let dir = place.dir();
    let above = dir.ancestors().skip(1);
    let mut above = above.take_while(|dir| dir.starts_with(&place.mount));
    let has = |dir: &&Path| {
        read(dir, "cgroup.controllers")
            .is_some_and(|all| all.split(' ').any(|one| one == controller))
    };
    above.find(has).map(Path::to_owned)
}

/// Whether a controller is bound to a v1 hierarchy, and whether it is enabled, by `/proc/cgroups`.
fn kernels_view(controller: &str) -> Option<(bool, bool)> {
    let table = read(Path::new("/proc"), "cgroups")?;
    let line = table
        .lines()
        .find_map(|line| line.strip_prefix(controller)?.strip_prefix('\t'))?;
    let mut fields = line.split('\t');
    Some((fields.next()? != "0", fields.nth(1)? == "1"))
}

/// What EROFS means for each file of a hierarchy.
pub(crate) const READ_ONLY: &str =
    "the cgroup file system is mounted read-only here, remount it read-write";

fn read(dir: &Path, file: &str) -> Option<String> {
    let text = std::fs::read_to_string(dir.join(file)).ok()?;
    Some(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian's kernels do not share out realtime, so no virtual machine refuses this.
    #[test]
    fn the_cpu_controller_is_withheld_by_realtime_processes() {
        let because = |controller| withheld_because(Path::new("/none"), controller, Errno::EINVAL);
        assert!(because("cpu").starts_with("realtime processes run outside of the root cgroup"));
        assert_eq!(because("memory"), "invalid argument");
    }
}
