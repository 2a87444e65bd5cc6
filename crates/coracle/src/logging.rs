//! The log of one run, in runc's two formats, where engines look for it.
//!
//! podman reads the whole `--log` file of a failed run as one JSON object, containerd shows its last one, and both merge
//! standard error into answers that they parse. From that follows where things go:
//!
//! | | text | json |
//! |---|---|---|
//! | warnings | `--log` file, else stderr (not beside an answer) | the file, once the run has succeeded; stderr when it fails |
//! | the error of a failed run | the file, and its plain text on stderr | the file, and its plain text on stderr |
//! | with `--debug` | everything at once in the file and on stderr | everything at once in the file and on stderr |

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::{Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use runtime::Context;

use crate::Failure;
use crate::flags::Flags;

static OUTPUT: OnceLock<Output> = OnceLock::new();

/// Where this run's log goes.
#[derive(Debug)]
struct Output {
    file: Option<File>,
    format: Format,
    debug: bool,
    /// Standard error is merged into an answer by those who parse it.
    answers: bool,
    /// Lines that must not stand beside the one JSON object of a failed run, until the outcome is known.
    held: Mutex<Vec<Entry>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// One line of a log.
#[derive(Clone, Debug)]
struct Entry {
    level: Level,
    message: String,
    time: SystemTime,
}

/// Sets the log up as the global flags say. `answers` tells that the command's output is parsed together with stderr.
pub(crate) fn start(globals: &Flags, answers: bool) -> Result<(), Failure> {
    let format = match globals.text("log-format") {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(Failure::new(format!("invalid log-format: {other}"))),
    };
    let level = match globals
        .text("log-level")
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        _ if globals.is_set("debug") => LevelFilter::Debug,
        None | Some("info") => LevelFilter::Info,
        Some("trace") => LevelFilter::Trace,
        Some("debug") => LevelFilter::Debug,
        Some("warning" | "warn") => LevelFilter::Warn,
        Some("error" | "fatal" | "panic") => LevelFilter::Error,
        Some(other) => return Err(Failure::new(format!("invalid log-level: {other}"))),
    };
    let open = |path| OpenOptions::new().create(true).append(true).open(path);
    let file = match globals.text("log").filter(|path| *path != "/dev/stderr") {
        None => None,
        Some(path) => Some(open(path).with_context(|| format!("open log file {path}"))?),
    };
    let debug = level >= LevelFilter::Debug;
    let output = OUTPUT.get_or_init(|| Output {
        file,
        format,
        debug,
        answers,
        held: Mutex::default(),
    });
    // The only way to fail is a second logger, and this is called once.
    let _ = log::set_logger(output);
    log::set_max_level(level);
    Ok(())
}

/// Writes what was held back: the run succeeded.
pub(crate) fn succeeded() {
    if let Some(output) = OUTPUT.get() {
        output.release(|entry| output.to_file(entry));
    }
}

/// Reports the error that ended the run.
pub(crate) fn failed(message: &str) {
    let Some(output) = OUTPUT.get() else {
        to_stderr(message);
        return;
    };
    output.release(|entry| to_stderr(&entry.text()));
    let entry = Entry {
        level: Level::Error,
        message: message.to_owned(),
        time: SystemTime::now(),
    };
    output.to_file(&entry);
    // Without a file, stderr is the log of an engine that asked for JSON.
    to_stderr(
        if output.file.is_none() && output.format == Format::Json {
            entry.json()
        } else {
            entry.message
        }
        .as_str(),
    );
}

impl Log for Output {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let entry = Entry {
            level: record.level(),
            message: record.args().to_string(),
            time: SystemTime::now(),
        };
        if self.file.is_none() {
            if self.debug || !self.answers {
                to_stderr(&self.line(&entry));
            }
        } else if self.debug {
            self.to_file(&entry);
            to_stderr(&self.line(&entry));
        } else if self.format == Format::Text {
            self.to_file(&entry);
        } else if let Ok(mut held) = self.held.lock() {
            held.push(entry);
        }
    }

    fn flush(&self) {}
}

impl Output {
    fn line(&self, entry: &Entry) -> String {
        match self.format {
            Format::Text => entry.text(),
            Format::Json => entry.json(),
        }
    }

    /// A log that cannot be written must not stop a container: the error is dropped.
    fn to_file(&self, entry: &Entry) {
        if let Some(mut file) = self.file.as_ref() {
            let _ = file.write_all((self.line(entry) + "\n").as_bytes());
        }
    }

    fn release(&self, write: impl FnMut(&Entry)) {
        if let Ok(mut held) = self.held.lock() {
            std::mem::take(&mut *held).iter().for_each(write);
        }
    }
}

/// One write(2) per line, so that lines of several processes do not mix.
fn to_stderr(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

impl Entry {
    /// As logrus writes text.
    fn text(&self) -> String {
        let level = level_name(self.level);
        format!(
            "time=\"{}\" level={level} msg={:?}",
            rfc3339(self.time),
            self.message
        )
    }

    /// As logrus writes JSON.
    fn json(&self) -> String {
        let message = serde_json::Value::from(self.message.as_str());
        format!(
            r#"{{"level":"{}","msg":{message},"time":"{}"}}"#,
            level_name(self.level),
            rfc3339(self.time)
        )
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// RFC 3339 in UTC, to the second.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = String::with_capacity(20);
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    );
    text
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar. Years start in March here, so that the day that
/// comes and goes is a year's last.
fn civil(day: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let day = day + 719_468; // days from 0000-03-01 to 1970-01-01
    let (era, day) = (day / DAYS_OF_400_YEARS, day % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    (
        year,
        if month < 10 { month + 3 } else { month - 9 },
        day_of_month,
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(message: &str, seconds: u64) -> Entry {
        Entry {
            level: Level::Warn,
            message: message.into(),
            time: UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn lines_look_like_logruses() {
        let entry = entry("say \"no\"\nplease", 0);
        assert_eq!(
            entry.text(),
            r#"time="1970-01-01T00:00:00Z" level=warning msg="say \"no\"\nplease""#
        );
        assert_eq!(
            entry.json(),
            r#"{"level":"warning","msg":"say \"no\"\nplease","time":"1970-01-01T00:00:00Z"}"#
        );
    }

    fn output(format: Format, debug: bool) -> (Output, std::path::PathBuf) {
        let unique = format!("coracle-log-{}-{format:?}-{debug}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        let file = Some(File::create(&path).unwrap());
        (
            Output {
                file,
                format,
                debug,
                answers: false,
                held: Mutex::default(),
            },
            path,
        )
    }

    fn warn(output: &Output) {
        output.log(
            &Record::builder()
                .level(Level::Warn)
                .args(format_args!("careful"))
                .build(),
        );
    }

    fn written(path: &std::path::Path) -> usize {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::remove_file(path).unwrap();
        text.lines().count()
    }

    #[test]
    fn json_keeps_warnings_until_the_outcome_is_known() {
        log::set_max_level(LevelFilter::Info);
        let (held, path) = output(Format::Json, false);
        warn(&held);
        assert_eq!(written(&path), 0);

        let (succeeds, path) = output(Format::Json, false);
        warn(&succeeds);
        succeeds.release(|entry| succeeds.to_file(entry));
        assert_eq!(written(&path), 1);

        for (format, debug) in [(Format::Text, false), (Format::Json, true)] {
            let (at_once, path) = output(format, debug);
            warn(&at_once);
            assert_eq!(written(&path), 1, "{format:?} {debug}");
        }
    }
}
