//! Calls that are answered at once: what is known, and what takes no command of the runtime's.

use super::{Answer, done, empty, stats};
use crate::container::{Container, Process, Status};
use crate::error::{Code, Context, Failure, Result};
use crate::protos::Any;
use crate::protos::events::{TaskPaused, TaskResumed};
use crate::protos::options::ProcessDetails;
use crate::protos::task::{
    CloseIoRequest, ConnectRequest, ConnectResponse, KillRequest, PauseRequest, PidsRequest,
    PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StateRequest,
    StateResponse, StatsRequest, StatsResponse, WaitRequest, WaitResponse,
};

use crate::shim::Shim;
use crate::sys;
use crate::ttrpc::Reply;

impl Shim {
    /// A container that has been created.
    pub(crate) fn container(&mut self, id: &str) -> Result<&mut Container> {
        self.containers
            .get_mut(id)
            .filter(|container| container.init.status != Status::Creating)
            .ok_or_else(Failure::no_container)
    }

    fn process(&mut self, id: &str, exec: &str) -> Result<&mut Process> {
        self.container(id)?.process(exec)
    }

    pub(crate) fn state(&mut self, request: &StateRequest) -> Answer {
        let container = self.container(&request.id)?;
        let (id, bundle) = (container.id.clone(), container.bundle.display().to_string());
        let paused = container.paused;
        let process = container.process(&request.exec_id)?;
        done(&StateResponse {
            id: match &*request.exec_id {
                "" => id,
                exec => exec.to_owned(),
            },
            bundle,
            pid: process.pid as u32,
            status: task_status(process.status, paused),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status: process.exit.map_or(0, |exit| exit.status),
            exited_at: process.exit.map(|exit| exit.at),
            exec_id: String::new(),
        })
    }

    pub(crate) fn wait(&mut self, reply: Reply, request: &WaitRequest) -> Answer {
        let process = self.process(&request.id, &request.exec_id)?;
        match process.exit {
            Some(exit) => done(&WaitResponse {
                exit_status: exit.status,
                exited_at: Some(exit.at),
            }),
            None => process.wait(reply).map(|()| None),
        }
    }

    pub(crate) fn kill(&mut self, request: &KillRequest) -> Answer {
        let container = self.container(&request.id)?;
        let signal = i32::try_from(request.signal)
            .ok()
            .filter(|signal| (0..=64).contains(signal))
            .ok_or_else(|| Failure::invalid(format!("signal: {} is none", request.signal)))?;
        let is_init = request.exec_id.is_empty();
        if is_init && request.all && container.cgroup.is_some() {
            container.cgroup()?.signal(signal)?;
            return empty();
        }
        let process = container.process(&request.exec_id)?;
        if process.exit.is_some() || process.held_exit.is_some() {
            return Err(finished());
        }
        if process.pid == 0 {
            let text = "process not created: failed precondition";
            return Err(Failure::new(Code::FailedPrecondition, text));
        }
        // Nobody else has this pid until we have waited for it.
        match sys::kill(process.pid, signal) {
            Ok(()) => {}
            Err(nix::errno::Errno::ESRCH) => return Err(finished()),
            Err(error) => return Err(error).context(|| format!("send signal {signal}")),
        }
        if is_init && signal == libc::SIGKILL && container.paused {
            // A v1 freezer keeps even what is killed.
            container.cgroup()?.thaw()?;
        }
        empty()
    }

    pub(crate) fn pause(&mut self, request: &PauseRequest) -> Answer {
        let container = self.container(&request.id)?;
        if container.paused {
            return Err(wrong("pause", "paused"));
        }
        match container.init.status {
            Status::Running => container.cgroup()?.freeze()?,
            status => return Err(wrong("pause", name(status))),
        }
        container.paused = true;
        self.events.push(
            "/tasks/paused",
            "TaskPaused",
            &TaskPaused {
                container_id: request.id.clone(),
            },
        );
        empty()
    }

    pub(crate) fn resume(&mut self, request: &ResumeRequest) -> Answer {
        let container = self.container(&request.id)?;
        if !container.paused {
            return Err(wrong("resume", name(container.init.status)));
        }
        container.cgroup()?.thaw()?;
        container.paused = false;
        self.events.push(
            "/tasks/resumed",
            "TaskResumed",
            &TaskResumed {
                container_id: request.id.clone(),
            },
        );
        empty()
    }

    pub(crate) fn pids(&mut self, request: &PidsRequest) -> Answer {
        let container = self.container(&request.id)?;
        let mut pids = match container.cgroup {
            Some(_) => container.cgroup()?.processes()?,
            None => Vec::new(),
        };
        // Like a zombie, until Delete: from 1.7 on, a containerd that comes back takes a container without processes for a
        // leak and removes it, and the exit status would be lost.
        let init = container.init.pid;
        if init != 0 && !pids.contains(&init) {
            pids.push(init);
        }
        let exec = |pid: i32| {
            let mut execs = container.execs.iter();
            let (id, _) = execs.find(|(_, exec)| exec.process.pid == pid)?;
            let details = ProcessDetails {
                exec_id: id.clone(),
            };
            Some(Any::new("containerd.runc.v1.ProcessDetails", &details))
        };
        let processes = pids.into_iter().map(|pid| ProcessInfo {
            pid: pid as u32,
            info: exec(pid),
        });
        done(&PidsResponse {
            processes: processes.collect(),
        })
    }

    pub(crate) fn stats(&mut self, request: &StatsRequest) -> Answer {
        let container = self.container(&request.id)?;
        done(&StatsResponse {
            stats: Some(stats::metrics(&container.cgroup()?)?),
        })
    }

    pub(crate) fn resize_pty(&mut self, request: &ResizePtyRequest) -> Answer {
        let process = self.process(&request.id, &request.exec_id)?;
        if let Some(console) = &process.io.console {
            let size = |value: u32, field: &str| {
                u16::try_from(value)
                    .map_err(|_| Failure::invalid(format!("{field}: {value} is too much")))
            };
            let width = size(request.width, "width")?;
            let height = size(request.height, "height")?;
            sys::resize(std::os::fd::AsFd::as_fd(console), width, height)
                .context(|| "resize the terminal".to_owned())?;
        }
        empty()
    }

    pub(crate) fn close_io(&mut self, request: &CloseIoRequest) -> Answer {
        let process = self.process(&request.id, &request.exec_id)?;
        if request.stdin {
            process.io.close_input();
        }
        empty()
    }

    pub(crate) fn connect(&mut self, request: &ConnectRequest) -> Answer {
        let task = self
            .container(&request.id)
            .map(|container| container.init.pid);
        done(&ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task.unwrap_or(0) as u32,
            version: String::new(),
        })
    }

    /// Does nothing while there are containers: others of the pod may need us.
    pub(crate) fn shutdown(&mut self, _: &ShutdownRequest) -> Answer {
        let mut containers = self.containers.values();
        self.is_unwanted = containers.all(|container| container.init.status == Status::Creating);
        if self.containers.is_empty() {
            self.end();
        }
        empty()
    }
}

fn finished() -> Failure {
    Failure::new(Code::NotFound, "process already finished: not found")
}

/// Containerd's sentence for what cannot be done in a state.
pub(super) fn wrong(action: &str, state: &str) -> Failure {
    let article = if state.starts_with('i') { "an" } else { "a" };
    let text = format!("cannot {action} {article} {state} process");
    Failure::new(Code::FailedPrecondition, text)
}

/// A status as a word.
pub(super) fn name(status: Status) -> &'static str {
    match status {
        Status::Creating => "creating",
        Status::Created => "created",
        Status::Starting => "starting",
        Status::Running => "running",
        Status::Stopped => "stopped",
    }
}

/// `containerd.v1.types.Status`. What is under way has not happened yet.
fn task_status(status: Status, paused: bool) -> i32 {
    match status {
        Status::Creating => 0,
        Status::Stopped => 3,
        _ if paused => 4,
        Status::Created | Status::Starting => 1,
        Status::Running => 2,
    }
}
