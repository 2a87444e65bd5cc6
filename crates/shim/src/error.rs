//! Errors as containerd gets them: a gRPC code and a sentence.

use std::fmt;

/// The gRPC codes that a shim uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Whatever has no code of its own.
    Unknown = 2,
    /// A field of the request cannot be what it is.
    InvalidArgument = 3,
    /// No such container or process.
    NotFound = 5,
    /// The id is taken.
    AlreadyExists = 6,
    /// Too much of something at once.
    ResourceExhausted = 8,
    /// Not in this state.
    FailedPrecondition = 9,
    /// No such service or method.
    Unimplemented = 12,
}

/// Why a call was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// What a call or a step of it gives.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn unknown(message: impl Into<String>) -> Failure {
        Failure::new(Code::Unknown, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(Code::InvalidArgument, message)
    }

    /// Containerd's own words for a container that is not there.
    pub(crate) fn no_container() -> Failure {
        Failure::new(Code::NotFound, "container not created")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<cgroups::Error> for Failure {
    fn from(error: cgroups::Error) -> Failure {
        Failure::unknown(error.to_string())
    }
}

/// Says what was being done when something went wrong.
pub(crate) trait Context<T> {
    /// `what` continues "failed to".
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::unknown(format!("{}: {error}", what())))
    }
}
