//! [`Options`] and what the image says become config.json.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use runtime::{Context, Error, Result};
use serde_json::{Value, json};

use super::network::NetworkMode;
use super::options::{Device, Options};
use super::seccomp;

/// Where the init of `--init` stands: on the /dev that every container has for itself, so that no file of the image is touched.
const INIT: &str = "/dev/coracle-init";

/// What is known of the container besides.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) id: &'a str,
    pub(crate) hostname: &'a str,
    pub(crate) rootfs: &'a Path,
    /// Entries of `mounts` for volumes and files.
    pub(crate) mounts: Vec<Value>,
    /// The program of `--init`.
    pub(crate) init: Option<&'a Path>,
    /// The path of a network namespace to join.
    pub(crate) netns: Option<&'a Path>,
    pub(crate) systemd: bool,
    pub(crate) window: Option<(u16, u16)>,
}

/// Completes `base`, which is the image's configuration with Docker's defaults.
pub(crate) fn complete(
    mut base: Value,
    options: &Options,
    around: Surroundings<'_>,
) -> Result<Value> {
    let spec = &mut base;
    spec["root"] = json!({ "path": around.rootfs, "readonly": options.readonly });
    spec["hostname"] = json!(around.hostname);
    process(&mut spec["process"], options, &around);
    annotations(spec, options);
    limits(spec, options, &around);
    network(spec, options, &around);
    security(spec, options)?;
    mounts(spec, options, around.init, around.mounts);
    for device in &options.devices {
        match options.userns.is_new() && device.source != device.destination {
            true => bind_device(spec, device)?,
            false => add_device(spec, device)?,
        }
    }
    Ok(base)
}

/// What runs, for people: without the init in front.
pub(crate) fn command(spec: &Value) -> Vec<String> {
    let args = spec["process"]["args"].as_array().into_iter().flatten();
    let args: Vec<String> = args
        .filter_map(|arg| Some(arg.as_str()?.to_owned()))
        .collect();
    match args.first().is_some_and(|first| first == INIT) {
        true => args[2..].to_vec(),
        false => args,
    }
}

/// The elements of an array, which is made if there is none.
fn elements(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it is one now")
}

fn process(process: &mut Value, options: &Options, around: &Surroundings<'_>) {
    if let (true, Some((height, width))) = (options.tty, around.window) {
        process["consoleSize"] = json!({ "height": height, "width": width });
    }
    let env = elements(&mut process["env"]);
    let is_named = |variable: &Value| {
        variable
            .as_str()
            .is_some_and(|text| text.starts_with("HOSTNAME="))
    };
    if !env.iter().any(is_named) {
        env.push(json!(format!("HOSTNAME={}", around.hostname)));
    }
    if options.init {
        let args = elements(&mut process["args"]);
        args.splice(0..0, [json!(INIT), json!("--")]);
    }
    if !options.ulimits.is_empty() {
        process["rlimits"] = json!(options.ulimits);
    }
}

fn annotations(spec: &mut Value, options: &Options) {
    for (name, value) in &options.annotations {
        spec["annotations"][name] = json!(value);
    }
}

fn limits(spec: &mut Value, options: &Options, around: &Surroundings<'_>) {
    let linux = &mut spec["linux"];
    // As Docker: with cgroup v2 alone a container sees its own cgroup as the root.
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        elements(&mut linux["namespaces"]).push(json!({ "type": "cgroup" }));
    }
    options.limits.write(&mut linux["resources"]);
    if let Some(parent) = &options.cgroup_parent {
        linux["cgroupsPath"] = match around.systemd {
            true => json!(format!("{parent}:coracle:{}", around.id)),
            false => json!(Path::new("/").join(parent).join(around.id)),
        };
    }
}

fn network(spec: &mut Value, options: &Options, around: &Surroundings<'_>) {
    let namespaces = elements(&mut spec["linux"]["namespaces"]);
    namespaces.retain(|namespace| namespace["type"] != "network");
    match (&options.network, around.netns) {
        (NetworkMode::Host, _) => {}
        (_, Some(path)) => namespaces.push(json!({ "type": "network", "path": path })),
        (_, None) => namespaces.push(json!({ "type": "network" })),
    }
    if !matches!(
        options.network,
        NetworkMode::Host | NetworkMode::Container(_)
    ) {
        // As Docker: no port of a container's own network is worth a capability, nor is ping.
        spec["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] = json!("0");
        spec["linux"]["sysctl"]["net.ipv4.ping_group_range"] = json!("0 2147483647");
    }
    for (name, value) in &options.sysctls {
        spec["linux"]["sysctl"][name] = json!(value);
    }
}

fn security(spec: &mut Value, options: &Options) -> Result<()> {
    let set = capabilities(options);
    let process = &mut spec["process"];
    // Another user gets none of them by itself, only by a setuid program.
    let effective = match process["user"]["uid"] == 0 {
        true => set.clone(),
        false => Vec::new(),
    };
    process["capabilities"] =
        json!({ "bounding": set, "effective": effective, "permitted": effective });
    let security = &options.security;
    process["noNewPrivileges"] = json!(security.no_new_privileges);
    let profile = match options.takes_default_apparmor() {
        true => runtime::default_apparmor_profile(),
        false => security.apparmor.clone(),
    };
    if let Some(profile) = profile {
        process["apparmorProfile"] = json!(profile);
    }
    if let Some(label) = security.label.as_ref().filter(|label| !label.is_empty()) {
        process["selinuxLabel"] = json!(label);
    }
    let filter = match &security.seccomp {
        Some(Some(profile)) => Some(seccomp::of_profile(profile, &set)),
        None if !options.privileged => Some(seccomp::default(&set)?),
        Some(None) | None => None,
    };
    if let Some(linux) = spec["linux"].as_object_mut() {
        if security.unmasked || options.privileged {
            linux.remove("maskedPaths");
            linux.remove("readonlyPaths");
        }
        linux.remove("seccomp");
        linux.extend(filter.map(|filter| ("seccomp".to_owned(), filter)));
    }
    match options.privileged {
        true => privileged(spec),
        false => Ok(()),
    }
}

/// Docker's order: what is dropped, then what is added, and ALL on either side.
fn capabilities(options: &Options) -> Vec<String> {
    let default = image::defaults::capabilities();
    let default: Vec<String> = default
        .iter()
        .map(|each| each.to_string().replace("CAP_", ""))
        .collect();
    let has = |list: &[String], name: &str| list.iter().any(|each| each == name);
    runtime::CAPABILITIES
        .iter()
        .map(|name| name.trim_start_matches("CAP_"))
        .filter(|name| {
            if options.privileged {
                return true;
            }
            let (added, dropped) = (has(&options.cap_add, name), has(&options.cap_drop, name));
            if has(&options.cap_add, "ALL") {
                !dropped
            } else if has(&options.cap_drop, "ALL") {
                added
            } else {
                added || !dropped && has(&default, name)
            }
        })
        .map(|name| format!("CAP_{name}"))
        .collect()
}

fn privileged(spec: &mut Value) -> Result<()> {
    for mount in elements(&mut spec["mounts"]) {
        let kind = mount["type"].as_str().unwrap_or_default();
        if matches!(kind, "sysfs" | "cgroup" | "cgroup2") {
            elements(&mut mount["options"]).retain(|option| option != "ro");
        }
    }
    spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
    let mut devices = Vec::new();
    host_devices(Path::new("/dev"), &mut devices)?;
    for path in devices {
        let device = Device {
            source: path.clone().into(),
            destination: path.into(),
            access: "rwm".into(),
        };
        add_device(spec, &device)?;
    }
    Ok(())
}

/// Every device below a directory, but those that a container has for itself.
fn host_devices(directory: &Path, found: &mut Vec<String>) -> Result<()> {
    const OWN: [&str; 13] = [
        "pts", "shm", "mqueue", "fd", "console", "ptmx", "null", "zero", "full", "random",
        "urandom", "tty", ".udev",
    ];
    let entries = fs::read_dir(directory)
        .with_context(|| format!("--privileged: read {}", directory.display()))?;
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let is_own = directory == Path::new("/dev") && OWN.iter().any(|own| name == *own);
        if is_own {
            continue;
        }
        if kind.is_dir() {
            host_devices(&path, found)?;
        } else if (kind.is_char_device() || kind.is_block_device())
            && let Some(path) = path.to_str()
        {
            found.push(path.to_owned());
        }
    }
    Ok(())
}

fn add_device(spec: &mut Value, device: &Device) -> Result<()> {
    let (kind, metadata) = kind_of_device(&device.source)?;
    let (major, minor) = (major(metadata.rdev()), minor(metadata.rdev()));
    let linux = &mut spec["linux"];
    elements(&mut linux["devices"]).push(json!({
        "path": device.destination, "type": kind, "major": major, "minor": minor,
        "fileMode": metadata.mode() & 0o777, "uid": metadata.uid(), "gid": metadata.gid(),
    }));
    elements(&mut linux["resources"]["devices"]).push(json!({
        "allow": true, "type": kind, "major": major, "minor": minor, "access": device.access,
    }));
    Ok(())
}

/// The letter of a device's kind, and what else is known of it.
fn kind_of_device(path: &Path) -> Result<(&'static str, fs::Metadata)> {
    let source = path.display();
    let metadata = fs::metadata(path).with_context(|| format!("--device: look at {source}"))?;
    match metadata.file_type() {
        kind if kind.is_char_device() => Ok(("c", metadata)),
        kind if kind.is_block_device() => Ok(("b", metadata)),
        _ => Err(Error::invalid(format!(
            "--device: {source} is not a device"
        ))),
    }
}

/// In a user namespace no device can be made, and the runtime binds only what has the same place. As with podman, whoever may open it here
/// may do so there.
fn bind_device(spec: &mut Value, device: &Device) -> Result<()> {
    kind_of_device(&device.source)?;
    elements(&mut spec["mounts"]).push(json!({
        "destination": device.destination, "type": "bind", "source": device.source,
        "options": ["bind", "nosuid", "noexec", "rprivate"],
    }));
    Ok(())
}

fn mounts(spec: &mut Value, options: &Options, init: Option<&Path>, mut added: Vec<Value>) {
    let mounts = elements(&mut spec["mounts"]);
    if let Some(size) = options.shm_size {
        for mount in mounts
            .iter_mut()
            .filter(|mount| mount["destination"] == "/dev/shm")
        {
            let mount_options = elements(&mut mount["options"]);
            mount_options.retain(|option| {
                option
                    .as_str()
                    .is_none_or(|text| !text.starts_with("size="))
            });
            mount_options.push(json!(format!("size={size}")));
        }
    }
    if let Some(program) = init {
        added.push(json!({
            "destination": INIT, "type": "bind", "source": program,
            "options": ["bind", "ro", "nosuid", "nodev"],
        }));
    }
    // What is asked for takes the place of what is there anyway; what lies deeper comes later.
    mounts.retain(|mount| {
        added
            .iter()
            .all(|other| other["destination"] != mount["destination"])
    });
    let depth = |mount: &Value| {
        mount["destination"]
            .as_str()
            .unwrap_or_default()
            .matches('/')
            .count()
    };
    added.sort_by_key(depth);
    mounts.append(&mut added);
}
