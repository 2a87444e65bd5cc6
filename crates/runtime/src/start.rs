//! `start`: lets the created container's process execute the user's program.

use std::path::Path;

use crate::directory::EXEC_SOCKET;
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
    match container.directory.connect(EXEC_SOCKET)? {
        Some(connection) => go(&Channel::from(connection))?,
        None => return refused("cannot start a container that has stopped"),
    }
    container.directory.remove_file(EXEC_SOCKET)?;
    // A poststart hook may take its time, and ask for the container's state or its end.
    container.directory.unlock()?;
    run_poststart(&container)
}

/// Tells the container's process to go, and waits until it has: execve(2) closes the connection.
pub(crate) fn go(channel: &Channel) -> Result<()> {
    channel.send(&Message::Go)?;
    let mut executing = false;
    loop {
        match channel.receive()? {
            Some(Message::Executing) => executing = true,
            Some(Message::Failed(text)) => return Err(Error::failed(text)),
            Some(other) => {
                let text = format!("the container's process said {other:?} instead of starting");
                return Err(Error::failed(text));
            }
            None if executing => return Ok(()),
            None => {
                let text = "the container's process ended before it executed its program";
                return Err(Error::failed(text));
            }
        }
    }
}

/// Runs the poststart hooks. One that fails stops the container (runtime-spec lifecycle, step 10).
pub(crate) fn run_poststart(container: &Container) -> Result<()> {
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
        None,
    )
    .inspect_err(|_| {
        if let Err(error) = delete::stop(container) {
            log::warn!("stop the container after its hook failed: {error}");
        }
    })
}
