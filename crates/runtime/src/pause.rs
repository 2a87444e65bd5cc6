//! `pause` and `resume`: the freezer.

use crate::state::{Container, Status};
use crate::{Error, Kind, Result, Settings};

/// Freezes every process of a container.
pub fn pause(settings: &Settings, id: &str) -> Result<()> {
    let container = Container::lock(settings, id)?;
    match container.status()? {
        Status::Running | Status::Created => Ok(container.required_cgroup()?.freeze()?),
        Status::Paused => Err(Error::new(Kind::WrongStatus, "container paused")),
        _ => Err(Error::new(Kind::WrongStatus, "container not running")),
    }
}

/// Thaws a paused container.
pub fn resume(settings: &Settings, id: &str) -> Result<()> {
    let container = Container::lock(settings, id)?;
    match container.status()? {
        Status::Paused => Ok(container.required_cgroup()?.thaw()?),
        _ => Err(Error::new(Kind::WrongStatus, "container not paused")),
    }
}
