//! Removing a cgroup from every hierarchy.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sched::sched_yield;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::host::Version;
use crate::signal::{self, Events};
use crate::{Error, Location, Place, Result};

/// How long the end of killed processes may take before their cgroup is given up.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Removes this cgroup and all below it from every hierarchy; device programs go with it. Processes that are left are
    /// killed and waited for. What is gone already is fine. Directories above stay, even when they were made for it. A unit of
    /// systemd's is stopped.
    ///
    /// # Errors
    /// [`Error::Busy`] when processes do not end within ten seconds, [`Error::Root`] for the root of a hierarchy, [`Error::Systemd`]. The other
    /// hierarchies are cleaned all the same; the first error is returned.
    pub fn remove(&self) -> Result<()> {
        self.refuse_root("remove")?;
        let mut result = match &self.location.unit {
            // Who stops a unit, for want of memory for instance, waits for the end of its cgroup, and would not hear of it if that were removed.
            Some(unit) => self.empty().and(unit.stop()),
            None => Ok(()),
        };
        let deadline = Instant::now() + PATIENCE;
        for place in &self.location.places {
            let removed = self.remove_from(place, deadline);
            result = result.and(removed);
        }
        result
    }

    /// Kills whoever is left. systemd would ask them to go first.
    fn empty(&self) -> Result<()> {
        if !self.wait_empty(Duration::ZERO)? {
            self.kill()?;
            self.wait_empty(PATIENCE)?;
        }
        Ok(())
    }

    /// Removes this cgroup once nobody is in it any more, whom nobody tells to go: whether it has gone everywhere within that time. Touches
    /// nothing where somebody stays.
    ///
    /// # Errors
    /// As [`Location::remove_empty`] and [`Cgroup::wait_empty`].
    pub fn remove_once_empty(&self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        while !self.location.remove_empty()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.wait_empty(left)? {
                return Ok(false);
            }
            yield_to_exit();
        }
        Ok(true)
    }

    fn remove_from(&self, place: &Place, deadline: Instant) -> Result<()> {
        let path = place.dir();
        // The usual case is one system call: nothing below, nobody in it.
        while !rmdir(&path)? {
            let Some(dir) = Dir::open(path.clone())? else {
                return Ok(());
            };
            remove_children(&dir)?;
            if rmdir(&path)? {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Busy {
                    path,
                    seconds: PATIENCE.as_secs(),
                });
            }
            self.evict(&dir, place.version, deadline)?;
        }
        Ok(())
    }

    /// Kills what lives in one hierarchy and waits for its end. Processes may be in this one alone, having been moved
    /// there by somebody else.
    fn evict(&self, dir: &Dir, version: Version, deadline: Instant) -> Result<()> {
        self.kill()?;
        let mut left = Vec::new();
        dir.processes(&mut left)?;
        left.iter()
            .try_for_each(|&pid| signal::send(pid, libc::SIGKILL))?;
        match version {
            Version::V2 => {
                if let Some(mut events) = Events::open(dir)? {
                    events.wait("populated", "0", deadline)?;
                }
            }
            Version::V1 => drop(signal::wait_processes(dir, deadline)?),
        }
        yield_to_exit();
        Ok(())
    }
}

/// A process is out of its cgroup a moment after its end can be seen, for which v1 has no event.
fn yield_to_exit() {
    let _ = sched_yield();
}

impl Location {
    /// Removes this cgroup where nobody and no sub-cgroup is in it, and touches nothing where somebody is: whether it has gone everywhere.
    ///
    /// # Errors
    /// When a hierarchy refuses for another reason. The others are cleaned all the same; the first error is returned.
    pub fn remove_empty(&self) -> Result<bool> {
        self.refuse_root("remove")?;
        let mut result = Ok(true);
        for place in &self.places {
            let removed = rmdir(&place.dir());
            result = result.and_then(|all| removed.map(|one| all && one));
        }
        result
    }
}

/// Removes what is below a directory; what is busy stays for the next round.
fn remove_children(dir: &Dir) -> Result<()> {
    dir.each_below(
        |parent, name| match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT | Errno::EBUSY | Errno::ENOTEMPTY | Errno::ENODEV) => Ok(()),
            Err(errno) => Err(Error::io("remove cgroup", parent.path().join(name), errno)),
        },
    )
}

/// Removes one directory; `false` when something is in it.
fn rmdir(path: &Path) -> Result<bool> {
    match unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(true),
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => Ok(false),
        Err(errno) => Err(Error::io("remove cgroup", path, errno)),
    }
}
