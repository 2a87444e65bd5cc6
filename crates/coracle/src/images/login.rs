//! `login` and `logout`.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use image::{Connection, Credentials};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use runtime::Context;

use super::connection;
use crate::commands::{Invocation, answer, failure};
use crate::{Failure, Outcome};

const DEFAULT_REGISTRY: &str = "docker.io";
/// The longest password, in bytes.
const PASSWORD_LIMIT: u64 = 64 << 10;

pub(super) fn login(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let registry = registry(invocation)?;
    let password = match (flags.text("password"), flags.is_set("password-stdin")) {
        (Some(_), true) => {
            return Err(Failure::new(
                "login: --password and --password-stdin exclude each other",
            ));
        }
        (Some(password), false) => Some(password.to_owned()),
        (None, true) if flags.text("username").is_none() => {
            return Err(Failure::new("login: --password-stdin needs --username"));
        }
        (None, true) => Some(rest_of_stdin()?),
        (None, false) => None,
    };
    let user = match flags.text("username") {
        Some(user) => user.to_owned(),
        None => ask("Username: ", true)?,
    };
    let password = match password {
        Some(password) => password,
        None => ask("Password: ", false)?,
    };
    if user.is_empty() || password.is_empty() || user.contains(':') {
        return Err(Failure::new(
            "login: a user without a colon and a password are needed",
        ));
    }
    let credentials = Credentials::Password {
        user: user.clone(),
        password: password.clone(),
    };
    let connection = Connection {
        credentials: Some(credentials),
        ..connection(flags)
    };
    image::check_credentials(&registry, &connection)?;
    image::login(&registry, &user, &password)?;
    answer("Login Succeeded\n")
}

pub(super) fn logout(invocation: &Invocation<'_>) -> Outcome {
    let registry = registry(invocation)?;
    image::logout(&registry)?;
    answer(&format!("Removed login credentials for {registry}\n"))
}

/// The host and port that were named, checked as a part of a reference.
fn registry(invocation: &Invocation<'_>) -> Result<String, Failure> {
    let Some(named) = invocation.flags.args.first() else {
        return Ok(DEFAULT_REGISTRY.into());
    };
    let host = named
        .strip_prefix("https://")
        .or(named.strip_prefix("http://"))
        .unwrap_or(named);
    let host = host.split('/').next().unwrap_or_default();
    let reference: image::Reference = format!("{host}/x").parse()?;
    match reference.domain() == host || reference.path() == "x" {
        true => Ok(reference.domain().to_owned()),
        false => Err(Failure::new(format!(
            "{named:?} is no registry's host name"
        ))),
    }
}

fn rest_of_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin()
        .lock()
        .take(PASSWORD_LIMIT)
        .read_to_string(&mut text);
    read.map_err(|error| failure("read the password", error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks on the terminal; a password is not shown.
fn ask(question: &str, echo: bool) -> Result<String, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(
            "login: without a terminal use --username and --password-stdin",
        ));
    }
    const ASKING: &str = "ask on the terminal";
    let _ = write!(io::stderr(), "{question}");
    let before = tcgetattr(stdin.as_fd()).context(ASKING)?;
    if !echo {
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &quiet).context(ASKING)?;
    }
    let mut line = String::new();
    let read = stdin.lock().take(PASSWORD_LIMIT).read_line(&mut line);
    if !echo {
        let _ = tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &before);
        let _ = writeln!(io::stderr());
    }
    read.context(ASKING)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
