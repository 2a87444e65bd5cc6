//! containerd with a shim and the runtime under test, in an engine's namespaces.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cgroup::cgroup_dirs_named;
use crate::command::{Output, eventually, finish, read_text};
use crate::engine::Engine;
use crate::runtime::{by_systemd, runtime};
use crate::shim::{Shim, search_path};

/// The engine's image.
const IMAGE: &str = "localhost/busybox:latest";

/// A containerd of the test's own, with the engine's image `localhost/busybox`.
#[derive(Debug)]
pub struct Containerd {
    daemon: Child,
    /// Where its images and containers are: `default`, or CRI's `k8s.io`.
    namespace: &'static str,
    /// What its containers have over them.
    pub shim: Shim,
    /// Whose namespaces and directory it has.
    pub engine: Engine,
}

impl Containerd {
    /// With the shim under test.
    pub fn new() -> Self {
        Self::above(Shim::under_test())
    }

    /// With another shim.
    pub fn above(shim: Shim) -> Self {
        let off = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        Self::start(Engine::new(), shim, "default", off)
    }

    /// On an engine's machine, with a configuration that says which version it has. Root, state and sockets are below
    /// the engine's directory.
    pub fn start(engine: Engine, shim: Shim, namespace: &'static str, config: &str) -> Self {
        let place = |name: &str| engine.path(name).display().to_string();
        let (head, tables) = config.split_once('\n').expect("the version, and the rest");
        // Top-level keys stand before every table.
        let keys = format!(
            "{head}\nroot = {:?}\nstate = {:?}\n{tables}",
            place("containerd"),
            place("containerd-state")
        );
        let sockets = format!(
            "\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = {:?}\n",
            place("containerd.sock"),
            place("containerd.sock.ttrpc"),
            place("opt"),
        );
        fs::write(engine.path("containerd.toml"), keys + &sockets).expect("a file");
        let bin = engine.path("bin");
        fs::create_dir_all(&bin).expect("a directory");
        symlink(shim.program(), bin.join(shim.file_name())).expect("a link");
        let containerd = Self {
            daemon: Self::spawn(&engine),
            namespace,
            shim,
            engine,
        };
        containerd.wait_until_it_answers();
        containerd.import(IMAGE);
        containerd
    }

    fn spawn(engine: &Engine) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(engine.path("containerd.log"));
        let dir = engine.dir().display();
        let line = format!(
            "echo $$ > {dir}/containerd.pid; exec containerd --config {dir}/containerd.toml"
        );
        engine
            .command("sh", &["-c", &line])
            .env("PATH", path(engine))
            .stdout(Stdio::null())
            .stderr(log.expect("a file"))
            .spawn()
            .expect("nsenter is installed")
    }

    fn wait_until_it_answers(&self) {
        eventually("containerd answers", || {
            (self.ctr(&["version"]).code == 0).then_some(())
        });
    }

    /// Kills it; its containers stay.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    /// Starts another, with the same configuration, after the end of this one.
    pub fn start_again(&mut self) {
        self.daemon = Self::spawn(&self.engine);
        self.wait_until_it_answers();
    }

    fn end(&mut self, signal: &str) {
        // Its own id is one of the engine's namespace.
        let file = self.engine.path("containerd.pid");
        let line = format!("kill -{signal} $(cat {})", file.display());
        self.engine.run("sh", &["-c", &line]);
        let _ = self.daemon.wait();
    }

    /// The socket that it listens at.
    pub fn socket(&self) -> PathBuf {
        self.engine.path("containerd.sock")
    }

    /// Brings an image from the engine's storage.
    pub fn import(&self, image: &str) {
        let file = self.engine.path("image.tar").display().to_string();
        let archive = format!("oci-archive:{file}:{image}");
        self.engine
            .buildah(&["push", "--quiet", image, &archive])
            .ok();
        self.ctr(&["images", "import", &file]).ok();
        let _ = fs::remove_file(file);
    }

    /// The command line of `ctr`.
    pub fn ctr_command(&self, args: &[&str]) -> Command {
        let address = self.socket().display().to_string();
        let mut all = vec!["--address", &address, "--namespace", self.namespace];
        all.extend(args);
        let mut command = self.engine.command("ctr", &all);
        command.env("PATH", path(&self.engine));
        command
    }

    /// Runs `ctr` to its end.
    pub fn ctr(&self, args: &[&str]) -> Output {
        finish(self.ctr_command(args), self.engine.dir())
    }

    /// `ctr run` of a container of the engine's image with flags.
    pub fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> Output {
        self.run_image(flags, IMAGE, id, args)
    }

    /// The same of another image.
    pub fn run_image(&self, flags: &[&str], image: &str, id: &str, args: &[&str]) -> Output {
        finish(self.run_command(flags, image, id, args), self.engine.dir())
    }

    /// The command line of `ctr run`.
    pub fn run_command(&self, flags: &[&str], image: &str, id: &str, args: &[&str]) -> Command {
        let kind = self.shim.runtime_type();
        let mut all = vec!["run", "--runtime", &kind];
        let runtime = runtime().to_string_lossy();
        if self.shim.is_runc() {
            all.extend(["--runc-binary", &runtime]);
            if by_systemd() {
                all.push("--runc-systemd-cgroup");
            }
        }
        let name = &self.engine.name;
        let cgroup = if by_systemd() && self.shim.is_runc() {
            format!("{name}.slice:ctr:{name}-{id}")
        } else {
            format!("/{name}/{id}")
        };
        all.extend(["--cgroup", &cgroup]);
        all.extend(flags);
        all.extend([image, id]);
        all.extend(args);
        self.ctr_command(&all)
    }

    /// `ctr tasks exec` in a container.
    pub fn exec(&self, id: &str, args: &[&str]) -> Output {
        self.ctr(&[&["tasks", "exec", "--exec-id", "one", id], args].concat())
    }

    /// What `ctr tasks list` says about it, or nothing.
    pub fn status(&self, id: &str) -> String {
        let list = self.ctr(&["tasks", "list"]).ok();
        let mut lines = list.lines().map(str::split_whitespace);
        let line = lines.find_map(|mut words| (words.next() == Some(id)).then_some(words));
        let status = line.and_then(|mut words| words.nth(1));
        status.unwrap_or_default().to_owned()
    }

    /// Waits until it says so.
    #[track_caller]
    pub fn wait_for(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), || {
            (self.status(id) == status).then_some(())
        });
    }

    /// Kills a container and removes it.
    #[track_caller]
    pub fn remove(&self, id: &str) {
        self.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]).ok();
        self.wait_for(id, "STOPPED");
        self.ctr(&["tasks", "delete", id]);
        self.ctr(&["containers", "delete", id]).ok();
    }

    /// The processes of its shims.
    pub fn shims(&self) -> Vec<i32> {
        let (name, address) = (self.shim.file_name(), self.socket());
        let address = address.to_string_lossy();
        let is_shim = |pid: &i32| {
            let line = read_text(Path::new(&format!("/proc/{pid}/cmdline")));
            let mut words = line.split('\0');
            words.next().is_some_and(|word| word.ends_with(name))
                && words.any(|word| word == address)
        };
        let entries = fs::read_dir("/proc").expect("proc is mounted").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(is_shim).collect()
    }

    /// All that containers leave on the machine when something goes wrong: shims, mounts, cgroups, and files, sockets and
    /// fifos in the directories of state.
    pub fn inventory(&self) -> BTreeSet<String> {
        let state = self.engine.path("containerd-state").display().to_string();
        // What systemd keeps there is of other tests as well; a scope of this one's is told by its cgroup.
        let others = r".*/netns\|/run/systemd/.*";
        let all = ["/run", &state, "-not", "-regex", others];
        let files = self.engine.run("find", &all).stdout;
        let mounts = self.engine.run("cat", &["/proc/self/mountinfo"]).ok();
        let mut found: BTreeSet<String> = files.lines().map(str::to_owned).collect();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        found.extend(places.map(|place| format!("mount {place}")));
        found.extend(self.shims().iter().map(|pid| format!("shim {pid}")));
        let cgroups = cgroup_dirs_named(&self.engine.name);
        found.extend(cgroups.iter().map(|dir| dir.display().to_string()));
        found
    }

    /// Waits until nothing is there that was not before.
    #[track_caller]
    pub fn wait_for_nothing_but(&self, before: &BTreeSet<String>) {
        let mut left = Vec::new();
        let last = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::time::Instant::now() < last {
            left = self.inventory().difference(before).cloned().collect();
            if left.is_empty() {
                return;
            }
        }
        panic!("left behind: {left:#?}");
    }

    /// Listens to its events from now on.
    pub fn events(&self) -> Events {
        let file = tempfile::NamedTempFile::new_in(self.engine.dir()).expect("a file");
        let listener = self
            .ctr_command(&["events"])
            .stdout(file.reopen().expect("a file"))
            .spawn()
            .expect("nsenter is installed");
        let events = Events { listener, file };
        // The listener is there when it has heard of something.
        eventually("events are listened to", || {
            self.ctr(&["images", "label", IMAGE, "heard=yes"]).ok();
            (!read_text(events.file.path()).is_empty()).then_some(())
        });
        events
    }
}

/// The search path with the shim in it.
fn path(engine: &Engine) -> String {
    format!("{}:{}", engine.path("bin").display(), search_path())
}

impl Default for Containerd {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let left = self.ctr(&["tasks", "list", "--quiet"]).stdout;
        for id in left.split_whitespace() {
            self.ctr(&["tasks", "delete", "--force", id]);
        }
        self.end("TERM");
    }
}

/// What containerd tells its listeners, as `ctr events` prints it.
#[derive(Debug)]
pub struct Events {
    listener: Child,
    file: tempfile::NamedTempFile,
}

impl Events {
    /// All that was said so far.
    pub fn text(&self) -> String {
        read_text(self.file.path())
    }

    /// The topics about a container's task, in their order; an exit with the id of the process.
    pub fn of(&self, id: &str) -> Vec<String> {
        let text = self.text();
        let about = format!("\"container_id\":\"{id}\"");
        let of_task = |line: &str| {
            let (head, data) = line.split_once('{')?;
            let topic = head.split_whitespace().last()?;
            let mut topic = topic.strip_prefix("/tasks/")?.to_owned();
            if topic == "exit" {
                let (_, process) = data.split_once("\"id\":\"")?;
                topic = format!("exit {}", process.split('"').next()?);
            }
            data.contains(&about).then_some(topic)
        };
        text.lines().filter_map(of_task).collect()
    }

    /// Waits for one of the topics about a container's task.
    #[track_caller]
    pub fn wait_for(&self, id: &str, topic: &str) {
        eventually(&format!("the event {topic} of {id}"), || {
            self.of(id).iter().any(|one| one == topic).then_some(())
        });
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.listener.kill();
        let _ = self.listener.wait();
    }
}
