//! What `update --resources` reads.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(runtime::parse_resources(bytes)));
