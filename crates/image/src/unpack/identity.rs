//! Who unpacks: what it may do to files depends on the user and the user namespace.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, User, getegid, geteuid};

use super::extract::Rights;
use crate::error::{Context, Error, Kind, Result};

/// The user who unpacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The machine's root.
    Root,
    /// Root of a user namespace, with the ids that it has.
    Inside,
    /// An ordinary user with ranges of ids in /etc/subuid and /etc/subgid: the unpacker gets a user namespace with them.
    Ranges,
    /// An ordinary user without: the unpacker's user namespace has one id.
    Own,
}

impl Identity {
    /// The caller's.
    pub(crate) fn current() -> Self {
        if !geteuid().is_root() {
            return match Ranges::of_caller() {
                Some(_) => Identity::Ranges,
                None => Identity::Own,
            };
        }
        // What `runtime` knows too; but neither of the two crates knows the other.
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        match map.split_whitespace().eq(["0", "0", "4294967295"]) {
            true => Identity::Root,
            false => Identity::Inside,
        }
    }

    /// Whether overlayfs works with `user.overlay.…`: `trusted.…` is for the machine's root only.
    pub(crate) fn userxattr(self) -> bool {
        self != Identity::Root
    }

    pub(super) fn rights(self) -> Rights {
        Rights {
            owners: self != Identity::Own,
            devices: self == Identity::Root,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Identity::Root => "root",
            Identity::Inside => "inside",
            Identity::Ranges => "ranges",
            Identity::Own => "own",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [
            Identity::Root,
            Identity::Inside,
            Identity::Ranges,
            Identity::Own,
        ]
        .into_iter()
        .find(|identity| identity.as_str() == name)
    }

    /// In the unpacker: makes the user namespace. `connection` leads to who can map ranges of ids.
    pub(super) fn assume(self, connection: &mut UnixStream) -> Result<()> {
        if matches!(self, Identity::Root | Identity::Inside) {
            return Ok(());
        }
        let (uid, gid) = (geteuid(), getegid());
        unshare(CloneFlags::CLONE_NEWUSER).context(|| "make a user namespace")?;
        if self == Identity::Ranges {
            let mut word = [0];
            return connection
                .write_all(&word)
                .and_then(|()| connection.read_exact(&mut word))
                .context(|| "wait for the ids of the user namespace");
        }
        map_own("self", uid, gid)
    }

    /// Outside: gives the user namespace of `pid` the caller's ranges of ids.
    pub(super) fn map(self, pid: u32) -> Result<()> {
        let ranges = Ranges::of_caller()
            .ok_or_else(|| Error::new(Kind::Failed, "no ranges in /etc/subuid and /etc/subgid"))?;
        for (program, own, range) in [
            ("newuidmap", geteuid().as_raw(), ranges.uids),
            ("newgidmap", getegid().as_raw(), ranges.gids),
        ] {
            let (first, count) = range;
            let numbers = [pid, 0, own, 1, 1, first, count].map(|number| number.to_string());
            let answer = Command::new(program)
                .args(numbers)
                .output()
                .context(|| format!("start {program}"))?;
            if !answer.status.success() {
                let words = String::from_utf8_lossy(&answer.stderr);
                let words = words.trim_end().to_owned();
                return Err(Error::new(Kind::Failed, format!("{program}: {words}")));
            }
        }
        Ok(())
    }
}

/// Gives the user namespace of process `pid`, which one of the caller's processes has made, the ids with which the caller's layers are
/// unpacked.
pub fn map_ids(pid: u32) -> Result<()> {
    match Identity::current() {
        Identity::Ranges => Identity::Ranges.map(pid),
        _ => map_own(&pid.to_string(), geteuid(), getegid()),
    }
}

/// Makes the caller root, and nobody else anybody, in the user namespace of a process.
fn map_own(process: &str, uid: Uid, gid: Gid) -> Result<()> {
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(format!("/proc/{process}/{file}"), text)
            .context(|| format!("map the ids of the user namespace: {file}"))?;
    }
    Ok(())
}

/// First id and number of ids, of users and of groups.
struct Ranges {
    uids: (u32, u32),
    gids: (u32, u32),
}

impl Ranges {
    fn of_caller() -> Option<Self> {
        let uid = geteuid();
        let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
        let number = uid.to_string();
        let range = |file: &str| {
            let text = fs::read_to_string(file).ok()?;
            parse(&text, &[name.as_deref().unwrap_or(&number), &number])
        };
        Some(Ranges {
            uids: range("/etc/subuid")?,
            gids: range("/etc/subgid")?,
        })
    }
}

/// The first range of one of `users`: `user:first:count` (subuid(5)).
fn parse(text: &str, users: &[&str]) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().splitn(3, ':');
        users.contains(&fields.next()?).then_some(())?;
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "other:1:2\nme:100000:65536\n1000:5:6\nbad:x:y\n";
        assert_eq!(parse(text, &["me", "1000"]), Some((100_000, 65_536)));
        assert_eq!(parse(text, &["1000"]), Some((5, 6)));
        assert_eq!(parse(text, &["bad"]), None);
        assert_eq!(parse(text, &["nobody"]), None);
    }
}
