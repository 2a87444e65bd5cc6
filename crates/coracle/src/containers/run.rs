//! `run IMAGE`: from the options to a container that runs, or has run.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use humantime::format_rfc3339_nanos;
use nix::libc::SIGTERM;
use runtime::{CgroupManager, Context, Error, Result, Settings, window_size};
use serde_json::{Value, json};

use super::attach::{AttachOptions, Parted, attach};
use super::control::{Connection, Message, Started};
use super::directory::{Container, Containers, Lock};
use super::lifecycle::remove;
use super::network::{NetworkMode, NetworkOptions};
use super::options::Options;
use super::record::{MountPoint, Record};
use super::spec::{Surroundings, complete};
use super::streams::Streams;
use super::{id, monitor, rootfs, spec};
use crate::flags::Flags;
use crate::{Failure, Outcome};

/// Whether what stands behind `run` is an image, or with `--rootfs` a root: the runtime's ids have none of these characters.
pub(crate) fn names_an_image(flags: &Flags, argument: &str) -> bool {
    flags.is_set("rootfs") || argument.contains(['/', ':', '@'])
}

/// Runs a container as `options` say. The outcome is its exit status, 0 when detached.
pub(crate) fn run(settings: &Settings, containers: &Containers, options: &Options) -> Outcome {
    // First of all, so that nothing is done twice when it executes us again.
    runtime::protect()?;
    let created = create(settings, containers, options);
    let (container, lock) = created.map_err(|error| Failure {
        message: error.to_string(),
        status: 125,
    })?;
    let outcome = start(&container, lock, options);
    if let Ok(Parted::Failed(..)) | Err(_) = &outcome {
        // It never ran: nothing is left of it. The monitor lets go of it when it has said why.
        let cleared = container.lock().and_then(|_lock| remove(containers, &container, true));
        if let Err(error) = cleared
            && error.kind() != runtime::Kind::NotFound
        {
            log::warn!("clean up after the failure: {error}");
        }
        if let Some(path) = &options.cidfile {
            let _ = fs::remove_file(path);
        }
    }
    match outcome? {
        Parted::Exited(status) => Ok(status),
        Parted::Left => Ok(0),
        Parted::Failed(status, text) => Err(Failure {
            message: format!("run failed: {text}"),
            status,
        }),
    }
}

fn start(container: &Container, lock: Lock, options: &Options) -> Result<Parted> {
    let connection = monitor::spawn(container, lock)?;
    if options.detach {
        connection.say(&Message::Start)?;
        return Ok(match connection.started()? {
            Started::Failed(status, text) => Parted::Failed(status, text),
            Started::Running | Started::Exited(_) => {
                println!("{}", container.record.id);
                Parted::Left
            }
        });
    }
    connection.say(&Message::Attach)?;
    connection.say(&Message::Start)?;
    foreground(container, connection, options)
}

fn foreground(container: &Container, connection: Connection, options: &Options) -> Result<Parted> {
    let attach_options = AttachOptions {
        input: options.interactive,
        forward_signals: true,
        started: false,
    };
    attach(container, connection, attach_options)
}

/// Makes everything that a container consists of before it runs, or nothing.
fn create(settings: &Settings, containers: &Containers, options: &Options) -> Result<(Container, Lock)> {
    if let Some(path) = &options.cidfile
        && path.exists()
    {
        let text = format!("--cidfile: {} exists: a container was made with it", path.display());
        return Err(Error::invalid(text));
    }
    let source = Source::find(options)?;
    let record = record(settings, containers, options, &source)?;
    let (mut container, lock) = containers.create(record)?;
    let filled = fill(&mut container, containers, options, &source);
    if let Err(error) = filled {
        if let Err(error) = remove(containers, &container, true) {
            log::warn!("clean up after the failure: {error}");
        }
        return Err(error);
    }
    Ok((container, lock))
}

/// What a container is made from.
struct Source {
    rootfs: PathBuf,
}

impl Source {
    fn find(options: &Options) -> Result<Self> {
        if !options.rootfs {
            return Err(Error::failed("running images is not there yet: use --rootfs DIR"));
        }
        let rootfs = fs::canonicalize(&options.image)
            .with_context(|| format!("--rootfs: find {}", options.image))?;
        Ok(Source { rootfs })
    }

    /// The configuration that the flags change, with Docker's defaults.
    fn base(&self, options: &Options) -> Result<Value> {
        let mut base: Value = serde_json::from_str(&runtime::spec(false))
            .map_err(|error| Error::failed(format!("the default configuration: {error}")))?;
        let entrypoint = options.entrypoint.iter().flatten();
        let args: Vec<&String> = entrypoint.chain(&options.command).collect();
        if args.is_empty() {
            return Err(Error::invalid("no command was given, and there is no image that names one"));
        }
        base["process"]["args"] = json!(args);
        Ok(base)
    }
}

fn record(
    settings: &Settings,
    containers: &Containers,
    options: &Options,
    source: &Source,
) -> Result<Record> {
    let id = id::random()?;
    let mounts = options
        .mounts
        .iter()
        .map(|mount| mount.provide(containers.store()))
        .collect::<Result<Vec<MountPoint>>>()?;
    Ok(Record {
        name: options.name.clone().unwrap_or_else(|| id[..12].to_owned()),
        created: format_rfc3339_nanos(SystemTime::now()).to_string(),
        root: settings.root.clone(),
        systemd_cgroup: settings.cgroup_manager == CgroupManager::Systemd,
        rootless: settings.rootless,
        image: None,
        rootfs: Some(source.rootfs.clone()),
        command: Vec::new(),
        tty: options.tty,
        interactive: options.interactive,
        stdin_once: options.interactive && !options.detach,
        remove: options.remove,
        restart: options.restart,
        stop_signal: options.stop_signal.unwrap_or(SIGTERM),
        stop_timeout: options.stop_timeout.unwrap_or(10),
        log: options.log,
        network: NetworkOptions {
            hostname: hostname(options, &id),
            mode: options.network.clone(),
            add_host: options.add_host.clone(),
            dns: options.dns.clone(),
            ip: options.ip,
            ports: options.publish.clone(),
        },
        mounts,
        labels: options.labels.clone(),
        privileged: options.privileged,
        cgroup_parent: options.cgroup_parent.clone(),
        id,
    })
}

fn hostname(options: &Options, id: &str) -> String {
    match (&options.hostname, &options.network) {
        (Some(name), _) => name.clone(),
        (None, NetworkMode::Host) => nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_else(|| "localhost".into()),
        (None, _) => id[..12].to_owned(),
    }
}

/// Fills the directory of a new container.
fn fill(
    container: &mut Container,
    containers: &Containers,
    options: &Options,
    source: &Source,
) -> Result<()> {
    rootfs::mount(container)?;
    Streams::make(container)?;
    let _ = containers;
    let volumes = options.mounts.iter().zip(&container.record.mounts);
    let mounts = volumes.map(|(mount, point)| mount.entry(&point.source)).collect();
    let window = window_size(std::os::fd::AsFd::as_fd(&std::io::stdout()));
    let spec = complete(
        source.base(options)?,
        options,
        Surroundings {
            id: &container.record.id,
            hostname: &container.record.network.hostname,
            rootfs: &source.rootfs,
            mounts,
            netns: None,
            systemd: container.record.systemd_cgroup,
            window: window.filter(|(rows, columns)| *rows > 0 && *columns > 0),
        },
    )?;
    container.record.command = spec::command(&spec);
    container.write_record()?;
    container.write("config.json", &spec)?;
    match &options.cidfile {
        Some(path) => write_id(path, &container.record.id),
        None => Ok(()),
    }
}

fn write_id(path: &Path, id: &str) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(id.as_bytes()))
        .with_context(|| format!("--cidfile: write {}", path.display()))
}
