//! What one sees while blobs are on their way: a bar for each on a terminal, otherwise a line when something has happened.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stderr};
use std::sync::{Mutex, PoisonError};

use image::{Descriptor, Digest, Event, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};

use super::list::decimal;

const UNPACKING: &str = "unpacking";

/// Shows progress on standard error.
pub(crate) enum Bars {
    Quiet,
    Lines,
    Terminal {
        screen: MultiProgress,
        bars: Mutex<BTreeMap<Digest, ProgressBar>>,
    },
}

impl Bars {
    pub(crate) fn new(quiet: bool) -> Self {
        match (quiet, stderr().is_terminal()) {
            (true, _) => Bars::Quiet,
            (false, false) => Bars::Lines,
            (false, true) => Bars::Terminal {
                screen: MultiProgress::new(),
                bars: Mutex::default(),
            },
        }
    }
}

impl Progress for Bars {
    fn blob(&self, blob: &Descriptor, event: Event<'_>) {
        match self {
            Bars::Quiet => {}
            Bars::Lines => {
                if let Some(text) = text(blob, event) {
                    let _ = writeln!(stderr(), "{}: {text}", blob.digest.short());
                }
            }
            Bars::Terminal { screen, bars } => {
                let mut bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
                let new = || screen.add(bar(blob));
                let bar = bars.entry(blob.digest.clone()).or_insert_with(new);
                if !matches!(event, Event::Moved(_) | Event::Retrying(..)) {
                    bar.set_style(style("{prefix}: {msg}"));
                }
                let text = |event| text(blob, event).unwrap_or_default();
                match event {
                    Event::Moved(bytes) => bar.set_position(bytes),
                    Event::Unpacking => bar.set_message(UNPACKING),
                    // It was there before.
                    Event::Unpacked if bar.message() != UNPACKING => {}
                    Event::Unpacked => bar.set_message(text(Event::Complete)),
                    Event::Retrying(..) | Event::Exists | Event::Complete => {
                        bar.set_message(text(event));
                    }
                }
            }
        }
    }
}

fn text(blob: &Descriptor, event: Event<'_>) -> Option<String> {
    match event {
        Event::Exists => Some("already exists".into()),
        Event::Moved(_) | Event::Unpacking | Event::Unpacked => None,
        Event::Retrying(pause, why) => Some(format!("{why}: trying again in {}s", pause.as_secs())),
        Event::Complete => Some(format!("complete, {}", decimal(blob.size))),
    }
}

fn bar(blob: &Descriptor) -> ProgressBar {
    ProgressBar::new(blob.size)
        .with_style(style("{prefix}: [{bar:30}] {bytes}/{total_bytes} {msg}").progress_chars("=> "))
        .with_prefix(blob.digest.short().to_owned())
        .with_finish(ProgressFinish::Abandon)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_tells_what_happens_to_its_layer() {
        let bars = Bars::Terminal {
            screen: MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden()),
            bars: Mutex::default(),
        };
        let message = |content: &[u8], event| {
            let blob = Descriptor::new("", Digest::of(content), 2000);
            bars.blob(&blob, event);
            let Bars::Terminal { bars, .. } = &bars else {
                unreachable!("it is one for a terminal");
            };
            bars.lock().unwrap()[&blob.digest].message()
        };
        assert_eq!(message(b"new", Event::Moved(1000)), "");
        assert_eq!(message(b"new", Event::Complete), "complete, 2kB");
        assert_eq!(message(b"new", Event::Unpacking), "unpacking");
        assert_eq!(message(b"new", Event::Unpacked), "complete, 2kB");
        assert_eq!(message(b"old", Event::Exists), "already exists");
        assert_eq!(message(b"old", Event::Unpacked), "already exists");
        assert_eq!(message(b"old", Event::Unpacking), "unpacking");
        assert_eq!(message(b"old", Event::Unpacked), "complete, 2kB");
    }
}
