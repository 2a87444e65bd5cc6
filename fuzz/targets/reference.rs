//! The name of an image.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| image::fuzzing::reference(text));
