//! Namespaces, each tried; user namespaces with what makes them useful.

use std::fs;

use nix::unistd::{Pid, User, getegid, geteuid};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

use super::Check;
use super::attempt::{attempt, cut_off, isolated};
use crate::idmap::Mappings;
use crate::namespaces::{CLONE_NEWTIME, KINDS, file};
use crate::procfs::Procfs;
use crate::{Result, userns};

/// The names of the checks, in the order of [`KINDS`].
const NAMES: [&str; 8] = [
    "namespace.user",
    "namespace.ipc",
    "namespace.uts",
    "namespace.network",
    "namespace.pid",
    "namespace.cgroup",
    "namespace.time",
    "namespace.mount",
];

/// What a container can do without.
const OPTIONAL: [i32; 3] = [libc::CLONE_NEWCGROUP, CLONE_NEWTIME, libc::CLONE_NEWNET];

/// The user namespace's first: without root's rights everything else takes one.
pub(super) fn checks(user: Check, has_rights: bool) -> Vec<Check> {
    let mut checks = vec![user];
    for ((kind, _, flag), name) in KINDS.into_iter().zip(NAMES).skip(1) {
        let check = match has_rights {
            true => one(name, kind, flag),
            false => Check::needs_user(name),
        };
        checks.push(match OPTIONAL.contains(&flag) {
            true => check,
            false => check.essential(),
        });
    }
    checks.push(ids());
    checks
}

fn one(name: &'static str, kind: &str, flag: i32) -> Check {
    if !fs::exists(format!("/proc/self/ns/{}", file(kind))).unwrap_or(false) {
        return Check::missing(
            name,
            "not in this kernel",
            format!("containers with a {kind} namespace need a kernel that has them."),
        );
    }
    let tried = match flag {
        // Only unshare(2) makes one.
        CLONE_NEWTIME => isolated(0, || crate::sys::process::unshare(CLONE_NEWTIME)),
        flag => isolated(flag, || Ok(())),
    };
    match tried {
        Ok(()) => Check::ok(name, limit(kind)),
        Err(error) => Check::missing(
            name,
            error.to_string(),
            format!("containers with a {kind} namespace need it."),
        ),
    }
}

fn limit(kind: &str) -> String {
    match userns::maximum(kind) {
        Some(most) => format!("up to {most}"),
        None => "no limit known".into(),
    }
}

/// Made, mapped, and used for what every container does first.
pub(super) fn user() -> Check {
    let name = "namespace.user";
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let made = Mappings::new(Some(&[mapping(0, uid, 1)]), Some(&[mapping(0, gid, 1)]))
        .and_then(|mappings| in_user_namespace(&mappings));
    let check = match made {
        Ok(()) => Check::ok(name, limit("user")),
        Err(error) => {
            let reason = userns::without_rights();
            Check::missing(
                name,
                error.to_string(),
                reason.unwrap_or_else(|| {
                    "no container of an ordinary user runs without them.".into()
                }),
            )
        }
    };
    match userns::privileged() {
        true => check,
        false => check.essential(),
    }
}

fn in_user_namespace(mappings: &Mappings) -> Result<()> {
    let procfs = Procfs::open()?;
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    attempt(flags, |pid: Pid| mappings.write(&procfs, pid), cut_off)
}

/// The ranges of /etc/subuid and /etc/subgid, by the programs that map them.
fn ids() -> Check {
    let name = "ids";
    let user = geteuid();
    if user.is_root() {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let mapped: u64 = map
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok())
            .sum();
        return Check::ok(name, format!("{mapped} ids, all of this user namespace"));
    }
    let account = User::from_uid(user)
        .ok()
        .flatten()
        .map_or_else(|| user.to_string(), |user| user.name);
    let ranges = |file: &str| {
        first_range(
            &fs::read_to_string(file).unwrap_or_default(),
            &account,
            user.as_raw(),
        )
    };
    let (Some((first_uid, uids)), Some((first_gid, gids))) =
        (ranges("/etc/subuid"), ranges("/etc/subgid"))
    else {
        return Check::limited(
            name,
            "one id, the user's own",
            format!(
                "/etc/subuid or /etc/subgid gives {account} no ids: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {account}."
            ),
        );
    };
    let tried = Mappings::new(
        Some(&[mapping(0, user.as_raw(), 1), mapping(1, first_uid, 1)]),
        Some(&[mapping(0, getegid().as_raw(), 1), mapping(1, first_gid, 1)]),
    )
    .and_then(|mappings| in_user_namespace(&mappings));
    match tried {
        Ok(()) => Check::ok(
            name,
            format!("{uids} uids and {gids} gids by newuidmap and newgidmap"),
        ),
        Err(error) => Check::limited(name, "one id, the user's own", format!("{error}.")),
    }
}

fn mapping(container: u32, host: u32, size: u32) -> LinuxIdMapping {
    LinuxIdMappingBuilder::default()
        .container_id(container)
        .host_id(host)
        .size(size)
        .build()
        .unwrap_or_default()
}

/// The first range of a user, known by name or number (subuid(5)), and how many ids all of them have.
fn first_range(file: &str, account: &str, id: u32) -> Option<(u32, u64)> {
    let mut ranges = file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let is_ours = !owner.is_empty() && (owner == account || owner.parse() == Ok(id));
        let (first, count) = (
            fields.next()?.parse().ok()?,
            fields.next()?.trim().parse::<u64>().ok()?,
        );
        (is_ours && count > 0).then_some((first, count))
    });
    let (first, count) = ranges.next()?;
    Some((first, count + ranges.map(|(_, count)| count).sum::<u64>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let file = "root:1:2\nann:100000:65536\n1000:300000:10\nann:500000:1\nbad\n";
        assert_eq!(first_range(file, "ann", 7), Some((100_000, 65_537)));
        assert_eq!(first_range(file, "", 1000), Some((300_000, 10)));
        assert_eq!(first_range(file, "bob", 8), None);
    }

    #[test]
    fn names_are_those_of_the_kinds() {
        for ((kind, ..), name) in KINDS.into_iter().zip(NAMES) {
            assert_eq!(name, format!("namespace.{kind}"));
        }
    }
}
