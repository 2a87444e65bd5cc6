//! How many system calls a command makes until the user's program has been executed, and after it: a count, unlike a time, is the same
//! on a busy machine, so a step that is taken twice is seen here first.
//!
//! `strace -f -c` shows where they go; docs/PERFORMANCE.md tells what is known about them.

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use runtime_tests::{
    Container, Hierarchy, View, by_systemd, has_program, is_coracle, kernel_has, kernel_since,
    requires, rootless, runtime,
};
use serde_json::json;

/// Of each command: what it is now, here on Linux 6.18, and the target if it has one. A change that makes it less lowers the bound.
const BOUNDS: [(&str, usize, Option<usize>); 6] = [
    ("run", 421, Some(220)),
    ("exec", 164, Some(120)),
    ("state", 24, Some(25)),
    ("start", 37, None),
    ("kill", 26, None),
    ("delete", 48, None),
];

/// How many of the template's masked paths there were, and what one more takes.
const MASKED: usize = 4;
const MASKING: usize = 6;

/// The configuration that `coracle spec` writes, for a program that ends at once.
fn template() -> Option<Container> {
    let mut c = Container::with_args(&["/bin/true"]).in_view(View::of(Hierarchy::V2)?);
    let _ = fs::remove_file(c.bundle().join("config.json"));
    c.runtime(&["spec", "--bundle", c.bundle().to_str().unwrap()])
        .ok();
    let config = fs::read(c.bundle().join("config.json")).unwrap();
    c.config = serde_json::from_slice(&config).unwrap();
    c.set("/process/terminal", json!(false));
    c.set("/process/args", json!(["/bin/true"]));
    Some(c)
}

/// The same command line with strace in front of the runtime.
fn traced(command: &Command, log: &str) -> Command {
    let words: Vec<_> = command.get_args().collect();
    let at = words.iter().position(|word| *word == runtime().as_os_str());
    let at = at.expect("the view's nsenter is in front of the runtime");
    let mut traced = Command::new(command.get_program());
    traced.args(&words[..at]);
    // What the caller ignores is reset, one by one.
    traced.args(["env", "--default-signal", "strace", "-f", "-o", log]);
    traced.args(&words[at..]);
    traced
}

/// The system calls in a log of `strace -f`, without those of the user's program.
fn count(log: &str) -> usize {
    let mut users = HashSet::new();
    let mut count = 0;
    for line in log.lines() {
        let (pid, call) = line.split_once(' ').expect("a pid and a call");
        let call = call.trim_start();
        let is_call = !call.starts_with(['<', '+', '-']);
        if is_call && !users.contains(pid) {
            count += 1;
        }
        if call.starts_with("execve(\"/bin/") {
            users.insert(pid);
        }
    }
    count
}

/// The least of some: a signal that comes between two waits takes one more.
fn least_of(c: &Container, command: impl Fn() -> Command) -> usize {
    let all = (0..3).map(|_| calls_of(c, &command()));
    all.min().unwrap()
}

fn calls_of(c: &Container, command: &Command) -> usize {
    let log = c.dir().join("strace");
    c.finish(traced(command, log.to_str().unwrap())).ok();
    count(&fs::read_to_string(log).unwrap())
}

#[track_caller]
fn assert_within(command: &str, more: usize, calls: usize) {
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
    let c = template();
    requires!(c.is_some(), "this machine has no v2-only view");
    let mut c = c.unwrap();
    // The state root is made, and the controllers are handed down, by the first one.
    c.run().ok();
    let masked = c.config["linux"]["maskedPaths"].as_array().unwrap();
    let there = masked
        .iter()
        .filter(|path| kernel_has(path.as_str().unwrap()));
    let more = there.count().saturating_sub(MASKED) * MASKING;
    assert_within("run", more, least_of(&c, || c.bundle_command("run", &[])));
    c.set("/process/args", json!(["/bin/sleep", "1000000"]));
    c.create().ok();
    let id = c.id.clone();
    assert_within("start", 0, calls_of(&c, &c.command(&["start", &id])));
    let exec = || c.command(&["exec", &id, "/bin/true"]);
    assert_within("exec", 0, least_of(&c, exec));
    assert_within("state", 0, least_of(&c, || c.command(&["state", &id])));
    assert_within("kill", 0, calls_of(&c, &c.command(&["kill", &id, "KILL"])));
    c.wait_for("stopped");
    assert_within("delete", 0, calls_of(&c, &c.command(&["delete", &id])));
}
