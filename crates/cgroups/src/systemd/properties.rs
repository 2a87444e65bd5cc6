//! Limits as properties of a unit, so that systemd knows of them: what it is not told it takes away again when it next looks at the unit
//! (`systemctl daemon-reload`). They are derived from what goes into the files of a v2 cgroup; what has no property stays there alone.
//!
//! systemd.resource-control(5), org.freedesktop.systemd1(5).

use crate::bits;
use oci_spec::runtime::LinuxResources;

use super::message::Value;
use crate::devices;
use crate::host::{Layout, Version};
use crate::resources::{self, Else, Write};
use crate::{Error, Result};

/// The beginning of an annotation that sets a property of the container's unit.
pub const ANNOTATION: &str = "org.systemd.property.";

/// A property's name and value.
pub(super) type Property = (String, Value);

/// The version of systemd that has learnt a property, or a value of it; `None` where all that this runtime meets have it. For older
/// ones the value stays in the cgroup's file alone.
pub(super) fn since((name, value): &Property) -> Option<u32> {
    match (name.as_str(), value) {
        ("CPUWeight", Value::Uint64(0)) => Some(252),
        ("OOMPolicy" | "MemoryZSwapMax", _) => Some(253),
        _ => None,
    }
}

/// All limits but devices. systemd speaks of limits in the terms of v2 whatever the `layout` is.
///
/// # Errors
/// For what v2 does not have; on v1 there are then no properties.
pub(super) fn limits(wanted: &LinuxResources, layout: Layout) -> Result<Vec<Property>> {
    let in_v2 = |name: &str| !matches!(name, "blkio" | "net_cls" | "net_prio");
    let writes = match resources::plan(wanted, &|name| in_v2(name).then_some(Version::V2)) {
        Err(_) if layout != Layout::V2 => Vec::new(),
        planned => planned?,
    };
    let mut properties = Vec::new();
    for Write {
        file,
        value,
        otherwise,
        ..
    } in &writes
    {
        match otherwise {
            Else::Instead { file, value } => limit(file, value, &mut properties)?,
            _ => limit(file, value, &mut properties)?,
        }
    }
    let mut unified: Vec<_> = wanted.unified().iter().flatten().collect();
    unified.sort_unstable();
    for (file, value) in unified {
        for line in value.lines() {
            limit(file, line, &mut properties)?;
        }
    }
    Ok(properties)
}

/// The properties that say what one line of one file says.
fn limit(file: &str, value: &str, properties: &mut Vec<Property>) -> Result<()> {
    let field = || {
        Error::config(
            format!("linux.resources: {file}"),
            format!("{value:?} is not a valid value"),
        )
    };
    let number = |text: &str| match text.trim() {
        "max" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_| field()),
    };
    let mut set = |name: &str, value: Value| {
        // A later line for the same thing takes the earlier one's place, but for lists, which grow.
        match properties.iter_mut().find(|(known, _)| known == name) {
            Some((_, Value::Array(element, known))) if element.starts_with('(') => {
                if let Value::Array(_, values) = value {
                    known.extend(values);
                }
            }
            Some((_, known)) => *known = value,
            None => properties.push((name.to_owned(), value)),
        }
    };
    match file {
        "pids.max" => set("TasksMax", Value::Uint64(number(value)?)),
        "memory.max" => set("MemoryMax", Value::Uint64(number(value)?)),
        "memory.high" => set("MemoryHigh", Value::Uint64(number(value)?)),
        "memory.low" => set("MemoryLow", Value::Uint64(number(value)?)),
        "memory.min" => set("MemoryMin", Value::Uint64(number(value)?)),
        "memory.swap.max" => set("MemorySwapMax", Value::Uint64(number(value)?)),
        "memory.zswap.max" => set("MemoryZSwapMax", Value::Uint64(number(value)?)),
        "memory.oom.group" => {
            let policy = if value.trim() == "1" {
                "kill"
            } else {
                "continue"
            };
            set("OOMPolicy", Value::text(policy));
        }
        "cpu.weight" => set("CPUWeight", Value::Uint64(number(value)?)),
        // "idle" in unit files.
        "cpu.idle" if value.trim() == "1" => set("CPUWeight", Value::Uint64(0)),
        "cpu.max" => {
            let (quota, period) = value.trim().split_once(' ').unwrap_or((value, "100000"));
            let period = number(period)?;
            set(
                "CPUQuotaPerSecUSec",
                Value::Uint64(per_second(number(quota)?, period)),
            );
            set("CPUQuotaPeriodUSec", Value::Uint64(period));
        }
        "cpuset.cpus" => set("AllowedCPUs", mask(value).ok_or_else(field)?),
        "cpuset.mems" => set("AllowedMemoryNodes", mask(value).ok_or_else(field)?),
        "io.weight" => match value.rsplit_once(' ') {
            None | Some(("default", _)) => {
                let weight = value.trim_start_matches("default ");
                set("IOWeight", Value::Uint64(number(weight)?));
            }
            Some((device, weight)) => set("IODeviceWeight", of_device(device, number(weight)?)),
        },
        "io.max" => {
            let (device, rates) = value.split_once(' ').ok_or_else(field)?;
            for rate in rates.split_whitespace() {
                let (key, rate) = rate.split_once('=').ok_or_else(field)?;
                let name = match key {
                    "rbps" => "IOReadBandwidthMax",
                    "wbps" => "IOWriteBandwidthMax",
                    "riops" => "IOReadIOPSMax",
                    "wiops" => "IOWriteIOPSMax",
                    _ => continue,
                };
                set(name, of_device(device, number(rate)?));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Microseconds of CPU time per second, rounded up to the whole percents that systemd counts in.
fn per_second(quota: u64, period: u64) -> u64 {
    match (quota, period) {
        (u64::MAX, _) | (_, 0) => u64::MAX,
        _ => {
            let exact = u128::from(quota) * 1_000_000 / u128::from(period);
            u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(u64::MAX)
        }
    }
}

fn of_device(numbers: &str, value: u64) -> Value {
    let path = Value::String(format!("/dev/block/{numbers}"));
    Value::Array(
        "(st)".into(),
        vec![Value::Struct(vec![path, Value::Uint64(value)])],
    )
}

/// A list of CPUs or memory nodes.
fn mask(list: &str) -> Option<Value> {
    let bytes = bits(list)?.into_iter().map(Value::Byte).collect();
    Some(Value::Array("y".into(), bytes))
}

/// `DevicePolicy` and `DeviceAllow`: at least what the rules allow. On v2 both systemd's program and ours must agree to an access, and
/// ours knows the rules exactly; on v1 systemd writes the list into the very files that ours went to.
pub(super) fn devices(wanted: &LinuxResources) -> Result<Vec<Property>> {
    let rules = wanted.devices().as_deref().unwrap_or_default();
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let (policy, allowed) = match devices::allowed(rules)? {
        None => ("auto", Vec::new()),
        Some(allowed) => ("strict", allowed),
    };
    let allowed = allowed
        .into_iter()
        .map(|(device, access)| Value::Struct(vec![Value::String(device), Value::String(access)]))
        .collect();
    Ok(vec![
        ("DevicePolicy".into(), Value::text(policy)),
        ("DeviceAllow".into(), Value::Array("(ss)".into(), allowed)),
    ])
}

/// `org.systemd.property.NAME` annotations. A name that ends in `Sec` is given in seconds and becomes `USec`, as in unit files.
pub(super) fn annotated<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    for (annotation, text) in annotations {
        let Some(name) = annotation.strip_prefix(ANNOTATION) else {
            continue;
        };
        let bad = |problem: String| Error::config(format!("annotations[{annotation:?}]"), problem);
        // At least three letters: that excludes the accidental, as in runc.
        let letters = name.bytes().all(|byte| byte.is_ascii_alphabetic());
        if name.len() < 3 || !letters || !name.starts_with(|c: char| c.is_ascii_uppercase()) {
            return Err(bad(format!("{name:?} is not the name of a unit property")));
        }
        let value = super::gvariant::parse(text).map_err(bad)?;
        properties.push(match name.strip_suffix("Sec") {
            Some(stem) if !stem.ends_with('U') => (
                format!("{stem}USec"),
                microseconds(&value)
                    .ok_or_else(|| bad(format!("{text:?} is not a number of seconds")))?,
            ),
            _ => (name.to_owned(), value),
        });
    }
    properties.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(properties)
}

fn microseconds(seconds: &Value) -> Option<Value> {
    let whole = match *seconds {
        Value::Double(seconds) if seconds >= 0.0 => {
            return Some(Value::Uint64((seconds * 1e6) as u64));
        }
        Value::Byte(seconds) => u64::from(seconds),
        Value::Uint16(seconds) => u64::from(seconds),
        Value::Uint32(seconds) => u64::from(seconds),
        Value::Uint64(seconds) => seconds,
        Value::Int16(seconds) => u64::try_from(seconds).ok()?,
        Value::Int32(seconds) => u64::try_from(seconds).ok()?,
        Value::Int64(seconds) => u64::try_from(seconds).ok()?,
        _ => return None,
    };
    whole.checked_mul(1_000_000).map(Value::Uint64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Vec<String> {
        let wanted: LinuxResources = serde_json::from_str(json).unwrap();
        let mut all = limits(&wanted, Layout::V2).unwrap();
        all.extend(devices(&wanted).unwrap());
        all.iter()
            .map(|(name, value)| format!("{name}={}", plain(value)))
            .collect()
    }

    fn plain(value: &Value) -> String {
        let list = |values: &[Value]| values.iter().map(plain).collect::<Vec<_>>().join(" ");
        match value {
            Value::Uint64(u64::MAX) => "infinity".into(),
            Value::Uint64(number) => number.to_string(),
            Value::Byte(byte) => format!("{byte:02x}"),
            Value::String(text) => text.clone(),
            Value::Array(_, values) => format!("[{}]", list(values)),
            Value::Struct(values) => format!("({})", list(values)),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn every_limit_has_its_property() {
        let json = r#"{"memory":{"limit":1000,"swap":3000,"reservation":500},"pids":{"limit":7},
            "cpu":{"shares":1024,"quota":33333,"period":100000,"cpus":"0-2,9","mems":"0"},
            "blockIO":{"weight":10,"weightDevice":[{"major":8,"minor":0,"weight":1000}],
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5},{"major":8,"minor":1,"rate":6}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":7}]}}"#;
        assert_eq!(
            of(json),
            [
                "TasksMax=7",
                "MemorySwapMax=2000",
                "MemoryMax=1000",
                "MemoryLow=500",
                "IOWeight=1",
                "IODeviceWeight=[(/dev/block/8:0 10000)]",
                "IOReadBandwidthMax=[(/dev/block/8:0 5) (/dev/block/8:1 6)]",
                "IOWriteIOPSMax=[(/dev/block/8:0 7)]",
                "CPUWeight=100",
                "CPUQuotaPerSecUSec=340000",
                "CPUQuotaPeriodUSec=100000",
                "AllowedCPUs=[07 02]",
                "AllowedMemoryNodes=[01]",
            ]
        );
    }

    #[test]
    fn unified_files_are_properties_too() {
        let json = r#"{"unified":{"memory.high":"max","cpu.max":"50000","cpu.idle":"1","pids.max":"5",
            "io.max":"8:0 rbps=1 wbps=max","memory.oom.group":"1","io.weight":"default 50"}}"#;
        assert_eq!(
            of(json),
            [
                "CPUWeight=0",
                "CPUQuotaPerSecUSec=500000",
                "CPUQuotaPeriodUSec=100000",
                "IOReadBandwidthMax=[(/dev/block/8:0 1)]",
                "IOWriteBandwidthMax=[(/dev/block/8:0 infinity)]",
                "IOWeight=50",
                "MemoryHigh=infinity",
                "OOMPolicy=kill",
                "TasksMax=5",
            ]
        );
        let bad: LinuxResources = serde_json::from_str(r#"{"unified":{"pids.max":"x"}}"#).unwrap();
        let error = limits(&bad, Layout::V2).unwrap_err().to_string();
        assert_eq!(
            error,
            "linux.resources: pids.max: \"x\" is not a valid value"
        );
    }

    #[test]
    fn what_v2_lacks_is_an_error_there() {
        let wanted = r#"{"memory":{"limit":5},"cpu":{"realtimeRuntime":5}}"#;
        let wanted: LinuxResources = serde_json::from_str(wanted).unwrap();
        assert!(limits(&wanted, Layout::V2).is_err());
        assert!(limits(&wanted, Layout::V1).unwrap().is_empty());
    }

    #[test]
    fn no_limit_is_no_property() {
        assert!(of("{}").is_empty());
        assert_eq!(
            of(r#"{"cpu":{"quota":-1},"memory":{"limit":-1},"pids":{"limit":-1}}"#),
            [
                "TasksMax=infinity",
                "MemorySwapMax=infinity",
                "MemoryMax=infinity",
                "CPUQuotaPerSecUSec=infinity",
                "CPUQuotaPeriodUSec=100000",
            ]
        );
    }

    #[test]
    fn devices_are_at_least_what_is_allowed() {
        let rule = |allow: bool, rest: &str| format!(r#"{{"allow":{allow},{rest}}}"#);
        let json = |rules: &[String]| format!(r#"{{"devices":[{}]}}"#, rules.join(","));
        let everything = r#""access":"rwm""#;
        let some = [
            rule(true, everything),
            rule(false, everything),
            rule(true, r#""type":"c","major":1,"minor":3,"access":"rw""#),
            rule(true, r#""type":"c","major":136,"access":"rwm""#),
            rule(true, r#""type":"b","access":"m""#),
            rule(true, r#""major":9,"minor":1,"access":"r""#),
            rule(true, r#""type":"c","minor":1,"access":"r""#),
            rule(false, r#""type":"c","major":1,"minor":3,"access":"w""#),
        ];
        assert_eq!(
            of(&json(&some)),
            [
                "DevicePolicy=strict",
                "DeviceAllow=[(/dev/char/1:3 rw) (char-136 rwm) (block-* m) (/dev/block/9:1 r) (/dev/char/9:1 r) (char-* r)]",
            ]
        );
        let all = [
            rule(false, everything),
            rule(true, everything),
            rule(false, r#""type":"c","major":1,"access":"r""#),
        ];
        assert_eq!(of(&json(&all)), ["DevicePolicy=auto", "DeviceAllow=[]"]);
    }

    #[test]
    fn annotations() {
        let some = [
            ("org.systemd.property.TimeoutStopUSec", "uint64 5"),
            ("org.systemd.property.TimeoutStopSec", "2.5"),
            ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
            ("other", "x"),
        ];
        let properties = annotated(some).unwrap();
        let texts: Vec<_> = properties
            .iter()
            .map(|(name, value)| format!("{name}={}", plain(value)))
            .collect();
        assert_eq!(
            texts,
            [
                "CollectMode=inactive-or-failed",
                "TimeoutStopUSec=5",
                "TimeoutStopUSec=2500000"
            ]
        );
        for (name, value) in [
            ("X", "1"),
            ("a-b", "1"),
            ("lower", "1"),
            ("After", "[]"),
            ("WaitSec", "'x'"),
        ] {
            let annotation = format!("org.systemd.property.{name}");
            let error = annotated([(annotation.as_str(), value)])
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(&format!("annotations[\"{annotation}\"]: ")),
                "{error}"
            );
        }
    }
}
