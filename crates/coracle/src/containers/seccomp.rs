//! Seccomp profiles: Docker's default one, and files in Docker's form.

use oci_spec::runtime::{Capabilities, Capability};
use runtime::{Error, Result};
use serde_json::{Value, json};

/// Docker's default profile for a container with these capabilities.
pub(crate) fn default(capabilities: &[String]) -> Result<Value> {
    let known = capabilities
        .iter()
        .filter_map(|name| name.parse::<Capability>().ok());
    let profile = image::defaults::seccomp(&known.collect::<Capabilities>());
    serde_json::to_value(profile)
        .map_err(|error| Error::failed(format!("encode the seccomp profile: {error}")))
}

/// A profile as Docker's `--security-opt seccomp=FILE` takes it, as the runtime does: of rules that only hold with (or without) some
/// capability, architecture or kernel, those that hold here; and the architectures of this machine.
///
/// A profile that is the runtime's already stays as it is.
pub(crate) fn of_profile(profile: &Value, capabilities: &[String]) -> Value {
    let mut profile = profile.clone();
    let Some(fields) = profile.as_object_mut() else {
        return profile;
    };
    if let Some(Value::Array(map)) = fields.remove("archMap") {
        let own = map
            .iter()
            .find(|entry| entry["architecture"] == ARCHITECTURE.1);
        let architectures = own.map(|entry| {
            let others = entry["subArchitectures"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            [vec![entry["architecture"].clone()], others].concat()
        });
        fields.insert(
            "architectures".into(),
            json!(architectures.unwrap_or_default()),
        );
    }
    if let Some(Value::Array(rules)) = fields.get_mut("syscalls") {
        rules.retain(|rule| {
            holds(&rule["includes"], capabilities).unwrap_or(true)
                && !excluded(&rule["excludes"], capabilities)
        });
        for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
            for field in ["includes", "excludes", "comment"] {
                rule.remove(field);
            }
            // Docker's old form has one name for each rule.
            if let Some(name) = rule.remove("name").filter(|name| name.is_string()) {
                rule.entry("names").or_insert(json!([name]));
            }
            if rule.get("args").is_some_and(Value::is_null) {
                rule.remove("args");
            }
        }
    }
    profile
}

/// As Docker calls this machine's, and as seccomp does.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: (&str, &str) = ("amd64", "SCMP_ARCH_X86_64");
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: (&str, &str) = ("arm64", "SCMP_ARCH_AARCH64");

fn texts<'a>(filter: &'a Value, field: &str) -> Vec<&'a str> {
    filter[field]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Whether all that a rule's `includes` ask for is so; `None` when it asks for nothing.
fn holds(filter: &Value, capabilities: &[String]) -> Option<bool> {
    filter.as_object()?;
    let arches = texts(filter, "arches");
    let caps = texts(filter, "caps");
    let kernel = filter["minKernel"].as_str();
    Some(
        (arches.is_empty() || arches.contains(&ARCHITECTURE.0))
            && caps
                .iter()
                .all(|cap| capabilities.iter().any(|own| own == cap))
            && kernel.is_none_or(is_at_least),
    )
}

/// Whether any of what a rule's `excludes` name is so.
fn excluded(filter: &Value, capabilities: &[String]) -> bool {
    texts(filter, "arches").contains(&ARCHITECTURE.0)
        || texts(filter, "caps")
            .iter()
            .any(|cap| capabilities.iter().any(|own| own == cap))
        || filter["minKernel"].as_str().is_some_and(is_at_least)
}

fn is_at_least(wanted: &str) -> bool {
    let number = |text: &str| {
        let mut parts = text
            .split(['.', '-', '+'])
            .map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    number(release.trim()) >= number(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rules_that_hold_are_kept() {
        let rule = |name: &str, includes: Value, excludes: Value| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "includes": includes, "excludes": excludes });
        let docker = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{ "architecture": ARCHITECTURE.1, "subArchitectures": ["SCMP_ARCH_X86"] }],
            "syscalls": [
                rule("read", json!({}), json!({})),
                rule("mount", json!({ "caps": ["CAP_SYS_ADMIN"] }), json!({})),
                rule("chroot", json!({ "caps": ["CAP_SYS_CHROOT"] }), json!({})),
                rule("clone", json!({}), json!({ "caps": ["CAP_SYS_CHROOT"] })),
                rule("s390", json!({ "arches": ["s390x"] }), json!({})),
                rule("ptrace", json!({ "minKernel": "4.8" }), json!({})),
                rule("future", json!({ "minKernel": "99.1" }), json!({})),
            ],
        });
        let ours = of_profile(&docker, &["CAP_SYS_CHROOT".into()]);
        let names: Vec<_> = ours["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| &rule["names"][0])
            .collect();
        assert_eq!(names, ["read", "chroot", "ptrace"]);
        assert_eq!(
            ours["architectures"],
            json!([ARCHITECTURE.1, "SCMP_ARCH_X86"])
        );
        assert!(ours["syscalls"][0].get("includes").is_none() && ours.get("archMap").is_none());
    }
}
