//! Containers that are run from images: what Docker and podman have a daemon or an engine for.
//!
//! `run` makes a directory in the store ([`directory`]), with what was asked for ([`options`], [`record`]) and the configuration for the
//! runtime ([`spec`]), and starts a [`monitor`], which stays with the container and answers at a socket ([`control`]). Every other command
//! finds the container by name or id, and asks the monitor, or does it itself where there is none any more.

mod attach;
pub(crate) mod commands;
mod control;
mod copy;
mod directory;
mod files;
pub(crate) mod id;
pub(crate) mod init;
mod inspect;
mod lifecycle;
mod limits;
mod log;
pub(crate) mod monitor;
mod network;
mod options;
mod record;
mod restart;
mod rootfs;
mod run;
mod seccomp;
mod show;
mod spec;
mod stats;
mod streams;
pub(crate) mod userns;
mod volumes;

pub(crate) use commands::COMMANDS;
pub(crate) use directory::{Container, Containers};
pub(crate) use inspect::{describe, is_paused, published};
pub(crate) use lifecycle::{delete, kill, start};
pub(crate) use options::Pull;
pub(crate) use record::Status;
pub(crate) use run::names_an_image;
pub(crate) use show::listed;

/// An error of the image crate among ours.
fn of_image(error: image::Error) -> runtime::Error {
    runtime::Error::failed(error.to_string())
}

/// An error of the network crate among ours.
fn of_network(error: ::network::Error) -> runtime::Error {
    runtime::Error::failed(error.to_string())
}
