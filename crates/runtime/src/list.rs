//! `list` and `ps`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

use crate::state::{self, Container};
use crate::{Context, Error, Kind, Result, Settings, State, Status, affinity};

/// One row of `list`: what `list --format json` prints.
pub type ListEntry = State;

/// A further thread is worth it for so many containers: to start it takes as long as five of them.
const SHARE: usize = 16;

/// Every container below the state root, sorted by id. One that cannot be read is logged and left out.
pub fn list(settings: &Settings) -> Result<Vec<ListEntry>> {
    let reading = || format!("read state root {}", settings.root.display());
    let entries = match std::fs::read_dir(&settings.root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(reading)?,
    };
    let ids: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let ids = ids.with_context(reading)?;
    let next = AtomicUsize::new(0);
    let states = Mutex::new(Vec::with_capacity(ids.len()));
    let read = || {
        while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = state(settings, &id.to_string_lossy());
            let mut states = states.lock().unwrap_or_else(PoisonError::into_inner);
            states.extend(found);
        }
    };
    let threads = match ids.len() / SHARE {
        0 => 0,
        most => most.min(affinity::cpus() - 1),
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            // Where no more are to be had the others do their share. It is not joined: that would wait for its stack to be unmapped.
            if thread::Builder::new().spawn_scoped(scope, read).is_err() {
                break;
            }
        }
        read();
    });
    let mut states = states.into_inner().unwrap_or_else(PoisonError::into_inner);
    states.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    Ok(states)
}

/// One row, if it is a container's.
fn state(settings: &Settings, id: &str) -> Option<State> {
    match state::state(settings, id) {
        Ok(state) => Some(state),
        // Deleted between the two looks, or not a container's directory.
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid) => None,
        Err(error) => {
            log::warn!("container {id}: {error}");
            None
        }
    }
}

/// The host pids of all of a container's processes.
pub fn processes(settings: &Settings, id: &str) -> Result<Vec<i32>> {
    let container = Container::open(settings, id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new(Kind::WrongStatus, "container not running"));
    }
    match container.cgroup()? {
        Some(cgroup) => Ok(cgroup.processes()?),
        None => Ok(container.pid_namespace()?.members()),
    }
}
