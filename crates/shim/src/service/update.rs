//! Update and Checkpoint: commands of the runtime's on a container that is there.

use std::path::PathBuf;
use std::process::Command;

use prost::Message;

use super::Answer;
use super::control::{name, wrong};
use super::create::make_directory;
use crate::container::{Container, Status};
use crate::error::{Failure, Result};
use crate::jobs::{Job, Work, switch_on};
use crate::protos::options::CheckpointOptions;
use crate::protos::task::{CheckpointTaskRequest, UpdateTaskRequest};
use crate::runtime::Paper;
use crate::shim::Shim;
use crate::ttrpc::Reply;

impl Shim {
    /// Has the runtime do something with a container that makes no process.
    pub(super) fn command(
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
                switch_on(
                    command,
                    &[
                        ("--leave-running", !options.exit),
                        ("--tcp-established", options.open_tcp),
                        ("--ext-unix-sk", options.external_unix_sockets),
                        ("--shell-job", options.terminal),
                        ("--file-locks", options.file_locks),
                    ],
                );
                for namespace in &options.empty_namespaces {
                    command.arg("--empty-ns").arg(namespace);
                }
                let work = work_path(container, &options.work_path)?;
                command.arg("--work-path").arg(work).arg(&container.id);
                Ok(())
            },
        )?;
        Ok(None)
    }
}

/// Where criu leaves its log: as the options say, or in the bundle. Among the images it would become part of what containerd
/// makes of them.
pub(super) fn work_path(container: &Container, option: &str) -> Result<PathBuf> {
    if !option.is_empty() {
        return Ok(PathBuf::from(option));
    }
    let path = container.bundle.join("criu-work");
    make_directory(&path, 0o700)?;
    Ok(path)
}
