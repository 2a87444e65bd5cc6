//! Hooks (runtime-spec config.md "POSIX-platform Hooks").

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use oci_spec::runtime::Hook;

use crate::foreground::Foreground;
use crate::{Context, Error, Result, sys};

/// How much of what a hook says is kept for the error message.
const OUTPUT_MAX: usize = 4096;

/// For how long a hook may be at work, besides its own timeout.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lifetime<'a> {
    /// A pidfd of the container's process: a hook of its set-up does not outlive it.
    pub container: Option<BorrowedFd<'a>>,
    /// Until somebody wants us to end.
    pub foreground: Option<&'a Foreground>,
}

/// Runs `hooks` in order and stops at the first failure: `error running createRuntime hook #0: …`. `point` is the specification's
/// name, `state` the JSON that each gets on standard input, `cwd` the directory that they start in.
///
/// The hook that is at work ends with what it is run for.
pub(crate) fn run(
    point: &str,
    hooks: &[Hook],
    state: &[u8],
    cwd: &Path,
    lifetime: Lifetime<'_>,
) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, cwd, lifetime)
            .with_context(|| format!("error running {point} hook #{index}"))?;
    }
    Ok(())
}

/// The same where a failure must not stop the others (`poststop`): each is logged.
pub(crate) fn run_all(point: &str, hooks: &[Hook], state: &[u8], cwd: &Path) {
    for (index, hook) in hooks.iter().enumerate() {
        if let Err(error) = run_one(hook, state, cwd, Lifetime::default()) {
            log::warn!("error running {point} hook #{index}: {error}");
        }
    }
}

fn run_one(hook: &Hook, state: &[u8], cwd: &Path, lifetime: Lifetime<'_>) -> Result<()> {
    let path = hook.path();
    if !path.is_absolute() {
        return Err(Error::invalid(format!(
            "hook path {} is not absolute",
            path.display()
        )));
    }
    let mut command = Command::new(path);
    if let Some([name, args @ ..]) = hook.args().as_deref() {
        command.arg0(name).args(args);
    }
    let variables = hook
        .env()
        .as_deref()
        .unwrap_or_default()
        .iter()
        .filter_map(|variable| variable.split_once('='));
    command.env_clear().envs(variables).current_dir(cwd);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // A group of its own, so that a hook that hangs can be ended with everything that it started.
    command.process_group(0);
    // The monitor of a container has blocked nearly all.
    sys::process::with_reset_signals(&mut command);
    let child = command
        .spawn()
        .with_context(|| format!("start {}", path.display()))?;
    let deadline = hook
        .timeout()
        .filter(|seconds| *seconds > 0)
        .map(|s| Instant::now() + Duration::from_secs(s as u64));
    let (status, output) = Running::new(child)?.finish(state, deadline, lifetime)?;
    match describe(status) {
        None => Ok(()),
        Some(failure) => Err(Error::failed(format!(
            "{failure}, stdout: {}, stderr: {}",
            text(&output[0]),
            text(&output[1])
        ))),
    }
}

fn describe(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit status {code}")),
        (_, signal) => Some(format!("signal {}", signal.unwrap_or_default())),
    }
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output)
        .trim_end()
        .replace('\n', " ")
}

/// A hook at work, with its three pipes non-blocking on our side: it may leave grandchildren that hold them forever.
struct Running {
    child: Child,
    output: [Vec<u8>; 2],
}

impl Running {
    fn new(child: Child) -> Result<Self> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let pipes = [
            child.stdin.as_ref().map(|pipe| pipe.as_fd()),
            child.stdout.as_ref().map(|pipe| pipe.as_fd()),
            child.stderr.as_ref().map(|pipe| pipe.as_fd()),
        ];
        for pipe in pipes.into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                .context("prepare the hook's pipes")?;
        }
        Ok(Running {
            child,
            output: Default::default(),
        })
    }

    /// Feeds it its state, collects what it says, and waits for its end, not for the end of its output.
    fn finish(
        mut self,
        mut state: &[u8],
        deadline: Option<Instant>,
        lifetime: Lifetime<'_>,
    ) -> Result<(ExitStatus, [Vec<u8>; 2])> {
        let pidfd = sys::process::pidfd_open(Pid::from_raw(self.child.id() as i32))
            .context("watch the hook")?;
        loop {
            let timeout =
                match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                    Some(Duration::ZERO) => return Err(self.end("timed out")),
                    Some(left) => PollTimeout::try_from(left + Duration::from_millis(1))
                        .unwrap_or(PollTimeout::MAX),
                    None => PollTimeout::NONE,
                };
            let mut events = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            events.extend(
                self.child
                    .stdin
                    .as_ref()
                    .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)),
            );
            events.extend(
                self.child
                    .stdout
                    .as_ref()
                    .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)),
            );
            events.extend(
                self.child
                    .stderr
                    .as_ref()
                    .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)),
            );
            let others = [lifetime.container, lifetime.foreground.map(AsFd::as_fd)];
            let others = others.into_iter().flatten();
            events.extend(others.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match poll(&mut events, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for the hook"),
            }
            let ready: Vec<_> = events
                .iter()
                .filter(|event| event.any() == Some(true))
                .map(|event| event.as_fd().as_raw_fd())
                .collect();
            self.feed(&ready, &mut state);
            self.collect(&ready);
            if let Some(foreground) = lifetime.foreground
                && ready.contains(&foreground.as_fd().as_raw_fd())
                && let Err(error) = foreground.check()
            {
                return Err(self.end(&error.to_string()));
            }
            let container = lifetime.container;
            if container.is_some_and(|pidfd| ready.contains(&pidfd.as_raw_fd())) {
                return Err(self.end("outlived the container's process"));
            }
            if ready.contains(&pidfd.as_raw_fd()) {
                let status = self.child.wait().context("wait for the hook")?;
                self.collect(&self.open_outputs());
                return Ok((status, self.output));
            }
        }
    }

    fn feed(&mut self, ready: &[i32], state: &mut &[u8]) {
        let Some(pipe) = self
            .child
            .stdin
            .as_mut()
            .filter(|pipe| ready.contains(&pipe.as_raw_fd()))
        else {
            return;
        };
        match pipe.write(state) {
            Ok(written) => *state = &state[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            // A hook need not read its state.
            Err(_) => *state = &[],
        }
        if state.is_empty() {
            self.child.stdin = None;
        }
    }

    fn open_outputs(&self) -> Vec<i32> {
        let stdout = self.child.stdout.as_ref().map(AsRawFd::as_raw_fd);
        stdout
            .into_iter()
            .chain(self.child.stderr.as_ref().map(AsRawFd::as_raw_fd))
            .collect()
    }

    fn collect(&mut self, ready: &[i32]) {
        let [stdout, stderr] = &mut self.output;
        drain(&mut self.child.stdout, ready, stdout);
        drain(&mut self.child.stderr, ready, stderr);
    }

    /// It goes, with everything in its process group.
    fn end(&mut self, why: &str) -> Error {
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
        Error::failed(format!("{why}, and was killed"))
    }
}

/// Reads what is there, keeps the beginning, and closes the pipe at its end.
fn drain<R: Read + AsRawFd>(pipe: &mut Option<R>, ready: &[i32], output: &mut Vec<u8>) {
    let Some(reader) = pipe
        .as_mut()
        .filter(|reader| ready.contains(&reader.as_raw_fd()))
    else {
        return;
    };
    let mut buffer = [0; 4096];
    loop {
        match reader.read(&mut buffer) {
            Ok(length @ 1..) => output.extend_from_slice(
                &buffer[..length.min(OUTPUT_MAX - output.len().min(OUTPUT_MAX))],
            ),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            _ => break,
        }
    }
    *pipe = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: i64) -> Hook {
        let json = serde_json::json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=b"], "timeout": timeout });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn gets_state_environment_and_directory() {
        let script =
            "test \"$(cat)\" = '{}' && test \"$A\" = b && test \"$PWD\" = / && test -z \"$HOME\"";
        run(
            "prestart",
            &[hook(script, 0)],
            b"{}",
            Path::new("/"),
            Lifetime::default(),
        )
        .unwrap();
    }

    #[test]
    fn a_failure_says_which_and_why() {
        let hooks = [hook("true", 0), hook("echo out; echo err >&2; exit 3", 0)];
        let error = run(
            "createRuntime",
            &hooks,
            &vec![b' '; 1 << 20],
            Path::new("/"),
            Lifetime::default(),
        )
        .unwrap_err()
        .to_string();
        assert_eq!(
            error,
            "error running createRuntime hook #1: exit status 3, stdout: out, stderr: err"
        );
    }

    #[test]
    fn a_hook_that_hangs_is_ended() {
        let error = run(
            "poststart",
            &[hook("sleep 1000 & sleep 1000", 1)],
            b"{}",
            Path::new("/"),
            Lifetime::default(),
        )
        .unwrap_err()
        .to_string();
        assert_eq!(
            error,
            "error running poststart hook #0: timed out, and was killed"
        );
    }

    #[test]
    fn no_signal_is_blocked_for_a_hook() {
        use nix::sys::signal::{SigSet, SigmaskHow};
        let before = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .unwrap();
        let script = "grep -q '^SigBlk:.0*$' /proc/self/status";
        let outcome = run(
            "poststart",
            &[hook(script, 0)],
            b"{}",
            Path::new("/"),
            Lifetime::default(),
        );
        before.thread_set_mask().unwrap();
        outcome.unwrap();
    }

    #[test]
    fn a_grandchild_with_the_pipes_blocks_nobody() {
        let started = Instant::now();
        run(
            "poststart",
            &[hook("sleep 20 & exit 0", 0)],
            b"{}",
            Path::new("/"),
            Lifetime::default(),
        )
        .unwrap();
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
