//! One container of a test: its own bundle, its own state root, and nothing left when it goes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::account::Account;
use crate::bundle::{base_config, fill_rootfs, install_inside};
use crate::cgroup::{cgroup_dirs_named, pids_in_cgroups_named};
use crate::command::{Output, eventually, finish, finish_into, read_text};
use crate::machine::{View, need_root};
use crate::runtime::{cgroup_manager_flags, runtime};
use crate::without::Without;

/// A container with a unique id, and the bundle and state root it lives in.
#[derive(Debug)]
pub struct Container {
    /// Its id, unique on this machine.
    pub id: String,
    /// Its configuration: the base one until the test changes it. Written before each create and run.
    pub config: Value,
    view: Option<View>,
    without: Without,
    account: Option<Account>,
    global: Vec<String>,
    root: PathBuf,
    dir: TempDir,
}

impl Container {
    /// A container that runs a line of shell.
    pub fn new(script: &str) -> Self {
        Self::with_args(&["sh", "-c", script])
    }

    /// A container that runs a program.
    pub fn with_args(args: &[&str]) -> Self {
        need_root();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let id = format!(
            "ct-{}-{:03}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = tempfile::Builder::new()
            .prefix(&format!("{id}-"))
            .tempdir()
            .expect("/tmp is writable");
        // Users other than root walk through here in the tests of user namespaces.
        crate::shell(&format!("chmod 755 {}", dir.path().display()));
        fill_rootfs(&dir.path().join("bundle/rootfs"));
        let mut config = base_config();
        config["process"]["args"] = json!(args);
        let container = Self {
            id,
            config,
            view: None,
            without: Without::default(),
            account: None,
            global: Vec::new(),
            root: dir.path().join("state"),
            dir,
        };
        match Account::of_environment() {
            Some(account) => container.of(account),
            None => container,
        }
    }

    /// It is an ordinary user's, who gives its commands.
    #[must_use]
    pub fn of(mut self, account: Account) -> Self {
        account.adapt(&mut self.config);
        account.give(self.dir());
        self.account = Some(account);
        self
    }

    /// A container that runs the test init with these words.
    pub fn inside(words: &[&str]) -> Self {
        let mut args = vec!["/bin/inside"];
        args.extend(words);
        let container = Self::with_args(&args);
        install_inside(&container.rootfs());
        container
    }

    /// A container that does nothing until it is killed.
    pub fn idle() -> Self {
        Self::with_args(&["sleep", "1000000"])
    }

    /// Its commands see the machine in another way.
    #[must_use]
    pub fn in_view(mut self, view: View) -> Self {
        self.enter(view);
        self
    }

    /// Its commands see the machine in another way from now on.
    pub fn enter(&mut self, view: View) {
        self.view = Some(view);
    }

    /// Its commands do without some system calls.
    #[must_use]
    pub fn without(mut self, calls: Without) -> Self {
        self.without = calls;
        self
    }

    /// It shares another container's state root.
    #[must_use]
    pub fn beside(mut self, other: &Self) -> Self {
        self.root.clone_from(&other.root);
        self
    }

    /// Its commands get these flags before the command's name.
    #[must_use]
    pub fn with_global_flags(mut self, flags: &[&str]) -> Self {
        self.global = flags.iter().map(|&flag| flag.to_owned()).collect();
        self
    }

    /// Which id of the host the base configuration maps an id of the container to.
    pub fn host_id(&self, id: u32) -> u32 {
        self.account
            .as_ref()
            .map_or(id, |account| account.host_id(id))
    }

    /// Changes the configuration at a JSON pointer, making the objects on the way.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut place = &mut self.config;
        for name in pointer.trim_start_matches('/').split('/') {
            place = match name.parse::<usize>() {
                Ok(index) if place.is_array() => &mut place[index],
                _ => &mut place[name],
            };
        }
        *place = value;
        self
    }

    /// Appends to a list of the configuration.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        let list = self
            .config
            .pointer_mut(pointer)
            .and_then(Value::as_array_mut);
        list.unwrap_or_else(|| panic!("{pointer} is a list"))
            .push(value);
        self
    }

    /// Removes an entry of the configuration.
    pub fn unset(&mut self, pointer: &str) -> &mut Self {
        let (object, name) = pointer.rsplit_once('/').expect("a pointer");
        let object = self
            .config
            .pointer_mut(object)
            .and_then(Value::as_object_mut)
            .expect("an object");
        object.remove(name);
        self
    }

    /// The directory of this test, removed at its end.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The bundle.
    pub fn bundle(&self) -> PathBuf {
        self.dir().join("bundle")
    }

    /// The root filesystem in the bundle.
    pub fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// The state root given as `--root`.
    pub fn state_root(&self) -> &Path {
        &self.root
    }

    /// Writes config.json as the test has changed it.
    pub fn write_config(&self) {
        let text = serde_json::to_string_pretty(&self.config).expect("JSON");
        fs::write(self.bundle().join("config.json"), text).expect("the bundle is writable");
        self.give();
    }

    /// What a test has put into its directory is the user's.
    fn give(&self) {
        if let Some(account) = &self.account {
            account.give(self.dir());
        }
    }

    /// The runtime's command line, `--root` and global flags included, with nothing on stdin.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = match (&self.account, &self.view) {
            (Some(account), _) => account.command(runtime()),
            (None, Some(view)) => view.command(runtime()),
            (None, None) => Command::new(runtime()),
        };
        command.arg("--root").arg(&self.root);
        // The test users have no systemd of their own.
        if self.account.is_none() {
            command.args(cgroup_manager_flags());
        }
        command.args(&self.global).args(args).stdin(Stdio::null());
        self.without.apply(&mut command);
        command
    }

    /// Runs the runtime with these arguments.
    pub fn runtime<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.give();
        finish(self.command(args), self.dir())
    }

    /// Runs the runtime with these arguments and a text on stdin.
    pub fn runtime_with_input<S: AsRef<OsStr>>(&self, args: &[S], input: &str) -> Output {
        let file = tempfile::Builder::new()
            .tempfile_in(self.dir())
            .expect("a file");
        fs::write(file.path(), input).expect("a file");
        let mut command = self.command(args);
        command.stdin(File::open(file.path()).expect("a file"));
        finish(command, self.dir())
    }

    /// Runs any command line to its end.
    pub fn finish(&self, command: Command) -> Output {
        finish(command, self.dir())
    }

    /// A command line of create or run with these flags.
    pub fn bundle_command(&self, name: &str, flags: &[&str]) -> Command {
        self.write_config();
        let bundle = self.bundle();
        let mut args = vec![OsStr::new(name), OsStr::new("--bundle"), bundle.as_os_str()];
        args.extend(flags.iter().map(OsStr::new));
        args.push(OsStr::new(&self.id));
        self.command(&args)
    }

    /// `run`, in the foreground, to its end.
    pub fn run(&self) -> Output {
        self.run_with(&[])
    }

    /// `run` with flags.
    pub fn run_with(&self, flags: &[&str]) -> Output {
        self.to_files(self.bundle_command("run", flags))
    }

    /// `run --detach`, which must succeed.
    #[track_caller]
    pub fn run_detached(&self) -> &Self {
        self.run_with(&["--detach"]).ok();
        self
    }

    /// `create`.
    pub fn create(&self) -> Output {
        self.create_with(&[])
    }

    /// `create` with flags.
    pub fn create_with(&self, flags: &[&str]) -> Output {
        self.to_files(self.bundle_command("create", flags))
    }

    /// Runs a command whose stdout and stderr the container may keep: [`Self::said`] reads on.
    pub fn to_files(&self, command: Command) -> Output {
        finish_into(
            command,
            &self.dir().join("stdout"),
            &self.dir().join("stderr"),
        )
    }

    /// What the container has written to stdout since create or run.
    pub fn said(&self) -> String {
        read_text(&self.dir().join("stdout"))
    }

    /// Waits until the container has written these words.
    #[track_caller]
    pub fn wait_to_say(&self, words: &str) -> String {
        eventually(&format!("{} says {words:?}", self.id), || {
            Some(self.said()).filter(|said| said.contains(words))
        })
    }

    /// `start`.
    pub fn start(&self) -> Output {
        self.runtime(&["start", &self.id])
    }

    /// `exec` of a line of shell.
    pub fn exec(&self, script: &str) -> Output {
        self.exec_with(&[], &["sh", "-c", script])
    }

    /// `exec` with flags.
    pub fn exec_with(&self, flags: &[&str], args: &[&str]) -> Output {
        let mut all = vec!["exec"];
        all.extend(flags);
        all.push(&self.id);
        all.extend(args);
        self.runtime(&all)
    }

    /// `state`, which must succeed.
    #[track_caller]
    pub fn state(&self) -> Value {
        let text = self.runtime(&["state", &self.id]).ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("state is JSON: {e}: {text}"))
    }

    /// The status that `state` tells.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"]
            .as_str()
            .expect("a status")
            .to_owned()
    }

    /// The init process's id that `state` tells.
    #[track_caller]
    pub fn pid(&self) -> i64 {
        self.state()["pid"].as_i64().expect("a pid")
    }

    /// Waits for a status.
    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        eventually(&format!("{} is {status}", self.id), || {
            (self.status() == status).then_some(())
        });
    }

    /// `kill` with a signal.
    pub fn kill(&self, signal: &str) -> Output {
        self.runtime(&["kill", &self.id, signal])
    }

    /// `delete`.
    pub fn delete(&self) -> Output {
        self.runtime(&["delete", &self.id])
    }

    /// `delete --force`.
    pub fn delete_force(&self) -> Output {
        self.runtime(&["delete", "--force", &self.id])
    }

    /// What the container has left on the machine: its state, its cgroups, its mounts.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let state = self.root.join(&self.id);
        if state.exists() {
            left.push(format!("state {}", state.display()));
        }
        left.extend(
            cgroup_dirs_named(&self.id)
                .iter()
                .map(|dir| format!("cgroup {}", dir.display())),
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&self.id))
                .map(|line| format!("mount {line}")),
        );
        left
    }

    /// Nothing of the container is left on the machine.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "{} left behind: {left:#?}", self.id);
    }

    /// Ends what a failed test may have left, by the ids that stand in the container's own cgroups.
    fn sweep(&self) {
        for pid in pids_in_cgroups_named(&self.id) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for dir in cgroup_dirs_named(&self.id) {
            for _ in 0..100 {
                if fs::remove_dir(&dir).is_ok() || !dir.exists() {
                    break;
                }
                thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let output = self.delete_force();
        let left = self.leftovers();
        self.sweep();
        if !thread::panicking() {
            assert_eq!(
                output.code, 0,
                "delete --force succeeds, whatever the container's state: {output:#?}"
            );
            assert!(
                left.is_empty(),
                "{} left behind after delete --force: {left:#?}",
                self.id
            );
        }
    }
}
