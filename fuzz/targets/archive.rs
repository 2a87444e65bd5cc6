//! A layer: tar, perhaps compressed.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image::fuzzing::archive(bytes));
