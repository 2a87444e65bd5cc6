//! What falls over while the runtime is at work: its processes are killed, its system calls fail, its files are cut short, its disk is
//! full. Whatever happens, a clear error or success comes of it, and `delete --force` leaves the machine exactly as it was.
//!
//! Each test runs on a machine of its own, see [`machine`]. `make test` has a part of the points, which is the same each time; with
//! `FAULTS=all` (`make faults`) they are tried one and all, and `FAULTS=WORD` tries those of `make faults` whose names have the word in them.

#![cfg(target_arch = "x86_64")]

mod calls;
mod machine;
mod many;
mod records;
mod scenarios;
mod snapshot;
mod surroundings;
