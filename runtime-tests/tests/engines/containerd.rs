//! containerd with the runtime under test below its shim for runc: what `ctr` asks for, and what must come back.

use std::fs;
use std::process::{Child, Stdio};

use runtime_tests::{
    Engine, Output, by_systemd, eventually, has_controller, has_program, read_text, requires,
    rootless, runtime,
};

const IMAGE: &str = "localhost/busybox:latest";

/// A containerd of the test's own, with the image.
struct Containerd {
    daemon: Child,
    engine: Engine,
}

impl Containerd {
    fn new() -> Self {
        let engine = Engine::new();
        let place = |name: &str| engine.path(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            place("containerd"),
            place("containerd-state"),
            place("containerd.sock"),
            place("containerd.sock.ttrpc"),
        );
        fs::write(engine.path("containerd.toml"), config).unwrap();
        let daemon = engine
            .command("containerd", &["--config", &place("containerd.toml")])
            .stdout(Stdio::null())
            .stderr(fs::File::create(engine.path("containerd.log")).unwrap())
            .spawn()
            .unwrap();
        let containerd = Self { daemon, engine };
        eventually("containerd answers", || {
            (containerd.ctr(&["version"]).code == 0).then_some(())
        });
        let image = containerd.engine.path("image.tar").display().to_string();
        let archive = format!("oci-archive:{image}:{IMAGE}");
        let pushed = ["push", "--quiet", IMAGE, &archive];
        containerd.engine.buildah(&pushed).ok();
        containerd.ctr(&["images", "import", &image]).ok();
        containerd
    }

    fn ctr(&self, args: &[&str]) -> Output {
        let address = self.engine.path("containerd.sock").display().to_string();
        let mut all = vec!["--address", &address];
        all.extend(args);
        self.engine.run("ctr", &all)
    }

    /// `ctr run` of a container with flags.
    fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> Output {
        let runtime = runtime().to_string_lossy();
        let name = &self.engine.name;
        let mut all = vec!["run", "--runc-binary", &runtime];
        let cgroup = if by_systemd() {
            all.push("--runc-systemd-cgroup");
            format!("{name}.slice:ctr:{name}-{id}")
        } else {
            format!("/{name}/{id}")
        };
        all.extend(["--cgroup", &cgroup]);
        all.extend(flags);
        all.extend([IMAGE, id]);
        all.extend(args);
        self.ctr(&all)
    }

    /// What `ctr tasks list` says about it, or nothing.
    fn status(&self, id: &str) -> String {
        let list = self.ctr(&["tasks", "list"]).ok();
        let line = list.lines().find(|line| line.starts_with(id));
        let status = line.and_then(|line| line.split_whitespace().nth(2));
        status.unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn wait_for(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), || {
            (self.status(id) == status).then_some(())
        });
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.ctr(&["tasks", "delete", "--force", "box"]);
        self.ctr(&["containers", "delete", "box"]);
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(self.daemon.id()).expect("a pid")),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.daemon.wait();
    }
}

macro_rules! containerd {
    () => {{
        requires!(
            has_program("containerd") && has_program("ctr") && has_program("buildah"),
            "containerd or buildah is not installed"
        );
        requires!(rootless().is_none(), "containerd runs as root here");
        Containerd::new()
    }};
}

#[test]
fn output_and_exit_status() {
    let containerd = containerd!();
    let script = "echo $$; echo err >&2; exit 42";
    let output = containerd.run(&["--rm"], "box", &["sh", "-c", script]);
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (42, "1\n", "err\n")
    );
    let output = containerd.run(&["--rm"], "box", &["/no/such/program"]);
    assert!(
        output.code != 0 && output.stderr.contains("/no/such/program"),
        "{output:?}"
    );
}

#[test]
fn a_task_from_run_to_delete() {
    let containerd = containerd!();
    containerd
        .run(&["--detach"], "box", &["sleep", "1000000"])
        .ok();
    containerd.wait_for("box", "RUNNING");
    let exec = ["tasks", "exec", "--exec-id", "one", "box", "sh", "-c"];
    let output = containerd.ctr(&[&exec[..], &["cat /proc/1/comm; exit 7"]].concat());
    assert_eq!((output.code, output.stdout.as_str()), (7, "sleep\n"));
    containerd.ctr(&["tasks", "pause", "box"]).ok();
    containerd.wait_for("box", "PAUSED");
    containerd.ctr(&["tasks", "resume", "box"]).ok();
    containerd.wait_for("box", "RUNNING");
    assert_eq!(
        containerd.ctr(&["tasks", "ps", "box"]).ok().lines().count(),
        2
    );
    containerd
        .ctr(&["tasks", "kill", "--signal", "SIGKILL", "box"])
        .ok();
    containerd.wait_for("box", "STOPPED");
    let deleted = containerd.ctr(&["tasks", "delete", "box"]);
    assert!(deleted.stderr.contains("exit code 137"), "{deleted:?}");
    containerd.ctr(&["containers", "delete", "box"]).ok();
}

#[test]
fn limits_and_metrics() {
    let containerd = containerd!();
    requires!(
        has_controller("memory") && has_controller("cpu"),
        "a controller is missing"
    );
    let flags = ["--detach", "--memory-limit", "67108864", "--cpus", "0.5"];
    containerd.run(&flags, "box", &["sleep", "1000000"]).ok();
    let dir = runtime_tests::cgroup_dirs_named(&containerd.engine.name);
    let read = |file: &str| {
        dir.iter()
            .map(|dir| read_text(&dir.join(file)))
            .collect::<String>()
    };
    // Each limit is in the file of v1 or in that of v2.
    let memory = read("memory.limit_in_bytes") + &read("memory.max");
    assert!(memory.contains("67108864\n"), "{dir:?}");
    let cpu = read("cpu.cfs_quota_us") + &read("cpu.max");
    assert!(cpu.contains("50000"), "{dir:?}");
    let metrics = containerd.ctr(&["tasks", "metrics", "box"]).ok();
    assert!(metrics.contains("memory.usage"), "{metrics}");
}

#[test]
fn a_kill_for_want_of_memory_is_an_event() {
    let containerd = containerd!();
    requires!(has_controller("memory"), "no memory controller");
    let events = containerd.engine.path("events");
    let address = containerd
        .engine
        .path("containerd.sock")
        .display()
        .to_string();
    let mut listener = containerd
        .engine
        .command("ctr", &["--address", &address, "events"])
        .stdout(fs::File::create(&events).unwrap())
        .spawn()
        .unwrap();
    // The listener is there when it has heard of something.
    eventually("events are listened to", || {
        containerd
            .ctr(&["images", "label", IMAGE, "heard=yes"])
            .ok();
        (!read_text(&events).is_empty()).then_some(())
    });
    // containerd watches from the start of the task on, so that has to be over.
    let flags = ["--detach", "--memory-limit", "16777216"];
    containerd.run(&flags, "box", &["sleep", "1000000"]).ok();
    let exec = ["tasks", "exec", "--exec-id", "one", "box"];
    containerd
        .ctr(&[&exec[..], &["tail", "/dev/zero"]].concat())
        .exits(137);
    eventually("the event", || {
        read_text(&events).contains("/tasks/oom").then_some(())
    });
    listener.kill().unwrap();
    listener.wait().unwrap();
}
