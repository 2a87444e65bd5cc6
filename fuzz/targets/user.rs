//! `exec --user`: numbers that fit, and nothing else. What is accepted means what it says.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Some((user, group)) = runtime::fuzzing::user(text) {
        let number = |text: &str| text.parse::<u64>().expect("digits");
        let (first, second) = text.split_once(':').unwrap_or((text, ""));
        assert_eq!(number(first), u64::from(user));
        assert_eq!(
            group.map(u64::from),
            (!second.is_empty()).then(|| number(second))
        );
    }
});
