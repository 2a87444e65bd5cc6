//! Container images: where they come from, where they are kept, and what they mean for a container.

mod digest;
mod error;

pub use digest::Digest;
pub use error::{Cause, Context, Error, Kind, Result};
