//! `checkpoint` and `restore`: what a container has, it has again.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use runtime_tests::{
    ConsoleSocket, Container, Output, count_in, eventually, has_criu, is_coracle, requires,
};
use serde_json::json;

/// Waits. A sleep alone may end with the system call that criu interrupts.
pub(crate) const WAIT: &str = "while :; do sleep 1000000; done";

/// A running container that counts, with nothing of the test as its standard streams.
pub(crate) fn counting() -> Container {
    let c = Container::new(&runtime_tests::counting("/dev/shm"));
    start(&c);
    c
}

/// `run --detach` with /dev/null as the standard streams.
pub(crate) fn start(c: &Container) {
    let mut command = c.bundle_command("run", &["--detach"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().expect("the runtime starts").success());
}

/// Who counts, and how far it is.
pub(crate) fn count(c: &Container) -> (String, u64) {
    count_in(|| {
        let output = c.exec("cat /dev/shm/count");
        Some(output.stdout).filter(|_| output.code == 0)
    })
}

/// `checkpoint` into the directory `images` of the test, with the log in another.
pub(crate) fn checkpoint(c: &Container, flags: &[&str]) -> Output {
    c.finish(command(c, "checkpoint", flags))
}

/// `restore --detach` from there.
pub(crate) fn restore(c: &Container, flags: &[&str]) -> Output {
    let mut command = command(c, "restore", flags);
    command.args(["--detach", "--bundle"]).arg(c.bundle());
    c.finish(command)
}

/// The command line of either.
pub(crate) fn command(c: &Container, name: &str, flags: &[&str]) -> Command {
    let mut command = c.command(&[name, c.id.as_str()]);
    for (flag, directory) in [("--image-path", "images"), ("--work-path", "work")] {
        command.arg(flag).arg(c.dir().join(directory));
    }
    command.args(flags);
    command
}

#[test]
fn a_count_in_memory_goes_on() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let c = counting();
    let (id, before) = count(&c);
    let pid = c.pid();
    checkpoint(&c, &[]).ok();
    c.assert_nothing_left();
    let pid_file = c.dir().join("pid");
    restore(&c, &["--pid-file", &pid_file.display().to_string()]).ok();
    let (restored, after) = count(&c);
    assert_eq!(restored, id);
    assert!(after >= before, "{after} follows {before}");
    eventually("it goes on", || (count(&c).1 > after).then_some(()));
    let state = c.state();
    assert_eq!(state["status"], "running");
    assert_ne!(c.pid(), pid);
    let written = std::fs::read_to_string(pid_file).unwrap();
    assert_eq!(written, c.pid().to_string());
}

#[test]
fn a_restored_container_is_like_any_other() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let c = counting();
    count(&c);
    checkpoint(&c, &[]).ok();
    restore(&c, &[]).ok();
    assert_eq!(c.exec("echo $$ > /dev/shm/x; cat /dev/shm/x").code, 0);
    let uptimes = c.exec("cat /proc/uptime; readlink /proc/self/ns/time; readlink /proc/1/ns/time");
    let lines: Vec<String> = uptimes.ok().lines().map(str::to_owned).collect();
    if is_coracle() {
        assert_eq!(lines[1], lines[2], "exec has the container's clocks");
    }
    c.runtime(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    c.runtime(&["resume", &c.id]).ok();
    c.runtime(&["events", "--stats", &c.id]).ok();
    let stat = format!("/proc/{}/cgroup", c.pid());
    assert!(std::fs::read_to_string(stat).unwrap().contains(&c.id));
    // Once more.
    checkpoint(&c, &[]).ok();
    restore(&c, &[]).ok();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    c.assert_nothing_left();
}

#[test]
fn it_may_be_left_running() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let c = counting();
    let (id, before) = count(&c);
    checkpoint(&c, &["--leave-running"]).ok();
    assert_eq!(c.status(), "running");
    assert_eq!(count(&c).0, id);
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    restore(&c, &[]).ok();
    let (restored, after) = count(&c);
    assert!(restored == id && after >= before);
}

#[test]
fn in_the_foreground_its_status_is_ours_and_it_is_deleted() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let c = Container::new(
        "trap 'exit 7' TERM; echo up > /dev/shm/count; while :; do usleep 5000; done",
    );
    start(&c);
    eventually("it is up", || {
        (c.exec("cat /dev/shm/count").code == 0).then_some(())
    });
    checkpoint(&c, &[]).ok();
    let mut command = command(&c, "restore", &["--bundle"]);
    command.arg(c.bundle());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut restored = command.spawn().unwrap();
    eventually("it runs", || {
        let output = c.runtime(&["kill", &c.id, "TERM"]);
        (output.code == 0).then_some(())
    });
    assert_eq!(restored.wait().unwrap().code(), Some(7));
    c.assert_nothing_left();
}

#[test]
fn pipes_are_those_of_whoever_restores_it() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let c = Container::new("while read line; do echo got $line; done; sleep 1000000");
    let mut command_line = c.bundle_command("run", &["--detach"]);
    command_line
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut first = command_line.spawn().unwrap();
    // Waiting would close it, and with it the loop would end.
    let _open = first.stdin.take();
    assert!(first.wait().unwrap().success());
    checkpoint(&c, &[]).ok();
    let mut command_line = command(&c, "restore", &["--detach", "--bundle"]);
    command_line.arg(c.bundle());
    command_line
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut second = command_line.spawn().unwrap();
    let mut input = second.stdin.take().unwrap();
    assert!(second.wait().unwrap().success());
    input.write_all(b"ping\n").unwrap();
    let mut answer = [0; 9];
    second
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut answer)
        .unwrap();
    assert_eq!(&answer, b"got ping\n");
}

#[test]
fn files_are_those_of_whoever_restores_it() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    requires!(is_coracle(), "runc knows only pipes");
    let c = Container::new(
        "echo first; while ! test -e /dev/shm/go; do usleep 5000; done; echo second; sleep 1000000",
    );
    c.run_detached();
    c.wait_to_say("first\n");
    checkpoint(&c, &[]).ok();
    // criu wants a file to be one still, and as long as it was.
    let log = c.dir().join("log");
    std::fs::copy(c.dir().join("stdout"), &log).unwrap();
    let file = std::fs::File::options().append(true).open(&log).unwrap();
    let mut command = command(&c, "restore", &["--detach", "--bundle"]);
    let errors = std::fs::File::create(c.dir().join("errors")).unwrap();
    command.arg(c.bundle()).stdout(file).stderr(errors);
    assert!(command.status().unwrap().success());
    c.exec("touch /dev/shm/go").ok();
    eventually("it goes on elsewhere", || {
        (std::fs::read_to_string(&log).unwrap() == "first\nsecond\n").then_some(())
    });
    assert_eq!(c.said(), "first\n");
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let mut c = Container::new("stty -echo; while read line; do echo got $line; done");
    c.set("/process/terminal", json!(true));
    let socket = ConsoleSocket::listen(c.dir());
    let path = socket.path.display().to_string();
    c.run_with(&["--detach", "--console-socket", &path]).ok();
    let (mut terminal, _) = socket.receive();
    terminal.type_in("one\n");
    terminal.wait_to_see("got one");
    checkpoint(&c, &[]).ok();
    drop(terminal);
    restore(&c, &["--console-socket", &path]).ok();
    let (mut terminal, _) = socket.receive();
    terminal.type_in("two\n");
    terminal.wait_to_see("got two");
    restore(&c, &[]).fails(1);
}

#[test]
fn hooks_run_as_with_runc() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let mut c = Container::new(&runtime_tests::counting("/dev/shm"));
    let log = c.dir().join("hooks");
    let hook = |point: &str| {
        let script = format!(
            "echo {point} $(grep -o '\"pid\":[^,]*' | tr -d ' ') >> {}",
            log.display()
        );
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }])
    };
    let points = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ];
    for point in points
        .iter()
        .filter(|point| !matches!(**point, "createContainer" | "startContainer"))
    {
        c.set(&format!("/hooks/{point}"), hook(point));
    }
    start(&c);
    count(&c);
    std::fs::remove_file(&log).unwrap();
    checkpoint(&c, &[]).ok();
    let after_checkpoint = std::fs::read_to_string(&log).unwrap();
    assert!(
        after_checkpoint.starts_with("poststop"),
        "{after_checkpoint}"
    );
    std::fs::remove_file(&log).unwrap();
    restore(&c, &[]).ok();
    let pid = c.pid();
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(
        text,
        format!("prestart \"pid\":{pid}\ncreateRuntime \"pid\":{pid}\n")
    );
}

#[test]
fn a_paused_container_can_be_checkpointed() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let c = counting();
    let (id, before) = count(&c);
    c.runtime(&["pause", &c.id]).ok();
    checkpoint(&c, &[]).ok();
    c.assert_nothing_left();
    restore(&c, &[]).ok();
    if c.status() == "paused" {
        c.runtime(&["resume", &c.id]).ok();
    }
    let (restored, after) = count(&c);
    assert!(restored == id && after >= before);
}
