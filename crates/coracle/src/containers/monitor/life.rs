//! From one start of the container to its end, and perhaps to the next start.

use std::os::fd::AsFd;
use std::time::SystemTime;

use runtime::{CreateOptions, Error, Exit, Result};

use super::memory::Memory;
use super::{Alarm, Monitor};
use crate::containers::directory::{Container, Containers};
use crate::containers::lifecycle::remove;
use crate::containers::network::Network;
use crate::containers::record::{Phase, Status, boot_id};
use crate::containers::rootfs;
use crate::containers::streams::{self, Streams};
use crate::containers::terminal::Keeper;

/// The exit status of a container of which nobody knows it: its monitor was killed, and the kernel does not tell others.
const UNKNOWN_STATUS: i32 = 255;

impl Monitor {
    pub(super) fn first_start(&mut self) {
        match self.start() {
            Ok(()) => {
                for obstacle in self.network.obstacles() {
                    self.clients.warn(&obstacle);
                }
                self.clients.started();
            }
            Err(error) => self.failed(&error),
        }
        self.network.settle();
    }

    pub(super) fn start_again(&mut self) {
        let _ = self.timer.unset();
        if !self.restart {
            self.status.restarts += 1;
        }
        self.restart = false;
        self.stopped = false;
        self.first_start();
    }

    /// The container could not be started: that is its end.
    fn failed(&mut self, error: &Error) {
        let text = error.to_string();
        let status = failure_status(&text);
        self.status.error.clone_from(&text);
        self.status.finished = Some(SystemTime::now());
        self.clients.failed(status, &text);
        self.finish(status);
    }

    fn start(&mut self) -> Result<()> {
        let id = &self.container.record.id;
        // What a monitor that was killed may have left.
        runtime::delete(&self.settings, id, true)?;
        self.network.detach()?;
        self.network.reserve()?;
        rootfs::mount_for_container(&self.container)?;
        let streams = Streams::hand_out(&self.container)?;
        let prepared = runtime::prepare(
            &self.settings,
            &CreateOptions {
                id: id.clone(),
                bundle: Some(self.container.path.clone()),
                ..CreateOptions::default()
            },
        );
        streams::use_null()?;
        let prepared = prepared?;
        self.memory = Memory::of(&self.container);
        self.network.attach(prepared.pid())?;
        self.set_running(prepared.pid());
        match self.container.write_status(&self.status) {
            // Nothing runs yet, so nobody has to be told of a container that is not known to run.
            Err(error) if self.status.restarts == 0 => return Err(error),
            Err(error) => log::warn!("{error}"),
            Ok(()) => {}
        }
        let (init, terminal) = prepared.start()?;
        self.streams = match terminal {
            Some(ends) => {
                let keeper = Keeper::start(&self.container, ends.0.as_fd(), &init)?;
                Streams::terminal(ends, Some(keeper))?
            }
            None => streams,
        };
        self.init = Some(init);
        Ok(())
    }

    fn set_running(&mut self, pid: i32) {
        self.status = Status {
            phase: Phase::Running,
            boot_id: boot_id(),
            pid,
            started: Some(SystemTime::now()),
            error: String::new(),
            oom_killed: false,
            ..std::mem::take(&mut self.status)
        };
    }

    /// A full disk must not end the container.
    fn note(&self) {
        if let Err(error) = self.container.write_status(&self.status) {
            log::warn!("{error}");
        }
    }

    /// The monitor before us is dead.
    pub(super) fn adopt(&mut self) {
        let is_this_boot = self.status.boot_id == boot_id();
        let init = runtime::init(&self.settings, &self.container.record.id);
        match (self.status.phase, init) {
            (_, Err(error)) => self.failed(&error),
            (_, Ok(Some(init))) => match Streams::adopt(&self.container) {
                Ok(streams) => {
                    self.streams = streams;
                    self.memory = Memory::of(&self.container);
                    // It was killed between the start and writing that down.
                    if self.status.phase != Phase::Running {
                        self.set_running(init.pid());
                        self.note();
                    }
                    self.init = Some(init);
                    if let Err(error) = self.network.adopt() {
                        log::warn!("{error}");
                    }
                    self.clients.started();
                }
                Err(error) => self.failed(&error),
            },
            (Phase::Restarting, Ok(None)) if is_this_boot => self.start_again(),
            (Phase::Running, Ok(None)) => {
                // A reboot is no failure, and nobody asked us to start anything after it.
                self.stopped = !is_this_boot;
                self.ended(Exit::Unknown);
                self.clients.started();
            }
            (Phase::Created | Phase::Restarting | Phase::Exited, Ok(None)) => {
                self.finish(self.status.exit_code);
            }
        }
    }

    pub(super) fn ended(&mut self, exit: Exit) {
        let _ = self.timer.unset();
        self.init = None;
        let (log, clients) = (&mut self.log, &mut self.clients);
        std::mem::replace(&mut self.streams, Streams::none()).drain(|stream, bytes| {
            log.take(stream, &bytes);
            clients.output(stream, bytes);
        });
        self.log.flush();
        let now = SystemTime::now();
        let ran = self
            .status
            .started
            .and_then(|started| now.duration_since(started).ok());
        self.status.pid = 0;
        self.status.finished = Some(now);
        self.status.exit_code = match exit {
            Exit::Status(status) => status,
            Exit::Unknown => {
                self.status.error = "its monitor was killed, and nobody knows how it ended".into();
                UNKNOWN_STATUS
            }
        };
        let id = &self.container.record.id;
        let memory = std::mem::take(&mut self.memory);
        self.status.oom_killed =
            memory.was_short(&self.container, self.status.exit_code, self.stopped);
        if let Err(error) = runtime::delete(&self.settings, id, true) {
            log::warn!("{error}");
        }
        if let Err(error) = self.network.detach() {
            log::warn!("{error}");
        }
        let policy = self.container.record.restart;
        if self.restart {
            self.start_again();
        } else if !self.stopped && policy.applies(self.status.exit_code, self.status.restarts) {
            self.status.phase = Phase::Restarting;
            self.note();
            let pause = self.backoff.next(ran.unwrap_or_default());
            self.set_alarm(Alarm::Start, pause);
        } else {
            self.finish(self.status.exit_code);
        }
    }

    /// Lets go of everything that the container held.
    pub(super) fn finish(&mut self, status: i32) {
        self.status.phase = Phase::Exited;
        self.status.exit_code = status;
        self.network.release();
        if let Err(error) = release(&self.container) {
            log::warn!("{error}");
            self.status.error = error.to_string();
        }
        self.note();
        if !self.container.record.remove
            && let Err(error) = self.container.sync_status()
        {
            log::warn!("{error}");
        }
        self.end = Some(status);
    }

    /// The last words.
    pub(super) fn part(mut self) -> Result<()> {
        let status = self.end.unwrap_or_default();
        self.container.remove_socket();
        let record = &self.container.record;
        if record.remove {
            remove(&Containers::around(&self.container), &self.container, true)?;
        }
        self.clients.exited(status);
        // From here on the container is anybody's; only those who listen still hear of it.
        drop((self.container, self.log, self.listener, self.network));
        self.clients.deliver()
    }
}

/// Everything that a container that has ended, or was never started, may still hold outside its directory. Can be repeated.
pub(crate) fn release(container: &Container) -> Result<()> {
    let record = &container.record;
    runtime::delete(&record.settings(), &record.id, true)?;
    Network::of(container).detach()?;
    rootfs::unmount(container)
}

/// Docker's exit statuses of `run`: 127 when there is no such program, 126 when it cannot be executed, 125 for everything else.
pub(crate) fn failure_status(error: &str) -> i32 {
    let about_program = error.contains("exec: \"") || error.contains("exec /");
    match about_program {
        true if error.contains("not found") || error.contains("no such file") => 127,
        true => 126,
        false => 125,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_dockers_statuses() {
        for (error, status) in [
            ("exec: \"x\": executable file not found in $PATH", 127),
            ("exec: \"/x\": stat /x: no such file or directory", 127),
            ("exec: \"/etc\": is a directory: permission denied", 126),
            ("exec /bin/x: exec format error", 126),
            ("mounts[3].source: bind /x: no such file or directory", 125),
        ] {
            assert_eq!(failure_status(error), status, "{error}");
        }
    }
}
