//! The shim's own log: the fifo `log` in the bundle that it was started in, which containerd copies into its own log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

use log::{LevelFilter, Log, Metadata, Record};

static LOG: OnceLock<Fifo> = OnceLock::new();

#[derive(Debug)]
struct Fifo {
    file: File,
    id: String,
}

/// Opens it. Without it there is no log.
pub(crate) fn start(id: &str, debug: bool) {
    // For reading as well, so that it opens whether or not somebody reads, and stays open when containerd goes.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("log");
    let Ok(file) = file else {
        return;
    };
    let fifo = LOG.get_or_init(|| Fifo {
        file,
        id: id.to_owned(),
    });
    if log::set_logger(fifo).is_ok() {
        log::set_max_level(if debug {
            LevelFilter::Debug
        } else {
            LevelFilter::Info
        });
    }
}

impl Log for Fifo {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            log::Level::Warn => "warning".to_owned(),
            level => level.as_str().to_ascii_lowercase(),
        };
        let message = record.args().to_string();
        let line = format!("level={level} msg={message:?} id={}\n", self.id);
        // What nobody reads is lost.
        let _ = (&self.file).write(line.as_bytes());
    }

    fn flush(&self) {}
}
