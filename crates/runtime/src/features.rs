//! `features`: what this runtime implements, whatever the machine has (runtime-spec features.md).
//!
//! Engines decide by this document what they ask for, so every list is the one that the code itself works by.

use std::collections::BTreeMap;

use oci_spec::runtime::{MemoryPolicyFlagType, MemoryPolicyModeType};
use serde::Serialize;

use crate::namespaces::KINDS;
use crate::{annotations, memory_policy};

/// The features document. Fields and their order are the specification's.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: Vec<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<&'static str>,
    capabilities: &'static [&'static str],
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: &'static [&'static str],
    operators: &'static [&'static str],
    archs: &'static [&'static str],
    known_flags: &'static [&'static str],
    supported_flags: &'static [&'static str],
}

#[derive(Clone, Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Clone, Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Clone, Debug, Serialize)]
struct MemoryPolicy {
    modes: &'static [MemoryPolicyModeType],
    flags: &'static [MemoryPolicyFlagType],
}

#[derive(Clone, Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

const HOOKS: &[&str] = &[
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// Annotations of a configuration that change what the runtime does on the host. A name with a dot at its end is a prefix.
fn unsafe_annotations() -> Vec<&'static str> {
    [&[cgroups::PROPERTY_ANNOTATION][..], &annotations::ALL].concat()
}

fn namespaces() -> Vec<&'static str> {
    let mut names: Vec<_> = KINDS.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    names
}

/// What this runtime implements.
pub fn features() -> Features {
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: "1.3.0",
        hooks: HOOKS,
        mount_options: crate::mounts::options::names().collect(),
        linux: Linux {
            namespaces: namespaces(),
            capabilities: &crate::capabilities::NAMES,
            cgroup: Cgroup {
                v1: true,
                v2: true,
                systemd: true,
                systemd_user: true,
                rdma: true,
            },
            seccomp: Seccomp {
                enabled: true,
                actions: seccomp::actions(),
                operators: seccomp::operators(),
                archs: seccomp::architectures(),
                known_flags: seccomp::flags(),
                supported_flags: seccomp::flags(),
            },
            apparmor: Enabled { enabled: true },
            selinux: Enabled { enabled: true },
            intel_rdt: IntelRdt {
                enabled: true,
                schemata: true,
                monitoring: true,
            },
            memory_policy: MemoryPolicy {
                modes: &memory_policy::MODES,
                flags: &memory_policy::FLAGS,
            },
            mount_extensions: MountExtensions {
                idmap: Enabled { enabled: true },
            },
            net_devices: Enabled { enabled: true },
        },
        annotations: BTreeMap::from([
            ("org.coracle.version", env!("CARGO_PKG_VERSION")),
            // The key that callers know from runc.
            ("org.opencontainers.runc.checkpoint.enabled", "true"),
        ]),
        potentially_unsafe_config_annotations: unsafe_annotations(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{parse_process, parse_spec};
    use serde_json::{Value, json};

    fn document() -> Value {
        serde_json::to_value(features()).unwrap()
    }

    fn list(pointer: &str) -> Vec<String> {
        let document = document();
        let list = document.pointer(pointer).and_then(Value::as_array);
        let list = list.unwrap_or_else(|| panic!("{pointer} is a list"));
        assert!(!list.is_empty(), "{pointer}");
        list.iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    /// What the code makes of a configuration with this one section.
    fn accepts(pointer: &str, value: Value) -> bool {
        let mut config = json!({ "ociVersion": "1.3.0", "root": { "path": "/" },
            "process": { "cwd": "/", "args": ["sh"] },
            "linux": { "namespaces": [{ "type": "mount" }, { "type": "network" }] } });
        let (object, name) = pointer.rsplit_once('/').unwrap();
        let object = config
            .pointer_mut(object)
            .and_then(Value::as_object_mut)
            .unwrap();
        object.insert(name.to_owned(), value);
        let spec = parse_spec(config.to_string().as_bytes());
        spec.is_ok_and(|spec| crate::plan::Plan::new(&spec, std::path::Path::new("/")).is_ok())
    }

    #[test]
    fn the_document_is_the_specifications() {
        let parsed: oci_spec::runtime::Features = serde_json::from_value(document()).unwrap();
        let again = serde_json::to_value(&parsed).unwrap();
        let linux = |document: &Value| document["linux"].as_object().unwrap().len();
        assert_eq!(
            linux(&again),
            linux(&document()),
            "no field that the specification does not have"
        );
        assert_eq!(document()["ociVersionMin"], "1.0.0");
        assert_eq!(document()["ociVersionMax"], "1.3.0");
    }

    #[test]
    fn every_name_is_one_that_the_code_takes() {
        for name in list("/hooks") {
            let hook = json!({ "ociVersion": "1.3.0", "hooks": { name.as_str(): [{ "path": "/bin/x" }] } });
            let spec = parse_spec(hook.to_string().as_bytes()).unwrap();
            let hooks = serde_json::to_value(spec.hooks()).unwrap();
            assert!(hooks[&name].is_array(), "{name}");
        }
        for name in list("/linux/namespaces") {
            let all = json!([{ "type": "mount" }, { "type": name }]);
            let namespaces = if name == "mount" {
                json!([{ "type": name }])
            } else {
                all
            };
            assert!(
                name == "user" || accepts("/linux/namespaces", namespaces),
                "{name}"
            );
        }
        for option in list("/mountOptions") {
            let mount = json!([{ "destination": "/x", "type": "bind", "source": "/", "options": ["rbind", option] }]);
            assert!(
                matches!(option.as_str(), "idmap" | "ridmap" | "tmpcopyup")
                    || accepts("/mounts", mount),
                "{option}"
            );
        }
        for name in list("/linux/capabilities") {
            let process = json!({ "cwd": "/", "capabilities": { "bounding": [name] } });
            let process = parse_process(process.to_string().as_bytes()).unwrap();
            let sets = crate::capabilities::Sets::new(process.capabilities().as_ref());
            assert_ne!(sets, crate::capabilities::Sets::new(None), "{name}");
        }
        for mode in list("/linux/memoryPolicy/modes") {
            let alone = json!({ "mode": mode });
            let with_nodes = json!({ "mode": mode, "nodes": "0" });
            assert!(
                accepts("/linux/memoryPolicy", alone) || accepts("/linux/memoryPolicy", with_nodes),
                "{mode}"
            );
        }
        for flag in list("/linux/memoryPolicy/flags") {
            let policy = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": [flag] });
            assert!(accepts("/linux/memoryPolicy", policy), "{flag}");
        }
    }

    #[test]
    fn every_name_of_seccomp_is_one_that_the_compiler_takes() {
        for action in list("/linux/seccomp/actions") {
            let section = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x",
                "syscalls": [{ "names": ["mkdir"], "action": action }] });
            assert!(accepts("/linux/seccomp", section), "{action}");
        }
        for op in list("/linux/seccomp/operators") {
            let section = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir"],
                "action": "SCMP_ACT_ERRNO", "args": [{ "index": 0, "value": 1, "valueTwo": 1, "op": op }] }] });
            assert!(accepts("/linux/seccomp", section), "{op}");
        }
        for arch in list("/linux/seccomp/archs") {
            let section = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": [arch] });
            assert!(accepts("/linux/seccomp", section), "{arch}");
        }
        for flag in list("/linux/seccomp/knownFlags") {
            let section = json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": [flag] });
            assert!(accepts("/linux/seccomp", section), "{flag}");
        }
    }

    #[test]
    fn what_is_switched_on_is_taken() {
        let on = |pointer: &str| document().pointer(pointer) == Some(&json!(true));
        assert_eq!(
            on("/linux/netDevices/enabled"),
            accepts("/linux/netDevices", json!({ "eth0": {} }))
        );
        assert_eq!(
            on("/linux/intelRdt/enabled"),
            accepts("/linux/intelRdt", json!({ "closID": "x" }))
        );
        assert_eq!(
            on("/linux/intelRdt/schemata"),
            accepts("/linux/intelRdt", json!({ "schemata": ["L3:0=1"] }))
        );
        assert_eq!(
            on("/linux/intelRdt/monitoring"),
            accepts("/linux/intelRdt", json!({ "enableMonitoring": true }))
        );
        let ids = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
        let mount = json!([{ "destination": "/x", "type": "bind", "source": "/", "options": ["idmap"], "uidMappings": ids, "gidMappings": ids }]);
        assert_eq!(
            on("/linux/mountExtensions/idmap/enabled"),
            accepts("/mounts", mount)
        );
    }
}
