//! `config.json`, as far as everything is checked before anything exists.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runtime::fuzzing::config(bytes));
