//! The seccomp agent, who decides on the system calls of `SCMP_ACT_NOTIFY` (runtime-spec config-linux.md, "Seccomp" and "The Container
//! Process State").
//!
//! The process that installs the filter may not be able to send its listener: sendmsg(2) itself may be such a call. So it only says which
//! of its descriptors that is, by write(2), which no profile can have notified; the runtime takes a copy of it and sends that.

use std::os::fd::{AsFd, BorrowedFd, RawFd};

use serde::Serialize;

use crate::state::{Container, OciState, Status};
use crate::{Context, Error, Result, config, sys, terminal};

/// What the specification calls the descriptor that goes along.
const SECCOMP_FD: &str = "seccompFd";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: OciState<'a>,
}

/// A process of a container that has installed a filter with a listener.
pub(crate) struct Notifier<'a> {
    pub container: &'a Container,
    pub pid: i32,
    pub pidfd: BorrowedFd<'a>,
    /// What the container is doing: creating when it is its first process.
    pub status: Status,
}

impl Notifier<'_> {
    /// Sends the listener, which is descriptor `listener` of the process, to the agent at `linux.seccomp.listenerPath`.
    pub(crate) fn hand_over(&self, listener: RawFd) -> Result<()> {
        let spec = config::parse_spec(&self.container.directory.read_config()?)?;
        let section = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.seccomp().as_ref());
        let path = section.and_then(|section| section.listener_path().as_ref());
        let (Some(section), Some(path)) = (section, path) else {
            return Err(Error::invalid("linux.seccomp.listenerPath: missing"));
        };
        let listener = sys::process::pidfd_getfd(self.pidfd, listener)
            .context("linux.seccomp: take the listener over from the container's process")?;
        let agent = terminal::connect_to(path).context(
            "linux.seccomp.listenerPath: failed to connect with seccomp agent specified in the seccomp profile",
        )?;
        let record = &self.container.record;
        let first = record.init.as_ref().map_or(self.pid, |init| init.pid);
        let state = ContainerProcessState {
            oci_version: &record.oci_version,
            fds: [SECCOMP_FD],
            pid: self.pid,
            metadata: section.listener_metadata().as_deref().unwrap_or_default(),
            state: OciState::new(record, first, self.status),
        };
        let state = serde_json::to_vec(&state).map_err(|error| {
            Error::failed(format!("encode the container process state: {error}"))
        })?;
        terminal::send(agent.as_fd(), &state, listener.as_fd())
            .with_context(|| format!("cannot send seccomp fd to {}", path.display()))
    }
}
