//! `stats`: what containers use, as a table that is drawn again and again.

use std::fs;
use std::io::stdout;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{SysconfVar, sysconf};
use runtime::{EventsOptions, Result};
use serde_json::{Value, json};

use super::directory::Container;
use crate::columns::columns;

/// One look at a container.
#[derive(Debug)]
struct Sample {
    id: String,
    name: String,
    at: Instant,
    cpu: u64,
    memory: u64,
    limit: u64,
    received: u64,
    sent: u64,
    /// Bytes read and written; nobody knows it without a cgroup.
    block: Option<(u64, u64)>,
    pids: u64,
}

impl Sample {
    /// `None` when it does not run.
    fn take(container: &Container) -> Option<Self> {
        let record = &container.record;
        let settings = record.settings();
        let mut text = Vec::new();
        let options = EventsOptions {
            interval: Duration::from_secs(1),
            once: true,
        };
        let pid = runtime::state(&settings, &record.id).ok()?.pid;
        let (received, sent) = traffic(pid);
        let counted = runtime::events(&settings, &record.id, &options, &mut text);
        let sample = Sample {
            id: record.short_id().to_owned(),
            name: record.name.clone(),
            at: Instant::now(),
            cpu: 0,
            memory: 0,
            limit: machine_memory(),
            received,
            sent,
            block: None,
            pids: 0,
        };
        if counted.is_err() {
            // An ordinary user's container may have no cgroup.
            let pids = runtime::processes(&settings, &record.id).ok()?;
            return Some(pids.into_iter().fold(sample, Sample::with_process));
        }
        let event: Value = serde_json::from_slice(&text).ok()?;
        let data = &event["data"];
        let number = |pointer: &str| data.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        // Docker: what the kernel could drop at once is not counted.
        let cache =
            number("/memory/raw/total_inactive_file").max(number("/memory/raw/inactive_file"));
        let usage = number("/memory/usage/usage");
        Some(Sample {
            cpu: number("/cpu/usage/total"),
            memory: usage.checked_sub(cache).unwrap_or(usage),
            limit: match number("/memory/usage/limit") {
                0 => sample.limit,
                limit => limit.min(sample.limit),
            },
            block: Some(block_io(&data["blkio"]["ioServiceBytesRecursive"])),
            pids: number("/pids/current"),
            ..sample
        })
    }

    /// What one process uses, added up: its time, and the memory that is not a file's.
    fn with_process(mut self, pid: i32) -> Self {
        let read =
            |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let stat = read("stat");
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum();
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        self.cpu += ticks * 1_000_000_000 / per_second.max(1) as u64;
        self.memory += kilobytes(&read("status"), "RssAnon:") << 10;
        self.pids += 1;
        self
    }

    /// Per cent of one CPU since the sample before.
    fn cpu_percent(&self, before: Option<&Sample>) -> f64 {
        let Some(before) = before else { return 0.0 };
        let time = self.at.duration_since(before.at).as_nanos() as f64;
        self.cpu.saturating_sub(before.cpu) as f64 / time.max(1.0) * 100.0
    }

    fn memory_percent(&self) -> f64 {
        self.memory as f64 / self.limit.max(1) as f64 * 100.0
    }

    fn row(&self, before: Option<&Sample>) -> [String; 8] {
        [
            self.id.clone(),
            self.name.clone(),
            format!("{:.2}%", self.cpu_percent(before)),
            format!("{} / {}", binary(self.memory), binary(self.limit)),
            format!("{:.2}%", self.memory_percent()),
            format!("{} / {}", decimal(self.received), decimal(self.sent)),
            self.block.map_or_else(
                || "--".to_owned(),
                |(read, written)| format!("{} / {}", decimal(read), decimal(written)),
            ),
            self.pids.to_string(),
        ]
    }

    fn json(&self, before: Option<&Sample>) -> Value {
        let [id, name, cpu, memory, percent, network, block, pids] = self.row(before);
        json!({
            "ID": id, "Name": name, "CPUPerc": cpu, "MemUsage": memory, "MemPerc": percent,
            "NetIO": network, "BlockIO": block, "PIDs": pids,
        })
    }
}

/// How it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatsOptions {
    /// Once, after a second's measurement.
    pub(crate) once: bool,
    pub(crate) json: bool,
    /// Our output is a terminal, whose screen can be cleared.
    pub(crate) terminal: bool,
}

/// Shows the containers that `running` gives, each second, until `show` fails.
pub(crate) fn stats(
    options: StatsOptions,
    running: impl Fn() -> Result<Vec<Container>>,
    mut show: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let take =
        || -> Result<Vec<Sample>> { Ok(running()?.iter().filter_map(Sample::take).collect()) };
    let mut before = take()?;
    loop {
        if is_unread_after(Duration::from_secs(1)) {
            return Ok(());
        }
        let now = take()?;
        let earlier = |sample: &Sample| before.iter().find(|each| each.id == sample.id);
        let text = match options.json {
            true => now
                .iter()
                .map(|sample| format!("{}\n", sample.json(earlier(sample))))
                .collect(),
            false => {
                let head = [
                    "CONTAINER ID",
                    "NAME",
                    "CPU %",
                    "MEM USAGE / LIMIT",
                    "MEM %",
                    "NET I/O",
                    "BLOCK I/O",
                    "PIDS",
                ];
                let table = columns(
                    head,
                    now.iter()
                        .map(|sample| sample.row(earlier(sample)))
                        .collect(),
                    0,
                );
                match options.terminal && !options.once {
                    true => format!("\x1b[H\x1b[2J{table}"),
                    false => table,
                }
            }
        };
        show(&text)?;
        if options.once {
            return Ok(());
        }
        before = now;
    }
}

/// Lets the time pass over which is measured, unless whoever reads our output goes away meanwhile.
fn is_unread_after(time: Duration) -> bool {
    let stdout = stdout();
    let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    matches!(poll(&mut watched, timeout), Ok(1..))
}

fn machine_memory() -> u64 {
    kilobytes(
        &fs::read_to_string("/proc/meminfo").unwrap_or_default(),
        "MemTotal:",
    ) << 10
}

/// The number behind a name, as /proc has it.
fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

/// Bytes received and sent by all interfaces of a process's network but its loopback.
fn traffic(pid: i32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let mut sum = (0, 0);
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else {
            continue;
        };
        if name.trim() != "lo" {
            let number = |at| {
                numbers
                    .split_whitespace()
                    .nth(at)
                    .and_then(|text: &str| text.parse::<u64>().ok())
            };
            sum.0 += number(0).unwrap_or(0);
            sum.1 += number(8).unwrap_or(0);
        }
    }
    sum
}

fn block_io(entries: &Value) -> (u64, u64) {
    let of = |operation: &str| {
        let entries = entries.as_array().into_iter().flatten();
        entries
            .filter(|entry| {
                entry["op"]
                    .as_str()
                    .is_some_and(|op| op.eq_ignore_ascii_case(operation))
            })
            .filter_map(|entry| entry["value"].as_u64())
            .sum()
    };
    (of("read"), of("write"))
}

/// `1.5MiB`, with four digits as go-units has it.
fn binary(bytes: u64) -> String {
    with_unit(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// `1.5MB`.
fn decimal(bytes: u64) -> String {
    with_unit(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB"])
}

fn with_unit(bytes: u64, base: f64, units: &[&str]) -> String {
    let (mut value, mut at) = (bytes as f64, 0);
    while value >= base && at + 1 < units.len() {
        value /= base;
        at += 1;
    }
    let digits = match value {
        value if value >= 100.0 || at == 0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{}", units[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1536, "1.5KiB"),
            (64 << 20, "64MiB"),
            (1 << 30, "1GiB"),
        ] {
            assert_eq!(binary(bytes), text);
        }
        assert_eq!(decimal(1_230_000), "1.23MB");
    }
}
