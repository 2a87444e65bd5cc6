//! `events`: statistics and OOM notifications.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use cgroups::OomWatch;

use crate::state::{Container, Status};
use crate::{Context, Error, Kind, Result, Settings};

/// The options of [`events`].
#[derive(Clone, Debug)]
pub struct EventsOptions {
    /// Time between two `stats` events.
    pub interval: Duration,
    /// Print one `stats` event and return.
    pub once: bool,
}

/// One line of output (runc's `types.Event`).
#[derive(Serialize)]
struct Event<'a, T: Serialize> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
}

/// Writes one JSON object a line to `out` until the container ends: `stats` at each interval, `oom` when it happens.
pub fn events(
    settings: &Settings,
    id: &str,
    options: &EventsOptions,
    out: &mut dyn Write,
) -> Result<()> {
    if options.interval.is_zero() {
        return Err(Error::invalid("duration interval must be greater than 0"));
    }
    let container = Container::open(settings, id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new(
            Kind::WrongStatus,
            format!("container with id {id} is not running"),
        ));
    }
    let cgroup = container.required_cgroup()?;
    let stats = |out: &mut dyn Write| {
        let mut stats = cgroup.stats()?;
        if let Some(group) = &container.record.intel_rdt {
            stats.intel_rdt = group.stats()?;
        }
        write_event(out, "stats", id, Some(stats))
    };
    if options.once {
        return stats(out);
    }
    let Some(init) = container.record.open_init()? else {
        return Ok(());
    };
    let mut oom = cgroup.oom_watch()?;
    let mut next = Instant::now() + options.interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let timeout =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut watched = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        watched.extend(
            oom.iter()
                .map(|oom| PollFd::new(oom.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        let ready = |watched: &PollFd<'_>| watched.any() == Some(true);
        let (ended, anything) = (ready(&watched[0]), watched.iter().any(ready));
        // Also at the end: the kill that ended the container is an event.
        if let Some(oom) = oom.as_mut().filter(|_| anything) {
            for _ in 0..oom.read()?.kills {
                write_event(out, "oom", id, None::<()>)?;
            }
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            stats(out)?;
            next += options.interval;
        }
    }
}

/// Whether the kernel has killed a process of the container for want of memory. No container, no kill.
pub fn was_out_of_memory(settings: &Settings, id: &str) -> bool {
    let kills = Container::open(settings, id)
        .and_then(|container| container.cgroup())
        .map(|cgroup| cgroup.map(|cgroup| cgroup.oom_kills()));
    matches!(kills, Ok(Some(Ok(1..))))
}

/// Becomes readable when [`OomWatch::read`] may have something to tell of the container. Nobody whose cgroup cannot be watched is watched.
pub fn watch_memory(settings: &Settings, id: &str) -> Option<OomWatch> {
    let cgroup = Container::open(settings, id).ok()?.cgroup().ok()??;
    let watch = cgroup.oom_watch();
    watch
        .inspect_err(|error| log::debug!("container {id}: {error}"))
        .ok()?
}

fn write_event<T: Serialize>(
    out: &mut dyn Write,
    kind: &'static str,
    id: &str,
    data: Option<T>,
) -> Result<()> {
    let mut line = serde_json::to_vec(&Event { kind, id, data })
        .map_err(|error| Error::failed(format!("encode the event: {error}")))?;
    line.push(b'\n');
    out.write_all(&line)
        .and_then(|()| out.flush())
        .context("write the event")
}
