//! An image's configuration, and what it becomes for a container.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image::fuzzing::configuration(bytes));
