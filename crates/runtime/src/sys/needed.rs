//! The system calls without which nothing works. All are older than Linux 5.10, but a seccomp filter around us may not know them.

use nix::errno::Errno;

use super::check;

/// Name, number, the Linux that brought it, and whether it may say EPERM before it has looked at its arguments.
const NEEDED: [(&str, libc::c_long, &str, bool); 8] = [
    ("openat2", libc::SYS_openat2, "5.6", false),
    ("open_tree", libc::SYS_open_tree, "5.2", false),
    ("move_mount", libc::SYS_move_mount, "5.2", true),
    ("fsopen", libc::SYS_fsopen, "5.2", true),
    ("fsconfig", libc::SYS_fsconfig, "5.2", false),
    ("fsmount", libc::SYS_fsmount, "5.2", true),
    ("pidfd_open", libc::SYS_pidfd_open, "5.3", false),
    (
        "pidfd_send_signal",
        libc::SYS_pidfd_send_signal,
        "5.1",
        false,
    ),
];

/// Those that this process cannot make: `openat2(2) (Linux 5.6)`. A caller that has failed asks for them to explain it.
pub(crate) fn missing() -> Vec<String> {
    let denied = |&&(_, number, _, says_eperm): &&(_, _, _, bool)| {
        // SAFETY: bad descriptors, bad flags, bad addresses and a size of 0: all of them refuse these arguments, and touch nothing.
        let answer = check(unsafe { libc::syscall(number, -1, 0, -1, 0, -1) });
        answer == Err(Errno::ENOSYS) || answer == Err(Errno::EPERM) && !says_eperm
    };
    NEEDED
        .iter()
        .filter(denied)
        .map(|(name, _, since, _)| format!("{name}(2) (Linux {since})"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_them_all() {
        assert_eq!(missing(), Vec::<String>::new());
    }
}
