//! What can go wrong, in words that name the operation, the file and the object.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// The result of every fallible operation in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a file or directory of the hierarchy failed.
    #[error("{action} {}: {}{}", path.display(), words(*errno), hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Io {
        /// What was tried: `open`, `write "max" to`, …
        action: String,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
        /// What this answer means for this file, where that is known.
        hint: Option<Cow<'static, str>>,
    },
    /// A value of the configuration cannot be used as it stands.
    #[error("{field}: {problem}")]
    Config {
        /// The place in config.json: `linux.resources.cpu.shares`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value was refused by the kernel.
    #[error("{field}: {source}")]
    Refused {
        /// The place in config.json.
        field: String,
        /// The write that failed.
        source: Box<Error>,
    },
    /// A value needs a controller that this cgroup does not have.
    #[error("{field}: the cgroup controller {controller:?} is not available{why}")]
    MissingController {
        /// The place in config.json.
        field: String,
        /// The controller by the kernel's name.
        controller: String,
        /// Why it is missing, as a continuation of the sentence; may be empty.
        why: String,
    },
    /// A cgroup that is to be created is there already and in use.
    #[error("container's cgroup is not empty: {processes} process(es) found in {} (choose another linux.cgroupsPath)", path.display())]
    NotEmpty {
        /// How many processes are in it and below.
        processes: usize,
        /// The directory in which they were found.
        path: PathBuf,
    },
    /// A cgroup that is to be created is there already and frozen.
    #[error("container's cgroup unexpectedly frozen: {} (thaw it, or choose another linux.cgroupsPath)", .0.display())]
    Frozen(PathBuf),
    /// There is no hierarchy at all.
    #[error("no cgroup hierarchy is mounted at or below {path} (mount -t cgroup2 cgroup2 {path})", path = .0.display())]
    NotMounted(PathBuf),
    /// The cgroup still has processes or sub-cgroups after the time allowed for removing it.
    #[error("remove cgroup {}: still busy after {seconds} s", path.display())]
    Busy {
        /// The directory that could not be removed.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The freezer did not come to rest in the time allowed; the cgroup was thawed again.
    #[error("freeze cgroup {}: some processes did not freeze in time", path.display())]
    NotFreezing {
        /// The cgroup's directory.
        path: PathBuf,
    },
    /// Neither a v1 freezer nor a v2 hierarchy is mounted, or the cgroup is gone.
    #[error(
        "{0}: no hierarchy of this cgroup can do this (it is gone, or its controller is not mounted)"
    )]
    NoHierarchy(&'static str),
    /// The cgroup at the root of a hierarchy can be neither killed, frozen nor removed.
    #[error("{action} cgroup {}: refused for the root of a hierarchy", path.display())]
    Root {
        /// What was asked for.
        action: &'static str,
        /// The hierarchy's mount point.
        path: PathBuf,
    },
    /// A path that would leave the place it is to be resolved below.
    #[error("bad sub cgroup path: {0}")]
    BadPath(String),
    /// systemd cannot be reached, or did not do what it was asked for.
    #[error("{action}: {problem}")]
    Systemd {
        /// What was asked for.
        action: String,
        /// The D-Bus name of its error; empty when it did not come to an answer.
        name: String,
        /// systemd's own words, or what stands in the way to it.
        problem: String,
    },
    /// A file of the kernel did not have the documented form.
    #[error("parse {}: unexpected {text:?}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The part that was not understood.
        text: String,
    },
}

/// What the C library's manual calls it.
fn words(errno: Errno) -> &'static str {
    match errno {
        // The mathematicians' reading.
        Errno::ERANGE => "Numerical result out of range",
        _ => errno.desc(),
    }
}

impl Error {
    /// An [`Error::Io`] without a hint.
    pub(crate) fn io(action: impl Into<String>, path: impl AsRef<Path>, errno: Errno) -> Error {
        Error::Io {
            action: action.into(),
            path: path.as_ref().to_owned(),
            errno,
            hint: None,
        }
    }

    /// The [`Error::Io`] for a file that the standard library could not read.
    pub(crate) fn unread(path: impl AsRef<Path>, error: &std::io::Error) -> Error {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        Error::io("read", path, errno)
    }

    /// An [`Error::Config`].
    pub(crate) fn config(field: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Config {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// Whether it is this D-Bus error of systemd's.
    pub(crate) fn is_answer(&self, known: &str) -> bool {
        matches!(self, Error::Systemd { name, .. } if name == known)
    }

    /// An [`Error::Systemd`] that names the operation and the object instead of the method that was called.
    pub(crate) fn while_doing(self, action: String) -> Error {
        match self {
            Error::Systemd { name, problem, .. } => Error::Systemd {
                action,
                name,
                problem,
            },
            error => error,
        }
    }

    /// The kernel's answer behind this error, where one is: a rootless caller may want to tolerate `EPERM`, `EACCES`
    /// and `EROFS`.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Io { errno, .. } => Some(*errno),
            Error::Refused { source, .. } => source.errno(),
            _ => None,
        }
    }
}
