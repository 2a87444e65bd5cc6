//! Looks at a container's cgroups from the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::command::eventually;

/// A limit's file on either version.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The v1 controller and its file.
    pub v1: (&'static str, &'static str),
    /// The v2 file.
    pub v2: &'static str,
}

impl Limit {
    /// Hard limit of memory.
    pub const MEMORY: Self = Self::new("memory", "memory.limit_in_bytes", "memory.max");
    /// Soft limit of memory.
    pub const MEMORY_RESERVATION: Self =
        Self::new("memory", "memory.soft_limit_in_bytes", "memory.low");
    /// Number of processes.
    pub const PIDS: Self = Self::new("pids", "pids.max", "pids.max");
    /// CPU bandwidth: microseconds a period (v1), or quota and period (v2).
    pub const CPU_QUOTA: Self = Self::new("cpu", "cpu.cfs_quota_us", "cpu.max");
    /// CPU period.
    pub const CPU_PERIOD: Self = Self::new("cpu", "cpu.cfs_period_us", "cpu.max");
    /// CPU burst.
    pub const CPU_BURST: Self = Self::new("cpu", "cpu.cfs_burst_us", "cpu.max.burst");
    /// CPU shares or weight.
    pub const CPU_SHARES: Self = Self::new("cpu", "cpu.shares", "cpu.weight");
    /// CPU idle.
    pub const CPU_IDLE: Self = Self::new("cpu", "cpu.idle", "cpu.idle");
    /// CPUs that may be used.
    pub const CPUS: Self = Self::new("cpuset", "cpuset.cpus", "cpuset.cpus");
    /// Memory nodes that may be used.
    pub const MEMS: Self = Self::new("cpuset", "cpuset.mems", "cpuset.mems");

    /// A limit by its files.
    pub const fn new(controller: &'static str, v1: &'static str, v2: &'static str) -> Self {
        Self {
            v1: (controller, v1),
            v2,
        }
    }
}

/// Reads a limit in the cgroup of a process; `None` when the controller is not there.
pub fn limit_of(pid: i64, limit: Limit) -> Option<String> {
    let file = match v1_dir(pid, limit.v1.0) {
        Some(dir) => dir.join(limit.v1.1),
        None => v2_dir(pid)?.join(limit.v2),
    };
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

/// The directory of a process's cgroup where a controller is, and whether it is one of v2.
pub fn controller_dir(pid: i64, controller: &str) -> Option<(PathBuf, bool)> {
    if let Some(dir) = v1_dir(pid, controller) {
        return Some((dir, false));
    }
    let dir = v2_dir(pid)?;
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).ok()?;
    let is_here = controllers.split_whitespace().any(|one| one == controller);
    is_here.then_some((dir, true))
}

fn v1_dir(pid: i64, controller: &str) -> Option<PathBuf> {
    let mount = mount_point("cgroup", Some(controller))?;
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = lines.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        parts
            .next()?
            .split(',')
            .any(|name| name == controller)
            .then(|| parts.next())?
    })?;
    Some(mount.join(path.trim_start_matches('/')))
}

/// The directory of a process's v2 cgroup.
pub fn v2_dir(pid: i64) -> Option<PathBuf> {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = lines
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))?
        .to_owned();
    Some(mount_point("cgroup2", None)?.join(path))
}

/// Where cgroups of a kind (`cgroup`, `cgroup2`), with a controller among the mount's options, are mounted.
pub(crate) fn mount_point(kind: &str, option: Option<&str>) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mut tail = tail.split(' ');
        let found = tail.next()? == kind
            && option.is_none_or(|option| {
                tail.nth(1)
                    .is_some_and(|all| all.split(',').any(|one| one == option))
            });
        found.then(|| head.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The cgroups, in every hierarchy, below whose path a name stands. Names are a test's own unique ids.
pub fn cgroup_dirs_named(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    search(Path::new("/sys/fs/cgroup"), name, &mut found);
    found
}

fn search(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        search(&path, name, found);
        if path.to_string_lossy().contains(name) {
            found.push(path);
        }
    }
}

/// The processes in those cgroups.
pub fn pids_in_cgroups_named(name: &str) -> Vec<i32> {
    let mut pids: Vec<i32> = cgroup_dirs_named(name)
        .iter()
        .flat_map(|dir| {
            fs::read_to_string(dir.join("cgroup.procs"))
                .unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|line| line.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// A cgroup that a test makes in the v2 hierarchy, removed at its end with the empty ones below it.
#[derive(Debug)]
pub struct V2Cgroup {
    name: String,
    dir: PathBuf,
}

impl V2Cgroup {
    /// A new one at the top of the hierarchy, which hands it all its controllers; `None` on a machine without v2.
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tc-{}-{number}", std::process::id());
        let mount = mount_point("cgroup2", None)?;
        for controller in fs::read_to_string(mount.join("cgroup.controllers"))
            .unwrap_or_default()
            .split_whitespace()
        {
            let _ = fs::write(
                mount.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
        let dir = mount.join(&name);
        fs::create_dir(&dir).expect("a cgroup can be made");
        Some(Self { name, dir })
    }

    /// Its path in the hierarchy.
    pub fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// Its directory on the host.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes one of its files.
    #[track_caller]
    pub fn write(&self, file: &str, value: &str) {
        fs::write(self.dir.join(file), value)
            .unwrap_or_else(|e| panic!("{value:?} to {file}: {e}"));
    }
}

impl Drop for V2Cgroup {
    fn drop(&mut self) {
        for dir in cgroup_dirs_named(&self.name) {
            if std::thread::panicking() {
                // A second panic would take the other tests along.
                let _ = fs::remove_dir(&dir);
                continue;
            }
            eventually("the cgroup can be removed", || {
                (fs::remove_dir(&dir).is_ok() || !dir.exists()).then_some(())
            });
        }
    }
}
