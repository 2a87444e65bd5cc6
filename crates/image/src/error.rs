//! The one error of this crate: a kind that callers decide by, and a sentence that people read.

use std::fmt;

/// What a caller may want to tell apart. Everything else is [`Kind::Failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No image has this name, or the registry has no such repository, tag or blob.
    NotFound,
    /// The registry wants other credentials, or none will do.
    Denied,
    /// A reference, an archive, a manifest or a layer is not what it has to be.
    Invalid,
    /// Something uses what was to be removed.
    InUse,
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

    /// Something read is not what it has to be.
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
    /// `context: error`, with the context made only on failure. The kind stays [`Kind::Failed`], or the error's own.
    fn context<C: Into<String>>(self, context: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Cause> Context<T> for std::result::Result<T, E> {
    fn context<C: Into<String>>(self, context: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|cause| {
            let (kind, source) = cause.into_cause();
            Error {
                kind,
                context: context().into(),
                source: Some(source),
            }
        })
    }
}

/// What may stand below an [`Error`].
pub trait Cause: Sized {
    /// The kind of the error above, and what is shown behind its context.
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>);
}

impl Cause for Error {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        (self.kind, Box::new(self))
    }
}

impl Cause for nix::errno::Errno {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        (Kind::Failed, self.desc().to_lowercase().into())
    }
}

impl Cause for std::io::Error {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        match self.raw_os_error() {
            Some(errno) => nix::errno::Errno::from_raw(errno).into_cause(),
            None => (Kind::Failed, Box::new(self)),
        }
    }
}

impl Cause for serde_json::Error {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        (Kind::Invalid, Box::new(self))
    }
}

impl Cause for oci_spec::OciSpecError {
    fn into_cause(self) -> (Kind, Box<dyn std::error::Error + Send + Sync>) {
        (Kind::Invalid, Box::new(self))
    }
}
