//! `linux.intelRdt`: a share of the last-level cache and of the memory's bandwidth, by way of resctrl (runtime-spec config-linux.md,
//! "IntelRdt"; the kernel's filesystems/resctrl.rst).
//!
//! A class of service is a directory, and holds for every process whose number is written into its `tasks`, and for the children that it has
//! from then on. One that is named by `closID` belongs to whoever runs the machine and is left alone at the end.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cgroups::stats::{self, BandwidthInfo, BandwidthMonitoring, CacheInfo, CacheMonitoring};
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::{Context, Error, Result};

/// The resctrl file system of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Resctrl {
    root: PathBuf,
}

/// Where a container is in it, as it is kept in its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Group {
    root: PathBuf,
    /// The name of its class; empty for the default one.
    class: String,
    /// The class is the container's own, and goes with it.
    own: bool,
    /// The name of its monitoring group, which goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitoring: Option<String>,
}

/// What is wanted of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// `closID`.
    class: Option<String>,
    /// What goes into `schemata`, line by line and in this order.
    lines: Vec<String>,
    monitoring: bool,
}

impl Plan {
    /// Checks the section.
    pub(crate) fn new(configured: &LinuxIntelRdt) -> Result<Self> {
        let class = configured.clos_id().clone().filter(|id| !id.is_empty());
        if let Some(class) = &class
            && (matches!(class.as_str(), "." | "..") || class.contains('/') && class != "/")
        {
            return Err(Error::invalid(format!(
                "linux.intelRdt.closID: invalid intelRdt.ClosID {class:?}"
            )));
        }
        let mut lines = lines(
            configured.l3_cache_schema().as_deref(),
            configured.mem_bw_schema().as_deref(),
        )?;
        lines.extend(configured.schemata().iter().flatten().cloned());
        #[allow(deprecated, reason = "configurations from before 1.3 have these two")]
        let monitoring = [
            *configured.enable_monitoring(),
            *configured.enable_cmt(),
            *configured.enable_mbm(),
        ];
        Ok(Plan {
            class,
            lines,
            monitoring: monitoring.into_iter().flatten().any(|on| on),
        })
    }
}

/// The lines of `l3CacheSchema` and `memBwSchema`, of which the second has the word about the bandwidth.
fn lines(cache: Option<&str>, bandwidth: Option<&str>) -> Result<Vec<String>> {
    let bandwidth = bandwidth.filter(|schema| !schema.is_empty());
    if let Some(schema) = bandwidth
        && (!schema.starts_with("MB:") || schema.contains('\n'))
    {
        return Err(Error::invalid(format!(
            "linux.intelRdt.memBwSchema: {schema:?} is not one line that starts with MB:"
        )));
    }
    let cache = cache.unwrap_or_default().lines();
    let cache =
        cache.filter(|line| !(line.is_empty() || bandwidth.is_some() && line.starts_with("MB:")));
    Ok(cache.chain(bandwidth).map(str::to_owned).collect())
}

impl Resctrl {
    /// Finds it in the mount table.
    pub(crate) fn find() -> Result<Self> {
        let table = fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
        let root = table.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let place = before.split(' ').nth(4)?;
            after.starts_with("resctrl ").then(|| PathBuf::from(place))
        });
        let missing = "linux.intelRdt: intelRdt is specified in config, but Intel RDT is not enabled (no resctrl is mounted)";
        root.map(|root| Resctrl { root })
            .ok_or_else(|| Error::failed(missing))
    }

    /// The place of a container in it, which can be made as it is wanted. Nothing is made yet.
    pub(crate) fn group(&self, plan: &Plan, id: &str) -> Result<Group> {
        for (resource, field, name) in
            [("L3", "l3CacheSchema", "CAT"), ("MB", "memBwSchema", "MBA")]
        {
            let wanted = plan
                .lines
                .iter()
                .any(|line| line.starts_with(&format!("{resource}:")));
            if wanted && !self.root.join("info").join(resource).exists() {
                return Err(Error::failed(format!(
                    "linux.intelRdt: intelRdt.{field} is specified in config, but Intel RDT/{name} is not enabled"
                )));
            }
        }
        let class = match plan.class.as_deref() {
            None => id.to_owned(),
            Some("/") => String::new(),
            Some(class) => class.to_owned(),
        };
        let group = Group {
            root: self.root.clone(),
            class,
            own: plan.class.is_none(),
            monitoring: plan.monitoring.then(|| id.to_owned()),
        };
        group.check(plan)?;
        Ok(group)
    }
}

impl Group {
    fn path(&self) -> PathBuf {
        self.root.join(&self.class)
    }

    fn monitoring_path(&self) -> Option<PathBuf> {
        let name = self.monitoring.as_ref()?;
        Some(self.path().join("mon_groups").join(name))
    }

    /// Whether [`Group::make`] may do what it does: a class of somebody else's has to be as it is wanted already.
    fn check(&self, plan: &Plan) -> Result<()> {
        match (self.path().is_dir(), self.own) {
            (true, true) => Err(Error::failed(format!(
                "linux.intelRdt: {} exists already",
                self.path().display()
            ))),
            (true, false) => self.compare(plan),
            (false, false) if plan.lines.is_empty() => Err(Error::failed(format!(
                "linux.intelRdt.closID: clos {:?} does not exist, and no schema says what it would be",
                self.class
            ))),
            (false, _) => Ok(()),
        }
    }

    /// Makes what is missing, with its schemata.
    pub(crate) fn make(&self, plan: &Plan) -> Result<()> {
        let path = self.path();
        if !path.is_dir() {
            fs::create_dir(&path)
                .with_context(|| format!("linux.intelRdt: make {}", path.display()))?;
            self.write_schemata(&plan.lines).inspect_err(|_| {
                // Nobody else has it yet.
                let _ = fs::remove_dir(&path);
            })?;
        }
        match self.monitoring_path() {
            Some(path) => fs::create_dir(&path).with_context(|| {
                format!("linux.intelRdt.enableMonitoring: make {}", path.display())
            }),
            None => Ok(()),
        }
    }

    /// "If a closID directory exists, runtimes MUST compare."
    fn compare(&self, plan: &Plan) -> Result<()> {
        let normal = |line: &str| line.split_ascii_whitespace().collect::<String>();
        if plan.lines.is_empty() {
            return Ok(());
        }
        let there = read(&self.path().join("schemata"))?;
        let there: Vec<_> = there.lines().map(normal).collect();
        let different = plan
            .lines
            .iter()
            .find(|line| !there.contains(&normal(line)));
        match different {
            Some(line) => Err(Error::failed(format!(
                "linux.intelRdt: the schemata of clos {:?} are there already, and are not {line:?}",
                self.class
            ))),
            None => Ok(()),
        }
    }

    /// All lines in one write, so that the kernel takes all or none.
    fn write_schemata(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let text = lines.join("\n") + "\n";
        fs::write(self.path().join("schemata"), &text).map_err(|error| {
            // The kernel's own sentence about it.
            let status = fs::read_to_string(self.root.join("info/last_cmd_status"));
            let status = status
                .map(|status| format!(" ({})", status.trim()))
                .unwrap_or_default();
            Error::failed(format!(
                "linux.intelRdt: write the schemata {:?}: {error}{status}",
                text.trim_end()
            ))
        })
    }

    /// Puts a process into it.
    pub(crate) fn add(&self, pid: i32) -> Result<()> {
        for path in [Some(self.path()), self.monitoring_path()]
            .into_iter()
            .flatten()
        {
            let tasks = path.join("tasks");
            fs::write(&tasks, pid.to_string())
                .with_context(|| format!("linux.intelRdt: write {pid} to {}", tasks.display()))?;
        }
        Ok(())
    }

    /// `update`: other schemata.
    pub(crate) fn update(&self, cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
        self.write_schemata(&lines(cache, bandwidth)?)
    }

    /// Removes what is the container's own. What has gone already is fine.
    pub(crate) fn remove(&self) -> Result<()> {
        let own = self.own.then(|| self.path());
        for path in [self.monitoring_path(), own].into_iter().flatten() {
            match fs::remove_dir(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("linux.intelRdt: remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// runc's `intel_rdt` of `events`.
    pub(crate) fn stats(&self) -> Result<stats::IntelRdt> {
        let info = |resource: &str| {
            let path = self.root.join("info").join(resource);
            path.is_dir().then_some(path)
        };
        let root = read(&self.root.join("schemata"))?;
        let own = read(&self.path().join("schemata"))?;
        let mut stats = stats::IntelRdt::default();
        if let Some(info) = info("L3") {
            stats.l3_cache_info = Some(CacheInfo {
                cbm_mask: read(&info.join("cbm_mask"))?.trim().to_owned(),
                min_cbm_bits: number(&info.join("min_cbm_bits"))?,
                num_closids: number(&info.join("num_closids"))?,
            });
            stats.l3_cache_schema_root = schema(&root, "L3:");
            stats.l3_cache_schema = schema(&own, "L3:");
        }
        if let Some(info) = info("MB") {
            stats.mem_bw_info = Some(BandwidthInfo {
                bandwidth_gran: number(&info.join("bandwidth_gran"))?,
                delay_linear: number(&info.join("delay_linear"))?,
                min_bandwidth: number(&info.join("min_bandwidth"))?,
                num_closids: number(&info.join("num_closids"))?,
            });
            stats.mem_bw_schema_root = schema(&root, "MB:");
            stats.mem_bw_schema = schema(&own, "MB:");
        }
        if info("L3_MON").is_some() {
            self.monitor(&mut stats)?;
        }
        Ok(stats)
    }

    /// One entry for each cache, in their order.
    fn monitor(&self, stats: &mut stats::IntelRdt) -> Result<()> {
        let features = read(&self.root.join("info/L3_MON/mon_features"))?;
        let has = |feature: &str| features.lines().any(|line| line == feature);
        let data = self
            .monitoring_path()
            .unwrap_or_else(|| self.path())
            .join("mon_data");
        let entries = fs::read_dir(&data).with_context(|| format!("read {}", data.display()))?;
        let mut caches: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        caches.sort();
        for cache in caches {
            let value = |feature: &str| match has(feature) {
                true => number(&cache.join(feature)),
                false => Ok(0),
            };
            if has("mbm_total_bytes") || has("mbm_local_bytes") {
                stats.mbm_stats.push(BandwidthMonitoring {
                    mbm_total_bytes: value("mbm_total_bytes")?,
                    mbm_local_bytes: value("mbm_local_bytes")?,
                });
            }
            if has("llc_occupancy") {
                stats.cmt_stats.push(CacheMonitoring {
                    llc_occupancy: value("llc_occupancy")?,
                });
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("linux.intelRdt: read {}", path.display()))
}

/// A file of one number; `Unavailable` where the hardware has no answer yet.
fn number(path: &Path) -> Result<u64> {
    let text = read(path)?;
    match text.trim() {
        "Unavailable" | "Unassigned" => Ok(0),
        text => text.parse().map_err(|_| {
            Error::failed(format!(
                "linux.intelRdt: {} is not a number: {text:?}",
                path.display()
            ))
        }),
    }
}

fn schema(schemata: &str, resource: &str) -> String {
    let mut lines = schemata.lines().map(str::trim);
    lines
        .find(|line| line.starts_with(resource))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests;
