//! Where one cgroup lives in each hierarchy.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::{self, Host, Layout, Version};
use crate::systemd::Unit;
use crate::{Error, Result, dir};

/// Where one cgroup lives: its directory in each hierarchy. Meant to be kept in a file, so that later commands find the
/// cgroup again without probing the machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub(crate) places: Vec<Place>,
    /// The systemd unit whose cgroup this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<Unit>,
}

/// The directory of a cgroup in one hierarchy.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The hierarchy's version.
    pub version: Version,
    /// The hierarchy's controllers by the kernel's names.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The cgroup's path below the mount, relative and without `..`.
    pub path: PathBuf,
}

impl Place {
    /// The absolute directory.
    pub fn dir(&self) -> PathBuf {
        dir(&self.mount, &self.path)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.path.as_os_str().is_empty()
    }
}

impl Location {
    /// Resolves `linux.cgroupsPath` by runc's rules. An absolute path counts from the mount point of each hierarchy. A
    /// relative one counts, on v1, from the cgroup this process is in, and on v2 from that cgroup's parent, since a
    /// v2 cgroup with processes in it cannot hand controllers to children; where that directory cannot be seen because
    /// only a part of the hierarchy is mounted, it counts from the mount point. `..` never leads above either.
    ///
    /// # Errors
    /// When `/proc/self/cgroup` is needed and cannot be read, or when the path is empty.
    pub fn resolve(host: &Host, cgroups_path: &Path) -> Result<Location> {
        let own = if cgroups_path.is_absolute() {
            String::new()
        } else {
            let file = "/proc/self/cgroup";
            dir::read_at_once(Path::new(file)).map_err(|errno| Error::io("read", file, errno))?
        };
        Location::resolve_below(host, cgroups_path, &own, |dir| dir.is_dir())
    }

    /// [`Location::resolve`] without a look at the machine: `own` is `/proc/self/cgroup`.
    fn resolve_below(
        host: &Host,
        path: &Path,
        own: &str,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Location> {
        let inner = clean(path);
        if inner.as_os_str().is_empty() && !path.is_absolute() {
            return Err(Error::config("linux.cgroupsPath", "is empty"));
        }
        let places = host.hierarchies.iter().map(|hierarchy| {
            let base = if path.is_absolute() {
                PathBuf::new()
            } else {
                own_cgroup(own, hierarchy)
            };
            let at_top = base.as_os_str().is_empty();
            let base = if at_top || exists(&hierarchy.mount.join(&base)) {
                base
            } else {
                PathBuf::new()
            };
            Place {
                version: hierarchy.version,
                controllers: hierarchy.controllers.clone(),
                mount: hierarchy.mount.clone(),
                path: base.join(&inner),
            }
        });
        Ok(Location {
            places: places.collect(),
            unit: None,
        })
    }

    /// The location of the sub-cgroup `path`, in the hierarchies of `controllers` or, when there are none, in all.
    ///
    /// # Errors
    /// When the path leads out of this cgroup, or a controller is unknown.
    pub fn below(&self, controllers: &[&str], path: &Path) -> Result<Location> {
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(Error::BadPath(path.display().to_string()));
        }
        for controller in controllers {
            if !self.places.iter().any(|place| place.has(controller)) {
                return Err(Error::config(
                    "cgroup",
                    format!("unknown controller {controller}"),
                ));
            }
        }
        let inner = clean(path);
        let mut places = self.places.clone();
        for place in &mut places {
            let chosen = controllers.is_empty()
                || controllers.iter().any(|controller| place.has(controller));
            if chosen && !inner.as_os_str().is_empty() {
                place.path.push(&inner);
            }
        }
        Ok(Location { places, unit: None })
    }

    /// The sub-cgroup of this one that a process is in on v2; `None` when it is in this one itself, or elsewhere.
    ///
    /// # Errors
    /// When `/proc/PID/cgroup` cannot be read.
    pub fn of_member(&self, pid: i32) -> Result<Option<Location>> {
        let file = format!("/proc/{pid}/cgroup");
        match std::fs::read_to_string(&file) {
            Ok(text) => self.of_entry(&text),
            Err(e) => Err(Error::unread(file, &e)),
        }
    }

    /// [`Location::of_member`] by the text of that file.
    fn of_entry(&self, text: &str) -> Result<Option<Location>> {
        let place = self
            .places
            .iter()
            .find(|place| place.version == Version::V2);
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        match (place, path) {
            (Some(place), Some(path)) => match Path::new(path).strip_prefix(&place.path) {
                Ok(inner) if !inner.as_os_str().is_empty() => self.below(&[], inner).map(Some),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// How the hierarchies are laid out.
    pub fn layout(&self) -> Layout {
        host::layout(self.places.iter().map(|place| place.version))
    }

    /// Whether it is the cgroup of a systemd unit.
    pub fn is_unit(&self) -> bool {
        self.unit.is_some()
    }

    /// An error where an action on this cgroup would hit a whole hierarchy, and with it the machine.
    pub(crate) fn refuse_root(&self, action: &'static str) -> Result<()> {
        match self.places.iter().find(|place| place.is_root()) {
            Some(place) => Err(Error::Root {
                action,
                path: place.mount.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The directories, one for each hierarchy.
    pub fn places(&self) -> &[Place] {
        &self.places
    }
}

impl Place {
    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }
}

/// [`Place::dir`]
pub(crate) fn dir(mount: &Path, path: &Path) -> PathBuf {
    // Joining an empty path would leave a trailing slash.
    match path.as_os_str().is_empty() {
        true => mount.to_owned(),
        false => mount.join(path),
    }
}

/// The path made relative, without `.` and with `..` resolved as if the start were the root.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            _ => {}
        }
    }
    cleaned
}

/// The cgroup to start from in one hierarchy, out of `/proc/self/cgroup`.
fn own_cgroup(own: &str, hierarchy: &host::Hierarchy) -> PathBuf {
    for line in own.lines() {
        // hierarchy-id:controllers:path; the path may hold colons itself.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        match hierarchy.version {
            Version::V2 if controllers.is_empty() => {
                let mut parent = clean(Path::new(path));
                parent.pop();
                return parent;
            }
            Version::V1
                if hierarchy
                    .controllers
                    .first()
                    .is_some_and(|c| controllers.split(',').any(|own| own == c)) =>
            {
                return clean(Path::new(path));
            }
            _ => {}
        }
    }
    PathBuf::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FreezerPlace;
    use crate::host::Hierarchy;

    const OWN: &str =
        "4:memory:/a:b/c\n2:cpu,cpuacct:/\n1:name=systemd:/sys\n0::/user.slice/x.scope\n";

    fn host() -> Host {
        let hierarchy = |version, name: &str, controllers: &[&str]| Hierarchy {
            version,
            controllers: controllers.iter().map(|c| c.to_string()).collect(),
            mount: Path::new("/sys/fs/cgroup").join(name),
        };
        Host {
            hierarchies: vec![
                hierarchy(Version::V1, "memory", &["memory"]),
                hierarchy(Version::V1, "cpu,cpuacct", &["cpu", "cpuacct"]),
                hierarchy(Version::V1, "systemd", &["name=systemd"]),
                hierarchy(Version::V2, "unified", &[]),
            ],
        }
    }

    fn paths(path: &str, exists: bool) -> Vec<String> {
        let location = Location::resolve_below(&host(), Path::new(path), OWN, |_| exists).unwrap();
        location
            .places
            .iter()
            .map(|place| place.dir().display().to_string())
            .collect()
    }

    #[test]
    fn absolute_paths_start_at_the_mount() {
        for path in ["/docker/x", "/docker//./y/../x", "/../../docker/x"] {
            assert_eq!(paths(path, true)[1], "/sys/fs/cgroup/cpu,cpuacct/docker/x");
        }
        assert_eq!(paths("/", true)[0], "/sys/fs/cgroup/memory");
    }

    #[test]
    fn relative_paths_start_at_the_own_cgroup() {
        let expected = [
            "memory/a:b/c/x",
            "cpu,cpuacct/x",
            "systemd/sys/x",
            "unified/user.slice/x",
        ];
        assert_eq!(
            paths("x", true),
            expected.map(|path| format!("/sys/fs/cgroup/{path}"))
        );
        assert_eq!(paths("../../x", true)[0], "/sys/fs/cgroup/memory/a:b/c/x");
    }

    #[test]
    fn an_invisible_own_cgroup_falls_back_to_the_mount() {
        assert_eq!(paths("x", false)[0], "/sys/fs/cgroup/memory/x");
    }

    #[test]
    fn sub_cgroups_stay_below() {
        let location = Location::resolve_below(&host(), Path::new("/x"), "", |_| true).unwrap();
        let below = location.below(&["cpu"], Path::new("/y")).unwrap();
        assert_eq!(below.places[0].path, Path::new("x"));
        assert_eq!(below.places[1].path, Path::new("x/y"));
        let error = location.below(&[], Path::new("../y")).unwrap_err();
        assert_eq!(error.to_string(), "bad sub cgroup path: ../y");
        let error = location
            .below(&["nope"], Path::new("y"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown controller nope"), "{error}");
    }

    #[test]
    fn a_member_may_be_in_a_sub_cgroup() {
        let location = Location::resolve_below(&host(), Path::new("/x"), "", |_| true).unwrap();
        let inner = location
            .of_entry("1:pids:/x\n0::/x/init.scope\n")
            .unwrap()
            .unwrap();
        assert_eq!(inner.places[3].path, Path::new("x/init.scope"));
        for elsewhere in ["0::/x\n", "0::/xy/z\n", "0::/../x\n", "4:memory:/x/y\n", ""] {
            assert_eq!(location.of_entry(elsewhere).unwrap(), None, "{elsewhere}");
        }
    }

    #[test]
    fn survives_json() {
        let location = Location::resolve_below(&host(), Path::new("/x"), "", |_| true).unwrap();
        let json = serde_json::to_string(&location).unwrap();
        assert_eq!(serde_json::from_str::<Location>(&json).unwrap(), location);
        assert_eq!(location.layout(), Layout::Hybrid);
    }

    #[test]
    fn the_freezer_alone_is_found_in_the_json_too() {
        let mut host = host();
        let freezer = Hierarchy {
            version: Version::V1,
            controllers: vec!["freezer".into()],
            mount: "/f".into(),
        };
        let found = |host: &Host, path| {
            let location = Location::resolve_below(host, Path::new(path), "", |_| true).unwrap();
            let json = serde_json::to_string(&location).unwrap();
            let known = serde_json::from_str::<FreezerPlace>(&json).unwrap();
            assert_eq!(known, location.freezer());
            known.0.unwrap()
        };
        let unified = "/sys/fs/cgroup/unified/x\"\\y".into();
        assert_eq!(found(&host, "/x\"\\y"), (Version::V2, unified));
        for at in [0, 4] {
            host.hierarchies.insert(at, freezer.clone());
            assert_eq!(found(&host, "/x"), (Version::V1, "/f/x".into()));
            host.hierarchies.remove(at);
        }
        host.hierarchies.pop();
        let none = Location::resolve_below(&host, Path::new("/x"), "", |_| true).unwrap();
        assert!(none.freezer().0.is_none() && !none.is_frozen().unwrap());
    }

    #[test]
    fn nothing_is_not_a_path() {
        assert!(Location::resolve_below(&host(), Path::new(""), OWN, |_| true).is_err());
    }
}
