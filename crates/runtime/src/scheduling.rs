//! `process.scheduler` (sched(7)) and `process.ioPriority` (ioprio_set(2)).

use nix::errno::Errno;
use oci_spec::runtime::{IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process};

use crate::{Context, Error, Result, sys};

/// `struct sched_attr` of sched_setattr(2), as far as every kernel knows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, as the next two.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

const SCHED_DEADLINE: u32 = 6;

/// How a process is scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Scheduling {
    cpu: Option<SchedAttr>,
    /// Class and level.
    io: Option<(u32, u32)>,
}

impl Scheduling {
    /// Checks both sections; what belongs to another policy is an error, as in runc.
    pub(crate) fn new(process: &Process) -> Result<Self> {
        Ok(Scheduling {
            cpu: scheduler(process)?,
            io: io_priority(process)?,
        })
    }

    /// Applies to the calling process.
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(attributes) = &self.cpu {
            let setting = "process.scheduler: set it";
            match sys::process::set_scheduler(attributes) {
                // The kernel admits it only to all CPUs.
                Err(Errno::EPERM) if attributes.policy == SCHED_DEADLINE => {
                    return Err(Error::failed(format!(
                        "{setting}: operation not permitted: process scheduler can't be used together with AllowedCPUs \
                         (linux.resources.cpu.cpus), nor without CAP_SYS_NICE"
                    )));
                }
                set => set.context(setting)?,
            }
        }
        if let Some((class, level)) = self.io {
            sys::process::set_io_priority(class, level).context("process.ioPriority: set it")?;
        }
        Ok(())
    }
}

fn scheduler(process: &Process) -> Result<Option<SchedAttr>> {
    let Some(configured) = process.scheduler() else {
        return Ok(None);
    };
    let invalid =
        |field: &str, text: &str| Err(Error::invalid(format!("process.scheduler.{field}: {text}")));
    let policy = match configured.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => {
            return invalid("policy", "no Linux implements SCHED_ISO");
        }
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => SCHED_DEADLINE,
    };
    let (nice, priority) = (
        configured.nice().unwrap_or(0),
        configured.priority().unwrap_or(0),
    );
    let times = [
        configured.runtime().unwrap_or(0),
        configured.deadline().unwrap_or(0),
        configured.period().unwrap_or(0),
    ];
    if nice != 0 && !matches!(policy, 0 | 3) {
        return invalid("nice", "is for SCHED_OTHER and SCHED_BATCH");
    }
    if !(-20..=19).contains(&nice) {
        return invalid("nice", "must be between -20 and 19");
    }
    if priority != 0 && !matches!(policy, 1 | 2) {
        return invalid("priority", "is for SCHED_FIFO and SCHED_RR");
    }
    let Ok(priority) = u32::try_from(priority) else {
        return invalid("priority", "must not be negative");
    };
    if times != [0; 3] && policy != SCHED_DEADLINE {
        return invalid(
            "runtime",
            "runtime, deadline and period are for SCHED_DEADLINE",
        );
    }
    let flags = configured
        .flags()
        .iter()
        .flatten()
        .map(flag)
        .fold(0, |flags, flag| flags | flag);
    let [runtime, deadline, period] = times;
    let size = size_of::<SchedAttr>() as u32;
    Ok(Some(SchedAttr {
        size,
        policy,
        flags,
        nice,
        priority,
        runtime,
        deadline,
        period,
    }))
}

fn flag(flag: &LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn io_priority(process: &Process) -> Result<Option<(u32, u32)>> {
    let Some(configured) = process.io_priority() else {
        return Ok(None);
    };
    let class = match configured.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(configured.priority()) {
        Ok(level @ 0..=7) => Ok(Some((class, level))),
        _ => Err(Error::invalid(
            "process.ioPriority.priority: must be between 0 and 7",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scheduling(section: &str, value: serde_json::Value) -> Result<Scheduling> {
        let process = json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 }, section: value });
        Scheduling::new(&serde_json::from_value(process).unwrap())
    }

    #[test]
    fn each_policy_takes_its_own_fields() {
        let batch = scheduling("scheduler", json!({ "policy": "SCHED_BATCH", "nice": 7 })).unwrap();
        assert_eq!(batch.cpu.map(|cpu| (cpu.policy, cpu.nice)), Some((3, 7)));
        let refused = [
            (
                json!({ "policy": "SCHED_FIFO", "priority": 5, "nice": 1 }),
                "nice",
            ),
            (json!({ "policy": "SCHED_OTHER", "nice": 20 }), "nice"),
            (
                json!({ "policy": "SCHED_OTHER", "priority": 1 }),
                "priority",
            ),
            (json!({ "policy": "SCHED_RR", "priority": -1 }), "priority"),
            (json!({ "policy": "SCHED_BATCH", "runtime": 1 }), "runtime"),
            (json!({ "policy": "SCHED_ISO" }), "policy"),
        ];
        for (section, field) in refused {
            let error = scheduling("scheduler", section).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("process.scheduler.{field}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn io_priorities() {
        let io = scheduling(
            "ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }),
        );
        assert_eq!(io.unwrap().io, Some((2, 6)));
        let io = json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 });
        assert!(scheduling("ioPriority", io).is_err());
    }
}
