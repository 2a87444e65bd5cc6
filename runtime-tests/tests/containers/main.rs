//! Containers as people run them, seen through the binary: what `run` makes of its flags, and what the monitor does afterwards.

mod commands;
mod exec;
mod flags;
mod images;
mod monitor;
mod rootless;
mod terminal;
mod userns;
