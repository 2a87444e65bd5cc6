//! The shim without containerd: what comes at its socket, and what is left when it is killed. `SHIM=/usr/bin/containerd-shim-runc-v2`
//! proves the tests.

mod bad_input;
mod killed;
mod ttrpc;
