//! A task and its processes: output, exit status, states, terminals, images' storage.

use std::io::Write;
use std::process::Stdio;

use runtime_tests::{Containerd, Terminal, eventually};

use super::{IMAGE, containerd};

pub(super) fn shows_output_and_exit_status(containerd: &Containerd) {
    let script = "echo $$; echo err >&2; exit 42";
    let output = containerd.run(&["--rm"], "box", &["sh", "-c", script]);
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (42, "1\n", "err\n")
    );
    let output = containerd.run(&["--rm"], "box", &["/no/such/program"]);
    assert!(
        output.code != 0 && output.stderr.contains("/no/such/program"),
        "{output:?}"
    );
}

pub(super) fn lives_from_run_to_delete(containerd: &Containerd) {
    containerd
        .run(&["--detach"], "box", &["sleep", "1000000"])
        .ok();
    containerd.wait_for("box", "RUNNING");
    let output = containerd.exec("box", &["sh", "-c", "cat /proc/1/comm; exit 7"]);
    assert_eq!((output.code, output.stdout.as_str()), (7, "sleep\n"));
    containerd.ctr(&["tasks", "pause", "box"]).ok();
    containerd.wait_for("box", "PAUSED");
    containerd.ctr(&["tasks", "resume", "box"]).ok();
    containerd.wait_for("box", "RUNNING");
    assert_eq!(
        containerd.ctr(&["tasks", "ps", "box"]).ok().lines().count(),
        2
    );
    containerd
        .ctr(&["tasks", "kill", "--signal", "SIGKILL", "box"])
        .ok();
    containerd.wait_for("box", "STOPPED");
    let deleted = containerd.ctr(&["tasks", "delete", "box"]);
    assert!(deleted.stderr.contains("exit code 137"), "{deleted:?}");
    containerd.ctr(&["containers", "delete", "box"]).ok();
}

#[test]
fn output_and_exit_status() {
    let Some(containerd) = containerd() else {
        return;
    };
    shows_output_and_exit_status(&containerd);
}

#[test]
fn a_task_from_run_to_delete() {
    let Some(containerd) = containerd() else {
        return;
    };
    lives_from_run_to_delete(&containerd);
}

/// Each container and each exec ends with nothing left of it, also those that never started.
#[test]
fn nothing_is_left_of_a_task() {
    let Some(containerd) = containerd() else {
        return;
    };
    // What containerd makes once, it makes now.
    containerd.run(&["--rm"], "first", &["true"]).ok();
    let before = containerd.inventory();
    containerd.run(&["--rm"], "box", &["true"]).ok();
    assert_ne!(containerd.run(&["--rm"], "box", &["/none"]).code, 0);
    containerd
        .run(&["--detach"], "box", &["sleep", "1000000"])
        .ok();
    assert_eq!(containerd.shims().len(), 1);
    assert_eq!(containerd.exec("box", &["true"]).code, 0);
    assert_ne!(containerd.exec("box", &["/none"]).code, 0);
    let twice = containerd.run(&["--detach"], "box", &["true"]);
    assert!(
        twice.code != 0 && twice.stderr.contains("already exists"),
        "{twice:?}"
    );
    containerd.remove("box");
    containerd.wait_for_nothing_but(&before);
}

#[test]
fn input_is_handed_on_to_its_end() {
    let Some(containerd) = containerd() else {
        return;
    };
    let mut command = containerd.run_command(&["--rm"], IMAGE, "box", &["md5sum"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[b'x'; 1 << 20]).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    // The same of as many letters, counted here.
    let expected = runtime_tests::shell("head -c 1048576 /dev/zero | tr '\\0' x | md5sum");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn a_megabyte_of_output_arrives_before_the_end() {
    let Some(containerd) = containerd() else {
        return;
    };
    let script =
        "head -c 1000000 /dev/zero | tr '\\0' x; head -c 1000000 /dev/zero | tr '\\0' y >&2";
    let output = containerd.run(&["--rm"], "box", &["sh", "-c", script]);
    assert_eq!(
        (output.code, output.stdout.len(), output.stderr.len()),
        (0, 1_000_000, 1_000_000)
    );
}

#[test]
fn a_terminal_is_ours() {
    let Some(containerd) = containerd() else {
        return;
    };
    let mut terminal = Terminal::open();
    let script = "while ! stty size | grep '24 80'; do :; done; read word; echo said $word; exit 3";
    let command = containerd.run_command(&["--rm", "--tty"], IMAGE, "box", &["sh", "-c", script]);
    let mut child = terminal.start(&command);
    terminal.wait_to_see("24 80");
    terminal.type_in("hello\r");
    terminal.wait_to_see("said hello");
    assert_eq!(child.wait().unwrap().code(), Some(3));

    containerd
        .run(&["--detach"], "box", &["sleep", "1000000"])
        .ok();
    let mut terminal = Terminal::open();
    let exec = [
        "tasks",
        "exec",
        "--tty",
        "--exec-id",
        "one",
        "box",
        "sh",
        "-c",
    ];
    let script = "while ! stty size | grep -q '40 100'; do :; done; echo resized";
    let command = containerd.ctr_command(&[&exec[..], &[script]].concat());
    let mut child = terminal.start(&command);
    eventually("the process is there", || {
        (containerd.ctr(&["tasks", "ps", "box"]).ok().lines().count() > 2).then_some(())
    });
    terminal.resize(40, 100);
    terminal.wait_to_see("resized");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn signals_go_to_one_process_or_to_all() {
    let Some(containerd) = containerd() else {
        return;
    };
    let script = "trap 'exit 9' TERM; sleep 1000000 & echo ready; while :; do wait; done";
    let log = containerd.engine.path("log");
    let uri = format!("file://{}", log.display());
    let flags = ["--detach", "--log-uri", &uri];
    containerd.run(&flags, "box", &["sh", "-c", script]).ok();
    eventually("the trap is set", || {
        runtime_tests::read_text(&log)
            .contains("ready")
            .then_some(())
    });
    containerd
        .ctr(&["tasks", "kill", "--signal", "SIGTERM", "box"])
        .ok();
    containerd.wait_for("box", "STOPPED");
    let deleted = containerd.ctr(&["tasks", "delete", "box"]);
    assert!(deleted.stderr.contains("exit code 9"), "{deleted:?}");
    containerd.ctr(&["containers", "delete", "box"]).ok();

    // Without a pid namespace of its own, the container ends with its first process only if all are signalled.
    let flags = ["--detach", "--with-ns", "pid:/proc/1/ns/pid"];
    containerd
        .run(&flags, "box", &["sh", "-c", "sleep 1000000 & wait"])
        .ok();
    let missing = containerd.ctr(&["tasks", "kill", "--exec-id", "none", "box"]);
    assert!(
        missing.code != 0 && missing.stderr.contains("not found"),
        "{missing:?}"
    );
    containerd
        .ctr(&["tasks", "kill", "--all", "--signal", "SIGKILL", "box"])
        .ok();
    containerd.wait_for("box", "STOPPED");
    assert!(runtime_tests::pids_in_cgroups_named(&containerd.engine.name).is_empty());
}

#[test]
fn snapshotters() {
    let Some(containerd) = containerd() else {
        return;
    };
    for name in ["overlayfs", "native"] {
        if name == "native" {
            let place = containerd.engine.path("mnt").display().to_string();
            std::fs::create_dir(&place).unwrap();
            let unpack = ["images", "mount", "--snapshotter", name, IMAGE, &place];
            containerd.ctr(&unpack).ok();
            containerd.ctr(&["images", "unmount", &place]).ok();
        }
        let flags = ["--rm", "--snapshotter", name];
        let script = "echo kept > /file; cat /file; grep ' / ' /proc/self/mountinfo";
        let output = containerd.run(&flags, "box", &["sh", "-c", script]).ok();
        assert!(output.starts_with("kept\n"), "{name}: {output}");
        assert_eq!(
            output.contains(" overlay "),
            name == "overlayfs",
            "{output}"
        );
    }
}

#[test]
fn what_ctr_can_ask_for() {
    let Some(containerd) = containerd() else {
        return;
    };
    let script = "echo $WORD; pwd; touch /x";
    let flags = ["--rm", "--env", "WORD=hi", "--cwd", "/tmp", "--read-only"];
    let output = containerd.run(&flags, "box", &["sh", "-c", script]);
    assert_eq!(output.stdout, "hi\n/tmp\n", "{output:?}");
    assert!(
        output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
    let shared = containerd.engine.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("word"), "from the host").unwrap();
    let bind = format!(
        "type=bind,src={},dst=/shared,options=rbind:ro",
        shared.display()
    );
    let flags = ["--rm", "--mount", &bind, "--net-host", "--privileged"];
    let script = "cat /shared/word; ! touch /shared/x 2>/dev/null && ls -l /proc/self/ns/net";
    let output = containerd.run(&flags, "box", &["sh", "-c", script]).ok();
    assert!(output.starts_with("from the host"), "{output}");
    let own = containerd
        .engine
        .run("readlink", &["/proc/self/ns/net"])
        .ok();
    assert!(output.contains(own.trim()), "{output} {own}");
}
