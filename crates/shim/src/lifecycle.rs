//! From Create to Delete: calls that the runtime has to be executed for, and what follows when it is through.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use prost::Message;

use crate::console::ConsoleSocket;
use crate::container::{
    Checkpoint, Config, Container, Deletion, Exec, Key, Process, Status, check_id,
};
use crate::control::{name, wrong};
use crate::error::{Code, Context, Failure, Result};
use crate::io::{Prepared, Stdio};
use crate::jobs::{Job, Work, give_streams};
use crate::protos::Empty;
use crate::protos::events::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskIo, TaskStart,
};
use crate::protos::options::CheckpointOptions;
use crate::protos::task::{
    CheckpointTaskRequest, CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse,
    ExecProcessRequest, StartRequest, StartResponse, UpdateTaskRequest,
};
use crate::runtime::{Paper, Runtime};
use crate::service::{Answer, done, empty};
use crate::shim::Shim;
use crate::ttrpc::Reply;
use crate::{mounts, options};

/// How long output of a process that has ended may take to be passed on.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a logger may take to end by itself.
const LOGGER_DRAIN: Duration = Duration::from_secs(2);

impl Shim {
    pub(crate) fn create(&mut self, reply: Reply, request: CreateTaskRequest) -> Answer {
        check_id("id", &request.id)?;
        if self.containers.contains_key(&request.id) {
            let text = format!("container {}: already exists", request.id);
            return Err(Failure::new(Code::AlreadyExists, text));
        }
        let bundle = PathBuf::from(&request.bundle);
        if !bundle.is_absolute() {
            return Err(Failure::invalid(format!(
                "bundle: {:?} is no absolute path",
                request.bundle
            )));
        }
        let id = request.id.clone();
        let container = self.new_container(&request, bundle)?;
        self.containers.insert(id.clone(), container);
        let begun = self.begin_create(reply, &request);
        if begun.is_err() {
            self.undo_create(&id);
        }
        begun
    }

    fn new_container(&self, request: &CreateTaskRequest, bundle: PathBuf) -> Result<Container> {
        let options = options::read(request.options.as_ref())?;
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let checkpoint = (!request.checkpoint.is_empty()).then(|| Checkpoint {
            image: PathBuf::from(&request.checkpoint),
            parent: PathBuf::from(&request.parent_checkpoint),
        });
        let config = Config::read(&bundle)?;
        Ok(Container {
            id: request.id.clone(),
            runtime: Runtime::new(&options, &self.namespace, self.debug),
            init: Process::new(stdio, Status::Creating),
            execs: Default::default(),
            paused: false,
            shares_pids: config.shares_pids(),
            cgroup: None,
            oom: None,
            checkpoint,
            event: TaskCreate {
                container_id: request.id.clone(),
                bundle: request.bundle.clone(),
                rootfs: request.rootfs.clone(),
                io: Some(TaskIo {
                    stdin: request.stdin.clone(),
                    stdout: request.stdout.clone(),
                    stderr: request.stderr.clone(),
                    terminal: request.terminal,
                }),
                checkpoint: request.checkpoint.clone(),
                pid: 0,
            },
            bundle,
            options,
        })
    }

    fn begin_create(&mut self, reply: Reply, request: &CreateTaskRequest) -> Answer {
        let id = &request.id;
        let container = self
            .containers
            .get_mut(id)
            .ok_or_else(Failure::no_container)?;
        container.runtime.save(&container.bundle)?;
        if !request.rootfs.is_empty() {
            let rootfs = container.rootfs();
            make_directory(&rootfs)?;
            mounts::mount_all(&request.rootfs, &rootfs).map_err(|failure| {
                Failure::unknown(format!("failed to mount rootfs component: {failure}"))
            })?;
        }
        if container.checkpoint.is_some() {
            // There is nothing to be made: Start restores it.
            self.created(id);
            return done(&CreateTaskResponse { pid: 0 });
        }
        self.launch(reply, Work::Create(id.clone()))?;
        Ok(None)
    }

    /// Prepares the streams of a process and has the runtime make it.
    fn launch(&mut self, reply: Reply, work: Work) -> Result<()> {
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
                .then(|| ConsoleSocket::new(number))
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

    fn not_started(&mut self, key: &Key, work: &Work) {
        if let Work::Create(id) = work {
            self.undo_create(id);
            return;
        }
        let Some(container) = self.containers.get_mut(&key.container) else {
            return;
        };
        let Ok(process) = container.process(&key.exec) else {
            return;
        };
        process.status = Status::Created;
        if *work != Work::Start(key.container.clone()) {
            let mut io = std::mem::take(&mut process.io);
            io.close(&self.poller);
            if let Some(logger) = io.logger {
                self.jobs.end_logger(logger.pid);
            }
        }
        self.publish_held(&key.container);
    }

    fn undo_create(&mut self, id: &str) {
        let Some(mut container) = self.containers.remove(id) else {
            return;
        };
        container.init.io.close(&self.poller);
        if let Some(logger) = container.init.io.logger.take() {
            self.jobs.end_logger(logger.pid);
        }
        if let Err(failure) = mounts::unmount_all(&container.rootfs()) {
            log::error!("{failure}");
        }
    }

    pub(crate) fn start(&mut self, reply: Reply, request: &StartRequest) -> Answer {
        let container = self.container(&request.id)?;
        let key = Key::new(&request.id, &request.exec_id);
        if !key.is_init() && !container.init.is_alive() && container.init.status != Status::Created
            || !key.is_init() && container.init.held_exit.is_some()
        {
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

    /// Has the runtime do something with a container that makes no process.
    fn command(
        &mut self,
        reply: Reply,
        id: &str,
        work: Work,
        describe: impl FnOnce(&mut Command, &Container, &mut Job) -> Result<()>,
    ) -> Result<()> {
        let container = self.container(id)?;
        let mut job = Job {
            reply,
            work,
            complaint: Paper::new()?,
            console: None,
            input: None,
        };
        let mut command = container.runtime.command(&job.complaint);
        describe(&mut command, container, &mut job)?;
        self.run(command, job)
    }

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

    pub(crate) fn delete(&mut self, reply: Reply, request: &DeleteRequest) -> Answer {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if process.deletion.is_some() {
            let text = format!("{} is being deleted already", request.id);
            return Err(Failure::new(Code::FailedPrecondition, text));
        }
        if !matches!(process.status, Status::Created | Status::Stopped) {
            return Err(wrong("delete", name(process.status)));
        }
        let patience = match process.status {
            // Its process holds the streams until the runtime has killed it.
            Status::Created => Duration::ZERO,
            _ if process.io.logger.is_some() => LOGGER_DRAIN,
            _ => DRAIN,
        };
        process.deletion = Some(Deletion {
            reply,
            deadline: Instant::now() + patience,
            under_way: false,
        });
        self.go_on_deleting();
        Ok(None)
    }

    /// Goes on with what waits for its output to be passed on.
    pub(crate) fn go_on_deleting(&mut self) {
        let now = Instant::now();
        let mut ready = Vec::new();
        for (id, container) in &mut self.containers {
            for (exec, process) in container.processes() {
                if let Some(deletion) = process.deletion.as_mut()
                    && !deletion.under_way
                    && (process.io.is_drained() || deletion.deadline <= now)
                {
                    deletion.under_way = true;
                    ready.push((Key::new(id, exec), deletion.reply));
                }
            }
        }
        for (key, reply) in ready {
            self.close_streams(&key);
            if !key.is_init() {
                self.exec_deleted(reply, &key);
                continue;
            }
            let work = Work::Delete(key.container.clone());
            let begun = self.command(reply, &key.container, work, |command, container, _| {
                command.arg("delete").arg(&container.id);
                Ok(())
            });
            if let Err(failure) = begun {
                self.not_deleted(&key.container);
                self.answer(reply, Err(failure));
            }
        }
    }

    fn close_streams(&mut self, key: &Key) {
        let Some(container) = self.containers.get_mut(&key.container) else {
            return;
        };
        if let Ok(process) = container.process(&key.exec) {
            let logger = process.io.logger.take();
            process.io.close(&self.poller);
            if let Some(logger) = logger {
                self.jobs.end_logger(logger.pid);
            }
        }
    }

    fn not_deleted(&mut self, id: &str) {
        if let Some(container) = self.containers.get_mut(id) {
            container.init.deletion = None;
        }
    }

    fn exec_deleted(&mut self, reply: Reply, key: &Key) {
        let Some(container) = self.containers.get_mut(&key.container) else {
            return;
        };
        let _ = fs::remove_file(pid_file(&container.bundle, &key.exec));
        if let Some(exec) = container.execs.remove(&key.exec) {
            self.answer(reply, Ok(deleted(&exec.process).encode_to_vec()));
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

    fn take_terminal(&mut self, work: &Work, console: &ConsoleSocket) -> Result<()> {
        let master = console.receive()?;
        let Some(key) = work.process() else {
            return Ok(());
        };
        let container = self.container_in_the_making(&key.container)?;
        let mut io = std::mem::take(&mut container.process(&key.exec)?.io);
        let connected = io.connect(master, &mut self.poller);
        self.container_in_the_making(&key.container)?
            .process(&key.exec)?
            .io = io;
        connected
    }

    fn container_in_the_making(&mut self, id: &str) -> Result<&mut Container> {
        self.containers
            .get_mut(id)
            .ok_or_else(Failure::no_container)
    }

    fn finish_create(&mut self, id: &str) -> Result<Vec<u8>> {
        let state = self.container_in_the_making(id)?.runtime.state(id)?;
        let pid = state
            .pid()
            .ok_or_else(|| Failure::unknown("the runtime has left no pid"))?;
        let container = self.container_in_the_making(id)?;
        container.cgroup = state.cgroup;
        container.init.pid = pid;
        self.watch_memory(id);
        self.created(id);
        let early = self.jobs.ended_early(pid);
        if let Some(exit) = early
            && let Some(container) = self.containers.get_mut(id)
        {
            container.init.held_exit = Some(exit);
        }
        Ok(CreateTaskResponse { pid: pid as u32 }.encode_to_vec())
    }

    fn created(&mut self, id: &str) {
        if let Some(container) = self.containers.get_mut(id) {
            container.init.status = Status::Created;
            let mut event = std::mem::take(&mut container.event);
            event.pid = container.init.pid as u32;
            self.events.push("/tasks/create", "TaskCreate", &event);
        }
    }

    fn finish_start(&mut self, work: &Work) -> Result<Vec<u8>> {
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
        let container = self.container(&key.container)?;
        if !key.is_init() {
            let pid = read_pid(&pid_file(&container.bundle, &key.exec))?;
            container.process(&key.exec)?.pid = pid;
        }
        let process = container.process(&key.exec)?;
        process.status = Status::Running;
        let pid = process.pid;
        let mut io = std::mem::take(&mut process.io);
        if let Err(failure) = io.read_input(&mut self.poller) {
            log::warn!("{}: {failure}", key.id());
        }
        self.container(&key.container)?.process(&key.exec)?.io = io;
        if let Some(exit) = self.jobs.ended_early(pid) {
            self.container(&key.container)?
                .process(&key.exec)?
                .held_exit = Some(exit);
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

    fn finish_delete(&mut self, id: &str, result: Result<()>) -> Result<Vec<u8>> {
        // A checkpoint may have taken it away already.
        let gone = |failure: &Failure| failure.message.contains("does not exist");
        if let Err(failure) = result
            && !gone(&failure)
        {
            self.not_deleted(id);
            return Err(failure);
        }
        let Some(mut container) = self.containers.remove(id) else {
            return Err(Failure::no_container());
        };
        if let Some((_, oom)) = &container.oom {
            self.poller.forget(oom);
        }
        for (_, process) in container.processes() {
            process.io.close(&self.poller);
        }
        mounts::unmount_all(&container.rootfs())?;
        let response = deleted(&container.init);
        self.events.push(
            "/tasks/delete",
            "TaskDelete",
            &TaskDelete {
                container_id: id.to_owned(),
                pid: response.pid,
                exit_status: response.exit_status,
                exited_at: response.exited_at,
                id: String::new(),
            },
        );
        Ok(response.encode_to_vec())
    }

    pub(crate) fn update(&mut self, reply: Reply, request: UpdateTaskRequest) -> Answer {
        let container = self.container(&request.id)?;
        if container.init.exit.is_some() {
            return Err(wrong("update", "stopped"));
        }
        let resources = request.resources.map(|any| any.value).unwrap_or_default();
        self.command(
            reply,
            &request.id,
            Work::Update,
            |command, container, job| {
                let paper = job.input.insert(Paper::with(&resources)?);
                command
                    .args(["update", "--resources", &paper.path()])
                    .arg(&container.id);
                Ok(())
            },
        )?;
        Ok(None)
    }

    pub(crate) fn checkpoint(&mut self, reply: Reply, request: &CheckpointTaskRequest) -> Answer {
        let container = self.container(&request.id)?;
        if container.init.status != Status::Running {
            return Err(wrong("checkpoint", name(container.init.status)));
        }
        let options = match &request.options {
            Some(any) => CheckpointOptions::decode(&*any.value)
                .map_err(|error| Failure::invalid(format!("options: {error}")))?,
            None => CheckpointOptions::default(),
        };
        self.command(
            reply,
            &request.id,
            Work::Checkpoint,
            |command, container, _| {
                command
                    .arg("checkpoint")
                    .arg("--image-path")
                    .arg(&request.path);
                let switches = [
                    ("--leave-running", !options.exit),
                    ("--tcp-established", options.open_tcp),
                    ("--ext-unix-sk", options.external_unix_sockets),
                    ("--shell-job", options.terminal),
                    ("--file-locks", options.file_locks),
                ];
                command.args(switches.iter().filter(|(_, on)| *on).map(|(flag, _)| *flag));
                for namespace in &options.empty_namespaces {
                    command.arg("--empty-ns").arg(namespace);
                }
                if !options.work_path.is_empty() {
                    command.arg("--work-path").arg(&options.work_path);
                }
                command.arg(&container.id);
                Ok(())
            },
        )?;
        Ok(None)
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
            if !container.options.criu_work_path.is_empty() {
                command
                    .arg("--work-path")
                    .arg(&container.options.criu_work_path);
            }
        }
        _ => {
            command.arg("--bundle").arg(bundle);
        }
    }
    if exec.is_empty() {
        let options = &container.options;
        let switches = [
            ("--no-pivot", options.no_pivot_root),
            (
                "--no-new-keyring",
                options.no_new_keyring && container.checkpoint.is_none(),
            ),
        ];
        command.args(switches.iter().filter(|(_, on)| *on).map(|(flag, _)| *flag));
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
        exec => format!("{exec}.pid"),
    })
}

/// The pid in a file.
pub(crate) fn read_pid(path: &Path) -> Result<i32> {
    let reading = || format!("read pid file {}", path.display());
    let text = fs::read_to_string(path).context(reading)?;
    text.trim().parse().context(reading)
}

fn make_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(0o711).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.context(|| format!("make {}", path.display())),
    }
}

fn deleted(process: &Process) -> DeleteResponse {
    DeleteResponse {
        pid: process.pid as u32,
        exit_status: process.exit.map_or(0, |exit| exit.status),
        exited_at: process.exit.map(|exit| exit.at),
    }
}
