//! A command line in Go's syntax: words, one a line.

#![no_main]

#[path = "../../crates/coracle/src/flags.rs"]
#[allow(dead_code)]
mod flags;
#[path = "../../crates/coracle/src/values.rs"]
#[allow(dead_code)]
mod values;

use flags::{Flag, Flags, Kind, Order, Table, flags};

/// One flag of each kind.
const TABLE: Table = flags![
    Flag::switch("force,f", ""),
    Flag::text("format=table", ""),
    Flag::list("env,e", ""),
    Flag::of(Kind::Number(-1, 100), "number,n=0", ""),
    Flag::of(Kind::Numbers(0, i64::MAX), "gid,g", ""),
    Flag::of(Kind::Size, "memory,m", ""),
    Flag::of(Kind::Duration, "interval=5s", ""),
];

libfuzzer_sys::fuzz_target!(|text: &str| {
    let words: Vec<String> = text.lines().map(str::to_owned).collect();
    for order in [Order::FlagsFirst, Order::Mixed] {
        let Ok(flags) = Flags::parse(TABLE, words.clone(), order) else {
            continue;
        };
        // What was accepted can be read: only empty values have nothing to read.
        assert!(
            flags
                .number::<i64>("number")
                .is_some_and(|number| (-1..=100).contains(&number))
        );
        assert!(flags.duration("interval").is_some());
        assert!(flags.args.len() <= words.len());
        let _ = (
            flags.is_set("force"),
            flags.text("format"),
            flags.size("memory"),
        );
        let _ = (flags.numbers::<u32>("gid"), flags.list("env"));
    }
});
