//! `run IMAGE`: from the options to a container that runs, or has run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Write, stdout};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ::network::Port;
use humantime::format_rfc3339_nanos;
use image::convert::Overrides;
use image::unpack::Layer;
use image::{Hold, Image, ImageConfiguration, Platform, PullOptions, Store};
use nix::libc::SIGTERM;
use runtime::{CgroupManager, Context, Error, Result, Settings, window_size};
use serde_json::Value;

use super::attach::{AttachOptions, Parted, attach};
use super::control::{Connection, Message, Started};
use super::directory::{CONFIG_FILE, Container, Containers, Lock};
use super::lifecycle::{remove, remove_forced};
use super::network::{NetworkMode, NetworkOptions};
use super::options::Options;
use super::record::Record;
use super::spec::{Surroundings, complete};
use super::streams::Streams;
use super::volumes::MountOption;
use super::{id, init, monitor, network, of_image, of_network, rootfs, spec, userns};
use crate::flags::Flags;
use crate::images::{Bars, obtain};
use crate::table::OF_BUNDLES;
use crate::{Failure, Outcome, signals};

/// Whether what stands behind `run` is an image, or with `--rootfs` a root: the runtime's ids have none of these characters, so where a
/// flag says that a bundle is meant it is a wrong id.
pub(crate) fn names_an_image(flags: &Flags, argument: &str) -> bool {
    let of_bundle = || flags.names_given().any(|name| OF_BUNDLES.contains(&name));
    flags.is_set("rootfs") || argument.contains(['/', ':', '@']) && !of_bundle()
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
        // Nothing is left of it. The monitor lets go of it when it has said why it never ran; one that has not been heard may have started it.
        let cleared = match &outcome {
            Err(_) => remove_forced(containers, &container),
            Ok(_) => container
                .lock()
                .and_then(|_lock| remove(containers, &container, true)),
        };
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
    if !options.detach {
        connection.say(&Message::Attach)?;
    }
    connection.say(&Message::Start)?;
    // While the monitor is at work, and before anybody is told of the container. After a failure of the machine one of --rm is not wanted.
    if !options.remove
        && let Err(error) = container.sync()
    {
        log::warn!("{error}");
    }
    if options.detach {
        return Ok(match connection.started()? {
            Started::Failed(status, text) => Parted::Failed(status, text),
            Started::Running | Started::Ended => {
                crate::print(&format!("{}\n", container.record.id))
                    .context("tell the container's id")?;
                Parted::Left
            }
        });
    }
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
fn create(
    settings: &Settings,
    containers: &Containers,
    options: &Options,
) -> Result<(Container, Lock)> {
    if let Some(path) = &options.cidfile
        && path.exists()
    {
        let text = format!(
            "--cidfile: {} exists: a container was made with it",
            path.display()
        );
        return Err(Error::invalid(text));
    }
    userns::check(options)?;
    let source = Source::find(containers, options)?;
    let record = record(settings, containers, options, &source)?;
    // The image is unpacked by now, with the ids that it is entered with here.
    userns::enter()?;
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
    /// The directory that `--rootfs` names.
    rootfs: Option<PathBuf>,
    image: Option<Image>,
    /// The image's, or an empty one.
    configuration: ImageConfiguration,
    layers: Vec<PathBuf>,
    /// Until the container is on record, nobody may remove the image.
    _hold: Option<Hold>,
}

impl Source {
    fn find(containers: &Containers, options: &Options) -> Result<Self> {
        if options.rootfs {
            let rootfs = fs::canonicalize(&options.image)
                .with_context(|| format!("--rootfs: find {}", options.image))?;
            return Ok(Source {
                rootfs: Some(rootfs),
                image: None,
                configuration: ImageConfiguration::default(),
                layers: Vec::new(),
                _hold: None,
            });
        }
        Self::of_image(containers, options).map_err(of_image)
    }

    fn of_image(containers: &Containers, options: &Options) -> image::Result<Self> {
        let store = Store::open(containers.store())?;
        let pull = PullOptions {
            platform: options.platform.clone(),
            unpack: true,
            connection: image::Connection {
                tls_verify: options.tls_verify,
                ..image::Connection::default()
            },
        };
        let bars = Bars::new(false);
        let image = obtain(&store, &options.image, options.pull, &pull, &bars)?;
        let hold = store.hold()?;
        let configuration = image.configuration(&store)?;
        if options.platform.is_none()
            && let Err(error) = image.require(&store, &Platform::host())
        {
            log::warn!("{error}");
        }
        let layers = image::layers::ensure(containers.store(), Layer::of(&image, &store)?)?;
        Ok(Source {
            rootfs: None,
            image: Some(image),
            configuration,
            layers,
            _hold: Some(hold),
        })
    }

    /// The configuration that the flags change, with Docker's defaults.
    fn base(&self, options: &Options, rootfs: &Path) -> Result<Value> {
        let overrides = Overrides {
            entrypoint: options.entrypoint.clone(),
            command: options.command.clone(),
            user: options.user.clone().or(options.userns.user()),
            groups: options.groups.clone(),
            cwd: options.workdir.clone(),
            env: options.env.clone(),
            terminal: options.tty,
        };
        let root = fs::File::open(rootfs).with_context(|| format!("open {}", rootfs.display()))?;
        let spec = image::convert::spec(&self.configuration, root.as_fd(), &overrides);
        // By way of the text that `unpack` writes: to_value would be a second copy of the encoder, 33 kB of it.
        serde_json::to_vec_pretty(&spec.map_err(of_image)?)
            .and_then(|text| serde_json::from_slice(&text))
            .map_err(|error| Error::failed(format!("encode the configuration: {error}")))
    }

    /// The ports that the image exposes, with their protocol.
    fn exposed(&self) -> BTreeSet<String> {
        let config = self.configuration.config().as_ref();
        let ports = config.and_then(|config| config.exposed_ports().as_deref());
        let whole = |port: &String| match port.contains('/') {
            true => port.clone(),
            false => format!("{port}/tcp"),
        };
        ports.unwrap_or_default().iter().map(whole).collect()
    }

    /// Published ports: those that were asked for, and with `--publish-all` those that the image exposes.
    fn ports(&self, options: &Options) -> Result<Vec<Port>> {
        let mut ports = options.publish.clone();
        for text in self.exposed().iter().filter(|_| options.publish_all) {
            let exposed = Port::parse(text).map_err(of_network)?;
            let is_new = |port: &Port| {
                let same = |other: &&Port| {
                    other.container_port == port.container_port && other.protocol == port.protocol
                };
                options.publish.iter().find(same).is_none()
            };
            ports.extend(exposed.into_iter().filter(is_new));
        }
        Ok(ports)
    }
}

fn record(
    settings: &Settings,
    containers: &Containers,
    options: &Options,
    source: &Source,
) -> Result<Record> {
    let id = id::random()?;
    Ok(Record {
        name: options.name.clone().unwrap_or_else(|| id[..12].to_owned()),
        created: format_rfc3339_nanos(SystemTime::now()).to_string(),
        root: settings.root.clone(),
        cgroup_manager: settings.cgroup_manager,
        rootless: settings.rootless,
        image: source
            .image
            .as_ref()
            .map(|image| image.manifest.digest.clone()),
        image_id: source.image.as_ref().map(|image| image.id().clone()),
        image_name: source.image.as_ref().map(|_| options.image.clone()),
        layers: source.layers.clone(),
        rootfs: source.rootfs.clone(),
        command: Vec::new(),
        tty: options.tty,
        interactive: options.interactive,
        stdin_once: options.interactive && !options.detach,
        remove: options.remove,
        restart: options.restart,
        stop_signal: stop_signal(options, source)?,
        stop_timeout: options.stop_timeout.unwrap_or(10),
        log: options.log,
        default_apparmor: options.takes_default_apparmor(),
        network: NetworkOptions {
            hostname: hostname(options, &id),
            mode: match &options.network {
                NetworkMode::Container(name) => {
                    NetworkMode::Container(containers.get(name)?.record.id)
                }
                mode => mode.clone(),
            },
            add_host: options.add_host.clone(),
            dns: options.dns.clone(),
            ip: options.ip,
            ports: source.ports(options)?,
        },
        exposed_ports: source.exposed(),
        mounts: Vec::new(),
        labels: labels(options, source),
        privileged: options.privileged,
        cgroup_parent: options.cgroup_parent.clone(),
        userns: options.userns,
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

fn stop_signal(options: &Options, source: &Source) -> Result<i32> {
    match (
        options.stop_signal,
        image::convert::stop_signal(&source.configuration),
    ) {
        (Some(signal), _) => Ok(signal),
        (None, Some(name)) => signals::parse(name)
            .map_err(|error| Error::invalid(format!("the image's StopSignal: {error}"))),
        (None, None) => Ok(SIGTERM),
    }
}

/// The image's, and over them those of the flags. They say something to people; nothing is done by them.
fn labels(options: &Options, source: &Source) -> BTreeMap<String, String> {
    let config = source.configuration.config().as_ref();
    let own = config
        .and_then(|config| config.labels().clone())
        .unwrap_or_default();
    own.into_iter().chain(options.labels.clone()).collect()
}

/// Fills the directory of a new container.
fn fill(
    container: &mut Container,
    containers: &Containers,
    options: &Options,
    source: &Source,
) -> Result<()> {
    rootfs::mount(container)?;
    let rootfs = rootfs::path(container);
    let userns = container.record.userns;
    userns::give_files(&rootfs, userns)?;
    Streams::make(container)?;
    let wanted = mounts(options, source)?;
    let mut entries = Vec::new();
    for mount in &wanted {
        let point = mount.provide(containers.store())?;
        // On record before it is filled, so that it goes with the container.
        container.record.mounts.push(point);
        container.write_record()?;
        let point = container.record.mounts.last().expect("it was just pushed");
        mount.seed(point, &rootfs)?;
        entries.push(mount.entry(&point.source, userns));
    }
    let init = match options.init {
        true => Some(init::provide(containers.store())?),
        false => None,
    };
    let files = network::files(container, containers)?;
    let is_mounted = |file: &Value| {
        entries
            .iter()
            .any(|entry| entry["destination"] == file["destination"])
    };
    let files: Vec<Value> = files.into_iter().filter(|file| !is_mounted(file)).collect();
    let joins = matches!(options.network, NetworkMode::Container(_));
    let netns = container.path.join(network::NAMESPACE);
    let window = window_size(stdout().as_fd());
    let mut spec = complete(
        source.base(options, &rootfs)?,
        options,
        Surroundings {
            id: &container.record.id,
            hostname: &container.record.network.hostname,
            rootfs: &rootfs,
            mounts: [files, entries].concat(),
            init: init.as_deref(),
            netns: joins.then_some(netns.as_path()),
            systemd: container.record.cgroup_manager == CgroupManager::Systemd,
            window: window.filter(|(rows, columns)| *rows > 0 && *columns > 0),
        },
    )?;
    userns::adapt(&mut spec, userns, &options.network);
    container.record.command = spec::command(&spec);
    container.write_record()?;
    container.write(CONFIG_FILE, &spec)?;
    match &options.cidfile {
        Some(path) => write_id(path, &container.record.id),
        None => Ok(()),
    }
}

/// What is asked for, and the volumes of the image where nothing else is to be.
fn mounts(options: &Options, source: &Source) -> Result<Vec<MountOption>> {
    let mut mounts = options.mounts.clone();
    for path in image::convert::volumes(&source.configuration).map_err(of_image)? {
        let mount = MountOption::of_image(&path)
            .map_err(|error| Error::invalid(format!("the image's volume {path:?}: {error}")))?;
        if mounts
            .iter()
            .all(|other| other.destination != mount.destination)
        {
            mounts.push(mount);
        }
    }
    Ok(mounts)
}

fn write_id(path: &Path, id: &str) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(id.as_bytes()))
        .with_context(|| format!("--cidfile: write {}", path.display()))
}
