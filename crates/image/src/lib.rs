//! Container images: where they come from, where they are kept, and what they mean for a container.

#![forbid(unsafe_code)]

mod archive;
mod auth;
mod descriptor;
mod digest;
mod error;
mod layout;
mod manifest;
mod parallel;
mod platform;
mod progress;
mod push;
mod reference;
mod registry;
mod source;
mod store;
mod transfer;

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
pub use registry::{Connection, Patience, check_credentials};
pub use source::Source;
pub use store::{Hold, Image, Pruned, Removed, Store};
pub use transfer::{PullOptions, pull};
