//! The bundle that every test starts from: Debian's static busybox, the test init, and a plain configuration.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::machine::{Hierarchy, View};

const BUSYBOX: &str = "/bin/busybox";

/// Docker's default profile, as its daemon writes it into a configuration.
#[cfg(target_arch = "x86_64")]
const SECCOMP: &str = include_str!("../../crates/seccomp/tests/profiles/docker-29.amd64.json");
#[cfg(target_arch = "aarch64")]
const SECCOMP: &str = include_str!("../../crates/seccomp/tests/profiles/docker-29.arm64.json");

/// A configuration as an engine would write it: five new namespaces, the usual mounts, Docker's capabilities, no
/// devices but the default ones. It names no cgroup, so the runtime uses its default place.
pub fn base_config() -> Value {
    let capabilities = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
    .map(|name| format!("CAP_{name}"));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["true"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": false
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "inside",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// The configuration that `coracle spec` writes for who sees cgroups of this kind, without a terminal: what `runc spec` writes.
pub fn template_config(coracle: &Path, view: &View) -> Value {
    let dir = tempfile::tempdir().expect("/tmp is writable");
    let mut spec = view.command(coracle);
    let spec = spec.args(["spec", "--bundle"]).arg(dir.path());
    assert!(
        spec.status().is_ok_and(|status| status.success()),
        "{spec:?}"
    );
    let text = fs::read(dir.path().join("config.json")).expect("a file");
    let mut config: Value = serde_json::from_slice(&text).expect("JSON");
    config["process"]["terminal"] = json!(false);
    config
}

/// As the Docker daemon writes it: the base configuration with the default seccomp profile, all that is masked, and three files of the
/// bundle, which are made here with the places for them. With cgroup v2 alone there is a cgroup namespace too.
pub fn docker_config(bundle: &Path, hierarchy: Hierarchy) -> Value {
    let mut config = base_config();
    config["linux"]["maskedPaths"] = json!([
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware"
    ]);
    config["linux"]["seccomp"] = serde_json::from_str(SECCOMP).expect("a profile");
    let mounts = config["mounts"].as_array_mut().expect("a list");
    for name in ["resolv.conf", "hostname", "hosts"] {
        let (source, place) = (bundle.join(name), format!("/etc/{name}"));
        fs::write(&source, "127.0.0.1\n").expect("the bundle is writable");
        fs::write(bundle.join("rootfs").join(&place[1..]), "").expect("the bundle is writable");
        mounts.push(json!({ "destination": place, "type": "bind", "source": source, "options": ["rbind", "rprivate"] }));
    }
    if hierarchy == Hierarchy::V2 {
        let namespaces = config["linux"]["namespaces"].as_array_mut();
        namespaces
            .expect("a list")
            .push(json!({ "type": "cgroup" }));
    }
    config
}

/// Fills a root filesystem with busybox, a link for each of its commands, and the usual empty directories.
pub fn fill_rootfs(rootfs: &Path) {
    for dir in [
        "bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "var",
    ] {
        fs::create_dir_all(rootfs.join(dir)).expect("the test directory is writable");
    }
    let busybox = rootfs.join("bin/busybox");
    fs::copy(BUSYBOX, &busybox).expect("Debian's busybox-static is installed");
    for command in commands() {
        symlink("busybox", rootfs.join("bin").join(command)).expect("a link");
    }
    fs::write(
        rootfs.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )
    .and_then(|()| {
        fs::write(
            rootfs.join("etc/group"),
            "root:x:0:\nuser:x:1000:\nwheel:x:10:user\n",
        )
    })
    .expect("files");
}

/// Puts the test init into a root filesystem as `/bin/inside`.
pub fn install_inside(rootfs: &Path) {
    fs::copy(env!("INSIDE"), rootfs.join("bin/inside")).expect("the test init is built");
}

fn commands() -> &'static [String] {
    static COMMANDS: OnceLock<Vec<String>> = OnceLock::new();
    COMMANDS.get_or_init(|| {
        let list = Command::new(BUSYBOX)
            .arg("--list")
            .output()
            .expect("Debian's busybox-static is installed");
        String::from_utf8_lossy(&list.stdout)
            .lines()
            .filter(|name| *name != "busybox")
            .map(str::to_owned)
            .collect()
    })
}
