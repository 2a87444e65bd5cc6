//! What this machine is, and the views of its cgroups that a test can take.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use nix::unistd::geteuid;

use crate::cgroup::mount_point;

/// Prints why a test was skipped, past libtest's capture of output.
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    // In one piece, and with an end of its own: other tests write at the same time.
    let line = format!("[skipped: {name}: {reason}]\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The number after a flag of this program's, as benchmarks take them.
pub fn number_of(flag: &str, default: usize) -> usize {
    let mut args = std::env::args().skip_while(|arg| arg != flag).skip(1);
    args.next()
        .map_or(default, |word| word.parse().expect("a number"))
}

/// `make long` asks for everything.
pub fn long() -> bool {
    std::env::var_os("LONG").is_some_and(|value| !value.is_empty())
}

/// Every test needs root.
pub fn need_root() {
    assert!(
        geteuid().is_root(),
        "the behaviour tests make real containers and need root: run `sudo make test`"
    );
}

/// A program is in the path.
pub fn has_program(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// criu is there, the commands are root's as it is, and it can do this kernel, at least a process with a network of its own. Its `check` is
/// content with too much: on Linux 7.2 criu 4.1 writes down no network.
pub fn has_criu() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        crate::rootless().is_none()
            && has_program("criu")
            && criu_has(&[])
            && criu_dumps_a_network()
    })
}

/// What criu says to `check` with flags.
pub fn criu_has(flags: &[&str]) -> bool {
    succeeds(Command::new("criu").arg("check").args(flags))
}

fn criu_dumps_a_network() -> bool {
    let images = tempfile::tempdir().expect("/tmp is writable");
    // Its output ends once it is there.
    let script = "exec > /dev/null; exec sleep 1000000";
    let mut process = Command::new("setsid")
        .args(["unshare", "--net", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("util-linux is installed");
    let mut end = Vec::new();
    let ended = process
        .stdout
        .take()
        .map(|mut stdout| stdout.read_to_end(&mut end));
    ended.expect("stdout is a pipe").expect("it ends");
    let tree = process.id().to_string();
    let mut dump = Command::new("criu");
    dump.args(["dump", "--leave-running", "--tree", &tree, "--images-dir"]);
    let dumped = succeeds(dump.arg(images.path()));
    let _ = process.kill();
    let _ = process.wait();
    dumped
}

fn succeeds(command: &mut Command) -> bool {
    let output = command.stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

/// This process has the capability with this number.
pub fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .unwrap_or("0");
    u64::from_str_radix(line, 16).unwrap_or(0) >> number & 1 == 1
}

/// The kernel offers this file, which stands for a feature.
pub fn kernel_has(path: &str) -> bool {
    Path::new(path).exists()
}

/// The kernel is at least this Linux, for features that no file or call stands for.
pub fn kernel_since(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map_while(|part| part.parse().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// systemd is the init of this machine.
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// How the cgroups of this machine are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchy {
    /// Only v1 hierarchies.
    V1,
    /// v1 hierarchies, and v2 beside them.
    Hybrid,
    /// v2 alone.
    V2,
}

/// How the cgroups of this machine are mounted.
pub fn hierarchy() -> Hierarchy {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let has = |kind: &str| mounts.contains(&format!(" - {kind} "));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => Hierarchy::Hybrid,
        (true, false) => Hierarchy::V1,
        (false, _) => Hierarchy::V2,
    }
}

/// Containers get a cgroup of their own: root's do, an ordinary user's where one is delegated.
pub fn has_cgroup() -> bool {
    !matches!(std::env::var("ROOTLESS").as_deref(), Ok("own" | "ranges"))
}

/// A controller can limit containers on this machine: it has a v1 hierarchy, or v2 offers it.
pub fn has_controller(name: &str) -> bool {
    has_v1_controller(name) || has_v2_controller(name)
}

/// A controller has a mounted v1 hierarchy.
pub fn has_v1_controller(name: &str) -> bool {
    has_cgroup() && mount_point("cgroup", Some(name)).is_some()
}

/// cgroup v2 offers a controller, wherever it is mounted.
pub fn has_v2_controller(name: &str) -> bool {
    let offered = mount_point("cgroup2", None)
        .and_then(|dir| fs::read_to_string(dir.join("cgroup.controllers")).ok())
        .unwrap_or_default();
    has_cgroup() && offered.split_whitespace().any(|one| one == name)
}

/// A private mount namespace that shows the machine in another way: other mounts below `/sys/fs/cgroup`, another boot
/// id. It lives as long as the process that holds it.
#[derive(Debug)]
pub struct View {
    holder: Child,
}

impl View {
    /// The view, or `None` where this machine cannot give it: v1 hierarchies cannot be had from v2 alone.
    pub fn of(wanted: Hierarchy) -> Option<Self> {
        need_root();
        if !has_cgroup() || crate::rootless().is_some() && hierarchy() != wanted {
            return None;
        }
        let change = match (hierarchy(), wanted) {
            (here, wanted) if here == wanted => "true",
            // Not even the directory remains: crun makes files in it.
            (Hierarchy::Hybrid, Hierarchy::V1) => {
                "umount -l /sys/fs/cgroup/unified; cd /sys/fs/cgroup; all=$(mktemp -d); mount -t tmpfs none $all
                for one in *; do
                    if [ -L $one ]; then cp -P $one $all; elif mountpoint -q $one; then mkdir $all/$one; mount --bind $one $all/$one; fi
                done
                cd /; umount -l /sys/fs/cgroup; mount --move $all /sys/fs/cgroup; rmdir $all"
            }
            (Hierarchy::V1 | Hierarchy::Hybrid, Hierarchy::V2) => {
                "umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup"
            }
            _ => return None,
        };
        Some(Self::new(&[], change))
    }

    /// The machine as it is after its next start: every boot has an id of its own.
    pub fn after_reboot() -> Self {
        Self::new(
            &[],
            "id=$(mktemp); cat /proc/sys/kernel/random/uuid > $id; mount --bind $id /proc/sys/kernel/random/boot_id; rm $id",
        )
    }

    /// A new mount namespace (and what `flags` of unshare ask for) changed by a line of shell.
    pub fn new(flags: &[&str], change: &str) -> Self {
        let script = format!("set -e; {change}; echo ready; exec sleep infinity");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(flags)
            .args(["sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux is installed");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the namespace answers");
        assert_eq!(
            line, "ready\n",
            "a private mount namespace could not be made: {change}"
        );
        Self { holder }
    }

    /// The command that runs `program` in this view.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount={}", self.mount_namespace()))
            .arg("--")
            .arg(program);
        command
    }

    /// What is mounted in it.
    pub fn mounts(&self) -> String {
        crate::read_text(Path::new(&format!("/proc/{}/mountinfo", self.holder.id())))
    }

    /// Where it can be entered.
    pub fn mount_namespace(&self) -> String {
        self.namespace("mnt")
    }

    /// The beginning of a command line in this view and the other namespaces that were made with it.
    pub(crate) fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        for (option, kind) in [
            ("mount", "mnt"),
            ("net", "net"),
            ("pid", "pid_for_children"),
        ] {
            command.arg(format!("--{option}={}", self.namespace(kind)));
        }
        command.arg("--");
        command
    }

    pub(crate) fn namespace(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.holder.id())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
