//! What criu's log says of a failure.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The end of a log is what a failure is explained by.
const TAIL: u64 = 256 << 10;
/// More than these would hide what they have come from.
const CAUSES: usize = 3;

/// What criu complains of when nothing is wrong: probes of its own, and the last line of every failure.
const NOISE: [&str; 4] = [
    "rlimit: Can't setup",
    "tun: Unable to create tun",
    "Dumping FAILED.",
    "Restoring FAILED.",
];

/// The last complaints in a log, in one line; `None` when there is none.
pub(super) fn cause(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    complaints(&String::from_utf8_lossy(&bytes))
}

/// Of lines such as `(00.001234) Error (criu/files.c:17): Can't dump it`.
fn complaints(log: &str) -> Option<String> {
    let said = |line: &str| {
        let (_, rest) = line.split_once("Error (")?;
        let (_, text) = rest.split_once("): ")?;
        let says_nothing = NOISE.iter().any(|noise| text.starts_with(noise));
        (!says_nothing).then(|| text.trim().to_owned())
    };
    let mut all: Vec<String> = log.lines().filter_map(said).collect();
    all.dedup();
    let last = all.split_off(all.len().saturating_sub(CAUSES));
    (!last.is_empty()).then(|| last.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complaints_without_their_places() {
        let log = "(00.1) Error (criu/util.c:15): rlimit: Can't setup RLIMIT_NOFILE for self\n\
            (00.2) Dumping\n\
            (00.3) Error (criu/a.c:1): one\n(00.3) Error (criu/a.c:1): one\n\
            (00.4)     2: Error (criu/b.c:2): two\n(00.4) Error (criu/b.c:3): three\n(00.4) Error (criu/b.c:4): four\n\
            (00.5) Error (criu/cr-dump.c:2): Dumping FAILED.\n";
        assert_eq!(complaints(log).unwrap(), "two; three; four");
        assert_eq!(complaints("(00.2) Dumping\n"), None);
        assert_eq!(cause(Path::new("/no/such/log")), None);
    }
}
