//! Actions and flags: their names in a profile and their values for the kernel.

use crate::Error;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag,
};

/// Names of the actions that [`return_value`] knows.
pub(crate) static ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// Names of the flags that [`filter_flags`] knows.
pub(crate) static FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// `SECCOMP_RET_KILL_THREAD`, which a call of an ABI that the profile does not list gets.
pub(crate) const KILL_THREAD: u32 = 0;
/// `SECCOMP_RET_ERRNO`; the errno stands in the lower 16 bits.
const ERRNO: u32 = 0x0005_0000;
/// `SECCOMP_RET_TRACE`; the tracer's message stands in the lower 16 bits.
const TRACE: u32 = 0x7ff0_0000;
/// What a system call that the profile's author could not know of gets.
pub(crate) const NO_SUCH_CALL: u32 = ERRNO | 38;

const EPERM: u16 = 1;

/// The filter's return value for `action`. EPERM stands for an errno that is not given. `field` names the errno.
///
/// # Errors
///
/// The runtime specification demands an error when an errno comes with an action that has none.
pub(crate) fn return_value(
    action: Action,
    errno: Option<u32>,
    field: impl Fn() -> String,
) -> Result<u32, Error> {
    let data = match errno {
        None => EPERM,
        Some(_) if !matches!(action, Action::ScmpActErrno | Action::ScmpActTrace) => {
            return Err(Error::new(
                field(),
                format!("{action} does not take an errno"),
            ));
        }
        Some(errno) => u16::try_from(errno)
            .map_err(|_| Error::new(field(), format!("{errno} is too large for an errno")))?,
    };
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => KILL_THREAD,
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActTrap => 0x0003_0000,
        Action::ScmpActErrno => ERRNO | u32::from(data),
        Action::ScmpActNotify => 0x7fc0_0000,
        Action::ScmpActTrace => TRACE | u32::from(data),
        Action::ScmpActLog => 0x7ffc_0000,
        Action::ScmpActAllow => 0x7fff_0000,
    })
}

/// Whether `action` lets a call pass, as far as the filter is concerned. TRACE counts: a tracer is expected to know
/// about calls that are newer than the profile, and emulation breaks when they are kept from it.
pub(crate) fn lets_pass(action: Action) -> bool {
    matches!(
        action,
        Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
    )
}

/// The section's flags for seccomp(2). A section that says nothing about flags gets SPEC_ALLOW, as with runc: kernels
/// before 5.16 otherwise turn speculative store bypass off, and with it much speed, for every process with a filter.
pub(crate) fn filter_flags(section: &LinuxSeccomp) -> u32 {
    let Some(flags) = section.flags() else {
        return flag_value(Flag::SeccompFilterFlagSpecAllow);
    };
    flags.iter().fold(0, |all, &flag| all | flag_value(flag))
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub(crate) const NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` (Linux 5.19).
pub(crate) const WAIT_KILLABLE_RECV: u32 = 1 << 5;

fn flag_value(flag: Flag) -> u32 {
    match flag {
        // Nothing to do for the one thread that becomes the container's first process.
        Flag::SeccompFilterFlagTsync => 0,
        Flag::SeccompFilterFlagLog => 1 << 1,
        Flag::SeccompFilterFlagSpecAllow => 1 << 2,
        Flag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE_RECV,
    }
}
