//! `start`: lets the created container's process execute the user's program.

use std::os::fd::{AsFd, RawFd};
use std::path::Path;

use crate::agent::Notifier;
use crate::directory::{EXEC_SOCKET, NOTIFY_DIRECTORY, Stage};
use crate::foreground::Foreground;
use crate::hooks::Lifetime;
use crate::notify::{self, Notify};
use crate::protocol::{Channel, Message};
use crate::state::{Container, Status};
use crate::{Error, Kind, Result, Settings, delete, hooks, state};

/// Starts a created container. When this returns the user's program has been executed, and the poststart hooks have run.
pub fn start(settings: &Settings, id: &str) -> Result<()> {
    let mut container = Container::lock(settings, id)?;
    let refused = |text: &str| Err(Error::new(Kind::WrongStatus, text));
    match container.status()? {
        Status::Created => {}
        Status::Stopped => return refused("cannot start a container that has stopped"),
        Status::Creating => return refused("cannot start a container that is still being created"),
        Status::Running | Status::Paused => {
            return refused("cannot start an already running container");
        }
    }
    // Before the program runs, so that nothing that it says is lost.
    let notify = match notify::host() {
        Some(host) if container.directory.has(NOTIFY_DIRECTORY)? => {
            let notify = Notify::open(&container.directory, &host)?;
            container.record.open_init()?.map(|init| (notify, init))
        }
        _ => None,
    };
    let hand_over = |listener| {
        let init = container.record.init.as_ref();
        let gone = || Error::failed("the container's process has ended");
        let pidfd = container.record.open_init()?.ok_or_else(gone)?;
        let notifier = Notifier {
            container: &container,
            pid: init.map_or(0, |init| init.pid),
            pidfd: pidfd.as_fd(),
            status: Status::Creating,
        };
        notifier.hand_over(listener)
    };
    container.directory.mark(Stage::Starting)?;
    match container.directory.connect()? {
        Some(connection) => {
            let channel = Channel::from(connection);
            channel.send(&Message::Go)?;
            wait_executed(&channel, None, hand_over)?;
        }
        None => return refused("cannot start a container that has stopped"),
    }
    container.directory.mark(Stage::Started)?;
    container.directory.remove_file(EXEC_SOCKET)?;
    // A poststart hook may take its time, and ask for the container's state or its end.
    container.directory.unlock()?;
    run_poststart(&container, None)?;
    match (notify, &container.record.init) {
        (Some((notify, pidfd)), Some(init)) => notify.wait(init.pid, pidfd.as_fd()),
        _ => Ok(()),
    }
}

/// Waits until a process that was told to go has: execve(2) closes the connection, and so does its end. The listener of its seccomp filter,
/// if there is one, goes to `hand_over`.
pub(crate) fn wait_executed(
    channel: &Channel,
    foreground: Option<&Foreground>,
    hand_over: impl Fn(RawFd) -> Result<()>,
) -> Result<()> {
    loop {
        Foreground::wait_for(foreground, channel.as_fd())?;
        match channel.receive()? {
            None => return Ok(()),
            Some(Message::Listener(listener)) => {
                hand_over(listener)?;
                channel.send(&Message::Continue)?;
            }
            Some(other) => return Err(instead(other)),
        }
    }
}

/// The error of a process that does not execute its program.
fn instead(said: Message) -> Error {
    match said {
        Message::Failed(text) => Error::failed(text),
        other => Error::failed(format!(
            "the container's process said {other:?} instead of starting"
        )),
    }
}

/// Runs the poststart hooks. One that fails stops the container (runtime-spec lifecycle, step 10).
pub(crate) fn run_poststart(container: &Container, foreground: Option<&Foreground>) -> Result<()> {
    let record = &container.record;
    if record.poststart.is_empty() {
        return Ok(());
    }
    let pid = record.init.as_ref().map_or(0, |init| init.pid);
    let state = state::for_hooks(record, pid, Status::Running);
    hooks::run(
        "poststart",
        &record.poststart,
        &state,
        Path::new(&record.bundle),
        Lifetime {
            container: None,
            foreground,
        },
    )
    .inspect_err(|_| {
        if let Err(error) = delete::stop(container) {
            log::warn!("stop the container after its hook failed: {error}");
        }
    })
}
