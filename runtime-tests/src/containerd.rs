//! containerd with the runtime under test below its shim for runc, in an engine's namespaces.

use std::fs;
use std::process::{Child, Stdio};

use crate::command::{Output, eventually};
use crate::engine::Engine;
use crate::runtime::{by_systemd, runtime};

/// The engine's image.
const IMAGE: &str = "localhost/busybox:latest";

/// A containerd of the test's own, with the engine's image `localhost/busybox`.
#[derive(Debug)]
pub struct Containerd {
    daemon: Child,
    /// Whose namespaces and directory it has.
    pub engine: Engine,
}

impl Containerd {
    /// Starts it. Root, state and sockets are below the engine's directory.
    pub fn new() -> Self {
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
        fs::write(engine.path("containerd.toml"), config).expect("a file");
        let daemon = engine
            .command("containerd", &["--config", &place("containerd.toml")])
            .stdout(Stdio::null())
            .stderr(fs::File::create(engine.path("containerd.log")).expect("a file"))
            .spawn()
            .expect("containerd is installed");
        let containerd = Self { daemon, engine };
        eventually("containerd answers", || {
            (containerd.ctr(&["version"]).code == 0).then_some(())
        });
        containerd.import(IMAGE);
        containerd
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

    /// Runs `ctr` to its end.
    pub fn ctr(&self, args: &[&str]) -> Output {
        let address = self.engine.path("containerd.sock").display().to_string();
        let mut all = vec!["--address", &address];
        all.extend(args);
        self.engine.run("ctr", &all)
    }

    /// `ctr run` of a container of the engine's image with flags.
    pub fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> Output {
        self.run_image(flags, IMAGE, id, args)
    }

    /// The same of another image.
    pub fn run_image(&self, flags: &[&str], image: &str, id: &str, args: &[&str]) -> Output {
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
        all.extend([image, id]);
        all.extend(args);
        self.ctr(&all)
    }

    /// What `ctr tasks list` says about it, or nothing.
    pub fn status(&self, id: &str) -> String {
        let list = self.ctr(&["tasks", "list"]).ok();
        let line = list.lines().find(|line| line.starts_with(id));
        let status = line.and_then(|line| line.split_whitespace().nth(2));
        status.unwrap_or_default().to_owned()
    }

    /// Waits until it says so.
    #[track_caller]
    pub fn wait_for(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), || {
            (self.status(id) == status).then_some(())
        });
    }
}

impl Default for Containerd {
    fn default() -> Self {
        Self::new()
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
