//! `process.json`, as `exec --process` reads it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runtime::fuzzing::process(bytes));
