//! docker-credential-* programs: a verb as the argument, the registry on standard input, JSON on standard output.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::json;

use super::Credentials;
use crate::error::{Context, Error, Kind, Result};

/// The longest answer, in bytes.
const LIMIT: u64 = 1 << 20;
/// Helpers say this where other programs would have an exit status of its own.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What the helper knows about a registry.
pub(super) fn get(helper: &str, server: &str) -> Result<Option<Credentials>> {
    let (succeeded, text) = run(helper, "get", server)?;
    if !succeeded {
        if text.contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(failed(helper, "get", &text));
    }
    let answer: Answer =
        serde_json::from_str(&text).context(|| format!("docker-credential-{helper} get"))?;
    Ok(match answer.username.as_str() {
        "" => None,
        "<token>" => Some(Credentials::IdentityToken(answer.secret)),
        _ => Some(Credentials::Password {
            user: answer.username,
            password: answer.secret,
        }),
    })
}

/// Gives credentials to the helper.
pub(super) fn store(helper: &str, server: &str, user: &str, password: &str) -> Result<()> {
    let input = json!({ "ServerURL": server, "Username": user, "Secret": password });
    change(helper, "store", &input.to_string())
}

/// Has the helper forget.
pub(super) fn erase(helper: &str, server: &str) -> Result<()> {
    change(helper, "erase", server)
}

fn change(helper: &str, verb: &str, input: &str) -> Result<()> {
    match run(helper, verb, input)? {
        (true, _) => Ok(()),
        (false, text) => Err(failed(helper, verb, &text)),
    }
}

fn failed(helper: &str, verb: &str, text: &str) -> Error {
    let said: String = text
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    Error::new(
        Kind::Denied,
        format!("docker-credential-{helper} {verb} failed: {said}"),
    )
}

/// Whether it succeeded, and what it said.
fn run(helper: &str, verb: &str, input: &str) -> Result<(bool, String)> {
    // The name comes from a file, and is no path.
    if !helper
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    {
        return Err(Error::invalid(format!(
            "{helper:?} is no name of a credential helper"
        )));
    }
    let program = format!("docker-credential-{helper}");
    let context = || format!("run {program}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(context)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input says why by its exit status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let mut text = Vec::new();
    let read = match child.stdout.take() {
        Some(stdout) => stdout.take(LIMIT).read_to_end(&mut text),
        None => Ok(0),
    };
    let status = child.wait().context(context)?;
    read.context(context)?;
    Ok((
        status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}
