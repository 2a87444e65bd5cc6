//! The command line of this process, for who starts without the standard library's `main`, which is where that learns of it.

use std::ffi::OsString;
use std::sync::OnceLock;

static GIVEN: OnceLock<Vec<OsString>> = OnceLock::new();

/// Says what it is, the program's name first. Only the first word counts.
pub fn set_arguments(given: Vec<OsString>) {
    let _ = GIVEN.set(given);
}

/// The command line, the program's name first.
pub fn arguments() -> &'static [OsString] {
    GIVEN.get_or_init(|| std::env::args_os().collect())
}
