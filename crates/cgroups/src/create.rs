//! Making a cgroup in every hierarchy, all or nothing.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::cgroup::{Cgroup, Withheld};
use crate::dir::Dir;
use crate::host::Version;
use crate::refusal;
use crate::{Error, Location, Place, Result};

/// How often the way down is made anew when somebody removes a shared ancestor at the same time.
const ATTEMPTS: usize = 8;

impl Cgroup {
    /// Makes the cgroup in each hierarchy, ancestors included. On v2 every ancestor hands down all the controllers it
    /// has (`cgroup-v2.rst`, "Enabling and Disabling"); what it refuses is reported when a limit needs it. On v1 an empty
    /// `cpuset.cpus` or `cpuset.mems` is filled from the parent, for nothing can enter such a cpuset.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] and [`Error::Frozen`] for a cgroup that exists and is in use. After any error exactly the
    /// directories that were made here are removed again.
    pub fn create(location: &Location) -> Result<Cgroup> {
        let (cgroup, made) = Cgroup::make(location)?;
        if !cgroup.fresh {
            cgroup.refuse_used()?;
        }
        made.keep();
        Ok(cgroup)
    }

    /// Takes over the cgroup of a unit that [`Systemd::start`](crate::Systemd::start) has started with `pid`: makes what systemd does not
    /// know of, and puts the process there as well.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; what systemd made stays.
    pub fn adopt(location: &Location, pid: i32) -> Result<Cgroup> {
        let (mut cgroup, made) = Cgroup::make(location)?;
        // A device program that is attached already is systemd's, and to stay beside ours.
        cgroup.fresh = true;
        let is_scope = location.unit.as_ref().is_some_and(|unit| !unit.is_slice());
        for (version, dir) in cgroup.existing() {
            // systemd knows some of v1's hierarchies, and puts no process into a slice.
            if version == Version::V1 || !is_scope {
                dir.write("cgroup.procs", &pid.to_string())?;
            }
        }
        made.keep();
        Ok(cgroup)
    }

    fn make(location: &Location) -> Result<(Cgroup, Made)> {
        let mut made = Made::default();
        let mut withheld = Vec::new();
        let mut dirs = Vec::with_capacity(location.places.len());
        let mut controllers = None;
        let mut existed = false;
        for place in &location.places {
            let dir = match place.version {
                Version::V1 => {
                    let new = make_legacy(place, &mut made)?;
                    existed |= !new;
                    let path = place.dir();
                    Dir::open(path.clone())?
                        .ok_or_else(|| Error::io("open cgroup", path, Errno::ENOENT))?
                }
                Version::V2 => {
                    let (dir, new) = match make_below(place, &mut made)? {
                        Some((dir, all)) => {
                            controllers = Some(all);
                            (dir, true)
                        }
                        None => make_unified(place, &mut made, &mut withheld)?,
                    };
                    existed |= !new;
                    dir
                }
            };
            dirs.push(Some(dir));
            if place.has("cpuset") && place.version == Version::V1 && !place.is_root() {
                inherit_cpuset(place)?;
            }
        }
        let cgroup = Cgroup {
            location: location.clone(),
            dirs,
            fresh: !existed,
            controllers,
            withheld,
        };
        Ok((cgroup, made))
    }

    /// Refuses a cgroup that somebody else lives in, or that would freeze whoever enters.
    fn refuse_used(&self) -> Result<()> {
        let mut found = Vec::new();
        for (_, dir) in self.existing() {
            dir.processes(&mut found)?;
            if !found.is_empty() {
                return Err(Error::NotEmpty {
                    processes: found.len(),
                    path: dir.path().to_owned(),
                });
            }
        }
        if self.is_frozen()? {
            let frozen = self.legacy("freezer").or_else(|| self.unified());
            Err(Error::Frozen(
                frozen.map_or_else(PathBuf::new, |dir| dir.path().to_owned()),
            ))
        } else {
            Ok(())
        }
    }
}

/// The directories made so far; dropping it removes them, deepest first.
#[derive(Default)]
struct Made {
    paths: Vec<PathBuf>,
}

impl Made {
    fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.paths.iter().rev() {
            // An ancestor that somebody else uses by now answers EBUSY and stays.
            let _ = unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir);
        }
    }
}

/// Makes the directory and, only where they turn out to be missing, its ancestors. Says whether the last one is new.
fn make_legacy(place: &Place, made: &mut Made) -> Result<bool> {
    let leaf = place.dir();
    for _ in 0..ATTEMPTS {
        match mkdir(&leaf, made) {
            Err(Errno::ENOENT | Errno::ENODEV) => {}
            result => return result.map_err(|errno| mkdir_error(&leaf, errno)),
        }
        let mut path = place.mount.clone();
        for part in place.path.parent().into_iter().flat_map(Path::components) {
            path.push(part);
            match mkdir(&path, made) {
                Ok(_) => {}
                Err(Errno::ENOENT | Errno::ENODEV) => break,
                Err(errno) => return Err(mkdir_error(&path, errno)),
            }
        }
    }
    Err(mkdir_error(&leaf, Errno::ENOENT))
}

/// The usual case: only the last directory is missing, and gets every controller; they are returned as well.
fn make_below(place: &Place, made: &mut Made) -> Result<Option<(Dir, String)>> {
    let path = place.dir();
    if place.is_root() || mkdir(&path, made) != Ok(true) {
        return Ok(None);
    }
    if let Some(dir) = Dir::open(path)? {
        let controllers = dir.read_line("cgroup.controllers")?.unwrap_or_default();
        let has = |wanted: &String| controllers.split_whitespace().any(|one| one == wanted);
        if place.controllers.iter().all(has) {
            return Ok(Some((dir, controllers)));
        }
    }
    Ok(None)
}

/// Walks down to the directory, making what is missing and handing the controllers on at each step.
fn make_unified(
    place: &Place,
    made: &mut Made,
    withheld: &mut Vec<Withheld>,
) -> Result<(Dir, bool)> {
    'again: for _ in 0..ATTEMPTS {
        withheld.clear();
        let mut new = false;
        let Some(mut dir) = Dir::open(place.mount.clone())? else {
            break;
        };
        let mut available = place.controllers.clone();
        for part in place.path.components() {
            if !available.is_empty() {
                available = hand_down(&dir, available, withheld)?;
            }
            let name = Path::new(part.as_os_str());
            let path = dir.path().join(name);
            new = match mkdirat(&dir, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    made.paths.push(path);
                    true
                }
                Err(Errno::EEXIST) => made.paths.contains(&path),
                Err(Errno::ENOENT | Errno::ENODEV) => continue 'again,
                Err(errno) => return Err(mkdir_error(&path, errno)),
            };
            let Some(child) = dir.child(name)? else {
                continue 'again;
            };
            dir = child;
        }
        return Ok((dir, new));
    }
    Err(mkdir_error(&place.dir(), Errno::ENOENT))
}

/// Enables the controllers for the children of a directory; returns those that are.
fn hand_down(
    dir: &Dir,
    available: Vec<String>,
    withheld: &mut Vec<Withheld>,
) -> Result<Vec<String>> {
    const FILE: &str = "cgroup.subtree_control";
    let enabled = dir.read_line(FILE)?.unwrap_or_default();
    let is_enabled = |controller: &String| enabled.split_whitespace().any(|one| one == controller);
    let (mut enabled, missing): (Vec<_>, Vec<_>) = available.into_iter().partition(is_enabled);
    if missing.is_empty() {
        return Ok(enabled);
    }
    if has_processes(dir)? {
        let refused = missing.into_iter().map(|controller| Withheld {
            controller,
            by: dir.path().to_owned(),
            errno: Errno::EBUSY,
        });
        withheld.extend(refused);
        return Ok(enabled);
    }
    let all = missing
        .iter()
        .map(|controller| format!("+{controller}"))
        .collect::<Vec<_>>()
        .join(" ");
    if dir.try_write(FILE, &all).is_ok() {
        enabled.extend(missing);
        return Ok(enabled);
    }
    // The kernel takes all or none, and one of them may be refused (cpu while realtime processes run). Whether that matters
    // is known when a limit asks for it.
    for controller in missing {
        match dir.try_write(FILE, &format!("+{controller}")) {
            Ok(()) => enabled.push(controller),
            Err(errno) => withheld.push(Withheld {
                controller,
                by: dir.path().to_owned(),
                errno,
            }),
        }
    }
    Ok(enabled)
}

/// Whether processes live in this very cgroup, and it is not the real root, which may have them. The kernel would refuse
/// the domain controllers and take the others, upon which no process could enter a sub-cgroup that is not threaded.
fn has_processes(dir: &Dir) -> Result<bool> {
    let procs = dir.read("cgroup.procs")?.unwrap_or_default();
    Ok(!procs.is_empty() && dir.read("cgroup.type")?.is_some())
}

/// Fills empty `cpuset.cpus` and `cpuset.mems` from above, ancestors first.
fn inherit_cpuset(place: &Place) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        inherit(place.dir(), &place.mount, file)?;
    }
    Ok(())
}

fn inherit(path: PathBuf, mount: &Path, file: &str) -> Result<String> {
    let Some(dir) = Dir::open(path)? else {
        return Ok(String::new());
    };
    let value = dir.read(file)?.unwrap_or_default();
    let value = value.trim_end();
    match dir.path().parent() {
        Some(parent) if value.is_empty() && dir.path() != mount => {
            let inherited = inherit(parent.to_owned(), mount, file)?;
            if !inherited.is_empty() {
                dir.write(file, &inherited)?;
            }
            Ok(inherited)
        }
        _ => Ok(value.to_owned()),
    }
}

/// Makes one directory and notes it; `false` when it is there already.
fn mkdir(path: &Path, made: &mut Made) -> Result<bool, Errno> {
    match mkdirat(AT_FDCWD, path, Mode::from_bits_truncate(0o755)) {
        Ok(()) => {
            made.paths.push(path.to_owned());
            Ok(true)
        }
        Err(Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn mkdir_error(path: &Path, errno: Errno) -> Error {
    let hint = match errno {
        Errno::EAGAIN => Some(refusal::too_many_cgroups(path).into()),
        Errno::EROFS => Some(refusal::READ_ONLY.into()),
        Errno::ENOMEM | Errno::ENOSPC => Some("the kernel allows no more cgroups".into()),
        _ => None,
    };
    Error::Io {
        action: "make cgroup".into(),
        path: path.to_owned(),
        errno,
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like the top of a v2 hierarchy, removed at the end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let path = std::env::temp_dir().join(format!("cgroups-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Tree(path)
        }

        fn location(&self, version: Version, controllers: &[&str], path: &str) -> Location {
            let controllers = controllers.iter().map(|c| c.to_string()).collect();
            Location {
                unit: None,
                places: vec![Place {
                    version,
                    controllers,
                    mount: self.0.clone(),
                    path: path.into(),
                }],
            }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn missing_ancestors_are_made() {
        let tree = Tree::new("ancestors");
        Cgroup::create(&tree.location(Version::V1, &["pids"], "a/b/c")).unwrap();
        assert!(tree.0.join("a/b/c").is_dir());
    }

    #[test]
    fn controllers_are_handed_down() {
        let tree = Tree::new("hand-down");
        std::fs::write(tree.0.join("cgroup.subtree_control"), "cpu\n").unwrap();
        let cgroup =
            Cgroup::create(&tree.location(Version::V2, &["cpu", "memory", "pids"], "a")).unwrap();
        let written = std::fs::read_to_string(tree.0.join("cgroup.subtree_control")).unwrap();
        assert_eq!(written, "+memory +pids");
        assert!(cgroup.withheld.is_empty() && cgroup.fresh);
    }

    #[test]
    fn refused_controllers_are_remembered() {
        let tree = Tree::new("withheld");
        let cgroup = Cgroup::create(&tree.location(Version::V2, &["memory"], "a")).unwrap();
        assert_eq!(cgroup.withheld[0].controller, "memory");
        assert_eq!(cgroup.withheld[0].by, tree.0);
    }

    #[test]
    fn a_cgroup_with_processes_hands_nothing_down() {
        let tree = Tree::new("populated");
        for (file, text) in [
            ("cgroup.subtree_control", "cpu\n"),
            ("cgroup.type", "domain\n"),
            ("cgroup.procs", "7\n"),
        ] {
            std::fs::write(tree.0.join(file), text).unwrap();
        }
        let cgroup = Cgroup::create(&tree.location(Version::V2, &["cpu", "pids"], "a")).unwrap();
        assert_eq!(cgroup.withheld.len(), 1);
        assert_eq!(cgroup.withheld[0].errno, Errno::EBUSY);
        let control = std::fs::read_to_string(tree.0.join("cgroup.subtree_control")).unwrap();
        assert_eq!(control, "cpu\n");
    }

    #[test]
    fn a_used_cgroup_is_refused_and_nothing_is_left() {
        let tree = Tree::new("used");
        let mut location = tree.location(Version::V1, &["pids"], "new/x");
        location
            .places
            .extend(tree.location(Version::V1, &["freezer"], "used").places);
        std::fs::create_dir(tree.0.join("used")).unwrap();
        std::fs::write(tree.0.join("used/cgroup.procs"), "7\n8\n").unwrap();
        let error = Cgroup::create(&location).unwrap_err().to_string();
        assert!(
            error.starts_with("container's cgroup is not empty: 2 process(es) found in "),
            "{error}"
        );
        assert!(!tree.0.join("new").exists() && tree.0.join("used").exists());
    }

    #[test]
    fn a_frozen_cgroup_is_refused() {
        let tree = Tree::new("frozen");
        std::fs::create_dir(tree.0.join("a")).unwrap();
        std::fs::write(tree.0.join("a/freezer.state"), "FROZEN\n").unwrap();
        let error = Cgroup::create(&tree.location(Version::V1, &["freezer"], "a")).unwrap_err();
        let expected = "container's cgroup unexpectedly frozen: ";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
