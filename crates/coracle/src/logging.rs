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

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
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

/// One write(2) per line, so that lines of several processes do not mix. Nobody can be told that it failed.
pub(crate) fn to_stderr(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

impl Entry {
    /// As logrus writes text.
    fn text(&self) -> String {
        let level = level_name(self.level);
        format!(
            "time=\"{}\" level={level} msg={:?}",
            format_rfc3339_seconds(self.time),
            self.message
        )
    }

    /// As logrus writes JSON.
    fn json(&self) -> String {
        let message = serde_json::Value::from(self.message.as_str());
        format!(
            r#"{{"level":"{}","msg":{message},"time":"{}"}}"#,
            level_name(self.level),
            format_rfc3339_seconds(self.time)
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

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn lines_look_like_logruses() {
        let message = "say \"no\"\nplease".to_owned();
        let entry = Entry {
            level: Level::Warn,
            message,
            time: UNIX_EPOCH,
        };
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
