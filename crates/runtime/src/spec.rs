//! `spec`: a configuration to start from.

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{getegid, geteuid};

/// What both kinds of configuration have in common, in the order of the specification's own structures. A word between `@`
/// stands for what differs.
const TEMPLATE: &str = r#"{
	"ociVersion": "1.3.0",
	"process": {
		"terminal": true,
		"user": {
			"uid": 0,
			"gid": 0
		},
		"args": [
			"sh"
		],
		"env": [
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"TERM=xterm"
		],
		"cwd": "/",
		"capabilities": {
			"bounding": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"effective": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"permitted": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			]
		},
		"rlimits": [
			{
				"type": "RLIMIT_NOFILE",
				"hard": 1024,
				"soft": 1024
			}
		],
		"noNewPrivileges": true
	},
	"root": {
		"path": "rootfs",
		"readonly": true
	},
	"hostname": "coracle",
	"mounts": [
		{
			"destination": "/proc",
			"type": "proc",
			"source": "proc"
		},
		{
			"destination": "/dev",
			"type": "tmpfs",
			"source": "tmpfs",
			"options": [
				"nosuid",
				"strictatime",
				"mode=755",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/pts",
			"type": "devpts",
			"source": "devpts",
			"options": [
				"nosuid",
				"noexec",
				"newinstance",
				"ptmxmode=0666",
				"mode=0620"@terminalGroup@
			]
		},
		{
			"destination": "/dev/shm",
			"type": "tmpfs",
			"source": "shm",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"mode=1777",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/mqueue",
			"type": "mqueue",
			"source": "mqueue",
			"options": [
				"nosuid",
				"noexec",
				"nodev"
			]
		},
		{
			"destination": "/sys",
			@sys@
				"nosuid",
				"noexec",
				"nodev",
				"ro"
			]
		},
		{
			"destination": "/sys/fs/cgroup",
			"type": "cgroup",
			"source": "cgroup",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"relatime",
				"ro"
			]
		}
	],
	"linux": {
		@idsOrResources@
		"namespaces": [
			@namespaces@
		],
		"maskedPaths": [
			"/proc/acpi",
			"/proc/asound",
			"/proc/kcore",
			"/proc/keys",
			"/proc/latency_stats",
			"/proc/timer_list",
			"/proc/timer_stats",
			"/proc/sched_debug",
			"/sys/firmware",
			"/proc/scsi",
			"/sys/devices/virtual/tpm"
		],
		"readonlyPaths": [
			"/proc/bus",
			"/proc/fs",
			"/proc/irq",
			"/proc/sys",
			"/proc/sysrq-trigger"
		]
	}
}"#;

/// A sysfs belongs to a network namespace, so only its owner can mount it.
const SYS: &str = r#""type": "sysfs",
			"source": "sysfs",
			"options": ["#;

/// Who may not mount a sysfs sees the host's.
const SYS_ROOTLESS: &str = r#""type": "none",
			"source": "/sys",
			"options": [
				"rbind","#;

const RESOURCES: &str = r#""resources": {
			"devices": [
				{
					"allow": false,
					"access": "rwm"
				}
			]
		},"#;

/// The text of a new bundle's config.json, the same as runc's apart from the host name. `rootless` is for a container of the
/// calling user: it maps the caller's ids and asks for neither a network nor cgroup limits.
pub fn spec(rootless: bool) -> String {
    let unified =
        statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let ids = rootless.then(|| (geteuid().as_raw(), getegid().as_raw()));
    text(ids, unified)
}

/// `unified` tells that the machine has cgroup v2, where a container gets a cgroup namespace.
fn text(rootless_ids: Option<(u32, u32)>, unified: bool) -> String {
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if unified {
        namespaces.push("cgroup");
    }
    let (terminal_group, sys, ids_or_resources) = match rootless_ids {
        None => (",\n\t\t\t\t\"gid=5\"", SYS, RESOURCES.to_owned()),
        Some((uid, gid)) => {
            namespaces.retain(|namespace| *namespace != "network");
            namespaces.push("user");
            let ids = [mapping("uidMappings", uid), mapping("gidMappings", gid)];
            ("", SYS_ROOTLESS, ids.join("\n\t\t"))
        }
    };
    let namespaces: Vec<_> = namespaces
        .iter()
        .map(|namespace| format!("{{\n\t\t\t\t\"type\": \"{namespace}\"\n\t\t\t}}"))
        .collect();
    TEMPLATE
        .replace("@terminalGroup@", terminal_group)
        .replace("@sys@", sys)
        .replace("@idsOrResources@", &ids_or_resources)
        .replace("@namespaces@", &namespaces.join(",\n\t\t\t"))
}

fn mapping(name: &str, host_id: u32) -> String {
    format!(
        r#""{name}": [
			{{
				"containerID": 0,
				"hostID": {host_id},
				"size": 1
			}}
		],"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxNamespaceType, Spec};

    #[test]
    fn each_kind_is_a_valid_configuration() {
        for ids in [None, Some((1000, 100))] {
            for unified in [false, true] {
                let text = text(ids, unified);
                assert!(!text.contains('@'), "{text}");
                let spec: Spec = serde_json::from_str(&text).unwrap();
                let linux = spec.linux().as_ref().unwrap();
                let namespaces: Vec<_> = linux
                    .namespaces()
                    .as_ref()
                    .unwrap()
                    .iter()
                    .map(|namespace| namespace.typ())
                    .collect();
                assert_eq!(namespaces.contains(&LinuxNamespaceType::Cgroup), unified);
                assert_eq!(
                    namespaces.contains(&LinuxNamespaceType::User),
                    ids.is_some()
                );
                assert_eq!(
                    namespaces.contains(&LinuxNamespaceType::Network),
                    ids.is_none()
                );
                assert_eq!(linux.resources().is_some(), ids.is_none());
            }
        }
    }

    #[test]
    fn a_rootless_one_maps_the_callers_ids() {
        let spec: Spec = serde_json::from_str(&text(Some((1000, 100)), false)).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.uid_mappings().as_ref().unwrap()[0].host_id(), 1000);
        assert_eq!(linux.gid_mappings().as_ref().unwrap()[0].host_id(), 100);
    }
}
