//! `WWW-Authenticate` of a registry: one challenge a line.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| image::fuzzing::challenge(text));
