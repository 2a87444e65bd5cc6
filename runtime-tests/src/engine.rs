//! podman and buildah beside the runtime under test, in their own mount, network and pid namespaces: their storage,
//! their firewall rules and their processes are gone when the test is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::bundle::fill_rootfs;
use crate::cgroup::{cgroup_dirs_named, pids_in_cgroups_named};
use crate::command::{Output, eventually, finish};
use crate::machine::{View, need_root};
use crate::runtime::runtime;

/// What the tests ask of containers.conf for a machine without systemd and with low hard limits; the runtime comes by
/// `--runtime`, and what podman must know about it by the drop-in in `packaging/`.
const CONTAINERS_CONF: &str = r#"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"#;

const POLICY: &str = r#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#;

/// A machine of its own for engines.
#[derive(Debug)]
pub struct Engine {
    /// Unique; the parent of all its cgroups.
    pub name: String,
    namespaces: View,
    dir: TempDir,
}

impl Engine {
    /// New namespaces with an empty storage, `/etc/containers` made of the drop-in under `packaging/` and the test's
    /// own, and an image `localhost/busybox` made from Debian's busybox-static.
    pub fn new() -> Self {
        need_root();
        let dir = tempfile::Builder::new()
            .prefix("engine-")
            .tempdir()
            .expect("/tmp is writable");
        let name = dir
            .path()
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let etc = dir.path().join("etc");
        let drop_ins = etc.join("containers.conf.d");
        fs::create_dir_all(&drop_ins).expect("a directory");
        let packaged = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../packaging/containers.conf.d/coracle.conf");
        fs::copy(packaged, drop_ins.join("coracle.conf")).expect("the packaged drop-in");
        fs::write(drop_ins.join("test.conf"), CONTAINERS_CONF).expect("a file");
        fs::write(etc.join("policy.json"), POLICY).expect("a file");
        fs::write(etc.join("registries.conf"), "").expect("a file");
        let change = format!(
            "mount --bind {} /etc/containers; mount -t tmpfs run /run; mkdir -p /run/lock; ip link set lo up",
            etc.display()
        );
        let namespaces = View::new(
            &["--net", "--pid", "--fork", "--kill-child", "--mount-proc"],
            &change,
        );
        let engine = Self {
            name,
            namespaces,
            dir,
        };
        engine.make_image();
        engine
    }

    fn make_image(&self) {
        let rootfs = self.dir().join("busybox");
        fill_rootfs(&rootfs);
        fs::write(
            rootfs.join("Containerfile"),
            "FROM scratch\nCOPY . /\nCMD [\"sh\"]\n",
        )
        .expect("a file");
        let rootfs = rootfs.to_string_lossy();
        self.buildah(&["bud", "--quiet", "--tag", "localhost/busybox", &rootfs])
            .ok();
    }

    /// The directory of this test, removed at its end.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A command line inside the engine's namespaces.
    pub fn command<S: AsRef<str>>(&self, program: &str, args: &[S]) -> Command {
        let mut command = Command::new("nsenter");
        for (option, kind) in [
            ("mount", "mnt"),
            ("net", "net"),
            ("pid", "pid_for_children"),
        ] {
            command.arg(format!("--{option}={}", self.namespaces.namespace(kind)));
        }
        command
            .arg("--")
            .arg(program)
            .args(args.iter().map(AsRef::as_ref));
        command
            .env_remove("CONTAINERS_CONF")
            .env("HOME", self.dir())
            .stdin(Stdio::null());
        command
    }

    /// Runs any program inside the engine's namespaces.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        finish(self.command(program, args), self.dir())
    }

    fn storage(&self) -> [String; 4] {
        let path = |name: &str| self.dir().join(name).to_string_lossy().into_owned();
        [
            "--root".into(),
            path("storage"),
            "--runroot".into(),
            path("run"),
        ]
    }

    /// The command line of podman with its storage and the runtime under test.
    pub fn podman_command(&self, args: &[&str]) -> Command {
        let mut all = self.storage().to_vec();
        all.extend([
            "--tmpdir".into(),
            self.dir().join("tmp").to_string_lossy().into_owned(),
        ]);
        all.extend(["--runtime".into(), runtime().to_string_lossy().into_owned()]);
        all.push(args[0].to_owned());
        if matches!(args[0], "run" | "create") {
            all.extend(["--cgroup-parent".into(), format!("/{}", self.name)]);
        }
        all.extend(args[1..].iter().map(|&arg| arg.to_owned()));
        self.command("podman", &all)
    }

    /// Runs podman to its end.
    pub fn podman(&self, args: &[&str]) -> Output {
        finish(self.podman_command(args), self.dir())
    }

    /// Runs buildah to its end.
    pub fn buildah(&self, args: &[&str]) -> Output {
        let mut all = self.storage().to_vec();
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        let mut command = self.command("buildah", &all);
        command.env("BUILDAH_RUNTIME", runtime());
        finish(command, self.dir())
    }

    /// Runs the runtime under test inside the engine's namespaces with a state root of its own.
    pub fn runtime(&self, args: &[&str]) -> Output {
        let root = self.dir().join("state").to_string_lossy().into_owned();
        let mut all = vec!["--root", &root];
        all.extend(args);
        finish(self.command(&runtime().to_string_lossy(), &all), self.dir())
    }

    /// A path below the engine's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let removed = self.podman(&["rm", "--all", "--force", "--time", "0"]);
        for pid in pids_in_cgroups_named(&self.name) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        for dir in cgroup_dirs_named(&self.name) {
            let _ = fs::remove_dir(dir);
        }
        if !std::thread::panicking() {
            assert_eq!(
                removed.code, 0,
                "podman removes its containers: {removed:#?}"
            );
        }
    }
}

/// Waits until an HTTP server answers in the engine's network, or in that of a process there, and gives the body.
#[track_caller]
pub fn http_get(engine: &Engine, pid: Option<i64>, host: &str, port: u16) -> String {
    let ask = format!(
        "exec 3<>/dev/tcp/{host}/{port} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
    );
    eventually(&format!("{host}:{port} answers"), || {
        let answer = match pid {
            Some(pid) => engine.run(
                "nsenter",
                &["--net", "--target", &pid.to_string(), "bash", "-c", &ask],
            ),
            None => engine.run("bash", &["-c", &ask]),
        };
        let (head, body) = answer.stdout.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.to_owned())
    })
}
