//! The user namespace in which an ordinary user is root over the ids that are theirs: their own, and the ranges of /etc/subuid and
//! /etc/subgid if they have some.
//!
//! `run` and the monitor enter one of their own, with a mount namespace for the overlay; the container gets another one inside it, so that
//! its root has no rights over the monitor. Everybody else stays outside, where the owner of a namespace has all rights over those below
//! it. Nothing keeps a namespace: who needs one that has gone makes another with the same ids.

use std::fs;
use std::io::{ErrorKind, Read, Write, stdin};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{geteuid, getpid, unlink};
use runtime::{Context, Error, Result};
use serde_json::{Value, json};

use super::network::NetworkMode;
use super::of_image;
use super::options::Options;

/// The name under which `coracle` does something for an ordinary user on the other side of a user namespace.
pub(crate) const NAME: &str = "coracle-userns";

/// What it is to do.
const MAP: &str = "map";
const REMOVE: &str = "remove";

/// Whether we are the machine's root, and not one of a user namespace.
pub(crate) fn is_machines_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Refuses what takes the machine's root.
pub(crate) fn check(options: &Options) -> Result<()> {
    let why = match &options.network {
        _ if is_machines_root() => return Ok(()),
        NetworkMode::Container(_) => {
            "--network container:ID takes root: an ordinary user's containers have a user namespace each"
        }
        NetworkMode::Cni(_) => {
            "--network cni:NAME takes root: an ordinary user has bridge, host and none"
        }
        _ if options.ip.is_some() => {
            "--ip takes root: an ordinary user's container has the machine's address"
        }
        _ => return Ok(()),
    };
    Err(Error::invalid(why))
}

/// Makes an ordinary user root in new user and mount namespaces; for who is root already there is nothing to do.
pub(crate) fn enter() -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    // It stays outside, where the ids can be mapped.
    let mut mapper = command()
        .args([MAP, &getpid().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start who maps the ids of the user namespace")?;
    let made = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS);
    if made.is_ok()
        && let Some(stdin) = &mut mapper.stdin
    {
        let _ = stdin.write_all(&[1]);
    }
    let answer = mapper.wait_with_output();
    made.context("make a user namespace (\"coracle check\" says what it takes)")?;
    answered(&answer.context("wait for the ids of the user namespace")?)
}

/// Joins the user namespace of a running container, as its root.
pub(crate) fn join(pid: i32) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let joining = || format!("join the user namespace of process {pid}");
    let namespace = fs::File::open(format!("/proc/{pid}/ns/user")).with_context(joining)?;
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWUSER).with_context(joining)
}

/// A namespace of a process as a file that everybody here may open. What stands in /proc is only for those with all the rights over the
/// process, and pasta gives up some before it looks.
pub(crate) struct Namespace(PathBuf);

impl Namespace {
    /// Until it is dropped the namespace `name` of a process is in `directory`.
    pub(crate) fn of(pid: i32, name: &str, directory: &Path) -> Result<Self> {
        let path = directory.join(format!("{name}.ns"));
        let source = PathBuf::from(format!("/proc/{pid}/ns/{name}"));
        let flags = MsFlags::MS_BIND;
        fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
        mount(Some(&source), &path, None::<&str>, flags, None::<&str>)
            .with_context(|| format!("mount {} at {}", source.display(), path.display()))?;
        Ok(Namespace(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH).and_then(|()| unlink(&self.0));
    }
}

/// Removes a directory whose files may belong to ids of the caller's ranges. One that is not there is fine.
pub(crate) fn remove_dir_all(path: &Path) -> Result<()> {
    let removing = || format!("remove {}", path.display());
    if geteuid().is_root() {
        return match fs::remove_dir_all(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(removing),
            _ => Ok(()),
        };
    }
    // By a process of its own: once in that namespace, we had no rights over other containers any more.
    let answer = command()
        .arg(REMOVE)
        .arg(path)
        .stdin(Stdio::null())
        .output();
    answered(&answer.with_context(removing)?)
}

fn command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).current_dir("/");
    command
}

/// What was wrong is on its standard error.
fn answered(output: &std::process::Output) -> Result<()> {
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

/// What the process called [`NAME`] does.
pub(crate) fn main() -> i32 {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let done = match args.as_slice() {
        [task, pid] if task == MAP => map(&pid.to_string_lossy()),
        [task, path] if task == REMOVE => enter().and_then(|()| remove_dir_all(Path::new(path))),
        _ => Err(Error::invalid("it is for coracle itself")),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

/// Maps the caller's ids as soon as the namespace is there; if it is not to be, the input ends.
fn map(pid: &str) -> Result<()> {
    let pid = pid.parse().map_err(|_| Error::invalid("a pid is wrong"))?;
    match stdin().read_exact(&mut [0]) {
        Ok(()) => image::unpack::map_ids(pid).map_err(of_image),
        Err(_) => Ok(()),
    }
}

/// Changes a configuration for a container inside the user namespace that we are in.
pub(crate) fn adapt(spec: &mut Value, network: &NetworkMode) {
    let (users, groups) = (own_ids("uid_map"), own_ids("gid_map"));
    let last_group = groups.iter().map(|(first, count)| first + count - 1).max();
    let has_group = |gid: u64| {
        let holds = |(first, count): &(u64, u64)| (*first..first + count).contains(&gid);
        groups.iter().any(holds)
    };
    let linux = &mut spec["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.push(json!({ "type": "user" }));
    }
    linux["uidMappings"] = mappings(&users);
    linux["gidMappings"] = mappings(&groups);
    if let Some(range) = linux["sysctl"].get_mut("net.ipv4.ping_group_range") {
        *range = json!(format!("0 {}", last_group.unwrap_or(0)));
    }
    let setgroups = fs::read_to_string("/proc/self/setgroups").unwrap_or_default();
    if let Some(gids) = spec["process"]["user"]["additionalGids"].as_array_mut() {
        let may_have = |gid: &Value| gid.as_u64().is_some_and(has_group);
        gids.retain(|gid| setgroups.trim() != "deny" && may_have(gid));
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if mount["type"] == "sysfs" && *network == NetworkMode::Host {
            // A new one belongs to the network namespace, which is not ours.
            mount["type"] = json!("bind");
            mount["source"] = json!("/sys");
            mount["options"] = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5" || has_group(5));
        }
    }
}

/// First id and number of each range of ids in our own user namespace.
fn own_ids(file: &str) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let range = |line: &str| {
        let mut fields = line.split_whitespace().map(str::parse);
        Some((fields.next()?.ok()?, fields.nth(1)?.ok()?))
    };
    text.lines().filter_map(range).collect()
}

/// The same numbers inside.
fn mappings(ids: &[(u64, u64)]) -> Value {
    ids.iter()
        .map(|(first, count)| json!({ "containerID": first, "hostID": first, "size": count }))
        .collect()
}
