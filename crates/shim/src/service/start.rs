//! Exec and Start: processes begin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;

use super::control::{name, wrong};
use super::update::work_path;
use super::{Answer, empty};
use crate::console::ConsoleSocket;
use crate::container::{Container, Exec, Key, Process, Status, check_id, process_of};
use crate::error::{Code, Context, Failure, Result};
use crate::io::{Prepared, Stdio};
use crate::jobs::{Job, Work, give_streams, switch_on};
use crate::protos::events::{TaskExecAdded, TaskExecStarted, TaskStart};
use crate::protos::task::{ExecProcessRequest, StartRequest, StartResponse};
use crate::runtime::Paper;
use crate::shim::Shim;
use crate::ttrpc::Reply;

impl Shim {
    pub(crate) fn exec(&mut self, request: ExecProcessRequest) -> Answer {
        check_id("exec_id", &request.exec_id)?;
        let container = self.container(&request.id)?;
        if container.execs.contains_key(&request.exec_id) {
            let text = format!("id {}: already exists", request.exec_id);
            return Err(Failure::new(Code::AlreadyExists, text));
        }
        if container.paused || container.init.exit.is_some() {
            let state = if container.paused {
                "paused"
            } else {
                "stopped"
            };
            let text = format!("cannot exec in a {state} state");
            return Err(Failure::new(Code::FailedPrecondition, text));
        }
        let spec = request.spec.map(|spec| spec.value).unwrap_or_default();
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let exec = Exec {
            spec: with_terminal(&spec, stdio.terminal)?,
            process: Process::new(stdio, Status::Created),
        };
        container.execs.insert(request.exec_id.clone(), exec);
        self.events.push(
            "/tasks/exec-added",
            "TaskExecAdded",
            &TaskExecAdded {
                container_id: request.id,
                exec_id: request.exec_id,
            },
        );
        empty()
    }

    pub(crate) fn start(&mut self, reply: Reply, request: &StartRequest) -> Answer {
        let container = self.container(&request.id)?;
        let key = Key::new(&request.id, &request.exec_id);
        let init = &container.init;
        let init_has_ended = init.status == Status::Stopped || init.held_exit.is_some();
        if !key.is_init() && init_has_ended {
            let text = format!("container {} init process is not running", request.id);
            return Err(Failure::new(Code::FailedPrecondition, text));
        }
        let restored = container.checkpoint.is_some();
        let process = container.process(&key.exec)?;
        if process.status != Status::Created || process.deletion.is_some() {
            return Err(wrong("start", name(process.status)));
        }
        process.status = Status::Starting;
        let work = match (key.is_init(), restored) {
            (true, false) => Work::Start(request.id.clone()),
            (true, true) => Work::Restore(request.id.clone()),
            (false, _) => Work::Exec(key.clone()),
        };
        let begun = match &work {
            Work::Start(id) => self.command(reply, id, work.clone(), |command, container, _| {
                command.arg("start").arg(&container.id);
                Ok(())
            }),
            _ => self.launch(reply, work.clone()),
        };
        if begun.is_err() {
            self.not_started(&key, &work);
        }
        begun.map(|()| None)
    }

    /// Prepares the streams of a process and has the runtime make it.
    pub(super) fn launch(&mut self, reply: Reply, work: Work) -> Result<()> {
        let key = work.process().ok_or_else(Failure::no_container)?;
        let number = self.poller.number();
        let container = self
            .containers
            .get_mut(&key.container)
            .ok_or_else(Failure::no_container)?;
        let owner = container.owner();
        let stdio = container.process(&key.exec)?.stdio.clone();
        let prepared = Prepared::open(&stdio, owner, key.id(), &self.namespace, &mut self.poller)?;
        container.process(&key.exec)?.io = prepared.io;
        let mut job = Job {
            reply,
            work,
            complaint: Paper::new()?,
            console: stdio
                .terminal
                .then(|| ConsoleSocket::new(&container.bundle, number))
                .transpose()?,
            input: None,
        };
        let mut command = container.runtime.command(&job.complaint);
        describe(&mut command, container, &mut job)?;
        give_streams(&mut command, prepared.child);
        match prepared.ready {
            Some(ready) => self.run_when_ready(command, job, ready),
            None => self.run(command, job),
        }
    }

    /// A process could not even be begun.
    pub(crate) fn launch_failed(&mut self, reply: Reply, work: &Work, failure: Failure) {
        if let Some(key) = work.process() {
            self.not_started(&key, work);
        }
        self.answer(reply, Err(failure));
    }

    pub(crate) fn not_started(&mut self, key: &Key, work: &Work) {
        if let Work::Create(id) = work {
            self.undo_create(id);
            return;
        }
        let Ok(process) = process_of(&mut self.containers, key) else {
            return;
        };
        process.status = Status::Created;
        let logger = match work {
            // Its streams were there before.
            Work::Start(_) => None,
            _ => process.io.close(&self.poller),
        };
        if let Some(logger) = logger {
            self.jobs.end_logger(&logger);
        }
        self.publish_held(&key.container);
    }

    pub(crate) fn take_terminal(&mut self, work: &Work, console: &ConsoleSocket) -> Result<()> {
        let master = console.receive()?;
        let Some(key) = work.process() else {
            return Ok(());
        };
        process_of(&mut self.containers, &key)?
            .io
            .connect(master, &mut self.poller)
    }

    pub(crate) fn finish_start(&mut self, work: &Work) -> Result<Vec<u8>> {
        let key = work.process().ok_or_else(Failure::no_container)?;
        if matches!(work, Work::Restore(_)) {
            let state = self
                .container(&key.container)?
                .runtime
                .state(&key.container)?;
            let container = self.container(&key.container)?;
            container.init.pid = state.pid().unwrap_or(0);
            container.cgroup = state.cgroup;
            self.watch_memory(&key.container);
        }
        if !key.is_init() {
            let bundle = &self.container(&key.container)?.bundle;
            let pid = read_pid(&pid_file(bundle, &key.exec))?;
            process_of(&mut self.containers, &key)?.pid = pid;
        }
        let process = process_of(&mut self.containers, &key)?;
        process.status = Status::Running;
        if let Err(failure) = process.io.read_input(&mut self.poller) {
            log::warn!("{}: {failure}", key.id());
        }
        let pid = process.pid;
        if let Some(exit) = self.jobs.ended_early(pid) {
            process.held_exit = Some(exit);
        }
        let (container_id, pid) = (key.container.clone(), pid as u32);
        match key.is_init() {
            true => self.events.push(
                "/tasks/start",
                "TaskStart",
                &TaskStart { container_id, pid },
            ),
            false => self.events.push(
                "/tasks/exec-started",
                "TaskExecStarted",
                &TaskExecStarted {
                    container_id,
                    exec_id: key.exec.clone(),
                    pid,
                },
            ),
        }
        Ok(StartResponse { pid }.encode_to_vec())
    }
}

/// The command line that makes a process.
fn describe(command: &mut Command, container: &Container, job: &mut Job) -> Result<()> {
    let bundle = &container.bundle;
    let exec = match &job.work {
        Work::Exec(key) => &*key.exec,
        _ => "",
    };
    command.arg(match &job.work {
        Work::Restore(_) => "restore",
        Work::Exec(_) => "exec",
        _ => "create",
    });
    match &job.work {
        Work::Exec(_) => {
            let spec = container.execs.get(exec).map(|exec| &*exec.spec);
            let paper = job.input.insert(Paper::with(spec.unwrap_or_default())?);
            command.args(["--detach", "--process", &paper.path()]);
        }
        Work::Restore(_) => {
            command.arg("--detach").arg("--bundle").arg(bundle);
            if let Some(checkpoint) = &container.checkpoint {
                command.arg("--image-path").arg(&checkpoint.image);
                if !checkpoint.parent.as_os_str().is_empty() {
                    command.arg("--parent-path").arg(&checkpoint.parent);
                }
            }
            let work = work_path(container, &container.options.criu_work_path)?;
            command.arg("--work-path").arg(work);
        }
        _ => {
            command.arg("--bundle").arg(bundle);
        }
    }
    if exec.is_empty() {
        let options = &container.options;
        switch_on(
            command,
            &[
                ("--no-pivot", options.no_pivot_root),
                (
                    "--no-new-keyring",
                    options.no_new_keyring && container.checkpoint.is_none(),
                ),
            ],
        );
    }
    command.arg("--pid-file").arg(pid_file(bundle, exec));
    if let Some(console) = &job.console {
        command.arg("--console-socket").arg(console.path());
    }
    command.arg(&container.id);
    Ok(())
}

/// process.json with the terminal as the call wants it.
fn with_terminal(spec: &[u8], terminal: bool) -> Result<Vec<u8>> {
    let invalid = |error: serde_json::Error| Failure::invalid(format!("spec: {error}"));
    let mut process: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(spec).map_err(invalid)?;
    process.insert("terminal".to_owned(), terminal.into());
    serde_json::to_vec(&process).map_err(invalid)
}

/// Where the runtime writes the pid of a process.
pub(crate) fn pid_file(bundle: &Path, exec: &str) -> PathBuf {
    bundle.join(match exec {
        "" => "init.pid".to_owned(),
        exec => format!("exec-{exec}.pid"),
    })
}

/// The pid in a file.
pub(crate) fn read_pid(path: &Path) -> Result<i32> {
    let reading = || format!("read pid file {}", path.display());
    let text = fs::read_to_string(path).context(reading)?;
    text.trim().parse().context(reading)
}
