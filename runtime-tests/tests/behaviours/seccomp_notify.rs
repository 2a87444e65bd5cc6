//! `SCMP_ACT_NOTIFY`: an agent decides on system calls (runtime-spec config-linux.md, "The Container Process State").

use std::path::Path;

use nix::errno::Errno;
use runtime_tests::{Container, SeccompAgent, is_coracle, is_runc_since, kernel_since, requires};
use serde_json::{Value, json};

fn profile(names: &[&str], listener: &Path) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": listener, "listenerMetadata": "for the agent",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_NOTIFY" }] })
}

#[test]
fn the_agent_gets_the_state_and_decides() {
    let mut c = Container::new("mkdir /made; echo $?; touch /file && echo touched");
    let agent = SeccompAgent::listen(c.dir(), Some(Errno::ENOMEDIUM));
    c.set(
        "/linux/seccomp",
        profile(&["mkdir", "mkdirat"], agent.path()),
    );
    c.set("/annotations", json!({ "a.b": "c" }));
    let output = c.run();
    assert!(output.stderr.contains("No medium found"), "{output:?}");
    assert_eq!(output.ok(), "1\ntouched\n");
    let states = agent.states();
    assert_eq!(states.len(), 1, "{states:?}");
    let state = &states[0];
    assert!(state["ociVersion"].is_string(), "{state}");
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["metadata"], "for the agent");
    assert_eq!(state["state"]["id"], json!(c.id));
    assert_eq!(state["state"]["status"], "creating");
    assert_eq!(state["state"]["bundle"], json!(c.bundle()));
    assert_eq!(state["state"]["annotations"]["a.b"], "c");
    assert!(state["pid"].as_i64() > Some(1), "{state}");
    assert_eq!(state["pid"], state["state"]["pid"]);
}

#[test]
fn an_executed_process_has_a_listener_of_its_own() {
    let mut c = Container::idle();
    let agent = SeccompAgent::listen(c.dir(), Some(Errno::ENOMEDIUM));
    c.set(
        "/linux/seccomp",
        profile(&["mkdir", "mkdirat"], agent.path()),
    );
    c.create().ok();
    c.start().ok();
    let output = c.exec("mkdir /made");
    assert!(output.stderr.contains("No medium found"), "{output:?}");
    output.fails(1);
    let states = agent.states();
    assert_eq!(states.len(), 2, "{states:?}");
    assert_eq!(states[1]["state"]["status"], "running");
    assert_eq!(states[1]["state"]["pid"], json!(c.pid()));
    assert_ne!(states[1]["pid"], json!(c.pid()));
}

#[test]
fn what_the_set_up_itself_needs_may_be_notified() {
    requires!(
        is_coracle(),
        "runc sends the listener by calls that wait for it"
    );
    let mut c = Container::new("echo passed");
    let agent = SeccompAgent::listen(c.dir(), None);
    let calls = [
        "read",
        "sendto",
        "sendmsg",
        "recvfrom",
        "recvmsg",
        "capset",
        "prctl",
        "execve",
        "close",
        "exit_group",
    ];
    c.set("/linux/seccomp", profile(&calls, agent.path()));
    for no_new_privileges in [false, true] {
        c.set("/process/noNewPrivileges", json!(no_new_privileges));
        assert_eq!(c.run().ok(), "passed\n");
    }
}

#[test]
fn without_an_agent_nothing_starts() {
    let mut c = Container::new("touch /started");
    let missing = c.dir().join("no.sock");
    c.set("/linux/seccomp", profile(&["mkdir"], &missing));
    c.run()
        .fails_with(1, "failed to connect with seccomp agent");
    c.assert_nothing_left();
    assert!(!c.rootfs().join("started").exists());
    c.set("/linux/seccomp/listenerPath", json!(""));
    c.run().fails_with(1, "listenerPath is not set");
    c.assert_nothing_left();
}

#[test]
fn write_cannot_be_notified() {
    let mut c = Container::new("true");
    c.set(
        "/linux/seccomp",
        profile(&["write"], Path::new("/no/agent")),
    );
    c.run()
        .fails_with(1, "SCMP_ACT_NOTIFY cannot be used for the write syscall");
    c.assert_nothing_left();
}

#[test]
fn the_listener_path_is_of_no_meaning_without_notify() {
    let mut c = Container::new("echo fine");
    let section = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/agent", "listenerMetadata": "x" });
    c.set("/linux/seccomp", section);
    assert_eq!(c.run().ok(), "fine\n");
}

#[test]
fn flags_are_handed_to_the_kernel() {
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 refuses flags beside a listener"
    );
    let mut c = Container::new("echo fine");
    let agent = SeccompAgent::listen(c.dir(), None);
    c.set("/linux/seccomp", profile(&["mkdir"], agent.path()));
    c.set(
        "/linux/seccomp/flags",
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
    );
    assert_eq!(c.run().ok(), "fine\n");
    requires!(
        is_coracle(),
        "runc 1.1 has no listener with TSYNC, and does not know the newest flag"
    );
    c.push("/linux/seccomp/flags", json!("SECCOMP_FILTER_FLAG_TSYNC"));
    if kernel_since(5, 19) {
        c.push(
            "/linux/seccomp/flags",
            json!("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
        );
    }
    assert_eq!(c.run().ok(), "fine\n");
    c.push("/linux/seccomp/flags", json!("SECCOMP_FILTER_FLAG_NONE"));
    c.run().fails_with(1, "linux.seccomp.flags");
}
