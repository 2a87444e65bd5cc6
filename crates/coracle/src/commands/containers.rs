//! The commands for containers that are run from images.

use std::time::SystemTime;

use runtime::{Kind, RunOptions};

use super::{Invocation, answer, create_options, prefixed};
use crate::containers::{self, AttachOptions, Container, Containers, LogsOptions, Options, Stop};
use crate::table::OF_BUNDLES;
use crate::{Failure, Outcome, signals};

pub(crate) fn run(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let mut given = flags.names_given();
    if containers::names_an_image(flags, invocation.argument()) {
        if let Some(name) = given.find(|name| OF_BUNDLES.contains(name)) {
            return Err(Failure::new(format!(
                "--{name} is for bundles (coracle run ID), and {:?} is an image",
                invocation.argument()
            )));
        }
        let options = Options::parse(flags)?;
        return containers::run(&invocation.settings()?, &invocation.containers()?, &options);
    }
    if let Some(name) = given.find(|name| *name != "detach" && !OF_BUNDLES.contains(name)) {
        return Err(Failure::new(format!(
            "--{name} is for images: {:?} is none, write localhost/{1} or {1}:latest",
            invocation.argument(),
            invocation.argument()
        )));
    }
    let options = RunOptions {
        create: create_options(invocation)?,
        detach: flags.is_set("detach"),
        keep: flags.is_set("keep"),
        no_subreaper: flags.is_set("no-subreaper"),
    };
    let bundle_is_missing = flags.text("bundle").is_none()
        && flags.text("config").is_none()
        && !std::path::Path::new("config.json").exists();
    runtime::run(&invocation.settings()?, &options).map_err(|error| {
        let mut failure = prefixed("run", error);
        if bundle_is_missing {
            let name = invocation.argument();
            failure.message += &format!(
                " (without a \"/\", \":\" or \"@\" it is the id of a container made from a bundle; an image is written as localhost/{name} or {name}:latest)"
            );
        }
        failure
    })
}

pub(crate) fn stop(invocation: &Invocation<'_>) -> Outcome {
    let how = how_to_stop(invocation)?;
    each(invocation, |_, container| containers::stop(container, how))
}

pub(crate) fn restart(invocation: &Invocation<'_>) -> Outcome {
    let how = how_to_stop(invocation)?;
    each(invocation, |_, container| containers::restart(container, how))
}

pub(crate) fn rm(invocation: &Invocation<'_>) -> Outcome {
    let force = invocation.flags.is_set("force");
    let volumes = invocation.flags.is_set("volumes");
    let all = invocation.containers()?;
    for_each(invocation, |name| match all.find(name)? {
        None if force => Ok(()),
        None => Err(runtime::Error::new(Kind::NotFound, format!("container does not exist: {name}"))),
        Some(container) => {
            match force {
                true => containers::remove_forced(&all, &container)?,
                false => containers::remove_ended(&all, &container, volumes)?,
            }
            answer(&format!("{name}\n")).map(drop).map_err(failed)
        }
    })
}

pub(crate) fn wait(invocation: &Invocation<'_>) -> Outcome {
    let all = invocation.containers()?;
    for_each(invocation, |name| {
        let status = containers::wait(&all.get(name)?)?;
        answer(&format!("{status}\n")).map(drop).map_err(failed)
    })
}

pub(crate) fn attach(invocation: &Invocation<'_>) -> Outcome {
    let container = invocation.container()?;
    let flags = invocation.flags;
    let options = AttachOptions {
        input: container.record.interactive && !flags.is_set("no-stdin"),
        forward_signals: flags.is_set("sig-proxy"),
        started: true,
    };
    Ok(containers::attach(&container, options)?)
}

pub(crate) fn logs(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let invalid = |name: &str, value: &str| Failure::new(format!("invalid value {value:?} for --{name}"));
    let tail = match flags.text("tail") {
        None | Some("all") => None,
        Some(text) => Some(text.parse().map_err(|_| invalid("tail", text))?),
    };
    let since = match flags.text("since") {
        None => None,
        Some(text) => Some(
            LogsOptions::parse_since(text, SystemTime::now()).ok_or_else(|| invalid("since", text))?,
        ),
    };
    let options = LogsOptions {
        follow: flags.is_set("follow"),
        tail,
        since,
        timestamps: flags.is_set("timestamps"),
    };
    containers::logs(&invocation.container()?, &options)?;
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
