//! A store with containers of its own, and nothing left of them when it goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::account::Account;
use crate::bundle::{fill_rootfs, install_inside};
use crate::cgroup::{cgroup_dirs_named, pids_in_cgroups_named};
use crate::command::{Output, eventually, finish};
use crate::machine::need_root;
use crate::runtime::{by_systemd, cgroup_manager_flags, runtime};

/// A store, a state root, and a root file system to run. They are the ordinary user's where `$ROOTLESS` asks for one.
#[derive(Debug)]
pub struct Store {
    dir: TempDir,
    /// Unique on this machine, and in the name of the cgroup that all containers of the test live in.
    pub parent: String,
    account: Option<Account>,
}

impl Store {
    /// An empty one.
    pub fn new() -> Self {
        need_root();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // No number is the beginning of another.
        let parent = format!("cs-{}-{number:03}", std::process::id());
        let dir = tempfile::Builder::new()
            .prefix(&format!("{parent}-"))
            .tempdir()
            .expect("/tmp is writable");
        fill_rootfs(&dir.path().join("rootfs"));
        install_inside(&dir.path().join("rootfs"));
        let account = Account::of_environment();
        if account.is_some() {
            crate::shell(&format!("chmod 755 {}", dir.path().display()));
        }
        Store {
            dir,
            parent,
            account,
        }
    }

    /// The test's directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The root that [`Store::run`] runs.
    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// A command with this store and state root.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.account {
            Some(account) => {
                account.give(self.path());
                account.command(runtime())
            }
            None => {
                let mut command = Command::new(runtime());
                command.args(cgroup_manager_flags());
                command
            }
        };
        command.arg("--root").arg(self.path().join("run"));
        command.arg("--store").arg(self.path().join("store"));
        command.args(args);
        command
    }

    /// What `--cgroup-parent` is; an ordinary user without a cgroup has none to make others in.
    fn cgroup_parent(&self) -> Option<String> {
        match &self.account {
            Some(account) => {
                let below = account.cgroup()?.strip_prefix("/sys/fs/cgroup").ok()?;
                Some(below.join(&self.parent).display().to_string())
            }
            None if by_systemd() => Some(format!("{}.slice", self.parent)),
            None => Some(self.parent.clone()),
        }
    }

    /// Runs such a command to its end.
    pub fn coracle(&self, args: &[&str]) -> Output {
        finish(self.command(args), self.path())
    }

    /// The arguments of `run` with flags, and what it is to run: without a network, unless the flags speak of one.
    pub fn run_args_of(&self, flags: &[&str], what: &[&str]) -> Vec<String> {
        let mut args = vec!["run".to_owned()];
        let parent = self.cgroup_parent();
        args.extend(parent.map(|parent| format!("--cgroup-parent={parent}")));
        let is_network = |flag: &&str| flag.contains("--network") || *flag == "-p";
        if !flags.iter().any(is_network) {
            args.push("--network=none".to_owned());
        }
        args.extend(flags.iter().chain(what).map(|&arg| arg.to_owned()));
        args
    }

    /// The same for the root file system, and what it is to do.
    pub fn run_args(&self, flags: &[&str], command: &[&str]) -> Vec<String> {
        let rootfs = self.rootfs().display().to_string();
        self.run_args_of(flags, &[&["--rootfs", &rootfs], command].concat())
    }

    /// `run` with flags, of a program of the root file system.
    pub fn run_with(&self, flags: &[&str], command: &[&str]) -> Output {
        let args = self.run_args(flags, command);
        self.coracle(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// `run` with flags, of a line of shell.
    pub fn run(&self, flags: &[&str], script: &str) -> Output {
        self.run_with(flags, &["sh", "-c", script])
    }

    /// `run --detach` of a line of shell under a name, which must succeed.
    #[track_caller]
    pub fn detached(&self, name: &str, flags: &[&str], script: &str) {
        let flags: Vec<&str> = ["-d", "--name", name]
            .into_iter()
            .chain(flags.iter().copied())
            .collect();
        self.run(&flags, script).ok();
    }

    /// What `inspect` says of a container.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        let text = self.coracle(&["inspect", name]).ok();
        let mut all: Value = serde_json::from_str(&text).expect("inspect prints JSON");
        all[0].take()
    }

    /// A field of its state.
    #[track_caller]
    pub fn state(&self, name: &str, field: &str) -> Value {
        self.inspect(name)["State"][field].take()
    }

    /// Waits until `inspect` tells this status.
    #[track_caller]
    pub fn wait_for(&self, name: &str, status: &str) {
        eventually(&format!("{name} is {status}"), || {
            (self.state(name, "Status") == status).then_some(())
        });
    }

    /// Waits until the log of a container has these words in it.
    #[track_caller]
    pub fn wait_to_log(&self, name: &str, words: &str) -> String {
        eventually(&format!("{name} logs {words:?}"), || {
            // It may not be there yet.
            let output = self.coracle(&["logs", name]).stdout;
            output.contains(words).then_some(output)
        })
    }

    /// The directory of a container in the store.
    #[track_caller]
    pub fn directory(&self, name: &str) -> PathBuf {
        let id =
            fs::read_link(self.path().join("store/names").join(name)).expect("the name is there");
        self.path().join("store/containers").join(id)
    }

    /// The pid of a container's monitor.
    #[track_caller]
    pub fn monitor(&self, name: &str) -> i32 {
        let directory = self.directory(name);
        let is_monitor = |pid: &i32| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let fds = fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten();
            read("cmdline").starts_with(b"coracle-monitor")
                && fds
                    .filter_map(|fd| fs::read_link(fd.path()).ok())
                    .any(|path| path == directory)
        };
        let pids = fs::read_dir("/proc").expect("proc is mounted").flatten();
        let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(is_monitor).expect("the container has a monitor")
    }

    /// The ids of all containers. A directory that never became one is no container's.
    pub fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path().join("store/containers"))
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| !name.starts_with('.')).collect()
    }

    /// What the containers have left on the machine, apart from the store's own directories.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for place in ["run", "store/containers", "store/names"] {
            let entries = fs::read_dir(self.path().join(place))
                .into_iter()
                .flatten()
                .flatten();
            let names =
                entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
            left.extend(names.map(|entry| entry.path().display().to_string()));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&self.parent))
                .map(str::to_owned),
        );
        left.extend(
            pids_in_cgroups_named(&self.parent)
                .iter()
                .map(|pid| format!("process {pid}")),
        );
        left
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for id in self.ids() {
            let _ = self.coracle(&["rm", "-f", &id]);
        }
        let left = self.leftovers();
        if by_systemd() {
            let slice = format!("{}.slice", self.parent);
            let _ = Command::new("systemctl").args(["stop", &slice]).status();
        }
        for dir in cgroup_dirs_named(&self.parent) {
            let _ = fs::remove_dir(dir);
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind after rm -f: {left:#?}");
        }
    }
}
