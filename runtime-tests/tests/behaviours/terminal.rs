//! Terminals: the user's own in the foreground, and one handed to an engine.

use runtime_tests::{
    ConsoleSocket, Container, Ids, Terminal, eventually, requires, rootless, shell,
};
use serde_json::json;

fn with_terminal(mut c: Container) -> Container {
    c.set("/process/terminal", json!(true));
    c
}

#[test]
fn a_foreground_container_sits_at_the_users_terminal() {
    let c = with_terminal(Container::new(
        "tty; ls -l /dev/console | cut -c1; test -t 0 && test -t 1 && test -t 2 && echo all; exit 9",
    ));
    let mut terminal = Terminal::open();
    assert_eq!(terminal.run(&c.bundle_command("run", &[])), 9);
    let seen = terminal.wait_to_see("all\r\n");
    assert!(
        seen.starts_with("/dev/pts/") || seen.starts_with("/dev/console"),
        "{seen:?}"
    );
    assert!(
        seen.contains("\r\nc\r\n"),
        "/dev/console is a character device: {seen:?}"
    );
    c.assert_nothing_left();
}

#[test]
fn keys_reach_the_container_raw_and_the_terminal_is_restored() {
    let c = with_terminal(Container::new(
        "stty -echo; echo ready; read line; echo got $line; exit 5",
    ));
    let mut terminal = Terminal::open();
    let before = terminal.settings();
    let mut child = terminal.start(&c.bundle_command("run", &[]));
    terminal.wait_to_see("ready\r\n");
    assert!(
        terminal.settings().contains("-icanon"),
        "raw while it runs: {}",
        terminal.settings()
    );
    terminal.type_in("typed\r");
    terminal.wait_to_see("got typed\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(terminal.settings(), before);
    assert!(
        !terminal.seen().contains("\r\r\n"),
        "one carriage return a line: {:?}",
        terminal.seen()
    );
}

#[test]
fn control_c_is_a_key_for_the_container() {
    let c = with_terminal(Container::new(
        "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 1; done",
    ));
    let mut terminal = Terminal::open();
    let mut child = terminal.start(&c.bundle_command("run", &[]));
    terminal.wait_to_see("ready\r\n");
    terminal.type_in("\x03");
    terminal.wait_to_see("caught\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

#[test]
fn the_window_size_follows_the_users() {
    let c = with_terminal(Container::inside(&["signals"]));
    let mut terminal = Terminal::open();
    terminal.resize(31, 97);
    let mut child = terminal.start(&c.bundle_command("run", &[]));
    terminal.wait_to_see("ready\r\n");
    // The first size is set while the container starts; the container may see it as a change or not.
    eventually("the first size", || {
        (c.exec("stty -F /dev/console size").stdout == "31 97\n").then_some(())
    });
    terminal.resize(40, 120);
    terminal.wait_to_see("WINCH");
    eventually("the new size", || {
        (c.exec("stty -F /dev/console size").stdout == "40 120\n").then_some(())
    });
    c.kill("KILL").ok();
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn console_size_of_the_configuration() {
    let mut c = with_terminal(Container::new("stty size"));
    c.set("/process/consoleSize", json!({ "height": 33, "width": 77 }));
    let socket = ConsoleSocket::listen(c.dir());
    c.create_with(&["--console-socket", &socket.path.to_string_lossy()])
        .ok();
    let (terminal, _) = socket.receive();
    c.start().ok();
    terminal.wait_to_see("33 77\r\n");
}

#[test]
fn no_output_is_lost_when_the_container_exits() {
    let c = with_terminal(Container::inside(&["write", "50000"]));
    let mut terminal = Terminal::open();
    let status = terminal.run(&c.bundle_command("run", &[]));
    let head: String = terminal.seen().chars().take(500).collect();
    assert_eq!(status, 5, "{head}");
    let seen = terminal.wait_to_see("\r\n50000\r\n");
    assert_eq!(seen.lines().count(), 50000);
}

#[test]
fn no_output_of_exec_is_lost_when_it_exits() {
    let c = Container::inside(&["wait"]);
    c.run_detached();
    let mut terminal = Terminal::open();
    assert_eq!(
        terminal.run(&c.command(&["exec", "-t", &c.id, "/bin/inside", "write", "20000"])),
        5
    );
    let seen = terminal.wait_to_see("\r\n20000\r\n");
    assert_eq!(seen.lines().count(), 20000);
}

#[test]
fn exec_with_a_terminal_reads_keys() {
    let c = Container::idle();
    c.run_detached();
    let mut terminal = Terminal::open();
    let mut child = terminal.start(&c.command(&[
        "exec",
        "--tty",
        &c.id,
        "sh",
        "-c",
        "tty; read line; echo got $line; exit 8",
    ]));
    terminal.wait_to_see("/dev/pts/");
    terminal.type_in("typed\r");
    terminal.wait_to_see("got typed\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(8));
}

#[test]
fn a_console_socket_receives_the_terminal() {
    let c = with_terminal(Container::new("tty; read line; echo got $line"));
    let socket = ConsoleSocket::listen(c.dir());
    c.create_with(&["--console-socket", &socket.path.to_string_lossy()])
        .ok();
    let (mut terminal, name) = socket.receive();
    assert!(
        name.contains("pts") || name.contains("ptmx"),
        "the message names the pty: {name:?}"
    );
    c.start().ok();
    terminal.wait_to_see("/dev/");
    terminal.type_in("typed\n");
    terminal.wait_to_see("got typed\r\n");
    c.wait_for("stopped");
}

#[test]
fn run_detached_with_a_console_socket() {
    let c = with_terminal(Container::new("echo here; sleep 1000000"));
    let socket = ConsoleSocket::listen(c.dir());
    c.run_with(&["-d", "--console-socket", &socket.path.to_string_lossy()])
        .ok();
    let (terminal, _) = socket.receive();
    terminal.wait_to_see("here\r\n");
}

#[test]
fn detaching_with_a_terminal_needs_a_socket() {
    let c = with_terminal(Container::new("true"));
    c.create().fails_with(
        1,
        "cannot allocate tty if runc will detach without setting console socket"
            .split(" runc")
            .next()
            .unwrap(),
    );
    c.assert_nothing_left();
    c.run_with(&["--detach"])
        .fails_with(1, "without setting console socket");
    c.assert_nothing_left();
}

#[test]
fn a_socket_without_a_terminal_is_an_error() {
    let c = Container::new("true");
    let socket = ConsoleSocket::listen(c.dir());
    let path = socket.path.to_string_lossy().into_owned();
    c.create_with(&["--console-socket", &path])
        .fails_with(1, "console socket");
    c.assert_nothing_left();
}

#[test]
fn a_console_socket_that_nobody_listens_on_is_an_error() {
    let c = with_terminal(Container::new("true"));
    let path = c.dir().join("nobody.sock").to_string_lossy().into_owned();
    c.create_with(&["--console-socket", &path])
        .fails_with(1, "nobody.sock");
    c.assert_nothing_left();
}

#[test]
fn the_terminal_belongs_to_the_containers_user() {
    requires!(rootless() != Some(Ids::Own), "one id only is mapped");
    let mut c = with_terminal(Container::new("stat -c %u:%g /dev/console /dev/pts/0"));
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let mut terminal = Terminal::open();
    terminal.run(&c.bundle_command("run", &[]));
    let seen = terminal.wait_to_see("\r\n");
    assert!(seen.starts_with("1000:"), "{seen:?}");
}

#[test]
fn the_host_terminal_does_not_leak_into_the_container() {
    let c = with_terminal(Container::new(
        "ls -l /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2; readlink /proc/1/fd/0",
    ));
    let mut terminal = Terminal::open();
    terminal.run(&c.bundle_command("run", &[]));
    let seen = terminal.wait_to_see("/dev/");
    assert!(!seen.contains("unreachable"), "{seen}");
    assert_eq!(shell("ls /dev/pts/ptmx"), "/dev/pts/ptmx\n");
}
