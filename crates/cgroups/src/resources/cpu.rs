//! `linux.resources.cpu`. Kernel: `scheduler/sched-bwc.rst`, `cgroup-v1/cpusets.rst`; `cgroup-v2.rst`, "CPU Interface
//! Files" and "Cpuset Interface Files".

use oci_spec::runtime::LinuxCpu;

use super::{Else, Plan, only_v1};
use crate::Result;
use crate::host::Version;

/// The kernel's own period, in microseconds, for a quota that comes without one.
const DEFAULT_PERIOD: u64 = 100_000;

pub(super) fn cpu(plan: &mut Plan<'_>, wanted: &LinuxCpu) -> Result<()> {
    weight(plan, wanted)?;
    bandwidth(plan, wanted)?;
    realtime(plan, wanted)?;
    for (field, file, value) in [
        ("cpu.cpus", "cpuset.cpus", wanted.cpus()),
        ("cpu.mems", "cpuset.mems", wanted.mems()),
    ] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            plan.put(plan.target(field, "cpuset")?, file, value, Else::Fail);
        }
    }
    Ok(())
}

/// Shares and idleness. An idle group takes no weight, so idle ends before the weight is written and begins after it.
fn weight(plan: &mut Plan<'_>, wanted: &LinuxCpu) -> Result<()> {
    let idle = match wanted.idle() {
        Some(idle) => Some((plan.target("cpu.idle", "cpu")?, idle)),
        None => None,
    };
    if let Some((target, idle @ ..=0)) = idle {
        plan.put(target, "cpu.idle", idle, Else::Fail);
    }
    if let Some(shares) = wanted.shares().filter(|&shares| shares != 0) {
        let target = plan.target("cpu.shares", "cpu")?;
        match target.version {
            Version::V1 => plan.put(target, "cpu.shares", shares, Else::Fail),
            Version::V2 => plan.put(target, "cpu.weight", weight_from_shares(shares), Else::Fail),
        }
    }
    if let Some((target, idle @ 1..)) = idle {
        plan.put(target, "cpu.idle", idle, Else::Fail);
    }
    Ok(())
}

/// Shares (2 to 262144, usually 1024) as a weight (1 to 10000, usually 100), by the curve that meets all three pairs; runc
/// and crun use the same since 2025.
fn weight_from_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

/// Quota, period and burst, in microseconds; 0 is not set, a negative quota is no limit. The kernel checks each against
/// what the others are at the moment, hence [`Else::Reorder`].
fn bandwidth(plan: &mut Plan<'_>, wanted: &LinuxCpu) -> Result<()> {
    let quota = wanted.quota().filter(|&quota| quota != 0);
    let period = wanted.period().filter(|&period| period != 0);
    let field = if quota.is_some() {
        "cpu.quota"
    } else {
        "cpu.period"
    };
    let bounds = if quota.is_some() || period.is_some() {
        Some(plan.target(field, "cpu")?)
    } else {
        None
    };
    let is_v1 = bounds.is_none_or(|target| target.version == Version::V1);
    let reorder = if quota.is_some() || (period.is_some() && !is_v1) {
        Else::Reorder
    } else {
        Else::Fail
    };
    if let (Some(target), Some(period), true) = (bounds, period, is_v1) {
        let target = super::Target {
            field: "cpu.period",
            ..target
        };
        plan.put(target, "cpu.cfs_period_us", period, reorder.clone());
    }
    if let Some(burst) = wanted.burst() {
        let target = plan.target("cpu.burst", "cpu")?;
        let file = if target.version == Version::V1 {
            "cpu.cfs_burst_us"
        } else {
            "cpu.max.burst"
        };
        plan.put(target, file, burst, reorder);
    }
    match (bounds, quota) {
        (Some(target), _) if !is_v1 => {
            let quota = quota
                .filter(|&quota| quota > 0)
                .map_or("max".to_owned(), |quota| quota.to_string());
            plan.put(
                target,
                "cpu.max",
                format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD)),
                Else::Fail,
            );
        }
        (Some(target), Some(quota)) => plan.put(target, "cpu.cfs_quota_us", quota, Else::Fail),
        _ => {}
    }
    Ok(())
}

/// Realtime period and runtime, in microseconds; v2 has neither.
fn realtime(plan: &mut Plan<'_>, wanted: &LinuxCpu) -> Result<()> {
    let runtime = wanted.realtime_runtime().filter(|&runtime| runtime != 0);
    if let Some(period) = wanted.realtime_period().filter(|&period| period != 0) {
        let target = plan.target("cpu.realtimePeriod", "cpu")?;
        if target.version == Version::V2 {
            return Err(only_v1(target.field));
        }
        let otherwise = if runtime.is_some() {
            Else::Reorder
        } else {
            Else::Fail
        };
        plan.put(target, "cpu.rt_period_us", period, otherwise);
    }
    if let Some(runtime) = runtime {
        let target = plan.target("cpu.realtimeRuntime", "cpu")?;
        if target.version == Version::V2 {
            return Err(only_v1(target.field));
        }
        plan.put(target, "cpu.rt_runtime_us", runtime, Else::Fail);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::writes;
    use super::*;

    #[test]
    fn weights_meet_the_three_fixed_points() {
        for (shares, weight) in [
            (1, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight_from_shares(shares), weight, "{shares}");
        }
        assert!(
            (3..262_144)
                .step_by(97)
                .all(|n| weight_from_shares(n) <= weight_from_shares(n + 97))
        );
    }

    #[test]
    fn v1_writes() {
        let json = r#"{"cpu":{"shares":512,"quota":50000,"period":200000,"burst":1000,"realtimePeriod":1000000,
            "realtimeRuntime":950000,"cpus":"0-1","mems":"0"}}"#;
        let expected = [
            "cpu.shares=512",
            "cpu.cfs_period_us=200000",
            "cpu.cfs_burst_us=1000",
            "cpu.cfs_quota_us=50000",
            "cpu.rt_period_us=1000000",
            "cpu.rt_runtime_us=950000",
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
        ];
        assert_eq!(writes(Version::V1, json).unwrap(), expected);
        assert_eq!(
            writes(Version::V1, r#"{"cpu":{"quota":-1}}"#).unwrap(),
            ["cpu.cfs_quota_us=-1"]
        );
        assert_eq!(
            writes(Version::V1, r#"{"cpu":{"period":5}}"#).unwrap(),
            ["cpu.cfs_period_us=5"]
        );
    }

    #[test]
    fn v2_writes() {
        let json = r#"{"cpu":{"shares":1024,"quota":50000,"period":200000,"burst":1000}}"#;
        let expected = [
            "cpu.weight=100",
            "cpu.max.burst=1000",
            "cpu.max=50000 200000",
        ];
        assert_eq!(writes(Version::V2, json).unwrap(), expected);
        assert_eq!(
            writes(Version::V2, r#"{"cpu":{"quota":-1}}"#).unwrap(),
            ["cpu.max=max 100000"]
        );
        assert_eq!(
            writes(Version::V2, r#"{"cpu":{"period":5000}}"#).unwrap(),
            ["cpu.max=max 5000"]
        );
        assert!(writes(Version::V2, r#"{"cpu":{"realtimeRuntime":5}}"#).is_err());
    }

    #[test]
    fn idle_and_weight_come_in_the_order_the_kernel_takes() {
        let on = writes(Version::V2, r#"{"cpu":{"shares":1024,"idle":1}}"#).unwrap();
        assert_eq!(on, ["cpu.weight=100", "cpu.idle=1"]);
        let off = writes(Version::V2, r#"{"cpu":{"shares":1024,"idle":0}}"#).unwrap();
        assert_eq!(off, ["cpu.idle=0", "cpu.weight=100"]);
    }
}
