//! Whether the kernel has killed a process of the container for want of memory.

use std::os::fd::{AsFd, BorrowedFd};

use nix::libc::SIGKILL;
use runtime::OomWatch;

use super::super::directory::Container;

/// What is known of it while the container runs. Systemd removes the cgroup, and its counters with it, when the last process has ended:
/// there they are looked at whenever they change.
#[derive(Default)]
pub(super) struct Memory {
    watch: Option<OomWatch>,
    kills: u64,
    lost: bool,
}

impl Memory {
    /// Of a container that runs.
    pub(super) fn of(container: &Container) -> Self {
        let record = &container.record;
        let watch = record
            .systemd_cgroup
            .then(|| runtime::watch_memory(&record.settings(), &record.id));
        Memory {
            watch: watch.flatten(),
            ..Memory::default()
        }
    }

    /// Becomes readable when there is something to read.
    pub(super) fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Takes note of what has changed.
    pub(super) fn read(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        match watch.read() {
            Ok(state) => {
                self.kills += state.kills;
                self.lost |= state.lost;
                if state.gone {
                    self.watch = None;
                }
            }
            Err(error) => {
                log::warn!("{error}");
                self.watch = None;
            }
        }
    }

    /// The verdict on a container that has ended with this exit status. Where the counters are lost, it is one that was at its limit and
    /// that somebody has killed: `by_us` when that was us.
    pub(super) fn was_short(mut self, container: &Container, status: i32, by_us: bool) -> bool {
        self.read();
        let record = &container.record;
        self.kills > 0
            || self.lost && status == 128 + SIGKILL && !by_us
            || runtime::was_out_of_memory(&record.settings(), &record.id)
    }
}
