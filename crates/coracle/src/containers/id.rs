//! Ids and names.

use std::fs::File;
use std::io::Read;

use runtime::{Context, Result};

/// The hexadecimal digits of an id.
pub(crate) const LENGTH: usize = 64;

/// [`LENGTH`] random hexadecimal digits.
pub(crate) fn random() -> Result<String> {
    let mut bytes = [0; LENGTH / 2];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Docker's rule for the names of containers and volumes: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.len() > 1
        && text.len() <= 200
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for good in ["web", "a1", "my_app-1.2"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a", "-web", ".x", "a/b", "a b", "ä1", "a:b"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn ids_differ() {
        let (one, other) = (random().unwrap(), random().unwrap());
        assert!(one.len() == 64 && one != other);
    }
}
