//! `regex-lite` under the name of `regex`.
//!
//! oci-spec checks one short pattern (`process.execCPUAffinity`) with the full `regex` crate, which makes the binary 1.4 MB larger.
//! Cargo.toml puts this crate in its place; the part of the interface that oci-spec uses is the same in both, and so is that which
//! prost-build uses for comments.

#![forbid(unsafe_code)]

pub use regex_lite::*;
