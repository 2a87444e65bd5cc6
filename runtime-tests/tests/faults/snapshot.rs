//! Everything on a machine that a container may leave something of.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::machine::{Machine, STORE, processes};

/// The mounts: the number of each, and the rest of its line.
pub(crate) fn mounts() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
    let mounts = text.lines().filter_map(|line| line.split_once(' '));
    mounts
        .map(|(number, mount)| (number.to_owned(), mount.to_owned()))
        .collect()
}

/// A line for each thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// What there is now.
    pub(crate) fn take(machine: &Machine) -> Self {
        let mut found = Snapshot::default();
        for place in ["/run", "/tmp", "/dev/shm"] {
            found.files(Path::new(place));
        }
        let mounts = mounts();
        let own = mounts
            .iter()
            .filter(|(number, _)| !machine.mounts.contains(number));
        found.add("mount", own.map(|(_, mount)| mount.as_str()));
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
        for hierarchy in hierarchies.flatten() {
            found.cgroups(&hierarchy.path().join(&machine.parent));
        }
        found.cgroups(&Path::new("/sys/fs/cgroup").join(&machine.parent));
        found.add("process", processes().iter().map(String::as_str));
        found.network();
        found
    }

    fn add<'a>(&mut self, kind: &str, lines: impl IntoIterator<Item = &'a str>) {
        let lines = lines.into_iter().map(|line| format!("{kind} {line}"));
        self.0.extend(lines);
    }

    fn files(&mut self, path: &Path) {
        let Ok(found) = fs::symlink_metadata(path) else {
            return;
        };
        let content = match found.is_file() && found.len() < 64 << 10 {
            true => fs::read(path).unwrap_or_default(),
            false => Vec::new(),
        };
        let mut content = String::from_utf8_lossy(&content).into_owned();
        if path.ends_with("network/state.json")
            && let Ok(mut state) = serde_json::from_str::<Value>(&content)
        {
            // The next address is another one, so that nobody gets what is still meant for the one before.
            state["bridge"]["last"] = Value::Null;
            // A bridge that is made anew may have another range of its own.
            state["bridge"]["subnet6"] = Value::Null;
            content = state.to_string();
        }
        self.0.insert(format!(
            "file {} {:o} {}:{} {content}",
            path.display(),
            found.permissions().mode(),
            found.uid(),
            found.gid(),
        ));
        if found.is_dir() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.files(&entry.path());
            }
        }
    }

    fn cgroups(&mut self, path: &Path) {
        let Ok(entries) = fs::read_dir(path) else {
            return;
        };
        self.0.insert(format!("cgroup {}", path.display()));
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.cgroups(&entry.path());
            }
        }
    }

    fn network(&mut self) {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        // What has passed through a link changes.
        let links = read("/proc/net/dev");
        let links = links.lines().filter_map(|line| line.split_once(':'));
        self.add("link", links.map(|(name, _)| name.trim()));
        for file in ["net/route", "net/ipv6_route", "net/unix"] {
            let path = Path::new("/proc").join(file);
            let count = read(path.to_str().expect("text")).lines().count();
            self.0.insert(format!("{file}: {count} lines"));
        }
        for file in [
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv4/conf/all/route_localnet",
        ] {
            let value = read(&format!("/proc/sys/net/{file}"));
            self.0.insert(format!("sysctl {file} {value}"));
        }
        if Path::new(STORE).join("network").exists() {
            let rules = Command::new("nft").args(["list", "ruleset"]).output();
            let rules = rules.expect("nftables is installed").stdout;
            self.add("rule", String::from_utf8_lossy(&rules).lines());
        }
    }

    /// All but the things of one kind.
    pub(crate) fn without(&self, kind: &str) -> Self {
        let others = self.0.iter().filter(|line| !line.starts_with(kind));
        Snapshot(others.cloned().collect())
    }

    /// What is there now and was not, and the other way round.
    pub(crate) fn differences(&self, before: &Self) -> Vec<String> {
        let new = self.0.difference(&before.0).map(|line| format!("+ {line}"));
        let gone = before.0.difference(&self.0).map(|line| format!("- {line}"));
        new.chain(gone).collect()
    }
}
