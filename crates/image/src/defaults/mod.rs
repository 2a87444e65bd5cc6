//! What a container gets that nobody has said anything about: Docker's defaults, so that an image behaves as people know it.

mod seccomp;

use oci_spec::runtime::{
    Capabilities, Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDeviceCgroup,
    LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxResourcesBuilder, Mount, MountBuilder, PosixRlimit, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};

pub use seccomp::seccomp;

/// The `PATH` of an image that has none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Size of `/dev/shm`.
const SHM_SIZE: &str = "size=65536k";

const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

const NAMESPACES: [LinuxNamespaceType; 5] = [
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Ipc,
];

/// The capabilities of a container's root.
pub fn capabilities() -> Capabilities {
    [
        Capability::AuditWrite,
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::Kill,
        Capability::Mknod,
        Capability::NetBindService,
        Capability::NetRaw,
        Capability::Setfcap,
        Capability::Setgid,
        Capability::Setpcap,
        Capability::Setuid,
        Capability::SysChroot,
    ]
    .into()
}

/// The file systems of a container.
pub fn mounts() -> Vec<Mount> {
    [
        ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        (
            "/dev",
            "tmpfs",
            "tmpfs",
            "nosuid,strictatime,mode=755,size=65536k",
        ),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        ("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        (
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            "ro,nosuid,noexec,nodev",
        ),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        ("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777"),
    ]
    .into_iter()
    .map(|(destination, kind, source, options)| {
        let size = (destination == "/dev/shm").then_some(SHM_SIZE);
        let options = options.split(',').chain(size).map(str::to_owned);
        MountBuilder::default()
            .destination(destination)
            .typ(kind)
            .source(source)
            .options(options.collect::<Vec<_>>())
            .build()
            .expect("every field has a value")
    })
    .collect()
}

/// Access to devices: none, but that any may be made, and those used that `/dev` is filled with.
pub fn device_rules() -> Vec<LinuxDeviceCgroup> {
    let rule =
        |allow: bool, kind: LinuxDeviceType, major: i64, minor: Option<i64>, access: &str| {
            let rule = LinuxDeviceCgroupBuilder::default()
                .allow(allow)
                .typ(kind)
                .access(access);
            let rule = if major < 0 { rule } else { rule.major(major) };
            match minor {
                Some(minor) => rule.minor(minor),
                None => rule,
            }
            .build()
            .expect("every field has a value")
        };
    let (any, block, character) = (LinuxDeviceType::A, LinuxDeviceType::B, LinuxDeviceType::C);
    let mut rules = vec![
        rule(false, any, -1, None, "rwm"),
        rule(true, character, -1, None, "m"),
        rule(true, block, -1, None, "m"),
    ];
    // null, zero, full, tty, console, random, urandom, ptmx, terminals.
    for (major, minor) in [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (5, Some(0)),
        (5, Some(1)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(2)),
        (136, None),
    ] {
        rules.push(rule(true, character, major, minor, "rwm"));
    }
    rules
}

/// A configuration without a program: [`convert::spec`](crate::convert::spec) says what an image adds.
pub fn spec() -> Spec {
    let set = capabilities();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set.clone())
        .inheritable([])
        .ambient([])
        .build()
        .expect("every field has a value");
    let process = ProcessBuilder::default()
        .user(UserBuilder::default().build().expect("ids have defaults"))
        .cwd("/")
        .args(Vec::new())
        .env(Vec::new())
        .capabilities(capabilities)
        .rlimits(Vec::<PosixRlimit>::new())
        .no_new_privileges(false)
        .build()
        .expect("every field has a value");
    let namespace = |kind| {
        LinuxNamespaceBuilder::default()
            .typ(kind)
            .build()
            .expect("every field has a value")
    };
    let resources = LinuxResourcesBuilder::default()
        .devices(device_rules())
        .build()
        .expect("every field has a value");
    let linux = LinuxBuilder::default()
        .namespaces(NAMESPACES.map(namespace).to_vec())
        .resources(resources)
        .masked_paths(MASKED_PATHS.map(str::to_owned).to_vec())
        .readonly_paths(READONLY_PATHS.map(str::to_owned).to_vec())
        .seccomp(seccomp(&set))
        .build()
        .expect("every field has a value");
    let root = RootBuilder::default()
        .path("rootfs")
        .readonly(false)
        .build()
        .expect("every field has a value");
    SpecBuilder::default()
        // Nothing here is younger, and Debian's crun takes no 1.1 and later.
        .version("1.0.2")
        .process(process)
        .root(root)
        .mounts(mounts())
        .linux(linux)
        .build()
        .expect("every field has a value")
}
