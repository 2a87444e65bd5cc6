//! Limits: the values a container's cgroup gets, and what happens at them.

use std::time::{Duration, Instant};

use runtime_tests::{
    Container, Hierarchy, Limit, Output, View, eventually, has_cgroup, has_controller,
    has_v1_controller, hierarchy, is_coracle, is_crun, is_runc, is_runc_since, limit_of, read_text,
    requires,
};
use serde_json::{Value, json};

fn limited(resources: &Value) -> Container {
    let mut c = Container::idle();
    for (controller, limits) in resources.as_object().unwrap() {
        c.set(&format!("/linux/resources/{controller}"), limits.clone());
    }
    c
}

fn value(c: &Container, limit: Limit) -> String {
    limit_of(c.pid(), limit).unwrap_or_else(|| panic!("{} or {}", limit.v1.1, limit.v2))
}

#[test]
fn memory_limits() {
    requires!(has_controller("memory"), "no memory controller");
    let c = limited(&json!({ "memory": { "limit": 67_108_864, "reservation": 33_554_432 } }));
    c.run_detached();
    assert_eq!(value(&c, Limit::MEMORY), "67108864");
    assert_eq!(value(&c, Limit::MEMORY_RESERVATION), "33554432");
}

/// What cgroup v1 charges to the container before its program runs is little. Proof: with 128 KiB it is killed, and runc refuses 256.
#[test]
fn a_container_starts_in_256_kib() {
    requires!(is_coracle(), "about our own figure");
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    requires!(
        has_v1_controller("memory"),
        "the memory controller is not one of cgroup v1"
    );
    let mut c = Container::with_args(&["/bin/true"]);
    c.set("/linux/resources/memory", json!({ "limit": 256 << 10 }));
    // What is not in the page cache yet would be charged to the container.
    std::fs::read(c.rootfs().join("bin/true")).unwrap();
    c.run().ok();
}

#[test]
fn memory_and_swap() {
    let swap = Limit::new("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    requires!(has_controller("memory"), "no memory controller");
    let c = limited(&json!({ "memory": { "limit": 67_108_864, "swap": 134_217_728 } }));
    let output = c.run_with(&["--detach"]);
    requires!(
        output.code == 0 || !output.stderr.contains("memsw"),
        "the kernel does not account swap"
    );
    output.ok();
    let seen = value(&c, swap);
    // v1 limits the sum, v2 the swap.
    assert!(seen == "134217728" || seen == "67108864", "{seen}");
}

#[test]
fn swappiness_and_oom_disable_on_v1() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    requires!(
        std::path::Path::new("/sys/fs/cgroup/memory/memory.swappiness").exists(),
        "not cgroup v1"
    );
    let c = limited(
        &json!({ "memory": { "limit": 67_108_864, "swappiness": 17, "disableOOMKiller": true } }),
    );
    c.run_detached();
    assert_eq!(
        value(&c, Limit::new("memory", "memory.swappiness", "")),
        "17"
    );
    assert!(
        value(&c, Limit::new("memory", "memory.oom_control", "")).contains("oom_kill_disable 1")
    );
}

#[test]
fn kernel_memory_is_ignored() {
    requires!(has_controller("memory"), "no memory controller");
    let c = limited(&json!({ "memory": { "limit": 67_108_864, "kernel": 16_777_216 } }));
    c.run_detached();
    assert_eq!(value(&c, Limit::MEMORY), "67108864");
}

#[test]
fn pids_limit() {
    requires!(has_controller("pids"), "no pids controller");
    let c = limited(&json!({ "pids": { "limit": 64 } }));
    c.run_detached();
    assert_eq!(value(&c, Limit::PIDS), "64");
    for unlimited in [-1, 0] {
        let c = limited(&json!({ "pids": { "limit": unlimited } }));
        c.run_detached();
        assert!(
            value(&c, Limit::PIDS) == "max" || unlimited == 0,
            "{unlimited}"
        );
    }
}

#[test]
fn cpu_quota_and_period() {
    requires!(has_controller("cpu"), "no cpu controller");
    let c = limited(&json!({ "cpu": { "quota": 50_000, "period": 100_000 } }));
    c.run_detached();
    let seen = (value(&c, Limit::CPU_QUOTA), value(&c, Limit::CPU_PERIOD));
    assert!(
        seen == ("50000".into(), "100000".into()) || seen.0 == "50000 100000",
        "{seen:?}"
    );
}

#[test]
fn cpu_shares() {
    requires!(has_controller("cpu"), "no cpu controller");
    let c = limited(&json!({ "cpu": { "shares": 512 } }));
    c.run_detached();
    let seen = value(&c, Limit::CPU_SHARES);
    // v2: the formula of runc 1.3.2 and crun 1.23 on, by which 1024 shares are weight 100.
    assert!(seen == "512" || seen == "59", "{seen}");
}

#[test]
fn cpu_burst_and_idle() {
    requires!(has_controller("cpu"), "no cpu controller");
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 knows neither"
    );
    let c = limited(&json!({ "cpu": { "quota": 50_000, "period": 100_000, "burst": 20_000 } }));
    let output = c.run_with(&["--detach"]);
    requires!(
        !lacks(&output, "cpu.burst", "5.14"),
        "the kernel has no bursts"
    );
    output.ok();
    assert_eq!(value(&c, Limit::CPU_BURST), "20000");
    let c = limited(&json!({ "cpu": { "idle": 1 } }));
    let output = c.run_with(&["--detach"]);
    requires!(
        !lacks(&output, "cpu.idle", "5.15"),
        "the kernel has no idle groups"
    );
    output.ok();
    assert_eq!(value(&c, Limit::CPU_IDLE), "1");
}

/// The kernel is too old for this field, and the error says so.
fn lacks(output: &Output, field: &str, version: &str) -> bool {
    let message = output.message();
    let file = message
        .split(" to /sys/fs/cgroup/")
        .nth(1)
        .unwrap_or_default();
    output.code == 1
        && message.contains(&format!("linux.resources.{field}: write "))
        && file.contains(&format!(
            "No such file or directory (the kernel must be {version} or later)"
        ))
}

#[test]
fn cpuset() {
    requires!(has_controller("cpuset"), "no cpuset controller");
    let c = limited(&json!({ "cpu": { "cpus": "0", "mems": "0" } }));
    c.run_detached();
    assert_eq!(
        (value(&c, Limit::CPUS), value(&c, Limit::MEMS)),
        ("0".into(), "0".into())
    );
    assert_eq!(
        c.exec("grep Cpus_allowed_list /proc/self/status").ok(),
        "Cpus_allowed_list:\t0\n"
    );
}

#[test]
fn a_cpu_that_is_not_there_is_named_with_those_that_are() {
    requires!(has_controller("cpuset"), "no cpuset controller");
    let possible = read_text("/sys/devices/system/cpu/possible".as_ref());
    let online = read_text("/sys/devices/system/cpu/online".as_ref());
    let last: u32 = possible.trim().rsplit('-').next().unwrap().parse().unwrap();
    let c = limited(&json!({ "cpu": { "cpus": (last + 1).to_string() } }));
    let output = c.run();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.message().contains("cpuset.cpus"), "{output:?}");
    if is_coracle() {
        let there = format!("(the CPUs there are: {})", online.trim());
        for words in ["linux.resources.cpu.cpus: write ", &there] {
            assert!(output.message().contains(words), "{words}: {output:?}");
        }
    }
    c.assert_nothing_left();
}

#[test]
fn more_than_the_machine_has_is_no_limit_at_all() {
    requires!(
        has_controller("memory") && has_controller("cpu"),
        "no memory or cpu controller"
    );
    let memory = read_text("/proc/meminfo".as_ref());
    let kib: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    let cpus = std::thread::available_parallelism().unwrap().get();
    let c = limited(&json!({
        "memory": { "limit": kib * 1024 * 4 },
        "cpu": { "quota": 100_000 * (cpus + 1), "period": 100_000 },
    }));
    c.run_detached();
    assert_eq!(value(&c, Limit::MEMORY), (kib * 1024 * 4).to_string());
    let quota = (100_000 * (cpus + 1)).to_string();
    let seen = value(&c, Limit::CPU_QUOTA);
    assert_eq!(seen.split(' ').next(), Some(quota.as_str()));
    assert_eq!(c.exec("echo runs").ok(), "runs\n");
}

/// Major and minor number of a disk of this machine.
pub(crate) fn disk() -> Option<(u32, u32)> {
    let listing = std::fs::read_dir("/sys/block").ok()?;
    let mut disks: Vec<_> = listing
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    disks.sort();
    disks.iter().find_map(|disk| {
        let name = disk.file_name()?.to_str()?;
        let text = read_text(&disk.join("dev"));
        let (major, minor) = text.trim().split_once(':')?;
        let real = !["loop", "ram", "zram"]
            .iter()
            .any(|kind| name.starts_with(kind));
        real.then(|| Some((major.parse().ok()?, minor.parse().ok()?)))?
    })
}

#[test]
fn block_io_rates() {
    requires!(
        has_controller("blkio") || has_controller("io"),
        "neither blkio nor io"
    );
    let disk = disk();
    requires!(disk.is_some(), "no disk");
    let (major, minor) = disk.unwrap();
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let c = limited(&json!({ "blockIO": {
        "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
        "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200),
    } }));
    c.run_detached();
    let seen = |v1| value(&c, Limit::new("blkio", v1, "io.max"));
    if has_controller("io") {
        let expected = format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200");
        assert_eq!(seen(""), expected);
    } else {
        for (file, rate) in [
            ("blkio.throttle.read_bps_device", 1_048_576),
            ("blkio.throttle.write_bps_device", 2_097_152),
            ("blkio.throttle.read_iops_device", 100),
            ("blkio.throttle.write_iops_device", 200),
        ] {
            assert_eq!(seen(file), format!("{major}:{minor} {rate}"), "{file}");
        }
    }
}

#[test]
fn block_io_weight() {
    requires!(has_controller("io"), "no io controller on v2");
    let c = limited(&json!({ "blockIO": { "weight": 500 } }));
    c.run_detached();
    // The bfq scheduler brings a file of its own, and the range of v1 with it.
    match limit_of(c.pid(), Limit::new("io", "", "io.bfq.weight")) {
        Some(bfq) => assert_eq!(
            bfq.lines().next().unwrap().trim_start_matches("default "),
            "500"
        ),
        None => assert_eq!(value(&c, Limit::new("io", "", "io.weight")), "default 4950"),
    }
}

#[test]
fn what_a_disk_does_not_take_is_a_clear_error() {
    requires!(is_coracle(), "the words are ours");
    requires!(has_controller("io"), "no io controller on v2");
    let c = limited(&json!({ "blockIO": {
        "throttleReadBpsDevice": [{ "major": 999, "minor": 99, "rate": 1_048_576 }],
    } }));
    let output = c.run();
    output.clone().fails_with(
        1,
        "linux.resources.blockIO.throttleReadBpsDevice: write \"999:99 rbps=1048576\" to ",
    );
    output.fails_with(1, "no disk has this number");
    let disk = disk();
    requires!(disk.is_some(), "no disk");
    let (major, minor) = disk.unwrap();
    let c = limited(
        &json!({ "blockIO": { "weightDevice": [{ "major": major, "minor": minor, "weight": 100 }] } }),
    );
    let output = c.run();
    requires!(output.code != 0, "the disk takes weights");
    output.fails_with(
        1,
        "the device takes no weights: give it the bfq scheduler, or turn io.cost.qos on",
    );
}

#[test]
fn huge_pages() {
    let limit = |rsvd: &str| {
        let (v1, v2) = if rsvd.is_empty() {
            ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max")
        } else {
            ("hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.max")
        };
        Limit::new("hugetlb", v1, v2)
    };
    requires!(
        std::path::Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists(),
        "no huge pages of 2 MiB"
    );
    requires!(
        !is_runc() || hierarchy() != Hierarchy::Hybrid,
        "runc looks for a hybrid machine's controllers on v1 alone"
    );
    let mut c = limited(&json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] }));
    if !has_controller("hugetlb") {
        let view = View::of(Hierarchy::V2);
        requires!(view.is_some(), "no hugetlb controller");
        c.enter(view.unwrap());
    }
    c.run_detached();
    assert_eq!(value(&c, limit("")), "4194304");
    if !is_crun() {
        assert_eq!(value(&c, limit("rsvd")), "4194304");
    }
    if is_coracle() {
        c.delete_force().ok();
        c.set(
            "/linux/resources/hugepageLimits",
            json!([{ "pageSize": "3MB", "limit": 4_194_304 }]),
        );
        c.run().fails_with(1, "see /sys/kernel/mm/hugepages");
    }
}

#[test]
fn network_class_and_priorities() {
    requires!(
        has_controller("net_cls") && has_controller("net_prio"),
        "net_cls or net_prio is not mounted"
    );
    let c = limited(&json!({ "network": {
        "classID": 1_048_577, "priorities": [{ "name": "lo", "priority": 3 }],
    } }));
    c.run_detached();
    let class = Limit::new("net_cls", "net_cls.classid", "");
    assert_eq!(value(&c, class), "1048577");
    let priorities = value(&c, Limit::new("net_prio", "net_prio.ifpriomap", ""));
    assert!(
        priorities.lines().any(|line| line == "lo 3"),
        "{priorities}"
    );
}

#[test]
fn a_network_class_without_its_controller_is_a_clear_error() {
    requires!(is_coracle(), "the words are ours");
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    requires!(!has_controller("net_cls"), "net_cls is mounted");
    let c = limited(&json!({ "network": { "classID": 1_048_577 } }));
    c.run().fails_with(
        1,
        "linux.resources.network.classID: the cgroup controller \"net_cls\" is not available",
    );
    c.assert_nothing_left();
}

#[test]
fn an_unknown_rdma_device_is_a_clear_error() {
    requires!(has_controller("rdma") && is_coracle(), "no rdma controller");
    let c = limited(&json!({ "rdma": { "nonesuch0": { "hcaHandles": 3, "hcaObjects": 10000 } } }));
    let output = c.run();
    output.clone().fails_with(
        1,
        "linux.resources.rdma: write \"nonesuch0 hca_handle=3 hca_object=10000\" to ",
    );
    output.fails_with(1, "no RDMA device has this name");
}

#[test]
fn unified_files_are_written_as_they_are() {
    requires!(
        has_controller("memory") && hierarchy() == Hierarchy::V2,
        "no memory controller on v2"
    );
    let c = limited(&json!({ "unified": {
        "memory.high": "33554432", "memory.low": "8388608", "pids.max": "33", "cgroup.max.depth": "7",
        "cpu.weight": "321",
    } }));
    c.run_detached();
    for (file, expected) in [
        ("memory.high", "33554432"),
        ("memory.low", "8388608"),
        ("pids.max", "33"),
        ("cgroup.max.depth", "7"),
        ("cpu.weight", "321"),
    ] {
        assert_eq!(
            value(&c, Limit::new("unified", "", file)),
            expected,
            "{file}"
        );
    }
}

#[test]
fn an_oom_group_ends_as_one() {
    requires!(
        has_controller("memory") && hierarchy() == Hierarchy::V2,
        "no memory controller on v2"
    );
    for (group, alone) in [("0", true), ("1", false)] {
        let mut c = Container::inside(&[]);
        c.set(
            "/process/args",
            json!([
                "sh",
                "-c",
                "/bin/inside hog 256; echo ended with $?; sleep 0"
            ]),
        );
        c.set(
            "/linux/resources/memory",
            json!({ "limit": 67_108_864, "swap": 67_108_864 }),
        );
        c.set(
            "/linux/resources/unified",
            json!({ "memory.oom.group": group }),
        );
        let output = c.run();
        if alone {
            assert_eq!(output.ok(), "ended with 137\n");
        } else {
            assert_eq!(output.exits(137), "");
        }
    }
}

#[test]
fn limits_are_visible_from_inside() {
    requires!(
        has_controller("memory") && has_controller("pids"),
        "no memory or pids controller"
    );
    let mut c = limited(&json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 64 } }));
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    c.run_detached();
    // Each controller is in one place: v1's hierarchy, v2, or v2 beside v1.
    let seen = c.exec(
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max unified/memory.max \
        pids/pids.max pids.max unified/pids.max 2>/dev/null; true",
    );
    assert_eq!(seen.ok(), "67108864\n64\n");
}

#[test]
fn a_memory_hog_is_killed_at_its_limit_and_reported() {
    requires!(has_controller("memory"), "no memory controller");
    let mut c = Container::inside(&["hog", "256"]);
    c.set(
        "/linux/resources/memory",
        json!({ "limit": 33_554_432, "swap": 33_554_432 }),
    );
    if c.create().code != 0 {
        c.set("/linux/resources/memory", json!({ "limit": 33_554_432 }));
        c.create().ok();
    }
    let log = c.dir().join("events");
    let mut events = c
        .command(&["events", &c.id])
        .stdout(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    // The first statistics mean that events is watching.
    eventually("the first event", || {
        read_text(&log).contains("\"stats\"").then_some(())
    });
    c.start().ok();
    eventually("an oom event", || {
        read_text(&log)
            .contains(&format!("{{\"type\":\"oom\",\"id\":\"{}\"", c.id))
            .then_some(())
    });
    c.wait_for("stopped");
    assert!(!c.said().contains("touched"));
    c.delete_force().ok();
    let _ = events.kill();
    let _ = events.wait();
}

#[test]
fn the_exit_status_of_an_oom_kill_is_137() {
    requires!(has_controller("memory"), "no memory controller");
    let mut c = Container::inside(&["hog", "256"]);
    c.set("/linux/resources/memory", json!({ "limit": 33_554_432 }));
    assert_eq!(c.run().exits(137), "");
    c.assert_nothing_left();
}

#[test]
fn a_fork_bomb_stops_at_its_limit() {
    requires!(has_controller("pids"), "no pids controller");
    // Each level starts two more; whoever cannot says so and ends, which must not be the first process. Without a limit it would be 2^9.
    let script = "bomb() { [ $1 = 0 ] || { bomb $(($1 - 1)) & bomb $(($1 - 1)) & }; sleep 1000000; }; bomb 8 & exec sleep 1000000";
    let mut c = Container::new(script);
    c.set("/linux/resources/pids", json!({ "limit": 40 }));
    let error = c.dir().join("stderr");
    c.run_detached();
    eventually("a fork is refused", || {
        let text = read_text(&error);
        (text.contains("can't fork") || text.contains("Resource temporarily unavailable"))
            .then_some(())
    });
    let events = limit_of(c.pid(), Limit::new("pids", "pids.events", "pids.events")).unwrap();
    assert!(
        events.starts_with("max ") && !events.starts_with("max 0"),
        "{events}"
    );
    let processes: usize = limit_of(c.pid(), Limit::new("pids", "pids.current", "pids.current"))
        .unwrap()
        .parse()
        .unwrap();
    assert!(processes <= 40, "{processes}");
    c.delete_force().ok();
    c.assert_nothing_left();
}

#[test]
fn a_cpu_hog_gets_its_share() {
    requires!(has_controller("cpu"), "no cpu controller");
    let mut c = Container::new("while :; do :; done");
    c.set(
        "/linux/resources/cpu",
        json!({ "quota": 20_000, "period": 100_000 }),
    );
    c.run_detached();
    let stat = format!("/proc/{}/stat", c.pid());
    let used = || {
        let text = read_text(stat.as_ref());
        let fields: Vec<u64> = text
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|word| word.parse().unwrap())
            .collect();
        Duration::from_millis((fields[0] + fields[1]) * 10)
    };
    let (began, before) = (Instant::now(), used());
    // On a busy machine the hog gets less than its share, never more: wait until it had half a second.
    eventually("half a second of CPU time", || {
        (used() - before >= Duration::from_millis(500)).then_some(())
    });
    let share = (used() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    assert!(share < 0.30, "a fifth of one CPU, not {share:.2}");
    let throttled = limit_of(c.pid(), Limit::new("cpu", "cpu.stat", "cpu.stat")).unwrap();
    assert!(!throttled.contains("nr_throttled 0"), "{throttled}");
}

#[test]
fn a_limit_smaller_than_anything_is_a_clear_error() {
    requires!(has_controller("memory"), "no memory controller");
    let mut c = Container::new("true");
    c.set("/linux/resources/memory", json!({ "limit": 4096 }));
    let output = c.run();
    assert!(output.code != 0 && !output.stderr.is_empty(), "{output:?}");
    assert!(
        output.stderr.contains("memory") || !is_coracle(),
        "{output:?}"
    );
    c.assert_nothing_left();
}
