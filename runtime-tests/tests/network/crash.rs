//! Killed in the middle.

use std::process::Stdio;

use runtime_tests::{has_program, requires};

use crate::machine::{Machine, Namespace, finish};

/// The system calls by which kernel objects, files and rules change, and every how many of them is tried.
const CALLS: [(&str, usize); 5] = [
    ("sendto", 1),
    ("rename", 1),
    ("write", 1),
    ("setns", 1),
    ("openat", 4),
];

#[test]
fn whoever_is_killed_leaves_what_detach_finds() {
    requires!(has_program("strace"), "strace is missing");
    let machine = Machine::new();
    let mut killed = 0;
    for command in ["attach", "detach"] {
        for (call, step) in CALLS {
            for when in (1..).step_by(step) {
                let web = Namespace::new();
                let netns = web.path();
                let attach = [
                    "attach",
                    "web",
                    &netns,
                    "-p",
                    "8080:80",
                    "-p",
                    "5353:53/udp",
                ];
                let detach = ["detach", "web"];
                let args = if command == "attach" {
                    &attach[..]
                } else {
                    &detach[..]
                };
                if command == "detach" {
                    assert!(machine.run(&attach).code == 0);
                }
                let inject = format!("inject={call}:signal=KILL:when={when}");
                let mut strace = machine.host.command("strace");
                strace.args([
                    "-f",
                    "-o",
                    "/dev/null",
                    "-e",
                    &format!("trace={call}"),
                    "-e",
                    &inject,
                ]);
                let plain = machine.command(args);
                // Behind nsenter's own arguments.
                strace.args(plain.get_args().skip(2));
                let survived = finish(strace.stdin(Stdio::null())).code == 0;
                machine.detach("web");
                machine.assert_clean();
                if survived {
                    break;
                }
                killed += 1;
            }
        }
    }
    assert!(killed > 40, "killed {killed} times only");
}

#[test]
fn a_container_that_is_gone_leaves_nothing() {
    let machine = Machine::new();
    let web = Namespace::new();
    let mut held = machine.attach("web", &web, &["-p", "8080:80"]);
    held.kill();
    drop(web);
    machine.detach("web");
    machine.detach("web");
    machine.assert_clean();
}

#[test]
fn an_attachment_that_fails_leaves_nothing() {
    let machine = Machine::new();
    let web = Namespace::new();
    web.sh("ip link add eth0 type veth peer name other");
    let output = machine.run(&["attach", "web", &web.path(), "-p", "8080:80"]);
    let wanted = "attach web to the network bridge: make veth pair cor0v2 and eth0: file exists";
    assert_eq!(output.stderr.trim_end(), wanted);
    machine.assert_clean();
}
