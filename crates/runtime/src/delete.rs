//! `delete`, and the undoing of a `create` that failed.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::directory::Directory;
use crate::state::{Container, Status};
use crate::{Context, Error, Kind, Result, Settings, hooks, state, sys};

/// After this long it is looked into why a killed process does not go.
const FIRST_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a killed process may take to go. One in uninterruptible sleep may never do.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Deletes a stopped (or created) container; with `force` kills a running one first, and a missing one is success.
pub fn delete(settings: &Settings, id: &str, force: bool) -> Result<()> {
    if force && let Ok(container) = Container::open(settings, id) {
        // Before waiting for the lock: whoever holds it may be waiting for this very process, or for a hook that goes with it.
        stop(&container)?;
    }
    let container = match Container::lock(settings, id) {
        Err(error) if error.kind() == Kind::Damaged && force => {
            Container::lock_damaged(settings, id)
        }
        container => container,
    };
    let container = match container {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Damaged) => {
            return clear_away(settings, id, force, error);
        }
        container => container?,
    };
    match container.status()? {
        Status::Stopped => forget(&container),
        Status::Created => destroy(&container),
        _ if force => destroy(&container),
        status => {
            let text = format!("cannot delete container {id} that is not stopped: {status}");
            Err(Error::new(Kind::WrongStatus, text))
        }
    }
}

/// There is no record that can be read: no container, one whose `create` was killed before it had made anything but its directory, or one
/// of which nothing is known any more.
fn clear_away(settings: &Settings, id: &str, force: bool, missing: Error) -> Result<()> {
    if !force {
        return Err(missing);
    }
    match Directory::open(settings, id) {
        Ok(mut directory) => {
            directory.lock()?;
            directory.remove()
        }
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes all there is of a container, its journal last: until then it can be tried again.
pub(crate) fn destroy(container: &Container) -> Result<()> {
    stop(container)?;
    forget(container)
}

/// The same of one whose process has ended.
pub(crate) fn forget(container: &Container) -> Result<()> {
    let record = &container.record;
    if let Some(location) = &record.cgroup {
        remove_cgroup(container, location)?;
    }
    if let Some(group) = &record.intel_rdt {
        group.remove()?;
    }
    if record.init.is_some() {
        hooks::run_all(
            "poststop",
            &record.poststop,
            &state::for_hooks(record, 0, Status::Stopped),
            &record.bundle,
        );
    }
    container.directory.remove()
}

fn remove_cgroup(container: &Container, location: &cgroups::Location) -> Result<()> {
    let record = &container.record;
    // systemd removes those of its units.
    let is_gone = !location.is_unit() && location.remove_empty()?;
    // A reboot takes all cgroups away: whoever is in there is a stranger.
    if is_gone || !record.is_of_this_boot()? {
        return Ok(());
    }
    let cgroup = cgroups::Cgroup::open(location)?;
    if record.init.is_none() && !container.damaged {
        // No process is on record: the child of a `create` that was killed before it could write it down ends when it looks for its maker, and
        // whoever does not is a stranger.
        cgroup.remove_once_empty(KILL_TIMEOUT)?;
        return Ok(());
    }
    // So is a container that was made there when this one had ended.
    let is_free = location.is_unit() && cgroup.wait_empty(Duration::ZERO)?;
    if is_free || !is_anothers(container, location)? {
        cgroup.remove()?;
    }
    Ok(())
}

/// Whether a running container of the same state root has this cgroup.
fn is_anothers(container: &Container, cgroup: &cgroups::Location) -> Result<bool> {
    for record in container.directory.others()? {
        if record.cgroup.as_ref() == Some(cgroup) && record.is_alive()? {
            log::warn!(
                "the cgroup of {} stays: container {} lives in it",
                container.record.id,
                record.id
            );
            return Ok(true);
        }
    }
    Ok(false)
}

/// Kills the container's process and waits for its end.
pub(crate) fn stop(container: &Container) -> Result<()> {
    let Some(pidfd) = container.record.open_init()? else {
        return Ok(());
    };
    let pid = container.record.init.as_ref().map_or(0, |init| init.pid);
    match sys::process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error).with_context(|| format!("kill process {pid}")),
    }
    // A frozen process dies only when it is thawed.
    if container.record.is_frozen()?
        && let Some(cgroup) = container.cgroup()?
    {
        cgroup.thaw()?;
    }
    let mut timeout = FIRST_TIMEOUT;
    loop {
        match poll(
            &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(0) if timeout == FIRST_TIMEOUT => {
                // It may wait for processes of its own that it froze itself.
                if let Some(cgroup) = container.cgroup()? {
                    cgroup.let_die()?;
                }
                timeout = KILL_TIMEOUT;
            }
            Ok(0) => {
                let text = format!(
                    "process {pid} does not end {} seconds after SIGKILL (it may hang in the kernel): try again later",
                    KILL_TIMEOUT.as_secs()
                );
                return Err(Error::failed(text));
            }
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("wait for process {pid}"));
            }
        }
    }
}
