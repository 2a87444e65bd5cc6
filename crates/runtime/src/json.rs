//! JSON documents as bytes.

use serde::de::{DeserializeOwned, Error};

/// Parses one. That it is UTF-8 is checked once for the whole of it: for each string by itself, of which a seccomp profile has a thousand, it takes
/// far longer.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    let text = std::str::from_utf8(bytes).map_err(Error::custom)?;
    serde_json::from_str(text)
}
