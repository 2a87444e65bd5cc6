//! Commands of the runtime's that are under way, and the ends of all children.
//!
//! While a command creates or starts a process, that process may end before its pid is known here. Whatever ends in the meantime is
//! kept until all such commands are through, so that no end is lost.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use prost::Message;

use crate::console::ConsoleSocket;
use crate::container::{Exit, Key};
use crate::error::{Context, Failure, Result};
use crate::logger::Logger;
use crate::poller::Token;
use crate::protos::{Empty, Timestamp};
use crate::runtime::Paper;
use crate::shim::Shim;
use crate::sys;
use crate::ttrpc::Reply;

/// How long a logger may take to be ready.
const LOGGER_READY: Duration = Duration::from_secs(10);
/// How long a logger may take to end after SIGTERM.
const LOGGER_END: Duration = Duration::from_secs(10);

/// What a command of the runtime's is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Create(String),
    Start(String),
    Restore(String),
    Exec(Key),
    Delete(String),
    Update,
    Checkpoint,
}

impl Work {
    /// The process that it makes or starts.
    pub(crate) fn process(&self) -> Option<Key> {
        match self {
            Work::Create(id) | Work::Start(id) | Work::Restore(id) => Some(Key::new(id, "")),
            Work::Exec(key) => Some(key.clone()),
            Work::Delete(_) | Work::Update | Work::Checkpoint => None,
        }
    }

    /// The beginning of the error when it fails, in containerd's words.
    fn failed(&self) -> &'static str {
        match self {
            Work::Create(_) => "OCI runtime create failed",
            Work::Start(_) => "OCI runtime start failed",
            Work::Restore(_) => "OCI runtime restore failed",
            Work::Exec(_) => "OCI runtime exec failed",
            Work::Delete(_) => "failed to delete task",
            Work::Update => "OCI runtime update failed",
            Work::Checkpoint => "OCI runtime checkpoint failed",
        }
    }
}

/// A command that runs, or is about to.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) reply: Reply,
    pub(crate) work: Work,
    pub(crate) complaint: Paper,
    pub(crate) console: Option<ConsoleSocket>,
    /// What it reads.
    pub(crate) input: Option<Paper>,
}

/// A command that waits for the logger of its process.
#[derive(Debug)]
struct Launch {
    command: Command,
    job: Job,
    ready: OwnedFd,
    deadline: Instant,
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    running: BTreeMap<i32, Job>,
    waiting: BTreeMap<u32, Launch>,
    /// Ends of processes that nobody knows, yet.
    early: Vec<(i32, Exit)>,
    /// Loggers that were told to end, and until when they may take.
    loggers: Vec<(i32, Instant)>,
}

impl Jobs {
    fn launches(&self) -> bool {
        self.running
            .values()
            .any(|job| job.work.process().is_some())
    }

    /// Tells a logger to end.
    pub(crate) fn end_logger(&mut self, logger: &Logger) {
        let _ = sys::kill(logger.pid, libc::SIGTERM);
        self.loggers.push((logger.pid, Instant::now() + LOGGER_END));
    }

    /// The end of a process, if it was earlier than the news of its beginning.
    pub(crate) fn ended_early(&mut self, pid: i32) -> Option<Exit> {
        let at = self.early.iter().position(|(early, _)| *early == pid)?;
        Some(self.early.remove(at).1)
    }
}

impl Shim {
    /// Runs a command of the runtime's; [`Shim::finish`] is called when it is through.
    pub(crate) fn run(&mut self, mut command: Command, job: Job) -> Result<()> {
        let child = command
            .spawn()
            .context(|| format!("execute {}", command.get_program().display()))?;
        self.jobs.running.insert(child.id() as i32, job);
        Ok(())
    }

    /// The same once a logger is ready.
    pub(crate) fn run_when_ready(
        &mut self,
        command: Command,
        job: Job,
        ready: OwnedFd,
    ) -> Result<()> {
        let number = self.poller.number();
        self.poller
            .readable(&ready, Token::Ready(number))
            .context(|| "wait for the logger".to_owned())?;
        let launch = Launch {
            command,
            job,
            ready,
            deadline: Instant::now() + LOGGER_READY,
        };
        self.jobs.waiting.insert(number, launch);
        Ok(())
    }

    /// A logger has said that it is ready, or has ended: both let its container begin.
    pub(crate) fn logger_ready(&mut self, number: u32) {
        let Some(launch) = self.jobs.waiting.remove(&number) else {
            return;
        };
        self.poller.forget(&launch.ready);
        let (reply, work) = (launch.job.reply, launch.job.work.clone());
        if let Err(failure) = self.run(launch.command, launch.job) {
            self.launch_failed(reply, &work, failure);
        }
    }

    /// When [`Shim::deadlines`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.jobs.waiting.values().map(|launch| launch.deadline);
        let loggers = self.jobs.loggers.iter().map(|(_, deadline)| *deadline);
        let containers = self.containers.values();
        let deletions = containers.flat_map(|container| {
            let execs = container.execs.values().map(|exec| &exec.process);
            let all = std::iter::once(&container.init).chain(execs);
            all.filter_map(|process| process.deletion)
                .filter(|deletion| !deletion.under_way)
                .map(|deletion| deletion.deadline)
        });
        waiting.chain(loggers).chain(deletions).min()
    }

    /// Ends what has been waited for long enough.
    pub(crate) fn deadlines(&mut self) {
        let now = Instant::now();
        if self.next_deadline().is_none_or(|next| next > now) {
            return;
        }
        self.jobs.loggers.retain(|(pid, deadline)| {
            let over = *deadline <= now;
            if over {
                let _ = sys::kill(*pid, libc::SIGKILL);
            }
            !over
        });
        let mut waiting = self.jobs.waiting.iter();
        let late: Vec<_> = waiting
            .by_ref()
            .filter(|(_, launch)| launch.deadline <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            if let Some(launch) = self.jobs.waiting.remove(&number) {
                self.poller.forget(&launch.ready);
                let text = "logging binary is not ready after ten seconds";
                self.launch_failed(launch.job.reply, &launch.job.work, Failure::unknown(text));
            }
        }
        self.go_on_deleting();
    }

    /// Takes note of all children that have ended.
    pub(crate) fn reap(&mut self) {
        let mut finished = Vec::new();
        while let Some((pid, exit)) = ended_child() {
            if let Some(job) = self.jobs.running.remove(&pid) {
                finished.push((job, exit));
            } else if let Some(key) = self.process_with(pid) {
                self.exited(&key, exit);
            } else if !self.logger_ended(pid) && self.jobs.launches() | !finished.is_empty() {
                self.jobs.early.push((pid, exit));
            }
        }
        for (mut job, exit) in finished {
            let result = match exit.status {
                0 => Ok(()),
                status => Err(complain(&mut job, status)),
            };
            self.finish(job, result);
        }
        if !self.jobs.launches() {
            self.jobs.early = Vec::new();
        }
    }

    /// The runtime is through with a command.
    pub(crate) fn finish(&mut self, job: Job, result: Result<()>) {
        let Job {
            reply,
            work,
            console,
            ..
        } = job;
        let result = match &console {
            Some(console) if result.is_ok() => self.take_terminal(&work, console),
            _ => result,
        };
        let answer = match &work {
            Work::Create(id) => result.and_then(|()| self.finish_create(id)),
            Work::Start(_) | Work::Restore(_) | Work::Exec(_) => {
                result.and_then(|()| self.finish_start(&work))
            }
            Work::Delete(id) => self.finish_delete(id, result),
            Work::Update | Work::Checkpoint => result.map(|()| Empty {}.encode_to_vec()),
        };
        if answer.is_err()
            && let Some(key) = work.process()
        {
            self.not_started(&key, &work);
        }
        self.answer(reply, answer);
        if let Some(key) = work.process() {
            self.publish_held(&key.container);
        }
    }

    fn process_with(&mut self, pid: i32) -> Option<Key> {
        self.containers.iter_mut().find_map(|(id, container)| {
            let mut processes = container.processes();
            let found = processes.find(|(_, process)| {
                process.pid == pid && process.exit.or(process.held_exit).is_none()
            });
            found.map(|(exec, _)| Key::new(id, exec))
        })
    }

    /// Whether it was one.
    fn logger_ended(&mut self, pid: i32) -> bool {
        let before = self.jobs.loggers.len();
        self.jobs.loggers.retain(|(logger, _)| *logger != pid);
        let mut found = self.jobs.loggers.len() < before;
        for (id, container) in &mut self.containers {
            for (_, process) in container.processes() {
                let logger = process.io.logger.as_ref();
                if logger.is_some_and(|logger| logger.pid == pid) {
                    found = true;
                    if process.is_alive() {
                        log::warn!("the logger of {id} has ended, and its output is lost");
                    }
                    if let Err(failure) = process.io.logger_ended(&mut self.poller) {
                        log::error!("{failure}");
                    }
                }
            }
        }
        if found {
            self.go_on_deleting();
        }
        found
    }
}

/// The next child that has ended.
fn ended_child() -> Option<(i32, Exit)> {
    loop {
        let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => (pid, status as u32),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as u32),
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return None,
            Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => {
                log::error!("wait for children: {error}");
                return None;
            }
        };
        let exit = Exit {
            status,
            at: Timestamp::now(),
        };
        return Some((pid.as_raw(), exit));
    }
}

fn complain(job: &mut Job, status: u32) -> Failure {
    let what = job.work.failed();
    match &*job.complaint.last_error() {
        "" => Failure::unknown(format!("{what}: exit status {status}")),
        error => Failure::unknown(format!("{what}: {error}")),
    }
}

/// The flags that are on.
pub(crate) fn switch_on(command: &mut Command, switches: &[(&str, bool)]) {
    command.args(switches.iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
}

/// What a command has as standard streams.
pub(crate) fn give_streams(command: &mut Command, streams: [Option<OwnedFd>; 3]) {
    let [stdin, stdout, stderr] =
        streams.map(|stream| stream.map_or_else(Stdio::null, Stdio::from));
    command.stdin(stdin).stdout(stdout).stderr(stderr);
}
