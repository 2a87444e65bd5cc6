//! `spec`: a new bundle's config.json.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{Invocation, failure};
use crate::{Failure, Outcome};

pub(crate) fn spec(invocation: &Invocation<'_>) -> Outcome {
    let bundle: PathBuf = invocation.flags.get("bundle").unwrap_or_default();
    write(&bundle, &runtime::spec(invocation.flags.is_set("rootless")))?;
    Ok(0)
}

fn write(bundle: &Path, text: &str) -> Result<(), Failure> {
    let path = bundle.join("config.json");
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new("File config.json exists. Remove it first"),
        _ => failure(format!("create {}", path.display()), error),
    })?;
    file.write_all(text.as_bytes()).map_err(|error| failure(format!("write {}", path.display()), error))
}
