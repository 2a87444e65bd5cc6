//! What is told of while content is on its way.

use std::time::Duration;

use crate::descriptor::Descriptor;

/// What happens to one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// It is where it has to be already.
    Exists,
    /// It is on its way, and so many bytes are there.
    Moved(u64),
    /// It is tried again after this time.
    Retrying(Duration, &'a str),
    /// It is there, and is what its digest says.
    Complete,
    /// It is a layer, whose files are being made now.
    Unpacking,
    /// Its files are on the disk, by whomever they were made.
    Unpacked,
}

/// Who wants to know. Several threads tell of several blobs at once.
pub trait Progress: Sync {
    /// Something happened to this blob.
    fn blob(&self, blob: &Descriptor, event: Event<'_>);
}

/// Nobody.
impl Progress for () {
    fn blob(&self, _: &Descriptor, _: Event<'_>) {}
}
