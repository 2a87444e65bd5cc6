//! The ends of processes, and what has to be told before: the start of each, the ends of execs before that of the container, and that
//! there was no memory.

use prost::Message;

use crate::container::{Exit, Key, Status};
use crate::poller::Token;
use crate::protos::events::{TaskExit, TaskOom};
use crate::protos::task::WaitResponse;
use crate::shim::Shim;

impl Shim {
    /// A process of a container has ended. It is told as soon as it may be.
    pub(crate) fn exited(&mut self, key: &Key, exit: Exit) {
        let Some(container) = self.containers.get_mut(&key.container) else {
            return;
        };
        if key.is_init() && container.shares_pids {
            // Nothing else ends the others.
            let killed = container.cgroup().and_then(|cgroup| Ok(cgroup.kill()?));
            if let Err(failure) = killed {
                log::warn!("kill what is left of {}: {failure}", key.container);
            }
        }
        if let Ok(process) = container.process(&key.exec) {
            process.held_exit = Some(exit);
        }
        self.publish_held(&key.container);
    }

    /// Tells the ends of a container's processes as far as nothing has to be told before them.
    pub(crate) fn publish_held(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let ended: Vec<String> = container
            .execs
            .iter()
            .filter(|(_, exec)| {
                exec.process.held_exit.is_some() && exec.process.status != Status::Starting
            })
            .map(|(id, _)| id.clone())
            .collect();
        for exec in ended {
            self.publish(&Key::new(id, &exec));
        }
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let execs_are_through = !container.execs.values().any(|exec| exec.process.is_alive());
        let init = &container.init;
        let is_started = !matches!(init.status, Status::Creating | Status::Starting);
        if init.held_exit.is_some() && is_started && execs_are_through {
            self.publish(&Key::new(id, ""));
        }
        self.go_on_deleting();
    }

    fn publish(&mut self, key: &Key) {
        self.tell_out_of_memory(&key.container);
        let Some(container) = self.containers.get_mut(&key.container) else {
            return;
        };
        if key.is_init() && std::mem::take(&mut container.paused) {
            let thawed = container.cgroup().and_then(|cgroup| Ok(cgroup.thaw()?));
            if let Err(failure) = thawed {
                log::warn!("resume {}: {failure}", key.container);
            }
        }
        let Ok(process) = container.process(&key.exec) else {
            return;
        };
        let Some(exit) = process.held_exit.take() else {
            return;
        };
        process.exit = Some(exit);
        process.status = Status::Stopped;
        process.io.process_ended(&self.poller);
        let waiters = std::mem::take(&mut process.waiters);
        let event = TaskExit {
            container_id: key.container.clone(),
            id: key.id().to_owned(),
            pid: process.pid as u32,
            exit_status: exit.status,
            exited_at: Some(exit.at),
        };
        self.events.push("/tasks/exit", "TaskExit", &event);
        let response = WaitResponse {
            exit_status: exit.status,
            exited_at: Some(exit.at),
        };
        for reply in waiters {
            self.answer(reply, Ok(response.encode_to_vec()));
        }
    }

    /// Watches for the kernel to kill processes of a container for want of memory.
    pub(crate) fn watch_memory(&mut self, id: &str) {
        let number = self.poller.number();
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let watch = match container
            .cgroup()
            .and_then(|cgroup| Ok(cgroup.oom_watch()?))
        {
            Ok(Some(watch)) => watch,
            Ok(None) => return,
            Err(failure) => {
                log::warn!("watch the memory of {id}: {failure}");
                return;
            }
        };
        match self.poller.readable(&watch, Token::Oom(number)) {
            Ok(()) => container.oom = Some((number, watch)),
            Err(error) => log::warn!("watch the memory of {id}: {error}"),
        }
    }

    /// Something has happened to the memory of a container.
    pub(crate) fn out_of_memory(&mut self, number: u32) {
        let mut containers = self.containers.values();
        let found = containers.find(|container| {
            container
                .oom
                .as_ref()
                .is_some_and(|(watched, _)| *watched == number)
        });
        if let Some(id) = found.map(|container| container.id.clone()) {
            self.tell_out_of_memory(&id);
        }
    }

    fn tell_out_of_memory(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Some((_, watch)) = &mut container.oom else {
            return;
        };
        let state = watch
            .read()
            .inspect_err(|error| log::warn!("read the memory events of {id}: {error}"));
        let (kills, over) = state.map_or((0, true), |state| (state.kills, state.gone));
        if over && let Some((_, watch)) = container.oom.take() {
            self.poller.forget(&watch);
        }
        if kills > 0 {
            let event = TaskOom {
                container_id: id.to_owned(),
            };
            self.events.push("/tasks/oom", "TaskOOM", &event);
        }
    }

    /// A stream of some process can go on.
    pub(crate) fn relay(&mut self, number: u32) {
        let mut over = false;
        for container in self.containers.values_mut() {
            for (_, process) in container.processes() {
                if process.io.pump(number, &self.poller) {
                    over = process.io.is_drained();
                }
            }
        }
        if over {
            self.go_on_deleting();
        }
    }
}
