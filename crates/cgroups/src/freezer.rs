//! Stopping all processes of a cgroup, and letting them go on.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sched::sched_yield;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use crate::cgroup::Cgroup;
use crate::dir::{Dir, read_line};
use crate::host::Version;
use crate::location::{self, Location};
use crate::signal::Events;
use crate::{Error, Result};

/// How long processes may take to come to rest: one in an uninterruptible sleep freezes only when that ends.
const PATIENCE: Duration = Duration::from_secs(10);
/// The controller of v1, and the files.
const FREEZER: &str = "freezer";
const STATE: &str = "freezer.state";
const FREEZE: &str = "cgroup.freeze";

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
            Freezer::Unified(dir) => dir.write(FREEZE, "0"),
        }
    }

    /// Thaws this cgroup and all below it in the v1 freezer, if there is one: a process that is frozen there does not even die of
    /// SIGKILL, and a container that may write to its cgroups can freeze parts of itself.
    ///
    /// # Errors
    /// When the hierarchy cannot be walked through.
    pub fn let_die(&self) -> Result<()> {
        let Some(dir) = self.legacy(FREEZER) else {
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
            Ok(Freezer::Unified(dir)) => is_frozen_unified(dir),
            Err(_) => Ok(false),
        }
    }

    /// On a hybrid machine the v1 freezer has precedence: other tools look there.
    fn freezer(&self, action: &'static str) -> Result<Freezer<'_>> {
        let legacy = self.legacy(FREEZER).map(Freezer::Legacy);
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
        self.freezer().is_frozen()
    }

    pub(crate) fn freezer(&self) -> FreezerPlace {
        let mut found = FreezerPlace(None);
        for place in &self.places {
            found.consider(place.version, place.has(FREEZER), || place.dir());
        }
        found
    }
}

/// The directory that freezes the cgroup of a [`Location`]. It can be read from what is kept of that, without memory for all the others.
#[derive(Debug, PartialEq, Eq)]
pub struct FreezerPlace(pub(crate) Option<(Version, PathBuf)>);

impl FreezerPlace {
    /// On a hybrid machine the v1 freezer has precedence.
    fn consider(&mut self, version: Version, is_freezer: bool, dir: impl FnOnce() -> PathBuf) {
        if is_freezer || self.0.is_none() && version == Version::V2 {
            self.0 = Some((version, dir()));
        }
    }

    /// [`Cgroup::is_frozen`] of the cgroup there.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        let Some((version, dir)) = &self.0 else {
            return Ok(false);
        };
        let (name, thawed) = match version {
            Version::V1 => (STATE, "THAWED"),
            Version::V2 => (FREEZE, "0"),
        };
        let file = dir.join(name);
        match read_line(AT_FDCWD, &file) {
            Ok(text) if text.trim_end() == thawed => Ok(false),
            // An ancestor may be what is frozen.
            Ok(_) => match (Dir::open(dir.clone())?, version) {
                (Some(dir), Version::V1) => is_frozen_legacy(&dir),
                (Some(dir), Version::V2) => is_frozen_unified(&dir),
                (None, _) => Ok(false),
            },
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(Error::io("read", file, errno)),
        }
    }
}

impl<'de> Deserialize<'de> for FreezerPlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Kept {
            #[serde(deserialize_with = "among")]
            places: FreezerPlace,
        }
        Kept::deserialize(deserializer).map(|kept| kept.places)
    }
}

/// One of a sequence of [`crate::Place`]s.
fn among<'de, D: Deserializer<'de>>(places: D) -> std::result::Result<FreezerPlace, D::Error> {
    #[derive(Deserialize)]
    struct Place<'a> {
        version: Version,
        #[serde(borrow)]
        controllers: Vec<&'a str>,
        #[serde(borrow)]
        mount: Cow<'a, str>,
        #[serde(borrow)]
        path: Cow<'a, str>,
    }
    struct Places;
    impl<'de> Visitor<'de> for Places {
        type Value = FreezerPlace;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the directories of a cgroup")
        }

        fn visit_seq<A: SeqAccess<'de>>(
            self,
            mut places: A,
        ) -> std::result::Result<FreezerPlace, A::Error> {
            let mut found = FreezerPlace(None);
            while let Some(place) = places.next_element::<Place<'_>>()? {
                let is_freezer = place.controllers.contains(&FREEZER);
                let dir = || location::dir(Path::new(&*place.mount), Path::new(&*place.path));
                found.consider(place.version, is_freezer, dir);
            }
            Ok(found)
        }
    }
    places.deserialize_seq(Places)
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

fn is_frozen_unified(dir: &Dir) -> Result<bool> {
    let text = dir.read_line(FREEZE)?;
    Ok(text.is_some_and(|text| text.trim_end() == "1"))
}

fn freeze_unified(dir: &Dir) -> Result<()> {
    dir.write(FREEZE, "1")?;
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
