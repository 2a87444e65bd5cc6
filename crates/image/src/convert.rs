//! What an image's configuration means for a container: image-spec's conversion.md, on top of Docker's defaults.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use oci_spec::image::{Config, ImageConfiguration};
use oci_spec::runtime::{Spec, User, UserBuilder};

use crate::defaults;
use crate::error::{Context, Error, Result};
use crate::users::{Groups, Users};

/// What the user wants otherwise than the image says.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Instead of the image's entry point; its command does not count then. An empty one takes the entry point away.
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's command, unless it is empty.
    pub command: Vec<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// Supplementary groups, names or numbers.
    pub groups: Vec<String>,
    /// An absolute path.
    pub cwd: Option<String>,
    /// `NAME=value`, over the image's own.
    pub env: Vec<String>,
    /// The process gets a terminal, and `TERM` with it.
    pub terminal: bool,
}

/// The configuration of a container of this image. `rootfs` is its root file system, for the names of users and groups.
///
/// Labels become annotations, but none that a runtime acts upon: an image has no say in how it is run.
pub fn spec(
    image: &ImageConfiguration,
    rootfs: BorrowedFd<'_>,
    overrides: &Overrides,
) -> Result<Spec> {
    let none = Config::default();
    let config = image.config().as_ref().unwrap_or(&none);
    let name = user_name(config, overrides);
    let (user, home) = user(name, &overrides.groups, rootfs)?;
    let mut spec = defaults::spec();
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(args(config, overrides)?));
    process.set_env(Some(env(config, overrides, &home)?));
    process.set_cwd(cwd(config, overrides)?.into());
    process.set_terminal(overrides.terminal.then_some(true));
    if user.uid() != 0 {
        // As after setuid(2): the bounding set says what a setuid program may get.
        let mut capabilities = process.capabilities().clone().unwrap_or_default();
        capabilities.set_effective(Some(Default::default()));
        capabilities.set_permitted(Some(Default::default()));
        process.set_capabilities(Some(capabilities));
    }
    process.set_user(user);
    spec.set_process(Some(process));
    spec.set_annotations(Some(annotations(image, config)));
    Ok(spec)
}

/// What [`spec`] would refuse, as far as that can be said without the image's files.
pub fn check(image: &ImageConfiguration, overrides: &Overrides) -> Result<()> {
    let none = Config::default();
    let config = image.config().as_ref().unwrap_or(&none);
    args(config, overrides)?;
    env(config, overrides, "/")?;
    cwd(config, overrides)?;
    for id in user_name(config, overrides).split(':') {
        number(id)?;
    }
    Ok(())
}

/// The image says itself what to run.
pub fn has_command(image: &ImageConfiguration) -> bool {
    let none = Config::default();
    let config = image.config().as_ref().unwrap_or(&none);
    args(config, &Overrides::default()).is_ok()
}

/// Where an image wants volumes: absolute paths, each once, in order.
pub fn volumes(image: &ImageConfiguration) -> Result<Vec<String>> {
    let config = image.config().as_ref();
    let mut volumes = config
        .and_then(|config| config.volumes().clone())
        .unwrap_or_default();
    for volume in &volumes {
        absolute("Volumes", volume)?;
    }
    volumes.sort();
    volumes.dedup();
    Ok(volumes)
}

/// The signal by which an image wants to be stopped, as it is written there.
pub fn stop_signal(image: &ImageConfiguration) -> Option<&str> {
    let signal = image.config().as_ref()?.stop_signal().as_deref()?;
    Some(signal).filter(|signal| !signal.is_empty())
}

fn user_name<'a>(config: &'a Config, overrides: &'a Overrides) -> &'a str {
    let user = overrides.user.as_ref().or(config.user().as_ref());
    user.map_or("", String::as_str)
}

/// `Entrypoint` and `Cmd`, one behind the other.
fn args(config: &Config, overrides: &Overrides) -> Result<Vec<String>> {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (mut args, mut command) = match &overrides.entrypoint {
        Some(entrypoint) => {
            let kept = entrypoint.iter().filter(|word| !word.is_empty());
            (kept.cloned().collect(), Vec::new())
        }
        None => (list(config.entrypoint()), list(config.cmd())),
    };
    if !overrides.command.is_empty() {
        command = overrides.command.clone();
    }
    args.extend(command);
    match args.is_empty() {
        true => Err(Error::invalid(
            "the image has neither Entrypoint nor Cmd: say what to run",
        )),
        false => Ok(args),
    }
}

/// The image's environment, then the user's; `PATH`, `HOME` and `TERM` only where neither has them.
fn env(config: &Config, overrides: &Overrides, home: &str) -> Result<Vec<String>> {
    let mut env: Vec<String> = Vec::new();
    let own = config.env().iter().flatten();
    let given = own
        .map(|entry| ("config.Env", entry))
        .chain(overrides.env.iter().map(|entry| ("environment", entry)));
    for (field, entry) in given {
        let name = match entry.split_once('=') {
            Some((name, _)) if !name.is_empty() => name,
            _ => {
                return Err(Error::invalid(format!(
                    "{field}: {entry:?} is not NAME=value"
                )));
            }
        };
        match env.iter_mut().find(|other| is_named(other, name)) {
            Some(other) => other.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
    let term = overrides.terminal.then_some(("TERM", "xterm"));
    let missing = [("PATH", defaults::PATH), ("HOME", home)];
    for (name, value) in missing.into_iter().chain(term) {
        if !env.iter().any(|entry| is_named(entry, name)) {
            env.push(format!("{name}={value}"));
        }
    }
    Ok(env)
}

fn is_named(entry: &str, name: &str) -> bool {
    entry
        .strip_prefix(name)
        .is_some_and(|rest| rest.starts_with('='))
}

fn cwd(config: &Config, overrides: &Overrides) -> Result<String> {
    let own = config
        .working_dir()
        .as_ref()
        .map(|dir| ("config.WorkingDir", dir));
    let wanted = overrides.cwd.as_ref().map(|dir| ("working directory", dir));
    match wanted.or(own) {
        Some((field, dir)) if !dir.is_empty() => {
            absolute(field, dir)?;
            Ok(dir.clone())
        }
        _ => Ok("/".to_owned()),
    }
}

fn absolute(field: &str, path: &str) -> Result<()> {
    match path.starts_with('/') && !path.contains('\0') {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{field}: {path:?} is not an absolute path"
        ))),
    }
}

/// Labels, over what else the image says of itself.
fn annotations(image: &ImageConfiguration, config: &Config) -> HashMap<String, String> {
    let mut annotations = HashMap::new();
    let ports = config.exposed_ports().as_ref().map(|ports| ports.join(","));
    for (name, value) in [
        ("os", Some(image.os().to_string())),
        ("architecture", Some(image.architecture().to_string())),
        ("variant", image.variant().clone()),
        ("os.version", image.os_version().clone()),
        ("author", image.author().clone()),
        ("created", image.created().clone()),
        ("stopSignal", config.stop_signal().clone()),
        ("exposedPorts", ports),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            annotations.insert(format!("org.opencontainers.image.{name}"), value);
        }
    }
    let labels = config.labels().clone().unwrap_or_default();
    annotations.extend(labels.into_iter().filter(|(name, _)| !steers(name)));
    annotations
}

/// Annotations by which runc, crun or their neighbours (CRI-O, Kata, criu) change what they do.
fn steers(name: &str) -> bool {
    const PREFIXES: [&str; 7] = [
        "org.systemd.property.",
        "org.criu.",
        "run.oci.",
        "module.wasm.",
        "io.kubernetes.cri-o.",
        "io.katacontainers.",
        "io.podman.",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The ids of `user[:group]`, names or numbers, as the root file system `rootfs` knows them: with the supplementary groups, to which
/// `groups` are added, and the home directory.
pub fn user(text: &str, groups: &[String], rootfs: BorrowedFd<'_>) -> Result<(User, String)> {
    resolve_user(text, groups, rootfs).context(|| format!("user {text:?}"))
}

fn resolve_user(text: &str, groups: &[String], rootfs: BorrowedFd<'_>) -> Result<(User, String)> {
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let users = Users::read(rootfs)?;
    let number = number(name)?;
    let found = match number {
        Some(uid) => users.by_id(uid),
        None => users.by_name(name),
    };
    let uid = match (number, &found) {
        (Some(uid), _) => uid,
        (None, Some(user)) => user.uid,
        (None, None) => return Err(Error::invalid("no such user in the image's /etc/passwd")),
    };
    let known = match group.is_some() || found.is_some() || !groups.is_empty() {
        true => Groups::read(rootfs)?,
        false => Groups::default(),
    };
    let gid = match group {
        Some(group) => known.id(group)?,
        None => found.as_ref().map_or(0, |user| user.gid),
    };
    // As in Docker: an explicit group stands alone.
    let mut gids = match (&found, group) {
        (Some(user), None) => known.with_member(&user.name),
        _ => Vec::new(),
    };
    for group in groups {
        gids.push(known.id(group)?);
    }
    gids.sort_unstable();
    gids.dedup();
    let mut user = UserBuilder::default()
        .uid(uid)
        .gid(gid)
        .build()
        .context(|| "ids")?;
    if !gids.is_empty() {
        user.set_additional_gids(Some(gids));
    }
    let home = found.map(|user| user.home).filter(|home| !home.is_empty());
    Ok((user, home.unwrap_or_else(|| "/".to_owned())))
}

/// An id that is written as a number; a number that is no id is an error and not a name.
pub(crate) fn number(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= i32::MAX as u32 => Ok(Some(id)),
        _ => Err(Error::invalid(format!("id {text} is out of range"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    fn image(config: serde_json::Value) -> ImageConfiguration {
        serde_json::from_value(serde_json::json!({
            "architecture": "amd64", "os": "linux", "author": "somebody", "config": config,
            "rootfs": { "type": "layers", "diff_ids": [] },
        }))
        .unwrap()
    }

    /// With users in its root file system.
    fn convert(config: serde_json::Value, overrides: &Overrides) -> Result<Spec> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nweb:x:33:44:Web:/srv:/bin/sh\n77:x:1:1::/odd:\n4294967296:x:0:0::/:\n";
        fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        fs::write(
            dir.path().join("etc/group"),
            "wheel:x:10:web,x\nstaff:x:50:\n",
        )
        .unwrap();
        spec(
            &image(config),
            File::open(dir.path()).unwrap().as_fd(),
            overrides,
        )
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_come_from_both() {
        let both = serde_json::json!({ "Entrypoint": ["/e"], "Cmd": ["a", "b"] });
        let entrypoint = |text: &str| Some(words(text));
        for (overrides, wanted) in [
            (Overrides::default(), "/e a b"),
            (
                Overrides {
                    command: words("c"),
                    ..Default::default()
                },
                "/e c",
            ),
            (
                Overrides {
                    entrypoint: entrypoint("/x"),
                    ..Default::default()
                },
                "/x",
            ),
            (
                Overrides {
                    entrypoint: entrypoint("/x"),
                    command: words("c"),
                    ..Default::default()
                },
                "/x c",
            ),
            (
                Overrides {
                    entrypoint: entrypoint(""),
                    command: words("c"),
                    ..Default::default()
                },
                "c",
            ),
        ] {
            let spec = convert(both.clone(), &overrides).unwrap();
            let args = spec.process().as_ref().unwrap().args().clone();
            assert_eq!(args.unwrap(), words(wanted));
        }
        assert!(convert(serde_json::json!({}), &Overrides::default()).is_err());
    }

    #[test]
    fn what_an_image_says_wrong_is_known_before_its_files_are_there() {
        let mut rows = serde_json::json!([
            {}, { "Cmd": ["x"], "Env": ["A"] }, { "Cmd": ["x"], "WorkingDir": "x" },
            { "Cmd": ["x"], "User": "4294967296" }, { "Cmd": ["x"], "User": "web:4294967296" },
        ]);
        for config in rows.as_array_mut().unwrap() {
            let wrong = image(config.clone());
            assert!(check(&wrong, &Overrides::default()).is_err(), "{config}");
            *config = serde_json::json!({ "Cmd": ["x"], "User": "web:wheel" });
            assert!(check(&image(config.take()), &Overrides::default()).is_ok());
        }
    }

    // CVE-2024-40635, CVE-2026-46680: a number that is no id is neither another id nor a name. Proved with a number that is cut off, and with one
    // that is taken for a name.
    #[test]
    fn users_are_found_in_the_image() {
        for (user, wanted) in [
            ("", Some((0, 0, vec![], "/root"))),
            ("0", Some((0, 0, vec![], "/root"))),
            ("web", Some((33, 44, vec![10], "/srv"))),
            ("33", Some((33, 44, vec![10], "/srv"))),
            ("web:staff", Some((33, 50, vec![], "/srv"))),
            ("web:7", Some((33, 7, vec![], "/srv"))),
            ("1234", Some((1234, 0, vec![], "/"))),
            ("1234:", Some((1234, 0, vec![], "/"))),
            // A number is never a name.
            ("77", Some((77, 0, vec![], "/"))),
            ("nobody", None),
            ("web:nogroup", None),
            ("4294967296", None),
            ("2147483648", None),
            ("0:4294967296", None),
            ("-1", None),
        ] {
            let config = serde_json::json!({ "User": user, "Cmd": ["x"] });
            let found = convert(config, &Overrides::default()).ok().map(|spec| {
                let process = spec.process().clone().unwrap();
                let user = process.user();
                let gids = user.additional_gids().clone().unwrap_or_default();
                let env = process.env().clone().unwrap();
                let home = env.iter().find_map(|entry| entry.strip_prefix("HOME="));
                (user.uid(), user.gid(), gids, home.unwrap().to_owned())
            });
            let wanted = wanted.map(|(uid, gid, gids, home)| (uid, gid, gids, home.to_owned()));
            assert_eq!(found, wanted, "{user}");
        }
    }

    // CVE-2026-57231: an entry without a value must not get the host's. Proved with such entries passed on.
    #[test]
    fn the_environment_is_the_images_and_the_users() {
        let config = serde_json::json!({ "Cmd": ["x"], "Env": ["A=1", "PATH=/p", "B="] });
        let overrides = Overrides {
            env: words("A=2 C=3"),
            terminal: true,
            ..Default::default()
        };
        let spec = convert(config, &overrides).unwrap();
        let env = spec.process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(env, words("A=2 PATH=/p B= C=3 HOME=/root TERM=xterm"));
        for bad in ["SECRET", "", "=x"] {
            let config = serde_json::json!({ "Cmd": ["x"], "Env": [bad] });
            assert!(convert(config, &Overrides::default()).is_err(), "{bad:?}");
        }
    }

    // CVE-2026-53488. Proved with every label passed on.
    #[test]
    fn labels_describe_and_do_not_steer() {
        let config = serde_json::json!({ "Cmd": ["x"], "WorkingDir": "", "StopSignal": "SIGINT", "Labels": {
            "a": "b", "org.opencontainers.image.author": "label", "run.oci.keep_original_groups": "1" } });
        let spec = convert(config, &Overrides::default()).unwrap();
        let annotations = spec.annotations().clone().unwrap();
        let get = |name: &str| annotations.get(name).map(String::as_str);
        assert_eq!(get("a"), Some("b"));
        assert_eq!(get("org.opencontainers.image.author"), Some("label"));
        assert_eq!(get("org.opencontainers.image.stopSignal"), Some("SIGINT"));
        assert_eq!(get("run.oci.keep_original_groups"), None);
        assert_eq!(spec.process().as_ref().unwrap().cwd().to_str(), Some("/"));
        let relative = serde_json::json!({ "Cmd": ["x"], "WorkingDir": "../x" });
        assert!(convert(relative, &Overrides::default()).is_err());
    }

    // GO-2026-5475, CVE-2026-47262. Proved with links that lead out of the root, without the look at the kind of file, and without the bound.
    #[test]
    fn the_files_of_users_are_regular_and_bounded() {
        let read = |prepare: &dyn Fn(&std::path::Path)| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("etc")).unwrap();
            prepare(&dir.path().join("etc/passwd"));
            let config = image(serde_json::json!({ "User": "root", "Cmd": ["x"] }));
            let root = File::open(dir.path()).unwrap();
            spec(&config, root.as_fd(), &Overrides::default()).map_err(|error| error.to_string())
        };
        let refused = |why: &str, prepare: &dyn Fn(&std::path::Path)| {
            let error = read(prepare).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        // The host's own has a root.
        refused("too many symbolic links", &|path| {
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap()
        });
        refused("not a regular file", &|path| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()
        });
        refused("more than", &|path| {
            File::create(path).unwrap().set_len(1 << 30).unwrap()
        });
        assert!(read(&|path| fs::write(path, "root:x:0:0::/:").unwrap()).is_ok());
    }
}
