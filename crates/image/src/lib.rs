//! Container images: where they come from, where they are kept, and what they mean for a container.

#![deny(unsafe_code)]

mod digest;
mod error;
pub mod layers;
mod overlay;
mod sys;
pub mod unpack;

pub use digest::Digest;
pub use error::{Cause, Context, Error, Kind, Result};
