//! What is told of while content is on its way.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::descriptor::Descriptor;
use crate::error::{Error, Kind, Result};

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

/// Lets the threads of one transfer end when one of them has failed, also those that wait for another try.
#[derive(Debug, Default)]
pub(crate) struct Cancel {
    cancelled: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    pub(crate) fn cancel(&self) {
        *self
            .cancelled
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// An error once somebody has cancelled. It is never shown: the one who cancelled has the reason.
    pub(crate) fn check(&self) -> Result<()> {
        self.wait(Duration::ZERO)
    }

    /// Waits this long, or until somebody cancels.
    pub(crate) fn wait(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        let mut cancelled = self
            .cancelled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if *cancelled {
                return Err(Error::new(Kind::Failed, "cancelled"));
            }
            if left.is_zero() {
                return Ok(());
            }
            cancelled = self
                .changed
                .wait_timeout(cancelled, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
