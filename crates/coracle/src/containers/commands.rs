//! The commands for containers that are run from images.

use std::io::IsTerminal;
use std::time::SystemTime;

use runtime::Kind;

use super::attach::AttachOptions;
use super::copy::{self, Place};
use super::directory::{Container, Containers};
use super::inspect;
use super::lifecycle::{self, Stop};
use super::options::Options;
use super::show::{self, LogsOptions};
use super::stats::{self, StatsOptions};
use crate::commands::{Invocation, answer, run_bundle};
use crate::flags::{Flag, Kind as Value, Table, flags};
use crate::table::{Arity, Command, OF_BUNDLES};
use crate::{Failure, Outcome, signals, sys};

const NAME: &str = "<container>";
const NAMES: &str = "<container> [container...]";
/// Of `stop`, and of `restart`, which stops first.
const STOPPING: Table = flags![
    Flag::text(
        "signal,s",
        "send this instead of the container's stop signal",
    ),
    Flag::of(
        Value::Number(0, i32::MAX as i64),
        "time,t",
        "seconds to wait before SIGKILL, instead of the container's",
    ),
];

/// The commands for containers of images, in the order of the help.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        args: NAME,
        flags: flags![
            Flag::switch("no-stdin", "do not hand standard input on"),
            Flag::switch(
                "sig-proxy",
                "hand signals on to the container (default: true)",
            ),
        ],
        description: "\
Shows what the container writes from now on, and hands on what is typed if it was run
with --interactive. Ctrl-P Ctrl-Q leaves it alone again when it has a terminal.",
        ..Command::of(
            "attach",
            "join a running container's input and output",
            attach,
        )
    },
    Command {
        args: "<container>:<path> <path>|-  || <path>|- <container>:<path>",
        arity: Arity::Exactly(2),
        flags: flags![Flag::switch("archive,a", "keep the owners")],
        description: "\
Copies files, or directories with all that is in them; of a directory that is written
with \"/.\" at its end the content. \"-\" is a tar stream. The container need not run.",
        ..Command::of("cp", "copy files into a container or out of one", cp)
    },
    Command {
        args: NAME,
        flags: flags![
            Flag::switch("follow,f", "go on until the container ends"),
            Flag::text("tail,n=all", "how many of the last lines to show, or all"),
            Flag::text(
                "since",
                "show what is younger: a time, or how long ago, as 10m",
            ),
            Flag::switch("timestamps,t", "show the time of each line"),
        ],
        ..Command::of("logs", "show what a container has written", logs)
    },
    Command {
        args: "<container> [port[/protocol]]",
        arity: Arity::Between(1, 2),
        ..Command::of("port", "show where a container's ports are published", port)
    },
    Command {
        args: NAMES,
        arity: Arity::AtLeast(1),
        flags: STOPPING,
        description: "\
Stops containers as \"coracle stop\" does, and starts them again; those that have ended
are started. After a reboot this is how they come back: nothing is started by itself.",
        ..Command::of("restart", "stop and start containers", restart)
    },
    Command {
        args: NAMES,
        arity: Arity::AtLeast(1),
        flags: flags![
            Flag::switch(
                "force,f",
                "kill them first when they run; missing ones are no error",
            ),
            Flag::switch("volumes,v", "remove their volumes without a name too"),
        ],
        ..Command::of("rm", "remove containers and what they have written", rm)
    },
    Command {
        args: "[container...]",
        arity: Arity::AtLeast(0),
        flags: flags![
            Flag::switch("no-stream", "show them once"),
            Flag::text("format=table", "table or json"),
        ],
        description: "Without arguments, of every running container of an image.",
        ..Command::of("stats", "show what containers use, each second", stats)
    },
    Command {
        args: NAMES,
        arity: Arity::AtLeast(1),
        flags: STOPPING,
        description: "\
Sends the container's stop signal (SIGTERM, or what its image says), waits, by default
10 seconds, and kills it then.",
        ..Command::of("stop", "end containers", stop)
    },
    Command {
        args: NAMES,
        arity: Arity::AtLeast(1),
        description: "Prints the exit status of each.",
        ..Command::of("wait", "wait until containers have ended", wait)
    },
];

pub(crate) fn run(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let mut given = flags.names_given();
    if super::names_an_image(flags, invocation.id()) {
        if let Some(name) = given.find(|name| OF_BUNDLES.contains(name)) {
            return Err(Failure::new(format!(
                "--{name} is for bundles (coracle run ID), and {:?} is an image",
                invocation.id()
            )));
        }
        return sys::with_all(|| {
            let options = Options::parse(flags)?;
            super::run::run(&invocation.settings()?, &invocation.containers()?, &options)
        });
    }
    if let Some(name) = given.find(|name| *name != "detach" && !OF_BUNDLES.contains(name)) {
        return Err(Failure::new(format!(
            "--{name} is for images, and {id:?} is the id of a container made from a bundle: an image is written as localhost/{id} or {id}:latest",
            id = invocation.id()
        )));
    }
    run_bundle(invocation).map_err(|mut failure| {
        let bundle_is_missing = flags.text("bundle").is_none()
            && flags.text("config").is_none()
            && !std::path::Path::new("config.json").exists();
        if bundle_is_missing {
            let name = invocation.id();
            failure.message += &format!(
                ": {name:?} is the id of a container made from a bundle; an image is written as localhost/{name} or {name}:latest"
            );
        }
        failure
    })
}

fn stop(invocation: &Invocation<'_>) -> Outcome {
    let how = how_to_stop(invocation)?;
    each(invocation, |_, container| lifecycle::stop(container, how))
}

fn restart(invocation: &Invocation<'_>) -> Outcome {
    let how = how_to_stop(invocation)?;
    each(invocation, |_, container| {
        lifecycle::restart(container, how)
    })
}

fn rm(invocation: &Invocation<'_>) -> Outcome {
    let force = invocation.flags.is_set("force");
    let volumes = invocation.flags.is_set("volumes");
    let all = invocation.containers()?;
    for_each(invocation, |name| match all.find(name)? {
        None if force => Ok(()),
        None => Err(runtime::Error::new(
            Kind::NotFound,
            format!("container does not exist: {name}"),
        )),
        Some(container) => {
            match force {
                true => lifecycle::remove_forced(&all, &container)?,
                false => lifecycle::remove_ended(&all, &container, volumes)?,
            }
            answer(&format!("{name}\n")).map(drop).map_err(failed)
        }
    })
}

fn wait(invocation: &Invocation<'_>) -> Outcome {
    let all = invocation.containers()?;
    for_each(invocation, |name| {
        let status = lifecycle::wait(&all.get(name)?)?;
        answer(&format!("{status}\n")).map(drop).map_err(failed)
    })
}

fn attach(invocation: &Invocation<'_>) -> Outcome {
    let container = invocation.container()?;
    let flags = invocation.flags;
    let options = AttachOptions {
        input: container.record.interactive && !flags.is_set("no-stdin"),
        forward_signals: flags.switch("sig-proxy").unwrap_or(true),
        started: true,
    };
    Ok(lifecycle::attach(&container, options)?)
}

fn logs(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let invalid =
        |name: &str, value: &str| Failure::new(format!("invalid value {value:?} for --{name}"));
    let tail = match flags.text("tail") {
        None | Some("all") => None,
        Some(text) => Some(text.parse().map_err(|_| invalid("tail", text))?),
    };
    let since = match flags.text("since") {
        None => None,
        Some(text) => Some(
            LogsOptions::parse_since(text, SystemTime::now())
                .ok_or_else(|| invalid("since", text))?,
        ),
    };
    let options = LogsOptions {
        follow: flags.is_set("follow"),
        tail,
        since,
        timestamps: flags.is_set("timestamps"),
    };
    show::logs(&invocation.container()?, &options)?;
    Ok(0)
}

fn cp(invocation: &Invocation<'_>) -> Outcome {
    let place = |at: usize| Place::parse(&invocation.flags.args[at]);
    let keep = invocation.flags.is_set("archive");
    copy::copy(&invocation.containers()?, &place(0)?, &place(1)?, keep)?;
    Ok(0)
}

fn port(invocation: &Invocation<'_>) -> Outcome {
    let wanted = invocation.flags.args.get(1).map(String::as_str);
    let ports = inspect::ports(&invocation.container()?)?;
    match inspect::port_lines(&ports, wanted) {
        Some(lines) => answer(&lines),
        None => Err(Failure::new(format!(
            "no public port {} published for {}",
            wanted.unwrap_or_default(),
            invocation.id()
        ))),
    }
}

fn stats(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let json = match flags.text("format") {
        Some("table") => false,
        Some("json") => true,
        _ => return Err(Failure::new("invalid format option")),
    };
    let options = StatsOptions {
        once: flags.is_set("no-stream"),
        json,
        terminal: std::io::stdout().is_terminal(),
    };
    let (settings, all) = (invocation.settings()?, invocation.containers()?);
    let running = || match flags.args.as_slice() {
        [] => Ok(show::listed(&settings, &all)?
            .into_iter()
            .map(|(container, _)| container)
            .collect()),
        names => names.iter().map(|name| all.get(name)).collect(),
    };
    // Those that are named must be there.
    running()?;
    stats::stats(options, running, |text| {
        answer(text).map(drop).map_err(failed)
    })?;
    Ok(0)
}

fn how_to_stop(invocation: &Invocation<'_>) -> Result<Stop, Failure> {
    let flags = invocation.flags;
    let signal = flags.text("signal").map(signals::parse).transpose();
    Ok(Stop {
        signal: signal.map_err(Failure::new)?,
        seconds: flags.number("time"),
    })
}

/// Does something to every container that is named, and says the names.
fn each(
    invocation: &Invocation<'_>,
    act: impl Fn(&Containers, &Container) -> runtime::Result<()>,
) -> Outcome {
    let all = invocation.containers()?;
    for_each(invocation, |name| {
        act(&all, &all.get(name)?)?;
        answer(&format!("{name}\n")).map(drop).map_err(failed)
    })
}

/// Does something for every argument, also when it fails for some; tells of each that failed.
fn for_each(
    invocation: &Invocation<'_>,
    mut act: impl FnMut(&str) -> runtime::Result<()>,
) -> Outcome {
    let failures: Vec<String> = invocation
        .flags
        .args
        .iter()
        .filter_map(|name| Some(act(name).err()?.to_string()))
        .collect();
    match failures.is_empty() {
        true => Ok(0),
        false => Err(Failure::new(failures.join("; "))),
    }
}

fn failed(failure: Failure) -> runtime::Error {
    runtime::Error::failed(failure.message)
}
