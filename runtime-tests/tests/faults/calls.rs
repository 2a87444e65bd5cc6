//! System calls: their names, and which of them cannot fail in a way that anybody could answer.

use std::sync::LazyLock;

#[path = "../../../crates/seccomp/src/syscalls/table.rs"]
mod table;

/// Of the seccomp compiler's table: a name, and its number in each ABI, first of all x86_64.
type Row = (&'static str, [u16; 6]);
const NONE: u16 = u16::MAX;

/// The name of a system call.
pub(crate) fn name_of(number: i64) -> String {
    let mut rows = table::ROWS.iter();
    let row = rows.find(|(_, numbers)| i64::from(numbers[0]) == number);
    row.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// Calls that never get an error here, and why not. Processes are killed at them all the same.
const WITHOUT_ERRORS: [(&[&str], &str); 7] = [
    (&["exit", "exit_group"], "they do not return"),
    (
        &["rt_sigreturn", "restart_syscall"],
        "they are the kernel's own ways back into a program",
    ),
    (
        &[
            "getpid",
            "gettid",
            "getppid",
            "getuid",
            "geteuid",
            "getgid",
            "getegid",
            "umask",
            "set_tid_address",
        ],
        "they have no errors",
    ),
    (
        &["rt_sigprocmask", "rt_sigaction", "arch_prctl"],
        "the C library makes them before main and around fork, with arguments that are right, and answers nothing",
    ),
    (
        &["getrandom"],
        "once the machine has started it never fails, and the standard library's tables rely on that",
    ),
    (
        &["futex"],
        "a wake-up that is lost is none of its failures, and who waits looks again",
    ),
    (
        &["brk", "mmap", "munmap", "mprotect", "mremap", "madvise"],
        "they are the allocator's, whose failure is the end of any Rust program: abort(3)",
    ),
];

/// Calls that the kernel carries out even when they fail.
const CARRIED_OUT: [&str; 1] = ["close"];

/// Whether errors make sense at a call.
pub(crate) fn can_fail(number: i64) -> bool {
    static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| {
        WITHOUT_ERRORS
            .iter()
            .flat_map(|(names, _)| *names)
            .copied()
            .collect()
    });
    !NAMES.contains(&name_of(number).as_str())
}

/// Whether a call that fails has done its work all the same.
pub(crate) fn is_carried_out(number: i64) -> bool {
    CARRIED_OUT.contains(&name_of(number).as_str())
}
