//! Statistics of a cgroup, in the shape of runc's `events --stats` (`types/events.go`).
//!
//! The serialized names are runc's. Where runc leaves a zero out, so does this.

mod v1;
mod v2;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::host::Version;
use crate::{Error, Result};

/// The `data` object of a `stats` event.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Time on the processors.
    pub cpu: Cpu,
    /// The processors and memory nodes allowed.
    pub cpuset: CpuSet,
    /// Memory in use and its limits.
    pub memory: Memory,
    /// Number of processes.
    pub pids: Pids,
    /// Block devices.
    pub blkio: BlkIo,
    /// Huge pages, by page size (`2MB`).
    pub hugetlb: BTreeMap<String, HugeTlb>,
    /// Not a cgroup matter; for the caller to fill in.
    pub intel_rdt: IntelRdt,
    /// Not a cgroup matter; for the caller to fill in.
    pub network_interfaces: Option<Vec<NetworkInterface>>,
}

/// Time on the processors.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // The fields are explained by their types.
pub struct Cpu {
    pub usage: CpuUsage,
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Processor time in nanoseconds; the lists have one entry for each processor and exist on v1 only.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // The names say it.
pub struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

/// How often and for how long (nanoseconds) the quota stopped the cgroup.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // The names say it.
pub struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Pressure stall information (`accounting/psi.rst`).
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
pub struct Psi {
    /// Some processes waited.
    pub some: Pressure,
    /// All processes waited at once.
    pub full: Pressure,
}

/// Shares of time in percent over the last 10, 60 and 300 seconds, and the total in microseconds.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // The names say it.
pub struct Pressure {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

/// The v1 cpuset files by name; on v2 the lists alone.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // Named after the files.
pub struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Memory in bytes. `swap` counts memory and swap together, on v2 too; `raw` is `memory.stat`.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // The names say it.
pub struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    pub usage: MemoryEntry,
    pub swap: MemoryEntry,
    pub kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One counter in bytes: no limit is `u64::MAX`; `failcnt` is how often the limit was hit.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // The names say it.
pub struct MemoryEntry {
    pub limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    pub failcnt: u64,
}

/// Processes and threads; no limit is 0.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // The names say it.
pub struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block device counters; v2 has the first two lists.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // Named after the v1 files.
pub struct BlkIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkIoEntry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkIoEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One counter of one device.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // The names say it.
pub struct BlkIoEntry {
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // The names say it.
pub struct HugeTlb {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    pub failcnt: u64,
}

/// Shares of the last-level cache and of the memory's bandwidth, each left out where resctrl does not have it.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // Named after what resctrl calls them.
pub struct IntelRdt {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mbm_stats: Vec<BandwidthMonitoring>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmt_stats: Vec<CacheMonitoring>,
}

/// The files of `info/L3`.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // Named after the files.
pub struct CacheInfo {
    pub cbm_mask: String,
    pub min_cbm_bits: u64,
    pub num_closids: u64,
}

/// The files of `info/MB`.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // Named after the files.
pub struct BandwidthInfo {
    pub bandwidth_gran: u64,
    pub delay_linear: u64,
    pub min_bandwidth: u64,
    pub num_closids: u64,
}

/// Bytes that went through one cache.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // Named after the files.
pub struct BandwidthMonitoring {
    #[serde(skip_serializing_if = "is_zero")]
    pub mbm_total_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub mbm_local_bytes: u64,
}

/// Bytes in one cache.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // Named after the files.
pub struct CacheMonitoring {
    #[serde(skip_serializing_if = "is_zero")]
    pub llc_occupancy: u64,
}

/// Counters of one network interface, seen from inside.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)] // The names say it.
pub struct NetworkInterface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

impl Cgroup {
    /// Reads the statistics of all controllers; what a controller that is missing would count is zero.
    ///
    /// # Errors
    /// When a file exists and cannot be read, or does not have the documented form.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for ((version, dir), place) in self.existing().zip(self.present_places()) {
            match version {
                Version::V1 => {
                    for controller in &place.controllers {
                        v1::read(dir, controller, &mut stats)?;
                    }
                }
                Version::V2 => v2::read(dir, &mut stats)?,
            }
        }
        Ok(stats)
    }

    fn present_places(&self) -> impl Iterator<Item = &crate::Place> {
        self.location
            .places
            .iter()
            .zip(&self.dirs)
            .filter(|(_, dir)| dir.is_some())
            .map(|(place, _)| place)
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A number by itself in a file: 0 when there is no such file, `u64::MAX` for `max`.
fn number(dir: &Dir, file: &str) -> Result<u64> {
    let Some(text) = dir.read(file)? else {
        return Ok(0);
    };
    match text.trim_end() {
        "max" => Ok(u64::MAX),
        // v1 prints a counter that dropped below zero as negative; runc calls that zero too.
        text if text.starts_with('-') => Ok(0),
        text => parse(dir, file, text),
    }
}

fn parse(dir: &Dir, file: &str, text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::Parse {
        path: dir.path().join(file),
        text: text.to_owned(),
    })
}

/// The lines of a `key value` file, values that are not numbers left out.
fn table(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// `0-2,5` as its members.
fn list(text: &str) -> Vec<u16> {
    let ranges = text.trim_end().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    });
    ranges.flatten().collect()
}

/// The sizes of huge pages of this machine in the form the controller uses: `64KB`, `2MB`, `1GB`.
fn huge_page_sizes() -> Vec<String> {
    let Ok(listing) = std::fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    let names = listing.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| {
            Some(size_name(
                name.strip_prefix("hugepages-")?
                    .strip_suffix("kB")?
                    .parse()
                    .ok()?,
            ))
        })
        .collect()
}

fn size_name(kilobytes: u64) -> String {
    match kilobytes {
        0..1024 => format!("{kilobytes}KB"),
        1024..0x10_0000 => format!("{}MB", kilobytes >> 10),
        _ => format!("{}GB", kilobytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(list("\n"), [0_u16; 0]);
    }

    #[test]
    fn page_sizes() {
        assert_eq!([64, 2048, 1 << 20].map(size_name), ["64KB", "2MB", "1GB"]);
    }

    #[test]
    fn the_shape_is_runcs() {
        let json = serde_json::to_value(Stats::default()).unwrap();
        let expected = serde_json::json!({
            "cpu": { "usage": { "kernel": 0, "user": 0 }, "throttling": {} },
            "cpuset": {
                "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0, "memory_spread_page": 0,
                "memory_spread_slab": 0, "memory_pressure": 0, "sched_load_balance": 0, "sched_relax_domain_level": 0
            },
            "memory": {
                "usage": { "limit": 0, "failcnt": 0 }, "swap": { "limit": 0, "failcnt": 0 },
                "kernel": { "limit": 0, "failcnt": 0 }, "kernelTCP": { "limit": 0, "failcnt": 0 }
            },
            "pids": {}, "blkio": {}, "hugetlb": {}, "intel_rdt": {}, "network_interfaces": null
        });
        assert_eq!(json, expected);
    }
}
