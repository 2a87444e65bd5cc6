//! `state.json` and the journal, as a crash or a stranger may have left them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runtime::fuzzing::state(bytes));
