//! `update`: other resource limits for a container that is there.

use oci_spec::runtime::LinuxResources;

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
    if options.l3_cache_schema.is_some() || options.mem_bw_schema.is_some() {
        return Err(Error::invalid(
            "intelRdt: is not supported by this version of coracle",
        ));
    }
    let container = Container::lock(settings, id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new(Kind::WrongStatus, "container not running"));
    }
    Ok(container.required_cgroup()?.update(&options.resources)?)
}
