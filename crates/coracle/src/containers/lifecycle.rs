//! What is done to a container as a whole: stopping, starting again, removing, waiting, and taking care of one whose monitor is dead.

use runtime::{Error, Kind, Result};
use serde_json::{Value, json};

use super::attach::{self, AttachOptions, Parted};
use super::control::{Message, Started};
use super::directory::{CONFIG_FILE, Container, Containers, Held, Lock};
use super::record::{Phase, Status};
use super::{monitor, userns, volumes};

/// Makes sure that what is written down of a container is so. When its monitor is dead, it starts another one, which takes the container
/// over or cleans up after it.
pub(crate) fn settle(container: &Container) -> Result<Status> {
    let status = container.status();
    if !wants_monitor(&status) {
        return Ok(status);
    }
    let Some(lock) = container.try_lock()? else {
        return Ok(status);
    };
    // Once more with the lock: the monitor may have ended in between.
    let status = container.status();
    if !wants_monitor(&status) {
        return Ok(status);
    }
    let connection = monitor::spawn(container, lock)?;
    connection.say(&Message::Adopt)?;
    if let Started::Failed(_, text) = connection.started()? {
        return Err(Error::failed(text));
    }
    Ok(container.status())
}

fn wants_monitor(status: &Status) -> bool {
    matches!(status.phase, Phase::Running | Phase::Restarting)
}

/// The monitor of a container, or its lock when it has ended.
fn hold(container: &Container) -> Result<Held> {
    loop {
        settle(container)?;
        match container.hold()? {
            // Its monitor has died in between.
            Held::ByUs(_) if wants_monitor(&container.status()) => {}
            held => return Ok(held),
        }
    }
}

/// How a container is asked to end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stop {
    /// Instead of the container's own.
    pub(crate) signal: Option<i32>,
    /// Until SIGKILL, instead of the container's own.
    pub(crate) seconds: Option<u32>,
}

impl Stop {
    fn message(self, container: &Container, restart: bool) -> Message {
        Message::Stop {
            signal: self.signal.unwrap_or(container.record.stop_signal),
            seconds: self.seconds.unwrap_or(container.record.stop_timeout),
            restart,
        }
    }
}

/// Ends a container, waits until all it held is free, and gives its lock. One that has ended is fine.
fn end(container: &Container, how: Stop) -> Result<Lock> {
    loop {
        match hold(container)? {
            Held::ByUs(lock) => return Ok(lock),
            Held::ByMonitor(connection) => {
                connection.say(&how.message(container, false))?;
                while !matches!(connection.receive()?, Some(Message::Exited(_)) | None) {}
            }
        }
    }
}

/// Ends a container, and waits until all it held is free. One that has ended, or that is removed when it has, is fine.
pub(crate) fn stop(container: &Container, how: Stop) -> Result<()> {
    match end(container, how) {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        ended => ended.map(drop),
    }
}

/// Ends a container and starts it again, or starts one that has ended.
pub(crate) fn restart(container: &Container, how: Stop) -> Result<()> {
    let connection = match hold(container)? {
        Held::ByMonitor(connection) => {
            connection.say(&how.message(container, true))?;
            connection
        }
        Held::ByUs(lock) => {
            container.write_status(&Status::default())?;
            renew_profile(container)?;
            let connection = monitor::spawn(container, lock)?;
            connection.say(&Message::Start)?;
            connection
        }
    };
    match connection.started()? {
        Started::Running => Ok(()),
        Started::Failed(_, text) => Err(Error::failed(text)),
        Started::Ended => {
            let text = format!("container {} was stopped meanwhile", container.record.name);
            Err(Error::new(Kind::WrongStatus, text))
        }
    }
}

/// Another boot of the machine need not have loaded the AppArmor profile that was the default when the container was made.
fn renew_profile(container: &Container) -> Result<()> {
    if !container.record.default_apparmor {
        return Ok(());
    }
    let mut spec: Value = container.read(CONFIG_FILE)?;
    let profile = json!(runtime::default_apparmor_profile());
    let configured = &mut spec["process"]["apparmorProfile"];
    if *configured == profile {
        return Ok(());
    }
    *configured = profile;
    container.write(CONFIG_FILE, &spec)
}

/// Starts a container that has ended.
pub(crate) fn start(container: &Container) -> Result<()> {
    match hold(container)? {
        Held::ByMonitor(_) => Err(Error::new(
            Kind::WrongStatus,
            "cannot start an already running container",
        )),
        Held::ByUs(lock) => {
            drop(lock);
            restart(container, Stop::default())
        }
    }
}

/// Sends a signal by way of the monitor, which then knows that somebody means the container's end.
pub(crate) fn kill(container: &Container, signal: i32) -> Result<()> {
    let status = settle(container)?;
    match container
        .connect()?
        .filter(|_| status.phase == Phase::Running)
    {
        Some(connection) => connection.say(&Message::Signal(signal)),
        None => Err(Error::new(Kind::WrongStatus, "container not running")),
    }
}

/// runc's `delete` of a container of an image: it is gone as after `rm`.
pub(crate) fn delete(containers: &Containers, container: &Container, force: bool) -> Result<()> {
    match force {
        true => remove_forced(containers, container),
        false => remove_ended(containers, container, true),
    }
}

/// Waits for the end of a container, and tells its exit status.
pub(crate) fn wait(container: &Container) -> Result<i32> {
    loop {
        let connection = match hold(container)? {
            Held::ByUs(_) => return Ok(container.status().exit_code),
            Held::ByMonitor(connection) => connection,
        };
        connection.say(&Message::Wait)?;
        // At the end of the conversation its monitor was killed: the next one knows.
        while let Some(message) = connection.receive()? {
            if let Message::Exited(status) = message {
                return Ok(status);
            }
        }
    }
}

/// Stays with a container until it ends or the keys for leaving are pressed; its exit status, or 0.
pub(crate) fn attach(container: &Container, options: AttachOptions) -> Result<i32> {
    let Held::ByMonitor(connection) = hold(container)? else {
        let text = format!("container {} is not running", container.record.name);
        return Err(Error::new(Kind::WrongStatus, text));
    };
    connection.say(&Message::Attach)?;
    match attach::attach(container, connection, options)? {
        Parted::Exited(status) => Ok(status),
        Parted::Left => Ok(0),
        Parted::Failed(_, text) => Err(Error::failed(text)),
    }
}

/// Ends a container at once if it runs, and removes it with its volumes that have no name.
pub(crate) fn remove_forced(containers: &Containers, container: &Container) -> Result<()> {
    let at_once = Stop {
        signal: Some(nix::libc::SIGKILL),
        seconds: Some(0),
    };
    match end(container, at_once) {
        // It was run with --rm.
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        ended => ended.and_then(|_lock| remove(containers, container, true)),
    }
}

/// Removes a container that has ended.
pub(crate) fn remove_ended(
    containers: &Containers,
    container: &Container,
    volumes: bool,
) -> Result<()> {
    match hold(container) {
        // It was run with --rm, and nobody had looked at it.
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(Held::ByUs(_lock)) => remove(containers, container, volumes),
        Ok(Held::ByMonitor(_)) => {
            let name = &container.record.name;
            let text = format!(
                "cannot remove container {name}: it is running: stop it, or remove it with --force"
            );
            Err(Error::new(Kind::WrongStatus, text))
        }
    }
}

/// Removes a container that has ended, and whose lock the caller has. Can be repeated until it succeeds.
pub(crate) fn remove(
    containers: &Containers,
    container: &Container,
    with_volumes: bool,
) -> Result<()> {
    monitor::release(container)?;
    if with_volumes {
        for mount in container
            .record
            .mounts
            .iter()
            .filter(|mount| mount.anonymous)
        {
            let name = mount.name.as_deref().unwrap_or_default();
            userns::remove_dir_all(&volumes::directory(containers.store(), name))?;
        }
    }
    containers.remove(container)
}
