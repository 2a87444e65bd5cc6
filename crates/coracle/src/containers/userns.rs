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
use nix::sys::stat::FileStat;
use nix::unistd::{Gid, Uid, getegid, geteuid, getpid, unlink};
use runtime::{Context, Error, Result, is_machines_root};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::network::NetworkMode;
use super::of_image;
use super::options::Options;
use crate::logging::to_stderr;

/// `--userns`: which ids a container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum UserNamespace {
    /// Those of who runs it.
    #[default]
    Host,
    /// [`COUNT`] of its own, from this one on.
    Auto(u32),
    /// An ordinary user's, where this user and group are themselves.
    KeepId(u32, u32),
}

/// How many ids `--userns auto` gives to a container.
pub(crate) const COUNT: u32 = 65_536;
/// Where they come from when nobody is called `containers` in /etc/subuid: what systemd's table of users leaves unused.
const UNUSED: (u32, u32) = (0x7000_0000, 0x0ffe_0000);

impl UserNamespace {
    /// Of the ids only a new container's directory decides.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, &'static str> {
        let root = is_machines_root();
        match text {
            "" | "host" => Ok(UserNamespace::Host),
            "auto" if root => Ok(UserNamespace::Auto(0)),
            "auto" => Err("it takes root, who has ids to give away"),
            "keep-id" if root => Err("it is for ordinary users: root is root in any container"),
            "keep-id" => Ok(UserNamespace::KeepId(
                geteuid().as_raw(),
                getegid().as_raw(),
            )),
            _ => Err("expected host, auto or keep-id"),
        }
    }

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            UserNamespace::Host => "host",
            UserNamespace::Auto(_) => "auto",
            UserNamespace::KeepId(..) => "keep-id",
        }
    }

    /// Who the container's process is, unless somebody else is asked for.
    pub(crate) fn user(self) -> Option<String> {
        match self {
            UserNamespace::KeepId(uid, gid) => Some(format!("{uid}:{gid}")),
            UserNamespace::Host | UserNamespace::Auto(_) => None,
        }
    }

    /// Whether the container has a user namespace.
    pub(crate) fn is_new(self) -> bool {
        self != UserNamespace::Host || !is_machines_root()
    }

    /// The container's user namespace, from inside the one that we are in by now; `None` for none.
    fn ids(self) -> Option<[Vec<Range>; 2]> {
        let own = || ["uid_map", "gid_map"].map(own_ids);
        match self {
            _ if !self.is_new() => None,
            UserNamespace::Host => Some(own().map(|counts| {
                let same = |(first, count)| (first, first, count);
                counts.into_iter().map(same).collect()
            })),
            UserNamespace::Auto(first) => {
                let all = vec![(0, u64::from(first), u64::from(COUNT))];
                Some([all.clone(), all])
            }
            UserNamespace::KeepId(uid, gid) => {
                let [uids, gids] = own().map(|counts| counts.iter().map(|range| range.1).sum());
                Some([kept(uid.into(), uids), kept(gid.into(), gids)])
            }
        }
    }
}

/// So many ids from the second on are the first and the following in a container.
type Range = (u64, u64, u64);

/// Of the ids up to `count` ours is 0: it becomes `id`, and those before it go up by one.
fn kept(id: u64, count: u64) -> Vec<Range> {
    let before = id.min(count - 1);
    let ranges = [
        (0, 1, before),
        (id, 0, 1),
        (id + 1, before + 1, count - 1 - before),
    ];
    ranges.into_iter().filter(|range| range.2 > 0).collect()
}

/// The first of [`COUNT`] ids that no container in `taken` has.
pub(crate) fn free_ids(taken: &[u32]) -> Result<u32> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let ranges = id_ranges(&read("/etc/subuid"), &read("/etc/subgid"))?;
    let firsts = ranges
        .iter()
        .flat_map(|(first, count)| (*first..first.saturating_add(*count)).step_by(COUNT as usize));
    let fits = |id: &u32| {
        let end = id.saturating_add(COUNT);
        let inside =
            |(first, count): &(u32, u32)| *first <= *id && end <= first.saturating_add(*count);
        ranges.iter().any(inside) && taken.iter().all(|other| id.abs_diff(*other) >= COUNT)
    };
    firsts.into_iter().find(fits).ok_or_else(|| {
        Error::failed(format!(
            "--userns auto: no {COUNT} ids are free among those of the user containers in /etc/subuid: other containers have them"
        ))
    })
}

/// What the user `containers` has, as with podman.
fn id_ranges(subuid: &str, subgid: &str) -> Result<Vec<(u32, u32)>> {
    let [uids, gids] = [subuid, subgid].map(|text| -> Vec<(u32, u32)> {
        let ranges = text
            .lines()
            .filter_map(|line| line.strip_prefix("containers:"));
        let numbers = ranges.filter_map(|range| range.split_once(':'));
        let parsed = numbers.filter_map(|(first, count)| {
            Some((first.parse().ok()?, count.trim_end().parse().ok()?))
        });
        parsed.collect()
    });
    match (uids, gids) {
        (uids, gids) if uids != gids => Err(Error::failed(
            "--userns auto: the ranges of the user containers differ in /etc/subuid and /etc/subgid",
        )),
        (none, _) if none.is_empty() => Ok(vec![UNUSED]),
        (ranges, _) => Ok(ranges),
    }
}

/// The name under which `coracle` does something for an ordinary user on the other side of a user namespace.
pub(crate) const NAME: &str = "coracle-userns";

/// What it is to do.
const MAP: &str = "map";
const REMOVE: &str = "remove";

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
    let done = match runtime::arguments().get(1..).unwrap_or_default() {
        [task, pid] if task == MAP => map(&pid.to_string_lossy()),
        [task, path] if task == REMOVE => enter().and_then(|()| remove_dir_all(Path::new(path))),
        _ => Err(Error::invalid("it is for coracle itself")),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            to_stderr(&error.to_string());
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

/// Changes a configuration for a container with a user namespace.
pub(crate) fn adapt(spec: &mut Value, namespace: UserNamespace, network: &NetworkMode) {
    let Some([users, groups]) = namespace.ids() else {
        return;
    };
    let last_group = groups
        .iter()
        .map(|(first, _, count)| first + count - 1)
        .max();
    let has_group = |gid: u64| {
        let holds = |(first, _, count): &Range| (*first..first + count).contains(&gid);
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
        let shares = matches!(network, NetworkMode::Host | NetworkMode::Container(_));
        if mount["type"] == "sysfs" && shares {
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

fn mappings(ranges: &[Range]) -> Value {
    ranges
        .iter()
        .map(|(inside, outside, count)| json!({ "containerID": inside, "hostID": outside, "size": count }))
        .collect()
}

/// Makes the files of an image those of the same ids in a container: as it was unpacked, the user's own are its root's. Each is copied into
/// the container's own layer, since an ordinary user cannot mount it with other ids.
pub(crate) fn give_files(rootfs: &Path, namespace: UserNamespace) -> Result<()> {
    let (UserNamespace::KeepId(..), Some([users, groups])) = (namespace, namespace.ids()) else {
        return Ok(());
    };
    if users.len() == 1 || groups.len() == 1 {
        return Err(Error::failed(
            "--userns keep-id takes ranges of ids for the user in /etc/subuid and /etc/subgid (\"coracle check\" looks)",
        ));
    }
    let outside = |ranges: &[Range], id: u32| {
        let id = u64::from(id);
        let range = ranges
            .iter()
            .find(|(first, _, count)| (*first..first + count).contains(&id));
        range.map_or(id, |(first, outside, _)| outside + id - first) as u32
    };
    let owner = |status: &FileStat| {
        let uid = Uid::from_raw(outside(&users, status.st_uid));
        (
            Some(uid),
            Some(Gid::from_raw(outside(&groups, status.st_gid))),
        )
    };
    super::files::change_owners(super::files::open_directory(rootfs)?, &owner)
        .context("--userns keep-id: give the image's files other owners")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_id_is_itself_and_every_other_has_one() {
        assert_eq!(
            kept(1000, 65_537),
            [(0, 1, 1000), (1000, 0, 1), (1001, 1001, 64_536)]
        );
        assert_eq!(kept(0, 5), [(0, 0, 1), (1, 1, 4)]);
        // Beyond the ids there are.
        assert_eq!(kept(100_000, 3), [(0, 1, 2), (100_000, 0, 1)]);
        assert_eq!(kept(1000, 1), [(1000, 0, 1)]);
    }

    #[test]
    fn ranges_are_those_of_the_user_containers() {
        let file = "me:100000:65536\ncontainers:200000:131072\ncontainers:bad\n";
        assert_eq!(id_ranges(file, file).unwrap(), [(200_000, 131_072)]);
        assert_eq!(id_ranges("", "me:1:2").unwrap(), [UNUSED]);
        let error = id_ranges(file, "").unwrap_err().to_string();
        assert!(error.contains("differ"), "{error}");
    }

    #[test]
    fn an_ordinary_users_configuration_has_no_id_that_is_not_mapped() {
        let mut spec = json!({
            "linux": { "namespaces": [], "sysctl": { "net.ipv4.ping_group_range": "0 2147483647" } },
            "process": { "user": { "additionalGids": [4, 70_000] } },
            "mounts": [{ "type": "sysfs", "options": ["ro"] }, { "type": "devpts", "options": ["gid=5"] }],
        });
        adapt(&mut spec, UserNamespace::Auto(500_000), &NetworkMode::Host);
        let all = json!([{ "containerID": 0, "hostID": 500_000, "size": COUNT }]);
        assert_eq!(spec["linux"]["uidMappings"], all);
        assert_eq!(spec["linux"]["gidMappings"], all);
        assert_eq!(
            spec["linux"]["sysctl"]["net.ipv4.ping_group_range"],
            "0 65535"
        );
        assert_eq!(spec["process"]["user"]["additionalGids"], json!([4]));
        assert_eq!(spec["mounts"][0]["type"], "bind");
        assert_eq!(spec["mounts"][1]["options"], json!(["gid=5"]));
    }
}
