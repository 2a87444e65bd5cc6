//! `update`: what changes, from a file or from flags.

use std::fs::File;
use std::io::Read;

use oci_spec::runtime::LinuxResources;
use runtime::{Context, UpdateOptions, parse_resources};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Invocation, failure};
use crate::flags::Flags;
use crate::{Failure, Outcome};

/// Where a flag's value stands in `linux.resources`.
const NUMBERS: &[(&str, &str, &str)] = &[
    ("blkio-weight", "blockIO", "weight"),
    ("cpu-burst", "cpu", "burst"),
    ("cpu-idle", "cpu", "idle"),
    ("cpu-period", "cpu", "period"),
    ("cpu-quota", "cpu", "quota"),
    ("cpu-rt-period", "cpu", "realtimePeriod"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime"),
    ("cpu-share", "cpu", "shares"),
    ("pids-limit", "pids", "limit"),
];
const SIZES: &[(&str, &str, &str)] = &[
    ("memory", "memory", "limit"),
    ("memory-reservation", "memory", "reservation"),
    ("memory-swap", "memory", "swap"),
];
const TEXTS: &[(&str, &str, &str)] = &[
    ("cpuset-cpus", "cpu", "cpus"),
    ("cpuset-mems", "cpu", "mems"),
];

pub(crate) fn update(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let settings = invocation.settings()?;
    let mut resources = match flags.text("resources") {
        None => from_flags(flags)?,
        Some("-") => from_reader(std::io::stdin(), "standard input")?,
        Some(path) => from_reader(
            File::open(path).with_context(|| format!("open {path}"))?,
            path,
        )?,
    };
    lift_swap_limit(&mut resources);
    let options = UpdateOptions {
        resources,
        l3_cache_schema: flags.get("l3-cache-schema"),
        mem_bw_schema: flags.get("mem-bw-schema"),
    };
    runtime::update(&settings, &invocation.container_id(&settings)?, &options)?;
    Ok(0)
}

/// Reads one JSON value and leaves what follows it alone, so that a pipe need not be closed.
fn from_reader(reader: impl Read, name: &str) -> Result<LinuxResources, Failure> {
    let mut deserializer = serde_json::Deserializer::from_reader(std::io::BufReader::new(reader));
    let reading = || format!("read resources from {name}");
    let document = match Value::deserialize(&mut deserializer) {
        Err(error) if error.is_io() => Err(std::io::Error::from(error)).with_context(reading)?,
        document => document.map_err(|error| failure(reading(), error))?,
    };
    Ok(parse_resources(document.to_string().as_bytes()).with_context(reading)?)
}

/// The flags in the form of the file, so that both go the same way from here.
fn from_flags(flags: &Flags) -> Result<LinuxResources, Failure> {
    let numbers = NUMBERS
        .iter()
        .map(|place| (place, flags.number::<i64>(place.0).map(Value::from)));
    let sizes = SIZES
        .iter()
        .map(|place| (place, flags.size(place.0).map(Value::from)));
    let texts = TEXTS
        .iter()
        .map(|place| (place, flags.text(place.0).map(Value::from)));
    let mut resources = Map::new();
    for ((flag, controller, key), value) in numbers.chain(sizes).chain(texts) {
        // As with runc, 0 stands for "not given" in the two flags that are whole numbers there.
        let unset = matches!(*flag, "blkio-weight" | "pids-limit") && value == Some(Value::from(0));
        if let Some(value) = value.filter(|_| !unset) {
            let controller = resources
                .entry(*controller)
                .or_insert_with(|| Map::new().into());
            controller[*key] = value;
        }
    }
    Ok(parse_resources(Value::from(resources).to_string().as_bytes()).context("resources")?)
}

/// Without a memory limit a limit of memory and swap together makes no sense (and cgroup v1 refuses it).
fn lift_swap_limit(resources: &mut LinuxResources) {
    if let Some(memory) = resources.memory_mut()
        && memory.limit() == Some(-1)
        && memory.swap().is_none()
    {
        memory.set_swap(Some(-1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Order;
    use crate::table;

    fn parsed(line: &str) -> LinuxResources {
        let args = line.split_whitespace().map(str::to_owned).collect();
        let flags =
            Flags::parse(table::command("update").unwrap().flags, args, Order::Mixed).unwrap();
        from_flags(&flags).unwrap()
    }

    #[test]
    fn every_flag_finds_its_place() {
        let resources = parsed(
            "--blkio-weight 10 --cpu-burst 1 --cpu-idle 1 --cpu-period 2 --cpu-quota -1 --cpu-rt-period 3 --cpu-rt-runtime 4 \
             --cpu-share 5 --pids-limit -1 --memory 1k --memory-reservation 2k --memory-swap -1 --cpuset-cpus 0-1 --cpuset-mems 0",
        );
        let (cpu, memory) = (
            resources.cpu().as_ref().unwrap(),
            resources.memory().as_ref().unwrap(),
        );
        assert_eq!(resources.block_io().as_ref().unwrap().weight(), Some(10));
        assert_eq!(
            (cpu.burst(), cpu.idle(), cpu.period(), cpu.quota()),
            (Some(1), Some(1), Some(2), Some(-1))
        );
        assert_eq!(
            (cpu.realtime_period(), cpu.realtime_runtime(), cpu.shares()),
            (Some(3), Some(4), Some(5))
        );
        assert_eq!(
            (cpu.cpus().as_deref(), cpu.mems().as_deref()),
            (Some("0-1"), Some("0"))
        );
        assert_eq!(
            (memory.limit(), memory.reservation(), memory.swap()),
            (Some(1024), Some(2048), Some(-1))
        );
        assert_eq!(resources.pids().as_ref().unwrap().limit(), -1);
    }

    #[test]
    fn what_is_not_given_is_not_changed() {
        let nothing: LinuxResources = serde_json::from_str("{}").unwrap();
        assert_eq!(parsed(""), nothing);
        assert_eq!(parsed("--pids-limit 0 --blkio-weight=0"), nothing);
        let resources = parsed("--memory 64m");
        assert_eq!(resources.memory().as_ref().unwrap().limit(), Some(64 << 20));
        assert!(
            resources.cpu().is_none()
                && resources.pids().is_none()
                && resources.block_io().is_none()
        );
    }

    #[test]
    fn a_file_is_read_up_to_the_end_of_its_value() {
        let resources = from_reader(&br#"{"memory":{"limit":-1}} and more"#[..], "test").unwrap();
        assert_eq!(resources.memory().as_ref().unwrap().limit(), Some(-1));
        let error = from_reader(&b"{\"memory\":{\"limit\":\"x\"}}"[..], "r.json").unwrap_err();
        assert!(
            error.message.starts_with("read resources from r.json: "),
            "{error:?}"
        );
    }

    #[test]
    fn no_memory_limit_is_no_swap_limit() {
        let mut resources = parsed("--memory -1");
        lift_swap_limit(&mut resources);
        assert_eq!(resources.memory().as_ref().unwrap().swap(), Some(-1));
        let mut resources = parsed("--memory -1 --memory-swap 1g");
        lift_swap_limit(&mut resources);
        assert_eq!(resources.memory().as_ref().unwrap().swap(), Some(1 << 30));
    }
}
