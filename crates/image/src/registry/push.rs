//! Pushing is not there yet.
