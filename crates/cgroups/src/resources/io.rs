//! `linux.resources.blockIO`. Kernel: `cgroup-v1/blkio-controller.rst`; `cgroup-v2.rst`, "IO Interface Files".

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::{Else, Plan, Target, only_v1};
use crate::host::Version;
use crate::{Error, Result};

pub(super) fn block_io(plan: &mut Plan<'_>, wanted: &LinuxBlockIo) -> Result<()> {
    if let Some(weight) = wanted.weight().filter(|&weight| weight != 0) {
        let target = io_target(plan, "blockIO.weight")?;
        check_weight(target.field, weight)?;
        put_weight(plan, target, "", weight);
    }
    if let Some(weight) = wanted.leaf_weight().filter(|&weight| weight != 0) {
        let target = legacy_target(plan, "blockIO.leafWeight")?;
        plan.put(target, "blkio.leaf_weight", weight, Else::Fail);
    }
    for device in wanted.weight_device().iter().flatten() {
        let number = format!("{}:{} ", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
            let target = io_target(plan, "blockIO.weightDevice")?;
            check_weight(target.field, weight)?;
            put_weight(plan, target, &number, weight);
        }
        if let Some(weight) = device.leaf_weight().filter(|&weight| weight != 0) {
            let target = legacy_target(plan, "blockIO.weightDevice")?;
            plan.put(
                target,
                "blkio.leaf_weight_device",
                format!("{number}{weight}"),
                Else::Fail,
            );
        }
    }
    let throttles: [(_, _, _, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        (
            "blockIO.throttleReadBpsDevice",
            "read_bps",
            "rbps",
            wanted.throttle_read_bps_device(),
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            "write_bps",
            "wbps",
            wanted.throttle_write_bps_device(),
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            "read_iops",
            "riops",
            wanted.throttle_read_iops_device(),
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            "write_iops",
            "wiops",
            wanted.throttle_write_iops_device(),
        ),
    ];
    for (field, legacy, key, devices) in throttles {
        for device in devices.iter().flatten() {
            let target = io_target(plan, field)?;
            let (major, minor, rate) = (device.major(), device.minor(), device.rate());
            match target.version {
                Version::V1 => {
                    let file = format!("blkio.throttle.{legacy}_device");
                    plan.put(target, file, format!("{major}:{minor} {rate}"), Else::Fail);
                }
                Version::V2 => {
                    // 0 removes the limit on v1, where v2 wants the word.
                    let rate = if rate == 0 {
                        "max".to_owned()
                    } else {
                        rate.to_string()
                    };
                    plan.put(
                        target,
                        "io.max",
                        format!("{major}:{minor} {key}={rate}"),
                        Else::Fail,
                    );
                }
            }
        }
    }
    Ok(())
}

/// The weight for all devices, or (with `number` as `MAJ:MIN `) for one. BFQ brings files of its own, which know the v1
/// range.
fn put_weight(plan: &mut Plan<'_>, target: Target, number: &str, weight: u16) {
    let value = format!("{number}{weight}");
    match target.version {
        Version::V1 => {
            let suffix = if number.is_empty() { "" } else { "_device" };
            let instead = Else::Instead {
                file: format!("blkio.bfq.weight{suffix}"),
                value: value.clone(),
            };
            plan.put(target, format!("blkio.weight{suffix}"), value, instead);
        }
        Version::V2 => {
            let prefix = if number.is_empty() {
                "default "
            } else {
                number
            };
            let instead = format!("{prefix}{}", io_weight(weight));
            plan.put(
                target,
                "io.bfq.weight",
                value,
                Else::Instead {
                    file: "io.weight".into(),
                    value: instead,
                },
            );
        }
    }
}

/// 10 to 1000 spread over io.weight's 1 to 10000.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

fn check_weight(field: &str, weight: u16) -> Result<()> {
    match weight {
        10..=1000 => Ok(()),
        _ => Err(Error::config(
            format!("linux.resources.{field}"),
            format!("{weight} is not in the range 10 to 1000"),
        )),
    }
}

/// The controller is called blkio on v1 and io on v2.
fn io_target(plan: &Plan<'_>, field: &'static str) -> Result<Target> {
    match (plan.controllers)("blkio") {
        Some(_) => plan.target(field, "blkio"),
        None => plan.target(field, "io"),
    }
}

/// CFQ's leaf weights went with that scheduler in Linux 5.0 and never existed on v2.
fn legacy_target(plan: &Plan<'_>, field: &'static str) -> Result<Target> {
    let target = io_target(plan, field)?;
    if target.version == Version::V1 {
        Ok(target)
    } else {
        Err(only_v1(field))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::writes;
    use super::*;

    const JSON: &str = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],
        "throttleReadBpsDevice":[{"major":8,"minor":16,"rate":1024}],
        "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#;

    #[test]
    fn v1_writes() {
        let expected = [
            "blkio.weight=500",
            "blkio.weight_device=8:0 10",
            "blkio.throttle.read_bps_device=8:16 1024",
            "blkio.throttle.write_iops_device=8:16 0",
        ];
        assert_eq!(writes(Version::V1, JSON).unwrap(), expected);
    }

    #[test]
    fn v2_writes() {
        let expected = [
            "io.bfq.weight=500",
            "io.bfq.weight=8:0 10",
            "io.max=8:16 rbps=1024",
            "io.max=8:16 wiops=max",
        ];
        assert_eq!(writes(Version::V2, JSON).unwrap(), expected);
        assert!(writes(Version::V2, r#"{"blockIO":{"leafWeight":100}}"#).is_err());
    }

    #[test]
    fn weights() {
        assert_eq!([10, 100, 500, 1000].map(io_weight), [1, 910, 4950, 10_000]);
        let error = writes(Version::V1, r#"{"blockIO":{"weight":5}}"#)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "linux.resources.blockIO.weight: 5 is not in the range 10 to 1000"
        );
    }
}
