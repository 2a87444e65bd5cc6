//! The seccomp section: what compiles is a program that the kernel's checks let pass.

#![no_main]

use oci_spec::runtime::LinuxSeccomp;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(section) = serde_json::from_slice::<LinuxSeccomp>(bytes) else {
        return;
    };
    runtime::fuzzing::seccomp(&section);
});
