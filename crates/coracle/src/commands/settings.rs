//! The global flags as the library wants them.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, geteuid};
use runtime::{CgroupManager, Context, Settings, is_machines_root};

use crate::Failure;
use crate::flags::{Flags, boolean};

/// Reads the global flags; looks at the host only for what they leave open.
pub(super) fn from(globals: &Flags) -> Result<Settings, Failure> {
    let cgroup_manager = match globals.text("cgroup-manager") {
        None if globals.is_set("systemd-cgroup") => CgroupManager::Systemd,
        None | Some("cgroupfs") => CgroupManager::Cgroupfs,
        Some("systemd") => CgroupManager::Systemd,
        Some("disabled") => CgroupManager::Disabled,
        Some(other) => return Err(Failure::new(format!("unknown cgroup manager {other:?}"))),
    };
    let root = match globals.text("root") {
        Some(root) => std::path::absolute(root).with_context(|| format!("find {root}"))?,
        None => default_root()?,
    };
    Ok(Settings {
        root,
        cgroup_manager,
        rootless: rootless(globals.text("rootless"))?,
    })
}

/// `None` leaves it to what the runtime finds.
fn rootless(value: Option<&str>) -> Result<Option<bool>, Failure> {
    match value {
        None | Some("auto") => Ok(None),
        Some(text) => boolean(text)
            .map(Some)
            .ok_or_else(|| Failure::new(format!("invalid value {text:?} for --rootless"))),
    }
}

/// Where the state is kept when nobody says so.
fn default_root() -> Result<PathBuf, Failure> {
    let user = geteuid();
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR")
        .filter(|dir| !dir.is_empty())
        .or_else(|| login_directory(user));
    match runtime_dir {
        Some(dir) if !has_the_machines_places() => match Path::new(&dir).is_absolute() {
            true => Ok(Path::new(&dir).join("coracle")),
            false => Err(Failure::new(format!(
                "XDG_RUNTIME_DIR is {dir:?}, which is not absolute: name a directory for the state of containers with --root"
            ))),
        },
        None if !user.is_root() => Err(Failure::new(
            "XDG_RUNTIME_DIR is not set: name a directory for the state of containers with --root",
        )),
        _ => Ok("/run/coracle".into()),
    }
}

/// What `XDG_RUNTIME_DIR` is for a user who has logged in, also where su(1) or sudo(8) have not set it.
fn login_directory(user: Uid) -> Option<OsString> {
    if user.is_root() {
        return None;
    }
    let path = format!("/run/user/{user}");
    let is_own = std::fs::metadata(&path).is_ok_and(|found| found.uid() == user.as_raw());
    is_own.then(|| path.into())
}

/// Where images are kept: `--store`, or the user's place for data.
#[cfg(feature = "network")]
pub(super) fn store(globals: &Flags) -> Result<PathBuf, Failure> {
    if let Some(store) = globals.text("store") {
        return Ok(std::path::absolute(store).with_context(|| format!("find {store}"))?);
    }
    if has_the_machines_places() {
        return Ok("/var/lib/coracle".into());
    }
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("coracle"))
        .ok_or_else(|| Failure::new("HOME is not set: name a directory for images with --store"))
}

/// Whether /run and /var are ours. They are not root's of a user namespace (`podman unshare`); but, as runc's rule says, in a
/// container that was started by a proper login as root, USER is root.
fn has_the_machines_places() -> bool {
    let logged_in = || std::env::var_os("USER").is_some_and(|user| user == "root");
    is_machines_root() || geteuid().is_root() && logged_in()
}
