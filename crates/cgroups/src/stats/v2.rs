//! The files of the v2 controllers (`cgroup-v2.rst`), in v1's terms where runc's shape asks for that.

use super::{BlkIoEntry, HugeTlb, Pressure, Psi, Stats, huge_page_sizes, list, number, table};
use crate::Result;
use crate::dir::Dir;
use crate::resources::keyed_number;

/// Reads everything there is. On a hybrid machine that is the hugetlb counters at most; `cpu.stat` and the pressure files
/// exist there as well, but a v1 hierarchy already gave finer numbers.
pub(super) fn read(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let have = dir.read("cgroup.controllers")?.unwrap_or_default();
    let has = |name: &str| have.split_whitespace().any(|one| one == name);
    cpu(dir, stats)?;
    if has("cpuset") {
        stats.cpuset.cpus = list(&dir.read("cpuset.cpus.effective")?.unwrap_or_default());
        stats.cpuset.mems = list(&dir.read("cpuset.mems.effective")?.unwrap_or_default());
    }
    if has("memory") {
        memory(dir, stats)?;
    }
    if has("pids") {
        stats.pids.current = number(dir, "pids.current")?;
        let limit = number(dir, "pids.max")?;
        stats.pids.limit = if limit == u64::MAX { 0 } else { limit };
    }
    if has("io") {
        io(&dir.read("io.stat")?.unwrap_or_default(), stats);
    }
    if has("hugetlb") {
        hugetlb(dir, stats)?;
    }
    stats.cpu.psi = pressure(dir, "cpu.pressure")?;
    stats.memory.psi = pressure(dir, "memory.pressure")?;
    stats.blkio.psi = pressure(dir, "io.pressure")?;
    Ok(())
}

/// `cpu.stat` is there without the cpu controller too; microseconds become nanoseconds.
fn cpu(dir: &Dir, stats: &mut Stats) -> Result<()> {
    if stats.cpu.usage.total != 0 {
        return Ok(());
    }
    for (key, value) in table(&dir.read("cpu.stat")?.unwrap_or_default()) {
        match key {
            "usage_usec" => stats.cpu.usage.total = value * 1000,
            "user_usec" => stats.cpu.usage.user = value * 1000,
            "system_usec" => stats.cpu.usage.kernel = value * 1000,
            "nr_periods" => stats.cpu.throttling.periods = value,
            "nr_throttled" => stats.cpu.throttling.throttled_periods = value,
            "throttled_usec" => stats.cpu.throttling.throttled_time = value * 1000,
            _ => {}
        }
    }
    Ok(())
}

fn memory(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    let text = dir.read("memory.stat")?.unwrap_or_default();
    memory.raw = table(&text)
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    memory.usage.usage = number(dir, "memory.current")?;
    memory.usage.limit = number(dir, "memory.max")?;
    memory.usage.max = number(dir, "memory.peak")?;
    memory.usage.failcnt = keyed_number(&dir.read("memory.events")?.unwrap_or_default(), "max");
    if dir.read("memory.swap.current")?.is_some() {
        // v1 counts memory and swap together, and so does the shape.
        memory.swap.usage = number(dir, "memory.swap.current")? + memory.usage.usage;
        memory.swap.limit = number(dir, "memory.swap.max")?.saturating_add(memory.usage.limit);
    }
    Ok(())
}

fn io(text: &str, stats: &mut Stats) {
    for line in text.lines() {
        let mut fields = line.split(' ');
        let Some((Ok(major), Ok(minor))) = fields
            .next()
            .and_then(|device| device.split_once(':'))
            .map(|(major, minor)| (major.parse(), minor.parse()))
        else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut stats.blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut stats.blkio.io_service_bytes_recursive, "Write"),
                "rios" => (&mut stats.blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut stats.blkio.io_serviced_recursive, "Write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(BlkIoEntry {
                    major,
                    minor,
                    op: op.to_owned(),
                    value,
                });
            }
        }
    }
}

fn hugetlb(dir: &Dir, stats: &mut Stats) -> Result<()> {
    for size in huge_page_sizes() {
        let rsvd = format!("hugetlb.{size}.rsvd.current");
        let file = if dir.read(&rsvd)?.is_some() {
            rsvd
        } else {
            format!("hugetlb.{size}.current")
        };
        let events = dir
            .read(format!("hugetlb.{size}.events"))?
            .unwrap_or_default();
        let counters = HugeTlb {
            usage: number(dir, &file)?,
            max: 0,
            failcnt: keyed_number(&events, "max"),
        };
        stats.hugetlb.insert(size, counters);
    }
    Ok(())
}

/// `None` where the kernel keeps no pressure (not built in, `psi=0`, or turned off by `cgroup.pressure`).
fn pressure(dir: &Dir, file: &str) -> Result<Option<Psi>> {
    Ok(dir
        .read(file)?
        .filter(|text| !text.is_empty())
        .map(|text| psi(&text)))
}

fn psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let pressure = match fields.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        *pressure = fields.filter_map(|field| field.split_once('=')).fold(
            Pressure::default(),
            |mut all, (key, value)| {
                match key {
                    "avg10" => all.avg10 = value.parse().unwrap_or(0.0),
                    "avg60" => all.avg60 = value.parse().unwrap_or(0.0),
                    "avg300" => all.avg300 = value.parse().unwrap_or(0.0),
                    "total" => all.total = value.parse().unwrap_or(0),
                    _ => {}
                }
                all
            },
        );
    }
    psi
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_lines() {
        let psi = psi(
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=58\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
        );
        assert_eq!(
            (
                psi.some.avg10,
                psi.some.avg60,
                psi.some.total,
                psi.full.total
            ),
            (1.5, 0.25, 58, 7)
        );
    }

    #[test]
    fn io_lines() {
        let mut stats = Stats::default();
        io(
            "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\nbad line\n",
            &mut stats,
        );
        let bytes = &stats.blkio.io_service_bytes_recursive;
        assert_eq!(
            (bytes.len(), bytes[0].value, bytes[0].op.as_str()),
            (2, 1_459_200, "Read")
        );
        assert_eq!(stats.blkio.io_serviced_recursive[1].value, 353);
    }
}
