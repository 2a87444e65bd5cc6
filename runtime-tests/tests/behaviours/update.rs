//! `update`: every flag, a file, and stdin.

use std::fs;

use runtime_tests::{
    Container, Limit, has_cgroup, has_controller, is_coracle, is_runc_since, limit_of, requires,
};
use serde_json::json;

fn running() -> Container {
    let mut c = Container::idle();
    c.set("/linux/resources/memory", json!({ "limit": 67_108_864 }));
    c.set(
        "/linux/resources/cpu",
        json!({ "quota": 50_000, "period": 100_000, "shares": 1024 }),
    );
    c.set("/linux/resources/pids", json!({ "limit": 64 }));
    c.run_detached();
    c
}

fn update(c: &Container, flags: &[&str]) {
    let mut args = vec!["update"];
    args.extend(flags);
    args.push(&c.id);
    c.runtime(&args).ok();
}

fn value(c: &Container, limit: Limit) -> String {
    limit_of(c.pid(), limit).unwrap_or_else(|| panic!("{} or {}", limit.v1.1, limit.v2))
}

fn all_controllers() -> bool {
    ["memory", "cpu", "cpuset", "pids"]
        .iter()
        .all(|name| has_controller(name))
}

#[test]
fn each_flag_changes_its_limit_and_no_other() {
    requires!(all_controllers(), "a controller is missing");
    let c = running();
    update(&c, &["--memory", "96M"]);
    assert_eq!(value(&c, Limit::MEMORY), "100663296");
    update(&c, &["--memory-reservation", "33554432"]);
    assert_eq!(value(&c, Limit::MEMORY_RESERVATION), "33554432");
    update(&c, &["--pids-limit", "20"]);
    assert_eq!(value(&c, Limit::PIDS), "20");
    update(&c, &["--cpu-period", "200000", "--cpu-quota", "30000"]);
    let seen = (value(&c, Limit::CPU_QUOTA), value(&c, Limit::CPU_PERIOD));
    assert!(
        seen == ("30000".into(), "200000".into()) || seen.0 == "30000 200000",
        "{seen:?}"
    );
    update(&c, &["--cpu-share", "256"]);
    assert!(
        ["256", "34", "35"].contains(&value(&c, Limit::CPU_SHARES).as_str()),
        "{}",
        value(&c, Limit::CPU_SHARES)
    );
    update(&c, &["--cpuset-cpus", "0", "--cpuset-mems", "0"]);
    assert_eq!(
        (value(&c, Limit::CPUS), value(&c, Limit::MEMS)),
        ("0".into(), "0".into())
    );
    assert_eq!(value(&c, Limit::MEMORY), "100663296");
    assert_eq!(value(&c, Limit::PIDS), "20");
}

#[test]
fn sizes_take_suffixes_and_minus_one_is_unlimited() {
    requires!(
        has_controller("memory") && has_controller("pids"),
        "a controller is missing"
    );
    let c = running();
    for (word, bytes) in [
        ("80000k", "81920000"),
        ("96m", "100663296"),
        ("1G", "1073741824"),
        ("70000000", "69996544"),
    ] {
        update(&c, &["--memory", word]);
        let seen = value(&c, Limit::MEMORY);
        assert!(seen == bytes || seen == word, "{word}: {seen}");
    }
    update(&c, &["--memory", "-1"]);
    let seen = value(&c, Limit::MEMORY);
    assert!(
        seen == "max" || seen.parse::<u64>().unwrap() > 1 << 60,
        "{seen}"
    );
    update(&c, &["--pids-limit", "-1"]);
    assert_eq!(value(&c, Limit::PIDS), "max");
}

#[test]
fn cpu_burst_and_idle() {
    requires!(all_controllers(), "a controller is missing");
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 knows neither"
    );
    let c = running();
    let burst = c.runtime(&["update", "--cpu-burst", "10000", &c.id]);
    requires!(
        !burst.stderr.contains("the kernel must be 5.14 or later"),
        "the kernel has no bursts"
    );
    burst.ok();
    assert_eq!(value(&c, Limit::CPU_BURST), "10000");
    let c = Container::idle();
    c.run_detached();
    let idle = c.runtime(&["update", "--cpu-idle", "1", &c.id]);
    requires!(
        !idle.stderr.contains("the kernel must be 5.15 or later"),
        "the kernel has no idle groups"
    );
    idle.ok();
    assert_eq!(value(&c, Limit::CPU_IDLE), "1");
}

#[test]
fn block_io_weight() {
    requires!(
        has_controller("blkio") || has_controller("io"),
        "neither blkio nor io"
    );
    let c = Container::idle();
    c.run_detached();
    // The bfq scheduler brings a file of its own, and the range of v1 with it.
    let weight = || {
        let bfq = Limit::new("blkio", "blkio.bfq.weight", "io.bfq.weight");
        let others = Limit::new("blkio", "blkio.weight", "io.weight");
        let text = limit_of(c.pid(), bfq).or_else(|| limit_of(c.pid(), others))?;
        let line = text.lines().next()?;
        Some(line.trim_start_matches("default ").to_owned())
    };
    requires!(weight().is_some(), "the kernel has no weights of disks");
    update(&c, &["--blkio-weight", "300"]);
    let seen = weight().unwrap();
    assert!(["300", "2930"].contains(&seen.as_str()), "{seen}");
}

#[test]
fn realtime_runtime_and_period() {
    let c = Container::idle();
    c.run_detached();
    let runtime = Limit::new("cpu", "cpu.rt_runtime_us", "cpu.rt_runtime_us");
    let period = Limit::new("cpu", "cpu.rt_period_us", "cpu.rt_period_us");
    let seen = || Some((limit_of(c.pid(), runtime)?, limit_of(c.pid(), period)?));
    requires!(
        seen().is_some(),
        "the cgroups of this kernel do not share out realtime"
    );
    update(&c, &["--cpu-rt-period", "500000"]);
    update(&c, &["--cpu-rt-runtime", "5000"]);
    assert_eq!(seen(), Some(("5000".into(), "500000".into())));
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 writes the period first"
    );
    // In the order that the kernel takes: the period does not fit with the old runtime.
    let both = ["--cpu-rt-period", "4000", "--cpu-rt-runtime", "100"];
    update(&c, &both);
    assert_eq!(seen(), Some(("100".into(), "4000".into())));
    let output = c.runtime(&["update", "--cpu-rt-runtime", "5000", &c.id]);
    assert_eq!(output.code, 1, "more than there is: {output:?}");
    assert_eq!(seen(), Some(("100".into(), "4000".into())));
}

#[test]
fn resources_from_a_file_and_from_stdin() {
    requires!(all_controllers(), "a controller is missing");
    let c = running();
    let file = c.dir().join("resources.json");
    fs::write(
        &file,
        json!({ "memory": { "limit": 80_000_000 / 4096 * 4096 }, "pids": { "limit": 30 } })
            .to_string(),
    )
    .unwrap();
    for flag in ["-r", "--resources"] {
        update(&c, &[flag, &file.to_string_lossy()]);
        assert_eq!(
            (value(&c, Limit::MEMORY), value(&c, Limit::PIDS)),
            ("79998976".into(), "30".into())
        );
    }
    let resources =
        json!({ "memory": { "limit": 50_331_648 }, "cpu": { "shares": 512 } }).to_string();
    c.runtime_with_input(&["update", "--resources", "-", &c.id], &resources)
        .ok();
    assert_eq!(value(&c, Limit::MEMORY), "50331648");
    c.runtime_with_input(
        &["update", "--resources=-", &c.id],
        "{ \"pids\": { \"limit\": 40 } }",
    )
    .ok();
    assert_eq!(value(&c, Limit::PIDS), "40");
    assert_eq!(
        value(&c, Limit::MEMORY),
        "50331648",
        "what is not named stays"
    );
}

#[test]
fn devices_are_never_touched() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    let c = Container::idle();
    c.run_detached();
    let resources =
        json!({ "devices": [{ "allow": true, "access": "rwm" }], "pids": { "limit": 50 } })
            .to_string();
    c.runtime_with_input(&["update", "-r", "-", &c.id], &resources)
        .ok();
    let output = c.exec("mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk");
    assert!(
        output.stderr.contains("Operation not permitted"),
        "{output:?}"
    );
    assert_eq!(c.exec("head -c 1 /dev/zero | wc -c").ok(), "1\n");
}

#[test]
fn a_created_container_can_be_updated() {
    requires!(has_controller("pids"), "no pids controller");
    let c = Container::idle();
    c.create().ok();
    update(&c, &["--pids-limit", "33"]);
    assert_eq!(value(&c, Limit::PIDS), "33");
}

#[test]
fn updates_that_make_no_sense_are_refused() {
    requires!(all_controllers(), "a controller is missing");
    let c = running();
    for flags in [
        &["--memory", "lots"][..],
        &["--pids-limit", "x"],
        &["--cpu-quota", "1"],
        &["--cpuset-cpus", "99"],
        &["--resources", "/nonesuch.json"],
        &["--cpu-period", "x"],
    ] {
        let mut args = vec!["update"];
        args.extend(flags);
        args.push(&c.id);
        let output = c.runtime(&args);
        assert_eq!(output.code, 1, "{flags:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{flags:?}");
    }
    assert_eq!(c.status(), "running");
    assert_eq!(value(&c, Limit::PIDS), "64");
}

#[test]
fn update_of_a_stopped_container_is_refused() {
    let c = Container::new("true");
    c.run_with(&["--keep"]).ok();
    assert_eq!(c.runtime(&["update", "--pids-limit", "9", &c.id]).code, 1);
}
