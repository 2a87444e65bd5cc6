//! An existing cgroup with its directories open.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use oci_spec::runtime::LinuxResources;

use crate::dir::Dir;
use crate::host::{Layout, Version};
use crate::{Error, Location, Result, delegate, devices, resources};

/// A cgroup with its directories open, one in each hierarchy.
///
/// Dropping it closes the directories; only [`Cgroup::remove`] removes the cgroup.
#[derive(Debug)]
pub struct Cgroup {
    pub(crate) location: Location,
    /// In the order of `location.places`; `None` where the directory is gone.
    pub(crate) dirs: Vec<Option<Dir>>,
    /// Made by this value, so that nothing can be attached to it yet.
    pub(crate) fresh: bool,
    /// What `cgroup.controllers` of its v2 directory said when it was made.
    pub(crate) controllers: Option<String>,
    /// The v2 controllers that an ancestor did not hand down, and its answer.
    pub(crate) withheld: Vec<Withheld>,
}

/// A v2 controller that could not be enabled for the children of a directory.
#[derive(Debug)]
pub(crate) struct Withheld {
    pub(crate) controller: String,
    pub(crate) by: PathBuf,
    pub(crate) errno: Errno,
}

impl Cgroup {
    /// Opens an existing cgroup. Hierarchies in which it does not exist (any more) are passed over.
    ///
    /// # Errors
    /// When a directory exists and cannot be opened.
    pub fn open(location: &Location) -> Result<Cgroup> {
        let dirs = location
            .places
            .iter()
            .map(|place| Dir::open(place.dir()))
            .collect::<Result<_>>()?;
        Ok(Cgroup {
            location: location.clone(),
            dirs,
            fresh: false,
            controllers: None,
            withheld: Vec::new(),
        })
    }

    /// Applies the devices of `linux.resources`, for which one must be the host's root: on v1 they go to `devices.allow` and
    /// `devices.deny`, on v2 into an eBPF program. An absent or empty list restricts nothing; otherwise what no rule names is denied.
    ///
    /// # Errors
    /// As [`Cgroup::limit`].
    pub fn restrict_devices(&self, wanted: &LinuxResources) -> Result<()> {
        match wanted.devices().as_deref() {
            Some(rules) if !rules.is_empty() => devices::apply(self, rules),
            _ => Ok(()),
        }
    }

    /// Whether [`Cgroup::restrict_devices`] does it at once, as on v2. On v1 there is a time at which everything is denied.
    pub fn restricts_devices_at_once(&self) -> bool {
        self.legacy("devices").is_none()
    }

    /// Applies `linux.resources` without devices.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::MissingController`] or [`Error::Refused`], each with the field. What was written
    /// before the error stays.
    pub fn limit(&self, wanted: &LinuxResources) -> Result<()> {
        resources::apply(self, wanted)
    }

    /// [`Cgroup::limit`] for a running cgroup. systemd hears of it first, where the cgroup is one of its units'.
    ///
    /// # Errors
    /// As [`Cgroup::limit`], and [`Error::Systemd`].
    pub fn update(&self, wanted: &LinuxResources) -> Result<()> {
        if let Some(unit) = &self.location.unit {
            unit.update(wanted, self.location.layout())?;
        }
        self.limit(wanted)
    }

    /// The v2 directory, on a hybrid machine the one in the unified hierarchy: for `clone3` with `CLONE_INTO_CGROUP`.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified().map(|dir| dir.as_fd())
    }

    /// The `tasks` file of each v1 hierarchy, open for writing. The process that is to enter writes `0` to each of them
    /// while it has one thread: a thread that moves only itself spares the kernel the wait for an RCU grace period,
    /// which moving a whole process (`cgroup.procs`) costs. A fork child that should be in the v2 hierarchy as well is
    /// put there by [`Cgroup::clone_into`].
    ///
    /// # Errors
    /// When one of the files cannot be opened.
    pub fn tasks(&self) -> Result<Vec<OwnedFd>> {
        let v1 = self
            .existing()
            .filter(|(version, _)| *version == Version::V1);
        v1.map(|(_, dir)| {
            dir.open_file("tasks", OFlag::O_WRONLY)
                .map_err(|errno| Error::io("open", dir.path().join("tasks"), errno))
        })
        .collect()
    }

    /// Whether it hands v2 controllers to its sub-cgroups, and so takes no process while one lives there (`cgroup-v2.rst`,
    /// "No Internal Process Constraint").
    ///
    /// # Errors
    /// When the hierarchy cannot be read.
    pub fn is_inner(&self) -> Result<bool> {
        match self.unified() {
            Some(dir) => Ok(dir
                .read("cgroup.subtree_control")?
                .is_some_and(|enabled| !enabled.trim_end().is_empty())),
            None => Ok(false),
        }
    }

    /// Moves a process, with all its threads, into this cgroup in every hierarchy. Slow: see [`Cgroup::tasks`].
    ///
    /// # Errors
    /// When a hierarchy refuses the process.
    pub fn add(&self, pid: i32) -> Result<()> {
        let pid = pid.to_string();
        self.existing()
            .try_for_each(|(_, dir)| dir.write("cgroup.procs", &pid))
    }

    /// Whether it is the cgroup of a systemd unit.
    pub fn is_unit(&self) -> bool {
        self.location.is_unit()
    }

    /// Has systemd move a process into this cgroup of one of its units: it may where we may not.
    ///
    /// # Errors
    /// [`Error::Systemd`].
    pub fn add_by_systemd(&self, pid: i32) -> Result<()> {
        let unit = self.location.unit.as_ref();
        unit.ok_or(Error::NoHierarchy("attach to the unit of cgroup"))?
            .attach(pid)
    }

    /// The processes in this cgroup and in all below it, unsorted; none when it is gone.
    ///
    /// # Errors
    /// When the hierarchy cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        if let Some(dir) = self.census() {
            dir.processes(&mut found)?;
        }
        Ok(found)
    }

    /// Hands the v2 cgroup to `uid` as the runtime-spec's "Cgroup ownership" demands: the directory and the files that
    /// `/sys/kernel/cgroup/delegate` lists. Does nothing where v1 is in use, where delegation is not safe.
    ///
    /// # Errors
    /// When the owner of a file cannot be changed.
    pub fn delegate(&self, uid: u32) -> Result<()> {
        match (self.location.layout(), self.unified()) {
            (Layout::V2, Some(dir)) => delegate::chown(dir, uid),
            _ => Ok(()),
        }
    }

    /// Where this cgroup lives.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// A directory of this cgroup that does not exist.
    pub fn missing(&self) -> Option<PathBuf> {
        let mut places = self.location.places.iter().zip(&self.dirs);
        places
            .find(|(_, dir)| dir.is_none())
            .map(|(place, _)| place.dir())
    }

    /// The directories that exist.
    pub(crate) fn existing(&self) -> impl Iterator<Item = (Version, &Dir)> {
        let versions = self.location.places.iter().map(|place| place.version);
        versions
            .zip(&self.dirs)
            .filter_map(|(version, dir)| Some((version, dir.as_ref()?)))
    }

    /// The directory in the v2 hierarchy.
    pub(crate) fn unified(&self) -> Option<&Dir> {
        self.existing()
            .find(|(version, _)| *version == Version::V2)
            .map(|(_, dir)| dir)
    }

    /// The directory in the v1 hierarchy of a controller.
    pub(crate) fn legacy(&self, controller: &str) -> Option<&Dir> {
        let places = self.location.places.iter().zip(&self.dirs);
        let mut v1 = places.filter(|(place, _)| place.version == Version::V1);
        v1.find(|(place, _)| place.has(controller))
            .and_then(|(_, dir)| dir.as_ref())
    }

    /// The directory to list processes in. They are the same in every hierarchy; these controllers are the ones that
    /// nobody moves processes about in by hand.
    pub(crate) fn census(&self) -> Option<&Dir> {
        let preferred = || {
            ["pids", "freezer", "devices", "memory"]
                .iter()
                .find_map(|name| self.legacy(name))
        };
        self.unified()
            .or_else(preferred)
            .or_else(|| self.existing().next().map(|(_, dir)| dir))
    }

    /// An error where an action on this cgroup would hit a whole hierarchy, and with it the machine.
    pub(crate) fn refuse_root(&self, action: &'static str) -> Result<()> {
        self.location.refuse_root(action)
    }
}
