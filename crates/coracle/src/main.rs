//! `coracle`: the command line of the runtime. Flags become one call into the library, its answer becomes output.
//!
//! [`table`] lists every command and flag, [`flags`] parses by it, [`help`] prints it, [`commands`] does what was asked for, and
//! [`logging`] reports it.

#![deny(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod columns;
mod commands;
#[cfg(feature = "image")]
mod containers;
mod flags;
mod help;
#[cfg(feature = "image")]
mod images;
mod logging;
mod signals;
mod sys;
mod table;
mod values;

use std::ffi::OsString;

use flags::{Flags, Order};
use table::Command;

/// What a command that could not do its work leaves behind.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    message: String,
    /// The exit status.
    status: i32,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            status: 1,
        }
    }
}

impl From<runtime::Error> for Failure {
    fn from(error: runtime::Error) -> Self {
        let missing = runtime::missing_calls();
        Failure::new(match missing.is_empty() {
            true => error.to_string(),
            false => format!(
                "{error} (coracle needs {}: the kernel does not have it, or a seccomp filter denies it)",
                missing.join(", ")
            ),
        })
    }
}

#[cfg(feature = "image")]
impl From<image::Error> for Failure {
    fn from(error: image::Error) -> Self {
        Failure::new(error.to_string())
    }
}

#[cfg(feature = "network")]
impl From<network::Error> for Failure {
    fn from(error: network::Error) -> Self {
        Failure::new(error.to_string())
    }
}

/// The exit status of a command: its own, or the one of the process that it waited for.
type Outcome = Result<i32, Failure>;

/// From the start to the exit status.
fn begin() -> ! {
    sys::hold_standard_streams();
    sys::block_sigpipe();
    #[cfg(feature = "image")]
    if let Some(status) = serve() {
        sys::exit(status);
    }
    let status = match run() {
        Ok(status) => {
            logging::succeeded();
            status
        }
        Err(failure) => {
            logging::failed(&failure.message);
            failure.status
        }
    };
    sys::exit(status);
}

/// What this program does under another name, for itself: `None` when it is a command. Looked at before anything else, and answers to no
/// arguments of a user.
#[cfg(feature = "image")]
fn serve() -> Option<i32> {
    let name = runtime::arguments().first()?;
    match std::path::Path::new(name).file_name()?.to_str()? {
        image::unpack::NAME => sys::with_all(|| image::unpack::serve(&texts())),
        containers::monitor::NAME => Some(sys::with_all(containers::monitor::main)),
        containers::terminal::NAME => Some(sys::with_all(containers::terminal::main)),
        containers::userns::NAME => Some(sys::with_all(containers::userns::main)),
        containers::init::NAME => Some(sys::with_all(containers::init::main)),
        _ => None,
    }
}

/// The arguments as text.
fn texts() -> Vec<String> {
    let given = runtime::arguments().iter().skip(1);
    given
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect()
}

/// From the arguments to one command.
fn run() -> Outcome {
    let given = runtime::arguments().get(1..).unwrap_or_default();
    let args = texts();
    let globals = Flags::parse(table::GLOBAL, args, Order::FlagsFirst)
        .map_err(|message| incorrect_usage(&format!(". {message}"), &help::global(), message))?;
    let wants_help = globals.is_set("help");
    if globals.is_set("version") && !wants_help {
        return show(&help::version());
    }
    let Some((name, args)) = globals.args.split_first().filter(|_| !wants_help) else {
        return show(&help::global());
    };
    let command = table::command(name);
    logging::start(&globals, command.is_some_and(|command| command.answers))?;
    let command = command.ok_or_else(|| no_such_command(name))?;
    let Some(flags) = command_flags(command, args.to_vec())? else {
        return show(&help::command(command));
    };
    (command.run)(&commands::Invocation {
        globals: &globals,
        flags: &flags,
        rest: foreign_arguments(command, &flags, given)?,
    })
}

/// The flags and arguments of a command, or `None` when its help is asked for.
fn command_flags(command: &'static Command, args: Vec<String>) -> Result<Option<Flags>, Failure> {
    let is_dockers = command.is_dockers(&args);
    let wrong = |what: &str, message: String| match is_dockers {
        true => Failure {
            message: format!("{message}: see \"coracle {} --help\"", command.name),
            status: 125,
        },
        false => incorrect_usage(what, &help::command(command), message),
    };
    let flags = Flags::parse(command.flags, args, command.order)
        .map_err(|message| wrong(&format!(": {message}"), message))?;
    if flags.help {
        return Ok(None);
    }
    command.arity.check(flags.args.len()).map_err(|wanted| {
        let message = format!("coracle: \"{}\" requires {wanted}", command.name);
        wrong(".", message)
    })?;
    Ok(Some(flags))
}

/// As with runc, what is wrong and the help go to standard output; the error itself goes where errors go.
fn incorrect_usage(what: &str, help: &str, message: String) -> Failure {
    let _ = print(&format!("Incorrect Usage{what}\n\n{help}"));
    Failure::new(message)
}

fn no_such_command(name: &str) -> Failure {
    Failure {
        message: format!("No help topic for '{name}'"),
        status: 3,
    }
}

/// What belongs to another command line, as it was given. Everything else has to be text.
fn foreign_arguments<'a>(
    command: &Command,
    flags: &Flags,
    given: &'a [OsString],
) -> Result<&'a [OsString], Failure> {
    let foreign = match command.order {
        Order::FlagsFirst => flags.args.len().saturating_sub(1),
        _ => 0,
    };
    let (own, foreign) = given.split_at(given.len() - foreign);
    match own.iter().find(|arg| arg.to_str().is_none()) {
        Some(arg) => Err(Failure::new(format!("argument {arg:?} is not valid UTF-8"))),
        None => Ok(foreign),
    }
}

/// Help that was asked for. A reader that went away (`coracle --help | head`) is no error.
fn show(text: &str) -> Outcome {
    let _ = print(text);
    Ok(0)
}

/// Writes to standard output at once; the standard library would hold the end of a text without a newline back.
fn print(text: &str) -> nix::Result<()> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match nix::unistd::write(std::io::stdout(), rest) {
            Ok(count) => rest = &rest[count..],
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
