//! Signals: `kill`, and what a foreground run passes on.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::{Container, eventually, is_coracle, requires, rootless, shell};
use serde_json::json;

fn reporting() -> Container {
    let c = Container::inside(&["signals"]);
    c.run_detached();
    c.wait_to_say("ready\n");
    c
}

#[test]
fn kill_takes_a_name_a_signame_or_a_number_in_any_case() {
    let c = reporting();
    for (word, name) in [
        ("TERM", "TERM"),
        ("SIGHUP", "HUP"),
        ("10", "USR1"),
        ("sigusr2", "USR2"),
        ("int", "INT"),
    ] {
        c.kill(word).ok();
        c.wait_to_say(&format!("{name}\n"));
    }
}

#[test]
fn kill_sends_term_when_no_signal_is_named() {
    let c = reporting();
    c.runtime(&["kill", &c.id]).ok();
    c.wait_to_say("TERM\n");
}

#[test]
fn kill_of_an_unknown_signal_is_refused() {
    let c = reporting();
    for word in ["FOO", "SIGFOO", "0x9", "9x"] {
        let output = c.kill(word);
        assert_eq!(output.code, 1, "{word:?}: {output:?}");
        if is_coracle() {
            assert!(
                output
                    .message()
                    .contains(&format!("unknown signal \"{word}\"")),
                "{output:?}"
            );
        }
    }
    assert_eq!(c.status(), "running");
}

#[test]
fn kill_of_a_stopped_container_is_refused() {
    let c = Container::new("true");
    c.run_with(&["--keep"]).ok();
    let output = c.kill("TERM");
    assert_eq!(output.code, 1, "{output:?}");
    let words = if is_coracle() {
        "container not running"
    } else {
        ""
    };
    assert!(output.message().contains(words), "{output:?}");
}

#[test]
fn kill_of_a_created_container_works() {
    let c = Container::new("echo started");
    c.create().ok();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    assert_eq!(c.said(), "");
}

#[test]
fn kill_all_reaches_every_process_of_a_shared_pid_namespace() {
    requires!(
        rootless().is_none(),
        "an ordinary user's container has a user namespace"
    );
    let mut c = Container::new("sleep 1000000 & echo $!; wait");
    c.set(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "uts" }]),
    );
    c.run_detached();
    let child: i64 = c.wait_to_say("\n").trim().parse().unwrap();
    for flag in ["--all", "-a"] {
        c.runtime(&["kill", flag, &c.id, "KILL"]);
    }
    c.wait_for("stopped");
    eventually("the child is gone", || {
        (shell(&format!("cat /proc/{child}/stat 2>/dev/null || echo gone")).contains("gone")
            || shell(&format!("cat /proc/{child}/status 2>/dev/null || true"))
                .contains("State:\tZ"))
        .then_some(())
    });
}

#[test]
fn a_foreground_run_passes_signals_on() {
    let c = Container::inside(&["signals"]);
    let mut command = c.bundle_command("run", &[]);
    let out = c.dir().join("stdout");
    let mut child = command
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    c.wait_to_say("ready\n");
    let run = Pid::from_raw(child.id().cast_signed());
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGINT, "INT"),
    ] {
        kill(run, signal).unwrap();
        c.wait_to_say(&format!("{name}\n"));
    }
    kill(run, Signal::SIGQUIT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    c.assert_nothing_left();
}

#[test]
fn a_foreground_exec_passes_signals_on() {
    let c = Container::inside(&["wait"]);
    c.run_detached();
    let out = c.dir().join("exec-out");
    let mut child = c
        .command(&["exec", &c.id, "/bin/inside", "signals"])
        .stdout(std::fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    let said = |words: &str| {
        eventually(words, || {
            runtime_tests::read_text(&out).contains(words).then_some(())
        })
    };
    said("ready\n");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    said("TERM\n");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGQUIT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn the_container_starts_with_clean_signals() {
    requires!(is_coracle(), "runc 1.3 passes on what its caller ignores");
    let c = Container::with_args(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP USR1 PIPE; exec \"$@\"", "sh"]);
    let inner = c.bundle_command("run", &[]);
    command.arg(inner.get_program()).args(inner.get_args());
    assert_eq!(
        c.to_files(command).ok(),
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
    );
}

#[test]
fn an_exec_starts_with_clean_signals() {
    requires!(is_coracle(), "runc 1.3 passes on what its caller ignores");
    let c = Container::idle();
    c.run_detached();
    assert_eq!(
        c.exec_with(&[], &["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])
            .ok(),
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
    );
}

#[test]
fn whoever_gives_up_during_the_set_up_leaves_nothing() {
    requires!(is_coracle(), "runc leaves the container behind");
    let points = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
    ];
    for (point, signal) in points
        .into_iter()
        .zip([Signal::SIGTERM, Signal::SIGINT].into_iter().cycle())
    {
        let mut c = Container::idle();
        // The hook of the container's own root writes there.
        let reached = match point {
            "startContainer" => "/reached".to_owned(),
            _ => c.rootfs().join("reached").display().to_string(),
        };
        let script = format!("echo here >{reached}; exec sleep 1000000");
        c.set(
            &format!("/hooks/{point}"),
            json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]),
        );
        let mut child = c
            .bundle_command("run", &[])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually(point, || {
            let said = runtime_tests::read_text(&c.rootfs().join("reached"));
            (said == "here\n").then_some(())
        });
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{point}");
        c.assert_nothing_left();
    }
}

#[test]
fn a_signal_for_the_container_waits_for_the_set_up() {
    let mut c = Container::inside(&["signals"]);
    let script = format!(
        "echo here >{0}/reached; while [ ! -e {0}/go ]; do sleep 0.1; done",
        c.rootfs().display()
    );
    c.set(
        "/hooks/createRuntime",
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }]),
    );
    let out = c.dir().join("stdout");
    let mut child = c
        .bundle_command("run", &[])
        .stdout(std::fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    eventually("the hook", || {
        c.rootfs().join("reached").exists().then_some(())
    });
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGWINCH).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    std::fs::write(c.rootfs().join("go"), "").unwrap();
    c.wait_to_say("ready\n");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGQUIT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
}
