//! From an OCI bundle to a running container, and everything that is done to it until it is deleted.
//!
//! Each file is one operation or one part of a container's set-up; `docs/ARCHITECTURE.md` is the map.
//! Callers give [`Settings`] and the options of one operation, and get an answer or an [`Error`].

#![deny(unsafe_code)]

mod affinity;
mod agent;
mod annotations;
mod arguments;
mod capabilities;
mod check;
mod checkpoint;
mod child;
mod config;
mod delete;
mod devices;
mod directory;
mod error;
mod events;
mod exec;
mod features;
mod foreground;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hooks;
mod idmap;
mod intel_rdt;
mod json;
mod kill;
mod launch;
mod list;
mod lsm;
mod masks;
mod memory_policy;
mod mounts;
mod namespaces;
mod net_devices;
mod new_network;
mod notify;
mod pause;
mod plan;
mod process;
mod procfs;
mod protect;
mod protocol;
mod rootfs;
mod run;
mod scheduling;
mod spawn;
mod spec;
mod start;
mod state;
mod supervise;
mod sys;
mod terminal;
mod update;
mod userns;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use arguments::{arguments, set_arguments};
pub use capabilities::NAMES as CAPABILITIES;
pub use cgroups::OomWatch;
pub use check::{Availability, Check, Report, check};
pub use checkpoint::{
    CheckpointOptions, CriuOptions, PageServer, RestoreOptions, checkpoint, restore,
};
pub use config::{parse_resources, read_process};
pub use delete::delete;
pub use error::{Context, Error, Kind, Result};
pub use events::{EventsOptions, events, was_out_of_memory, watch_memory};
pub use exec::{ExecOptions, exec};
pub use features::features;
pub use foreground::{RawMode, forwarded_signals, output_of_our_own};
pub use kill::kill;
pub use launch::{CreateOptions, create};
pub use list::{ListEntry, list, processes};
pub use lsm::default_apparmor_profile;
pub use mounts::mount_shifted;
pub use pause::{pause, resume};
pub use protect::{ensure as protect, set_protected};
pub use run::{RunOptions, run};
pub use spec::spec;
pub use start::start;
pub use state::{State, Status, state};
pub use supervise::{Exit, Init, Prepared, both_ends, give_back_program, init, prepare};
pub use sys::mount::SYS_OPEN_TREE_ATTR;
pub use sys::raw::call as system_call;
pub use terminal::{receive as receive_terminal, send_terminal, set_window_size, window_size};
pub use update::{UpdateOptions, update};
pub use userns::is_machines_root;

/// The system calls that every operation stands on and this process cannot make, as `name(2) (Linux version)`: the kernel is older than
/// 5.10, or a seccomp filter around us denies them. Empty where all is well; meant to explain an error.
pub fn missing_calls() -> Vec<String> {
    sys::needed::missing()
}

/// What holds for every operation: the global flags.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory that holds one directory per container (`--root`).
    pub root: PathBuf,
    /// Who makes cgroups.
    pub cgroup_manager: CgroupManager,
    /// Without the rights of root (`--rootless`; by the rights that there are when `None`): a container that asks for no limits may then do
    /// without a cgroup.
    pub rootless: Option<bool>,
}

/// Who makes the containers' cgroups (`--cgroup-manager`, `--systemd-cgroup`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupManager {
    /// This program itself, below /sys/fs/cgroup.
    Cgroupfs,
    /// systemd, by transient scopes.
    Systemd,
    /// Nobody: the container stays in the caller's cgroup.
    Disabled,
}
