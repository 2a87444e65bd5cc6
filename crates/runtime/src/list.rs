//! `list` and `ps`.

use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use crate::state::{self, Container};
use crate::sys::directory::names;
use crate::{Context, Error, Kind, Result, Settings, State, Status, affinity};

/// One row of `list`: what `list --format json` prints.
pub type ListEntry = State;

/// A further thread is worth it for so many containers: to start it takes as long as five of them.
const SHARE: usize = 16;

/// Every container below the state root, sorted by id. One that cannot be read is logged and left out.
pub fn list(settings: &Settings) -> Result<Vec<ListEntry>> {
    let reading = || format!("read state root {}", settings.root.display());
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let ids = match openat(AT_FDCWD, &settings.root, directory, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        opened => opened.and_then(|root| names(root.as_fd())),
    };
    let mut ids = ids.with_context(reading)?;
    ids.sort();
    let rows: Vec<_> = ids.into_iter().map(|id| (id, OnceLock::new())).collect();
    let next = AtomicUsize::new(0);
    let read = || {
        let mut buffer = Vec::new();
        while let Some((id, row)) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(state) = state(settings, &id.to_string_lossy(), &mut buffer) {
                let _ = row.set(state);
            }
        }
    };
    let threads = match rows.len() / SHARE {
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
    let states = rows.into_iter().filter_map(|(_, row)| row.into_inner());
    Ok(states.collect())
}

/// One row, if it is a container's.
fn state(settings: &Settings, id: &str, buffer: &mut Vec<u8>) -> Option<State> {
    match state::state_by(settings, id, buffer) {
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
