//! Create: from containerd's description to a container that waits for Start.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

use super::{Answer, done};
use crate::container::{Checkpoint, Config, Container, Memory, Process, Status, check_id};
use crate::error::{Code, Context, Failure, Result};
use crate::io::Stdio;
use crate::jobs::Work;
use crate::protos::events::{TaskCreate, TaskIo};
use crate::protos::task::{CreateTaskRequest, CreateTaskResponse};
use crate::runtime::Runtime;
use crate::shim::Shim;
use crate::ttrpc::Reply;
use crate::{mounts, options};

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
        self.is_unwanted = false;
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
            runtime: Runtime::new(&options, &self.namespace),
            init: Process::new(stdio, Status::Creating),
            execs: Default::default(),
            paused: false,
            shares_pids: config.shares_pids(),
            cgroup: None,
            memory: Memory::Unwatched,
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
            make_directory(&rootfs, 0o711)?;
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

    pub(crate) fn finish_create(&mut self, id: &str) -> Result<Vec<u8>> {
        let container = self
            .containers
            .get_mut(id)
            .ok_or_else(Failure::no_container)?;
        let state = container.runtime.state(id)?;
        let pid = state
            .pid()
            .ok_or_else(|| Failure::unknown("the runtime has left no pid"))?;
        container.cgroup = state.cgroup;
        container.init.pid = pid;
        container.init.held_exit = self.jobs.ended_early(pid);
        self.watch_memory(id);
        self.created(id);
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

    pub(super) fn undo_create(&mut self, id: &str) {
        let Some(mut container) = self.containers.remove(id) else {
            return;
        };
        if let Some(logger) = container.init.io.close(&self.poller) {
            self.jobs.end_logger(&logger);
        }
        if let Err(failure) = mounts::unmount_all(&container.rootfs()) {
            log::error!("{failure}");
        }
        if self.is_unwanted && self.containers.is_empty() {
            self.end();
        }
    }
}

/// Makes a directory, unless it is there.
pub(super) fn make_directory(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.context(|| format!("make {}", path.display())),
    }
}
