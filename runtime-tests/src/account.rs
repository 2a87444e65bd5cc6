//! An ordinary user, who gives a test's commands in place of root: by `$ROOTLESS` every test's, or those of one container.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::shell;

/// Which ids the user may map into a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// The user's own, without any help.
    Own,
    /// A range of /etc/subuid and /etc/subgid as well, by newuidmap and newgidmap.
    Ranges,
}

/// A user whose entries in /etc/passwd, /etc/subuid and /etc/subgid exist in the mount namespaces of its commands alone.
#[derive(Debug)]
pub struct Account {
    ids: Ids,
    /// What stands in for the files of /etc.
    etc: TempDir,
    /// A cgroup that is the user's, whose child `session` the commands start in.
    cgroup: Option<PathBuf>,
    /// Lines of shell that root runs in the mount namespace of each command.
    changes: String,
}

impl Account {
    /// The user's and the group's id.
    pub const ID: u32 = 4242;
    /// The first id of the ranges, and how many there are.
    pub const RANGE: (u32, u32) = (300_000, 65_536);

    /// A user without a cgroup.
    pub fn new(ids: Ids) -> Self {
        let etc = tempfile::tempdir().expect("/tmp is writable");
        shell(&format!("chmod 755 {}", etc.path().display()));
        let write =
            |name: &str, text: String| fs::write(etc.path().join(name), text).expect("a file");
        let user = format!("ordinary:x:{0}:{0}::/:/bin/sh", Self::ID);
        write(
            "passwd",
            crate::command::read_text(Path::new("/etc/passwd")) + &user + "\n",
        );
        let ranges = match ids {
            Ids::Own => String::new(),
            Ids::Ranges => format!("ordinary:{}:{}\n", Self::RANGE.0, Self::RANGE.1),
        };
        write("subuid", ranges.clone());
        write("subgid", ranges);
        let place = etc.path().display();
        let changes =
            format!("for f in passwd subuid subgid; do mount --bind {place}/$f /etc/$f; done");
        Account {
            ids,
            etc,
            cgroup: None,
            changes,
        }
    }

    /// Other ranges than those that the mappings ask for: `name:first:count`.
    #[must_use]
    pub fn with_ranges(self, line: &str) -> Self {
        for name in ["subuid", "subgid"] {
            fs::write(self.etc.path().join(name), line).expect("a file");
        }
        self
    }

    /// Root changes the mount namespace of each command by a line of shell first.
    #[must_use]
    pub fn after(mut self, change: &str) -> Self {
        self.changes = format!("{} && {change}", self.changes);
        self
    }

    /// The one that `$ROOTLESS` asks for: `own` or `ranges`, or `delegated`, with a cgroup in the unified hierarchy as well.
    pub(crate) fn of_environment() -> Option<Self> {
        match std::env::var("ROOTLESS").ok()?.as_str() {
            "" => None,
            "own" => Some(Self::new(Ids::Own)),
            "ranges" => Some(Self::new(Ids::Ranges)),
            "delegated" => Some(Self::new(Ids::Ranges).with_cgroup(&all_controllers())),
            other => panic!("ROOTLESS={other}: own, ranges or delegated"),
        }
    }

    /// Gives the user a cgroup in the unified hierarchy, with these controllers and no others (cgroup-v2.rst, "Delegation").
    #[must_use]
    pub fn with_cgroup(mut self, controllers: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let top = Path::new("/sys/fs/cgroup");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let outer = top.join(format!("delegated-{}-{number}", std::process::id()));
        let cgroup = outer.join("user");
        self.cgroup = Some(cgroup.clone());
        let enabled: Vec<_> = controllers
            .split_whitespace()
            .map(|controller| format!("+{controller}"))
            .collect();
        for dir in [top, &outer] {
            fs::create_dir_all(dir).expect("a cgroup");
            fs::write(dir.join("cgroup.subtree_control"), enabled.join(" ")).expect("controllers");
        }
        fs::create_dir_all(cgroup.join("session")).expect("a cgroup");
        for file in [
            "",
            "cgroup.procs",
            "cgroup.threads",
            "cgroup.subtree_control",
            "session",
            "session/cgroup.procs",
        ] {
            chown(cgroup.join(file), Some(Self::ID), Some(Self::ID)).expect("a cgroup's file");
        }
        self
    }

    /// The user's cgroup.
    pub fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    /// The command that runs `program` as the user, without root's environment.
    pub fn command(&self, program: &Path) -> Command {
        let enter = match &self.cgroup {
            Some(cgroup) => format!("echo 0 > {}/session/cgroup.procs", cgroup.display()),
            None => "true".to_owned(),
        };
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "slave", "sh", "-c"])
            .arg(format!("{} && {enter} && exec \"$@\"", self.changes))
            .args(["sh", "setpriv", "--clear-groups", "--inh-caps=-all"])
            .arg(format!("--reuid={}", Self::ID))
            .arg(format!("--regid={}", Self::ID))
            .arg(program)
            .env_remove("XDG_RUNTIME_DIR")
            .env("HOME", "/")
            .env("USER", "ordinary");
        command
    }

    /// Where an id of a container lies on the host.
    pub fn host_id(&self, id: u32) -> u32 {
        match id {
            0 => Self::ID,
            id => Self::RANGE.0 + id - 1,
        }
    }

    /// What an engine of an ordinary user writes otherwise: a user namespace with the ids there are, and no group for terminals that is
    /// not mapped.
    pub fn adapt(&self, config: &mut Value) {
        let namespaces = &mut config["linux"]["namespaces"];
        namespaces
            .as_array_mut()
            .expect("namespaces")
            .push(json!({ "type": "user" }));
        let own = json!({ "containerID": 0, "hostID": Self::ID, "size": 1 });
        let mappings = match self.ids {
            Ids::Own => json!([own]),
            Ids::Ranges => {
                json!([own, { "containerID": 1, "hostID": Self::RANGE.0, "size": Self::RANGE.1 }])
            }
        };
        config["linux"]["uidMappings"] = mappings.clone();
        config["linux"]["gidMappings"] = mappings;
        if self.ids == Ids::Own {
            for mount in config["mounts"].as_array_mut().expect("mounts") {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|option| option != "gid=5");
                }
            }
        }
    }

    /// Hands what is root's at a path over to the user.
    pub fn give(&self, path: &Path) {
        // Other commands of the test may be adding and removing files meanwhile.
        let Ok(found) = fs::symlink_metadata(path) else {
            return;
        };
        if found.uid() == 0 {
            let _ = lchown(path, Some(Self::ID), Some(Self::ID));
        }
        if found.is_dir() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.give(&entry.path());
            }
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = fs::remove_dir(cgroup.join("session"));
            let _ = fs::remove_dir(cgroup);
            let _ = cgroup.parent().map(fs::remove_dir);
        }
    }
}

fn all_controllers() -> String {
    fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .expect("ROOTLESS=delegated needs cgroup v2 alone")
}

/// Which ids the containers of ordinary users get in this run of the tests; `None` when root gives the commands.
pub fn rootless() -> Option<Ids> {
    match std::env::var("ROOTLESS").as_deref() {
        Err(_) | Ok("") => None,
        Ok("own") => Some(Ids::Own),
        Ok(_) => Some(Ids::Ranges),
    }
}
