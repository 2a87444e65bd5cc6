//! `linux.resources.memory`. Kernel: `cgroup-v1/memory.rst`; `cgroup-v2.rst`, "Memory Interface Files".

use oci_spec::runtime::LinuxMemory;

use super::{Else, Plan, number, only_v1};
use crate::cgroup::Cgroup;
use crate::host::Version;
use crate::{Error, Result};

/// Bytes; -1 is no limit and 0 is not set. `swap` counts memory and swap together, as v1 does.
pub(super) fn memory(plan: &mut Plan<'_>, wanted: &LinuxMemory) -> Result<()> {
    limits(
        plan,
        wanted.limit().unwrap_or(0),
        wanted.swap().unwrap_or(0),
    )?;
    if let Some(reservation) = wanted.reservation().filter(|&value| value != 0) {
        let target = plan.target("memory.reservation", "memory")?;
        match target.version {
            Version::V1 => plan.put(
                target,
                "memory.soft_limit_in_bytes",
                reservation,
                Else::Fail,
            ),
            Version::V2 => plan.put(target, "memory.low", or_max(reservation), Else::Fail),
        }
    }
    #[allow(deprecated)] // It is read in order to say that it is not used.
    let kernel = wanted.kernel().is_some_and(|value| value > 0);
    if kernel || wanted.kernel_tcp().is_some_and(|value| value > 0) {
        log::warn!(
            "linux.resources.memory.kernel and kernelTCP have no effect: the kernel gave such limits up"
        );
    }
    if wanted.disable_oom_killer() == Some(true) {
        let target = plan.target("memory.disableOOMKiller", "memory")?;
        match target.version {
            Version::V1 => plan.put(target, "memory.oom_control", 1, Else::Fail),
            Version::V2 => return Err(only_v1(target.field)),
        }
    }
    // All ones is -1 in the form some engines send "not set".
    if let Some(swappiness) = wanted.swappiness().filter(|&value| value != u64::MAX) {
        if swappiness > 100 {
            let problem = format!("{swappiness} is not in the range 0 to 100");
            return Err(Error::config("linux.resources.memory.swappiness", problem));
        }
        match (plan.controllers)("memory") {
            Some(Version::V2) => {
                log::debug!("linux.resources.memory.swappiness has no counterpart on cgroup v2")
            }
            _ => {
                let target = plan.target("memory.swappiness", "memory")?;
                plan.put(target, "memory.swappiness", swappiness, Else::Fail);
            }
        }
    }
    Ok(())
}

fn limits(plan: &mut Plan<'_>, limit: i64, swap: i64) -> Result<()> {
    if limit == 0 && swap == 0 {
        return Ok(());
    }
    let field = if limit != 0 {
        "memory.limit"
    } else {
        "memory.swap"
    };
    match plan.target(field, "memory")?.version {
        Version::V1 => limits_v1(plan, limit, swap),
        Version::V2 => limits_v2(plan, limit, swap),
    }
}

fn limits_v1(plan: &mut Plan<'_>, limit: i64, swap: i64) -> Result<()> {
    // memsw may never be below the limit: raising has to begin with one, lowering with the other.
    let unlimited = limit == -1 && swap == 0;
    if limit != 0 {
        let otherwise = if swap != 0 { Else::Reorder } else { Else::Fail };
        // Without swap accounting there is no memsw, and nothing to wait for.
        let target = plan.target("memory.limit", "memory")?;
        if unlimited {
            plan.put(target, "memory.memsw.limit_in_bytes", -1, Else::Skip);
        }
        plan.put(target, "memory.limit_in_bytes", limit, otherwise);
    }
    if swap != 0 {
        let target = plan.target("memory.swap", "memory")?;
        plan.put(target, "memory.memsw.limit_in_bytes", swap, Else::Fail);
    }
    Ok(())
}

fn limits_v2(plan: &mut Plan<'_>, limit: i64, swap: i64) -> Result<()> {
    let swap = match swap_alone(limit, swap) {
        Ok(swap) => swap,
        Err(problem) => return Err(Error::config("linux.resources.memory.swap", problem)),
    };
    if let Some(swap) = swap {
        // A kernel without swap accounting has no swap to limit: "max" and "0" are true by themselves.
        let otherwise = if swap == "max" || swap == "0" {
            Else::Skip
        } else {
            Else::Fail
        };
        plan.put(
            plan.target("memory.swap", "memory")?,
            "memory.swap.max",
            swap,
            otherwise,
        );
    }
    if limit != 0 {
        plan.put(
            plan.target("memory.limit", "memory")?,
            "memory.max",
            or_max(limit),
            Else::Fail,
        );
    }
    Ok(())
}

/// What v2 limits is swap without memory; `None` when it is not to be touched.
fn swap_alone(limit: i64, swap: i64) -> Result<Option<String>, String> {
    match (limit, swap) {
        (-1, 0) | (_, -1) => Ok(Some("max".into())),
        (_, 0) => Ok(None),
        (..=0, _) => Err("unable to set swap limit without memory limit".into()),
        (_, ..-1) => Err(format!("{swap} is neither a limit nor -1")),
        _ if swap < limit => Err(format!(
            "memory+swap limit {swap} is below the memory limit {limit}"
        )),
        _ => Ok(Some((swap - limit).to_string())),
    }
}

fn or_max(value: i64) -> String {
    if value < 0 {
        "max".into()
    } else {
        value.to_string()
    }
}

/// `checkBeforeUpdate`: refuses a limit below what is in use, where the kernel would reclaim and then kill. v1 refuses
/// that by itself.
pub(super) fn check_before_update(cgroup: &Cgroup, wanted: &LinuxMemory) -> Result<()> {
    let Some(dir) = cgroup
        .unified()
        .filter(|_| wanted.check_before_update() == Some(true))
    else {
        return Ok(());
    };
    let Some(usage) = number(dir, "memory.current")? else {
        return Ok(());
    };
    for (field, name, limit) in [
        ("swap", "memory+swap", wanted.swap()),
        ("limit", "memory", wanted.limit()),
    ] {
        if let Some(limit) = limit.filter(|&limit| limit > 0 && limit as u64 <= usage) {
            let problem = format!("rejecting {name} limit {limit} <= usage {usage}");
            return Err(Error::config(
                format!("linux.resources.memory.{field}"),
                problem,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::writes;
    use super::*;

    #[test]
    fn v1_writes() {
        let json = r#"{"memory":{"limit":100,"swap":300,"reservation":50,"swappiness":7,"disableOOMKiller":true}}"#;
        let expected = [
            "memory.limit_in_bytes=100",
            "memory.memsw.limit_in_bytes=300",
            "memory.soft_limit_in_bytes=50",
            "memory.oom_control=1",
            "memory.swappiness=7",
        ];
        assert_eq!(writes(Version::V1, json).unwrap(), expected);
        let expected = ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"];
        assert_eq!(
            writes(Version::V1, r#"{"memory":{"limit":-1}}"#).unwrap(),
            expected
        );
    }

    #[test]
    fn v2_writes() {
        let json = r#"{"memory":{"limit":100,"swap":300,"reservation":-1,"swappiness":7,"disableOOMKiller":false}}"#;
        assert_eq!(
            writes(Version::V2, json).unwrap(),
            ["memory.swap.max=200", "memory.max=100", "memory.low=max"]
        );
        let expected = ["memory.swap.max=max", "memory.max=max"];
        assert_eq!(
            writes(Version::V2, r#"{"memory":{"limit":-1}}"#).unwrap(),
            expected
        );
    }

    #[test]
    fn swap_is_what_is_beyond_memory() {
        assert_eq!(swap_alone(100, 100), Ok(Some("0".into())));
        assert_eq!(swap_alone(100, 0), Ok(None));
        assert_eq!(swap_alone(100, -1), Ok(Some("max".into())));
        for (limit, swap) in [(0, 5), (-1, 5), (100, 50), (100, -7)] {
            assert!(swap_alone(limit, swap).is_err(), "{limit} {swap}");
        }
    }

    #[test]
    fn bad_values_name_the_field() {
        let error = writes(Version::V1, r#"{"memory":{"swappiness":101}}"#)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "linux.resources.memory.swappiness: 101 is not in the range 0 to 100"
        );
        let error = writes(Version::V2, r#"{"memory":{"disableOOMKiller":true}}"#)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "linux.resources.memory.disableOOMKiller: is not supported on cgroup v2"
        );
    }
}
