//! What a task may use, what it uses, and what happens when that is too much.

use runtime_tests::{Containerd, cgroup_dirs_named, has_controller, read_text, requires};

use super::containerd;

/// What all cgroups of the container have in their file of v1 or in that of v2.
fn read(containerd: &Containerd, v1: &str, v2: &str) -> String {
    let dirs = cgroup_dirs_named(&containerd.engine.name);
    let files = dirs.iter().flat_map(|dir| [dir.join(v1), dir.join(v2)]);
    files.map(|file| read_text(&file)).collect()
}

pub(super) fn are_set_and_measured(containerd: &Containerd) {
    let flags = ["--detach", "--memory-limit", "67108864", "--cpus", "0.5"];
    containerd.run(&flags, "box", &["sleep", "1000000"]).ok();
    let memory = read(containerd, "memory.limit_in_bytes", "memory.max");
    assert!(memory.contains("67108864\n"), "{memory}");
    let cpu = read(containerd, "cpu.cfs_quota_us", "cpu.max");
    assert!(cpu.contains("50000"), "{cpu}");
    let metrics = containerd.ctr(&["tasks", "metrics", "box"]).ok();
    assert!(metrics.contains("memory.usage"), "{metrics}");
    let json = containerd.ctr(&["tasks", "metrics", "--format", "json", "box"]);
    let metrics: serde_json::Value = serde_json::from_str(&json.ok()).unwrap();
    let memory = &metrics["memory"];
    let limit = [&memory["usage"]["limit"], &memory["usage_limit"]]
        .into_iter()
        .find_map(serde_json::Value::as_u64);
    assert_eq!(limit, Some(67_108_864), "{metrics}");
}

pub(super) fn tell_of_a_kill(containerd: &Containerd) {
    let events = containerd.events();
    // containerd watches from the start of the task on, so that has to be over.
    let flags = ["--detach", "--memory-limit", "16777216"];
    containerd.run(&flags, "box", &["sleep", "1000000"]).ok();
    containerd.exec("box", &["tail", "/dev/zero"]).exits(137);
    events.wait_for("box", "oom");
}

#[test]
fn limits_and_metrics() {
    requires!(
        has_controller("memory") && has_controller("cpu"),
        "a controller is missing"
    );
    let Some(containerd) = containerd() else {
        return;
    };
    are_set_and_measured(&containerd);
}

#[test]
fn a_kill_for_want_of_memory_is_an_event() {
    requires!(has_controller("memory"), "no memory controller");
    let Some(containerd) = containerd() else {
        return;
    };
    tell_of_a_kill(&containerd);
}

/// The container's first process is the one that is killed, at once: what watches was there before it.
#[test]
fn a_task_that_is_killed_at_once_tells_why_before_its_end() {
    requires!(has_controller("memory"), "no memory controller");
    let Some(containerd) = containerd() else {
        return;
    };
    let events = containerd.events();
    let flags = ["--rm", "--memory-limit", "16777216"];
    containerd
        .run(&flags, "box", &["tail", "/dev/zero"])
        .exits(137);
    events.wait_for("box", "exit box");
    let topics = events.of("box");
    let place = |topic| topics.iter().position(|one| one == topic);
    let order = (place("oom"), place("exit box"));
    assert!(
        matches!(order, (Some(oom), Some(exit)) if oom < exit),
        "{topics:?}"
    );
}
