//! What a container does with its own cgroup on v2: sub-cgroups, and a runtime inside that makes containers in them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use runtime_tests::{
    Container, Hierarchy, View, base_config, cgroup_dirs_named, eventually, fill_rootfs,
    has_controller, is_coracle, is_crun, is_runc, requires, rootless, runtime, shell, v2_dir,
};
use serde_json::json;

/// Moves the container's process into a sub-cgroup and hands on the controllers, as systemd does: from then on no
/// process can be in the container's own cgroup.
const MOVE: &str = "cd /sys/fs/cgroup && mkdir app && echo $$ > app/cgroup.procs && \
    for one in $(cat cgroup.controllers); do echo +$one > cgroup.subtree_control; done; cd /; echo moved;";

/// A container that sees its own cgroup, and may change it, on cgroup v2. `None` where the host has not mounted it, or left it
/// without any controller.
fn managing(script: &str) -> Option<Container> {
    let offered = v2_dir(std::process::id().into())?.join("cgroup.controllers");
    fs::read_to_string(offered)
        .is_ok_and(|offered| !offered.trim().is_empty())
        .then_some(())?;
    let mut c = Container::new(script).in_view(View::of(Hierarchy::V2)?);
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    c.set("/mounts/6/options", json!(["nosuid", "noexec", "nodev"]));
    Some(c)
}

fn moved() -> Option<Container> {
    let c = managing(&format!("{MOVE} sleep 1000000"))?;
    c.run_detached();
    c.wait_to_say("moved\n");
    let enabled = v2_dir(c.pid()).unwrap().join("../cgroup.subtree_control");
    assert_ne!(
        fs::read_to_string(enabled).unwrap().trim(),
        "",
        "a controller is handed on"
    );
    Some(c)
}

#[test]
fn exec_into_a_container_that_moved_into_a_sub_cgroup() {
    let c = moved();
    requires!(c.is_some(), "no cgroup v2");
    let c = c.unwrap();
    assert_eq!(
        c.exec("cat /proc/self/cgroup | tail -n 1").ok(),
        "0::/app\n"
    );
    c.exec_with(&["--detach"], &["sleep", "1000000"]).ok();
    let seen = c.exec_with(&["--cgroup", "app"], &["cat", "/proc/self/cgroup"]);
    assert!(seen.ok().ends_with("0::/app\n"));
    if is_coracle() {
        c.exec_with(&["--cgroup", "/"], &["true"])
            .fails_with(255, "it hands controllers to its sub-cgroups");
    }
}

#[test]
fn a_container_with_sub_cgroups_is_managed_as_a_whole() {
    requires!(!is_crun(), "crun's ps shows the top alone");
    let c = moved();
    requires!(c.is_some(), "no cgroup v2");
    let c = c.unwrap();
    c.exec_with(&["--detach"], &["sleep", "1000000"]).ok();
    let pids: Vec<i64> =
        serde_json::from_str(&c.runtime(&["ps", "--format", "json", &c.id]).ok()).unwrap();
    assert_eq!(pids.len(), 2, "{pids:?}");
    c.runtime(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    c.runtime(&["resume", &c.id]).ok();
    assert_eq!(c.status(), "running");
    if has_controller("pids") && is_v2() {
        c.runtime(&["update", "--pids-limit", "20", &c.id]).ok();
        let text = c.runtime(&["events", "--stats", &c.id]).ok();
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["data"]["pids"], json!({ "current": 2, "limit": 20 }));
    }
    c.runtime(&["kill", "--all", &c.id, "KILL"]).ok();
    c.wait_for("stopped");
    c.delete().ok();
    c.assert_nothing_left();
}

#[test]
fn sub_cgroups_go_with_their_container() {
    let script = format!(
        "{MOVE} cd /sys/fs/cgroup; mkdir -p a/b/c empty; echo $$ > a/b/c/cgroup.procs; sleep 1000000"
    );
    let c = managing(&script);
    requires!(c.is_some(), "no cgroup v2");
    let c = c.unwrap();
    c.run_detached();
    c.wait_to_say("moved\n");
    eventually("its process is in the deepest one", || {
        v2_dir(c.pid())?.ends_with("a/b/c").then_some(())
    });
    c.delete_force().ok();
    c.assert_nothing_left();
}

#[test]
fn sub_cgroups_deeper_than_the_limit_of_open_files() {
    requires!(rootless().is_none(), "the cgroup is root's");
    requires!(is_coracle(), "runc and crun walk down by path");
    let c = managing("sleep 1000000");
    requires!(c.is_some(), "no cgroup v2");
    let c = c.unwrap();
    c.run_detached();
    let mut dir = fs::File::open(v2_dir(c.pid()).unwrap()).unwrap();
    for _ in 0..300 {
        mkdirat(&dir, "d", Mode::from_bits_truncate(0o755)).unwrap();
        dir = openat(&dir, "d", OFlag::O_DIRECTORY, Mode::empty())
            .unwrap()
            .into();
    }
    let few_files = |args: &[&str]| {
        let command = c.command(args);
        let mut limited = Command::new("prlimit");
        limited
            .arg("--nofile=64:")
            .arg(command.get_program())
            .args(command.get_args());
        c.finish(limited)
    };
    let pids = few_files(&["ps", "--format", "json", &c.id]).ok();
    assert_eq!(pids, format!("[{}]\n", c.pid()));
    few_files(&["delete", "--force", &c.id]).ok();
    c.assert_nothing_left();
}

#[test]
fn a_container_that_froze_a_part_of_itself_can_be_deleted() {
    requires!(!is_runc(), "runc leaves it behind");
    let script = "cd /sys/fs/cgroup; [ ! -d freezer ] || cd freezer; mkdir ice; sleep 1000000 & echo $! > ice/cgroup.procs;         echo FROZEN > ice/freezer.state || echo 1 > ice/cgroup.freeze; echo frozen; wait";
    let mut c = Container::new(script);
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    c.set("/mounts/6/options", json!(["nosuid", "noexec", "nodev"]));
    c.run_detached();
    c.wait_to_say(
        "frozen
",
    );
    if is_coracle() {
        c.delete_force().ok();
    }
    c.assert_nothing_left();
}

#[test]
fn a_writable_cgroup_belongs_to_the_user_of_the_container() {
    requires!(rootless().is_none(), "the cgroup is root's");
    requires!(
        is_coracle(),
        "runc does so with systemd alone, crun with a user namespace alone"
    );
    let c = managing("sleep 1000000");
    requires!(c.is_some(), "no cgroup v2");
    let mut c = c.unwrap();
    c.set("/process/user/uid", json!(1234));
    c.run_detached();
    let dir = v2_dir(c.pid()).unwrap();
    let owner = |file: &str| fs::metadata(dir.join(file)).unwrap().uid();
    for file in [
        "",
        "cgroup.procs",
        "cgroup.threads",
        "cgroup.subtree_control",
    ] {
        assert_eq!(owner(file), 1234, "{file}");
    }
    for file in ["cgroup.freeze", "cgroup.max.depth", "hugetlb.2MB.max"] {
        if dir.join(file).exists() {
            assert_eq!(owner(file), 0, "{file}");
        }
    }
}

#[test]
fn a_cgroup_that_is_not_writable_inside_stays_roots() {
    requires!(rootless().is_none(), "the cgroup is root's");
    let c = managing("sleep 1000000");
    requires!(c.is_some(), "no cgroup v2");
    let mut c = c.unwrap();
    c.set("/process/user/uid", json!(1234));
    c.set(
        "/mounts/6/options",
        json!(["nosuid", "noexec", "nodev", "ro"]),
    );
    c.run_detached();
    let dir = v2_dir(c.pid()).unwrap();
    assert_eq!(fs::metadata(dir.join("cgroup.procs")).unwrap().uid(), 0);
}

#[test]
fn root_of_a_user_namespace_manages_its_own_cgroup() {
    requires!(rootless().is_none(), "the cgroup is root's");
    requires!(!is_runc(), "runc gives it away with systemd alone");
    let c = managing(&format!(
        "{MOVE} cat /proc/self/cgroup | tail -n 1; echo 1 > /sys/fs/cgroup/cgroup.freeze; echo $?; sleep 1000000"
    ));
    requires!(c.is_some(), "no cgroup v2");
    let mut c = c.unwrap();
    c.push("/linux/namespaces", json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    c.set("/linux/uidMappings", map.clone());
    c.set("/linux/gidMappings", map);
    shell(&format!("chown -hR 100000:100000 {}", c.rootfs().display()));
    c.run_detached();
    // Its own limits stay the host's: the write to cgroup.freeze is refused.
    assert_eq!(c.wait_to_say("1\n"), "moved\n0::/app\n1\n");
    assert_eq!(
        fs::metadata(v2_dir(c.pid()).unwrap()).unwrap().uid(),
        100_000
    );
    assert_eq!(c.exec("tail -n 1 /proc/self/cgroup").ok(), "0::/app\n");
    c.delete_force().ok();
    c.assert_nothing_left();
}

#[test]
fn exec_into_a_sub_cgroup_of_one_controller() {
    requires!(is_coracle(), "runc 1.3 wants it in every hierarchy");
    let c = Container::idle();
    c.run_detached();
    let mut dirs = cgroup_dirs_named(&c.id);
    dirs.retain(|dir| dir.starts_with("/sys/fs/cgroup/pids"));
    requires!(!dirs.is_empty(), "no pids hierarchy of v1");
    fs::create_dir(dirs[0].join("sub")).unwrap();
    for flags in [
        &["--cgroup", "pids:sub"][..],
        &["--cgroup", "pids:sub", "--cgroup", "cpu:/"],
    ] {
        let seen = c.exec_with(flags, &["cat", "/proc/self/cgroup"]).ok();
        // Without v2 mounted all processes are in its root.
        for line in seen.lines().filter(|&line| line != "0::/") {
            assert!(
                line.contains(&c.id),
                "it is in the container's cgroup everywhere: {seen}"
            );
            assert_eq!(line.ends_with("/sub"), line.contains(":pids:"), "{seen}");
        }
    }
    for argument in ["sub", "cpu:sub", "pids,cpu:sub", "pids:other"] {
        c.exec_with(&["--cgroup", argument], &["true"])
            .fails_with(255, "does not exist");
    }
    c.delete_force().ok();
    c.assert_nothing_left();
}

/// What a runtime needs to be allowed.
const RIGHTS: [&str; 20] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_ADMIN",
    "NET_RAW",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_ADMIN",
    "SYS_RESOURCE",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
    "NET_BIND_SERVICE",
    "BPF",
];

/// A container with the rights, the files and the cgroup that a runtime needs, and a bundle for a container inside it.
fn with_a_runtime_inside(script: &str, limits: &[(&str, u64)]) -> Option<Container> {
    let mut c = managing(script)?;
    let all = RIGHTS.map(|name| format!("CAP_{name}"));
    for set in ["bounding", "effective", "permitted"] {
        c.set(&format!("/process/capabilities/{set}"), json!(all));
    }
    c.set(
        "/linux/resources/devices",
        json!([{ "allow": true, "access": "rwm" }]),
    );
    c.set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]));
    let inner = c.rootfs().join("inner");
    fill_rootfs(&inner.join("rootfs"));
    let mut config = base_config();
    config["process"]["args"] = json!([
        "sh",
        "-c",
        "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max 2>/dev/null; tail -n 1 /proc/self/cgroup"
    ]);
    config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "cgroup" }));
    for (controller, limit) in limits {
        config["linux"]["resources"][controller] = json!({ "limit": limit });
    }
    fs::write(inner.join("config.json"), config.to_string()).unwrap();
    fs::copy(runtime(), c.rootfs().join("bin/runtime")).unwrap();
    Some(c)
}

fn is_v2() -> bool {
    runtime_tests::hierarchy() == Hierarchy::V2
}

const LIMITS: &[(&str, u64)] = &[("pids", 17), ("memory", 33_554_432)];
const NO_LIMITS: &[(&str, u64)] = &[];
const RUN_INNER: &str = "runtime --root /run/inner run --bundle /inner nested; echo $?; ls /sys/fs/cgroup | grep nested";

#[test]
fn a_runtime_inside_limits_its_own_containers() {
    requires!(is_coracle(), "the runtime has to be a static file");
    requires!(
        is_v2() && has_controller("memory"),
        "no cgroup v2 with controllers"
    );
    // A cgroup with processes in it cannot hand controllers on: they move aside first.
    let script =
        format!("cd /sys/fs/cgroup; mkdir aside; echo $$ > aside/cgroup.procs; cd /; {RUN_INNER}");
    let mut c = with_a_runtime_inside(&script, LIMITS).unwrap();
    c.set("/linux/resources/pids", json!({ "limit": 100 }));
    c.set("/linux/resources/memory", json!({ "limit": 134_217_728 }));
    let output = c.run();
    assert_eq!(output.stdout, "17\n33554432\n0::/\n0\n", "{output:?}");
    c.assert_nothing_left();
}

#[test]
fn a_runtime_inside_says_that_its_cgroup_has_processes() {
    requires!(is_coracle(), "the words are ours");
    requires!(
        is_v2() && has_controller("memory"),
        "no cgroup v2 with controllers"
    );
    let output = with_a_runtime_inside(RUN_INNER, LIMITS).unwrap().run();
    assert_eq!(output.stdout, "1\n", "{output:?}");
    let expected = "is not available: /sys/fs/cgroup/cgroup.subtree_control does not take";
    assert!(output.message().contains(expected), "{output:?}");
    assert!(
        output.message().contains("processes live in that cgroup"),
        "{output:?}"
    );
}

#[test]
fn a_runtime_inside_needs_no_controllers_where_nothing_is_limited() {
    requires!(is_coracle(), "the runtime has to be a static file");
    let script = format!("{RUN_INNER}; cat /sys/fs/cgroup/cgroup.type");
    let c = with_a_runtime_inside(&script, NO_LIMITS);
    requires!(c.is_some(), "no cgroup v2");
    // Whatever is enabled where processes live makes it a threaded domain, below which no ordinary cgroup is possible.
    assert_eq!(c.unwrap().run().ok(), "0::/\n0\ndomain\n");
}

#[test]
fn a_runtime_inside_says_that_its_cgroups_are_read_only() {
    requires!(rootless().is_none(), "the cgroup is root's");
    requires!(is_coracle(), "the words are ours");
    let c = with_a_runtime_inside(RUN_INNER, NO_LIMITS);
    requires!(c.is_some(), "no cgroup v2");
    let mut c = c.unwrap();
    c.set(
        "/mounts/6/options",
        json!(["nosuid", "noexec", "nodev", "ro"]),
    );
    let output = c.run();
    assert_eq!(output.stdout, "1\n", "{output:?}");
    let expected = "make cgroup /sys/fs/cgroup/nested: Read-only file system (the cgroup file system is mounted read-only here";
    assert!(output.message().contains(expected), "{output:?}");
}
