//! `list` and `ps`.

use crate::state::Container;
use crate::{Context, Error, Kind, Result, Settings, State, Status};

/// One row of `list`: what `list --format json` prints.
pub type ListEntry = State;

/// Every container below the state root, sorted by id. One that cannot be read is logged and left out.
pub fn list(settings: &Settings) -> Result<Vec<ListEntry>> {
    let reading = || format!("read state root {}", settings.root.display());
    let entries = match std::fs::read_dir(&settings.root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(reading)?,
    };
    let mut states = Vec::new();
    for entry in entries {
        let id = entry.with_context(reading)?.file_name();
        match Container::open(settings, &id.to_string_lossy()).and_then(Container::into_state) {
            Ok(state) => states.push(state),
            // Deleted between the two looks, or not a container's directory.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid) => {}
            Err(error) => log::warn!("container {}: {error}", id.to_string_lossy()),
        }
    }
    states.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    Ok(states)
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
