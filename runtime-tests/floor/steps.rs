//! What took how long: times of both processes, in a page that they share.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::sys;
use crate::text::decimal;

static CHILD: AtomicBool = AtomicBool::new(false);

/// In the page: how many entries there are; then of each one whose it is, when it was, and its name, padded with null bytes.
const ENTRY: usize = 5;
const ENTRIES: usize = 512 / ENTRY - 1;
const NAME: usize = (ENTRY - 2) * 8;

struct Entry {
    whose: u64,
    time: u64,
    name: [u8; NAME],
}

/// From now on times are taken.
pub fn begin() {
    sys::make_shared_page();
    done("");
}

/// The process is the container's.
pub fn in_child() {
    CHILD.store(true, Relaxed);
    done("clone3");
}

/// A step is done.
pub fn done(name: &str) {
    let Some(page) = sys::shared_page() else {
        return;
    };
    let index = page[0].fetch_add(1, Relaxed) as usize;
    if index >= ENTRIES {
        return;
    }
    let mut padded = [0; NAME];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    let [whose, time, words @ ..] = &page[(index + 1) * ENTRY..][..ENTRY] else {
        return;
    };
    whose.store(CHILD.load(Relaxed).into(), Relaxed);
    for (word, bytes) in words.iter().zip(padded.as_chunks().0) {
        word.store(u64::from_ne_bytes(*bytes), Relaxed);
    }
    time.store(sys::now(), Relaxed);
}

fn entries(page: &sys::Page) -> impl Iterator<Item = Entry> {
    let count = ENTRIES.min(page[0].load(Relaxed) as usize);
    page[ENTRY..].chunks(ENTRY).take(count).map(|entry| {
        let mut name = [0; NAME];
        for (bytes, word) in name.as_chunks_mut().0.iter_mut().zip(&entry[2..]) {
            *bytes = word.load(Relaxed).to_ne_bytes();
        }
        Entry { whose: entry[0].load(Relaxed), time: entry[1].load(Relaxed), name }
    })
}

/// Prints the time between each step and the one before it in the same process, equal ones in a row added up.
pub fn print() {
    let Some(page) = sys::shared_page() else {
        return;
    };
    for whose in [0, 1] {
        let mut before = None;
        let mut sum: Option<(Entry, u64)> = None;
        for entry in entries(page) {
            if entry.whose != whose {
                // The child's first step begins where its parent's last one has ended.
                before = before.filter(|_| sum.is_some()).or((whose == 1).then_some(entry.time));
                continue;
            }
            let took = before.map_or(0, |before| entry.time - before);
            before = Some(entry.time);
            sum = match sum {
                Some((of, sum)) if of.name == entry.name => Some((of, sum + took)),
                _ => {
                    print_one(&sum);
                    Some((entry, took))
                }
            };
        }
        print_one(&sum);
    }
}

fn print_one(step: &Option<(Entry, u64)>) {
    let Some((entry, took)) = step.as_ref().filter(|(entry, _)| entry.name[0] != 0) else {
        return;
    };
    let mut digits = [[0; 20]; 2];
    let [whole, tenth] = [took / 1000, took / 100 % 10];
    let [of_whole, of_tenth] = &mut digits;
    let (whole, tenth) = (decimal(whole, of_whole), decimal(tenth, of_tenth));
    let whose: &[u8] = if entry.whose == 1 { b"container " } else { b"runtime   " };
    let space = &b"        "[whole.len().min(8)..];
    let length = entry.name.iter().position(|&byte| byte == 0).unwrap_or(NAME);
    for part in [whose, space, whole, b".", tenth, b"  ", &entry.name[..length], b"\n"] {
        sys::write(2, part);
    }
}
