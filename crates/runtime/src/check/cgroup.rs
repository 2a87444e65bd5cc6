//! Control groups: the layout, the controllers where containers would live, and who may use them.

use std::fs;
use std::path::{Path, PathBuf};

use cgroups::{Host, Layout, Location, Version};
use nix::unistd::{AccessFlags, access, geteuid};

use super::{Check, kernel};

/// What a configuration may limit, by the names of v2.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

pub(super) fn checks() -> Vec<Check> {
    let host = match Host::probe() {
        Ok(host) => host,
        Err(error) => {
            let advice = "mount cgroup2 on /sys/fs/cgroup, or do without limits by --cgroup-manager disabled.";
            return vec![
                Check::missing("cgroup", error.to_string(), advice).essential(),
                systemd(),
                pressure(),
            ];
        }
    };
    vec![
        layout(&host),
        controllers(&host),
        delegation(&host),
        freezer(&host),
        kill(&host),
        pressure(),
        systemd(),
    ]
}

fn layout(host: &Host) -> Check {
    let name = "cgroup";
    let only_v2 = "boot with systemd.unified_cgroup_hierarchy=1 for cgroup v2 alone, which has pressure, kill and safe delegation.";
    match host.layout() {
        Layout::V2 => Check::ok(name, "v2"),
        Layout::Hybrid => Check::limited(name, "v1 and v2 (hybrid)", only_v2),
        Layout::V1 => Check::limited(name, "v1", only_v2),
    }
    .essential()
}

/// Where a container without a `linux.cgroupsPath` would be, as this process finds it.
fn parent(host: &Host) -> Option<(Version, PathBuf)> {
    let location = Location::resolve(host, Path::new("check")).ok()?;
    let places = location.places();
    let place = places
        .iter()
        .find(|place| place.version == Version::V2)
        .or(places.first())?;
    Some((place.version, place.dir().parent()?.to_owned()))
}

/// Those that a container's cgroup can have. v1 has them machine-wide, v2 hands them down from directory to directory.
fn controllers(host: &Host) -> Check {
    let name = "cgroup.controllers";
    let everywhere: Vec<&str> = host
        .controllers()
        .filter(|name| !name.starts_with("name="))
        .collect();
    let here: Vec<String> = match (host.layout(), parent(host)) {
        (Layout::V2, Some((_, parent))) => {
            let file = fs::read_to_string(parent.join("cgroup.controllers"));
            file.unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        }
        _ => everywhere.iter().map(|name| (*name).to_owned()).collect(),
    };
    let has = |list: &[String], wanted: &str| {
        list.iter()
            .any(|one| one == wanted || wanted == "io" && one == "blkio")
    };
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|wanted| !has(&here, wanted))
        .collect();
    let value = match here.is_empty() {
        true => "none".to_owned(),
        false => here.join(" "),
    };
    if missing.is_empty() {
        return Check::ok(name, value);
    }
    let all: Vec<String> = everywhere.iter().map(|name| (*name).to_owned()).collect();
    let withheld: Vec<&str> = missing
        .iter()
        .copied()
        .filter(|name| has(&all, name))
        .collect();
    let advice = match (withheld.is_empty(), parent(host)) {
        (false, Some((_, parent))) => format!(
            "{} lacks {}: write +{} to cgroup.subtree_control of each directory above it (systemd: Delegate=yes in the unit).",
            parent.display(),
            withheld.join(", "),
            withheld.join(" +"),
        ),
        _ => format!(
            "limits of {} need a kernel with these controllers, not disabled by cgroup_disable= nor bound elsewhere.",
            missing.join(", ")
        ),
    };
    match here.is_empty() {
        true => Check::missing(name, value, advice),
        false => Check::limited(name, value, advice),
    }
}

/// Whether this user may make a cgroup and put a process there.
fn delegation(host: &Host) -> Check {
    let name = "cgroup.writable";
    let Some((version, parent)) = parent(host) else {
        return Check::missing(name, "own cgroup not found", "mount /proc.");
    };
    let shown = parent.display().to_string();
    let name_of = |file: &str| match file {
        "" => shown.clone(),
        file => format!("{shown}/{file}"),
    };
    let may = |file: &str| access(&parent.join(file), AccessFlags::W_OK).is_ok();
    let needed: &[&str] = match version {
        Version::V2 => &["", "cgroup.procs", "cgroup.subtree_control"],
        Version::V1 => &[""],
    };
    match needed.iter().find(|file| !may(file)) {
        None => Check::ok(name, name_of("")),
        Some(file) if geteuid().is_root() => Check::missing(
            name,
            format!("{} cannot be written", name_of(file)),
            "mount it read-write, or do without limits by --cgroup-manager disabled.",
        )
        .essential(),
        Some(file) => Check::limited(
            name,
            format!("{} is not this user's", name_of(file)),
            "containers get no limits: use --systemd-cgroup, or let root chown a cgroup v2 directory to this user.",
        ),
    }
}

fn freezer(host: &Host) -> Check {
    let name = "cgroup.freezer";
    match host.layout() {
        Layout::V2 => Check::ok(name, "cgroup.freeze"),
        _ if host.controllers().any(|name| name == "freezer") => Check::ok(name, "freezer (v1)"),
        Layout::Hybrid => Check::ok(name, "cgroup.freeze of the unified hierarchy"),
        Layout::V1 => Check::missing(
            name,
            "no freezer",
            "pause and resume need the v1 controller freezer: mount it.",
        ),
    }
}

/// One write instead of a signal for each process (Linux 5.14).
fn kill(host: &Host) -> Check {
    let name = "cgroup.kill";
    let advice = "processes are killed one by one, which takes longer; cgroup.kill needs cgroup v2 and Linux 5.14.";
    match (host.layout(), kernel::release() >= (5, 14)) {
        (Layout::V1, _) => Check::limited(name, "not in v1", advice),
        (_, true) => Check::ok(name, "cgroup.kill"),
        (_, false) => Check::limited(name, "kernel before 5.14", advice),
    }
}

fn pressure() -> Check {
    let name = "cgroup.pressure";
    match fs::read_to_string("/proc/pressure/memory") {
        Ok(_) => Check::ok(name, "cpu, io, memory"),
        Err(_) => Check::limited(
            name,
            "not there",
            "events tells no pressure: boot with psi=1, on a kernel with CONFIG_PSI.",
        ),
    }
}

/// Where its sockets are. Nobody is asked.
fn systemd() -> Check {
    let name = "systemd";
    let is_there = |path: &Path| fs::exists(path).unwrap_or(false);
    let mut found = Vec::new();
    for (what, path) in [
        ("manager", "/run/systemd/private"),
        ("system bus", "/run/dbus/system_bus_socket"),
    ] {
        if is_there(Path::new(path)) {
            found.push(what);
        }
    }
    let users = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("bus"));
    if users.as_deref().is_some_and(is_there) {
        found.push("user bus");
    }
    let wanted = if geteuid().is_root() {
        "system bus"
    } else {
        "user bus"
    };
    let value = if found.is_empty() {
        "none".to_owned()
    } else {
        found.join(", ")
    };
    match found.contains(&wanted) || geteuid().is_root() && found.contains(&"manager") {
        true => Check::ok(name, value),
        false => Check::limited(
            name,
            value,
            format!(
                "--systemd-cgroup needs the {wanted}: start systemd and dbus, or use the cgroupfs manager."
            ),
        ),
    }
}
