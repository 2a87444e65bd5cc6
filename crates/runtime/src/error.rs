//! The one error of this crate: a kind that callers decide by, and a sentence that people read.

use std::fmt;

/// What a caller may want to tell apart. Everything else is [`Kind::Failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No container has this id.
    NotFound,
    /// A container with this id exists already.
    Exists,
    /// The container's status does not allow the operation.
    WrongStatus,
    /// What is kept of the container cannot be read.
    Damaged,
    /// The configuration or an argument is wrong; nothing was tried.
    Invalid,
    /// The kernel denied an operation: EACCES, EPERM.
    Denied,
    /// An operation failed.
    Failed,
}

/// An error: `context: source`, lower case, one sentence.
pub struct Error {
    kind: Kind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the given kind without a deeper cause.
    pub fn new(kind: Kind, context: impl Into<String>) -> Self {
        Error {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// An operation failed for a reason that has no error of its own.
    pub fn failed(context: impl Into<String>) -> Self {
        Self::new(Kind::Failed, context)
    }

    /// The configuration or an argument is wrong.
    pub fn invalid(context: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, context)
    }

    /// What callers decide by.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

/// The cause is part of the displayed sentence already, so it is not offered a second time by `source()`.
impl std::error::Error for Error {}

/// Puts the operation and its object in front of an error.
pub trait Context<T> {
    /// Adds a fixed text.
    fn context(self, text: &str) -> Result<T>;
    /// Adds a text that is only made when it is needed.
    fn with_context<S: Into<String>>(self, text: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: IntoCause> Context<T> for Result<T, E> {
    fn context(self, text: &str) -> Result<T> {
        self.with_context(|| text)
    }

    fn with_context<S: Into<String>>(self, text: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|cause| {
            let (kind, source) = cause.into_cause();
            Error {
                kind,
                context: text().into(),
                source: Some(source),
            }
        })
    }
}

/// Errors that can stand behind a context. An [`Error`] hands its kind on.
pub trait IntoCause {
    /// The kind that the outer error takes over, and the error itself.
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>);
}

impl IntoCause for Error {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        (self.kind, Box::new(self))
    }
}

impl IntoCause for nix::errno::Errno {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        let kind = match self {
            Self::EACCES | Self::EPERM => Kind::Denied,
            _ => Kind::Failed,
        };
        (kind, self.desc().to_lowercase().into())
    }
}

impl IntoCause for std::io::Error {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        match self.raw_os_error() {
            Some(errno) => nix::errno::Errno::from_raw(errno).into_cause(),
            None => (Kind::Failed, Box::new(self)),
        }
    }
}

impl IntoCause for cgroups::Error {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        (Kind::Failed, self.to_string().into())
    }
}

impl IntoCause for seccomp::Error {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        (Kind::Invalid, Box::new(self))
    }
}

impl From<cgroups::Error> for Error {
    fn from(error: cgroups::Error) -> Self {
        Error::failed(error.to_string())
    }
}
