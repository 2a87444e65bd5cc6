//! Stopping all processes of a cgroup, and letting them go on.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sched::sched_yield;

use crate::cgroup::Cgroup;
use crate::dir::{Dir, read_line};
use crate::host::Version;
use crate::location::Location;
use crate::signal::Events;
use crate::{Error, Result};

/// How long processes may take to come to rest: one in an uninterruptible sleep freezes only when that ends.
const PATIENCE: Duration = Duration::from_secs(10);
const STATE: &str = "freezer.state";

/// The hierarchy that freezes this cgroup.
enum Freezer<'a> {
    /// `cgroup-v1/freezer-subsystem.rst`
    Legacy(&'a Dir),
    /// `cgroup-v2.rst`, `cgroup.freeze`
    Unified(&'a Dir),
}

impl Cgroup {
    /// Freezes all processes in this cgroup and below, and returns when they stand still.
    ///
    /// # Errors
    /// [`Error::NotFreezing`] when they do not within ten seconds; the cgroup is thawed again then.
    pub fn freeze(&self) -> Result<()> {
        self.refuse_root("freeze")?;
        let frozen = match self.freezer("freeze cgroup")? {
            Freezer::Legacy(dir) => freeze_legacy(dir),
            Freezer::Unified(dir) => freeze_unified(dir),
        };
        if frozen.is_err() {
            // Half frozen processes would look like a hang to whoever meets them.
            let _ = self.thaw();
        }
        frozen
    }

    /// Lets frozen processes go on; fine when they are not frozen.
    ///
    /// # Errors
    /// When the freezer refuses, or the cgroup has none.
    pub fn thaw(&self) -> Result<()> {
        match self.freezer("thaw cgroup")? {
            Freezer::Legacy(dir) => dir.write(STATE, "THAWED"),
            Freezer::Unified(dir) => dir.write("cgroup.freeze", "0"),
        }
    }

    /// Thaws this cgroup and all below it in the v1 freezer, if there is one: a process that is frozen there does not even die of
    /// SIGKILL, and a container that may write to its cgroups can freeze parts of itself.
    ///
    /// # Errors
    /// When the hierarchy cannot be walked through.
    pub fn let_die(&self) -> Result<()> {
        let Some(dir) = self.legacy("freezer") else {
            return Ok(());
        };
        // Whoever is gone by now needs no thawing.
        let thaw = |dir: &Dir, file: &Path| {
            let _ = dir.try_write(file, "THAWED");
        };
        thaw(dir, Path::new(STATE));
        dir.each_below(|parent, name| {
            thaw(parent, &name.join(STATE));
            Ok(())
        })
    }

    /// Whether this cgroup itself was frozen; a frozen ancestor does not count. A cgroup without freezer is not frozen.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        match self.freezer("") {
            Ok(Freezer::Legacy(dir)) => is_frozen_legacy(dir),
            Ok(Freezer::Unified(dir)) => Ok(dir
                .read_line("cgroup.freeze")?
                .is_some_and(|text| text.trim_end() == "1")),
            Err(_) => Ok(false),
        }
    }

    /// On a hybrid machine the v1 freezer has precedence: other tools look there.
    fn freezer(&self, action: &'static str) -> Result<Freezer<'_>> {
        let legacy = self.legacy("freezer").map(Freezer::Legacy);
        legacy
            .or_else(|| self.unified().map(Freezer::Unified))
            .ok_or(Error::NoHierarchy(action))
    }
}

impl Location {
    /// [`Cgroup::is_frozen`] of the cgroup there, without opening its other hierarchies.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        let legacy = self.places.iter().find(|place| place.has("freezer"));
        let unified = || {
            self.places
                .iter()
                .find(|place| place.version == Version::V2)
        };
        let Some(place) = legacy.or_else(unified) else {
            return Ok(false);
        };
        let (name, thawed) = match place.version {
            Version::V1 => (STATE, "THAWED"),
            Version::V2 => ("cgroup.freeze", "0"),
        };
        let file = place.dir().join(name);
        match read_line(AT_FDCWD, &file) {
            Ok(text) if text.trim_end() == thawed => Ok(false),
            // An ancestor may be what is frozen.
            Ok(_) => Cgroup::open(&Location {
                places: vec![place.clone()],
                unit: None,
            })?
            .is_frozen(),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(Error::io("read", file, errno)),
        }
    }
}

fn freeze_legacy(dir: &Dir) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for attempt in 1_u32.. {
        // FREEZING may stay for ever when processes were forked meanwhile: the kernel looks again only on a write, and
        // a short thaw helps those that wait for one that is frozen already.
        if attempt % 64 == 0 {
            dir.write(STATE, "THAWED")?;
            let _ = sched_yield();
        }
        dir.write(STATE, "FROZEN")?;
        match dir.read(STATE)?.as_deref().map(str::trim_end) {
            Some("FROZEN") => return Ok(()),
            None => return Err(Error::io("read", dir.path().join(STATE), Errno::ENOENT)),
            _ if Instant::now() > deadline => break,
            _ => drop(sched_yield()),
        }
    }
    Err(Error::NotFreezing {
        path: dir.path().to_owned(),
    })
}

fn is_frozen_legacy(dir: &Dir) -> Result<bool> {
    let state = dir.read(STATE)?.unwrap_or_default();
    if state.trim_end() == "THAWED" || state.is_empty() {
        return Ok(false);
    }
    // FREEZING counts: whoever enters is frozen too.
    Ok(dir
        .read("freezer.self_freezing")?
        .is_none_or(|text| text.trim_end() != "0"))
}

fn freeze_unified(dir: &Dir) -> Result<()> {
    dir.write("cgroup.freeze", "1")?;
    let Some(mut events) = Events::open(dir)? else {
        return Err(Error::NoHierarchy("freeze cgroup"));
    };
    match events.wait("frozen", "1", Instant::now() + PATIENCE)? {
        true => Ok(()),
        false => Err(Error::NotFreezing {
            path: dir.path().to_owned(),
        }),
    }
}
