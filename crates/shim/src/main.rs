//! `containerd-shim-coracle-v2`: stands between containerd and the containers of one pod, which Coracle runs.
//!
//! containerd executes it for three purposes: `start` ([`bootstrap`]) says where the shim of a container listens, `delete`
//! ([`cleanup`]) removes what a dead shim has left, `-info` ([`info`]) tells what it can do. Without any of them it is the shim that
//! stays: [`shim`] is its loop, [`service`] the calls that it serves.

#![deny(unsafe_code)]

mod bootstrap;
mod cleanup;
mod console;
mod container;
mod error;
mod events;
mod exits;
mod idmap;
mod info;
mod io;
mod jobs;
mod logger;
mod logging;
mod mounts;
mod options;
mod poller;
mod protos;
mod relay;
mod runtime;
mod service;
mod shim;
#[allow(unsafe_code)]
mod sys;
mod ttrpc;

use std::path::PathBuf;
use std::process::ExitCode;

use error::{Context, Failure, Result};
use shim::Shim;

/// The command line.
#[derive(Debug, Default)]
struct Arguments {
    namespace: String,
    id: String,
    /// containerd's gRPC socket.
    address: String,
    bundle: Option<PathBuf>,
    debug: bool,
    info: bool,
    version: bool,
    action: String,
}

impl Arguments {
    /// In Go's syntax: one dash is as good as two, and a value may follow an equals sign.
    fn parse(args: impl Iterator<Item = String>) -> Result<Arguments> {
        let mut arguments = Arguments::default();
        let mut args = args;
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix('-') else {
                arguments.action = arg;
                break;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let on = value.as_deref() != Some("false");
            match name {
                "debug" => arguments.debug = on,
                "info" => arguments.info = on,
                "v" | "version" => arguments.version = on,
                _ => {
                    let value = value.or_else(|| args.next()).ok_or_else(|| {
                        Failure::invalid(format!("flag needs an argument: -{name}"))
                    })?;
                    arguments.set(name, value)?;
                }
            }
        }
        Ok(arguments)
    }

    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "bundle" => {
                self.bundle = Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty())
            }
            // Events go to TTRPC_ADDRESS, and the socket is inherited.
            "publish-binary" | "socket" => {}
            _ => {
                return Err(Failure::invalid(format!(
                    "flag provided but not defined: -{name}"
                )));
            }
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("containerd-shim-coracle-v2: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    if arguments.version {
        println!("containerd-shim-coracle-v2 {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if arguments.info {
        return info::info(&arguments);
    }
    container::check_id("-namespace", &arguments.namespace)?;
    container::check_id("-id", &arguments.id)?;
    match &*arguments.action {
        "start" => bootstrap::start(&arguments),
        "delete" => cleanup::delete(&arguments),
        "" => stay(&arguments),
        action => Err(Failure::invalid(format!("no such action: {action}"))),
    }
}

/// The first descriptor that `start` hands over.
const SOCKET: i32 = 3;

fn stay(arguments: &Arguments) -> Result<()> {
    // Before anything is opened that could get its number.
    let socket = sys::listener(SOCKET).context(|| "take over the socket".to_owned())?;
    logging::start(&arguments.id, arguments.debug);
    let events = std::env::var("TTRPC_ADDRESS").ok();
    let mut shim = Shim::new(&arguments.namespace, vec![socket], events)?;
    shim.serve().inspect_err(|failure| log::error!("{failure}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments> {
        Arguments::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn containerds_command_lines_are_understood() {
        let start = parse("-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id abc -debug start").unwrap();
        assert_eq!(
            (&*start.namespace, &*start.id, &*start.action),
            ("k8s.io", "abc", "start")
        );
        assert_eq!(start.address, "/run/c.sock");
        assert!(start.debug && !start.info);
        let delete = parse("--namespace=default -id x -bundle /b delete").unwrap();
        assert_eq!(delete.bundle, Some(PathBuf::from("/b")));
        assert!(parse("-info").unwrap().info);
    }

    #[test]
    fn what_is_unknown_is_refused() {
        assert!(parse("-nope x start").is_err());
        assert!(parse("-id").is_err());
    }
}
