//! Delete: when all output has been passed on, what is left of a process goes.

use std::fs;
use std::time::{Duration, Instant};

use prost::Message;

use super::Answer;
use super::control::{name, wrong};
use super::start::pid_file;
use crate::container::{Deletion, Key, Process, Status, no_process, process_of};
use crate::error::{Code, Failure, Result};
use crate::jobs::Work;
use crate::mounts;
use crate::protos::events::TaskDelete;
use crate::protos::task::{DeleteRequest, DeleteResponse};
use crate::runtime::Runtime;
use crate::shim::Shim;
use crate::ttrpc::Reply;

/// How long output of a process that has ended may take to be passed on.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a logger may take to end by itself.
const LOGGER_DRAIN: Duration = Duration::from_secs(2);

impl Shim {
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
        if let Ok(process) = process_of(&mut self.containers, key)
            && let Some(logger) = process.io.close(&self.poller)
        {
            self.jobs.end_logger(&logger);
        }
    }

    /// Nobody waits for a process any more that is not there.
    fn dismiss(&mut self, key: &Key) {
        let waiters = process_of(&mut self.containers, key)
            .map(|process| std::mem::take(&mut process.waiters));
        for reply in waiters.unwrap_or_default() {
            self.answer(reply, Err(no_process(&key.exec)));
        }
    }

    fn not_deleted(&mut self, id: &str) {
        if let Some(container) = self.containers.get_mut(id) {
            container.init.deletion = None;
        }
    }

    fn exec_deleted(&mut self, reply: Reply, key: &Key) {
        self.dismiss(key);
        let Some(container) = self.containers.get_mut(&key.container) else {
            return;
        };
        let _ = fs::remove_file(pid_file(&container.bundle, &key.exec));
        if let Some(exec) = container.execs.remove(&key.exec) {
            self.answer(reply, Ok(deleted(&exec.process).encode_to_vec()));
        }
    }

    pub(crate) fn finish_delete(&mut self, id: &str, result: Result<()>) -> Result<Vec<u8>> {
        // A checkpoint may have taken it away already.
        let gone = |failure: &Failure| failure.message.contains("does not exist");
        if let Err(failure) = result
            && !gone(&failure)
        {
            self.not_deleted(id);
            return Err(failure);
        }
        let container = self
            .containers
            .get_mut(id)
            .ok_or_else(Failure::no_container)?;
        let processes: Vec<Key> = container
            .processes()
            .map(|(exec, _)| Key::new(id, exec))
            .collect();
        for key in &processes {
            self.close_streams(key);
            self.dismiss(key);
        }
        let container = self
            .containers
            .remove(id)
            .ok_or_else(Failure::no_container)?;
        if let Some((_, oom)) = &container.oom {
            self.poller.forget(oom);
        }
        if let Err(failure) = mounts::unmount_all(&container.rootfs()) {
            log::error!("{failure}");
        }
        // Whoever cleans up after this shim need not look for the container.
        Runtime::forget(&container.bundle);
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
}

fn deleted(process: &Process) -> DeleteResponse {
    DeleteResponse {
        pid: process.pid as u32,
        exit_status: process.exit.map_or(0, |exit| exit.status),
        exited_at: process.exit.map(|exit| exit.at),
    }
}
