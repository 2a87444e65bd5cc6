//! Real processes on real ptys, supervised in processes of our own: the code under test reads standard streams and blocks
//! signals, both of which the test harness shares.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::pty::openpty;

use super::*;
use crate::sys::process::{Cloned, clone, pidfd_open};

/// Set in the process that plays the runtime: the shell command to run in the foreground.
const COMMAND: &str = "CORACLE_TEST_FOREGROUND";

/// Not a test on its own: what [`runtime`] starts. Supervises a shell as if it were a container, on a pty unless the command
/// starts with `-`. It does so in a process with a single thread, as the runtime's is, and says which one that is.
#[test]
fn plays_the_runtime() {
    let Ok(command) = std::env::var(COMMAND) else {
        return;
    };
    match clone(0, None).unwrap() {
        Cloned::Parent { pidfd, .. } => {
            let status = ended(Whose::Process(pidfd.as_fd()), 0)
                .unwrap()
                .unwrap()
                .status;
            std::process::exit(status);
        }
        Cloned::Child { .. } => {
            println!("runtime {}", std::process::id());
            std::process::exit(run_in_foreground(&command));
        }
    }
}

fn run_in_foreground(command: &str) -> i32 {
    let foreground = Foreground::prepare().unwrap();
    let (mut shell, pty) = match command.strip_prefix('-') {
        Some(command) => (shell(&["sh", "-c", command]), None),
        None => (
            shell(&["setsid", "--ctty", "sh", "-c", command]),
            Some(openpty(None, None).unwrap()),
        ),
    };
    if let Some(pty) = &pty {
        fit_terminal(pty.master.as_fd());
        let slave = || Stdio::from(pty.slave.try_clone().unwrap());
        shell.stdin(slave()).stdout(slave()).stderr(slave());
    }
    // The standard library empties the child's signal mask, as the runtime's own child does.
    let pid = Pid::from_raw(shell.spawn().unwrap().id() as i32);
    drop(shell);
    let pidfd = pidfd_open(pid).unwrap();
    foreground
        .supervise(pid, pidfd.as_fd(), pty.map(|pty| pty.master), true)
        .unwrap()
}

fn shell(args: &[&str]) -> Command {
    let mut command = Command::new(args[0]);
    command.args(&args[1..]);
    command
}

/// A command that starts [`plays_the_runtime`].
fn runtime(command: &str) -> Command {
    // Signals that are ignored from the beginning, as in the background of a script, cannot be trapped.
    let mut runtime = shell(&["env", "--default-signal"]);
    runtime.arg(std::env::current_exe().unwrap()).args([
        "--exact",
        "foreground::tests::plays_the_runtime",
        "--nocapture",
        "-q",
    ]);
    runtime
        .env(COMMAND, command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    runtime
}

/// The pid of the process that supervises; leaves what the shell writes to be read.
fn pid_of_runtime(child: &mut Child) -> u32 {
    let line = read_until(child, |text| {
        text.contains("runtime ") && text.ends_with('\n')
    });
    line.rsplit_once("runtime ")
        .unwrap()
        .1
        .trim()
        .parse()
        .unwrap()
}

fn read_until(child: &mut Child, done: impl Fn(&str) -> bool) -> String {
    let stdout = child.stdout.as_mut().unwrap();
    let (mut text, mut byte) = (String::new(), [0]);
    while !done(&text) {
        assert_eq!(
            stdout.read(&mut byte).unwrap(),
            1,
            "the output ended after {text:?}"
        );
        text.push(byte[0] as char);
    }
    text
}

/// The rest of the output, and the exit status.
fn finish(mut child: Child) -> (String, Option<i32>) {
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    (text, child.wait().unwrap().code())
}

/// All of the output, and the exit status.
fn output(command: &str) -> (String, Option<i32>) {
    let mut child = runtime(command).spawn().unwrap();
    pid_of_runtime(&mut child);
    finish(child)
}

#[test]
fn the_status_is_the_processes() {
    assert_eq!(output("-exit 7").1, Some(7));
    assert_eq!(output("-kill -KILL $$").1, Some(137));
    // A real-time signal, which nix cannot name.
    assert_eq!(output("-env kill -40 $$").1, Some(168));
    assert_eq!(output("exit 3").1, Some(3));
}

#[test]
fn no_output_is_lost_at_the_end_and_newlines_are_plain() {
    let (text, status) = output("seq 20000");
    assert_eq!(status, Some(0));
    assert!(
        text == (1..=20000).map(|n| format!("{n}\n")).collect::<String>(),
        "{} bytes",
        text.len()
    );
}

#[test]
fn a_slow_reader_gets_everything_and_costs_no_time() {
    let mut child = runtime("seq 50000").spawn().unwrap();
    let pid = pid_of_runtime(&mut child);
    std::thread::sleep(Duration::from_millis(600));
    let ticks = cpu_ticks(pid);
    let (text, status) = finish(child);
    assert_eq!(status, Some(0));
    assert!(text.ends_with("\n50000\n"));
    assert!(
        ticks < 15,
        "{ticks} clock ticks of CPU time while nobody read"
    );
}

#[test]
fn input_from_a_pipe_reaches_the_process_and_its_end_too() {
    let mut child = runtime("stty -echo; echo ready; cat; echo done")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // What is typed before `stty` would be echoed.
    read_until(&mut child, |text| text.ends_with("ready\n"));
    child.stdin.take().unwrap().write_all(b"one\ntwo").unwrap();
    assert_eq!(finish(child), ("one\ntwodone\n".to_owned(), Some(0)));
}

#[test]
fn without_input_there_is_no_busy_loop() {
    let mut child = runtime("sleep 0.6; echo end").spawn().unwrap();
    let pid = pid_of_runtime(&mut child);
    std::thread::sleep(Duration::from_millis(400));
    let ticks = cpu_ticks(pid);
    assert!(ticks < 10, "{ticks} clock ticks");
    assert_eq!(finish(child), ("end\n".to_owned(), Some(0)));
}

#[test]
fn a_terminal_closed_and_opened_again_still_works() {
    let (text, _) = output("T=$(tty); exec <&- >&- 2>&-; sleep 0.3; echo back >$T");
    assert_eq!(text, "back\n");
}

#[test]
fn signals_are_forwarded() {
    for (signal, name) in [
        (libc::SIGTERM, "TERM"),
        (libc::SIGINT, "INT"),
        (libc::SIGUSR1, "USR1"),
        (37, "37"),
    ] {
        let command =
            format!("-trap 'echo got; exit 5' {name}; echo up; while :; do sleep 0.01; done");
        let mut child = runtime(&command).spawn().unwrap();
        let pid = pid_of_runtime(&mut child);
        read_until(&mut child, |text| text.ends_with("up\n"));
        // kill(1), as nix has no name for real-time signals.
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(pid.to_string())
            .status()
            .unwrap();
        assert!(sent.success());
        assert_eq!(finish(child), ("got\n".to_owned(), Some(5)), "{name}");
    }
}

#[test]
fn our_terminal_is_raw_meanwhile_and_restored() {
    let host = openpty(None, None).unwrap();
    let size = libc::winsize {
        ws_row: 33,
        ws_col: 77,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    crate::sys::terminal::set_window_size(host.master.as_fd(), &size).unwrap();
    let before = nix::sys::termios::tcgetattr(&host.slave).unwrap();
    let slave = || Stdio::from(host.slave.try_clone().unwrap());
    // A session of its own with the pty as its controlling terminal: what a shell in a terminal window has.
    let command = runtime(
        "stty size; read line; echo \"<$line>\"; trap 'stty size; exit 9' WINCH; echo set; sleep 9 & wait",
    );
    let mut session = shell(&["setsid", "--ctty", "--wait"]);
    session.arg(command.get_program()).args(command.get_args());
    session.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let mut child = session
        .stdin(slave())
        .stdout(slave())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut terminal = Screen {
        master: host.master.try_clone().unwrap(),
        text: String::new(),
    };
    terminal.wait_for("33 77");
    let during = nix::sys::termios::tcgetattr(&host.slave).unwrap();
    assert!(
        !during
            .local_flags
            .contains(nix::sys::termios::LocalFlags::ICANON)
    );
    nix::unistd::write(&host.master, b"typed\n").unwrap();
    terminal.wait_for("<typed>");
    terminal.wait_for("set");
    let size = libc::winsize { ws_row: 11, ..size };
    crate::sys::terminal::set_window_size(host.master.as_fd(), &size).unwrap();
    terminal.wait_for("11 77");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert_eq!(
        nix::sys::termios::tcgetattr(&host.slave)
            .unwrap()
            .local_flags,
        before.local_flags
    );
}

#[test]
fn orphans_are_reaped_but_the_status_is_not_taken_away() {
    // `sleep` outlives the subshell that started it and comes to us; its end must not be mistaken for the shell's.
    let (text, status) = output("-(sleep 0.1 &); sleep 0.4; echo end; exit 4");
    assert_eq!((text.as_str(), status), ("end\n", Some(4)));
}

/// What a terminal window shows.
struct Screen {
    master: OwnedFd,
    text: String,
}

impl Screen {
    fn wait_for(&mut self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.text.contains(what) {
            assert!(Instant::now() < deadline, "no {what:?} in {:?}", self.text);
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(100_u8)).unwrap() > 0 {
                let mut buffer = [0; 512];
                let count = nix::unistd::read(&self.master, &mut buffer).unwrap_or(0);
                self.text
                    .push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
    }
}

/// User and system time of a process, in clock ticks.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
