//! ttrpc as containerd speaks it: frames on a unix socket, each with one request or one response.
//!
//! Specification: `PROTOCOL.md` of containerd/ttrpc. Only unary calls are served; containerd makes no others to a shim.

mod client;
mod frame;
mod outbox;
mod server;

pub(crate) use client::Client;
pub(crate) use server::{Call, Connection, Reply};
