//! Control groups v1, hybrid and v2 behind one small surface.
//!
//! The crate knows cgroups and nothing of containers. [`Host`] says what `/sys/fs/cgroup` offers, a [`Location`]
//! says where one cgroup lives in it (and can be kept in a file), and a [`Cgroup`] is that cgroup with its
//! directories open: every read and write goes through those descriptors, never through a path again.
//!
//! Nothing here sleeps: waiting is done with `poll(2)` on what the kernel offers for it.
//!
//! Kernel documentation: `admin-guide/cgroup-v1/`, `admin-guide/cgroup-v2.rst`. Specification: the runtime-spec's
//! `config-linux.md`, "Control groups".

#![deny(unsafe_code)]

mod bits;
mod cgroup;
mod create;
mod delegate;
mod devices;
mod dir;
mod error;
mod freezer;
mod host;
mod location;
mod oom;
mod refusal;
mod remove;
mod resources;
mod signal;
pub mod stats;
#[allow(unsafe_code)]
mod sys;
mod systemd;

pub use bits::bits;
pub use cgroup::Cgroup;
pub use error::{Error, Result};
pub use freezer::FreezerPlace;
pub use host::{Host, Layout, Version};
pub use location::{Location, Place};
pub use oom::{OomState, OomWatch};
pub use stats::Stats;
pub use systemd::{PROPERTY_ANNOTATION, Systemd};
