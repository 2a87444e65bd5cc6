//! Container creation, from top to bottom: [`launch`], then the two processes side by side, [`parent`] and [`Child::run`].
//!
//! ```text
//!   runtime                                     child
//!   ───────                                     ─────
//!   check everything (Plan)
//!   take the id, write the journal
//!   make and fill the cgroup
//!   clone3 ───────────────────────────────────▶ born in its namespaces, on v2 in its cgroup
//!   write id maps, state.json with the pid      (with a user namespace: waits here)
//!   Recorded ─────────────────────────────────▶
//!                                               namespaces, root, mounts, devices, …
//!   prestart, createRuntime hooks ◀────── Hooks (only if there are any)
//!   Continue ─────────────────────────────────▶ createContainer hooks, pivot_root, user, …
//!                                               waits for Recorded
//!   rlimits ◀───────────────────────────── Ready
//!   pid file, publish the socket
//!
//!   create: done. start connects to the socket ┐
//!   run: goes on by itself                     ├▶ Go
//!                                               startContainer hooks, seccomp, execve
//!   started ◀──────── connection closed by exec; or Failed
//! ```
//!
//! Every step that leaves something behind pushes its undo before it is taken: until [`Launched::release`] an error, wherever it
//! happens, kills the child, and removes the cgroup and the state. The child never clears up: it says what failed, and exits. When the
//! runtime is killed before the child is in state.json, the child sees the end of the channel instead of `Recorded`, and exits.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, accept4, bind, listen, socket, socketpair,
};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid, setsid};

use crate::delete::destroy;
use crate::idmap::Mappings;
use crate::mounts::{Prepared, Surroundings};
use crate::namespaces::Joined;
use crate::plan::Plan;
use crate::procfs::Procfs;
use crate::protocol::{Channel, Message};
use crate::rootfs::Root;
use crate::state::{CREATING_SOCKET, Container, Directory, ProcessId, Record, Status};
use crate::sys::process::{Cloned, clone3};
use crate::{
    CgroupManager, Context, Error, Result, Settings, config, devices, hooks, masks, namespaces,
    plan, process,
};
use crate::{protect, state, sys, terminal};

/// The options of [`create`].
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// The container's id: 1 to 1024 of `A-Za-z0-9_+.-`, neither `.` nor `..`.
    pub id: String,
    /// The directory with `config.json`; the working directory when `None`.
    pub bundle: Option<PathBuf>,
    /// Another file than the bundle's `config.json`.
    pub config: Option<PathBuf>,
    /// A unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// A unix socket that receives a pidfd of the container's init.
    pub pidfd_socket: Option<PathBuf>,
    /// Where to write the pid of the container's init.
    pub pid_file: Option<PathBuf>,
    /// Move the root and chroot instead of pivot_root(2) (for a root on a ramdisk).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many file descriptors from 3 on the container gets (besides `LISTEN_FDS`).
    pub preserve_fds: u32,
}

/// Creates a container: everything is set up, and its process waits for `start`.
pub fn create(settings: &Settings, options: &CreateOptions) -> Result<()> {
    launch(settings, options, Gate::Start).map(Launched::release)
}

/// What the container's process waits for when it is ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Gate {
    /// For `start`, at its socket.
    Start,
    /// For the runtime that made it; `detached` ones may outlive it.
    Run { detached: bool },
}

/// A container that is ready, and goes away again unless it is released.
pub(crate) struct Launched {
    undo: Undo,
    /// Its process, our child.
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// Where it waits for `Go` (`run`).
    pub channel: Channel,
    /// The master of its terminal, when nobody else asked for it.
    pub terminal: Option<OwnedFd>,
}

impl Launched {
    /// Keeps the container.
    pub(crate) fn release(mut self) {
        self.undo.armed = false;
    }

    /// Deletes the container, whose process has ended and been reaped.
    pub(crate) fn delete(mut self) -> Result<()> {
        self.undo.armed = false;
        destroy(&self.undo.container)
    }

    /// The container's directory and record.
    pub(crate) fn container(&self) -> &Container {
        &self.undo.container
    }
}

/// What must be undone unless the container comes to life.
struct Undo {
    container: Container,
    /// Our child, to be reaped.
    child: Option<Pid>,
    armed: bool,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        // Not on record yet, but our own child, so its pid is its own until it is reaped below.
        if let (Some(child), None) = (self.child, &self.container.record.init) {
            let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
        }
        if let Err(error) = destroy(&self.container) {
            log::warn!("clean up after the failure: {error}");
        }
        if let Some(child) = self.child {
            let _ = waitpid(child, None);
        }
    }
}

/// Makes a container up to the point where only `Go` is missing.
pub(crate) fn launch(settings: &Settings, options: &CreateOptions, gate: Gate) -> Result<Launched> {
    protect::ensure()?;

    // Nothing exists yet: whatever is wrong with the input is found here.
    state::check_id(&options.id)?;
    let preserved = process::preserved(options.preserve_fds + process::listen_fds());
    let bundle = plan::bundle(options.bundle.as_deref())?;
    let config_path = options
        .config
        .clone()
        .unwrap_or_else(|| bundle.join("config.json"));
    let (spec, config) = config::read(&config_path)?;
    let mut plan = Plan::new(&spec, &options.id, &bundle)?;
    let detached = gate != Gate::Run { detached: false };
    terminal::check(
        plan.process.terminal.is_some(),
        detached,
        options.console_socket.is_some(),
    )?;
    plan.process.pass_listen_fds();
    let procfs = Procfs::open()?;
    let joined = plan.namespaces.open()?;
    let location = match settings.cgroup_manager {
        CgroupManager::Cgroupfs => Some(cgroups::Location::resolve(
            &cgroups::Host::probe()?,
            Path::new(&plan.cgroup_path),
        )?),
        CgroupManager::Disabled => None,
        CgroupManager::Systemd => {
            return Err(Error::invalid(
                "the systemd cgroup manager is not supported by this version of coracle: use cgroupfs",
            ));
        }
    };
    let console = options
        .console_socket
        .as_deref()
        .map(terminal::connect_to)
        .transpose()?;

    // From here on everything is undone on failure. The journal names the cgroup before it is made.
    let directory = Directory::create(settings, &options.id)?;
    let record = Record::new(&spec, &options.id, &bundle, &plan, location);
    let mut undo = Undo {
        container: Container { directory, record },
        child: None,
        armed: true,
    };
    undo.container
        .directory
        .write_record(&undo.container.record)?;
    undo.container.directory.write_config(&config)?;
    let cgroup = make_cgroup(settings, &mut undo.container, &plan, &spec)?;
    let listener = match gate {
        Gate::Start => Some(listen_at(&undo.container.directory)?),
        Gate::Run { .. } => None,
    };
    let (own_console, console) = match console {
        None if plan.process.terminal.is_some() => {
            let (ours, childs) = socketpair(
                AddressFamily::Unix,
                SockType::Stream,
                None,
                SockFlag::SOCK_CLOEXEC,
            )
            .context("make a socket pair")?;
            (Some(ours), Some(childs))
        }
        console => (None, console),
    };
    let sources = Sources::open(&plan)?;
    let can_set_groups = plan
        .mappings
        .as_ref()
        .map_or(geteuid().is_root(), Mappings::allows_setgroups);
    let tasks = cgroup
        .as_ref()
        .map(cgroups::Cgroup::tasks)
        .transpose()?
        .unwrap_or_default();
    let (channel, childs_channel) = Channel::pair()?;
    let child = Child {
        plan: &mut plan,
        record: &undo.container.record,
        options,
        procfs: &procfs,
        cgroup: cgroup.as_ref(),
        tasks,
        joined,
        sources,
        console,
        listener,
        channel: childs_channel,
        preserved,
        can_set_groups,
    };
    let (pid, pidfd) = child.spawn(&channel)?;
    undo.child = Some(pid);
    parent(&mut undo.container, &plan, &procfs, &channel, pid)?;

    let terminal = own_console
        .map(|console| terminal::receive(console.as_fd()))
        .transpose()?;
    if let Some(path) = &options.pidfd_socket {
        terminal::send_pidfd(path, pidfd.as_fd())?;
    }
    if gate == Gate::Start {
        undo.container.directory.publish_socket()?;
    }
    if let Some(path) = &options.pid_file {
        process::write_pid_file(path, pid)?;
    }
    Ok(Launched {
        undo,
        pid,
        pidfd,
        channel,
        terminal,
    })
}

/// The runtime's side, from the birth of the child until it is ready.
fn parent(
    container: &mut Container,
    plan: &Plan,
    procfs: &Procfs,
    channel: &Channel,
    pid: Pid,
) -> Result<()> {
    if let Some(mappings) = &plan.mappings {
        mappings
            .write(procfs, pid)
            .context("linux.uidMappings: set up the user namespace")?;
    }
    // From here on it may live without us: whoever deletes the container finds it.
    container.record.init = Some(ProcessId::of(pid)?);
    container.directory.write_record(&container.record)?;
    if let Some(score) = plan.process.oom_score_adj {
        process::set_oom_score(procfs, pid, score)?;
    }
    channel.send(&Message::Recorded);
    loop {
        match channel.receive()? {
            Some(Message::Hooks) => {
                let state = state::for_hooks(&container.record, pid.as_raw(), Status::Creating);
                #[allow(
                    deprecated,
                    reason = "prestart hooks are deprecated, and used by every Docker"
                )]
                let early = [
                    ("prestart", plan.hooks.prestart()),
                    ("createRuntime", plan.hooks.create_runtime()),
                ];
                for (point, hooks) in early {
                    hooks::run(
                        point,
                        hooks.as_deref().unwrap_or_default(),
                        &state,
                        &container.record.bundle,
                    )?;
                }
                channel.send(&Message::Continue);
            }
            Some(Message::Ready) => break,
            Some(Message::Failed(text)) => return Err(Error::failed(text)),
            Some(other) => {
                return Err(Error::failed(format!(
                    "the container's process said {other:?} during set-up"
                )));
            }
            None => return Err(died(pid)),
        }
    }
    plan.process.apply_limits(pid)
}

/// The child is gone without a word.
fn died(pid: Pid) -> Error {
    let how = match waitpid(pid, None) {
        Ok(WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _)) => {
            "was killed (is the memory limit too small to start in?)".to_owned()
        }
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("was ended by {signal}"),
        Ok(WaitStatus::Exited(_, status)) => format!("exited with status {status}"),
        _ => "ended".to_owned(),
    };
    Error::failed(format!("the container's process {how} during set-up"))
}

/// Makes the cgroup and writes the limits.
fn make_cgroup(
    settings: &Settings,
    container: &mut Container,
    plan: &Plan,
    spec: &oci_spec::runtime::Spec,
) -> Result<Option<cgroups::Cgroup>> {
    let Some(location) = &container.record.cgroup else {
        return Ok(None);
    };
    match cgroups::Cgroup::create(location) {
        Ok(cgroup) => {
            cgroup.apply(&plan.resources)?;
            Ok(Some(cgroup))
        }
        // An ordinary user without a delegated cgroup can still have a container, if it asks for no limits.
        Err(error)
            if settings.rootless.unwrap_or(!geteuid().is_root())
                && !asks_for_cgroup(spec)
                && is_denied(&error) =>
        {
            log::debug!("no cgroup for the container: {error}");
            container.record.cgroup = None;
            container.directory.write_record(&container.record)?;
            Ok(None)
        }
        Err(error) => {
            // What was there before must not be removed by our undo.
            container.record.cgroup = None;
            Err(error.into())
        }
    }
}

fn is_denied(error: &cgroups::Error) -> bool {
    matches!(
        error.errno(),
        Some(Errno::EACCES | Errno::EPERM | Errno::EROFS)
    )
}

fn asks_for_cgroup(spec: &oci_spec::runtime::Spec) -> bool {
    spec.linux().as_ref().is_some_and(|linux| {
        let resources = linux.resources().as_ref();
        let limits = resources
            .is_some_and(|r| r.memory().is_some() || r.cpu().is_some() || r.pids().is_some());
        limits
            || linux
                .cgroups_path()
                .as_ref()
                .is_some_and(|path| !path.as_os_str().is_empty())
    })
}

/// The socket at which the container's process waits for `start`.
fn listen_at(directory: &Directory) -> Result<OwnedFd> {
    let making = "make the exec socket";
    let listener = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context(making)?;
    let previous = umask(Mode::from_bits_truncate(0o177));
    let bound = bind(
        listener.as_raw_fd(),
        &directory.socket_address(CREATING_SOCKET)?,
    );
    umask(previous);
    bound.context(making)?;
    listen(&listener, Backlog::MAXCONN).context(making)?;
    Ok(listener)
}

impl Record {
    fn new(
        spec: &oci_spec::runtime::Spec,
        id: &str,
        bundle: &Path,
        plan: &Plan,
        cgroup: Option<cgroups::Location>,
    ) -> Self {
        let now = humantime::format_rfc3339_nanos(std::time::SystemTime::now());
        let uid = geteuid();
        let owner = if uid.is_root() {
            "root".to_owned()
        } else {
            // Static binaries know users by /etc/passwd only; a number is as good a name.
            nix::unistd::User::from_uid(uid)
                .ok()
                .flatten()
                .map_or_else(|| uid.to_string(), |user| user.name)
        };
        Record {
            oci_version: spec.version().clone(),
            id: id.to_owned(),
            init: None,
            bundle: bundle.to_owned(),
            rootfs: plan.rootfs.clone(),
            created: now.to_string(),
            owner,
            annotations: spec
                .annotations()
                .iter()
                .flatten()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            cgroup,
            poststart: plan.hooks.poststart().clone().unwrap_or_default(),
            poststop: plan.hooks.poststop().clone().unwrap_or_default(),
        }
    }
}

/// Host files that the privileged runtime opens for a container with a user namespace: its root may not be allowed to walk to them,
/// and cannot make devices.
#[derive(Default)]
struct Sources {
    mounts: Vec<Option<OwnedFd>>,
    devices: Vec<OwnedFd>,
    /// Devices are bound instead of made.
    bind_devices: bool,
}

impl Sources {
    fn open(plan: &Plan) -> Result<Self> {
        let with_user_namespace = plan.namespaces.is_private(libc::CLONE_NEWUSER);
        let mut sources = Sources {
            bind_devices: with_user_namespace || !crate::mounts::privileged_here(),
            ..Self::default()
        };
        if with_user_namespace && geteuid().is_root() {
            sources.mounts = plan
                .mounts
                .iter()
                .map(|mount| mount.open_source())
                .collect::<Result<_>>()?;
            sources.open_devices(plan)?;
        }
        Ok(sources)
    }

    fn open_devices(&mut self, plan: &Plan) -> Result<()> {
        if self.bind_devices && self.devices.is_empty() {
            self.devices = plan
                .devices
                .iter()
                .flatten()
                .map(|device| device.open_source())
                .collect::<Result<_>>()?;
        }
        Ok(())
    }
}

/// Everything that the container's process needs of what the runtime has prepared.
struct Child<'a> {
    plan: &'a mut Plan,
    record: &'a Record,
    options: &'a CreateOptions,
    procfs: &'a Procfs,
    cgroup: Option<&'a cgroups::Cgroup>,
    tasks: Vec<OwnedFd>,
    joined: Vec<Joined>,
    sources: Sources,
    console: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    channel: Channel,
    preserved: Vec<RawFd>,
    can_set_groups: bool,
}

impl Child<'_> {
    /// Makes the process. In the runtime this returns; in the child it never does.
    fn spawn(mut self, channel: &Channel) -> Result<(Pid, OwnedFd)> {
        // The cgroup namespace's root is the cgroup that its maker is in: the child unshares it once it is inside.
        let new = (self.plan.namespaces.new & !libc::CLONE_NEWCGROUP) as u64;
        if !self.needs_intermediate() {
            return match clone3(new, self.cgroup.and_then(|cgroup| cgroup.clone_into()))
                .context("create the container's process")?
            {
                Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
                Cloned::Child => self.run(),
            };
        }
        match clone3(0, None).context("create a process that joins the namespaces")? {
            Cloned::Child => match self.intermediate(new) {
                Ok(Some(pid)) => {
                    self.channel.send(&Message::Pid(pid.as_raw()));
                    sys::process::exit_now(0)
                }
                Ok(None) => self.run(),
                Err(error) => self.fail(&error),
            },
            Cloned::Parent {
                pid: intermediate, ..
            } => {
                drop(self);
                let answer = channel.receive();
                waitpid(intermediate, None)
                    .context("reap the process that joined the namespaces")?;
                match answer? {
                    // A child of ours by CLONE_PARENT: its pid stays its own until we reap it.
                    Some(Message::Pid(pid)) => {
                        let pid = Pid::from_raw(pid);
                        Ok((
                            pid,
                            sys::process::pidfd_open(pid)
                                .context("open the container's process")?,
                        ))
                    }
                    Some(Message::Failed(text)) => Err(Error::failed(text)),
                    _ => Err(Error::failed(
                        "the process that joins the namespaces ended unexpectedly",
                    )),
                }
            }
        }
    }

    /// A pid namespace is only entered by children; new namespaces must be made inside a joined user namespace; what a new user
    /// namespace does not own must be joined before it; and time offsets are set before anyone is inside.
    fn needs_intermediate(&self) -> bool {
        let joins = |flag| self.joined.iter().any(|namespace| namespace.flag == flag);
        let new_user = self.plan.namespaces.is_new(libc::CLONE_NEWUSER);
        joins(libc::CLONE_NEWPID)
            || joins(libc::CLONE_NEWUSER)
            || new_user && !self.joined.is_empty()
            || self.plan.time_offsets.is_some()
    }

    /// In the intermediate process: `Some(pid)` of the real child, or `None` in that child.
    fn intermediate(&mut self, mut new: u64) -> Result<Option<Pid>> {
        namespaces::join(&self.joined)?;
        self.joined.clear();
        if let Some(offsets) = &self.plan.time_offsets {
            sys::process::unshare(namespaces::CLONE_NEWTIME)
                .context("linux.timeOffsets: make a time namespace")?;
            self.procfs
                .write("self/timens_offsets", offsets.as_bytes())
                .context("linux.timeOffsets: set them")?;
            new &= !(namespaces::CLONE_NEWTIME as u64);
        }
        let cgroup = self.cgroup.and_then(|cgroup| cgroup.clone_into());
        match clone3(new | libc::CLONE_PARENT as u64, cgroup)
            .context("create the container's process")?
        {
            Cloned::Parent { pid, .. } => Ok(Some(pid)),
            Cloned::Child => Ok(None),
        }
    }

    fn fail(&self, error: &Error) -> ! {
        self.channel.send(&Message::Failed(error.to_string()));
        sys::process::exit_now(1)
    }

    /// The child's whole life.
    fn run(mut self) -> ! {
        let error = match self.set_up() {
            Ok(program) => match self.wait_for_go() {
                Ok(connection) => {
                    let error = self.start(&program);
                    connection
                        .unwrap_or(self.channel)
                        .send(&Message::Failed(error.to_string()));
                    sys::process::exit_now(1)
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        self.fail(&error)
    }

    /// The numbered list: in which order things are done, and why in that order.
    fn set_up(&mut self) -> Result<std::ffi::CString> {
        // 1. Nothing that the caller left set must reach the container; nothing of it is traced or read from inside.
        sys::process::reset_signals();
        // 2. v1: a single thread that moves itself skips the kernel's global lock. Before any id changes: the files were opened by root.
        process::enter_cgroup(&self.tasks)?;
        // 3. With a user namespace nothing works until the ids are mapped.
        let user_namespace = self.plan.namespaces.is_private(libc::CLONE_NEWUSER);
        if user_namespace {
            self.channel.expect(&Message::Recorded)?;
            if self.can_set_groups {
                sys::credentials::set_groups(&[]).context("drop additional groups")?;
            }
            sys::credentials::set_ids(0, 0).context("become root in the user namespace")?;
        }
        namespaces::join(&self.joined)?;
        sys::process::prctl(libc::PR_SET_DUMPABLE, 0).context("become undumpable")?;
        setsid().context("start a session")?;
        if !self.options.no_new_keyring {
            process::join_keyring(&self.options.id)?;
        }
        // 4. In its cgroup by now, so this becomes the root of the namespace; the cgroup mounts below show it.
        if self.plan.namespaces.is_new(libc::CLONE_NEWCGROUP) {
            sys::process::unshare(libc::CLONE_NEWCGROUP)
                .context("linux.namespaces: make a cgroup namespace")?;
        }
        if self.plan.namespaces.is_new(libc::CLONE_NEWNET) {
            sys::process::loopback_up().context("bring the loopback device up")?;
        }
        umask(Mode::empty());
        // 5. While the host's paths are there: every mount, detached.
        let root = Root::open(&self.plan.rootfs, self.plan.propagation)?;
        let prepared = self.prepare_mounts()?;
        // 6. Hooks of this stage expect the container's files below the bundle; without them the root can be changed first, which makes
        //    everything after it cheaper.
        let early_hooks = self.plan.has_early_hooks();
        match early_hooks {
            true => root.attach(&self.plan.rootfs)?,
            false => {
                root.attach(Path::new("/"))?;
                self.change_root(&root)?;
            }
        }
        // 7. The mounts in the order given, then what stands upon them.
        for (mount, prepared) in self.plan.mounts.iter().zip(prepared) {
            mount.attach(prepared, &root)?;
        }
        self.make_devices(&root)?;
        if let Some(terminal) = self.plan.process.terminal {
            let console = self
                .console
                .as_ref()
                .ok_or_else(|| Error::failed("nobody to receive the terminal"))?;
            terminal.open(&root, self.plan.process.uid, console.as_fd(), true)?;
        }
        // runc makes a missing working directory; one that is there is for chdir(2) to judge, with the user's own rights.
        let cwd = &self.plan.process.cwd;
        if root.open_path(cwd, OFlag::O_PATH).err() == Some(Errno::ENOENT) {
            root.ensure_directory(cwd)
                .with_context(|| format!("process.cwd: create {}", cwd.display()))?;
        }
        if early_hooks {
            self.run_early_hooks()?;
            self.change_root(&root)?;
        }
        // 8. What no mount may come after.
        if self.plan.readonly {
            root.set_readonly()?;
        }
        if let Some(propagation) = self.plan.propagation {
            root.set_propagation(propagation)?;
        }
        masks::make_readonly(&root, &self.plan.readonly_paths)?;
        masks::mask(&root, &self.plan.masked)?;
        self.name_host()?;
        for (path, value) in &self.plan.sysctls {
            self.procfs
                .write(path, value.as_bytes())
                .with_context(|| format!("linux.sysctl: set {path} to {value:?}"))?;
        }
        if let Some(domain) = self.plan.personality {
            sys::process::personality(domain).context("linux.personality: set it")?;
        }
        self.plan.process.labels.apply(self.procfs)?;
        self.plan.process.add_home(&root);
        drop(root);
        // 9. Before anything of the configuration is looked up by path again: no descriptor may lead out.
        let ours: Vec<RawFd> = self
            .listener
            .iter()
            .map(AsRawFd::as_raw_fd)
            .chain([self.channel.as_raw_fd()])
            .collect();
        process::close_others(&self.preserved, &ours)?;
        // 10. The user, and with it the end of most rights.
        self.plan
            .process
            .settle(self.plan.filter.as_ref(), self.can_set_groups)?;
        self.plan.process.look_up()
    }

    fn prepare_mounts(&mut self) -> Result<Vec<Option<Prepared>>> {
        self.sources.open_devices(self.plan)?;
        let around = Surroundings {
            scratch: &self.plan.rootfs,
            cgroup: self.record.cgroup.as_ref(),
            cgroup_namespace: self.plan.namespaces.is_private(libc::CLONE_NEWCGROUP),
        };
        let sources = std::mem::take(&mut self.sources.mounts);
        let sources = sources.into_iter().chain(std::iter::repeat_with(|| None));
        self.plan
            .mounts
            .iter()
            .zip(sources)
            .map(|(mount, source)| mount.prepare(source, &around))
            .collect()
    }

    fn change_root(&self, root: &Root) -> Result<()> {
        if self.options.no_pivot {
            root.move_and_chroot()
        } else {
            root.pivot()
        }
    }

    fn make_devices(&self, root: &Root) -> Result<()> {
        let Some(list) = &self.plan.devices else {
            return Ok(());
        };
        for (index, device) in list.iter().enumerate() {
            device.create(root, self.sources.devices.get(index))?;
        }
        devices::create_links(root)
    }

    fn run_early_hooks(&self) -> Result<()> {
        self.channel.send(&Message::Hooks);
        // `Recorded` was sent before anything else was, unless a user namespace has waited for it.
        if !self.plan.namespaces.is_private(libc::CLONE_NEWUSER) {
            self.channel.expect(&Message::Recorded)?;
        }
        self.channel.expect(&Message::Continue)?;
        let hooks = self
            .plan
            .hooks
            .create_container()
            .as_deref()
            .unwrap_or_default();
        hooks::run(
            "createContainer",
            hooks,
            &self.hook_state(Status::Creating),
            &self.record.bundle,
        )
    }

    fn hook_state(&self, status: Status) -> Vec<u8> {
        state::for_hooks(self.record, Pid::this().as_raw(), status)
    }

    fn name_host(&self) -> Result<()> {
        if let Some(name) = &self.plan.hostname {
            nix::unistd::sethostname(name).context("hostname: set it")?;
        }
        if let Some(name) = &self.plan.domainname {
            sys::process::set_domain_name(name).context("domainname: set it")?;
        }
        Ok(())
    }

    /// Says that it is ready, and waits. `create`: for a connection that says `Go`; a connection without a word comes from `state`.
    fn wait_for_go(&self) -> Result<Option<Channel>> {
        if !self.plan.namespaces.is_private(libc::CLONE_NEWUSER) && !self.plan.has_early_hooks() {
            self.channel.expect(&Message::Recorded)?;
        }
        self.channel.send(&Message::Ready);
        let Some(listener) = &self.listener else {
            return self.channel.expect(&Message::Go).map(|()| None);
        };
        loop {
            match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(connection) => {
                    let connection = Channel::from(sys::process::received(connection));
                    if connection.receive()? == Some(Message::Go) {
                        return Ok(Some(connection));
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for start"),
            }
        }
    }

    /// The last steps. Returns only if they fail.
    fn start(&self, program: &std::ffi::CStr) -> Error {
        let hooks = self
            .plan
            .hooks
            .start_container()
            .as_deref()
            .unwrap_or_default();
        match hooks::run(
            "startContainer",
            hooks,
            &self.hook_state(Status::Created),
            Path::new("/"),
        ) {
            Ok(()) => self.plan.process.exec(program, self.plan.filter.as_ref()),
            Err(error) => error,
        }
    }
}
