//! `auth.json` of containers, and `config.json` of Docker: the same form.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Credentials, files, program};
use crate::error::{Context, Error, Kind, Result};

/// The largest file that is read, in bytes.
const LIMIT: u64 = 4 << 20;

/// A file as it is: what is not known stays when it is written again.
#[derive(Debug)]
pub(super) struct AuthFile {
    path: PathBuf,
    content: Map<String, Value>,
}

impl AuthFile {
    /// Reads a file, when it is there.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let context = || format!("read credentials from {}", path.display());
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).context(context),
        };
        let mut text = String::new();
        file.take(LIMIT)
            .read_to_string(&mut text)
            .context(context)?;
        Self::parse(path, &text).context(context).map(Some)
    }

    /// A file with this text. `touch auth.json` is one without credentials.
    pub(super) fn parse(path: &Path, text: &str) -> serde_json::Result<Self> {
        let content = match text.trim() {
            "" => Map::new(),
            text => serde_json::from_str(text)?,
        };
        Ok(AuthFile {
            path: path.to_owned(),
            content,
        })
    }

    fn read_or_new(path: &Path) -> Result<Self> {
        let found = Self::read(path)?;
        Ok(found.unwrap_or_else(|| AuthFile {
            path: path.to_owned(),
            content: Map::new(),
        }))
    }

    /// The credentials for a repository: from the registry's helper program, then from the file, where the longest matching
    /// `host/path` counts, then from the helper for all.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        if let Some(helper) = self.helper_of(registry) {
            return program::get(helper, &server_name(registry));
        }
        match self.written(registry, repository)? {
            Some(found) => Ok(Some(found)),
            None => self.stored(registry),
        }
    }

    /// What stands in the file itself.
    pub(super) fn written(&self, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        let Some(auths) = self.content.get("auths").and_then(Value::as_object) else {
            return Ok(None);
        };
        let mut wanted = format!("{registry}/{repository}");
        loop {
            let entry = auths.iter().find(|(key, _)| normalized(key) == wanted);
            if let Some(found) = entry
                .map(|(_, entry)| self.entry(registry, entry))
                .transpose()?
                .flatten()
            {
                return Ok(Some(found));
            }
            match wanted.rfind('/') {
                Some(end) => wanted.truncate(end),
                None => return Ok(None),
            }
        }
    }

    fn helper_of(&self, registry: &str) -> Option<&str> {
        let helpers = self.content.get("credHelpers")?.as_object()?;
        let (_, helper) = helpers
            .iter()
            .find(|(key, _)| normalized(key) == registry)?;
        helper.as_str().filter(|helper| !helper.is_empty())
    }

    fn store(&self) -> Option<&str> {
        self.content
            .get("credsStore")?
            .as_str()
            .filter(|helper| !helper.is_empty())
    }

    fn stored(&self, registry: &str) -> Result<Option<Credentials>> {
        match self.store() {
            Some(helper) => program::get(helper, &server_name(registry)),
            None => Ok(None),
        }
    }

    /// One entry of `auths`. An empty one only says that a helper knows more.
    fn entry(&self, registry: &str, entry: &Value) -> Result<Option<Credentials>> {
        let text = |name: &str| {
            entry
                .get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credentials::IdentityToken(token.to_owned())));
        }
        if let (Some(user), Some(password)) = (text("username"), text("password")) {
            return Ok(Some(Credentials::Password {
                user: user.into(),
                password: password.into(),
            }));
        }
        let Some(auth) = text("auth") else {
            return Ok(None);
        };
        let bad = || {
            Error::invalid(format!(
                "{}: auths.{registry}.auth is not base64 of user:password",
                self.path.display()
            ))
        };
        let decoded = STANDARD.decode(auth).map_err(|_| bad())?;
        let decoded = String::from_utf8(decoded).map_err(|_| bad())?;
        let (user, password) = decoded
            .trim_end_matches('\0')
            .split_once(':')
            .ok_or_else(bad)?;
        Ok(Some(Credentials::Password {
            user: user.into(),
            password: password.into(),
        }))
    }

    /// Replaces the file by one with the new content: nobody ever sees half of it, and nobody else may read it.
    fn write(&self) -> Result<()> {
        let context = || format!("write credentials to {}", self.path.display());
        // What a link points to is replaced, not the link.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .context(context)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let temporary = directory.join(name);
        let json = serde_json::to_string_pretty(&self.content).context(context)?;
        let written =
            write_new(&temporary, json.as_bytes()).and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.context(context)
    }

    fn auths(&mut self) -> &mut Map<String, Value> {
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        auths.as_object_mut().expect("it was made one")
    }
}

fn write_new(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// `https://index.docker.io/v1/` is what others write for `docker.io`.
fn normalized(key: &str) -> String {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let key = key.trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or(key.strip_suffix("/v2"))
        .unwrap_or(key);
    match key.split_once('/') {
        None if is_hub(key) => "docker.io".into(),
        Some((host, rest)) if is_hub(host) => format!("docker.io/{rest}"),
        _ => key.to_owned(),
    }
}

fn is_hub(host: &str) -> bool {
    matches!(
        host,
        "docker.io" | "index.docker.io" | "registry-1.docker.io"
    )
}

/// The name under which Docker's helpers keep a registry.
fn server_name(registry: &str) -> String {
    match registry {
        "docker.io" => "https://index.docker.io/v1/".into(),
        registry => registry.into(),
    }
}

/// Keeps user and password for a registry, where `find` looks first. Gives the file, or the helper program.
pub fn login(registry: &str, user: &str, password: &str) -> Result<String> {
    let path = first_file()?;
    let mut file = AuthFile::read_or_new(&path)?;
    if let Some(helper) = file.helper_of(registry).or(file.store()) {
        program::store(helper, &server_name(registry), user, password)?;
        return Ok(format!("the helper docker-credential-{helper}"));
    }
    let auth = STANDARD.encode(format!("{user}:{password}"));
    let auths = file.auths();
    auths.retain(|key, _| normalized(key) != registry);
    auths.insert(registry.to_owned(), json!({ "auth": auth }));
    file.write()?;
    Ok(path.display().to_string())
}

/// Forgets the credentials of a registry in every file that is looked into.
pub fn logout(registry: &str) -> Result<()> {
    let mut found = false;
    for path in files() {
        let Some(mut file) = AuthFile::read(&path)? else {
            continue;
        };
        if let Some(helper) = file.helper_of(registry).or(file.store()) {
            let server = server_name(registry);
            if program::get(helper, &server)?.is_some() {
                program::erase(helper, &server)?;
                found = true;
            }
        }
        if !file.content.contains_key("auths") {
            continue;
        }
        let auths = file.auths();
        let before = auths.len();
        auths.retain(|key, _| normalized(key) != registry);
        if auths.len() < before {
            found = true;
            file.write()?;
        }
    }
    match found {
        true => Ok(()),
        false => Err(Error::new(
            Kind::NotFound,
            format!("not logged in to {registry}"),
        )),
    }
}

fn first_file() -> Result<PathBuf> {
    files().into_iter().next().ok_or_else(|| {
        Error::new(
            Kind::Failed,
            "HOME is not set: name a file for credentials by REGISTRY_AUTH_FILE",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: Value) -> AuthFile {
        let Value::Object(content) = content else {
            panic!("an object")
        };
        AuthFile {
            path: "auth.json".into(),
            content,
        }
    }

    fn user_for(content: &Value, registry: &str, repository: &str) -> Option<String> {
        match file(content.clone()).find(registry, repository).unwrap()? {
            Credentials::Password { user, .. } => Some(user),
            Credentials::IdentityToken(token) => Some(format!("token {token}")),
        }
    }

    fn auth(user: &str) -> Value {
        json!({ "auth": STANDARD.encode(format!("{user}:pass:word")) })
    }

    #[test]
    fn the_longest_match_counts_and_hub_has_many_names() {
        let content = json!({ "auths": {
            "https://index.docker.io/v1/": auth("hub"),
            "quay.io": auth("q"), "quay.io/team": auth("team"), "quay.io/team/app": auth("app"),
            "http://localhost:5000": { "username": "plain", "password": "x" },
            "ghcr.io": { "identitytoken": "t" }, "empty.io": {},
        }});
        for (registry, repository, user) in [
            ("docker.io", "library/alpine", Some("hub")),
            ("quay.io", "x", Some("q")),
            ("quay.io", "team/y", Some("team")),
            ("quay.io", "team/app", Some("app")),
            ("quay.io", "team/application", Some("team")),
            ("localhost:5000", "x", Some("plain")),
            ("ghcr.io", "x", Some("token t")),
            ("empty.io", "x", None),
            ("evil.io", "quay.io", None),
            ("io", "x", None),
        ] {
            assert_eq!(
                user_for(&content, registry, repository).as_deref(),
                user,
                "{registry}/{repository}"
            );
        }
    }

    #[test]
    fn colons_belong_to_the_password_and_nonsense_is_told() {
        let content = json!({ "auths": { "a.b": auth("u"), "c.d": { "auth": "%%" }, "e.f": { "auth": STANDARD.encode("nobody") } } });
        let found = file(content.clone()).find("a.b", "x").unwrap();
        assert_eq!(
            found,
            Some(Credentials::Password {
                user: "u".into(),
                password: "pass:word".into()
            })
        );
        for registry in ["c.d", "e.f"] {
            let error = file(content.clone())
                .find(registry, "x")
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("auths.{registry}.auth")), "{error}");
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/auth.json");
        let mut auth_file = AuthFile::read_or_new(&path).unwrap();
        auth_file
            .content
            .insert("HttpHeaders".into(), json!({ "X": "y" }));
        auth_file.auths().insert("a.b".into(), auth("u"));
        auth_file.write().unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let again = AuthFile::read(&path).unwrap().unwrap();
        assert_eq!(again.content, auth_file.content);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::write(&path, "").unwrap();
        assert!(AuthFile::read(&path).unwrap().unwrap().content.is_empty());
        fs::write(&path, "[").unwrap();
        assert!(AuthFile::read(&path).is_err());
    }
}
