//! Annotations of crun's that engines and their users rely on.

use std::fs;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::errno::Errno;
use runtime_tests::{
    ConsoleSocket, Container, Output, SeccompAgent, has_program, is_runc, requires, rootless,
};
use serde_json::json;

/// The command with two additional groups of its caller.
fn in_groups(c: &Container, args: &[&str]) -> Output {
    let command = c.command(args);
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--groups", "4001,4002"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    c.finish(wrapped)
}

#[test]
fn the_callers_groups_can_be_kept() {
    requires!(!is_runc(), "an annotation of crun's");
    requires!(
        rootless().is_none() && has_program("setpriv"),
        "it takes root to have more groups, and setpriv"
    );
    let mut c = Container::idle();
    c.set("/process/user", json!({ "uid": 5, "gid": 6 }));
    for (annotations, groups) in [
        (json!({}), "6\n"),
        (
            json!({ "run.oci.keep_original_groups": "1" }),
            "6 4001 4002\n",
        ),
    ] {
        c.set("/annotations", annotations);
        c.write_config();
        let bundle = c.bundle();
        let bundle = bundle.to_str().unwrap();
        in_groups(&c, &["run", "--detach", "--bundle", bundle, &c.id]).ok();
        let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
        let kept = status.lines().any(|line| line == "Groups:\t4001 4002 ");
        assert_eq!(kept, groups != "6\n", "{status}");
        assert_eq!(in_groups(&c, &["exec", &c.id, "id", "-G"]).ok(), groups);
        c.delete_force().ok();
    }
}

#[test]
fn the_agents_socket_where_the_profile_names_none() {
    requires!(!is_runc(), "an annotation of crun's");
    let mut c = Container::new("mkdir /made");
    let agent = SeccompAgent::listen(c.dir(), Some(Errno::ENOMEDIUM));
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }] });
    c.set("/linux/seccomp", profile);
    c.run().fails_with(1, "listenerPath is not set");
    c.set(
        "/annotations",
        json!({ "run.oci.seccomp.receiver": agent.path() }),
    );
    let output = c.run();
    assert!(output.stderr.contains("No medium found"), "{output:?}");
    assert_eq!(agent.states().len(), 1);
}

#[test]
fn an_unknown_system_call_can_be_an_error() {
    requires!(!is_runc(), "an annotation of crun's");
    let mut c = Container::new("echo fine");
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["nosuchcall"], "action": "SCMP_ACT_ERRNO" }] });
    c.set("/linux/seccomp", profile);
    assert_eq!(c.run().ok(), "fine\n");
    c.set(
        "/annotations",
        json!({ "run.oci.seccomp_fail_unknown_syscall": "1" }),
    );
    c.run().fails_with(1, "nosuchcall");
    c.assert_nothing_left();
}

#[test]
fn a_socket_receives_the_container() {
    requires!(!is_runc(), "an annotation of crun's");
    let mut c = Container::idle();
    let socket = ConsoleSocket::listen(c.dir());
    c.set(
        "/annotations",
        json!({ "run.oci.pidfd_receiver": socket.path }),
    );
    c.create().ok();
    let (pidfd, _) = socket.receive_descriptor();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    assert!(info.contains(&format!("\nPid:\t{}\n", c.pid())), "{info}");
}
