//! `spec`: a new bundle's config.json.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use runtime::Context;

use super::Invocation;
use crate::{Failure, Outcome};

pub(crate) fn spec(invocation: &Invocation<'_>) -> Outcome {
    let bundle: PathBuf = invocation.flags.get("bundle").unwrap_or_default();
    write(&bundle, &runtime::spec(invocation.flags.is_set("rootless")))?;
    Ok(0)
}

fn write(bundle: &Path, text: &str) -> Result<(), Failure> {
    let path = bundle.join("config.json");
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    if file
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::AlreadyExists)
    {
        return Err(Failure::new("File config.json exists. Remove it first"));
    }
    let mut file = file.with_context(|| format!("create {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("write {}", path.display()))?;
    Ok(())
}
