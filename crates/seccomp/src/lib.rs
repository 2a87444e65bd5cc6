//! Compiles the `linux.seccomp` section of an OCI configuration into a classic BPF program for seccomp(2).
//!
//! Pure: no I/O and no system calls. The caller installs [`Program::instructions`] with [`Program::flags`].
//!
//! A program answers what libseccomp's does for the same profile, and adds what runc adds to that:
//!
//! - A system call number above the highest one that the profile names for its ABI gets ENOSYS, so that a C library
//!   falls back from a call the profile's author could not know of. Not so where the default action lets calls pass
//!   (ALLOW, LOG, TRACE).
//! - An ABI that the profile does not list gets the thread killed. The native ABI is always listed.
//! - Names that no ABI has are skipped ([`Program::skipped`]), as are rules that repeat the default action.
//! - A rule with two conditions on one argument becomes one rule for each of its conditions.
//! - 32-bit ABIs, x32 among them, compare the lower half of an argument with the lower half of the value.
//!
//! Several rules for one system call: a rule without conditions wins over those with, and the first of them wins.
//! Among rules with conditions the first that holds in libseccomp's order decides: conditions on later arguments before
//! those on earlier ones, then equality, upper bounds, lower bounds, and of these the narrower bound or larger value. Two
//! rules that give different actions for the same conditions are an error.
//!
//! The way through the crate: `rules` checks the section, `outcomes` finds what each number of an ABI leads to, `search`
//! and `condition` make the graph of comparisons in `decision` from that, and `assemble` lays it out as instructions.

#![forbid(unsafe_code)]

mod abi;
mod action;
mod assemble;
mod condition;
mod decision;
mod error;
mod outcomes;
mod program;
mod rules;
mod search;
mod syscalls;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use program::{Instruction, Program, compile};

/// The actions that [`compile`] knows, sorted.
pub fn actions() -> &'static [&'static str] {
    &action::ACTIONS
}

/// The comparison operators that [`compile`] knows, sorted.
pub fn operators() -> &'static [&'static str] {
    &condition::OPERATORS
}

/// The architectures that [`compile`] has system call numbers of, sorted.
pub fn architectures() -> &'static [&'static str] {
    &abi::ARCHITECTURES
}

/// The filter flags that [`compile`] knows, in runc's order. What the running kernel takes may be less.
pub fn flags() -> &'static [&'static str] {
    &action::FLAGS
}
