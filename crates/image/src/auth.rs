//! Credentials of registries: where Docker, podman and their relatives keep them, and their helper programs.

mod file;
mod program;

pub use file::{login, logout};

use std::path::PathBuf;

use nix::unistd::geteuid;

use crate::error::Result;
use file::AuthFile;

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user with a password.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token with which other tokens are fetched.
    IdentityToken(String),
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// The credentials for a repository of a registry, from the first file that has some.
pub(crate) fn find(registry: &str, repository: &str) -> Result<Option<Credentials>> {
    for path in files() {
        if let Some(file) = AuthFile::read(&path)?
            && let Some(found) = file.find(registry, repository)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What a file with this text says about a few registries, as far as no helper program is asked.
#[cfg(fuzzing)]
pub(crate) fn parse(text: &str) {
    if let Ok(file) = AuthFile::parse("auth.json".as_ref(), text) {
        for (registry, repository) in [("docker.io", "library/alpine"), ("localhost:5000", "a/b/c")]
        {
            let _ = file.written(registry, repository);
        }
    }
}

/// The files in which credentials are looked for, in this order; the first is where `login` writes (containers-auth.json(5)).
fn files() -> Vec<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let runtime = match (variable("XDG_RUNTIME_DIR"), geteuid()) {
        (Some(directory), _) => Some(directory.join("containers/auth.json")),
        (None, user) if user.is_root() => Some("/run/containers/0/auth.json".into()),
        (None, _) => None,
    };
    let home = variable("HOME");
    let config =
        variable("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let docker = variable("DOCKER_CONFIG").or_else(|| home.map(|home| home.join(".docker")));
    runtime
        .into_iter()
        .chain(config.map(|directory| directory.join("containers/auth.json")))
        .chain(docker.map(|directory| directory.join("config.json")))
        .collect()
}
