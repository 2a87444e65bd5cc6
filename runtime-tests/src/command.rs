//! Runs commands with an end in sight, and waits for events.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// No command or event takes longer, however loaded the machine is.
const LIMIT: Duration = Duration::from_secs(120);

/// What a finished command left: its exit status as a shell sees it (128 + signal), and what it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Exit status, or 128 + signal.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Output {
    /// The command succeeded: what it wrote to stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "the command should succeed: {self:#?}");
        self.stdout
    }

    /// The command failed with this status: what it wrote to stderr.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(
            self.code, code,
            "the command should exit with {code}: {self:#?}"
        );
        self.stderr
    }

    /// The command failed with this status and its message contains these words.
    #[track_caller]
    pub fn fails_with(self, code: i32, words: &str) {
        assert_eq!(
            self.code, code,
            "the command should exit with {code}: {self:#?}"
        );
        assert!(
            self.message().contains(words),
            "the message should contain {words:?}: {self:#?}"
        );
    }

    /// What it wrote to stderr, without the backslashes that a log line puts before quotes.
    pub fn message(&self) -> String {
        self.stderr.replace("\\\"", "\"")
    }

    /// The command ended with this status: what it wrote to stdout.
    #[track_caller]
    pub fn exits(self, code: i32) -> String {
        assert_eq!(
            self.code, code,
            "the command should exit with {code}: {self:#?}"
        );
        self.stdout
    }
}

/// Runs a command with stdout and stderr in files of a new directory below `dir`: such a file has its end when the
/// command ends, even when a container that the command made still holds it open.
pub fn finish(command: Command, dir: &Path) -> Output {
    let files = tempfile::Builder::new()
        .prefix("out")
        .tempdir_in(dir)
        .expect("the test directory is writable");
    finish_into(
        command,
        &files.path().join("stdout"),
        &files.path().join("stderr"),
    )
}

/// The same with files that stay, for what a container writes later.
pub(crate) fn finish_into(mut command: Command, stdout: &Path, stderr: &Path) -> Output {
    let what = format!("{command:?}");
    command
        .stdout(File::create(stdout).expect("a file"))
        .stderr(File::create(stderr).expect("a file"));
    let child = command.spawn().unwrap_or_else(|e| panic!("{what}: {e}"));
    let status = wait(child, &what);
    Output {
        command: what,
        code: code(status),
        stdout: read_text(stdout),
        stderr: read_text(stderr),
    }
}

/// Waits for a process, and kills it (by its id) when it takes longer than anything should.
pub(crate) fn wait(mut child: Child, what: &str) -> ExitStatus {
    let pid = Pid::from_raw(child.id().cast_signed());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let _ = sender.send(child.wait());
    });
    match receiver.recv_timeout(LIMIT) {
        Ok(status) => status.unwrap_or_else(|e| panic!("{what}: {e}")),
        Err(RecvTimeoutError::Timeout) => {
            let _ = kill(pid, Signal::SIGKILL);
            panic!("{what}: still running after {LIMIT:?}")
        }
        Err(RecvTimeoutError::Disconnected) => panic!("{what}: lost"),
    }
}

/// The exit status as a shell shows it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Runs a line of shell on the host that must succeed, and gives its stdout.
#[track_caller]
pub fn shell(line: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .output()
        .expect("sh starts");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The text of a file; empty when it is not there.
pub fn read_text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Waits until `probe` gives something: tests wait for events, never for time to pass.
#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "did not happen within {LIMIT:?}: {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
