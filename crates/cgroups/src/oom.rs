//! Learning of out-of-memory kills.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd;

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::resources::keyed_number;
use crate::signal::field;
use crate::{Error, Result};

/// What happened since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomState {
    /// Out-of-memory kills that are new.
    pub kills: u64,
    /// Nothing can happen any more: the cgroup is removed or, on v2, no process is left in it.
    pub gone: bool,
    /// On v2, the cgroup was removed when its limit had been reached, and nobody can tell what came of that: systemd removes the cgroup of
    /// a unit as soon as its last process has ended, and the kernel may keep the news for 10 ms.
    pub lost: bool,
}

/// Becomes readable when there may be something to [`OomWatch::read`].
#[derive(Debug)]
pub struct OomWatch {
    source: Source,
    dir: Dir,
    seen: u64,
    /// The cgroup was at its limit when it was last looked at.
    at_limit: bool,
}

#[derive(Debug)]
enum Source {
    /// `cgroup-v1/memory.rst`, "OOM Control": an eventfd registered for `memory.oom_control`, which has to stay open.
    Legacy(EventFd, #[allow(dead_code)] OwnedFd),
    /// `cgroup-v2.rst`: the kernel reports changes of `memory.events` and `cgroup.events` as file modifications.
    Unified(Inotify),
}

impl Cgroup {
    /// Watches for out-of-memory kills in this cgroup and, on v2, below it. `None` without a v1 memory controller and without
    /// v2: then nothing is killed for this cgroup's sake.
    ///
    /// # Errors
    /// When the cgroup is gone, or the kernel does not accept the watch.
    pub fn oom_watch(&self) -> Result<Option<OomWatch>> {
        const NEED: &str = "watch out-of-memory kills in cgroup";
        let reopen = |dir: &Dir| Dir::open(dir.path().to_owned())?.ok_or(Error::NoHierarchy(NEED));
        if let Some(dir) = self.legacy("memory") {
            let dir = reopen(dir)?;
            let source = watch_legacy(&dir)?;
            let seen = kills_legacy(&dir)?.unwrap_or(0);
            return Ok(Some(OomWatch::new(source, dir, seen)));
        }
        let Some(dir) = self.unified() else {
            return Ok(None);
        };
        let dir = reopen(dir)?;
        let source = watch_unified(&dir)?;
        let seen = keyed_number(&dir.read("memory.events")?.unwrap_or_default(), "oom_kill");
        Ok(Some(OomWatch::new(source, dir, seen)))
    }

    /// How many of its processes the kernel has killed for want of memory so far; 0 when nobody counts.
    pub fn oom_kills(&self) -> Result<u64> {
        if let Some(dir) = self.legacy("memory") {
            return Ok(kills_legacy(dir)?.unwrap_or(0));
        }
        let events = match self.unified() {
            Some(dir) => dir.read("memory.events")?,
            None => None,
        };
        Ok(keyed_number(&events.unwrap_or_default(), "oom_kill"))
    }
}

fn watch_legacy(dir: &Dir) -> Result<Source> {
    const FILE: &str = "memory.oom_control";
    let failed = |errno| Error::io("watch", dir.path().join(FILE), errno);
    let event =
        EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(failed)?;
    let control = dir.open_file(FILE, OFlag::O_RDONLY).map_err(failed)?;
    dir.write(
        "cgroup.event_control",
        &format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd()),
    )?;
    Ok(Source::Legacy(event, control))
}

/// The kernel's own count (Linux 4.13), `None` when the cgroup is gone.
fn kills_legacy(dir: &Dir) -> Result<Option<u64>> {
    Ok(dir
        .read("memory.oom_control")?
        .map(|text| keyed_number(&text, "oom_kill")))
}

fn watch_unified(dir: &Dir) -> Result<Source> {
    let failed = |errno| Error::io("watch", dir.path(), errno);
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(failed)?;
    for file in ["memory.events", "cgroup.events"] {
        let path = dir.path().join(file);
        match inotify.add_watch(&path, AddWatchFlags::IN_MODIFY) {
            Ok(_) => {}
            // Without the controller nothing is killed for this cgroup's sake.
            Err(Errno::ENOENT) if file == "memory.events" => {}
            Err(errno) => return Err(Error::io("watch", path, errno)),
        }
    }
    Ok(Source::Unified(inotify))
}

impl OomWatch {
    fn new(source: Source, dir: Dir, seen: u64) -> Self {
        OomWatch {
            source,
            dir,
            seen,
            at_limit: false,
        }
    }

    /// Takes note of what happened; never blocks.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn read(&mut self) -> Result<OomState> {
        let failed = |errno| Error::io("read events of", self.dir.path(), errno);
        let mut lost = false;
        let (count, gone) = match &self.source {
            Source::Legacy(event, _) => {
                drain(unistd::read(event, &mut [0; 8])).map_err(failed)?;
                let count = kills_legacy(&self.dir)?;
                (count, count.is_none())
            }
            Source::Unified(inotify) => {
                drain(inotify.read_events()).map_err(failed)?;
                let events = self.dir.read("cgroup.events")?;
                let memory = self.dir.read("memory.events")?;
                match &memory {
                    Some(text) => self.at_limit = keyed_number(text, "max") > 0,
                    None => lost = self.at_limit,
                }
                (
                    memory.map(|text| keyed_number(&text, "oom_kill")),
                    events.is_none_or(|text| field(&text, "populated") == Some("0")),
                )
            }
        };
        let count = count.unwrap_or(self.seen);
        let kills = count.saturating_sub(self.seen);
        self.seen = count;
        Ok(OomState { kills, gone, lost })
    }
}

fn drain<T>(result: Result<T, Errno>) -> Result<(), Errno> {
    match result {
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::Legacy(event, _) => event.as_fd(),
            Source::Unified(inotify) => inotify.as_fd(),
        }
    }
}
