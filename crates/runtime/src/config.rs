//! `config.json` and `process.json` as parsed: oci-spec's types, made as lenient as runc where engines rely on it.

mod json_path;

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use oci_spec::runtime::{Capability, Linux, LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Context, Error, Result, annotations, json, rootfs};

/// A file larger than this is no configuration (ARG_MAX-sized environments and 10,000 mounts stay far below).
const MAX_SIZE: u64 = 64 << 20;

/// A bundle, read and parsed.
pub(crate) struct Bundle {
    /// Its directory: absolute, without symbolic links.
    pub path: PathBuf,
    pub spec: Spec,
    /// What was read: the container keeps it for `exec`.
    pub bytes: Vec<u8>,
}

/// Reads and parses the `config.json` of the bundle `given`, of the working directory when there is none, or another file in its place.
pub(crate) fn read(given: Option<&Path>, config: Option<&Path>) -> Result<Bundle> {
    let own = |bundle: &Path| bundle.join("config.json");
    // The usual case takes one look: where no symbolic link leads to its configuration, none leads to the bundle.
    let found = given
        .filter(|_| config.is_none())
        .and_then(|given| rootfs::ordinary(&own(given), OFlag::O_RDONLY));
    let (path, file) = match (found, given) {
        (Some((mut path, file)), _) => {
            path.pop();
            (path, Some(file))
        }
        (None, Some(given)) => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
            let path = rootfs::ordinary(given, flags)
                .map_or_else(|| given.canonicalize(), |(path, _)| Ok(path));
            let path = path.with_context(|| format!("bundle {}", given.display()))?;
            (path, None)
        }
        (None, None) => (nix::unistd::getcwd().context("bundle .")?, None),
    };
    let config = config.map_or_else(|| own(&path), Path::to_owned);
    let bytes = match file {
        Some(file) => read_open(file, &config)?,
        None => read_file(&config)?,
    };
    let spec = parse_spec(&bytes).with_context(|| format!("{}", config.display()))?;
    Ok(Bundle { path, spec, bytes })
}

/// Parses the bytes of a `config.json`.
pub(crate) fn parse_spec(bytes: &[u8]) -> Result<Spec> {
    let mut spec: Spec = parse(bytes, bridge_spec)?;
    let linux = spec.linux().as_ref();
    if linux.is_some_and(|linux| linux.intel_rdt().is_some()) {
        spec = parse_with_intel_rdt(bytes)?;
    }
    annotations::fill_fields(&mut spec);
    Ok(spec)
}

/// The `linux` section; one with a profile has a thousand strings, too many to copy.
pub(crate) fn linux(spec: &Spec) -> Cow<'_, Linux> {
    let section = spec.linux().as_ref();
    section.map_or_else(|| Cow::Owned(Linux::default()), Cow::Borrowed)
}

/// oci-spec 0.10 knows `enableCMT` and `enableMBM`, which 1.3 has deprecated, by names that nobody writes, and so leaves them out.
fn parse_with_intel_rdt(bytes: &[u8]) -> Result<Spec> {
    let mut tree: Value = deserialize(bytes)?;
    bridge_spec(&mut tree);
    if let Some(Value::Object(section)) = tree.pointer_mut("/linux/intelRdt") {
        for (name, known) in [("enableCMT", "enableCmt"), ("enableMBM", "enableMbm")] {
            if let Some(value) = section.remove(name) {
                section.insert(known.to_owned(), value);
            }
        }
    }
    deserialize(tree.to_string().as_bytes())
}

/// Reads and parses a `process.json` (`exec --process`).
pub fn read_process(path: &Path) -> Result<Process> {
    parse_process(&read_file(path)?).with_context(|| format!("{}", path.display()))
}

/// Parses the bytes of a `process.json`.
pub(crate) fn parse_process(bytes: &[u8]) -> Result<Process> {
    parse(bytes, bridge_process)
}

/// Parses the limits that `update` is given.
pub fn parse_resources(bytes: &[u8]) -> Result<LinuxResources> {
    parse(bytes, bridge_resources)
}

/// Reads a whole file, bounded.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let opening = || format!("open {}", path.display());
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = match openat(AT_FDCWD, path, flags, Mode::empty()) {
        Err(Errno::ENOENT) => Err(Errno::ENOENT)
            .with_context(|| format!("JSON specification file {} not found", path.display())),
        opened => opened.with_context(opening),
    }?;
    read_open(file, path)
}

fn read_open(file: OwnedFd, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 << 10);
    File::from(file)
        .take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {}", path.display()))?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(Error::invalid(format!(
            "{} is larger than {} MiB",
            path.display(),
            MAX_SIZE >> 20
        )));
    }
    Ok(bytes)
}

/// Parses directly; only a document that oci-spec rejects is bridged, and tried once more.
fn parse<T: DeserializeOwned>(bytes: &[u8], bridge: impl FnOnce(&mut Value)) -> Result<T> {
    let error = match deserialize(bytes) {
        Err(error) => error,
        parsed => return parsed,
    };
    let Ok(mut tree) = json::parse(bytes) else {
        return Err(error);
    };
    bridge(&mut tree);
    deserialize(tree.to_string().as_bytes())
}

fn deserialize<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    json::parse(bytes).map_err(|cause| {
        let path = json_path::at(bytes, cause.line(), cause.column());
        // What is no JSON at all has no path, or one that says where the text broke off.
        if cause.is_data() && !path.is_empty() {
            Error::invalid(format!("{path}: {}{cause}", runcs_words(&path)))
        } else {
            Error::invalid(format!("not valid JSON: {cause}"))
        }
    })
}

/// The beginning of runc's sentence about a wrong value, where scripts look for it.
fn runcs_words(path: &str) -> &'static str {
    match path {
        "linux.memoryPolicy" | "linux.memoryPolicy.mode" => "invalid memory policy mode: ",
        path if path.starts_with("linux.memoryPolicy.flags") => "invalid memory policy flag: ",
        _ => "",
    }
}

/// What runc accepts in a config and oci-spec rejects.
fn bridge_spec(spec: &mut Value) {
    if let Some(process) = spec.get_mut("process") {
        bridge_process(process);
    }
    if let Some(resources) = spec.pointer_mut("/linux/resources") {
        bridge_resources(resources);
    }
}

/// What runc accepts in resources and oci-spec rejects.
fn bridge_resources(resources: &mut Value) {
    if let Some(Value::Array(limits)) = resources.get_mut("hugepageLimits") {
        for limit in limits.iter_mut().filter_map(|l| l.get_mut("limit")) {
            // The specification's type is uint64; a limit beyond i64::MAX is none.
            if limit.as_u64().is_some_and(|value| value > i64::MAX as u64) {
                *limit = i64::MAX.into();
            }
        }
    }
}

/// What runc accepts in a process and oci-spec rejects.
fn bridge_process(process: &mut Value) {
    if let Value::Object(process) = process {
        process
            .entry("user")
            .or_insert_with(|| serde_json::json!({ "uid": 0, "gid": 0 }));
    }
    if let Some(Value::Object(sets)) = process.get_mut("capabilities") {
        for (set, names) in sets {
            if let Value::Array(names) = names {
                names.retain(|name| known_capability(set, name));
            }
        }
    }
    if let Some(Value::Object(lists)) = process.get_mut("execCPUAffinity") {
        // An empty list is none, and blanks do no harm.
        let is_empty = |list: &Value| list.as_str().is_some_and(|list| list.trim().is_empty());
        lists.retain(|_, list| !is_empty(list));
        for list in lists.values_mut() {
            if let Value::String(list) = list {
                list.retain(|c| c != ' ');
            }
        }
    }
    if let Some(Value::Array(flags)) = process.pointer_mut("/scheduler/flags") {
        for flag in flags
            .iter_mut()
            .filter(|flag| **flag == "SCHED_FLAG_RESET_ON_FORK")
        {
            *flag = "SCHED_RESET_ON_FORK".into();
        }
    }
}

/// Whether a capability's name is known; an unknown one gives runc's warning and is left out.
fn known_capability(set: &str, name: &Value) -> bool {
    let known = match name {
        Value::String(_) => serde_json::from_value::<Capability>(name.clone()).is_ok(),
        _ => true,
    };
    if !known {
        log::warn!(
            "ignoring unknown or unavailable capabilities: process.capabilities.{set}: {name}"
        );
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(process: Value) -> Result<Spec> {
        parse_spec(
            json!({ "ociVersion": "1.3.0", "process": process })
                .to_string()
                .as_bytes(),
        )
    }

    #[test]
    fn unknown_capability_is_left_out() {
        let spec = spec(json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 },
            "capabilities": { "bounding": ["CAP_KILL", "CAP_FLY"] } }))
        .unwrap();
        let bounding = spec
            .process()
            .as_ref()
            .unwrap()
            .capabilities()
            .as_ref()
            .unwrap()
            .bounding()
            .clone()
            .unwrap();
        assert_eq!(bounding.len(), 1);
    }

    #[test]
    fn missing_user_is_root() {
        let spec = spec(json!({ "cwd": "/" })).unwrap();
        assert_eq!(spec.process().as_ref().unwrap().user().uid(), 0);
    }

    #[test]
    fn reset_on_fork_has_the_kernel_name_too() {
        let process = json!({ "cwd": "/", "scheduler": { "policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"] } });
        assert!(spec(process).is_ok());
    }

    #[test]
    fn huge_page_limit_beyond_i64() {
        let config = json!({ "ociVersion": "1.3.0",
            "linux": { "resources": { "hugepageLimits": [{ "pageSize": "2MB", "limit": u64::MAX }] } } });
        assert!(parse_spec(config.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn an_error_names_its_field() {
        let error = spec(json!({ "cwd": "/", "user": { "uid": "root", "gid": 0 } }))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("process.user.uid: "), "{error}");
        let error = spec(json!({ "cwd": 5, "user": { "uid": 0, "gid": 0 } }))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("process.cwd: "), "{error}");
    }
}
