//! auth.json, or Docker's config.json.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| image::fuzzing::credentials(text));
