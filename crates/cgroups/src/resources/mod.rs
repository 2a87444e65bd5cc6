//! `linux.resources` as an ordered list of writes, and the writing of it.
//!
//! The translation is pure: it needs to know only which controllers there are and of which version each is.

mod cpu;
mod io;
mod memory;
mod others;

use std::borrow::Cow;

use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::host::{Layout, Version};
use crate::refusal;
use crate::signal::field;
use crate::{Error, Result};

/// What to do when the kernel does not take a write as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Else {
    /// Report it.
    Fail,
    /// After EINVAL, write once more behind the next value: the two bound each other, and the right order depends on what
    /// is there now.
    Reorder,
    /// Go on when the file does not exist.
    Skip,
    /// Write this to that file when the first does not exist, or is not for this device.
    Instead { file: String, value: String },
}

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) version: Version,
    pub(crate) controller: &'static str,
    pub(crate) file: Cow<'static, str>,
    pub(crate) value: String,
    /// The place in config.json, below `linux.resources`.
    pub(crate) field: Cow<'static, str>,
    pub(crate) otherwise: Else,
}

/// The version in which this cgroup has a controller, if it has it.
type Controllers<'a> = &'a dyn Fn(&str) -> Option<Version>;

/// A list of writes in the making.
pub(crate) struct Plan<'a> {
    controllers: Controllers<'a>,
    writes: Vec<Write>,
}

/// Where a field's value goes.
#[derive(Clone, Copy)]
struct Target {
    version: Version,
    controller: &'static str,
    field: &'static str,
}

impl Plan<'_> {
    /// The target for a field, or the error that its controller is missing.
    fn target(&self, field: &'static str, controller: &'static str) -> Result<Target> {
        match (self.controllers)(controller) {
            Some(version) => Ok(Target {
                version,
                controller,
                field,
            }),
            None => Err(Error::MissingController {
                field: format!("linux.resources.{field}"),
                controller: controller.to_owned(),
                why: String::new(),
            }),
        }
    }

    fn put(
        &mut self,
        target: Target,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        otherwise: Else,
    ) {
        let Target {
            version,
            controller,
            field,
        } = target;
        let (file, value) = (file.into(), value.to_string());
        self.writes.push(Write {
            version,
            controller,
            file,
            value,
            field: field.into(),
            otherwise,
        });
    }
}

/// The error for a value that v2 has no counterpart for.
fn only_v1(field: &str) -> Error {
    Error::config(
        format!("linux.resources.{field}"),
        "is not supported on cgroup v2",
    )
}

/// Translates everything but `devices` and `unified`.
pub(crate) fn plan(wanted: &LinuxResources, controllers: Controllers<'_>) -> Result<Vec<Write>> {
    let mut plan = Plan {
        controllers,
        writes: Vec::new(),
    };
    if let Some(pids) = wanted.pids() {
        others::pids(&mut plan, pids)?;
    }
    if let Some(memory) = wanted.memory() {
        memory::memory(&mut plan, memory)?;
    }
    if let Some(block_io) = wanted.block_io() {
        io::block_io(&mut plan, block_io)?;
    }
    if let Some(cpu) = wanted.cpu() {
        cpu::cpu(&mut plan, cpu)?;
    }
    if let Some(limits) = wanted.hugepage_limits() {
        others::hugepages(&mut plan, limits)?;
    }
    if let Some(network) = wanted.network() {
        others::network(&mut plan, network)?;
    }
    if let Some(rdma) = wanted.rdma() {
        others::rdma(&mut plan, rdma)?;
    }
    Ok(plan.writes)
}

/// Translates and writes; devices are not looked at.
pub(crate) fn apply(cgroup: &Cgroup, wanted: &LinuxResources) -> Result<()> {
    let unified = match (&cgroup.controllers, cgroup.unified()) {
        (Some(known), _) => known.clone(),
        (None, Some(dir)) => dir.read_line("cgroup.controllers")?.unwrap_or_default(),
        (None, None) => String::new(),
    };
    let controllers = |name: &str| {
        if cgroup.legacy(name).is_some() {
            Some(Version::V1)
        } else {
            unified
                .split_whitespace()
                .any(|one| one == name)
                .then_some(Version::V2)
        }
    };
    let writes = plan(wanted, &controllers).map_err(|error| explain(error, cgroup))?;
    if let Some(memory) = wanted.memory() {
        memory::check_before_update(cgroup, memory)?;
    }
    write_all(cgroup, &writes)?;
    match wanted.unified() {
        Some(values) if !values.is_empty() => write_unified(cgroup, values, &unified),
        _ => Ok(()),
    }
}

/// Writes in order, see [`Else`].
fn write_all(cgroup: &Cgroup, writes: &[Write]) -> Result<()> {
    let mut again: Vec<&Write> = Vec::new();
    for write in writes {
        let dir = match write.version {
            Version::V1 => cgroup.legacy(write.controller),
            Version::V2 => cgroup.unified(),
        };
        let Some(dir) = dir else {
            return Err(Error::NoHierarchy("set limits of cgroup"));
        };
        match (dir.try_write(&*write.file, &write.value), &write.otherwise) {
            (Err(Errno::EINVAL), Else::Reorder) => again.push(write),
            (Err(Errno::ENOENT), Else::Skip) => {}
            (Err(Errno::ENOENT | Errno::EOPNOTSUPP), Else::Instead { file, value }) => {
                dir.write(file, value)
                    .map_err(|error| refused(write, error))?;
            }
            (Err(errno), _) => {
                return Err(refused(
                    write,
                    dir.write_error(&write.file, &write.value, errno),
                ));
            }
            (Ok(()), Else::Reorder) => {}
            (Ok(()), _) => {
                for write in again.drain(..) {
                    dir.write(&write.file, &write.value)
                        .map_err(|error| refused(write, error))?;
                }
            }
        }
    }
    Ok(())
}

fn refused(write: &Write, source: Error) -> Error {
    Error::Refused {
        field: format!("linux.resources.{}", write.field),
        source: Box::new(source),
    }
}

/// `linux.resources.unified`: file names and values as the kernel wants them, line by line.
fn write_unified(
    cgroup: &Cgroup,
    values: &std::collections::HashMap<String, String>,
    have: &str,
) -> Result<()> {
    const FIELD: &str = "linux.resources.unified";
    let dir = match (cgroup.location.layout(), cgroup.unified()) {
        (Layout::V2, Some(dir)) => dir,
        _ => {
            return Err(Error::config(
                FIELD,
                "invalid configuration: cannot use unified on cgroup v1",
            ));
        }
    };
    // In a fixed order, so that an error does not depend on the map's.
    let mut keys: Vec<_> = values.keys().collect();
    keys.sort_unstable();
    for key in keys {
        if key.contains('/') {
            return Err(Error::config(
                FIELD,
                format!("unified resource {key:?} must be a file name (no slashes)"),
            ));
        }
        let Some((controller, _)) = key.split_once('.') else {
            let problem =
                format!("unified resource {key:?} must be in the form CONTROLLER.PARAMETER");
            return Err(Error::config(FIELD, problem));
        };
        for line in values[key].lines() {
            match dir.try_write(key, line) {
                Ok(()) => {}
                Err(Errno::ENOENT | Errno::EPERM | Errno::EACCES)
                    if controller != "cgroup"
                        && !have.split_whitespace().any(|one| one == controller) =>
                {
                    let problem = format!(
                        "unified resource {key:?} can't be set: controller {controller:?} not available"
                    );
                    return Err(Error::config(
                        FIELD,
                        problem + &refusal::missing_controller(cgroup, controller),
                    ));
                }
                Err(errno) => {
                    let source = Box::new(dir.write_error(key, line, errno));
                    return Err(Error::Refused {
                        field: format!("{FIELD}[{key:?}]"),
                        source,
                    });
                }
            }
        }
    }
    Ok(())
}

/// Adds to a missing controller who withheld it.
fn explain(error: Error, cgroup: &Cgroup) -> Error {
    match error {
        Error::MissingController {
            field,
            controller,
            why: _,
        } => {
            let why = refusal::missing_controller(cgroup, &controller);
            Error::MissingController {
                field,
                controller,
                why,
            }
        }
        error => error,
    }
}

/// Reads one number from a file, `None` for `max` or an absent file.
fn number(dir: &Dir, file: &str) -> Result<Option<u64>> {
    Ok(dir.read(file)?.and_then(|text| text.trim().parse().ok()))
}

/// Reads a number out of a `key value` file.
pub(crate) fn keyed_number(text: &str, key: &str) -> u64 {
    field(text, key)
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The writes for a `linux.resources` in JSON, as `file=value`, when every controller has this version.
    pub(crate) fn writes(version: Version, json: &str) -> Result<Vec<String>> {
        let wanted: LinuxResources = serde_json::from_str(json).unwrap();
        let v1_only = ["net_cls", "net_prio", "blkio"];
        let have = |name: &str| match version {
            Version::V1 if name == "io" => None,
            Version::V2 if v1_only.contains(&name) => None,
            _ => Some(version),
        };
        let plan = plan(&wanted, &have)?;
        Ok(plan
            .into_iter()
            .map(|write| format!("{}={}", write.file, write.value))
            .collect())
    }

    #[test]
    fn nothing_wanted_nothing_written() {
        let empty = r#"{"cpu":{"shares":0,"quota":0,"cpus":""},"memory":{"limit":0},"pids":{"limit":0},"blockIO":{"weight":0}}"#;
        for version in [Version::V1, Version::V2] {
            assert!(writes(version, empty).unwrap().is_empty());
            assert!(writes(version, "{}").unwrap().is_empty());
        }
    }

    #[test]
    fn a_missing_controller_names_field_and_controller() {
        let wanted: LinuxResources = serde_json::from_str(r#"{"cpu":{"shares":5}}"#).unwrap();
        let error = plan(&wanted, &|_| None).unwrap_err().to_string();
        assert_eq!(
            error,
            "linux.resources.cpu.shares: the cgroup controller \"cpu\" is not available"
        );
    }
}
