//! Why a profile cannot be compiled.

/// What is wrong with a `linux.seccomp` section: each message names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("linux.seccomp{field}: {reason}")]
pub struct Error {
    field: String,
    reason: String,
}

impl Error {
    /// `field` is the path below `linux.seccomp` with its leading dot, or empty for the section as a whole.
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}
