//! Behaviours of the runtime, one module each. A test takes the base configuration, changes one thing, runs it, looks
//! from inside, and asserts.

mod bad_input;
mod capabilities;
mod cgroup_setups;
mod cgroups;
mod check;
mod command_line;
mod concurrency;
mod devices;
mod events;
mod exec;
mod fallbacks;
mod hooks;
mod idmapped;
mod lifecycle;
mod limits;
mod masked_paths;
mod mounts;
mod namespaces;
mod pause;
mod process;
mod ps_list;
mod reboot;
mod rootfs;
mod rootless;
mod seccomp;
mod seccomp_notify;
mod security;
mod signals;
mod spec;
mod state;
mod systemd;
mod terminal;
mod update;
mod userns;
mod wrong_state;
