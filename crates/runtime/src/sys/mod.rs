//! System calls that nix and libc do not wrap safely. The only `unsafe` of this crate.
//!
//! Each function is one system call with typed arguments; what to do with it is decided elsewhere.

#![allow(unsafe_code)]

pub(crate) mod credentials;
pub(crate) mod directory;
pub(crate) mod mount;
pub(crate) mod needed;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod pty;
pub(crate) mod raw;
pub(crate) mod terminal;
pub(crate) mod wait;
pub(crate) mod xattr;

use nix::errno::Errno;

/// The value of a raw system call that gives a small non-negative number.
fn check(result: libc::c_long) -> nix::Result<i32> {
    Errno::result(result).map(|value| value as i32)
}
