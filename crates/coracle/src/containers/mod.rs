//! Containers that are run from images: what Docker and podman have a daemon or an engine for.
//!
//! `run` makes a directory in the store ([`directory`]), with what was asked for ([`options`], [`record`]) and the configuration for the
//! runtime ([`spec`]), and starts a [`monitor`], which stays with the container and answers at a socket ([`control`]). Every other command
//! finds the container by name or id, and asks the monitor, or does it itself where there is none any more.

mod attach;
mod control;
mod directory;
mod id;
pub(crate) mod init;
mod limits;
mod lifecycle;
mod log;
pub(crate) mod monitor;
mod network;
mod options;
mod record;
mod restart;
mod rootfs;
mod run;
mod show;
mod spec;
mod streams;
mod volumes;

pub(crate) use directory::Containers;
pub(crate) use lifecycle::{Stop, attach, remove, remove_forced, restart, settle, stop, wait};
pub(crate) use run::{names_an_image, run};
pub(crate) use show::{LogsOptions, listed, logs};
