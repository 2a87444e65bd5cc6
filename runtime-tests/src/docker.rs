//! Docker's daemon with the runtime under test as its default, in an engine's namespaces.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::command::{Output, eventually, finish};
use crate::engine::Engine;
use crate::runtime::runtime;

/// A daemon of the test's own, with the engine's image `localhost/busybox`.
#[derive(Debug)]
pub struct Docker {
    daemon: Child,
    /// Whose namespaces and directory it has.
    pub engine: Engine,
}

impl Docker {
    /// Starts it. Root, state and sockets are below the engine's directory.
    pub fn new() -> Self {
        let engine = Engine::new();
        let place = |name: &str| engine.path(name).display().to_string();
        let config = json!({
            "data-root": place("docker"),
            "exec-root": place("docker-state"),
            "pidfile": place("docker.pid"),
            "hosts": [format!("unix://{}", place("docker.sock"))],
            "cgroup-parent": format!("/{}", engine.name),
            "runtimes": { "tested": { "path": runtime() } },
            "default-runtime": "tested",
            "live-restore": true,
        });
        fs::write(engine.path("daemon.json"), config.to_string()).expect("a file");
        let docker = Self {
            daemon: Self::start(&engine),
            engine,
        };
        docker.wait_until_it_answers();
        docker.import("localhost/busybox:latest");
        docker
    }

    /// Brings an image from the engine's storage.
    pub fn import(&self, image: &str) {
        let file = self.engine.path("image.tar").display().to_string();
        let archive = format!("docker-archive:{file}:{image}");
        self.engine
            .buildah(&["push", "--quiet", image, &archive])
            .ok();
        self.run(&["load", "--quiet", "--input", &file]).ok();
        let _ = fs::remove_file(file);
    }

    fn start(engine: &Engine) -> Child {
        let config = engine.path("daemon.json").display().to_string();
        engine
            .command("dockerd", &["--config-file", &config])
            .stdout(Stdio::null())
            .stderr(fs::File::create(engine.path("docker.log")).expect("a file"))
            .spawn()
            .expect("dockerd is installed")
    }

    fn wait_until_it_answers(&self) {
        eventually("dockerd answers", || {
            (self.run(&["version"]).code == 0).then_some(())
        });
    }

    /// Ends the daemon, which its containers survive, and starts another.
    pub fn replace_daemon(&mut self) {
        self.end_daemon();
        self.daemon = Self::start(&self.engine);
        self.wait_until_it_answers();
    }

    fn end_daemon(&mut self) {
        // Its own id is one of the engine's namespace.
        let file = self.engine.path("docker.pid");
        let line = format!("kill $(cat {})", file.display());
        self.engine.run("sh", &["-c", &line]);
        let _ = self.daemon.wait();
    }

    /// The command line of `docker`.
    pub fn command(&self, args: &[&str]) -> Command {
        let socket = self.engine.path("docker.sock");
        let host = format!("unix://{}", socket.display());
        let mut command = self
            .engine
            .command("docker", &[&["--host", &host], args].concat());
        command.env("DOCKER_BUILDKIT", "0");
        command
    }

    /// Runs `docker` to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        finish(self.command(args), self.engine.dir())
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let left = self.run(&["ps", "--all", "--quiet"]).stdout;
        let ids: Vec<&str> = left.split_whitespace().collect();
        if !ids.is_empty() {
            self.run(&[&["rm", "--force"], &ids[..]].concat());
        }
        self.end_daemon();
    }
}
