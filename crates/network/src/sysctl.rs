//! Kernel parameters of the network namespace that the calling thread is in.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::error::{Context, Result};

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}

/// The value, or `None` where this kernel has no such parameter.
pub(crate) fn read(name: &str) -> Result<Option<String>> {
    match fs::read_to_string(path(name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => {
            let text = text.context(|| format!("read {}", path(name).display()))?;
            Ok(Some(text.trim_end().to_owned()))
        }
    }
}

/// Sets a parameter that has another value, and says whether it had.
pub(crate) fn set(name: &str, value: &str) -> Result<bool> {
    if read(name)?.as_deref() == Some(value) {
        return Ok(false);
    }
    fs::write(path(name), value).context(|| format!("set {} to {value}", path(name).display()))?;
    Ok(true)
}

/// Whether a parameter is there, can be read, and has a value.
pub(crate) fn is(name: &str, value: &str) -> bool {
    read(name).is_ok_and(|found| found.as_deref() == Some(value))
}

/// The names in a directory of parameters.
pub(crate) fn list(directory: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(path(directory)).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// IPv6 is in the kernel and not switched off.
pub(crate) fn has_ipv6() -> bool {
    is("ipv6/conf/all/disable_ipv6", "0")
}
