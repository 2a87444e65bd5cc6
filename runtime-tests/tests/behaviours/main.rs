//! Behaviours of the runtime, one module each. A test takes the base configuration, changes one thing, runs it, looks
//! from inside, and asserts.

mod bad_input;
mod capabilities;
mod check;
mod command_line;
mod concurrency;
mod devices;
mod events;
mod exec;
mod hooks;
mod lifecycle;
mod limits;
mod masked_paths;
mod mounts;
mod namespaces;
mod pause;
mod portability;
mod process;
mod ps_list;
mod rootfs;
mod rootless;
mod seccomp;
mod security;
mod signals;
mod spec;
mod state;
mod terminal;
mod update;
mod userns;
mod wrong_state;
