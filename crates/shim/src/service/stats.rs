//! Statistics in containerd's two shapes: that of cgroup v1, which hybrid machines have too, and that of v2.

use std::collections::BTreeMap;

use cgroups::stats::{BlkIoEntry, MemoryEntry, Psi, Stats};
use cgroups::{Cgroup, Layout};

use crate::error::Result;
use crate::protos::{Any, v1, v2};

/// A cgroup's statistics as containerd wants them for its layout.
pub(crate) fn metrics(cgroup: &Cgroup) -> Result<Any> {
    let stats = cgroup.stats()?;
    Ok(match cgroup.location().layout() {
        Layout::V2 => {
            let kills = cgroup.oom_kills().unwrap_or(0);
            Any::new("io.containerd.cgroups.v2.Metrics", &unified(&stats, kills))
        }
        Layout::V1 | Layout::Hybrid => {
            let kills = cgroup.oom_kills().unwrap_or(0);
            Any::new("io.containerd.cgroups.v1.Metrics", &legacy(&stats, kills))
        }
    })
}

/// `memory.stat` by its keys.
struct Raw<'a>(&'a BTreeMap<String, u64>);

impl Raw<'_> {
    fn get(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }
}

fn legacy(stats: &Stats, oom_kill: u64) -> v1::Metrics {
    let usage = &stats.cpu.usage;
    let throttling = &stats.cpu.throttling;
    v1::Metrics {
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, pages)| v1::HugetlbStat {
                usage: pages.usage,
                max: pages.max,
                failcnt: pages.failcnt,
                pagesize: size.clone(),
            })
            .collect(),
        pids: Some(v1::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit,
        }),
        cpu: Some(v1::CpuStat {
            usage: Some(v1::CpuUsage {
                total: usage.total,
                kernel: usage.kernel,
                user: usage.user,
                per_cpu: usage.percpu.clone(),
            }),
            throttling: Some(v1::Throttle {
                periods: throttling.periods,
                throttled_periods: throttling.throttled_periods,
                throttled_time: throttling.throttled_time,
            }),
        }),
        memory: Some(legacy_memory(stats)),
        blkio: Some(legacy_blkio(stats)),
        memory_oom_control: Some(v1::MemoryOomControl {
            oom_kill,
            ..Default::default()
        }),
    }
}

fn legacy_memory(stats: &Stats) -> v1::MemoryStat {
    let raw = Raw(&stats.memory.raw);
    let entry = |entry: &MemoryEntry| {
        Some(v1::MemoryEntry {
            limit: entry.limit,
            usage: entry.usage,
            max: entry.max,
            failcnt: entry.failcnt,
        })
    };
    v1::MemoryStat {
        cache: raw.get("cache"),
        rss: raw.get("rss"),
        rss_huge: raw.get("rss_huge"),
        mapped_file: raw.get("mapped_file"),
        dirty: raw.get("dirty"),
        writeback: raw.get("writeback"),
        pg_pg_in: raw.get("pgpgin"),
        pg_pg_out: raw.get("pgpgout"),
        pg_fault: raw.get("pgfault"),
        pg_maj_fault: raw.get("pgmajfault"),
        inactive_anon: raw.get("inactive_anon"),
        active_anon: raw.get("active_anon"),
        inactive_file: raw.get("inactive_file"),
        active_file: raw.get("active_file"),
        unevictable: raw.get("unevictable"),
        hierarchical_memory_limit: raw.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: raw.get("hierarchical_memsw_limit"),
        total_cache: raw.get("total_cache"),
        total_rss: raw.get("total_rss"),
        total_rss_huge: raw.get("total_rss_huge"),
        total_mapped_file: raw.get("total_mapped_file"),
        total_dirty: raw.get("total_dirty"),
        total_writeback: raw.get("total_writeback"),
        total_pg_pg_in: raw.get("total_pgpgin"),
        total_pg_pg_out: raw.get("total_pgpgout"),
        total_pg_fault: raw.get("total_pgfault"),
        total_pg_maj_fault: raw.get("total_pgmajfault"),
        total_inactive_anon: raw.get("total_inactive_anon"),
        total_active_anon: raw.get("total_active_anon"),
        total_inactive_file: raw.get("total_inactive_file"),
        total_active_file: raw.get("total_active_file"),
        total_unevictable: raw.get("total_unevictable"),
        usage: entry(&stats.memory.usage),
        swap: entry(&stats.memory.swap),
        kernel: entry(&stats.memory.kernel),
        kernel_tcp: entry(&stats.memory.kernel_tcp),
    }
}

fn legacy_blkio(stats: &Stats) -> v1::BlkIoStat {
    let entries = |entries: &[BlkIoEntry]| {
        let entry = |entry: &BlkIoEntry| v1::BlkIoEntry {
            op: entry.op.clone(),
            device: device_name(entry.major, entry.minor),
            major: entry.major,
            minor: entry.minor,
            value: entry.value,
        };
        entries.iter().map(entry).collect()
    };
    let blkio = &stats.blkio;
    v1::BlkIoStat {
        io_service_bytes_recursive: entries(&blkio.io_service_bytes_recursive),
        io_serviced_recursive: entries(&blkio.io_serviced_recursive),
        io_queued_recursive: entries(&blkio.io_queued_recursive),
        io_service_time_recursive: entries(&blkio.io_service_time_recursive),
        io_wait_time_recursive: entries(&blkio.io_wait_time_recursive),
        io_merged_recursive: entries(&blkio.io_merged_recursive),
        io_time_recursive: entries(&blkio.io_time_recursive),
        sectors_recursive: entries(&blkio.sectors_recursive),
    }
}

/// `/dev/vda`, or nothing.
fn device_name(major: u64, minor: u64) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = link
        .ok()
        .and_then(|link| link.file_name()?.to_str().map(str::to_owned));
    name.map_or_else(String::new, |name| format!("/dev/{name}"))
}

fn unified(stats: &Stats, oom_kill: u64) -> v2::Metrics {
    let usage = &stats.cpu.usage;
    let throttling = &stats.cpu.throttling;
    v2::Metrics {
        pids: Some(v2::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit,
        }),
        cpu: Some(v2::CpuStat {
            usage_usec: usage.total / 1000,
            user_usec: usage.user / 1000,
            system_usec: usage.kernel / 1000,
            nr_periods: throttling.periods,
            nr_throttled: throttling.throttled_periods,
            throttled_usec: throttling.throttled_time / 1000,
            psi: stats.cpu.psi.as_ref().map(pressure),
            ..Default::default()
        }),
        memory: Some(unified_memory(stats)),
        io: Some(v2::IoStat {
            usage: unified_io(stats),
            psi: stats.blkio.psi.as_ref().map(pressure),
        }),
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, pages)| v2::HugeTlbStat {
                current: pages.usage,
                max: pages.max,
                pagesize: size.clone(),
                failcnt: pages.failcnt,
            })
            .collect(),
        memory_events: Some(v2::MemoryEvents {
            max: stats.memory.usage.failcnt,
            oom_kill,
            ..Default::default()
        }),
    }
}

fn unified_memory(stats: &Stats) -> v2::MemoryStat {
    let raw = Raw(&stats.memory.raw);
    let memory = &stats.memory;
    // The statistics count memory and swap together, as v1 does.
    let swap_alone = |together: u64, memory: u64| match together {
        u64::MAX => u64::MAX,
        together => together.saturating_sub(memory),
    };
    v2::MemoryStat {
        anon: raw.get("anon"),
        file: raw.get("file"),
        kernel_stack: raw.get("kernel_stack"),
        slab: raw.get("slab"),
        sock: raw.get("sock"),
        shmem: raw.get("shmem"),
        file_mapped: raw.get("file_mapped"),
        file_dirty: raw.get("file_dirty"),
        file_writeback: raw.get("file_writeback"),
        anon_thp: raw.get("anon_thp"),
        inactive_anon: raw.get("inactive_anon"),
        active_anon: raw.get("active_anon"),
        inactive_file: raw.get("inactive_file"),
        active_file: raw.get("active_file"),
        unevictable: raw.get("unevictable"),
        slab_reclaimable: raw.get("slab_reclaimable"),
        slab_unreclaimable: raw.get("slab_unreclaimable"),
        pgfault: raw.get("pgfault"),
        pgmajfault: raw.get("pgmajfault"),
        workingset_refault: raw.get("workingset_refault_anon") + raw.get("workingset_refault_file"),
        workingset_activate: raw.get("workingset_activate_anon")
            + raw.get("workingset_activate_file"),
        workingset_nodereclaim: raw.get("workingset_nodereclaim"),
        pgrefill: raw.get("pgrefill"),
        pgscan: raw.get("pgscan"),
        pgsteal: raw.get("pgsteal"),
        pgactivate: raw.get("pgactivate"),
        pgdeactivate: raw.get("pgdeactivate"),
        pglazyfree: raw.get("pglazyfree"),
        pglazyfreed: raw.get("pglazyfreed"),
        thp_fault_alloc: raw.get("thp_fault_alloc"),
        thp_collapse_alloc: raw.get("thp_collapse_alloc"),
        usage: memory.usage.usage,
        usage_limit: memory.usage.limit,
        swap_usage: swap_alone(memory.swap.usage, memory.usage.usage),
        swap_limit: swap_alone(memory.swap.limit, memory.usage.limit),
        max_usage: memory.usage.max,
        psi: memory.psi.as_ref().map(pressure),
        ..Default::default()
    }
}

/// One line for each device.
fn unified_io(stats: &Stats) -> Vec<v2::IoEntry> {
    let mut devices: BTreeMap<(u64, u64), v2::IoEntry> = BTreeMap::new();
    let bytes = stats
        .blkio
        .io_service_bytes_recursive
        .iter()
        .map(|entry| (entry, true));
    let operations = stats
        .blkio
        .io_serviced_recursive
        .iter()
        .map(|entry| (entry, false));
    for (entry, is_bytes) in bytes.chain(operations) {
        let device = devices.entry((entry.major, entry.minor)).or_default();
        (device.major, device.minor) = (entry.major, entry.minor);
        match (is_bytes, &*entry.op) {
            (true, "Read") => device.rbytes = entry.value,
            (true, _) => device.wbytes = entry.value,
            (false, "Read") => device.rios = entry.value,
            (false, _) => device.wios = entry.value,
        }
    }
    devices.into_values().collect()
}

fn pressure(psi: &Psi) -> v2::PsiStats {
    let data = |pressure: &cgroups::stats::Pressure| {
        Some(v2::PsiData {
            avg10: pressure.avg10,
            avg60: pressure.avg60,
            avg300: pressure.avg300,
            total: pressure.total,
        })
    };
    v2::PsiStats {
        some: data(&psi.some),
        full: data(&psi.full),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(op: &str, value: u64) -> BlkIoEntry {
        BlkIoEntry {
            major: 254,
            minor: 0,
            op: op.to_owned(),
            value,
        }
    }

    #[test]
    fn a_device_has_one_line_on_v2() {
        let mut stats = Stats::default();
        stats.blkio.io_service_bytes_recursive = vec![entry("Read", 1), entry("Write", 2)];
        stats.blkio.io_serviced_recursive = vec![entry("Read", 3), entry("Write", 4)];
        let lines = unified_io(&stats);
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!(
            (line.rbytes, line.wbytes, line.rios, line.wios),
            (1, 2, 3, 4)
        );
        assert_eq!((line.major, line.minor), (254, 0));
    }

    #[test]
    fn swap_is_counted_by_itself_on_v2() {
        let mut stats = Stats::default();
        stats.memory.usage.usage = 10;
        stats.memory.usage.limit = 100;
        stats.memory.swap.usage = 15;
        stats.memory.swap.limit = u64::MAX;
        let memory = unified_memory(&stats);
        assert_eq!(
            (memory.swap_usage, memory.swap_limit, memory.usage_limit),
            (5, u64::MAX, 100)
        );
    }

    #[test]
    fn nanoseconds_become_microseconds_on_v2_alone() {
        let mut stats = Stats::default();
        stats.cpu.usage.total = 5_000;
        assert_eq!(unified(&stats, 0).cpu.unwrap().usage_usec, 5);
        assert_eq!(legacy(&stats, 0).cpu.unwrap().usage.unwrap().total, 5_000);
    }
}
