//! `/etc/passwd` and `/etc/group` of an image.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| image::fuzzing::accounts(text));
