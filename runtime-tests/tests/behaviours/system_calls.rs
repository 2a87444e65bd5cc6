//! How many system calls a command makes until the user's program has been executed, and after it: a count, unlike a time, is the same
//! on a busy machine, so a step that is taken twice is seen here first.
//!
//! `strace -f -c` shows where they go; docs/PERFORMANCE.md tells what is known about them.

use std::fs;
use std::path::Path;
use std::process::Command;

use runtime_tests::{
    Container, Hierarchy, View, by_systemd, count_calls, has_program, is_coracle, kernel_has,
    kernel_since, requires, rootless, runtime, template_config, traced,
};
use serde_json::json;

/// Of each command: what it is now, here on Linux 6.18, and the target if it has one. A change that makes it less lowers the bound.
const BOUNDS: [(&str, usize, Option<usize>); 6] = [
    ("run", 220, Some(220)),
    ("exec", 110, Some(120)),
    ("state", 18, Some(25)),
    ("start", 33, None),
    ("kill", 22, None),
    ("delete", 24, None),
];

/// How many of the template's masked paths there were, and what one more takes.
const MASKED: usize = 4;
const MASKING: usize = 3;

/// What `run` and `exec` make more without open_tree_attr(2): it is tried before the second execution, and by the container's process, which needs
/// it five times.
const WITHOUT_OPEN_TREE_ATTR: (usize, usize) = (8, 2);

/// What each makes more at most where a pidfd has no inode of its own and a process is recognised by /proc/PID/stat.
const WITHOUT_PIDFS: usize = 2;

/// The configuration that `coracle spec` writes, for a program that ends at once, with its state on a tmpfs as /run is one.
fn template(state: &Path) -> Option<Container> {
    let view = View::of(Hierarchy::V2)?;
    let config = template_config(runtime(), &view);
    let mut c = Container::idle()
        .in_view(view)
        .with_global_flags(&["--root", state.to_str()?]);
    c.config = config;
    c.set("/process/args", json!(["/bin/true"]));
    Some(c)
}

/// The least of some: what comes between two waits, on a busy machine mostly, takes one more.
fn least_of(c: &Container, command: impl Fn() -> Command) -> usize {
    let all = (0..10).map(|_| calls_of(c, &command()));
    all.min().unwrap()
}

fn calls_of(c: &Container, command: &Command) -> usize {
    let log = c.dir().join("strace");
    c.finish(traced(command, runtime(), &log)).ok();
    count_calls(&fs::read_to_string(log).unwrap())
}

#[track_caller]
fn assert_within(command: &str, mut more: usize, calls: usize) {
    if !kernel_since(6, 9) {
        more += WITHOUT_PIDFS;
    }
    let of_command = |entry: &&(&str, usize, Option<usize>)| entry.0 == command;
    let (_, bound, wanted) = BOUNDS.iter().find(of_command).unwrap();
    println!("{command}: {calls} system calls, at most {bound} are expected, target {wanted:?}");
    assert!(
        calls <= bound + more,
        "{command} makes {calls} system calls, more than {bound}"
    );
}

#[test]
fn no_command_makes_more_of_them_than_it_did() {
    requires!(is_coracle(), "about our own figures");
    requires!(has_program("strace"), "strace is missing");
    requires!(kernel_since(5, 12), "there is no mount_setattr(2)");
    requires!(!by_systemd(), "systemd is asked over a socket");
    requires!(rootless().is_none(), "the view is root's");
    let state = tempfile::tempdir_in("/dev/shm").unwrap();
    let c = template(state.path());
    requires!(c.is_some(), "this machine has no v2-only view");
    let mut c = c.unwrap();
    // The state root is made, and the controllers are handed down, by the first one.
    c.run().ok();
    let masked = c.config["linux"]["maskedPaths"].as_array().unwrap();
    let there = masked
        .iter()
        .filter(|path| kernel_has(path.as_str().unwrap()));
    let more = there.count().saturating_sub(MASKED) * MASKING;
    let (of_run, of_exec) = match kernel_since(6, 15) {
        true => (0, 0),
        false => WITHOUT_OPEN_TREE_ATTR,
    };
    assert_within(
        "run",
        more + of_run,
        least_of(&c, || c.bundle_command("run", &[])),
    );
    c.set("/process/args", json!(["/bin/sleep", "1000000"]));
    c.create().ok();
    let id = c.id.clone();
    assert_within("start", 0, calls_of(&c, &c.command(&["start", &id])));
    let exec = || c.command(&["exec", &id, "/bin/true"]);
    assert_within("exec", of_exec, least_of(&c, exec));
    assert_within("state", 0, least_of(&c, || c.command(&["state", &id])));
    assert_within("kill", 0, calls_of(&c, &c.command(&["kill", &id, "KILL"])));
    c.wait_for("stopped");
    assert_within("delete", 0, calls_of(&c, &c.command(&["delete", &id])));
}
