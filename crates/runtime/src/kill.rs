//! `kill`: signals.

use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::state::Container;
use crate::{Context, Error, Kind, Result, Settings, sys};

/// Sends `signal` (a number) to the container's init, or with `all` to every process in its cgroup (in its pid namespace, where it has no cgroup).
pub fn kill(settings: &Settings, id: &str, signal: i32, all: bool) -> Result<()> {
    let container = Container::open(settings, id)?;
    if all {
        // Processes may be left of a container without a pid namespace whose init has ended.
        return match container.cgroup()? {
            Some(cgroup) => Ok(cgroup.signal(signal)?),
            None => {
                signal_init(&container, signal)?;
                let namespace = container.pid_namespace()?;
                let init = container.record.init.as_ref().map_or(0, |init| init.pid);
                let others = namespace.members().into_iter().filter(|pid| *pid != init);
                others
                    .filter_map(|pid| namespace.open(pid))
                    .try_for_each(|pidfd| {
                        match sys::process::pidfd_send_signal(pidfd.as_fd(), signal) {
                            Ok(()) | Err(Errno::ESRCH) => Ok(()),
                            Err(error) => Err(error)
                                .with_context(|| format!("send signal {signal} to all processes")),
                        }
                    })
            }
        };
    }
    signal_init(&container, signal)
}

fn signal_init(container: &Container, signal: i32) -> Result<()> {
    let not_running = || Error::new(Kind::WrongStatus, "container not running");
    let pidfd = container.record.open_init()?.ok_or_else(not_running)?;
    match sys::process::pidfd_send_signal(pidfd.as_fd(), signal) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Err(not_running()),
        Err(error) => {
            let pid = container.record.init.as_ref().map_or(0, |init| init.pid);
            return Err(error).with_context(|| format!("send signal {signal} to process {pid}"));
        }
    }
    // A frozen process dies only when it is thawed; cgroup v2 lets SIGKILL through by itself, v1 does not.
    if signal == libc::SIGKILL && container.record.is_frozen()? {
        let thaw = || -> Result<()> { Ok(container.required_cgroup()?.thaw()?) };
        // systemd may have removed the cgroup meanwhile, as that of a container that has ended.
        return thaw().or_else(|error| match container.record.is_frozen()? {
            true => Err(error),
            false => Ok(()),
        });
    }
    Ok(())
}
