//! `checkpoint` and `restore` by criu(8): a container's processes become files, and files become processes again.
//!
//! criu does the work. What it cannot know is told to it here, as runc tells it, so that either of the two restores what the other has
//! checkpointed: the mounts and namespaces that are not the container's own, its cgroup, and the pipes that it was started with.

mod criu;
mod images;
mod log;
mod restore;
mod rpc;
mod stdio;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cgroups::Version;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::wait::WaitStatus;

use crate::delete::destroy;
use crate::mounts::staged;
use crate::namespaces::{self, Namespaces};
use crate::plan::Plan;
use crate::rootfs::Root;
use crate::state::{Container, Status};
use crate::sys::process::{received, standard_stream};
use crate::{Context, Error, Kind as ErrorKind, Result, Settings, config};
use criu::Criu;
use images::Images;
use rpc::{ExternalMount, Features, Kind, Opts, Request};

pub use restore::{RestoreOptions, restore};
use stdio::Stream;
pub(crate) use stdio::pipes_among;

/// Warnings, errors, and what criu does.
const LOG_LEVEL: i32 = 4;

/// The options that checkpoint and restore share: criu's, by its own names.
#[derive(Clone, Debug, Default)]
pub struct CriuOptions {
    /// The directory of the images.
    pub image_path: PathBuf,
    /// The directory of criu's log and other by-products; that of the images when `None`.
    pub work_path: Option<PathBuf>,
    /// An earlier checkpoint of the same container, relative to `image_path`: only what has changed since is written.
    pub parent_path: Option<PathBuf>,
    /// Established TCP connections are kept.
    pub tcp_established: bool,
    /// Established TCP connections are closed.
    pub tcp_close: bool,
    /// Unix sockets may be connected to outside.
    pub ext_unix_sk: bool,
    /// The session and its terminal may belong to somebody outside.
    pub shell_job: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// Memory that a later image holds is punched out of the earlier ones.
    pub auto_dedup: bool,
    /// Memory is moved when it is touched.
    pub lazy_pages: bool,
    /// `soft`, `full`, `strict` or `ignore`; criu's default, which is `soft`, when `None`.
    pub manage_cgroups_mode: Option<String>,
    /// What keeps TCP connections quiet meanwhile: `iptables`, `nftables` or `skip`; criu's default when `None`.
    pub network_lock: Option<String>,
}

/// The options of [`checkpoint`].
#[derive(Clone, Debug, Default)]
pub struct CheckpointOptions {
    /// What `restore` has as well.
    pub criu: CriuOptions,
    /// The container goes on running.
    pub leave_running: bool,
    /// Only memory, ahead of a checkpoint that has this one as its parent; the container goes on running.
    pub pre_dump: bool,
    /// Memory goes there instead of into the images.
    pub page_server: Option<PageServer>,
    /// A descriptor of the caller's that gets a null byte when `lazy_pages` can be asked for.
    pub status_fd: Option<i32>,
    /// TCP connections that are not accepted yet are left out.
    pub tcp_skip_in_flight: bool,
    /// Files that are deleted, but still open, get a name again.
    pub link_remap: bool,
}

/// Where `criu page-server` listens.
#[derive(Clone, Debug)]
pub struct PageServer {
    /// A host's name or address.
    pub address: String,
    /// A TCP port.
    pub port: u16,
}

/// Writes a running container into a directory of images. Unless it is to go on running it is deleted then.
pub fn checkpoint(settings: &Settings, id: &str, options: &CheckpointOptions) -> Result<()> {
    criu::check_rights()?;
    let container = Container::lock(settings, id)?;
    let status = container.status()?;
    if !matches!(status, Status::Running | Status::Paused) {
        let text = format!("container cannot be checkpointed in {status} state");
        return Err(Error::new(ErrorKind::WrongStatus, text));
    }
    let init = container.record.init.as_ref().map_or(0, |init| init.pid);
    if let Some(fd) = options.status_fd.filter(|_| options.criu.lazy_pages) {
        keep_to_ourselves(fd)?;
    }
    let mut opts = options.criu.opts(&container.record.annotations)?;
    let images = Images::create(&options.criu, "dump.log")?;
    images.name(&mut opts);
    options.add(&mut opts);
    opts.pid = Some(init);
    opts.root = text(&container.record.rootfs, "root.path")?;
    opts.freeze_cgroup = freezer(&container)?;
    let spec = config::parse_spec(&container.directory.read_config()?)?;
    let plan = Plan::new(&spec, &container.record.bundle)?;
    opts.external = outer_namespaces(&plan.namespaces, init)?;
    if !options.pre_dump {
        opts.ext_mnt = outer_mounts(&container, &plan, init)?;
        let streams = stdio::streams(init, &container.record.stdio)?;
        let files = streams.iter().filter_map(Stream::outer_file);
        opts.external.extend(files.map(str::to_owned));
        images.write_streams(&streams)?;
    }
    let criu = Criu::start()?;
    criu.needs_features(Features {
        mem_track: options.pre_dump,
        lazy_pages: options.criu.lazy_pages,
    })?;
    dump(criu, opts, options, &images)?;
    match options.leave_running || options.pre_dump {
        true => Ok(()),
        false => destroy(&container),
    }
}

/// Has criu do it.
fn dump(criu: Criu, opts: Opts, options: &CheckpointOptions, images: &Images) -> Result<()> {
    let kind = match options.pre_dump {
        true => Kind::PreDump,
        false => Kind::Dump,
    };
    let request = Request {
        kind: kind as i32,
        opts: Some(opts),
        ..Request::default()
    };
    let mut status_fd = options.status_fd;
    let answer = criu.ask(&request, &mut |notify, _| {
        if notify.script == "status-ready"
            && let Some(fd) = status_fd.take()
        {
            // Closed with that: whoever reads until the end waits for nothing more.
            let fd = received(fd);
            nix::unistd::write(&fd, b"\0").context("tell --status-fd that criu is ready")?;
        }
        Ok(())
    });
    answer.and_then(|answer| images.check(&answer, "checkpoint it"))?;
    let ended = criu.finish()?;
    // After a pre-dump criu waits for more, which is not to come.
    match (kind, ended) {
        (Kind::PreDump, _) | (_, WaitStatus::Exited(_, 0)) => Ok(()),
        (_, ended) => Err(Error::failed(format!("criu failed in the end: {ended:?}"))),
    }
}

impl CheckpointOptions {
    fn add(&self, opts: &mut Opts) {
        opts.leave_running = self.leave_running;
        opts.tcp_skip_in_flight = self.tcp_skip_in_flight;
        opts.link_remap = self.link_remap;
        opts.ps = self.page_server.as_ref().map(|server| rpc::PageServer {
            address: server.address.clone(),
            port: server.port.into(),
        });
        opts.track_mem = self.criu.parent_path.is_some();
    }
}

impl CriuOptions {
    /// What does not depend on what is to be done.
    fn opts(&self, annotations: &BTreeMap<String, String>) -> Result<Opts> {
        Ok(Opts {
            ext_unix_sk: self.ext_unix_sk,
            tcp_established: self.tcp_established,
            tcp_close: self.tcp_close,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            parent_img: self
                .parent_path
                .as_deref()
                .map(|path| text(path, "--parent-path"))
                .transpose()?,
            log_level: LOG_LEVEL,
            notify_scripts: true,
            orphan_pts_master: true,
            manage_cgroups: true,
            manage_cgroups_mode: Some(self.cgroups_mode()?),
            network_lock: self.network_lock()?,
            // Devices and their addresses are the engine's.
            empty_ns: libc::CLONE_NEWNET as u32,
            config_file: match annotations.get("org.criu.config") {
                None => Some("/etc/criu/runc.conf".to_owned()),
                Some(none) if none.is_empty() => None,
                given => given.cloned(),
            },
            ..Opts::default()
        })
    }

    /// `criu_cg_mode`.
    fn cgroups_mode(&self) -> Result<i32> {
        Ok(match self.manage_cgroups_mode.as_deref() {
            Some("ignore") => 0,
            Some("soft") => 3,
            Some("full") => 4,
            Some("strict") => 5,
            None => 6,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "invalid manage-cgroups-mode value {other:?}: it is soft, full, strict or ignore"
                )));
            }
        })
    }

    /// `criu_network_lock_method`.
    fn network_lock(&self) -> Result<Option<i32>> {
        Ok(match self.network_lock.as_deref() {
            None => None,
            Some("iptables") => Some(1),
            Some("nftables") => Some(2),
            Some("skip") => Some(3),
            Some(other) => {
                return Err(Error::invalid(format!(
                    "invalid network-lock value {other:?}: it is iptables, nftables or skip"
                )));
            }
        })
    }
}

/// The cgroup whose freezer stops all processes at once.
fn freezer(container: &Container) -> Result<Option<String>> {
    let Some(location) = &container.record.cgroup else {
        return Ok(None);
    };
    let places = location.places();
    let of_v1 = |place: &&cgroups::Place| place.controllers.iter().any(|name| name == "freezer");
    let place = places.iter().find(of_v1).or_else(|| {
        let is_v2 = |place: &&cgroups::Place| place.version == Version::V2;
        places.iter().find(is_v2)
    });
    place
        .map(|place| text(&place.dir(), "linux.cgroupsPath"))
        .transpose()
}

/// Those that have been joined and that criu takes as they are, by its names.
fn outer_namespaces(namespaces: &Namespaces, init: i32) -> Result<Vec<String>> {
    let joined = namespaces.joined.iter();
    let outer = joined.filter_map(|(flag, _)| Some((*flag, external_key(*flag)?)));
    let name = |(flag, key): (i32, &str)| {
        let kind = namespaces::file(namespaces::name(flag));
        let path = format!("/proc/{init}/ns/{kind}");
        let metadata = std::fs::metadata(&path).with_context(|| format!("look at {path}"))?;
        Ok(format!("{kind}[{}]:{key}", metadata.ino()))
    };
    outer.map(name).collect()
}

/// The name by which criu finds an outer namespace again.
fn external_key(flag: i32) -> Option<&'static str> {
    match flag {
        libc::CLONE_NEWNET => Some("extRootNetNS"),
        libc::CLONE_NEWPID => Some("extRootPidNS"),
        _ => None,
    }
}

/// Those whose content is the host's, as the container has them.
fn outer_mounts(container: &Container, plan: &Plan, init: i32) -> Result<Vec<ExternalMount>> {
    let path = format!("/proc/{init}/root");
    let root = File::open(&path).with_context(|| format!("open {path}"))?;
    let root = Root::at(root.into());
    let location = container.record.cgroup.as_ref();
    let externals = staged::externals(
        &plan.mounts,
        &root,
        Path::new(""),
        location,
        &plan.namespaces,
    )?;
    let places = externals.into_iter().map(|(place, _)| place);
    let devices = plan.devices.iter().flatten();
    let same = |path: PathBuf| external_mount(&path, &path);
    let mut all: Vec<_> = places
        .chain(devices.map(|device| device.path.clone()))
        .map(same)
        .collect::<Result<_>>()?;
    let is_file = |path: &&String| {
        let found = root.open_path(Path::new(path), OFlag::O_PATH);
        found.is_ok_and(|file| File::from(file).metadata().is_ok_and(|file| !file.is_dir()))
    };
    for path in plan.masked.iter().filter(is_file) {
        all.push(external_mount(Path::new(path), Path::new("/dev/null"))?);
    }
    Ok(all)
}

fn external_mount(key: &Path, val: &Path) -> Result<ExternalMount> {
    Ok(ExternalMount {
        key: text(key, "mounts")?,
        val: text(val, "mounts")?,
    })
}

/// Nobody but us holds it then, so that its reader sees our end of it.
fn keep_to_ourselves(fd: i32) -> Result<()> {
    let checking = || format!("invalid --status-fd argument {fd}");
    let stream = standard_stream(fd);
    let flags = fcntl(stream, FcntlArg::F_GETFL).with_context(checking)?;
    if OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return Err(Error::invalid(format!("{}: not writable", checking())));
    }
    fcntl(stream, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map(drop)
        .with_context(checking)
}

/// criu's messages are UTF-8.
fn text(path: &Path, field: &str) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::invalid(format!(
            "{field}: {} is not valid UTF-8, which criu takes",
            path.display()
        ))
    })
}
