//! From a configuration to what will be done: everything is checked and resolved before anything exists. Apart from looking the bundle's
//! paths up it is pure, so most of the rules are tested without root.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Hooks, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxPersonalityDomain,
    LinuxResources, Spec,
};

use crate::devices::{self, Device};
use crate::idmap::Mappings;
use crate::lsm::MountLabel;
use crate::memory_policy::MemoryPolicy;
use crate::mounts::Mount;
use crate::namespaces::{CLONE_NEWTIME, Namespaces};
use crate::net_devices::NetDevice;
use crate::process::Process;
use crate::rootfs::Propagation;
use crate::{Error, Result, annotations, config, intel_rdt, net_devices, rootfs};

/// What a container is going to be.
pub(crate) struct Plan {
    /// Absolute and resolved.
    pub rootfs: PathBuf,
    pub readonly: bool,
    pub propagation: Option<Propagation>,
    pub namespaces: Namespaces,
    /// Devices that move into its network namespace.
    pub net_devices: Vec<NetDevice>,
    /// Lines for /proc/self/timens_offsets.
    pub time_offsets: Option<String>,
    /// Of a new user namespace.
    pub mappings: Option<Mappings>,
    pub mounts: Vec<Mount>,
    /// Of the file systems of `mounts` and `masked`.
    pub mount_label: Option<MountLabel>,
    /// Device nodes to make; none where /dev is the host's.
    pub devices: Option<Vec<Device>>,
    pub masked: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// Files below /proc/sys, and what goes into them.
    pub sysctls: Vec<(String, String)>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub personality: Option<u64>,
    pub memory_policy: Option<MemoryPolicy>,
    pub intel_rdt: Option<intel_rdt::Plan>,
    pub process: Process,
    /// Whether there is a [`filter`], which is compiled while the container's process is at work.
    pub is_filtered: bool,
    pub hooks: Hooks,
    /// `linux.cgroupsPath`, unless it is empty.
    pub cgroup_path: Option<String>,
    /// With the devices that every container may use.
    pub resources: LinuxResources,
}

impl Plan {
    /// Checks the whole configuration. `bundle` is absolute.
    pub(crate) fn new(spec: &Spec, bundle: &Path) -> Result<Self> {
        check_version(spec.version())?;
        let root = spec
            .root()
            .as_ref()
            .ok_or_else(|| Error::invalid("root must be specified"))?;
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| Error::invalid("process property must not be empty"))?;
        let linux = config::linux(spec);
        let namespaces = Namespaces::of(&linux)?;
        if !namespaces.is_private(libc::CLONE_NEWNS) {
            return Err(Error::invalid(
                "linux.namespaces: a container needs a mount namespace of its own",
            ));
        }
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        let mut mounts: Vec<Mount> = mounts
            .iter()
            .enumerate()
            .map(|(index, mount)| {
                let user_namespace = namespaces.is_private(libc::CLONE_NEWUSER);
                Mount::new(index, mount, bundle, user_namespace)
            })
            .collect::<Result<_>>()?;
        let mount_label = MountLabel::new(
            linux.mount_label().as_deref(),
            annotations::mount_context_type(spec),
        )?;
        if let Some(label) = &mount_label {
            mounts.iter_mut().for_each(|mount| mount.set_label(label));
        }
        // With the host's /dev there is nothing to make, and it is not ours to change.
        let own_dev = !mounts
            .iter()
            .any(|mount| mount.is_bind() && mount.is_at("/dev"));
        let devices = own_dev
            .then(|| devices::with_defaults(linux.devices().as_deref().unwrap_or_default()))
            .transpose()?;
        let mut process = Process::new(process)?;
        process.keeps_groups = annotations::keeps_groups(spec);
        process.labels.check()?;
        Ok(Plan {
            rootfs: rootfs::resolve(bundle, root.path())?,
            readonly: root.readonly().unwrap_or(false),
            propagation: propagation(linux.rootfs_propagation().as_deref())?,
            net_devices: net_devices::planned(&linux, &namespaces)?,
            time_offsets: time_offsets(&linux, &namespaces)?,
            mappings: mappings(&linux, &namespaces)?,
            mounts,
            mount_label,
            devices,
            masked: linux.masked_paths().clone().unwrap_or_default(),
            readonly_paths: linux.readonly_paths().clone().unwrap_or_default(),
            sysctls: sysctls(&linux, &namespaces, spec.hostname().is_some())?,
            hostname: uts_name("hostname", spec.hostname(), &namespaces)?,
            domainname: uts_name("domainname", spec.domainname(), &namespaces)?,
            personality: linux.personality().as_ref().map(personality).transpose()?,
            memory_policy: memory_policy(&linux)?,
            intel_rdt: linux
                .intel_rdt()
                .as_ref()
                .map(intel_rdt::Plan::new)
                .transpose()?,
            process,
            is_filtered: linux.seccomp().is_some(),
            hooks: spec.hooks().clone().unwrap_or_default(),
            cgroup_path: linux
                .cgroups_path()
                .as_ref()
                .filter(|path| !path.as_os_str().is_empty())
                .map(|path| path.to_string_lossy().into_owned()),
            resources: resources(linux.resources().as_ref()),
            namespaces,
        })
    }

    /// The user, by the host's number, who gets the container's cgroup: runtime-spec, config-linux.md, "Cgroup ownership".
    pub(crate) fn cgroup_owner(&self) -> Option<u32> {
        let delegated = self.namespaces.is_new(libc::CLONE_NEWCGROUP)
            && self.mounts.iter().any(Mount::is_writable_cgroup);
        match &self.mappings {
            _ if !delegated => None,
            Some(mappings) => mappings.host_uid(self.process.uid),
            // The maps of a user namespace that is only joined are not ours to know.
            None if self.namespaces.is_private(libc::CLONE_NEWUSER) => None,
            None => Some(self.process.uid),
        }
    }

    /// Whether hooks want to see the container's mounts below the bundle's own path, as createRuntime and createContainer do: the root is
    /// then mounted there, and becomes the root only after them.
    pub(crate) fn has_early_hooks(&self) -> bool {
        #[allow(
            deprecated,
            reason = "prestart hooks are deprecated, and used by every Docker"
        )]
        [
            self.hooks.prestart(),
            self.hooks.create_runtime(),
            self.hooks.create_container(),
        ]
        .into_iter()
        .any(|hooks| hooks.as_ref().is_some_and(|hooks| !hooks.is_empty()))
    }
}

/// The domain of personality(2). The specification has no flags.
pub(crate) fn personality(configured: &oci_spec::runtime::LinuxPersonality) -> Result<u64> {
    if let Some(flag) = configured.flags().iter().flatten().next() {
        return Err(Error::invalid(format!(
            "linux.personality.flags[0]: unknown flag {flag:?}"
        )));
    }
    Ok(match configured.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

pub(crate) fn memory_policy(linux: &oci_spec::runtime::Linux) -> Result<Option<MemoryPolicy>> {
    let configured = linux.memory_policy().as_ref();
    configured.map(MemoryPolicy::new).transpose()
}

/// The filter of the `linux.seccomp` section, if there is one.
pub(crate) fn filter(spec: &Spec) -> Result<Option<seccomp::Program>> {
    let Some(section) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref())
    else {
        return Ok(None);
    };
    let program = seccomp::compile(section).map_err(|error| Error::invalid(error.to_string()))?;
    let listener = section.listener_path().as_ref();
    if program.notify && listener.is_none_or(|path| path.as_os_str().is_empty()) {
        return Err(Error::invalid(
            "linux.seccomp.listenerPath: seccomp listenerPath is not set, and SCMP_ACT_NOTIFY needs it",
        ));
    }
    match program.skipped.first() {
        Some(name) if annotations::fails_on_unknown_syscalls(spec) => Err(Error::invalid(format!(
            "linux.seccomp.syscalls: unknown system call {name:?}"
        ))),
        _ => Ok(Some(program)),
    }
}

fn check_version(version: &str) -> Result<()> {
    let numbers: Vec<_> = version
        .split(['.', '-', '+'])
        .map(str::parse::<u32>)
        .collect();
    match numbers[..] {
        [Ok(1), Ok(_), Ok(_), ..] => Ok(()),
        _ => Err(Error::invalid(format!(
            "ociVersion: unsupported version {version:?} (this runtime implements 1.0 to 1.3)"
        ))),
    }
}

fn propagation(name: Option<&str>) -> Result<Option<Propagation>> {
    match name {
        None | Some("") => Ok(None),
        Some(name) => match Propagation::parse(name) {
            Some(propagation) => Ok(Some(propagation)),
            None => Err(Error::invalid(format!(
                "linux.rootfsPropagation: unknown propagation {name:?}"
            ))),
        },
    }
}

fn mappings(linux: &oci_spec::runtime::Linux, namespaces: &Namespaces) -> Result<Option<Mappings>> {
    let (uids, gids) = (
        linux.uid_mappings().as_deref(),
        linux.gid_mappings().as_deref(),
    );
    if namespaces.is_new(libc::CLONE_NEWUSER) {
        return Mappings::new(uids, gids).map(Some);
    }
    let given = [uids, gids]
        .into_iter()
        .flatten()
        .any(|mappings| !mappings.is_empty());
    match given && !namespaces.is_private(libc::CLONE_NEWUSER) {
        true => Err(Error::invalid(
            "linux.uidMappings: user namespace mappings specified, but USER namespace isn't enabled in the config",
        )),
        false => Ok(None),
    }
}

fn time_offsets(
    linux: &oci_spec::runtime::Linux,
    namespaces: &Namespaces,
) -> Result<Option<String>> {
    let Some(offsets) = linux
        .time_offsets()
        .as_ref()
        .filter(|offsets| !offsets.is_empty())
    else {
        return Ok(None);
    };
    if !namespaces.is_new(CLONE_NEWTIME) {
        return Err(Error::invalid(
            "linux.timeOffsets: time namespace is not enabled, but offsets are specified",
        ));
    }
    let mut lines = String::new();
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::invalid(format!(
                "linux.timeOffsets: unknown clock {clock:?}"
            )));
        }
        lines += &format!(
            "{clock} {} {}\n",
            offset.secs().unwrap_or(0),
            offset.nanosecs().unwrap_or(0)
        );
    }
    Ok(Some(lines))
}

fn uts_name(field: &str, name: &Option<String>, namespaces: &Namespaces) -> Result<Option<String>> {
    match name.as_deref() {
        None | Some("") => Ok(None),
        Some(_) if !namespaces.is_private(libc::CLONE_NEWUTS) => Err(Error::invalid(format!(
            "{field}: unable to set {field} without a private UTS namespace"
        ))),
        Some(name) => Ok(Some(name.to_owned())),
    }
}

/// Only sysctls that belong to a namespace of the container's own (runc's rule).
fn sysctls(
    linux: &oci_spec::runtime::Linux,
    namespaces: &Namespaces,
    has_hostname: bool,
) -> Result<Vec<(String, String)>> {
    const IPC: [&str; 8] = [
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
    ];
    let check = |(name, value): (&String, &String)| {
        // Both `net.ipv4.ip_forward` and `net/ipv4/conf/eth0.100/forwarding` are written (sysctl(8)).
        let dots_first = name
            .find(['.', '/'])
            .is_some_and(|at| name.as_bytes()[at] == b'.');
        let swap = |c: char| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        };
        let path = if dots_first {
            name.chars().map(swap).collect()
        } else {
            name.clone()
        };
        let ipc = path
            .strip_prefix("kernel/")
            .is_some_and(|name| IPC.contains(&name))
            || path.starts_with("fs/mqueue/");
        let refused = |text: &str| Err(Error::invalid(format!("linux.sysctl.{name}: {text}")));
        // `net/../kernel/core_pattern` is the host's.
        if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return refused("is not the name of a kernel parameter");
        }
        let needed = match path.as_str() {
            _ if ipc => libc::CLONE_NEWIPC,
            "kernel/domainname" => libc::CLONE_NEWUTS,
            "kernel/hostname" if has_hostname => {
                return refused("not allowed as it conflicts with the OCI \"hostname\" field");
            }
            "kernel/hostname" => libc::CLONE_NEWUTS,
            path if path.starts_with("net/") => libc::CLONE_NEWNET,
            path if path.starts_with("user/") => libc::CLONE_NEWUSER,
            _ => return refused("is not in a separate kernel namespace"),
        };
        if !namespaces.is_private(needed) {
            let kind = crate::namespaces::name(needed);
            return refused(&format!(
                "not allowed in the host's {kind} namespace: the container needs one of its own"
            ));
        }
        Ok((format!("sys/{path}"), value.clone()))
    };
    linux.sysctl().iter().flatten().map(check).collect()
}

/// The configured limits; the device rules end with what every container may use (runc's list).
fn resources(configured: Option<&LinuxResources>) -> LinuxResources {
    let mut resources = configured.cloned().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    rules.extend(default_device_rules());
    resources.set_devices(Some(rules));
    resources
}

fn default_device_rules() -> impl Iterator<Item = LinuxDeviceCgroup> {
    use LinuxDeviceType::{B, C};
    // Any node may be made (what it opens is another matter); the default devices, ptys and their multiplexer may be used.
    let all = None;
    [
        (C, all, all, "m"),
        (B, all, all, "m"),
        (C, Some(1), Some(3), "rwm"),
        (C, Some(1), Some(5), "rwm"),
        (C, Some(1), Some(7), "rwm"),
        (C, Some(1), Some(8), "rwm"),
        (C, Some(1), Some(9), "rwm"),
        (C, Some(5), Some(0), "rwm"),
        (C, Some(5), Some(2), "rwm"),
        (C, Some(136), all, "rwm"),
    ]
    .into_iter()
    .filter_map(
        |(kind, major, minor, access): (_, Option<i64>, Option<i64>, _)| {
            let mut rule = LinuxDeviceCgroupBuilder::default()
                .allow(true)
                .typ(kind)
                .access(access);
            if let Some(major) = major {
                rule = rule.major(major);
            }
            if let Some(minor) = minor {
                rule = rule.minor(minor);
            }
            rule.build().ok()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(change: impl FnOnce(&mut Value)) -> Result<Plan> {
        let mut config = json!({
            "ociVersion": "1.3.0",
            "root": { "path": "/" },
            "process": { "cwd": "/", "user": { "uid": 0, "gid": 0 }, "args": ["sh"] },
            "linux": { "namespaces": [{ "type": "mount" }, { "type": "uts" }, { "type": "network" }] },
        });
        change(&mut config);
        Plan::new(
            &config::parse_spec(config.to_string().as_bytes()).unwrap(),
            Path::new("/"),
        )
    }

    fn error(change: impl FnOnce(&mut Value)) -> String {
        plan(change).err().expect("refused").to_string()
    }

    #[test]
    fn the_smallest_configuration() {
        let plan = plan(|_| {}).unwrap();
        assert_eq!(plan.cgroup_path, None);
        assert_eq!(plan.devices.unwrap().len(), 6);
        assert_eq!(plan.resources.devices().as_ref().unwrap().len(), 10);
    }

    #[test]
    fn errors_name_the_field() {
        assert!(error(|c| c["ociVersion"] = json!("2.0.0")).starts_with("ociVersion: "));
        assert!(error(|c| c["root"] = Value::Null).starts_with("root must"));
        assert!(error(|c| c["root"]["path"] = json!("/no/such")).starts_with("root.path: "));
        assert!(error(|c| c["process"] = Value::Null).starts_with("process property"));
        assert!(error(|c| c["linux"]["namespaces"] = json!([])).starts_with("linux.namespaces: "));
        assert!(
            error(|c| c["linux"]["rootfsPropagation"] = json!("up"))
                .starts_with("linux.rootfsPropagation: ")
        );
        assert!(
            error(|c| c["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": 1 } }))
                .starts_with("linux.timeOffsets: ")
        );
        assert!(
            error(|c| c["linux"]["netDevices"] = json!({ "eth/0": {} }))
                .starts_with("linux.netDevices.eth/0: ")
        );
        let one = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        assert!(error(|c| c["linux"]["uidMappings"] = one).starts_with("linux.uidMappings: "));
    }

    // Proved without the look at `..`, without the one at the namespace, and with names that are of none.
    #[test]
    fn sysctls_belong_to_a_namespace() {
        let set = |name: &str| plan(|c| c["linux"]["sysctl"] = json!({ name: "1" }));
        assert_eq!(
            set("net.ipv4.ip_forward").unwrap().sysctls[0].0,
            "sys/net/ipv4/ip_forward"
        );
        assert_eq!(
            set("net/ipv4/conf/a.b/forwarding").unwrap().sysctls[0].0,
            "sys/net/ipv4/conf/a.b/forwarding"
        );
        assert_eq!(
            set("net.ipv4.conf.a/b.forwarding").unwrap().sysctls[0].0,
            "sys/net/ipv4/conf/a.b/forwarding"
        );
        assert!(
            set("kernel.shmmax").is_err(),
            "the ipc namespace is the host's"
        );
        assert!(set("vm.swappiness").is_err());
        for name in [
            "net/../vm/swappiness",
            "net.//.vm.swappiness",
            "net/./a",
            "net//a",
            "net/",
        ] {
            assert!(set(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_hosts_dev_is_left_alone() {
        let bind = json!([{ "destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"] }]);
        assert!(plan(|c| c["mounts"] = bind).unwrap().devices.is_none());
    }

    #[test]
    fn no_personality_has_flags() {
        let set = |flags: Value| {
            let personality = json!({ "domain": "LINUX32", "flags": flags });
            plan(|c| c["linux"]["personality"] = personality)
        };
        assert_eq!(set(json!([])).unwrap().personality, Some(8));
        let error = set(json!(["x"])).err().expect("refused").to_string();
        assert!(error.starts_with("linux.personality.flags[0]: "), "{error}");
    }

    #[test]
    fn names_need_their_namespace() {
        let without = |c: &mut Value| {
            c["hostname"] = json!("h");
            c["linux"]["namespaces"] = json!([{ "type": "mount" }]);
        };
        assert!(error(without).starts_with("hostname: "));
    }
}
