//! A container's cgroup as cgroups-rs, another implementation, reads it, beside the configuration and our statistics.
//!
//! It is given the directories: by itself it finds those of v1, or of v2 mounted at /sys/fs/cgroup, and no hybrid machine's v2. It does
//! not read `io.max`, takes apart neither `cpu.stat` nor `cpuacct.stat`, finds zeros in each `io.stat`, and misses a word in
//! `net_prio.ifpriomap`.

use std::collections::BTreeMap;

use cgroups_rs::MaxValue;
use cgroups_rs::blkio::{BlkIoController, BlkIoData, IoService};
use cgroups_rs::cpu::CpuController;
use cgroups_rs::cpuacct::CpuAcctController;
use cgroups_rs::cpuset::CpuSetController;
use cgroups_rs::devices::DevicesController;
use cgroups_rs::freezer::{FreezerController, FreezerState};
use cgroups_rs::hugetlb::HugeTlbController;
use cgroups_rs::memory::MemController;
use cgroups_rs::net_cls::NetClsController;
use cgroups_rs::pid::PidController;
use runtime_tests::{
    Container, controller_dir, eventually, has_cgroup, has_controller, has_v1_controller,
    is_coracle, is_crun, kernel_has, requires,
};
use serde_json::{Map, Value, json};

use crate::limits::disk;

/// What every machine's memory controller takes, and what more v1 has.
fn memory_limits() -> Value {
    let mut limits = json!({ "limit": 67_108_864, "reservation": 33_554_432 });
    if has_v1_controller("memory") {
        limits["swappiness"] = json!(17);
        limits["disableOOMKiller"] = json!(true);
    }
    if !has_v1_controller("memory")
        || kernel_has("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
    {
        limits["swap"] = json!(134_217_728);
    }
    limits
}

/// Every limit of this machine's controllers that cgroups-rs can read.
fn limits() -> Value {
    let mut limits = Map::new();
    if has_controller("memory") {
        limits.insert("memory".into(), memory_limits());
    }
    if has_controller("cpu") && has_controller("cpuset") {
        let cpu =
            json!({ "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0" });
        limits.insert("cpu".into(), cpu);
    }
    if has_controller("pids") {
        limits.insert("pids".into(), json!({ "limit": 64 }));
    }
    if let (true, Some((major, minor))) = (has_v1_controller("blkio"), disk()) {
        let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
        let io = json!({
            "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
            "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200),
        });
        limits.insert("blockIO".into(), io);
    }
    if is_coracle()
        && has_controller("hugetlb")
        && kernel_has("/sys/kernel/mm/hugepages/hugepages-2048kB")
    {
        let pages = json!([{ "pageSize": "2MB", "limit": 4_194_304 }]);
        limits.insert("hugepageLimits".into(), pages);
    }
    if has_controller("net_cls") {
        limits.insert("network".into(), json!({ "classID": 1_048_577 }));
    }
    Value::Object(limits)
}

/// The same, as cgroups-rs reads it. `None` for limits that were not asked for.
fn read_back(pid: i64, part: &str, asked: &Value) -> Value {
    let at = |controller: &str| controller_dir(pid, controller).expect("it has a limit");
    match part {
        "memory" => {
            let (dir, v2) = at("memory");
            let controller = MemController::new(dir, v2);
            let (memory, swap) = (
                controller.memory_stat(),
                controller.memswap().limit_in_bytes,
            );
            let mut seen = json!({
                "limit": memory.limit_in_bytes, "reservation": memory.soft_limit_in_bytes,
                // v1 limits the sum, v2 the swap.
                "swap": if v2 { memory.limit_in_bytes + swap } else { swap },
                "swappiness": memory.swappiness, "disableOOMKiller": memory.oom_control.oom_kill_disable,
            });
            seen.as_object_mut()
                .unwrap()
                .retain(|name, _| asked.get(name).is_some());
            seen
        }
        "cpu" => {
            let (dir, v2) = at("cpu");
            let cpu = CpuController::new(dir, v2);
            let (dir, set_v2) = at("cpuset");
            let set = CpuSetController::new(dir, set_v2).cpuset();
            // v2 has weights: see `limits::cpu_shares`.
            let shares = match cpu.shares().unwrap() {
                59 if v2 => 512,
                shares => shares,
            };
            let list = |ranges: &[(u64, u64)]| match ranges {
                [(first, last)] if first == last => json!(first.to_string()),
                others => json!(format!("{others:?}")),
            };
            json!({
                "shares": shares, "quota": cpu.cfs_quota().unwrap(), "period": cpu.cfs_period().unwrap(),
                "cpus": list(&set.cpus), "mems": list(&set.mems),
            })
        }
        "pids" => {
            let (dir, v2) = at("pids");
            match PidController::new(dir, v2).get_pid_max().unwrap() {
                MaxValue::Max => json!({ "limit": -1 }),
                MaxValue::Value(limit) => json!({ "limit": limit }),
            }
        }
        "blockIO" => {
            let (dir, v2) = at("blkio");
            let throttle = BlkIoController::new(dir, v2).blkio().throttle;
            let rates = |rates: &[BlkIoData]| {
                let one = |rate: &BlkIoData| json!({ "major": rate.major, "minor": rate.minor, "rate": rate.data });
                rates.iter().map(one).collect::<Vec<_>>()
            };
            json!({
                "throttleReadBpsDevice": rates(&throttle.read_bps_device),
                "throttleWriteBpsDevice": rates(&throttle.write_bps_device),
                "throttleReadIOPSDevice": rates(&throttle.read_iops_device),
                "throttleWriteIOPSDevice": rates(&throttle.write_iops_device),
            })
        }
        "hugepageLimits" => {
            let (dir, v2) = at("hugetlb");
            let limit = HugeTlbController::new(dir, v2).limit_in_bytes("2MB");
            json!([{ "pageSize": "2MB", "limit": limit.unwrap() }])
        }
        "network" => {
            let class = NetClsController::new(at("net_cls").0).get_class();
            json!({ "classID": class.unwrap() })
        }
        _ => unreachable!("{part}"),
    }
}

/// Proved with a limit of processes that is one larger.
#[test]
fn cgroups_rs_reads_the_limits_that_were_asked_for() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    let asked = limits();
    requires!(asked != json!({}), "no controllers");
    let mut c = Container::idle();
    for (part, limits) in asked.as_object().unwrap() {
        c.set(&format!("/linux/resources/{part}"), limits.clone());
    }
    c.push(
        "/linux/resources/devices",
        json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }),
    );
    c.run_detached();
    let pid = c.pid();
    for (part, limits) in asked.as_object().unwrap() {
        assert_eq!(read_back(pid, part, limits), *limits, "{part}");
    }
    if has_v1_controller("devices") {
        let (dir, _) = controller_dir(pid, "devices").unwrap();
        let allowed = DevicesController::new(dir).allowed_devices().unwrap();
        let text: Vec<_> = allowed
            .iter()
            .map(|one| {
                (
                    one.devtype.to_char(),
                    one.major,
                    one.minor,
                    one.access.len(),
                )
            })
            .collect();
        assert!(text.contains(&('c', 1, 11, 1)), "{text:?}");
        assert!(!text.iter().any(|(kind, ..)| *kind == 'a'), "{text:?}");
    }
}

/// One device's counters in the shape of runc's events, which leaves zeros out.
fn entries(services: &[IoService]) -> Value {
    let of_one = |one: &IoService| {
        let counters = [
            ("Read", one.read),
            ("Write", one.write),
            ("Sync", one.sync),
            ("Async", one.r#async),
            ("Discard", one.discard),
            ("Total", one.total),
        ];
        let numbers = [("major", one.major), ("minor", one.minor)];
        counters.map(|(operation, value)| {
            let mut entry = json!({ "op": operation });
            let numbers = numbers.map(|(name, number)| (name, number as u64));
            for (name, number) in numbers.into_iter().chain([("value", value)]) {
                if number != 0 {
                    entry[name] = json!(number);
                }
            }
            entry
        })
    };
    services.iter().flat_map(of_one).collect()
}

/// What cgroups-rs counts, by where the same stands in our statistics.
fn statistics(pid: i64) -> BTreeMap<&'static str, Value> {
    let mut seen = BTreeMap::new();
    let at = |controller: &str| controller_dir(pid, controller);
    if let Some((dir, v2)) = at("memory") {
        let controller = MemController::new(dir, v2);
        let memory = controller.memory_stat();
        seen.insert("/memory/usage/limit", json!(memory.limit_in_bytes));
        seen.insert("/memory/usage/usage", json!(memory.usage_in_bytes));
        seen.insert("/memory/usage/max", json!(memory.max_usage_in_bytes));
        seen.insert("/memory/raw", json!(memory.stat.raw));
        if !v2 {
            let (swap, kernel) = (controller.memswap(), controller.kmem_stat());
            seen.insert("/memory/usage/failcnt", json!(memory.fail_cnt));
            seen.insert("/memory/cache", json!(memory.stat.cache));
            seen.insert("/memory/swap/limit", json!(swap.limit_in_bytes));
            seen.insert("/memory/swap/usage", json!(swap.usage_in_bytes));
            seen.insert("/memory/swap/max", json!(swap.max_usage_in_bytes));
            seen.insert("/memory/kernel/usage", json!(kernel.usage_in_bytes));
            seen.insert("/memory/kernel/max", json!(kernel.max_usage_in_bytes));
        }
    }
    if let Some((dir, v2)) = at("pids") {
        let pids = PidController::new(dir, v2);
        seen.insert("/pids/current", json!(pids.get_pid_current().unwrap()));
        if let MaxValue::Value(limit) = pids.get_pid_max().unwrap() {
            seen.insert("/pids/limit", json!(limit));
        }
    }
    if let Some((dir, _)) = at("cpuacct") {
        let usage = CpuAcctController::new(dir).cpuacct().usage;
        seen.insert("/cpu/usage/total", json!(usage));
    }
    if let Some((dir, v2)) = at("cpuset") {
        let set = CpuSetController::new(dir, v2).cpuset();
        let list = |ranges: Vec<(u64, u64)>| -> Value {
            ranges
                .into_iter()
                .flat_map(|(first, last)| first..=last)
                .collect()
        };
        seen.insert("/cpuset/cpus", list(set.cpus));
        seen.insert("/cpuset/mems", list(set.mems));
        if !v2 {
            let balance = u64::from(set.sched_load_balance);
            seen.insert("/cpuset/sched_load_balance", json!(balance));
            seen.insert("/cpuset/memory_pressure", json!(set.memory_pressure));
        }
    }
    if let Some((dir, v2)) = at("blkio") {
        let throttle = BlkIoController::new(dir, v2).blkio().throttle;
        let bytes = entries(&throttle.io_service_bytes_recursive);
        seen.insert("/blkio/ioServiceBytesRecursive", bytes);
        let times = entries(&throttle.io_serviced_recursive);
        seen.insert("/blkio/ioServicedRecursive", times);
    }
    seen
}

/// Proved with a disk's bytes where its operations are wanted.
#[test]
fn cgroups_rs_counts_what_our_statistics_say() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    requires!(!is_crun(), "crun has no statistics");
    let mut c = Container::new(
        "head -c 3000000 /dev/zero > /dev/shm/held
        dd if=/dev/zero of=/written bs=65536 count=3 oflag=direct; dd if=/written of=/dev/null bs=65536 iflag=direct
        echo ready; sleep 1000000",
    );
    for (part, limits) in limits().as_object().unwrap() {
        if part != "blockIO" {
            c.set(&format!("/linux/resources/{part}"), limits.clone());
        }
    }
    c.run_detached();
    c.wait_to_say("ready\n");
    c.runtime(&["pause", &c.id]).ok();
    let pid = c.pid();
    if let Some((dir, v2)) = controller_dir(pid, "freezer") {
        let state = FreezerController::new(dir, v2).state().unwrap();
        assert!(matches!(state, FreezerState::Frozen));
    }
    let (theirs, ours) = eventually("numbers that stand still", || {
        let before = statistics(pid);
        let ours = c.runtime(&["events", "--stats", &c.id]).ok();
        (statistics(pid) == before).then_some((before, ours))
    });
    requires!(!theirs.is_empty(), "no controllers");
    let ours: Value = serde_json::from_str(&ours).unwrap();
    for (place, theirs) in theirs {
        // Zeros, and lists without anything, are left out.
        let nothing = if theirs.is_array() {
            json!([])
        } else {
            json!(0)
        };
        let ours = ours["data"].pointer(place).unwrap_or(&nothing);
        assert_eq!(*ours, theirs, "{place}");
    }
}
