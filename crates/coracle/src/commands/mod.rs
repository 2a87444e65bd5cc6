//! What each command does: its flags become one call into the library, the answer becomes output.

mod check;
mod checkpoint;
mod completion;
mod kill;
mod list;
mod man;
#[cfg(feature = "network")]
mod network;
mod ps;
mod settings;
mod spec;
mod update;

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;

use runtime::{Context, CreateOptions, EventsOptions, ExecOptions, Kind, RunOptions, Settings};
use serde::Serialize;

#[cfg(feature = "image")]
use crate::containers::{Container, Containers};
use crate::flags::Flags;
use crate::{Failure, Outcome, help as text, table};

pub(crate) use check::check;
pub(crate) use checkpoint::{checkpoint, restore};
pub(crate) use completion::completion;
pub(crate) use kill::{delete, kill};
pub(crate) use list::list;
pub(crate) use man::man;
#[cfg(feature = "network")]
pub(crate) use network::network;
pub(crate) use ps::ps;
pub(crate) use spec::spec;
pub(crate) use update::update;

/// One parsed command line.
#[derive(Debug)]
pub(crate) struct Invocation<'a> {
    /// The flags before the command.
    pub(crate) globals: &'a Flags,
    /// The command's own flags and its arguments.
    pub(crate) flags: &'a Flags,
    /// Behind the container's id: the command line of another program, which need not be text.
    pub(crate) rest: &'a [OsString],
}

impl Invocation<'_> {
    /// What holds for every operation. Only made by commands that need it: `features` needs no state directory.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        settings::from(self.globals)
    }

    /// Where images are kept.
    #[cfg(feature = "image")]
    pub(crate) fn store(&self) -> Result<image::Store, Failure> {
        Ok(image::Store::open(&settings::store(self.globals)?)?)
    }

    /// What is known of the containers' networks.
    #[cfg(feature = "network")]
    fn networks(&self) -> Result<::network::Networks, Failure> {
        let directory = settings::store(self.globals)?.join("network");
        Ok(::network::Networks::open(&directory)?)
    }

    /// The first argument of nearly every command; the table has made sure that it is there.
    pub(crate) fn id(&self) -> &str {
        &self.flags.args[0]
    }

    /// The runtime's id of the container that the first argument means: the argument itself, unless it is the name, or the beginning of
    /// the id, of one that was run from an image.
    pub(crate) fn container_id(&self, settings: &Settings) -> Result<String, Failure> {
        #[cfg(feature = "image")]
        if let Some(container) = self.container_of_image(settings)? {
            return Ok(container.record.id);
        }
        let _ = settings;
        Ok(self.id().to_owned())
    }

    /// The container that was run from an image below this state root, if the first argument means one. What the runtime knows by that
    /// very name comes first; a whole id, such as engines use, costs one look into the store.
    #[cfg(feature = "image")]
    fn container_of_image(&self, settings: &Settings) -> Result<Option<Container>, Failure> {
        let is_full_id = self.id().len() == crate::containers::id::LENGTH;
        if !is_full_id && settings.root.join(self.id()).exists() {
            return Ok(None);
        }
        // An engine need not say where a user's home is: then there is no store, and no container of an image.
        let Ok(containers) = self.containers() else {
            return Ok(None);
        };
        let found = containers.find(self.id())?;
        Ok(found.filter(|container| container.record.root == settings.root))
    }

    /// Where containers that are run from images are kept.
    #[cfg(feature = "image")]
    pub(crate) fn containers(&self) -> Result<Containers, Failure> {
        Ok(Containers::of(&settings::store(self.globals)?))
    }

    /// Does something to the container that the first argument means, for commands that an engine waits for: the store of images is only
    /// looked at when the runtime knows no container by that very id.
    fn by_id<T>(
        &self,
        settings: &Settings,
        act: impl Fn(&str) -> runtime::Result<T>,
    ) -> Result<T, Failure> {
        match act(self.id()) {
            Err(error) if error.kind() == Kind::NotFound => Ok(act(&self.container_id(settings)?)?),
            done => Ok(done?),
        }
    }

    /// The container of an image that the first argument means.
    #[cfg(feature = "image")]
    pub(crate) fn container(&self) -> Result<Container, Failure> {
        Ok(self.containers()?.get(self.id())?)
    }
}

pub(crate) fn create(invocation: &Invocation<'_>) -> Outcome {
    let settings = invocation.settings()?;
    runtime::create(&settings, &create_options(invocation))
        .map_err(|error| prefixed("create", error))?;
    Ok(0)
}

#[cfg(feature = "image")]
pub(crate) use crate::containers::commands::run;

#[cfg(not(feature = "image"))]
pub(crate) fn run(invocation: &Invocation<'_>) -> Outcome {
    run_bundle(invocation)
}

/// runc's `run`.
pub(crate) fn run_bundle(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let options = RunOptions {
        create: create_options(invocation),
        detach: flags.is_set("detach"),
        keep: flags.is_set("keep"),
        no_subreaper: flags.is_set("no-subreaper"),
    };
    // First of all, so that nothing is done twice when it executes us again.
    runtime::protect().map_err(|error| prefixed("run", error))?;
    runtime::run(&invocation.settings()?, &options).map_err(|error| prefixed("run", error))
}

pub(crate) fn create_options(invocation: &Invocation<'_>) -> CreateOptions {
    let flags = invocation.flags;
    CreateOptions {
        id: invocation.id().to_owned(),
        bundle: flags.get("bundle"),
        config: flags.get("config"),
        console_socket: flags.get("console-socket"),
        pidfd_socket: flags.get("pidfd-socket"),
        pid_file: flags.get("pid-file"),
        no_pivot: flags.is_set("no-pivot"),
        no_new_keyring: flags.is_set("no-new-keyring"),
        preserve_fds: flags.number("preserve-fds").unwrap_or(0),
    }
}

pub(crate) fn exec(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    // 255 tells a failure of ours from one of the process, as ssh(1) does.
    let failed = |message| Failure {
        message,
        status: 255,
    };
    // First of all, so that nothing is done twice when it executes us again.
    runtime::protect().map_err(|error| failed(prefixed("exec", error).message))?;
    let settings = invocation
        .settings()
        .map_err(|failure| failed(failure.message))?;
    #[cfg(feature = "image")]
    if let Some(container) = invocation
        .container_of_image(&settings)
        .map_err(|failure| failed(failure.message))?
        .filter(|_| flags.text("process").is_none())
    {
        let options = exec_options(invocation);
        return crate::sys::with_all(|| crate::containers::exec(&container, flags, options));
    }
    if flags.is_set("privileged") {
        return Err(failed("--privileged is for containers of images".into()));
    }
    let process = flags
        .get("process")
        .map(|path: PathBuf| runtime::read_process(&path));
    let process = process
        .transpose()
        .map_err(|error| failed(prefixed("exec", error).message))?;
    let id = match process {
        Some(_) => invocation
            .container_id(&settings)
            .map_err(|failure| failed(failure.message))?,
        // No image's, as has just been seen.
        None => invocation.id().to_owned(),
    };
    let mut options = ExecOptions {
        id,
        process,
        ..exec_options(invocation)
    };
    if options.process.is_some() {
        options.args.clear();
    }
    runtime::exec(&settings, &options).map_err(|error| failed(prefixed("exec", error).message))
}

/// What the flags say themselves.
fn exec_options(invocation: &Invocation<'_>) -> ExecOptions {
    let flags = invocation.flags;
    ExecOptions {
        id: String::new(),
        args: invocation.rest.to_vec(),
        process: None,
        console_socket: flags.get("console-socket"),
        pidfd_socket: flags.get("pidfd-socket"),
        pid_file: flags.get("pid-file"),
        cwd: flags.get("cwd"),
        env: flags.list("env"),
        tty: flags.is_set("tty"),
        user: flags.get("user"),
        additional_gids: flags.numbers("additional-gids"),
        detach: flags.is_set("detach"),
        process_label: flags.get("process-label"),
        apparmor: flags.get("apparmor"),
        no_new_privs: flags.is_set("no-new-privs"),
        capabilities: flags.list("cap"),
        preserve_fds: flags.number("preserve-fds").unwrap_or(0),
        cgroups: flags.list("cgroup"),
        ignore_paused: flags.is_set("ignore-paused"),
    }
}

pub(crate) fn start(invocation: &Invocation<'_>) -> Outcome {
    let settings = invocation.settings()?;
    // One of an image is stopped where a bundle's would be created.
    #[cfg(feature = "image")]
    if let Some(container) = invocation.container_of_image(&settings)? {
        crate::sys::with_all(|| crate::containers::start(&container))?;
        return Ok(0);
    }
    invocation.by_id(&settings, |id| runtime::start(&settings, id))?;
    Ok(0)
}

pub(crate) fn pause(invocation: &Invocation<'_>) -> Outcome {
    let settings = invocation.settings()?;
    runtime::pause(&settings, &invocation.container_id(&settings)?)?;
    Ok(0)
}

pub(crate) fn resume(invocation: &Invocation<'_>) -> Outcome {
    let settings = invocation.settings()?;
    runtime::resume(&settings, &invocation.container_id(&settings)?)?;
    Ok(0)
}

pub(crate) fn state(invocation: &Invocation<'_>) -> Outcome {
    let settings = invocation.settings()?;
    let state = invocation.by_id(&settings, |id| runtime::state(&settings, id))?;
    answer(&json(&state, "  "))
}

pub(crate) fn events(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let interval = flags.duration("interval").unwrap_or_default();
    if interval.is_zero() {
        return Err(Failure::new("duration interval must be greater than 0"));
    }
    let options = EventsOptions {
        interval,
        once: flags.is_set("stats"),
    };
    let settings = invocation.settings()?;
    runtime::events(
        &settings,
        &invocation.container_id(&settings)?,
        &options,
        &mut std::io::stdout(),
    )?;
    Ok(0)
}

pub(crate) fn features(_: &Invocation<'_>) -> Outcome {
    answer(&(json(&runtime::features(), "    ") + "\n"))
}

pub(crate) fn help(invocation: &Invocation<'_>) -> Outcome {
    let help = match invocation.flags.args.first() {
        None => text::global(),
        Some(name) => {
            text::command(table::command(name).ok_or_else(|| crate::no_such_command(name))?)
        }
    };
    answer(&help)
}

/// runc's prefix, by which engines and people tell where it failed.
pub(crate) fn prefixed(operation: &str, error: runtime::Error) -> Failure {
    Failure::new(format!(
        "{operation} failed: {}",
        Failure::from(error).message
    ))
}

/// Writes the answer of a command to standard output.
pub(crate) fn answer(text: &str) -> Outcome {
    crate::print(text).context("write to standard output")?;
    Ok(0)
}

/// JSON over several lines, without a newline at the end.
pub(crate) fn json(value: &impl Serialize, indent: &str) -> String {
    let mut text = Vec::with_capacity(1024);
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    // Writing to memory cannot fail, and what is written has text for keys.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut text, formatter,
    ));
    String::from_utf8(text).unwrap_or_default()
}

/// For errors that are no system calls'.
pub(crate) fn failure(operation: impl Display, error: impl Display) -> Failure {
    Failure::new(format!("{operation}: {error}"))
}
