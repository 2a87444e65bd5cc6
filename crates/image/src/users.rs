//! `/etc/passwd` and `/etc/group` of an image: read inside its root only, regular files only, and not without end.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::convert::number;
use crate::error::{Context, Error, Result};
use crate::unpack::open_inside;

/// How large these files may be: a million users are a mistake or an attack.
const LARGEST: u64 = 16 << 20;

/// One line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
}

/// The users of an image.
#[derive(Debug)]
pub(crate) struct Users(Vec<Account>);

impl Users {
    pub(crate) fn read(rootfs: BorrowedFd<'_>) -> Result<Self> {
        let text = read(rootfs, "etc/passwd")?;
        Ok(Users(text.lines().filter_map(account).collect()))
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Account> {
        self.0.iter().find(|account| account.name == name).cloned()
    }

    pub(crate) fn by_id(&self, uid: u32) -> Option<Account> {
        self.0.iter().find(|account| account.uid == uid).cloned()
    }
}

/// The groups of an image: name, id, members.
#[derive(Debug, Default)]
pub(crate) struct Groups(Vec<(String, u32, Vec<String>)>);

impl Groups {
    pub(crate) fn read(rootfs: BorrowedFd<'_>) -> Result<Self> {
        let text = read(rootfs, "etc/group")?;
        Ok(Groups(text.lines().filter_map(group).collect()))
    }

    /// The id of a group by its name, or the number itself.
    pub(crate) fn id(&self, group: &str) -> Result<u32> {
        if let Some(gid) = number(group).context(|| format!("group {group:?}"))? {
            return Ok(gid);
        }
        let found = self.0.iter().find(|(name, ..)| name == group);
        found.map(|(_, gid, _)| *gid).ok_or_else(|| {
            Error::invalid(format!(
                "group {group:?}: no such group in the image's /etc/group"
            ))
        })
    }

    /// The groups that a user is in besides the one that stands in `/etc/passwd`.
    pub(crate) fn with_member(&self, user: &str) -> Vec<u32> {
        let member = |members: &[String]| members.iter().any(|member| member == user);
        let groups = self.0.iter().filter(|(.., members)| member(members));
        groups.map(|(_, gid, _)| *gid).collect()
    }
}

/// What both files would hold; no id in there is one that C libraries take for none.
#[cfg(fuzzing)]
pub(crate) fn parse(text: &str) {
    let users = Users(text.lines().filter_map(account).collect());
    let groups = Groups(text.lines().filter_map(group).collect());
    for account in &users.0 {
        assert!(account.uid <= i32::MAX as u32 && account.gid <= i32::MAX as u32);
        assert_eq!(
            users.by_name(&account.name).map(|found| found.name),
            Some(account.name.clone())
        );
        let _ = (users.by_id(account.uid), groups.with_member(&account.name));
    }
    for (name, ..) in &groups.0 {
        let _ = groups.id(name);
    }
}

/// `name:password:uid:gid:comment:home:shell`; lines that are none are passed over, as the C library does.
fn account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let uid = id(fields.nth(1)?)?;
    let gid = id(fields.next()?)?;
    let home = fields.nth(1).unwrap_or_default().to_owned();
    Some(Account {
        name,
        uid,
        gid,
        home,
    })
}

/// `name:password:gid:member,member`.
fn group(line: &str) -> Option<(String, u32, Vec<String>)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let gid = id(fields.nth(1)?)?;
    let members = fields.next().unwrap_or_default().split(',');
    Some((name, gid, members.map(str::to_owned).collect()))
}

fn id(text: &str) -> Option<u32> {
    number(text).ok().flatten()
}

/// The text of a file of the image; none where there is no file.
fn read(rootfs: BorrowedFd<'_>, path: &str) -> Result<String> {
    let reading = || format!("read /{path} of the image");
    // Not blocked by a fifo.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match open_inside(rootfs, path.as_bytes(), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        Err(error) => return Err(error).context(reading),
    };
    if !file.metadata().context(reading)?.is_file() {
        return Err(Error::invalid("not a regular file")).context(reading);
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .context(reading)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::invalid(format!("more than {LARGEST} bytes"))).context(reading);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
