//! An image's manifest or index, as a registry or an archive brings it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image::fuzzing::manifest(bytes));
