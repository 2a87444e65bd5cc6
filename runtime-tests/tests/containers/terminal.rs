//! The foreground: input, signals, terminals, attaching and leaving.

use std::io::Write;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::{Store, Terminal, eventually};

fn command(store: &Store, flags: &[&str], command: &[&str]) -> std::process::Command {
    let args = store.run_args(flags, command);
    store.command(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn input_is_handed_on_only_when_it_is_asked_for() {
    let store = Store::new();
    for (flags, said) in [(&["--rm", "-i"][..], "hello\nend\n"), (&["--rm"], "end\n")] {
        let mut child = command(&store, flags, &["sh", "-c", "cat; echo end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"hello\n");
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{flags:?}");
    }
}

#[test]
fn much_goes_through_in_both_directions() {
    let store = Store::new();
    let mut child = command(&store, &["--rm", "-i"], &["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(
        output.stdout == bytes,
        "{} of {} bytes",
        output.stdout.len(),
        bytes.len()
    );
}

#[test]
fn signals_reach_the_container() {
    let store = Store::new();
    let script = "trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.05; done";
    for init in [false, true] {
        let flags: &[&str] = if init {
            &["--rm", "--init", "--name", "web"]
        } else {
            &["--rm", "--name", "web"]
        };
        let child = command(&store, flags, &["sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        store.wait_to_log("web", "ready");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGUSR1).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "ready\ngot\n",
            "init {init}"
        );
        assert_eq!(output.status.code(), Some(9), "init {init}");
    }
}

#[test]
fn a_terminal_is_one_with_our_size_and_can_be_left() {
    let store = Store::new();
    let mut terminal = Terminal::open();
    let run = command(&store, &["-it", "--name", "web"], &["sh"]);
    let mut child = terminal.start(&run);
    terminal.type_in("tty; stty size\n");
    terminal.wait_to_see("24 80");
    terminal.resize(30, 100);
    eventually("the new size arrives", || {
        terminal.type_in("stty size\n");
        terminal.seen().contains("30 100").then_some(())
    });
    terminal.type_in("\u{10}\u{11}");
    assert!(child.wait().unwrap().success(), "leaving is no failure");
    assert_eq!(store.state("web", "Status"), "running");

    let mut again = Terminal::open();
    let mut child = again.start(&store.command(&["attach", "web"]));
    again.type_in("echo still $((40+2))\n");
    again.wait_to_see("still 42");
    again.type_in("exit 4\n");
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert_eq!(store.state("web", "ExitCode"), 4);
}

#[test]
fn the_end_of_a_terminal_is_not_the_monitors() {
    let store = Store::new();
    let mut terminal = Terminal::open();
    let run = command(
        &store,
        &["-d", "--name", "web"],
        &["sh", "-c", "while :; do echo x; sleep 0.05; done"],
    );
    assert_eq!(terminal.run(&run), 0);
    drop(terminal);
    let before = store.monitor("web");
    store.wait_to_log("web", "x\nx\nx\n");
    assert_eq!(store.monitor("web"), before);
}

#[test]
fn attach_sees_what_comes_from_then_on() {
    let store = Store::new();
    store.detached("web", &["-i"], "while read line; do echo \"<$line>\"; done");
    let mut child = store
        .command(&["attach", "web"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    store.wait_to_log("web", "<one>");
    store.coracle(&["stop", "-t", "0", "web"]).ok();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "<one>\n");
    assert_eq!(output.status.code(), Some(137));
    store
        .coracle(&["attach", "web"])
        .fails_with(1, "is not running");
}
