//! On which CPUs processes run (runtime-spec config.md, `process.execCPUAffinity`).

use std::fs;

use runtime_tests::{
    Container, Output, has_cgroup, has_controller, is_coracle, is_runc_since, requires, shell,
};
use serde_json::{Value, json};

const LOOK: &[&str] = &["grep", "Cpus_allowed_list", "/proc/self/status"];

/// The line of /proc/PID/status.
fn line(cpus: &str) -> String {
    format!("Cpus_allowed_list:\t{cpus}\n")
}

fn all() -> String {
    shell("grep Cpus_allowed_list /proc/self/status")
}

fn has_two_cpus() -> bool {
    all().contains("0-")
}

/// `exec --process`.
fn exec_process(c: &Container, change: impl FnOnce(&mut Value)) -> Output {
    let mut process = c.config["process"].clone();
    process["args"] = json!(LOOK);
    process.as_object_mut().unwrap().remove("execCPUAffinity");
    change(&mut process);
    let file = c.dir().join("process.json");
    fs::write(&file, process.to_string()).unwrap();
    c.runtime(&["exec", "--process", file.to_str().unwrap(), &c.id])
}

#[test]
fn the_hosts_affinity_is_not_inherited_by_exec() {
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 keeps the engine's"
    );
    let c = Container::idle();
    c.run_detached();
    let inner = c.command(&[&["exec", &c.id], LOOK].concat());
    let mut command = std::process::Command::new("taskset");
    command
        .arg("1")
        .arg(inner.get_program())
        .args(inner.get_args());
    assert_eq!(c.finish(command).ok(), all());
}

#[test]
fn the_final_affinity_is_the_executed_processs() {
    requires!(is_coracle(), "runc 1.3 has no execCPUAffinity");
    requires!(has_two_cpus(), "one CPU leaves no choice");
    let mut c = Container::new("grep Cpus_allowed_list /proc/self/status; sleep 1000000");
    c.set(
        "/process/execCPUAffinity",
        json!({ "initial": "0", "final": "1" }),
    );
    c.run_detached();
    assert_eq!(
        c.wait_to_say("\n"),
        all(),
        "it means nothing for the first process"
    );
    assert_eq!(c.exec_with(&[], LOOK).ok(), line("1"));
    assert_eq!(
        exec_process(&c, |_| {}).ok(),
        line("1"),
        "the container's is the default"
    );
    let own = exec_process(&c, |process| {
        process["execCPUAffinity"] = json!({ "final": "0" })
    });
    assert_eq!(own.ok(), line("0"));
    let initial = exec_process(&c, |process| {
        process["execCPUAffinity"] = json!({ "initial": "0" })
    });
    assert_eq!(
        initial.ok(),
        all(),
        "without a final one it is the container's"
    );
    let wrong = exec_process(&c, |process| {
        process["execCPUAffinity"] = json!({ "final": "0-x" })
    });
    wrong.fails_with(255, "execCPUAffinity");
    let missing = exec_process(&c, |process| {
        process["execCPUAffinity"] = json!({ "final": "8000" })
    });
    missing.fails_with(255, "process.execCPUAffinity.final: set the CPU affinity");
}

#[test]
fn the_initial_affinity_is_the_runtimes() {
    requires!(is_coracle(), "runc 1.3 has no execCPUAffinity");
    requires!(has_two_cpus(), "one CPU leaves no choice");
    let mut c = Container::idle();
    c.set("/process/execCPUAffinity", json!({ "initial": "1" }));
    c.run_detached();
    let script = "echo in >/in; while [ ! -e /out ]; do sleep 0.1; done";
    let mut runtime = c
        .command(&["exec", &c.id, "sh", "-c", script])
        .spawn()
        .unwrap();
    runtime_tests::eventually("it runs", || c.rootfs().join("in").exists().then_some(()));
    let seen = fs::read_to_string(format!("/proc/{}/status", runtime.id())).unwrap();
    fs::write(c.rootfs().join("out"), "").unwrap();
    assert!(runtime.wait().unwrap().success());
    assert!(seen.contains(&line("1")), "{seen}");
}

#[test]
fn a_deadline_scheduler_and_a_cpuset_exclude_each_other() {
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 has no scheduler"
    );
    requires!(
        has_cgroup() && has_controller("cpuset"),
        "the cpuset controller is missing"
    );
    requires!(has_two_cpus(), "one CPU leaves no choice");
    let mut c = Container::new("true");
    let ms = 1_000_000;
    c.set("/process/scheduler", json!({ "policy": "SCHED_DEADLINE", "runtime": ms, "deadline": 10 * ms, "period": 10 * ms }));
    c.set("/linux/resources/cpu", json!({ "cpus": "0" }));
    c.run().fails_with(
        1,
        "process scheduler can't be used together with AllowedCPUs",
    );
    c.assert_nothing_left();
}
