//! Older kernels, imitated: a system call that they lack gives ENOSYS here too.

use runtime_tests::{Container, has_program, is_coracle, requires};
use serde_json::json;

/// What a container sees when `run` goes without the system call.
fn mounts_without(call: Option<&str>) -> Vec<String> {
    let mut c = Container::new("cat /proc/self/mountinfo");
    let file = c.dir().join("file");
    std::fs::write(&file, "of the host\n").unwrap();
    c.push("/mounts", json!({ "destination": "/file", "type": "bind", "source": file, "options": ["bind", "ro", "nosuid"] }));
    c.set("/root/readonly", json!(true));
    std::fs::write(c.rootfs().join("file"), "").unwrap();
    let inner = c.bundle_command("run", &[]);
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-o", "/dev/null"]);
    match call {
        Some(call) => command.args(["-e", &format!("inject={call}:error=ENOSYS")]),
        None => command.args(["-e", "trace=none"]),
    };
    command.arg(inner.get_program()).args(inner.get_args());
    let seen = c.to_files(command).ok();
    c.assert_nothing_left();
    // Place, options and type; ids and the temporary directory are different each time.
    let fields = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let kind = line
            .split(" - ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        format!("{} {} {kind}", words[4], words[5])
    };
    seen.lines().map(fields).collect()
}

#[test]
fn without_mount_setattr_the_mounts_are_the_same() {
    requires!(is_coracle(), "about a fallback of our own");
    requires!(has_program("strace"), "strace is missing");
    let seen = mounts_without(Some("mount_setattr"));
    assert!(
        seen.iter().any(|line| line.starts_with("/file ro,nosuid")),
        "{seen:#?}"
    );
    assert_eq!(seen, mounts_without(None));
}

#[test]
fn without_faccessat2_programs_are_found() {
    requires!(is_coracle(), "about a fallback of our own");
    requires!(has_program("strace"), "strace is missing");
    assert!(!mounts_without(Some("faccessat2")).is_empty());
}
