//! The files of the v1 controllers (`cgroup-v1/*.rst`).

use super::{BlkIoEntry, MemoryEntry, Stats, huge_page_sizes, list, number, table};
use crate::Result;
use crate::dir::Dir;

/// `cpuacct.stat` counts in USER_HZ, which is 100 on every architecture of ours.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Reads what one controller counts.
pub(super) fn read(dir: &Dir, controller: &str, stats: &mut Stats) -> Result<()> {
    match controller {
        "cpu" => cpu(dir, stats),
        "cpuacct" => cpuacct(dir, stats),
        "cpuset" => cpuset(dir, stats),
        "memory" => memory(dir, stats),
        "pids" => {
            stats.pids.current = number(dir, "pids.current")?;
            let limit = number(dir, "pids.max")?;
            stats.pids.limit = if limit == u64::MAX { 0 } else { limit };
            Ok(())
        }
        "blkio" => blkio(dir, stats),
        "hugetlb" => hugetlb(dir, stats),
        _ => Ok(()),
    }
}

fn cpu(dir: &Dir, stats: &mut Stats) -> Result<()> {
    for (key, value) in table(&dir.read("cpu.stat")?.unwrap_or_default()) {
        match key {
            "nr_periods" => stats.cpu.throttling.periods = value,
            "nr_throttled" => stats.cpu.throttling.throttled_periods = value,
            "throttled_time" => stats.cpu.throttling.throttled_time = value,
            _ => {}
        }
    }
    Ok(())
}

fn cpuacct(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let usage = &mut stats.cpu.usage;
    usage.total = number(dir, "cpuacct.usage")?;
    for (key, value) in table(&dir.read("cpuacct.stat")?.unwrap_or_default()) {
        match key {
            "user" => usage.user = value * NANOSECONDS_PER_TICK,
            "system" => usage.kernel = value * NANOSECONDS_PER_TICK,
            _ => {}
        }
    }
    let percpu = dir.read("cpuacct.usage_percpu")?.unwrap_or_default();
    usage.percpu = percpu
        .split_whitespace()
        .filter_map(|value| value.parse().ok())
        .collect();
    // Below a headline: processor, user, system.
    for line in dir
        .read("cpuacct.usage_all")?
        .unwrap_or_default()
        .lines()
        .skip(1)
    {
        let mut fields = line
            .split(' ')
            .skip(1)
            .filter_map(|value| value.parse().ok());
        if let (Some(user), Some(system)) = (fields.next(), fields.next()) {
            usage.percpu_user.push(user);
            usage.percpu_kernel.push(system);
        }
    }
    Ok(())
}

fn cpuset(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let set = &mut stats.cpuset;
    set.cpus = list(&dir.read("cpuset.cpus")?.unwrap_or_default());
    set.mems = list(&dir.read("cpuset.mems")?.unwrap_or_default());
    for (file, value) in [
        ("cpuset.cpu_exclusive", &mut set.cpu_exclusive),
        ("cpuset.mem_hardwall", &mut set.mem_hardwall),
        ("cpuset.mem_exclusive", &mut set.mem_exclusive),
        ("cpuset.memory_migrate", &mut set.memory_migrate),
        ("cpuset.memory_spread_page", &mut set.memory_spread_page),
        ("cpuset.memory_spread_slab", &mut set.memory_spread_slab),
        ("cpuset.memory_pressure", &mut set.memory_pressure),
        ("cpuset.sched_load_balance", &mut set.sched_load_balance),
    ] {
        *value = number(dir, file)?;
    }
    let level = dir.read("cpuset.sched_relax_domain_level")?;
    set.sched_relax_domain_level = level
        .and_then(|text| text.trim_end().parse().ok())
        .unwrap_or(0);
    Ok(())
}

fn memory(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    let text = dir.read("memory.stat")?.unwrap_or_default();
    memory.raw = table(&text)
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    memory.usage = entry(dir, "memory")?;
    memory.swap = entry(dir, "memory.memsw")?;
    memory.kernel = entry(dir, "memory.kmem")?;
    memory.kernel_tcp = entry(dir, "memory.kmem.tcp")?;
    Ok(())
}

fn entry(dir: &Dir, prefix: &str) -> Result<MemoryEntry> {
    Ok(MemoryEntry {
        limit: number(dir, &format!("{prefix}.limit_in_bytes"))?,
        usage: number(dir, &format!("{prefix}.usage_in_bytes"))?,
        max: number(dir, &format!("{prefix}.max_usage_in_bytes"))?,
        failcnt: number(dir, &format!("{prefix}.failcnt"))?,
    })
}

/// BFQ counts what it schedules; the throttling layer, which every kernel has, counts everything.
fn blkio(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let first = |files: [&str; 2]| -> Result<Vec<BlkIoEntry>> {
        for file in files {
            let entries = entries(&dir.read(file)?.unwrap_or_default());
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    let io = &mut stats.blkio;
    io.io_service_bytes_recursive = first([
        "blkio.bfq.io_service_bytes_recursive",
        "blkio.throttle.io_service_bytes_recursive",
    ])?;
    io.io_serviced_recursive = first([
        "blkio.bfq.io_serviced_recursive",
        "blkio.throttle.io_serviced_recursive",
    ])?;
    io.io_queued_recursive = first(["blkio.bfq.io_queued_recursive", "blkio.io_queued_recursive"])?;
    io.io_service_time_recursive = first([
        "blkio.bfq.io_service_time_recursive",
        "blkio.io_service_time_recursive",
    ])?;
    io.io_wait_time_recursive = first([
        "blkio.bfq.io_wait_time_recursive",
        "blkio.io_wait_time_recursive",
    ])?;
    io.io_merged_recursive = first(["blkio.bfq.io_merged_recursive", "blkio.io_merged_recursive"])?;
    io.io_time_recursive = first(["blkio.bfq.time_recursive", "blkio.time_recursive"])?;
    io.sectors_recursive = first(["blkio.bfq.sectors_recursive", "blkio.sectors_recursive"])?;
    Ok(())
}

/// `MAJ:MIN Operation value` lines, or `MAJ:MIN value` ones; the sum at the end is left out.
fn entries(text: &str) -> Vec<BlkIoEntry> {
    let lines = text.lines().filter_map(|line| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
        Some(BlkIoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    });
    lines.collect()
}

fn hugetlb(dir: &Dir, stats: &mut Stats) -> Result<()> {
    for size in huge_page_sizes() {
        // Since Linux 5.7 reservations are counted too, and they are what a process runs into first.
        let rsvd = format!("hugetlb.{size}.rsvd");
        let prefix = if dir.read(format!("{rsvd}.usage_in_bytes"))?.is_some() {
            rsvd
        } else {
            format!("hugetlb.{size}")
        };
        let counters = super::HugeTlb {
            usage: number(dir, &format!("{prefix}.usage_in_bytes"))?,
            max: number(dir, &format!("{prefix}.max_usage_in_bytes"))?,
            failcnt: number(dir, &format!("{prefix}.failcnt"))?,
        };
        stats.hugetlb.insert(size, counters);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_device_lines() {
        let found = entries("8:0 Read 123\n8:0 Discard 4\n253:1 77\nTotal 204\n");
        assert_eq!(found.len(), 3);
        assert_eq!(
            found[0],
            BlkIoEntry {
                major: 8,
                minor: 0,
                op: "Read".into(),
                value: 123
            }
        );
        assert_eq!(
            found[2],
            BlkIoEntry {
                major: 253,
                minor: 1,
                op: String::new(),
                value: 77
            }
        );
    }
}
