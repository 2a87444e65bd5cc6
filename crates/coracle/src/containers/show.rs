//! What people look at: the list of containers, and their logs.

use std::io::{Write, stderr, stdout};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use humantime::parse_rfc3339_weak;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use runtime::{Context, Result, Settings};

use super::control::Message;
use super::directory::{Container, Containers};
use super::lifecycle::settle;
use super::log::{Entry, LogReader};
use super::record::Status;
use crate::values;

/// The containers of a state root, settled. The engines' containers, below other roots, have nothing to do with them.
pub(crate) fn listed(
    settings: &Settings,
    containers: &Containers,
) -> Result<Vec<(Container, Status)>> {
    let mut listed = Vec::new();
    for container in containers.list()? {
        if container.record.root == settings.root {
            let status = settle(&container)?;
            listed.push((container, status));
        }
    }
    Ok(listed)
}

/// What of a log is shown, and how.
#[derive(Clone, Debug)]
pub(crate) struct LogsOptions {
    pub(crate) follow: bool,
    /// The last lines only.
    pub(crate) tail: Option<usize>,
    pub(crate) since: Option<SystemTime>,
    pub(crate) timestamps: bool,
}

impl LogsOptions {
    /// `--since`: RFC 3339, seconds since 1970, or how long ago.
    pub(crate) fn parse_since(text: &str, now: SystemTime) -> Option<SystemTime> {
        if let Some(ago) = values::duration(text).filter(|_| text != "0") {
            return now.checked_sub(ago);
        }
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        if let (Ok(seconds), Some(nanoseconds)) = (
            seconds.parse(),
            format!("{fraction:0<9}")
                .get(..9)
                .and_then(|text| text.parse().ok()),
        ) {
            return SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds));
        }
        parse_rfc3339_weak(&text.replace('T', " "))
            .or_else(|_| humantime::parse_rfc3339(text))
            .ok()
    }
}

/// Writes a container's log: what it has written to standard output there, and its errors to standard error.
pub(crate) fn logs(container: &Container, options: &LogsOptions) -> Result<()> {
    let status = settle(container)?;
    let (mut reader, lines) = LogReader::open(container.directory()?, options.tail)?;
    for line in lines {
        show(&line, options)?;
    }
    if !options.follow
        || !matches!(
            status.phase,
            super::record::Phase::Running | super::record::Phase::Restarting
        )
    {
        return Ok(());
    }
    // Watched before the last look, so that nothing falls in between.
    let watching = "watch the log";
    let inotify =
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context(watching)?;
    let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE;
    inotify
        .add_watch(&container.path, changes)
        .context(watching)?;
    let connection = container.connect()?;
    if let Some(connection) = &connection {
        connection.say(&Message::Wait)?;
    }
    loop {
        let mut written = Ok(());
        reader.read_on(&mut |line| {
            if written.is_ok() {
                written = show(&line, options);
            }
        })?;
        written?;
        let Some(connection) = &connection else {
            return Ok(());
        };
        let mut fds = [
            PollFd::new(inotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(connection.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context(watching),
        }
        let _ = inotify.read_events();
        if fds[1].any() == Some(true) {
            // It has ended: what is there now is all.
            return reader.read_on(&mut |line| drop(show(&line, options)));
        }
    }
}

fn show(line: &[u8], options: &LogsOptions) -> Result<()> {
    // Half a line, of a disk that was full.
    let Ok(entry) = serde_json::from_slice::<Entry<'_>>(line) else {
        return Ok(());
    };
    if let (Some(since), Some(time)) = (options.since, entry.time())
        && time < since
    {
        return Ok(());
    }
    let mut text = Vec::with_capacity(entry.log.len() + 40);
    if options.timestamps {
        text.extend_from_slice(entry.time.as_bytes());
        text.push(b' ');
    }
    text.extend_from_slice(entry.log.as_bytes());
    let writing = "write the log";
    match entry.stream.as_ref() {
        "stderr" => stderr().write_all(&text).context(writing),
        _ => {
            let mut out = stdout().lock();
            out.write_all(&text)
                .and_then(|()| out.flush())
                .context(writing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_comes_in_three_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        for (text, time) in [
            ("10s", at(990)),
            ("1m30s", at(910)),
            ("500", at(500)),
            ("1970-01-01T00:01:00Z", at(60)),
            ("1970-01-01T00:01:00", at(60)),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(LogsOptions::parse_since(text, now), time, "{text}");
        }
    }
}
