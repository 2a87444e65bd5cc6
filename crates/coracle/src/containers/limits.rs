//! The resource flags of `run`: Docker's checks, and the runtime's `linux.resources`.

use std::fs;
use std::path::Path;

use runtime::{Error, Result};
use serde_json::{Value, json};

/// The period of the CPU quota that `--cpus` is counted in, in microseconds.
const PERIOD: u64 = 100_000;

/// What was asked for, in bytes where it is memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) memory: Option<i64>,
    /// Memory and swap together; -1 for no limit.
    pub(crate) memory_swap: Option<i64>,
    pub(crate) memory_reservation: Option<i64>,
    /// Billionths of a CPU.
    pub(crate) nano_cpus: Option<u64>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) cpu_shares: Option<u64>,
    pub(crate) pids: Option<i64>,
}

/// What the machine has.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    cpus: u64,
    /// Those that are online, as `0-3,5`.
    online: String,
    memory: u64,
    /// The kernel counts swap for each cgroup.
    counts_swap: bool,
}

impl Machine {
    /// Looks at this one.
    pub(crate) fn probe() -> Self {
        let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let cpus = set_of_cpus(online.trim()).map_or(0, |cpus| cpus.len() as u64);
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = memory
            .strip_prefix("MemTotal:")
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        let root = Path::new("/sys/fs/cgroup");
        let v1 = root.join("memory/memory.memsw.limit_in_bytes");
        Machine {
            cpus: cpus.max(1),
            online: online.trim().to_owned(),
            memory: kilobytes.unwrap_or(u64::MAX >> 10) << 10,
            counts_swap: v1.exists() || root.join("cgroup.controllers").exists(),
        }
    }
}

impl Limits {
    /// `--cpus 1.5`.
    pub(crate) fn parse_cpus(text: &str) -> Option<u64> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
            return None;
        }
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let billionths: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        let exact = fraction.len() <= 9 || fraction[9..].bytes().all(|byte| byte == b'0');
        whole
            .checked_mul(1_000_000_000)?
            .checked_add(billionths)
            .filter(|_| exact)
    }

    /// Docker's checks, in its words. What this machine cannot do, and Docker only warns of, is warned of and taken out.
    pub(crate) fn check(&mut self, machine: &Machine) -> Result<()> {
        let refuse = |text: String| Err(Error::invalid(text));
        let memory = self.memory.filter(|memory| *memory > 0);
        if memory.is_some_and(|memory| memory < 6 << 20) {
            return refuse("--memory: minimum memory limit allowed is 6MB".into());
        }
        if memory.is_some_and(|memory| memory as u64 > machine.memory) {
            log::warn!(
                "--memory: {} MiB is more than this machine has ({} MiB)",
                memory.unwrap_or(0) >> 20,
                machine.memory >> 20
            );
        }
        let swap = self.memory_swap.filter(|swap| *swap != 0);
        if swap.is_some_and(|swap| swap > 0) && memory.is_none() {
            return refuse("--memory-swap: you should always set --memory when using it".into());
        }
        if let (Some(memory), Some(swap @ 0..)) = (memory, swap)
            && swap < memory
        {
            return refuse(
                "--memory-swap: minimum memoryswap limit should be larger than memory limit".into(),
            );
        }
        if let (Some(memory), Some(reservation)) = (memory, self.memory_reservation)
            && memory < reservation
        {
            return refuse(
                "--memory: minimum memory limit can not be less than memory reservation limit"
                    .into(),
            );
        }
        if swap.is_some() && !machine.counts_swap {
            log::warn!(
                "--memory-swap: your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
            );
            self.memory_swap = None;
        }
        // As much swap as memory, which is Docker's choice when nobody makes one.
        if let (Some(memory), None) = (memory, swap)
            && machine.counts_swap
        {
            self.memory_swap = Some(memory.saturating_mul(2));
        }
        if let Some(cpus) = self.nano_cpus
            && !(10_000_000..=machine.cpus * 1_000_000_000).contains(&cpus)
        {
            return refuse(format!(
                "--cpus: range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available",
                count = machine.cpus
            ));
        }
        self.check_cpuset(machine)
    }

    fn check_cpuset(&self, machine: &Machine) -> Result<()> {
        let Some(wanted) = &self.cpuset_cpus else {
            return Ok(());
        };
        let Some(cpus) = set_of_cpus(wanted) else {
            let text = format!("--cpuset-cpus: invalid value {wanted:?}: expected 0-3,5");
            return Err(Error::invalid(text));
        };
        let online = set_of_cpus(&machine.online).unwrap_or_default();
        match cpus.iter().all(|cpu| online.contains(cpu)) {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "--cpuset-cpus: requested CPUs are not available - requested {wanted}, available: {}",
                machine.online
            ))),
        }
    }

    /// Into `linux.resources`.
    pub(crate) fn write(&self, resources: &mut Value) {
        let mut set = |pointer: [&str; 2], value: Option<Value>| {
            if let Some(value) = value {
                resources[pointer[0]][pointer[1]] = value;
            }
        };
        set(
            ["memory", "limit"],
            self.memory.filter(|limit| *limit > 0).map(Value::from),
        );
        set(
            ["memory", "swap"],
            self.memory_swap.filter(|swap| *swap != 0).map(Value::from),
        );
        set(
            ["memory", "reservation"],
            self.memory_reservation.map(Value::from),
        );
        let quota = self.nano_cpus.map(|cpus| cpus / (1_000_000_000 / PERIOD));
        set(["cpu", "quota"], quota.map(Value::from));
        set(["cpu", "period"], quota.map(|_| json!(PERIOD)));
        set(["cpu", "cpus"], self.cpuset_cpus.clone().map(Value::from));
        set(
            ["cpu", "shares"],
            self.cpu_shares
                .filter(|shares| *shares > 0)
                .map(Value::from),
        );
        set(
            ["pids", "limit"],
            self.pids.filter(|pids| *pids > 0).map(Value::from),
        );
    }
}

/// `0-3,5`.
fn set_of_cpus(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > 8191 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            cpus: 2,
            online: "0-1".into(),
            memory: 4 << 30,
            counts_swap: true,
        }
    }

    #[test]
    fn cpus() {
        for (text, nano) in [
            ("1", 1_000_000_000),
            ("1.5", 1_500_000_000),
            (".5", 500_000_000),
            ("0.01", 10_000_000),
            ("2.", 2_000_000_000),
        ] {
            assert_eq!(Limits::parse_cpus(text), Some(nano), "{text}");
        }
        for bad in [
            "",
            ".",
            "-1",
            "1e3",
            "1.2.3",
            "x",
            "99999999999999999999",
            "0.0000000001",
        ] {
            assert_eq!(Limits::parse_cpus(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_the_machine_has_not_is_refused_in_dockers_words() {
        let check = |limits: Limits| limits.clone().check(&machine()).map_err(|e| e.to_string());
        let error = check(Limits {
            nano_cpus: Some(3_000_000_000),
            ..Limits::default()
        });
        assert!(
            error
                .unwrap_err()
                .contains("there are only 2 CPUs available")
        );
        let error = check(Limits {
            cpuset_cpus: Some("0,7".into()),
            ..Limits::default()
        });
        assert!(error.unwrap_err().contains("requested 0,7, available: 0-1"));
        let error = check(Limits {
            memory: Some(1 << 20),
            ..Limits::default()
        });
        assert!(error.unwrap_err().contains("6MB"));
        for (memory, swap, fine) in [
            (64, 64, true),
            (64, 32, false),
            (64, -1, true),
            (0, 64, false),
        ] {
            let result = check(Limits {
                memory: Some(memory << 20),
                memory_swap: Some(if swap < 0 { -1 } else { swap << 20 }),
                ..Limits::default()
            });
            assert_eq!(result.is_ok(), fine, "{memory} {swap}");
        }
    }

    #[test]
    fn swap_is_as_much_as_memory_unless_somebody_says() {
        let mut limits = Limits {
            memory: Some(64 << 20),
            nano_cpus: Some(1_500_000_000),
            ..Limits::default()
        };
        limits.check(&machine()).unwrap();
        let mut resources = json!({ "devices": [] });
        limits.write(&mut resources);
        let expected = json!({
            "devices": [],
            "memory": { "limit": 64 << 20, "swap": 128 << 20 },
            "cpu": { "quota": 150_000, "period": 100_000 },
        });
        assert_eq!(resources, expected);
    }
}
