//! The small controllers: pids, hugetlb, net_cls, net_prio and rdma. Kernel: `cgroup-v1/pids.rst`, `hugetlb.rst`,
//! `net_cls.rst`, `net_prio.rst`, `rdma.rst`; `cgroup-v2.rst`.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxHugepageLimit, LinuxNetwork, LinuxPids, LinuxRdma};

use super::{Else, Plan};
use crate::host::Version;
use crate::{Error, Result};

/// A negative limit is none; 0 is not set, as in runc.
pub(super) fn pids(plan: &mut Plan<'_>, wanted: &LinuxPids) -> Result<()> {
    let value = match wanted.limit() {
        0 => return Ok(()),
        ..0 => "max".to_owned(),
        limit => limit.to_string(),
    };
    plan.put(
        plan.target("pids.limit", "pids")?,
        "pids.max",
        value,
        Else::Fail,
    );
    Ok(())
}

/// Bytes of huge pages of each size, both those in use and, where the kernel counts them, those reserved.
pub(super) fn hugepages(plan: &mut Plan<'_>, limits: &[LinuxHugepageLimit]) -> Result<()> {
    for wanted in limits {
        let size = wanted.page_size();
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let problem = format!("{size:?} is not a page size like \"2MB\"");
            return Err(Error::config(
                "linux.resources.hugepageLimits.pageSize",
                problem,
            ));
        }
        let target = plan.target("hugepageLimits", "hugetlb")?;
        let knob = if target.version == Version::V1 {
            "limit_in_bytes"
        } else {
            "max"
        };
        plan.put(
            target,
            format!("hugetlb.{size}.{knob}"),
            wanted.limit(),
            Else::Fail,
        );
        plan.put(
            target,
            format!("hugetlb.{size}.rsvd.{knob}"),
            wanted.limit(),
            Else::Skip,
        );
    }
    Ok(())
}

/// v2 has no network controllers: packets are matched by cgroup path or by eBPF there.
pub(super) fn network(plan: &mut Plan<'_>, wanted: &LinuxNetwork) -> Result<()> {
    if let Some(class) = wanted.class_id().filter(|&class| class != 0) {
        plan.put(
            plan.target("network.classID", "net_cls")?,
            "net_cls.classid",
            class,
            Else::Fail,
        );
    }
    for priority in wanted.priorities().iter().flatten() {
        let target = plan.target("network.priorities", "net_prio")?;
        plan.put(
            target,
            "net_prio.ifpriomap",
            format!("{} {}", priority.name(), priority.priority()),
            Else::Fail,
        );
    }
    Ok(())
}

pub(super) fn rdma(plan: &mut Plan<'_>, wanted: &HashMap<String, LinuxRdma>) -> Result<()> {
    let mut devices: Vec<_> = wanted.iter().collect();
    devices.sort_unstable_by_key(|(name, _)| *name);
    for (name, limits) in devices {
        let mut value = name.clone();
        for (key, limit) in [
            ("hca_handle", limits.hca_handles()),
            ("hca_object", limits.hca_objects()),
        ] {
            if let Some(limit) = limit {
                value += &format!(" {key}={limit}");
            }
        }
        if value.len() > name.len() {
            plan.put(plan.target("rdma", "rdma")?, "rdma.max", value, Else::Fail);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::writes;
    use super::*;

    #[test]
    fn pids_limits() {
        assert_eq!(
            writes(Version::V2, r#"{"pids":{"limit":-1}}"#).unwrap(),
            ["pids.max=max"]
        );
        assert_eq!(
            writes(Version::V1, r#"{"pids":{"limit":7}}"#).unwrap(),
            ["pids.max=7"]
        );
    }

    #[test]
    fn hugepage_limits() {
        let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":9}]}"#;
        let expected = [
            "hugetlb.2MB.limit_in_bytes=9",
            "hugetlb.2MB.rsvd.limit_in_bytes=9",
        ];
        assert_eq!(writes(Version::V1, json).unwrap(), expected);
        assert_eq!(
            writes(Version::V2, json).unwrap(),
            ["hugetlb.2MB.max=9", "hugetlb.2MB.rsvd.max=9"]
        );
        assert!(
            writes(
                Version::V2,
                r#"{"hugepageLimits":[{"pageSize":"../x","limit":9}]}"#
            )
            .is_err()
        );
    }

    #[test]
    fn network_and_rdma() {
        let json = r#"{"network":{"classID":5,"priorities":[{"name":"eth0","priority":3}]},
            "rdma":{"mlx":{"hcaHandles":3,"hcaObjects":4}}}"#;
        let expected = [
            "net_cls.classid=5",
            "net_prio.ifpriomap=eth0 3",
            "rdma.max=mlx hca_handle=3 hca_object=4",
        ];
        assert_eq!(writes(Version::V1, json).unwrap(), expected);
        let error = writes(Version::V2, json).unwrap_err().to_string();
        assert_eq!(
            error,
            "linux.resources.network.classID: the cgroup controller \"net_cls\" is not available"
        );
    }
}
