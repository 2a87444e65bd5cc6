//! The parsers of what others write, for the targets below `fuzz/`. Only there with `--cfg fuzzing`.

#![expect(missing_docs, reason = "each is named after what it reads")]

use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;

use crate::{config, directory, exec, plan};

pub fn config(bytes: &[u8]) {
    if let Ok(spec) = config::parse_spec(bytes) {
        let _ = plan::Plan::new(&spec, Path::new("/nonexistent"));
        let _ = plan::filter(&spec);
    }
}

pub fn process(bytes: &[u8]) {
    let _ = config::parse_process(bytes);
}

pub fn state(bytes: &[u8]) {
    let path = || "state.json".into();
    let _ = directory::parse_record::<cgroups::Location>(bytes, path);
    let _ = directory::parse_record::<cgroups::FreezerPlace>(bytes, path);
}

pub fn user(text: &str) -> Option<(u32, Option<u32>)> {
    exec::parse_user(text).ok()
}

pub fn seccomp(section: &LinuxSeccomp) {
    let _ = ::seccomp::compile(section);
}
