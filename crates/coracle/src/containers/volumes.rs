//! `-v`, `--mount` and `--tmpfs`: what is mounted into a container besides its own file systems.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use runtime::{Context, Error, Result};
use serde_json::{Value, json};

use super::record::MountPoint;
use super::userns::UserNamespace;
use super::{files, id};

/// One mount that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountOption {
    pub(crate) kind: MountKind,
    pub(crate) destination: PathBuf,
    pub(crate) readonly: bool,
    pub(crate) propagation: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// A path of the host; `create` makes a missing directory, as `-v` does and `--mount` does not.
    Bind {
        source: PathBuf,
        create: bool,
    },
    /// A directory below STORE/volumes, with a random name when nobody gave one; `copy` fills a new one from the image.
    Volume {
        name: Option<String>,
        copy: bool,
    },
    Tmpfs {
        options: Vec<String>,
    },
}

const PROPAGATIONS: [&str; 6] = [
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

impl MountOption {
    fn new(kind: MountKind, destination: &str) -> std::result::Result<Self, String> {
        let destination = Path::new(destination);
        if !destination.is_absolute() {
            return Err(format!(
                "the path in the container, {}, must be absolute",
                destination.display()
            ));
        }
        let parts: PathBuf = destination
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        if parts == Path::new("/") {
            return Err("the path in the container must not be /".into());
        }
        Ok(MountOption {
            kind,
            destination: parts,
            readonly: false,
            propagation: "rprivate".into(),
        })
    }

    /// `-v [SOURCE:]DESTINATION[:OPTION,…]`. The error does not name the flag.
    pub(crate) fn volume(text: &str) -> std::result::Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, options) = match *parts.as_slice() {
            [destination] => (None, destination, ""),
            [source, destination] => (Some(source), destination, ""),
            [source, destination, options] => (Some(source), destination, options),
            _ => return Err("expected [SOURCE:]DESTINATION[:OPTIONS]".into()),
        };
        let mut copy = true;
        let mut mount = Self::new(source_of(source)?, destination)?;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => mount.readonly = true,
                // z and Z are SELinux labels, the others hints for macOS.
                "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
                "nocopy" => copy = false,
                other if PROPAGATIONS.contains(&other) => mount.propagation = other.into(),
                other => return Err(format!("unknown option {other:?}")),
            }
        }
        if let MountKind::Volume { copy: wanted, .. } = &mut mount.kind {
            *wanted = copy;
        }
        Ok(mount)
    }

    /// `--mount type=…,source=…,target=…`.
    pub(crate) fn mount(text: &str) -> std::result::Result<Self, String> {
        let (mut kind, mut source, mut target) = ("volume", None, None);
        let (mut readonly, mut copy, mut propagation) = (false, true, "rprivate");
        let mut tmpfs = default_tmpfs();
        for field in text.split(',') {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (field, None),
            };
            let needed = || value.ok_or_else(|| format!("{key} needs a value"));
            let switch = || match value {
                None | Some("true" | "1") => Ok(true),
                Some("false" | "0") => Ok(false),
                Some(other) => Err(format!("{key}={other}: expected true or false")),
            };
            match key {
                "type" => kind = needed()?,
                "source" | "src" => source = Some(needed()?),
                "target" | "dst" | "destination" => target = Some(needed()?),
                "readonly" | "ro" => readonly = switch()?,
                "volume-nocopy" => copy = !switch()?,
                "bind-propagation" => {
                    propagation = needed()?;
                    if !PROPAGATIONS.contains(&propagation) {
                        return Err(format!("unknown bind-propagation {propagation:?}"));
                    }
                }
                "tmpfs-size" => tmpfs.push(format!("size={}", needed()?)),
                "tmpfs-mode" => tmpfs.push(format!("mode={}", needed()?)),
                other => return Err(format!("unknown field {other:?}")),
            }
        }
        let target = target.ok_or("it needs a target")?;
        let kind = match (kind, source) {
            ("bind", Some(source)) => MountKind::Bind {
                source: absolute(source)?,
                create: false,
            },
            ("bind", None) => return Err("a bind needs a source".into()),
            ("volume", source) => MountKind::Volume {
                name: source.map(volume_name).transpose()?,
                copy,
            },
            ("tmpfs", None) => MountKind::Tmpfs { options: tmpfs },
            ("tmpfs", Some(_)) => return Err("a tmpfs has no source".into()),
            (other, _) => {
                return Err(format!(
                    "unknown type {other:?}: expected bind, volume or tmpfs"
                ));
            }
        };
        Ok(MountOption {
            readonly,
            propagation: propagation.into(),
            ..Self::new(kind, target)?
        })
    }

    /// `--tmpfs DESTINATION[:OPTION,…]`.
    pub(crate) fn tmpfs(text: &str) -> std::result::Result<Self, String> {
        let (destination, given) = text.split_once(':').unwrap_or((text, ""));
        let mut options = default_tmpfs();
        options.extend(
            given
                .split(',')
                .filter(|option| !option.is_empty())
                .map(str::to_owned),
        );
        Self::new(MountKind::Tmpfs { options }, destination)
    }

    /// A volume that the image asks for.
    pub(crate) fn of_image(destination: &str) -> std::result::Result<Self, String> {
        let (name, copy) = (None, true);
        Self::new(MountKind::Volume { name, copy }, destination)
    }

    /// Makes what is mounted, unless it is there. Volumes are directories below `store`.
    pub(crate) fn provide(&self, store: &Path) -> Result<MountPoint> {
        let (kind, name, source, anonymous) = match &self.kind {
            MountKind::Tmpfs { .. } => ("tmpfs", None, PathBuf::new(), false),
            MountKind::Bind { source, create } => {
                if *create && !source.exists() {
                    fs::create_dir_all(source).with_context(|| {
                        format!(
                            "--volume: create the missing directory {}",
                            source.display()
                        )
                    })?;
                } else if !source.exists() {
                    let text = format!(
                        "--mount: bind source path does not exist: {}",
                        source.display()
                    );
                    return Err(Error::invalid(text));
                }
                ("bind", None, source.clone(), false)
            }
            MountKind::Volume { name, .. } => {
                let anonymous = name.is_none();
                let name = name.clone().map_or_else(id::random, Ok)?;
                let data = directory(store, &name).join("_data");
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o711)
                    .create(data.parent().unwrap_or(store))
                    .with_context(|| format!("create volume {name}"))?;
                match DirBuilder::new().mode(0o755).create(&data) {
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    made => made.with_context(|| format!("create volume {name}"))?,
                }
                ("volume", Some(name), data, anonymous)
            }
        };
        Ok(MountPoint {
            kind: kind.into(),
            name,
            source,
            destination: self.destination.clone(),
            writable: !self.readonly,
            propagation: self.propagation.clone(),
            anonymous,
        })
    }

    /// Fills a new volume with what the image has in its place, with owner and mode; one that has something in it stays as it is.
    pub(crate) fn seed(&self, point: &MountPoint, rootfs: &Path) -> Result<()> {
        if !matches!(self.kind, MountKind::Volume { copy: true, .. }) {
            return Ok(());
        }
        let seeding = || format!("fill the volume for {}", self.destination.display());
        let is_empty = fs::read_dir(&point.source)
            .with_context(seeding)?
            .next()
            .is_none();
        if !is_empty {
            return Ok(());
        }
        let root = files::open_directory(rootfs)?;
        let from = match files::open_inside(root, &self.destination, files::DIRECTORY) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            opened => opened.with_context(seeding)?,
        };
        let to = files::open_directory(&point.source)?;
        files::copy_contents(from, to, files::Owner::Keep(files::Ids::default()))
            .with_context(seeding)
    }

    /// As config.json has it, with what [`MountOption::provide`] has made. A volume's files have the ids that every container sees, whichever
    /// it has of its own.
    pub(crate) fn entry(&self, source: &Path, userns: UserNamespace) -> Value {
        let access = if self.readonly { "ro" } else { "rw" };
        let mut options = vec!["rbind", self.propagation.as_str(), access];
        if let (MountKind::Volume { .. }, UserNamespace::Auto(_)) = (&self.kind, userns) {
            options.push("idmap");
        }
        match &self.kind {
            MountKind::Tmpfs { options } => json!({
                "destination": self.destination, "type": "tmpfs", "source": "tmpfs",
                "options": options.iter().map(String::as_str).chain([access]).collect::<Vec<_>>(),
            }),
            MountKind::Bind { .. } | MountKind::Volume { .. } => json!({
                "destination": self.destination, "type": "bind", "source": source,
                "options": options,
            }),
        }
    }
}

/// Where a volume lives.
pub(crate) fn directory(store: &Path, name: &str) -> PathBuf {
    store.join("volumes").join(name)
}

/// Docker's, which `exec` and others switch off again.
fn default_tmpfs() -> Vec<String> {
    ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec()
}

fn source_of(source: Option<&str>) -> std::result::Result<MountKind, String> {
    Ok(match source {
        None => MountKind::Volume {
            name: None,
            copy: true,
        },
        Some(path) if path.starts_with(['/', '.', '~']) => MountKind::Bind {
            source: absolute(path)?,
            create: true,
        },
        Some(name) => MountKind::Volume {
            name: Some(volume_name(name)?),
            copy: true,
        },
    })
}

fn absolute(path: &str) -> std::result::Result<PathBuf, String> {
    if path.is_empty() {
        return Err("the source is empty".into());
    }
    std::path::absolute(path).map_err(|error| format!("{path}: {error}"))
}

fn volume_name(name: &str) -> std::result::Result<String, String> {
    match id::is_name(name) {
        true => Ok(name.into()),
        false => Err(format!(
            "{name:?} is no name of a volume ([a-zA-Z0-9][a-zA-Z0-9_.-]+); a directory of the host is written as an absolute path"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let mount = MountOption::volume("/srv:/data:ro,rslave,Z").unwrap();
        let kind = MountKind::Bind {
            source: "/srv".into(),
            create: true,
        };
        assert_eq!((mount.kind, mount.readonly), (kind, true));
        assert_eq!(mount.propagation, "rslave");
        let named = MountOption::volume("data:/data:nocopy").unwrap();
        let kind = MountKind::Volume {
            name: Some("data".into()),
            copy: false,
        };
        assert_eq!((named.kind, named.readonly), (kind, false));
        let anonymous = MountOption::volume("/data").unwrap();
        assert!(matches!(
            anonymous.kind,
            MountKind::Volume { name: None, .. }
        ));
        for bad in [
            "",
            "data",
            "/a:b",
            "/a:/",
            "/a:/b:rx",
            "/a:/b:ro:rw",
            "a/b:/c",
            ":/c",
            "-a:/c",
        ] {
            assert!(MountOption::volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts() {
        let mount = MountOption::mount("type=bind,src=/srv,dst=/data,readonly").unwrap();
        assert_eq!(
            mount.entry(Path::new("/srv"), UserNamespace::Host)["options"],
            json!(["rbind", "rprivate", "ro"])
        );
        let mount =
            MountOption::mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700").unwrap();
        let options = json!(["noexec", "nosuid", "nodev", "size=1m", "mode=700", "rw"]);
        assert_eq!(
            mount.entry(Path::new(""), UserNamespace::Host)["options"],
            options
        );
        for bad in [
            "",
            "type=bind,src=/srv",
            "type=bind,dst=/x",
            "type=nfs,dst=/x",
            "type=tmpfs,src=/a,dst=/x",
            "dst=/x,ro=maybe",
            "dst=/x,frob=1",
            "type=bind,src=/a,dst=x",
        ] {
            assert!(MountOption::mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tmpfs_is_as_docker_makes_it() {
        let mount = MountOption::tmpfs("/run:size=64k,exec").unwrap();
        let options = json!(["noexec", "nosuid", "nodev", "size=64k", "exec", "rw"]);
        assert_eq!(
            mount.entry(Path::new(""), UserNamespace::Host)["options"],
            options
        );
        assert!(MountOption::tmpfs("run").is_err());
    }
}
