//! `update`: other resource limits for a container that is there.

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};

use crate::intel_rdt::{Group, Plan, Resctrl};
use crate::state::{Container, Status};
use crate::{Error, Kind, Result, Settings};

/// The options of [`update`]: what changes, merged from file and flags. Devices are never touched.
#[derive(Clone, Debug, Default)]
pub struct UpdateOptions {
    /// The resources to write.
    pub resources: LinuxResources,
    /// intelRdt `l3CacheSchema`.
    pub l3_cache_schema: Option<String>,
    /// intelRdt `memBwSchema`.
    pub mem_bw_schema: Option<String>,
}

/// Changes the resource limits of a container.
pub fn update(settings: &Settings, id: &str, options: &UpdateOptions) -> Result<()> {
    let mut container = Container::lock(settings, id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new(Kind::WrongStatus, "container not running"));
    }
    let (cache, bandwidth) = (
        options.l3_cache_schema.as_deref(),
        options.mem_bw_schema.as_deref(),
    );
    if cache.is_some() || bandwidth.is_some() {
        intel_rdt(&mut container)?.update(cache, bandwidth)?;
        if options.resources == LinuxResources::default() {
            return Ok(());
        }
    }
    Ok(container.required_cgroup()?.update(&options.resources)?)
}

/// The container's place in resctrl. One that has none gets a class of its own, with its first process and what that starts from now on.
fn intel_rdt(container: &mut Container) -> Result<Group> {
    if let Some(group) = &container.record.intel_rdt {
        return Ok(group.clone());
    }
    let wanted = Plan::new(&LinuxIntelRdt::default())?;
    let group = Resctrl::find()?.group(&wanted, &container.record.id)?;
    container.record.intel_rdt = Some(group.clone());
    container.directory.write_journal(&container.record)?;
    container.directory.write_record(&container.record)?;
    group.make(&wanted)?;
    let init = container.record.init.as_ref();
    init.map_or(Ok(()), |init| group.add(init.pid))?;
    Ok(group)
}
