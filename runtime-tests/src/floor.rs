//! What `floor` (`runtime-tests/floor/`) is to do for a configuration: a list of steps, made beforehand so that it reads no JSON.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::machine::Hierarchy;
use crate::read_text;

/// The program.
pub fn floor() -> &'static Path {
    Path::new(env!("FLOOR"))
}

/// Capabilities by number.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Mount options: the flag of mount(2), and the attribute of mount_setattr(2).
const OPTIONS: [(&str, u64, u64); 11] = [
    ("ro", 1, 1),
    ("nosuid", 2, 2),
    ("nodev", 4, 4),
    ("noexec", 8, 8),
    ("relatime", 1 << 21, 0),
    ("strictatime", 1 << 24, 0x20),
    ("rw", 0, 0),
    ("rbind", 0, 0),
    ("bind", 0, 0),
    ("rprivate", 0, 0),
    ("private", 0, 0),
];

/// The devices that every container may use: major and minor number, or all minor ones.
const DEVICES: [(u32, Option<u32>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// Writes the plan for a bundle's configuration, for who sees these mounts (mountinfo) with cgroups of this kind.
///
/// # Panics
/// At what no benchmark asks for.
pub fn write_floor_plan(bundle: &Path, config: &Value, mounts: &str, hierarchy: Hierarchy) {
    let mut plan = Plan::default();
    plan.cgroups(bundle, config, mounts, hierarchy);
    plan.namespaces(config);
    plan.mounts(bundle, config, mounts, hierarchy);
    plan.process(bundle, config);
    fs::write(bundle.join("floor.plan"), plan.0).expect("the bundle is writable");
}

#[derive(Default)]
struct Plan(Vec<u8>);

impl Plan {
    fn line<const N: usize>(&mut self, words: [&dyn AsRef<OsStr>; N]) {
        for word in words {
            self.0
                .extend(word.as_ref().as_encoded_bytes().iter().chain([&0]));
        }
        self.0.push(0x1e);
    }

    fn number(&mut self, what: &str, number: u64) {
        self.line([&what, &number.to_string()]);
    }

    fn cgroups(&mut self, bundle: &Path, config: &Value, mounts: &str, hierarchy: Hierarchy) {
        let devices = config.pointer("/linux/resources/devices").is_some();
        let memory = config.pointer("/linux/resources/memory/limit");
        if hierarchy == Hierarchy::V2 {
            for (_, directory, _) in cgroup_mounts(mounts, "cgroup2") {
                self.line([&"cgroup2", &directory]);
            }
            if devices {
                let file = bundle.join("devices.bpf");
                fs::write(&file, device_program()).expect("the bundle is writable");
                self.line([&"devices", &file]);
            }
            return;
        }
        for (_, directory, options) in cgroup_mounts(mounts, "cgroup") {
            self.line([&"cgroup1", &directory]);
            if options.contains(&"cpuset") {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let value = read_text(&Path::new(&directory).join(file));
                    self.line([&"set", &file, &value.trim()]);
                }
            }
            if let (true, Some(limit)) = (options.contains(&"memory"), memory) {
                self.line([&"set", &"memory.limit_in_bytes", &limit.to_string()]);
            }
            if options.contains(&"devices") && devices {
                self.line([&"set", &"devices.deny", &"a"]);
                let minor = |minor: Option<u32>| minor.map_or("*".into(), |m| m.to_string());
                let known = DEVICES
                    .iter()
                    .map(|(major, m)| format!("c {major}:{} rwm", minor(*m)));
                for rule in ["c *:* m".into(), "b *:* m".into()]
                    .into_iter()
                    .chain(known)
                {
                    self.line([&"set", &"devices.allow", &rule]);
                }
            }
        }
    }

    fn namespaces(&mut self, config: &Value) {
        let flags = list(config, "/linux/namespaces").map(|namespace| {
            match namespace["type"].as_str().expect("a type") {
                "cgroup" => 0x0200_0000,
                "uts" => 0x0400_0000,
                "ipc" => 0x0800_0000,
                "pid" => 0x2000_0000,
                "network" => 0x4000_0000,
                "mount" => 0x0002_0000,
                other => panic!("no plan for {other} namespaces"),
            }
        });
        self.number("namespaces", flags.fold(0, |all, flag| all | flag));
    }

    fn mounts(&mut self, bundle: &Path, config: &Value, mounts: &str, hierarchy: Hierarchy) {
        let rootfs = bundle.join(config["root"]["path"].as_str().expect("a path"));
        self.line([&"root", &rootfs]);
        self.number("readonly-root", (config["root"]["readonly"] == true).into());
        if let Some(name) = config["hostname"].as_str() {
            self.line([&"hostname", &name]);
        }
        for mount in list(config, "/mounts") {
            let text = |field: &str| mount[field].as_str().unwrap_or_default();
            let (target, kind) = (text("destination"), text("type"));
            let options: Vec<&str> = list(mount, "/options").filter_map(Value::as_str).collect();
            let (flags, attributes, data) = meanings(&options);
            if target.starts_with("/dev/") {
                self.line([&"mkdir", &target]);
            }
            let flags = flags.to_string();
            let attributes = attributes.to_string();
            match (kind, hierarchy) {
                _ if options.iter().any(|option| option.ends_with("bind")) => {
                    self.line([&"bind", &text("source"), &target, &attributes]);
                }
                ("cgroup", Hierarchy::V2) => {
                    self.line([&"mount", &"none", &target, &"cgroup2", &flags, &""]);
                }
                ("cgroup", _) => self.legacy_cgroups(target, &options, mounts),
                _ => self.line([&"mount", &text("source"), &target, &kind, &flags, &data]),
            }
        }
        for (what, paths) in [
            ("readonly", "/linux/readonlyPaths"),
            ("mask", "/linux/maskedPaths"),
        ] {
            for path in list(config, paths).filter_map(Value::as_str) {
                self.line([&what, &path]);
            }
        }
    }

    /// v1 without a namespace: the container's own cgroup of each hierarchy, on a tmpfs that gets read-only when they are there.
    fn legacy_cgroups(&mut self, target: &str, options: &[&str], mounts: &str) {
        let (flags, attributes, _) = meanings(options);
        let attributes = attributes.to_string();
        let writable = (flags & !1).to_string();
        self.line([&"mount", &"none", &target, &"tmpfs", &writable, &"mode=755"]);
        for (place, directory, _) in cgroup_mounts(mounts, "cgroup") {
            let name = Path::new(place).file_name().expect("a name");
            let place = Path::new(target).join(name);
            self.line([&"mkdir", &place]);
            self.line([&"bind-cgroup", &directory, &place, &attributes]);
        }
        self.line([&"attributes", &target, &attributes]);
    }

    fn process(&mut self, bundle: &Path, config: &Value) {
        let process = &config["process"];
        for (what, field) in [("argument", "/args"), ("environment", "/env")] {
            for word in list(process, field).filter_map(Value::as_str) {
                self.line([&what, &word]);
            }
        }
        for limit in list(process, "/rlimits") {
            assert_eq!(limit["type"], "RLIMIT_NOFILE", "no plan for other limits");
            let of = |field: &str| limit[field].to_string();
            self.line([&"limit", &"7", &of("soft"), &of("hard")]);
        }
        for (what, field) in [
            ("bounding", "/capabilities/bounding"),
            ("capabilities", "/capabilities/effective"),
        ] {
            let bits = list(process, field).filter_map(Value::as_str).map(|name| {
                let known = CAPABILITIES.iter().position(|known| name[4..] == **known);
                1 << known.unwrap_or_else(|| panic!("no plan for {name}"))
            });
            self.number(what, bits.fold(0, |all, bit: u64| all | bit));
        }
        let no_new_privileges = process["noNewPrivileges"] == true;
        self.number("no-new-privileges", no_new_privileges.into());
        if let Some(section) = config.pointer("/linux/seccomp") {
            let section = serde_json::from_value(section.clone()).expect("a seccomp section");
            let program = seccomp::compile(&section).expect("a profile that compiles");
            let instructions = program.instructions.iter().flat_map(|instruction| {
                let code = instruction.code.to_ne_bytes();
                let jumps = [instruction.jt, instruction.jf];
                [code, jumps]
                    .concat()
                    .into_iter()
                    .chain(instruction.k.to_ne_bytes())
            });
            let file = bundle.join("seccomp.bpf");
            fs::write(&file, instructions.collect::<Vec<u8>>()).expect("the bundle is writable");
            self.line([&"seccomp", &file]);
        }
    }
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Flags, attributes, and what is left for the file system.
fn meanings(options: &[&str]) -> (u64, u64, String) {
    let (mut flags, mut attributes, mut data) = (0, 0, Vec::new());
    for option in options {
        match OPTIONS.iter().find(|(name, ..)| name == option) {
            Some((_, flag, attribute)) => {
                flags |= flag;
                attributes |= attribute;
            }
            None => data.push(*option),
        }
    }
    (flags, attributes, data.join(","))
}

/// The hierarchies of a kind: where each is mounted, the directory there in which our own processes' containers are, the options.
fn cgroup_mounts<'a>(mounts: &'a str, kind: &str) -> Vec<(&'a str, String, Vec<&'a str>)> {
    let own = read_text(Path::new("/proc/self/cgroup"));
    let mounted = mounts.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let place = head.split(' ').nth(4)?;
        if !place.starts_with("/sys/fs/cgroup") {
            return None;
        }
        let mut tail = tail.split(' ');
        let options: Vec<&str> = tail
            .next()
            .filter(|of| *of == kind)
            .and_then(|_| tail.nth(1))?
            .split(',')
            .collect();
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let names = fields.next()?;
            let is_this = match kind {
                "cgroup2" => names.is_empty(),
                _ => names.split(',').all(|name| options.contains(&name)) && !names.is_empty(),
            };
            is_this.then(|| fields.next())?
        })?;
        let directory = format!("{place}{path}").trim_end_matches('/').to_owned();
        Some((place, directory, options))
    });
    mounted.collect()
}

/// The device rules as a program (`BPF_PROG_TYPE_CGROUP_DEVICE`): any node may be made, and the known ones used.
fn device_program() -> Vec<u8> {
    const LOAD: u8 = 0x61;
    const MOVE: u8 = 0xb7;
    const COPY: u8 = 0xbf;
    const AND: u8 = 0x57;
    const SHIFT_RIGHT: u8 = 0x77;
    const IF_EQUAL: u8 = 0x15;
    const IF_NOT_EQUAL: u8 = 0x55;
    const EXIT: u8 = 0x95;
    const RESULT: u8 = 0;
    const CONTEXT: u8 = 1;
    const KIND: u8 = 2;
    const ACCESS: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    const CHARACTER: u32 = 2;
    const MKNOD: u32 = 1;
    let tests = DEVICES.iter().map(|(_, minor)| 1 + minor.iter().count());
    // Eight instructions before the tests, and two behind them that deny.
    let deny = 8 + tests.sum::<usize>();
    let allow = deny + 2;
    let mut program: Vec<[u8; 8]> = Vec::new();
    let mut add = |code: u8, to: u8, from: u8, offset: usize, value: u32| {
        let [low, high] = (offset as u16).to_le_bytes();
        let [a, b, c, d] = value.to_le_bytes();
        program.push([code, from << 4 | to, low, high, a, b, c, d]);
        program.len()
    };
    add(LOAD, KIND, CONTEXT, 0, 0);
    add(COPY, ACCESS, KIND, 0, 0);
    add(SHIFT_RIGHT, ACCESS, 0, 0, 16);
    add(AND, KIND, 0, 0, 0xffff);
    add(LOAD, MAJOR, CONTEXT, 4, 0);
    let next = 1 + add(LOAD, MINOR, CONTEXT, 8, 0);
    let next = 1 + add(IF_EQUAL, ACCESS, 0, allow - next, MKNOD);
    let mut at = add(IF_NOT_EQUAL, KIND, 0, deny - next, CHARACTER);
    for (major, minor) in DEVICES {
        at = match minor {
            None => add(IF_EQUAL, MAJOR, 0, allow - at - 1, major),
            Some(minor) => {
                at = add(IF_NOT_EQUAL, MAJOR, 0, 1, major);
                add(IF_EQUAL, MINOR, 0, allow - at - 1, minor)
            }
        };
    }
    for verdict in [0, 1] {
        add(MOVE, RESULT, 0, 0, verdict);
        add(EXIT, 0, 0, 0, 0);
    }
    program.concat()
}
