//! Annotations of crun's that engines and their users rely on (crun(1), "EXTENSIONS TO OCI"). Whoever writes a configuration is trusted
//! with them; what an image says of itself must not become one.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

/// The process keeps the additional groups of the runtime's caller, whatever `process.user.additionalGids` says: what a group may read on
/// the host stays readable for an ordinary user's container (podman's `--group-add keep-groups`).
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
/// A unix socket that gets a pidfd of the container's process, as `--pidfd-socket` does.
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";
/// The seccomp agent's socket, where `linux.seccomp.listenerPath` names none.
const SECCOMP_RECEIVER: &str = "run.oci.seccomp.receiver";
/// A system call that no ABI has is an error.
const FAIL_UNKNOWN_SYSCALL: &str = "run.oci.seccomp_fail_unknown_syscall";
/// Another option than `context` for `linux.mountLabel`: with `rootcontext` a container may give the files of its mounts labels of its own
/// (podman's `--security-opt label=nested`).
pub(crate) const MOUNT_CONTEXT_TYPE: &str = "run.oci.mount_context_type";

/// All of them, for `features`.
pub(crate) const ALL: [&str; 5] = [
    KEEP_GROUPS,
    PIDFD_RECEIVER,
    SECCOMP_RECEIVER,
    FAIL_UNKNOWN_SYSCALL,
    MOUNT_CONTEXT_TYPE,
];

fn value<'a>(spec: &'a Spec, name: &str) -> Option<&'a str> {
    spec.annotations().as_ref()?.get(name).map(String::as_str)
}

pub(crate) fn keeps_groups(spec: &Spec) -> bool {
    value(spec, KEEP_GROUPS).is_some()
}

pub(crate) fn pidfd_receiver(spec: &Spec) -> Option<&Path> {
    value(spec, PIDFD_RECEIVER).map(Path::new)
}

pub(crate) fn fails_on_unknown_syscalls(spec: &Spec) -> bool {
    value(spec, FAIL_UNKNOWN_SYSCALL).is_some()
}

pub(crate) fn mount_context_type(spec: &Spec) -> Option<&str> {
    value(spec, MOUNT_CONTEXT_TYPE)
}

/// Puts what is said in place of a field of the specification into that field.
pub(crate) fn fill_fields(spec: &mut Spec) {
    let Some(path) = value(spec, SECCOMP_RECEIVER).map(PathBuf::from) else {
        return;
    };
    let linux = spec.linux_mut().as_mut();
    if let Some(section) = linux.and_then(|linux| linux.seccomp_mut().as_mut())
        && section.listener_path().is_none()
    {
        section.set_listener_path(Some(path));
    }
}
