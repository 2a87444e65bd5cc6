//! A machine of a test's own: the test's program is executed again as the first process of a pid namespace, with a network, mounts and
//! empty file systems for everything that changes. So whoever loses its parent is the test's child, and what is there is the test's.

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use runtime_tests::{
    Output, base_config, cgroup_dirs_named, is_coracle, need_root, requires, runtime, shell,
};
use serde_json::{Value, json};

use crate::snapshot::{Snapshot, mounts};

/// Tells the program that it is executed again, and the name of the cgroup that all others of the test are below.
const INSIDE: &str = "FAULTS_INSIDE";
/// The runtime, and the directories of everything that it makes.
const PROGRAM: &str = "/run/bin/coracle";
pub(crate) const STATE: &str = "/run/coracle";
pub(crate) const BUNDLE: &str = "/tmp/bundle";
pub(crate) const STORE: &str = "/tmp/store";
/// The image that [`Machine::make_image`] makes.
pub(crate) const IMAGE: &str = "layout:v1";
/// Among the words of a command it stands for the cgroup above all others.
pub(crate) const PARENT: &str = "{parent}";

/// How long a command may take, and how long the processes that it has left may.
const LIMIT: Duration = Duration::from_secs(30);

/// The machine.
pub(crate) struct Machine {
    /// The name of the cgroup.
    pub(crate) parent: String,
    /// The numbers of the mounts that came with it. They go as the rest of the real machine likes.
    pub(crate) mounts: HashSet<String>,
}

/// So much in `make test`, and so much of it in `make faults`.
pub(crate) fn much(short: usize, long: usize) -> usize {
    match std::env::var("FAULTS").as_deref() {
        Ok("all") => long,
        _ => short,
    }
}

/// Runs the body of the test of this name on a machine of its own.
pub(crate) fn on_a_machine(test: &str, body: impl FnOnce(&Machine)) {
    requires!(is_coracle(), "the faults are looked for in Coracle");
    if let Ok(parent) = std::env::var(INSIDE) {
        return body(&Machine::new(parent));
    }
    need_root();
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let parent = format!("ft-{}-{number:03}", std::process::id());
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--ipc", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "--propagation", "private"])
        .arg(std::env::current_exe().expect("a program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, &parent)
        .env("RUNTIME", runtime())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("util-linux is installed");
    for dir in cgroup_dirs_named(&parent) {
        let _ = fs::remove_dir(dir);
    }
    assert!(status.success(), "see above");
}

impl Machine {
    fn new(parent: String) -> Self {
        assert_eq!(getpid().as_raw(), 1, "{INSIDE} is for this program alone");
        let program = fs::read(runtime()).expect("the runtime can be read");
        for place in ["/run", "/tmp", "/dev/shm"] {
            let none = None::<&str>;
            mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), none)
                .expect("root mounts");
        }
        let bin = Path::new(PROGRAM).parent().expect("a directory");
        fs::create_dir(bin).expect("an empty directory");
        fs::write(PROGRAM, program).expect("a file");
        // mount(8) makes /run/mount.
        shell(&format!(
            "chmod 755 {PROGRAM}; ip link set lo up; mkdir /run/mount"
        ));
        Machine {
            parent,
            mounts: mounts().into_iter().map(|(number, _)| number).collect(),
        }
    }

    /// A bundle whose container sleeps, as small as may be, with a configuration that `change` has changed.
    pub(crate) fn make_bundle(&self, change: impl FnOnce(&mut Value)) {
        let mut config = base_config();
        config["process"]["args"] = json!(["/bin/sleep", "1000000"]);
        config["linux"]["cgroupsPath"] = json!(format!("/{}/c1", self.parent));
        change(&mut config);
        shell(&format!(
            "mkdir -p {BUNDLE}/rootfs/bin; cd {BUNDLE}/rootfs; mkdir -p dev proc sys tmp
            cp /bin/busybox bin/; for name in sleep true sh; do ln -sf busybox bin/$name; done"
        ));
        let text = serde_json::to_vec(&config).expect("JSON");
        fs::write(Path::new(BUNDLE).join("config.json"), text).expect("a file");
    }

    /// Makes an image of the bundle's files.
    pub(crate) fn make_image(&self) {
        shell(&format!(
            "cd /tmp && tar -C {BUNDLE}/rootfs -cf layer.tar . && umoci init --layout layout && umoci new --image {IMAGE} &&
            umoci raw add-layer --image {IMAGE} layer.tar &&
            umoci config --image {IMAGE} --config.cmd sleep --config.cmd 1000000 --config.env PATH=/bin"
        ));
        self.coracle(&["pull", "--quiet", "oci:/tmp/layout:v1"])
            .ok();
    }

    /// The runtime's command line.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["--root", STATE, "--store", STORE]);
        command.args(args.iter().map(|arg| match *arg {
            PARENT => &self.parent,
            arg => arg,
        }));
        command.stdin(Stdio::null()).env("TMPDIR", "/tmp");
        command
    }

    /// Runs it to its end.
    pub(crate) fn coracle(&self, args: &[&str]) -> Output {
        self.finish(self.command(args))
    }

    /// Runs any command to its end.
    pub(crate) fn finish(&self, mut command: Command) -> Output {
        let said = Said::new();
        said.by(&mut command);
        let (status, hung) = limited(|| command.status().expect("the command starts"));
        assert_eq!(hung, None, "{command:?} hangs");
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        said.output(format!("{command:?}"), code.unwrap_or(255))
    }

    /// Where the cgroups of the containers are.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        cgroup_dirs_named(&self.parent)
    }

    /// What there is.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::take(self)
    }
}

/// Does something that takes the processes of this machine, which are killed when they take longer than anything may: then it tells who
/// they were.
pub(crate) fn limited<T>(work: impl FnOnce() -> T) -> (T, Option<String>) {
    let (done, wait) = channel::<()>();
    thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let end = wait.recv_timeout(LIMIT);
            (end == Err(RecvTimeoutError::Timeout)).then(|| {
                let there = processes();
                // All but the first process, which we are.
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
                there.join(", ")
            })
        });
        let result = work();
        drop(done);
        (result, watch.join().expect("it does not panic"))
    })
}

/// The other processes of this machine. One that has ended waits for us alone.
pub(crate) fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("proc is mounted").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != 1)
        .filter_map(|pid| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
            let words = read("cmdline")?
                .split(|byte| *byte == 0)
                .map(String::from_utf8_lossy)
                .collect::<Vec<_>>()
                .join(" ");
            let stat = String::from_utf8(read("stat")?).ok()?;
            let state = stat.rsplit_once(") ")?.1.chars().next()?;
            if state == 'Z' {
                return None;
            }
            let waits = read("wchan").map(|name| String::from_utf8_lossy(&name).into_owned());
            Some(format!("{words:?} ({state} {})", waits.unwrap_or_default()))
        })
        .collect()
}

/// What a command says, in files without names.
pub(crate) struct Said {
    stdout: fs::File,
    stderr: fs::File,
}

impl Said {
    pub(crate) fn new() -> Self {
        let file = || tempfile::tempfile().expect("/tmp is writable");
        Said {
            stdout: file(),
            stderr: file(),
        }
    }

    pub(crate) fn by(&self, command: &mut Command) {
        let copy = |file: &fs::File| file.try_clone().expect("a descriptor");
        command
            .stdout(copy(&self.stdout))
            .stderr(copy(&self.stderr));
    }

    pub(crate) fn output(self, command: String, code: i32) -> Output {
        use std::io::{Read, Seek};
        let text = |mut file: fs::File| {
            let mut bytes = Vec::new();
            file.rewind()
                .and_then(|()| file.read_to_end(&mut bytes))
                .expect("a file");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Output {
            command,
            code,
            stdout: text(self.stdout),
            stderr: text(self.stderr),
        }
    }
}
