//! `exec` in a container of an image, as Docker means it: users by name, standard input only when it is asked for, 127 for a program that
//! is not there. In what a bundle has made it is runc's.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use oci_spec::runtime::Process;
use runtime::{Error, ExecOptions, Kind, Result};
use serde_json::{Value, json};

use super::directory::{CONFIG_FILE, Container};
use super::lifecycle::settle;
use super::monitor::failure_status;
use super::{files, of_image, options, streams};
use crate::flags::Flags;
use crate::{Failure, Outcome};

/// Runs one more process in a container. `asked` is what the flags say themselves.
pub(crate) fn exec(container: &Container, flags: &Flags, asked: ExecOptions) -> Outcome {
    // First of all, so that nothing is done twice when it executes us again.
    runtime::protect()?;
    let env = options::variables(flags)?;
    let record = &container.record;
    let run = || {
        settle(container)?;
        let options = ExecOptions {
            id: record.id.clone(),
            process: Some(process(container, flags, &asked, env)?),
            // Nobody could see it.
            tty: asked.tty && !asked.detach,
            ..asked
        };
        match (options.detach, flags.is_set("interactive")) {
            (true, _) => streams::use_null()?,
            (false, true) => {}
            (false, false) => streams::use_null_input()?,
        }
        runtime::exec(&record.settings(), &options)
    };
    run().map_err(|error: Error| {
        let message = crate::commands::prefixed("exec", error).message;
        let status = failure_status(&message);
        Failure { message, status }
    })
}

/// The container's own process, with what is wanted otherwise, but for its arguments.
fn process(
    container: &Container,
    flags: &Flags,
    asked: &ExecOptions,
    env: Vec<String>,
) -> Result<Process> {
    let record = &container.record;
    let stopped = || Error::new(Kind::WrongStatus, "cannot exec in a stopped container");
    let init = runtime::init(&record.settings(), &record.id)?.ok_or_else(stopped)?;
    let mut spec: Value = container.read(CONFIG_FILE)?;
    let mut process = spec["process"].take();
    process["terminal"] = json!(asked.tty && !asked.detach);
    process["consoleSize"] = Value::Null;
    let mut added = Vec::new();
    if let Some(user) = &asked.user {
        let root = format!("/proc/{}/root", init.pid());
        let root = files::open_directory(Path::new(&root))?;
        if init.exit()?.is_some() {
            // The root may be somebody else's by now.
            return Err(stopped());
        }
        let home = become_user(&mut process, user, root.as_fd())?;
        added.push(format!("HOME={home}"));
    }
    if asked.tty {
        added.push("TERM=xterm".into());
    }
    added.extend(env);
    added
        .into_iter()
        .for_each(|variable| set(&mut process["env"], variable));
    if let Some(cwd) = &asked.cwd {
        process["cwd"] = json!(cwd);
    }
    if let Some(label) = &asked.process_label {
        process["selinuxLabel"] = json!(label);
    }
    if let Some(profile) = &asked.apparmor {
        process["apparmorProfile"] = json!(profile);
    } else if flags.is_set("privileged") && !process["apparmorProfile"].is_null() {
        process["apparmorProfile"] = json!("unconfined");
    }
    if asked.no_new_privs {
        process["noNewPrivileges"] = json!(true);
    }
    let groups = &mut process["user"]["additionalGids"];
    extend(groups, asked.additional_gids.iter().map(|gid| json!(gid)));
    let names = match flags.is_set("privileged") {
        true => runtime::CAPABILITIES.to_vec(),
        false => asked.capabilities.iter().map(String::as_str).collect(),
    };
    for set in ["bounding", "effective", "permitted"] {
        let set = &mut process["capabilities"][set];
        extend(set, names.iter().map(|name| json!(name)));
    }
    serde_json::from_value(process).map_err(|error| Error::invalid(format!("the process: {error}")))
}

/// Gives the process to a user; their home directory. Names are those of the running container, read inside its root.
fn become_user(process: &mut Value, user: &str, root: BorrowedFd<'_>) -> Result<String> {
    let (user, home) = image::convert::user(user, &[], root).map_err(of_image)?;
    // Another user than root has of the bounding set only what a setuid program gets.
    let own = match user.uid() {
        0 => process["capabilities"]["bounding"].clone(),
        _ => json!([]),
    };
    for set in ["effective", "permitted"] {
        process["capabilities"][set] = own.clone();
    }
    process["user"] =
        serde_json::to_value(user).map_err(|error| Error::failed(error.to_string()))?;
    Ok(home)
}

/// Sets a variable in a list of them.
fn set(env: &mut Value, variable: String) {
    let name = variable.split_inclusive('=').next().unwrap_or_default();
    if let Some(env) = env.as_array_mut() {
        env.retain(|other| other.as_str().is_none_or(|other| !other.starts_with(name)));
    }
    extend(env, [json!(variable)]);
}

/// Adds what is not there to an array, which is made if there is none.
fn extend(array: &mut Value, values: impl IntoIterator<Item = Value>) {
    if array.is_null() {
        *array = json!([]);
    }
    if let Some(array) = array.as_array_mut() {
        for value in values {
            if !array.contains(&value) {
                array.push(value);
            }
        }
    }
}
