//! Cgroups made by systemd: a transient scope, told over D-Bus, with the limits as its properties.
//!
//! systemd owns the tree ("single-writer rule", systemd's CGROUP_DELEGATION.md): it makes the scope's cgroup, moves the first process
//! into it, and with `Delegate=` leaves it to us from then on. Interface: org.freedesktop.systemd1(5).

mod bus;
mod gvariant;
mod message;
mod properties;

pub use properties::ANNOTATION as PROPERTY_ANNOTATION;

use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use self::bus::{Address, Bus, failed};
use self::message::Value;
use self::properties::Property;
use crate::host::{Host, Layout};
use crate::{Error, Location, Place, Result};

const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// A unit of systemd's that has a cgroup.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// With its suffix: `coracle-web.scope`.
    name: String,
    /// The slice it lies in.
    slice: String,
    /// Who has it.
    manager: Address,
}

/// A connection to systemd, for making one cgroup.
pub struct Systemd {
    bus: Bus,
}

impl Systemd {
    /// Connects to the systemd that runs as who we are: root's is the system's, an ordinary user's their own manager.
    ///
    /// # Errors
    /// [`Error::Systemd`] with every place that was tried.
    pub fn connect() -> Result<Systemd> {
        Bus::find().map(|bus| Systemd { bus })
    }

    /// Where the cgroup of `cgroups_path` will be: `slice:prefix:name`, which becomes `prefix-name.scope` in `slice` (`name` itself
    /// where that is a slice). Without a path the unit is `coracle-ID.scope`; without a slice it lies in system.slice, a user's in
    /// user.slice.
    ///
    /// # Errors
    /// [`Error::Config`] when the path does not have this form, [`Error::Systemd`] when systemd does not answer.
    pub fn locate(
        &mut self,
        host: &Host,
        cgroups_path: Option<&str>,
        id: &str,
    ) -> Result<Location> {
        let default_slice = if self.bus.address.user {
            "user.slice"
        } else {
            "system.slice"
        };
        let (slice, name) = unit_name(cgroups_path, id, default_slice)?;
        // Empty for the system's manager, unless it lives in a container.
        let mut path = self
            .bus
            .property("ControlGroup")?
            .trim_matches('/')
            .to_owned();
        let is_slice = name.ends_with(".slice");
        let below = expand_slice(if is_slice { &name } else { &slice })?;
        for part in [below.as_str(), if is_slice { "" } else { &name }] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(part);
            }
        }
        let path = PathBuf::from(path.trim_matches('/'));
        let places = host.hierarchies.iter().map(|hierarchy| Place {
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
            mount: hierarchy.mount.clone(),
            path: path.clone(),
        });
        Ok(Location {
            places: places.collect(),
            unit: Some(Unit {
                name,
                slice,
                manager: self.bus.address.clone(),
            }),
        })
    }

    /// Starts the unit of a [`Systemd::locate`]d cgroup with `pid` as its first process and `wanted` as its limits, devices included;
    /// the rest is for [`Cgroup::adopt`](crate::Cgroup::adopt). `annotations` may hold `org.systemd.property.NAME` with a value in GVariant text format.
    ///
    /// # Errors
    /// [`Error::Config`] with the field, and [`Error::Systemd`] with systemd's own words; there is no unit then.
    pub fn start<'a>(
        &mut self,
        location: &Location,
        pid: i32,
        wanted: &LinuxResources,
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        let unit = location
            .unit
            .as_ref()
            .ok_or(Error::NoHierarchy("start the unit of cgroup"))?;
        let mut all = vec![
            (
                "Description".to_owned(),
                Value::String(format!("container {}", unit.name)),
            ),
            ("DefaultDependencies".to_owned(), Value::Bool(false)),
            // Accounting keeps the controllers enabled that are measured.
            ("CPUAccounting".to_owned(), Value::Bool(true)),
            ("MemoryAccounting".to_owned(), Value::Bool(true)),
            ("TasksAccounting".to_owned(), Value::Bool(true)),
            ("IOAccounting".to_owned(), Value::Bool(true)),
        ];
        if unit.is_slice() {
            all.push(("Wants".into(), strings(&[&unit.slice])));
        } else {
            all.extend([
                ("Slice".to_owned(), Value::text(&unit.slice)),
                ("Delegate".to_owned(), Value::Bool(true)),
                ("PIDs".to_owned(), pids(pid)),
                // A scope whose processes were killed has failed, and would stay.
                ("CollectMode".to_owned(), Value::text("inactive-or-failed")),
            ]);
        }
        all.extend(self.limits(wanted, location.layout())?);
        // A user's manager may not restrict devices.
        if !unit.manager.user {
            all.extend(properties::devices(wanted)?);
        }
        for property in properties::annotated(annotations)? {
            all.retain(|(name, _)| *name != property.0);
            all.push(property);
        }
        self.start_unit(unit, &all)
    }

    /// The limits as far as this systemd knows them.
    fn limits(&mut self, wanted: &LinuxResources, layout: Layout) -> Result<Vec<Property>> {
        let mut properties = properties::limits(wanted, layout)?;
        if properties
            .iter()
            .any(|one| properties::since(one).is_some())
        {
            // As in "257.13-1~deb13u1", and "v246" before that.
            let version = self.bus.property("Version")?;
            let digits = version
                .trim_start_matches('v')
                .split(|c: char| !c.is_ascii_digit());
            let version: u32 = digits.take(1).collect::<String>().parse().unwrap_or(0);
            properties.retain(|one| properties::since(one).is_none_or(|since| since <= version));
        }
        Ok(properties)
    }

    fn start_unit(&mut self, unit: &Unit, properties: &[Property]) -> Result<()> {
        let action = || format!("start systemd unit {}", unit.name);
        let body = vec![
            Value::text(&unit.name),
            Value::text("fail"),
            property_list(properties),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let answer = match self.bus.call("StartTransientUnit", body.clone()) {
            // One of this name that failed stays until it is told to go.
            Err(error) if error.is_answer(UNIT_EXISTS) => {
                let name = vec![Value::text(&unit.name)];
                let _ = self.bus.call("ResetFailedUnit", name);
                self.bus.call("StartTransientUnit", body)
            }
            answer => answer,
        };
        let answer = answer.map_err(|error| error.while_doing(action()))?;
        self.finish(&answer)
            .map_err(|error| error.while_doing(action()))
    }

    /// Waits for the job that a call has answered with.
    fn finish(&mut self, answer: &[Value]) -> Result<()> {
        let job = answer.first().and_then(Value::as_str).unwrap_or_default();
        match self.bus.wait_for_job(job)?.as_str() {
            "done" | "skipped" => Ok(()),
            other => Err(failed("job", format!("systemd's job ended as {other:?}"))),
        }
    }
}

impl Unit {
    pub(crate) fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    fn connect(&self) -> Result<Systemd> {
        Bus::connect(&self.manager).map(|bus| Systemd { bus })
    }

    /// Tells systemd of limits that change.
    pub(crate) fn update(&self, wanted: &LinuxResources, layout: Layout) -> Result<()> {
        let mut systemd = self.connect()?;
        let properties = systemd.limits(wanted, layout)?;
        if properties.is_empty() {
            return Ok(());
        }
        // At run time only: the unit is transient anyway.
        let body = vec![
            Value::text(&self.name),
            Value::Bool(true),
            property_list(&properties),
        ];
        let answer = systemd.bus.call("SetUnitProperties", body);
        let action = || format!("set the properties of systemd unit {}", self.name);
        answer
            .map(drop)
            .map_err(|error| error.while_doing(action()))
    }

    /// Moves a process into the unit's cgroup where only systemd may: from a login session into the user's own units, say.
    pub(crate) fn attach(&self, pid: i32) -> Result<()> {
        let body = vec![Value::text(&self.name), Value::text("/"), pids(pid)];
        let answer = self.connect()?.bus.call("AttachProcessesToUnit", body);
        let action = || format!("attach process {pid} to systemd unit {}", self.name);
        answer
            .map(drop)
            .map_err(|error| error.while_doing(action()))
    }

    /// Has systemd forget the unit, whose processes are gone. That it knows of none is fine, and so is a systemd that is gone itself.
    pub(crate) fn stop(&self) -> Result<()> {
        let mut systemd = match self.connect() {
            Ok(systemd) => systemd,
            Err(error) => {
                log::warn!("systemd unit {} is left to itself: {error}", self.name);
                return Ok(());
            }
        };
        let body = vec![Value::text(&self.name), Value::text("replace")];
        let stopped = match systemd.bus.call("StopUnit", body) {
            Ok(answer) => systemd.finish(&answer),
            Err(error) if error.is_answer(NO_SUCH_UNIT) => return Ok(()),
            Err(error) => Err(error),
        };
        stopped.map_err(|error| error.while_doing(format!("stop systemd unit {}", self.name)))
    }
}

fn pids(pid: i32) -> Value {
    Value::Array("u".into(), vec![Value::Uint32(pid.unsigned_abs())])
}

fn strings(texts: &[&str]) -> Value {
    Value::Array(
        "s".into(),
        texts.iter().map(|text| Value::text(*text)).collect(),
    )
}

fn property_list(properties: &[Property]) -> Value {
    let pair =
        |(name, value): &Property| Value::Struct(vec![Value::text(name), value.clone().variant()]);
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}

/// `linux.cgroupsPath` as slice and unit name.
fn unit_name(path: Option<&str>, id: &str, default_slice: &str) -> Result<(String, String)> {
    const FIELD: &str = "linux.cgroupsPath";
    let (slice, unit) = match path {
        // The one letter that an id may have and a unit's name must not, as systemd-escape(1) writes it.
        None => ("", format!("coracle-{}.scope", id.replace('+', "\\x2b"))),
        Some(path) => match path.split(':').collect::<Vec<_>>()[..] {
            [_, _, ""] => return Err(Error::config(FIELD, format!("{path:?} has no name"))),
            [slice, _, name] if name.ends_with(".slice") => (slice, name.to_owned()),
            [slice, "", name] => (slice, format!("{name}.scope")),
            [slice, prefix, name] => (slice, format!("{prefix}-{name}.scope")),
            _ => {
                let problem = format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
                );
                return Err(Error::config(FIELD, problem));
            }
        },
    };
    let slice = if slice.is_empty() {
        default_slice
    } else {
        slice
    };
    // systemd.unit(5), "valid unit name".
    let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if unit.len() > 255 || !unit.chars().all(valid) {
        let problem = format!(
            "{unit:?} is not a valid name for a systemd unit (letters, digits and :-_.\\@, at most 255 in all)"
        );
        return Err(Error::config(FIELD, problem));
    }
    Ok((slice.to_owned(), unit))
}

/// The path of a slice: `a-b.slice` lies in `a.slice` (systemd.slice(5)). The root slice has none.
fn expand_slice(slice: &str) -> Result<String> {
    let invalid = || {
        Error::config(
            "linux.cgroupsPath",
            format!("invalid slice name: {slice:?}"),
        )
    };
    let stem = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if stem == "-" {
        return Ok(String::new());
    }
    let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if !stem.chars().all(valid) || stem.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    let parts: Vec<_> = stem
        .match_indices('-')
        .map(|(at, _)| &stem[..at])
        .chain([stem])
        .collect();
    Ok(parts
        .iter()
        .map(|part| format!("{part}.slice"))
        .collect::<Vec<_>>()
        .join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = |path, id| {
            unit_name(path, id, "system.slice").map(|(slice, name)| format!("{slice} {name}"))
        };
        assert_eq!(name(None, "x").unwrap(), "system.slice coracle-x.scope");
        assert_eq!(
            name(None, "a+b").unwrap(),
            "system.slice coracle-a\\x2bb.scope"
        );
        assert_eq!(
            name(Some("a-b.slice:libpod:77"), "x").unwrap(),
            "a-b.slice libpod-77.scope"
        );
        assert_eq!(name(Some("::77"), "x").unwrap(), "system.slice 77.scope");
        assert_eq!(
            name(Some("a.slice::pod.slice"), "x").unwrap(),
            "a.slice pod.slice"
        );
        for bad in [
            "",
            "/a/b",
            "a:b",
            "a:b:",
            "a:b:c:d",
            "a:b:c/d",
            "a:b:\u{fc}",
        ] {
            let error = name(Some(bad), "x").unwrap_err().to_string();
            assert!(error.starts_with("linux.cgroupsPath: "), "{error}");
        }
        assert!(name(None, &"x".repeat(300)).is_err());
    }

    #[test]
    fn slices() {
        assert_eq!(
            expand_slice("a-b-c.slice").unwrap(),
            "a.slice/a-b.slice/a-b-c.slice"
        );
        assert_eq!(expand_slice("system.slice").unwrap(), "system.slice");
        assert_eq!(expand_slice("-.slice").unwrap(), "");
        for bad in [
            "",
            "a",
            "a.scope",
            "-a.slice",
            "a-.slice",
            "a--b.slice",
            "a/b.slice",
            ".slice",
        ] {
            let error = expand_slice(bad).unwrap_err().to_string();
            assert!(error.contains("invalid slice name: "), "{error}");
        }
    }
}
