//! Where processes run: `process.execCPUAffinity`, and the affinity that nobody asked for.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use oci_spec::runtime::Process;

use crate::{Context, Error, Result, sys};

/// A set of CPUs as sched_setaffinity(2) takes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cpus(Vec<u8>);

/// The CPUs of an executed process. It means nothing for the container's first one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ExecAffinity {
    /// Of the runtime until the process is in the container's cgroup.
    initial: Option<Cpus>,
    /// Of the process from then on.
    last: Option<Cpus>,
}

impl ExecAffinity {
    /// Checks both lists. One that is empty is none.
    pub(crate) fn new(process: &Process) -> Result<Self> {
        let Some(configured) = process.exec_cpu_affinity() else {
            return Ok(ExecAffinity::default());
        };
        let cpus = |field: &str, list: &Option<String>| {
            let list = list.as_deref().filter(|list| !list.trim().is_empty());
            let wrong = |list| {
                Error::invalid(format!(
                    "process.execCPUAffinity.{field}: {list:?} is not a list of CPUs such as 0-3,7"
                ))
            };
            list.map(|list| cgroups::bits(list).map(Cpus).ok_or_else(|| wrong(list)))
                .transpose()
        };
        Ok(ExecAffinity {
            initial: cpus("initial", configured.initial())?,
            last: cpus("final", configured.cpu_affinity_final())?,
        })
    }

    /// In the runtime, before the process is made.
    pub(crate) fn apply_initial(&self) -> Result<()> {
        match &self.initial {
            Some(cpus) => sys::process::set_affinity(&cpus.0)
                .context("process.execCPUAffinity.initial: set the CPU affinity"),
            None => Ok(()),
        }
    }

    /// In the process, once it is in its cgroup.
    pub(crate) fn apply_final(&self) -> Result<()> {
        match &self.last {
            Some(cpus) => sys::process::set_affinity(&cpus.0)
                .context("process.execCPUAffinity.final: set the CPU affinity"),
            None => {
                reset();
                Ok(())
            }
        }
    }
}

/// Forgets the affinity that was inherited from the engine. Where that fails it stays what it was.
pub(crate) fn reset() {
    // Every CPU there may be: the cpuset alone says where the process runs.
    let _ = sys::process::set_affinity(&[u8::MAX; 1024]);
}

/// This thread on the CPU that it is on, and with it who is made by it: where one waits for the other, another CPU would have to be woken first.
pub(crate) struct Here(CpuSet);

impl Here {
    /// `None` where that cannot be had, which is no harm.
    pub(crate) fn stay() -> Option<Self> {
        let all = sched_getaffinity(Pid::from_raw(0)).ok()?;
        let mut one = CpuSet::new();
        one.set(sched_getcpu().ok()?).ok()?;
        sched_setaffinity(Pid::from_raw(0), &one).ok()?;
        Some(Here(all))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

/// How many threads of this process can run at once: 1 at least.
pub(crate) fn cpus() -> usize {
    sched_getaffinity(Pid::from_raw(0)).map_or(1, |cpus| {
        let is_usable = |cpu: &usize| cpus.is_set(*cpu).unwrap_or_default();
        (0..CpuSet::count()).filter(is_usable).count()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn affinity(section: serde_json::Value) -> Result<ExecAffinity> {
        let process = json!({ "cwd": "/", "execCPUAffinity": section });
        ExecAffinity::new(&crate::config::parse_process(
            process.to_string().as_bytes(),
        )?)
    }

    #[test]
    fn lists_of_cpus() {
        let both = affinity(json!({ "initial": "0-1, 3", "final": "2" })).unwrap();
        assert_eq!(both.initial, Some(Cpus(vec![0b1011])));
        assert_eq!(both.last, Some(Cpus(vec![0b100])));
        assert_eq!(
            affinity(json!({ "initial": "", "final": " " })).unwrap(),
            ExecAffinity::default()
        );
        for bad in ["a", "3-1", "0-99999", "1,"] {
            let error = affinity(json!({ "final": bad })).unwrap_err().to_string();
            assert!(error.contains("execCPUAffinity"), "{error}");
        }
    }
}
