//! `features`: what this runtime implements, whatever the machine has (runtime-spec features.md).
//!
//! Engines decide by this document what they ask for, so every list is the one that the code itself works by.

use std::collections::BTreeMap;

use serde::Serialize;

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
    potentially_unsafe_config_annotations: &'static [&'static str],
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: &'static [&'static str],
    capabilities: &'static [&'static str],
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: Enabled,
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

const NAMESPACES: &[&str] = &[
    "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
];

/// Annotations of a configuration that change what the runtime does on the host. A name with a dot at its end is a prefix.
const UNSAFE_ANNOTATIONS: &[&str] = &[];

/// What this runtime implements.
pub fn features() -> Features {
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: "1.3.0",
        hooks: HOOKS,
        mount_options: crate::mounts::options::names().collect(),
        linux: Linux {
            namespaces: NAMESPACES,
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
            intel_rdt: Enabled { enabled: false },
            mount_extensions: MountExtensions {
                idmap: Enabled { enabled: true },
            },
            net_devices: Enabled { enabled: false },
        },
        annotations: BTreeMap::from([
            ("org.coracle.version", env!("CARGO_PKG_VERSION")),
            // The key that callers know from runc.
            ("org.opencontainers.runc.checkpoint.enabled", "true"),
        ]),
        potentially_unsafe_config_annotations: UNSAFE_ANNOTATIONS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_specifications_shape() {
        let document = serde_json::to_value(features()).unwrap();
        assert_eq!(document["ociVersionMin"], "1.0.0");
        for list in [
            "/hooks",
            "/mountOptions",
            "/linux/namespaces",
            "/linux/capabilities",
            "/linux/seccomp/actions",
            "/linux/seccomp/archs",
            "/linux/seccomp/knownFlags",
        ] {
            let names = document.pointer(list).and_then(|list| list.as_array());
            assert!(names.is_some_and(|names| !names.is_empty()), "{list}");
        }
        for switch in [
            "/linux/cgroup/systemdUser",
            "/linux/mountExtensions/idmap/enabled",
            "/linux/intelRdt/enabled",
        ] {
            assert!(
                document
                    .pointer(switch)
                    .is_some_and(|switch| switch.is_boolean()),
                "{switch}"
            );
        }
    }
}
