//! podman, buildah and containerd beside the runtime under test, in their own mount, network and pid namespaces: their
//! storage, their firewall rules and their processes are gone when the test is. `CGROUP_MANAGER=systemd` makes systemd
//! their cgroup manager, `ROOTLESS` (anything but nothing) the user `tester` of the VM's guest theirs.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::account::rootless;
use crate::bundle::fill_rootfs;
use crate::cgroup::{cgroup_dirs_named, pids_in_cgroups_named};
use crate::command::{Output, eventually, finish, shell};
use crate::machine::{View, has_systemd, need_root};
use crate::runtime::{by_systemd, runtime};

/// What the tests ask of containers.conf for a machine with low hard limits; the runtime comes by `--runtime`, and what
/// podman must know about it by the drop-in in `packaging/`.
fn containers_conf() -> String {
    let limits = if rootless().is_some() {
        ""
    } else {
        r#"default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]"#
    };
    let manager = if by_systemd() { "systemd" } else { "cgroupfs" };
    format!(
        "[containers]\n{limits}\n[engine]\ncgroup_manager = \"{manager}\"\nevents_logger = \"file\"\n"
    )
}

/// The engine's user, where that is not root: `tester` of the VM's guest.
const USER: u32 = 1000;

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
            .with_file_name("packaging")
            .join("containers.conf.d/coracle.conf");
        fs::copy(packaged, drop_ins.join("coracle.conf")).expect("the packaged drop-in");
        fs::write(drop_ins.join("test.conf"), containers_conf()).expect("a file");
        fs::write(etc.join("policy.json"), POLICY).expect("a file");
        fs::write(etc.join("registries.conf"), "").expect("a file");
        // In /dev/shm are podman's locks, whose name all podmans of a user share.
        let own = format!(
            "mount --bind {} /etc/containers; ip link set lo up; mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
            etc.display()
        );
        let empty_run = "mount -t tmpfs run /run; mkdir -p /run/lock";
        // systemd takes process ids as they are in its own namespace, and is asked through sockets in /run.
        let namespaces = if rootless().is_some() {
            shell(&format!("systemctl start user@{USER}.service"));
            View::new(&["--net"], &own)
        } else if by_systemd() {
            assert!(has_systemd(), "CGROUP_MANAGER=systemd needs systemd");
            let host = dir.path().join("host-run");
            fs::create_dir(&host).expect("a directory");
            let keep = format!(
                "mount --bind /run {0}; {empty_run}; for d in systemd dbus; do mkdir /run/$d; mount --rbind {0}/$d /run/$d; done; umount -l {0}",
                host.display()
            );
            View::new(&["--net"], &format!("{own}; {keep}"))
        } else {
            View::new(
                &["--net", "--pid", "--fork", "--kill-child", "--mount-proc"],
                &format!("{own}; {empty_run}"),
            )
        };
        let engine = Self {
            name,
            namespaces,
            dir,
        };
        if rootless().is_some() {
            let runtime_dir = engine.path("xdg");
            fs::create_dir(&runtime_dir).expect("a directory");
            shell(&format!("chmod 700 {}", runtime_dir.display()));
            for path in [engine.dir(), &runtime_dir] {
                chown(path, Some(USER), Some(USER)).expect("root gives it away");
            }
        }
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
        if rootless().is_some() {
            shell(&format!("chown -R {USER}:{USER} {rootfs}"));
        }
        self.buildah(&["bud", "--quiet", "--tag", "localhost/busybox", &rootfs])
            .ok();
    }

    /// The directory of this test, removed at its end.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A command line inside the engine's namespaces.
    pub fn command<S: AsRef<str>>(&self, program: &str, args: &[S]) -> Command {
        let mut command = self.namespaces.enter();
        if rootless().is_some() {
            command.args(["setpriv", "--init-groups", "--inh-caps=-all"]);
            command.args([format!("--reuid={USER}"), format!("--regid={USER}")]);
            command
                .env("USER", "tester")
                .env("XDG_RUNTIME_DIR", self.path("xdg"))
                .env(
                    "DBUS_SESSION_BUS_ADDRESS",
                    format!("unix:path=/run/user/{USER}/bus"),
                );
        }
        command
            .arg(program)
            .args(args.iter().map(AsRef::as_ref))
            .current_dir(self.dir());
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
            all.extend(
                self.cgroup_parent()
                    .map(|parent| format!("--cgroup-parent={parent}")),
            );
        }
        all.extend(args[1..].iter().map(|&arg| arg.to_owned()));
        self.command("podman", &all)
    }

    /// The parent of the containers' cgroups. An ordinary user without systemd has none to make them in.
    fn cgroup_parent(&self) -> Option<String> {
        match (by_systemd(), rootless().is_some()) {
            (true, _) => Some(format!("{}.slice", self.name)),
            (false, false) => Some(format!("/{}", self.name)),
            (false, true) => None,
        }
    }

    /// Its containers have cgroups, so limits.
    pub fn has_limits(&self) -> bool {
        self.cgroup_parent().is_some()
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

    /// The command line of Coracle with a store of its own, as a user has it. Its containers are below the engine's cgroup.
    pub fn coracle_command(&self, args: &[&str]) -> Command {
        let (root, store) = (self.path("state"), self.path("store"));
        let (root, store) = (root.to_string_lossy(), store.to_string_lossy());
        let mut all = vec!["--root", &root, "--store", &store, args[0]];
        if args[0] == "run" {
            all.extend(["--cgroup-parent", &self.name]);
        }
        all.extend(&args[1..]);
        self.command(&runtime().to_string_lossy(), &all)
    }

    /// Runs it to its end.
    pub fn coracle(&self, args: &[&str]) -> Output {
        finish(self.coracle_command(args), self.dir())
    }

    /// The file that is its network namespace.
    pub fn network(&self) -> String {
        self.namespaces.namespace("net")
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
        if rootless().is_some() {
            // Ends the process that keeps the user's namespaces.
            self.podman(&["system", "migrate"]);
        } else if by_systemd() {
            let _ = Command::new("systemctl")
                .args(["stop", &format!("{}.slice", self.name)])
                .status();
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
