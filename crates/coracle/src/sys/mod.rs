//! How the program starts, and where its memory comes from: what every command pays for. The only `unsafe` of this crate.

#![allow(unsafe_code)]

#[cfg(all(own_entry, not(test)))]
mod entry;
mod memory;
#[cfg(all(own_entry, not(test)))]
mod relocation;

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

/// Where the C library starts the program. The standard library's own start would set up a second stack, on which to tell of an overflow of
/// the first: a dozen system calls of a command that has some thirty. What else it does is in `main.rs`.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code, reason = "tests have a main of their own"))]
extern "C" fn main(count: c_int, values: *const *const c_char) -> c_int {
    let arguments = (0..count as usize).map(|index| {
        // SAFETY: there are `count` C strings, which live as long as the process.
        let argument = unsafe { CStr::from_ptr(*values.add(index)) };
        OsStr::from_bytes(argument.to_bytes()).to_owned()
    });
    runtime::set_arguments(arguments.collect());
    #[cfg(all(own_entry, not(test)))]
    relocation::relocate_for_panics();
    if OUT_OF_REACH.load(Ordering::Relaxed) {
        runtime::set_protected(executed_copy());
    }
    crate::begin()
}

#[cfg(all(own_entry, not(test)))]
pub(crate) use relocation::with_all;

/// Does what needs all of the program's constants (relocation.rs): without an entry point of our own they are there.
#[cfg(not(all(own_entry, not(test))))]
pub(crate) fn with_all<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Whether `entry`, where there is one, has found the program on a mount that is read-only.
static OUT_OF_REACH: AtomicBool = AtomicBool::new(false);

/// The copy of the mount from which `entry` has had the program executed, left open (execveat(2), getauxval(3) `AT_EXECFN`).
fn executed_copy() -> Option<OwnedFd> {
    // SAFETY: it is a C string that the kernel has put above the stack, if it is there.
    let name = unsafe {
        let name = libc::getauxval(libc::AT_EXECFN) as *const c_char;
        (!name.is_null()).then(|| CStr::from_ptr(name))
    };
    let copy: RawFd = name?
        .to_str()
        .ok()?
        .strip_prefix("/dev/fd/")?
        .parse()
        .ok()?;
    // SAFETY: nothing has been opened yet, so if it is open it is the copy.
    let is_open = unsafe { BorrowedFd::borrow_raw(copy) };
    fcntl(is_open, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: nobody else knows of it. The number of a standard stream that was not there is free again at once.
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };
    (copy.as_raw_fd() > 2).then_some(copy)
}

/// Ends the program. exit(3) would go through what the C library has to hand back, which is nothing.
pub(crate) fn exit(status: i32) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(status) }
}

/// A write to a pipe that nobody reads is an error to report, not the end. Blocked, not ignored: whoever is made by us has to empty its mask in
/// any case.
pub(crate) fn block_sigpipe() {
    let _ = SigSet::from(Signal::SIGPIPE).thread_block();
}

/// A standard stream that is not there becomes /dev/null: else the next file that is opened would be taken for it.
pub(crate) fn hold_standard_streams() {
    // SAFETY: nothing owns these descriptors, so none of them is closed while it is borrowed; whether it is open is for poll(2) to say.
    let streams = [0, 1, 2].map(|stream| unsafe { BorrowedFd::borrow_raw(stream) });
    let mut streams = streams.map(|stream| PollFd::new(stream, PollFlags::empty()));
    let _ = poll(&mut streams, PollTimeout::ZERO);
    let missing = |stream: &&PollFd<'_>| {
        let found = stream.revents();
        found.is_some_and(|found| found.contains(PollFlags::POLLNVAL))
    };
    for _ in streams.iter().filter(missing) {
        // It gets the lowest free number.
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        match null {
            Ok(null) => drop(null.into_raw_fd()),
            Err(_) => std::process::abort(),
        }
    }
}
