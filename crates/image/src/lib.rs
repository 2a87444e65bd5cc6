//! Container images: where they come from, where they are kept, and what they mean for a container.

#![deny(unsafe_code)]

mod archive;
mod auth;
pub mod convert;
pub mod defaults;
mod descriptor;
mod digest;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod layers;
mod layout;
mod manifest;
mod overlay;
mod parallel;
mod platform;
mod progress;
mod push;
mod reference;
mod registry;
mod source;
mod store;
mod sys;
mod transfer;
pub mod unpack;
mod users;

pub use archive::{Format, load, save};
pub use auth::{Credentials, login, logout};
pub use descriptor::{Descriptor, media_type};
pub use digest::{Digest, Hasher};
pub use error::{Cause, Context, Error, Kind, Result};
pub use manifest::{DOCUMENT_LIMIT, Manifest};
pub use oci_spec::image::ImageConfiguration;
pub use platform::Platform;
pub use progress::{Event, Progress};
pub use push::{PushOptions, push};
pub use reference::Reference;
pub use registry::{Connection, Patience, check_credentials, referrers};
pub use source::Source;
pub use store::{Hold, Image, Pruned, Removed, Store};
pub use transfer::{PullOptions, pull};
