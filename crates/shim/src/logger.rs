//! `binary://`: a program that takes the output of a container.
//!
//! It gets the read ends of two pipes as 3 and 4, and as 5 a pipe that it closes, or writes to, when it is ready. Specification:
//! containerd's `docs/` on shim logging, and `core/runtime/v2/logging` for what such programs rely on.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::error::{Context, Failure, Result};
use crate::sys;

/// What stands behind `binary://`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LoggerUri {
    path: String,
    args: Vec<String>,
}

/// A logger that runs.
#[derive(Debug)]
pub(crate) struct Logger {
    pub(crate) pid: i32,
}

impl LoggerUri {
    /// `None` when it is no `binary://`.
    pub(crate) fn parse(uri: &str) -> Result<Option<LoggerUri>> {
        let Some(rest) = uri.strip_prefix("binary://") else {
            return Ok(None);
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = decode(path)
            .filter(|path| path.starts_with('/'))
            .ok_or_else(|| Failure::invalid(format!("stdout: {uri} names no absolute path")))?;
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let both = decode(&name.replace('+', " ")).zip(decode(&value.replace('+', " ")));
            pairs.push(both.ok_or_else(|| Failure::invalid(format!("stdout: {uri} is no URI")))?);
        }
        let args = pairs
            .into_iter()
            .flat_map(|(name, value)| [name, value])
            .filter(|arg| !arg.is_empty());
        Ok(Some(LoggerUri {
            path,
            args: args.collect(),
        }))
    }
}

impl Logger {
    /// Starts it; the descriptor becomes readable when it is ready, or has ended.
    pub(crate) fn start(
        uri: &LoggerUri,
        id: &str,
        namespace: &str,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Result<(Logger, OwnedFd)> {
        let starting = || format!("start logger {}", uri.path);
        let (ready, say_ready) = pipe2(OFlag::O_CLOEXEC).context(starting)?;
        let mut command = Command::new(&uri.path);
        command
            .args(&uri.args)
            .env_clear()
            .env("CONTAINER_ID", id)
            .env("CONTAINER_NAMESPACE", namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        sys::hand_over(&mut command, vec![stdout, stderr, say_ready]);
        let child = command.spawn().context(starting)?;
        Ok((
            Logger {
                pid: child.id() as i32,
            },
            ready,
        ))
    }
}

/// Percent-decoding (RFC 3986); `None` when it is none, or no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let high = rest.next().and_then(digit)?;
                let low = rest.next().and_then(digit)?;
                (high << 4 | low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Result<Option<LoggerUri>> {
        LoggerUri::parse(uri)
    }

    #[test]
    fn arguments_come_from_the_query_in_order() {
        let uri = parse("binary:///usr/bin/log%20ger?--dir=/var/a+b&-v&x=%3D")
            .unwrap()
            .unwrap();
        assert_eq!(uri.path, "/usr/bin/log ger");
        assert_eq!(uri.args, ["--dir", "/var/a b", "-v", "x", "="]);
        assert_eq!(parse("binary:///l").unwrap().unwrap().args, [""; 0]);
    }

    #[test]
    fn other_uris_are_not_loggers_and_bad_ones_are_refused() {
        assert_eq!(parse("/run/fifo"), Ok(None));
        assert_eq!(parse("file:///l"), Ok(None));
        for bad in [
            "binary://",
            "binary://relative",
            "binary:///x?a=%",
            "binary:///%ff",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
