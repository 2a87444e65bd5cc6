//! Other programs, which may hang: each has its time, and goes with all that it has started when that is over.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::error::{Context, Error, Kind, Result};
use crate::sys;

/// How long a program may take: none of those that networks are made with waits for anything slower than a DHCP server.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The most that is read of what one says.
const LARGEST: u64 = 1 << 20;

/// Runs a program to its end, or for as long as `limit`. Its standard streams are files in memory: whatever it leaves running, the end of
/// the program itself is all that is waited for.
pub(crate) fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Output> {
    let [mut stdin, stdout, stderr] = [memory()?, memory()?, memory()?];
    stdin
        .write_all(input)
        .and_then(|()| stdin.rewind())
        .context(|| "write its input")?;
    let copy = |file: &File| file.try_clone().context(|| "copy a descriptor");
    command
        .process_group(0)
        .stdin(stdin)
        .stdout(copy(&stdout)?)
        .stderr(copy(&stderr)?);
    sys::unblock_signals(command);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::new(Kind::NotFound, "it is missing"),
        _ => Error::failed(format!("start it: {error}")),
    })?;
    let ended = sys::pidfd(&child)
        .context(|| "watch it")
        .and_then(|pidfd| wait(pidfd.as_fd(), limit));
    if ended.is_err() {
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    }
    let status = child.wait().context(|| "wait for it")?;
    ended.map(|()| Output {
        status,
        stdout: said(stdout),
        stderr: said(stderr),
    })
}

fn memory() -> Result<File> {
    let made = memfd_create(c"coracle", MFdFlags::MFD_CLOEXEC).map(File::from);
    made.context(|| "make a file in memory")
}

fn wait(pidfd: BorrowedFd<'_>, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last wait is no busy one.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
        let mut watched = [PollFd::new(pidfd, PollFlags::POLLIN)];
        match poll(&mut watched, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(1..) => return Ok(()),
            Ok(_) if left.is_zero() => {
                let seconds = limit.as_secs_f32();
                return Err(Error::failed(format!(
                    "it had not ended after {seconds} seconds, and was killed"
                )));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "wait for it"),
        }
    }
}

/// What is missing of it was too much.
fn said(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = file.rewind();
    let _ = file.take(LARGEST).read_to_end(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{OFlag, open};
    use nix::sys::signal::{SigSet, SigmaskHow};
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<Output> {
        run(Command::new("sh").args(["-c", script]), b"input", limit)
    }

    #[test]
    fn streams_are_files() {
        let output = shell("cat; echo error >&2; exit 3", PATIENCE).unwrap();
        assert_eq!(output.stdout, b"input");
        assert_eq!(output.stderr, b"error\n");
        assert_eq!(output.status.code(), Some(3));
    }

    /// Proved with a signal for the program alone, and without the limit.
    #[test]
    fn who_takes_too_long_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let reader = open(&fifo, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).unwrap();
        let script = format!("exec 3> {}; sleep 1000 & wait", fifo.display());
        let error = shell(&script, Duration::from_millis(500)).unwrap_err();
        let text = "it had not ended after 0.5 seconds, and was killed";
        assert_eq!(error.to_string(), text);
        // When the last of them has gone, the pipe is hung up.
        let mut watched = [PollFd::new(reader.as_fd(), PollFlags::empty())];
        assert_eq!(poll(&mut watched, 30_000_u16).unwrap(), 1);
    }

    #[test]
    fn who_stays_behind_is_not_waited_for() {
        let began = Instant::now();
        shell("sleep 20 &", PATIENCE).unwrap();
        assert!(began.elapsed() < Duration::from_secs(15));
    }

    /// Proved without `unblock_signals`. A shell in between would unblock them itself.
    #[test]
    fn no_signal_is_blocked() {
        let before = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .unwrap();
        let mut grep = Command::new("grep");
        let output = run(grep.args(["SigBlk", "/proc/self/status"]), b"", PATIENCE).unwrap();
        before.thread_set_mask().unwrap();
        assert_eq!(output.stdout, b"SigBlk:\t0000000000000000\n");
    }
}
