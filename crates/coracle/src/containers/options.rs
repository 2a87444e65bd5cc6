//! The flags of `run IMAGE`, as Docker means them, become [`Options`]: everything is checked here that can be checked before anything
//! exists, and every error names the flag.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use image::Platform;
use network::Port;
use serde_json::{Value, json};

use super::id;
use super::limits::{Limits, Machine};
use super::log::LogOptions;
use super::network::NetworkMode;
use super::restart::RestartPolicy;
use super::userns::UserNamespace;
use super::volumes::MountOption;
use crate::flags::{Flags, boolean};
use crate::{Failure, signals, values};

/// What `run` was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// An image, or with `rootfs` a directory.
    pub(crate) image: String,
    pub(crate) rootfs: bool,
    pub(crate) command: Vec<String>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) detach: bool,
    pub(crate) name: Option<String>,
    pub(crate) remove: bool,
    pub(crate) interactive: bool,
    pub(crate) tty: bool,
    pub(crate) init: bool,
    pub(crate) pull: Pull,
    pub(crate) platform: Option<Platform>,
    pub(crate) tls_verify: bool,
    pub(crate) cidfile: Option<PathBuf>,
    pub(crate) restart: RestartPolicy,
    pub(crate) stop_signal: Option<i32>,
    pub(crate) stop_timeout: Option<u32>,
    pub(crate) log: LogOptions,
    pub(crate) env: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) user: Option<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) network: NetworkMode,
    pub(crate) publish: Vec<Port>,
    pub(crate) publish_all: bool,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) add_host: Vec<String>,
    pub(crate) mounts: Vec<MountOption>,
    pub(crate) readonly: bool,
    pub(crate) shm_size: Option<i64>,
    pub(crate) limits: Limits,
    pub(crate) ulimits: Vec<Value>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) privileged: bool,
    pub(crate) security: Security,
    pub(crate) devices: Vec<Device>,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) userns: UserNamespace,
}

/// `--pull`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    Always,
    Missing,
    Never,
}

/// `--security-opt`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: bool,
    /// `Some(None)` is `unconfined`, `Some(Some(_))` a profile in Docker's or the runtime's form.
    pub(crate) seccomp: Option<Option<Value>>,
    pub(crate) apparmor: Option<String>,
    /// An SELinux label; empty for none.
    pub(crate) label: Option<String>,
    /// `systempaths=unconfined`: nothing is masked.
    pub(crate) unmasked: bool,
}

/// `--device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) source: PathBuf,
    pub(crate) destination: PathBuf,
    pub(crate) access: String,
}

/// A flag's value is wrong.
fn invalid(flag: &str, value: &str, what: impl std::fmt::Display) -> Failure {
    Failure {
        message: format!("invalid value {value:?} for --{flag}: {what}"),
        status: 125,
    }
}

/// Every value of a list flag, parsed.
fn each<T, E: std::fmt::Display>(
    flags: &Flags,
    name: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, Failure> {
    let parsed = |value: String| parse(&value).map_err(|error| invalid(name, &value, error));
    flags.list(name).into_iter().map(parsed).collect()
}

/// The value of a flag, parsed, if it was given.
fn one<T, E: std::fmt::Display>(
    flags: &Flags,
    name: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Failure> {
    flags
        .text(name)
        .map(|value| parse(value).map_err(|error| invalid(name, value, error)))
        .transpose()
}

impl Options {
    /// Nothing is said of an AppArmor profile.
    pub(crate) fn takes_default_apparmor(&self) -> bool {
        self.security.apparmor.is_none() && !self.privileged
    }

    /// Reads the flags and the arguments behind them.
    pub(crate) fn parse(flags: &Flags) -> Result<Self, Failure> {
        let (image, command) = flags
            .args
            .split_first()
            .ok_or_else(|| Failure::new("run needs an image"))?;
        let options = Options {
            image: image.clone(),
            rootfs: flags.is_set("rootfs"),
            command: command.to_vec(),
            entrypoint: entrypoint(flags)?,
            detach: flags.is_set("detach"),
            name: one(flags, "name", name)?,
            remove: flags.is_set("rm"),
            interactive: flags.is_set("interactive"),
            tty: flags.is_set("tty"),
            init: flags.is_set("init"),
            pull: one(flags, "pull", pull)?.unwrap_or(Pull::Missing),
            platform: one(flags, "platform", str::parse)?,
            tls_verify: flags.switch("tls-verify").unwrap_or(true),
            cidfile: flags.get("cidfile"),
            restart: one(flags, "restart", str::parse)?.unwrap_or_default(),
            stop_signal: one(flags, "stop-signal", signals::parse)?,
            stop_timeout: flags.number("stop-timeout"),
            log: log_options(flags)?,
            env: environment(flags)?,
            labels: pairs(flags, "label")?,
            annotations: pairs(flags, "annotation")?,
            user: flags.get("user"),
            groups: flags.list("group-add"),
            workdir: one(flags, "workdir", absolute)?,
            hostname: one(flags, "hostname", hostname)?,
            network: one(flags, "network", NetworkMode::parse)?.unwrap_or(NetworkMode::Bridge),
            publish: each(flags, "publish", Port::parse)?
                .into_iter()
                .flatten()
                .collect(),
            publish_all: flags.is_set("publish-all"),
            ip: one(flags, "ip", address)?,
            dns: each(flags, "dns", address)?,
            add_host: each(flags, "add-host", host)?,
            mounts: mounts(flags)?,
            readonly: flags.is_set("read-only"),
            shm_size: one(flags, "shm-size", |text| {
                values::size(text)
                    .filter(|size| *size > 0)
                    .ok_or("not a size")
            })?,
            limits: limits(flags)?,
            ulimits: each(flags, "ulimit", ulimit)?,
            cgroup_parent: flags.get("cgroup-parent"),
            cap_add: each(flags, "cap-add", capability)?,
            cap_drop: each(flags, "cap-drop", capability)?,
            privileged: flags.is_set("privileged"),
            security: security(flags)?,
            devices: each(flags, "device", device)?,
            sysctls: sysctls(flags)?,
            userns: one(flags, "userns", UserNamespace::parse)?.unwrap_or_default(),
        };
        options.check()
    }

    /// What does not go together, as Docker sees it.
    fn check(self) -> Result<Self, Failure> {
        let refuse = |message: &str| {
            Err(Failure {
                message: message.into(),
                status: 125,
            })
        };
        if self.remove && self.restart != RestartPolicy::No {
            return refuse("conflicting options: cannot specify both --restart and --rm");
        }
        let shared = matches!(self.network, NetworkMode::Host | NetworkMode::Container(_));
        let publishes = !self.publish.is_empty() || self.publish_all;
        match &self.network {
            NetworkMode::Container(_) if publishes => {
                return refuse("conflicting options: --publish and the container network mode");
            }
            NetworkMode::Container(_) if self.hostname.is_some() => {
                return refuse("conflicting options: --hostname and the network mode");
            }
            NetworkMode::Container(_) if !self.dns.is_empty() || !self.add_host.is_empty() => {
                return refuse(
                    "conflicting options: --dns, --add-host and the container network mode",
                );
            }
            NetworkMode::Bridge | NetworkMode::Cni(_) => {}
            mode if self.ip.is_some() => {
                return refuse(&format!(
                    "conflicting options: --ip and --network {}",
                    mode.name()
                ));
            }
            _ => {}
        }
        if let Some(name) = self
            .sysctls
            .keys()
            .find(|name| name.starts_with("net.") && shared)
        {
            return refuse(&format!(
                "--sysctl {name}: not allowed in the network of the host or of another container"
            ));
        }
        if self.rootfs && self.userns != UserNamespace::Host {
            return refuse(&format!(
                "conflicting options: --rootfs, whose files belong to whom they belong to, and --userns {}",
                self.userns.name()
            ));
        }
        let mut destinations: Vec<&Path> = self
            .mounts
            .iter()
            .map(|mount| mount.destination.as_path())
            .collect();
        destinations.sort_unstable();
        match destinations.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => refuse(&format!("duplicate mount point: {}", pair[0].display())),
            None => Ok(self),
        }
    }
}

fn name(text: &str) -> Result<String, &'static str> {
    id::is_name(text)
        .then(|| text.to_owned())
        .ok_or("only [a-zA-Z0-9][a-zA-Z0-9_.-]+ are allowed")
}

fn pull(text: &str) -> Result<Pull, &'static str> {
    match text {
        "always" => Ok(Pull::Always),
        "missing" => Ok(Pull::Missing),
        "never" => Ok(Pull::Never),
        _ => Err("expected always, missing or never"),
    }
}

/// `--entrypoint ""` is an empty one, which hides the image's; podman also takes a JSON array.
fn entrypoint(flags: &Flags) -> Result<Option<Vec<String>>, Failure> {
    let Some(text) = flags.given("entrypoint") else {
        return Ok(None);
    };
    match text {
        "" => Ok(Some(Vec::new())),
        array if array.starts_with('[') => serde_json::from_str(array)
            .map(Some)
            .map_err(|error| invalid("entrypoint", array, error)),
        program => Ok(Some(vec![program.to_owned()])),
    }
}

fn absolute(text: &str) -> Result<String, &'static str> {
    text.starts_with('/')
        .then(|| text.to_owned())
        .ok_or("the working directory needs to be an absolute path")
}

fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "not an address")
}

/// What sethostname(2) takes, and DNS.
fn hostname(text: &str) -> Result<String, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (text.len() <= 63 && text.chars().all(allowed))
        .then(|| text.to_owned())
        .ok_or("not a host name")
}

/// NAME:IP, where the address may have colons of its own, or brackets.
fn host(text: &str) -> Result<String, &'static str> {
    let wrong = "expected NAME:ADDRESS";
    let (name, address) = text.split_once([':', '=']).ok_or(wrong)?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    let known = bare == "host-gateway" || bare.parse::<IpAddr>().is_ok();
    let fine = known && hostname(name).is_ok() && !name.is_empty();
    fine.then(|| format!("{name}:{bare}")).ok_or(wrong)
}

/// `--env-file` in order, then `--env`. A name without a value takes ours, if there is one.
fn environment(flags: &Flags) -> Result<Vec<String>, Failure> {
    let mut env = Vec::new();
    for path in flags.list("env-file") {
        let text = fs::read_to_string(&path).map_err(|error| invalid("env-file", &path, error))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |error| invalid("env-file", &path, format!("line {}: {error}", number + 1));
            env.extend(variable(line).map_err(at)?);
        }
    }
    env.extend(variables(flags)?);
    Ok(env)
}

/// `--env`.
pub(crate) fn variables(flags: &Flags) -> Result<Vec<String>, Failure> {
    let variables = each(flags, "env", variable)?;
    Ok(variables.into_iter().flatten().collect())
}

fn variable(text: &str) -> Result<Option<String>, &'static str> {
    match text.split_once('=') {
        Some(("", _)) => Err("a variable needs a name"),
        Some((name, _)) if name.contains(char::is_whitespace) => {
            Err("a variable's name has no blanks")
        }
        Some(_) => Ok(Some(text.to_owned())),
        None if text.is_empty() || text.contains(char::is_whitespace) => Err("expected NAME=value"),
        None => Ok(std::env::var(text)
            .ok()
            .map(|value| format!("{text}={value}"))),
    }
}

fn pairs(flags: &Flags, name: &str) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match key {
            "" => Err("expected NAME=value"),
            key => Ok((key.to_owned(), value.to_owned())),
        }
    };
    Ok(each(flags, name, pair)?.into_iter().collect())
}

fn mounts(flags: &Flags) -> Result<Vec<MountOption>, Failure> {
    let mut mounts = each(flags, "volume", MountOption::volume)?;
    mounts.extend(each(flags, "mount", MountOption::mount)?);
    mounts.extend(each(flags, "tmpfs", MountOption::tmpfs)?);
    Ok(mounts)
}

fn log_options(flags: &Flags) -> Result<LogOptions, Failure> {
    let mut options = LogOptions::default();
    for text in flags.list("log-opt") {
        let wrong = |what| invalid("log-opt", &text, what);
        match text.split_once('=') {
            Some(("max-size", size)) => {
                let size = values::size(size).and_then(|size| u64::try_from(size).ok());
                options.max_size = size
                    .filter(|size| *size > 0)
                    .ok_or_else(|| wrong("max-size takes a size such as 10m"))?;
            }
            Some(("max-file", files)) => {
                let files = files
                    .parse()
                    .ok()
                    .filter(|files| (1..=1000).contains(files));
                options.max_files =
                    files.ok_or_else(|| wrong("max-file takes a number from 1 on"))?;
            }
            _ => return Err(wrong("expected max-size=SIZE or max-file=N")),
        }
    }
    Ok(options)
}

fn limits(flags: &Flags) -> Result<Limits, Failure> {
    let mut limits = Limits {
        memory: flags.size("memory"),
        memory_swap: flags.size("memory-swap"),
        memory_reservation: flags.size("memory-reservation"),
        nano_cpus: one(flags, "cpus", |text| {
            Limits::parse_cpus(text).ok_or("not a number of CPUs")
        })?,
        cpuset_cpus: flags.get("cpuset-cpus"),
        cpu_shares: flags.number("cpu-shares"),
        pids: flags.number("pids-limit"),
    };
    // 0 is Docker's word for "not given".
    limits.nano_cpus = limits.nano_cpus.filter(|cpus| *cpus > 0);
    limits.memory = limits.memory.filter(|memory| *memory != 0);
    limits.check(&Machine::probe()).map_err(|error| Failure {
        message: error.to_string(),
        status: 125,
    })?;
    Ok(limits)
}

const RLIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `NAME=SOFT[:HARD]`, -1 for no limit.
fn ulimit(text: &str) -> Result<Value, String> {
    let wrong = || "expected NAME=SOFT[:HARD]".to_owned();
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    if !RLIMITS.contains(&name) {
        return Err(format!(
            "no limit is called {name:?}: there are {}",
            RLIMITS.join(" ")
        ));
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_| wrong()),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(format!(
            "the soft limit {soft} is above the hard one {hard}"
        ));
    }
    let kind = format!("RLIMIT_{}", name.to_uppercase());
    Ok(json!({ "type": kind, "soft": soft, "hard": hard }))
}

/// `CAP_` in front is optional, and case does not matter.
fn capability(text: &str) -> Result<String, &'static str> {
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let is_known = name == "ALL" || runtime::CAPABILITIES.contains(&format!("CAP_{name}").as_str());
    is_known
        .then(|| name.to_owned())
        .ok_or("no capability has this name")
}

fn security(flags: &Flags) -> Result<Security, Failure> {
    let mut security = Security::default();
    for text in flags.list("security-opt") {
        let wrong = |what: String| invalid("security-opt", &text, what);
        let (key, value) = match text.split_once(['=', ':']) {
            Some((key, value)) => (key, Some(value)),
            None => (text.as_str(), None),
        };
        match (key, value) {
            ("no-new-privileges", value) => {
                security.no_new_privileges = boolean(value.unwrap_or("true"))
                    .ok_or_else(|| wrong("expected true or false".into()))?;
            }
            ("seccomp", Some("unconfined")) => security.seccomp = Some(None),
            ("seccomp", Some("builtin")) => security.seccomp = None,
            ("seccomp", Some(path)) => {
                let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
                let profile =
                    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
                security.seccomp = Some(Some(profile));
            }
            ("apparmor", Some(profile)) => security.apparmor = Some(profile.to_owned()),
            ("label", Some("disable")) => security.label = Some(String::new()),
            ("label", Some(label)) if label.matches(':').count() >= 3 => {
                security.label = Some(label.to_owned());
            }
            ("systempaths", Some("unconfined")) => security.unmasked = true,
            _ => {
                return Err(wrong(
                    "expected no-new-privileges, seccomp=unconfined|FILE, apparmor=PROFILE, label=disable|CONTEXT or systempaths=unconfined"
                        .into(),
                ));
            }
        }
    }
    Ok(security)
}

/// `SOURCE[:DESTINATION[:ACCESS]]`, where the second may be the access already.
fn device(text: &str) -> Result<Device, &'static str> {
    let is_access = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, access) = match *parts.as_slice() {
        [source] => (source, source, "rwm"),
        [source, access] if is_access(access) => (source, source, access),
        [source, destination] => (source, destination, "rwm"),
        [source, destination, access] if is_access(access) => (source, destination, access),
        _ => return Err("expected SOURCE[:DESTINATION[:ACCESS]], with some of rwm for the access"),
    };
    if !source.starts_with('/') || !destination.starts_with('/') {
        return Err("a device is an absolute path");
    }
    Ok(Device {
        source: source.into(),
        destination: destination.into(),
        access: access.into(),
    })
}

/// Only what belongs to the container's own namespaces, as Docker has it: the rest would be the host's.
fn sysctls(flags: &Flags) -> Result<BTreeMap<String, String>, Failure> {
    const OWN: [&str; 9] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.domainname",
    ];
    let pairs = pairs(flags, "sysctl")?;
    for name in pairs.keys() {
        if !OWN.contains(&name.as_str())
            && !name.starts_with("net.")
            && !name.starts_with("fs.mqueue.")
        {
            return Err(invalid(
                "sysctl",
                name,
                "it is not separate for each container",
            ));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests;
