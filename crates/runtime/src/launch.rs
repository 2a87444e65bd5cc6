//! Container creation: [`launch`], then the two processes side by side, [`parent`] here and `Child::run` in `child.rs`.
//!
//! ```text
//!   runtime                                     child
//!   ───────                                     ─────
//!   begin to make the network namespace
//!   check everything (Plan) but the seccomp profile
//!   take the id, write the journal
//!   make and fill the cgroup
//!   clone3 ───────────────────────────────────▶ born in its namespaces, on v2 in its cgroup
//!   write config.json, on v2 load device rules
//!   write id maps, state.json with the pid      (with a user namespace, or for systemd: waits here)
//!   (with systemd: make its cgroup, fill it)
//!   Recorded ─────────────────────────────────▶
//!   compile the seccomp profile                 namespaces, root, mounts (before a sysfs: the network's), devices, …
//!   prestart, createRuntime hooks ◀────── Hooks (only if there are any)
//!   Continue ─────────────────────────────────▶ createContainer hooks, pivot_root, user, …
//!                                               waits for Recorded
//!   the filter ───────────────────────────────▶ (if there is one; after the hooks)
//!   publish the socket, pid file ◀──────── Ready
//!
//!   create: done. start connects to the socket ┐
//!   run: goes on by itself, and says so at once├▶ Go
//!   instead of Recorded if nothing is between  ┘
//!                                               startContainer hooks
//!                                               seccomp
//!   the listener goes to the agent ◀──── Listener (only with SCMP_ACT_NOTIFY)
//!   Continue ─────────────────────────────────▶ execve
//!   started ◀──────── connection closed by exec; or Failed
//! ```
//!
//! Every step that leaves something behind pushes its undo before it is taken: until [`Launched::release`] an error, wherever it
//! happens, kills the child, and removes the cgroup and the state. The child never clears up: it says what failed, and exits. When the
//! runtime is killed before the child is in state.json, the child sees the end of the channel instead of `Recorded`, and exits.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::sched_yield;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, bind, listen, socket};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

use crate::agent::Notifier;
use crate::child::{Child, Sources};
use crate::config::Bundle;
use crate::delete::{destroy, forget};
use crate::directory::{Directory, EXEC_SOCKET, Stage, check_id};
use crate::foreground::Foreground;
use crate::hooks::Lifetime;
use crate::intel_rdt::Resctrl;
use crate::namespaces::Joined;
use crate::net_devices::Moved;
use crate::new_network::NewNetwork;
use crate::notify::Notify;
use crate::plan::Plan;
use crate::process::Streams;
use crate::procfs::Procfs;
use crate::protocol::{Channel, Message};
use crate::state::{Container, ProcessId, Record, Status};
use crate::sys::wait::{Whose, ended, has_executed};
use crate::{
    CgroupManager, Context, Error, Kind, Result, Settings, annotations, checkpoint, config, hooks,
    notify, plan, process, protect, start, state, sys, terminal, userns,
};

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
    protect::ensure()?;
    let notify = notify::host().is_some();
    launch(settings, options, Gate::Start, notify, None).map(Launched::release)
}

/// What the container's process waits for when it is ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Gate {
    /// For `start`, at its socket.
    Start,
    /// For the runtime that made it; `detached` ones may outlive it.
    Run { detached: bool },
    /// For the runtime that made it, whose caller has something to do before.
    Prepare,
}

/// A container that is ready, and goes away again unless it is released.
pub(crate) struct Launched {
    undo: Undo,
    /// Its process, our child.
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// Where it waits for `Go` (`run`).
    pub channel: Channel,
    /// It has been told to go already.
    going: bool,
    /// The master of its terminal, when nobody else asked for it.
    pub terminal: Option<OwnedFd>,
    /// Of no more use, and closed when the process ends: that takes no call.
    _open: (Procfs, Option<cgroups::Cgroup>, Option<NewNetwork>),
}

impl Launched {
    /// Keeps the container.
    pub(crate) fn release(self) {
        self.undo.release();
    }

    /// Keeps the container, and hands over what the caller waits by.
    pub(crate) fn keep(mut self) -> (Pid, OwnedFd) {
        self.undo.armed = false;
        (self.pid, self.pidfd)
    }

    /// Lets the container's process go: the user's program runs when this returns, and other commands may have the lock.
    pub(crate) fn start(&mut self, foreground: Option<&Foreground>) -> Result<()> {
        let notifier = Notifier {
            container: &self.undo.container,
            pid: self.pid.as_raw(),
            pidfd: self.pidfd.as_fd(),
            status: Status::Creating,
        };
        let hand_over = |listener| notifier.hand_over(listener);
        if !self.going {
            self.channel.send(&Message::Go)?;
        }
        start::wait_executed(&self.channel, foreground, hand_over)?;
        if !has_executed(self.pidfd.as_fd()).context("look for the container's process")? {
            return Err(died(self.pid));
        }
        self.undo.container.directory.mark(Stage::Started)?;
        self.undo.container.directory.unlock()?;
        start::run_poststart(&self.undo.container, foreground)
    }

    /// The socket at which the container says that it is ready, before it can.
    pub(crate) fn notify(&self, host: Option<&Path>) -> Result<Option<Notify>> {
        let directory = &self.undo.container.directory;
        host.map(|host| Notify::open(directory, host)).transpose()
    }

    /// Deletes the container, whose process has ended and been reaped. Another command may have done so already.
    pub(crate) fn delete(&mut self) -> Result<()> {
        self.undo.delete()
    }
}

/// What must be undone unless the container comes to life.
pub(crate) struct Undo {
    pub container: Container,
    /// Our child, to be reaped.
    pub child: Option<Pid>,
    /// Network devices that would go with the container's namespace.
    pub moved: Option<Moved>,
    armed: bool,
}

impl Undo {
    /// Keeps the container.
    pub(crate) fn release(mut self) {
        self.armed = false;
    }

    /// Deletes the container, whose process has ended and been reaped. Another command may have done so already.
    pub(crate) fn delete(&mut self) -> Result<()> {
        self.armed = false;
        match self.container.directory.lock() {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            locked => locked.and_then(|()| forget(&self.container)),
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Some(moved) = self.moved.take() {
            moved.give_back();
        }
        // Not on record yet, but our own child, so its pid is its own until it is reaped. Its cgroup can only go after it.
        if let (Some(child), None) = (self.child, &self.container.record.init) {
            let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
            let _ = ended(Whose::Pid(child), 0);
        }
        if let Err(error) = destroy(&self.container) {
            log::warn!("clean up after the failure: {error}");
        }
        if let (Some(child), Some(_)) = (self.child, &self.container.record.init) {
            let _ = ended(Whose::Pid(child), 0);
        }
    }
}

/// Makes a container up to the point where only `Go` is missing. With `notify` it can say that it is ready; with `foreground` a signal by
/// which somebody wants us to end undoes everything.
pub(crate) fn launch(
    settings: &Settings,
    options: &CreateOptions,
    gate: Gate,
    notify: bool,
    foreground: Option<&Foreground>,
) -> Result<Launched> {
    // Nothing exists yet: whatever is wrong with the input is found here.
    check_id(&options.id)?;
    let preserved = process::preserved(options.preserve_fds.saturating_add(process::listen_fds()));
    let Bundle {
        path: bundle,
        mut spec,
        bytes: config,
    } = config::read(options.bundle.as_deref(), options.config.as_deref())?;
    if notify {
        let directory = std::path::absolute(settings.root.join(&options.id));
        notify::extend(&mut spec, &directory.context("find the state root")?)?;
    }
    let network = NewNetwork::begin(&spec);
    let mut plan = Plan::new(&spec, &bundle)?;
    let (own_console, console) = terminal::receiver(
        plan.process.terminal.is_some(),
        matches!(gate, Gate::Start | Gate::Run { detached: true }),
        options.console_socket.as_deref(),
    )?;
    plan.process.pass_listen_fds();
    let procfs = Procfs::open()?;
    let joined = plan.namespaces.open()?;
    let (location, unit) = locate_cgroup(settings, &plan, &options.id)?;

    // From here on everything is undone on failure.
    let (mut undo, cgroup) = begin(settings, &options.id, &bundle, &plan, &spec, location)?;
    if notify {
        notify::make_directory(&undo.container.directory)?;
    }
    let listener = match gate {
        Gate::Start => Some(listen_at(&undo.container.directory)?),
        Gate::Run { .. } | Gate::Prepare => None,
    };
    let open_files = process::OpenFiles::raise(plan.mounts.len() + preserved.len())?;
    let sources = Sources::open(&plan, &procfs, &joined)?;
    let streams = Streams::look();
    if plan.process.terminal.is_none() && !plan.namespaces.is_private(libc::CLONE_NEWUSER) {
        plan.process.streams = Some(streams);
    }
    let tasks = cgroup
        .as_ref()
        .map(cgroups::Cgroup::tasks)
        .transpose()?
        .unwrap_or_default();
    let (channel, childs_channel) = Channel::pair()?;
    let recorded_first = unit.is_some()
        || plan.intel_rdt.is_some()
        || plan.namespaces.is_private(libc::CLONE_NEWUSER)
        || !plan.net_devices.is_empty();
    // Nothing is to be done when it is ready but to let it go.
    let straight = matches!(gate, Gate::Run { .. })
        && !recorded_first
        && !notify
        && !plan.has_early_hooks()
        && plan.process.terminal.is_none()
        && options.pidfd_socket.is_none()
        && annotations::pidfd_receiver(&spec).is_none()
        && options.pid_file.is_none();
    let netns = joined_netns(&plan, &joined)?;
    let location = match &unit {
        Some(unit) => Some(&unit.location),
        None => undo.container.record.cgroup.as_ref(),
    };
    let child = Child {
        plan: &mut plan,
        record: &undo.container.record,
        options,
        directory: undo.container.directory.as_fd(),
        procfs: &procfs,
        cgroup: cgroup.as_ref(),
        location,
        tasks,
        joined,
        network: network.as_ref(),
        sources,
        console,
        listener,
        channel: childs_channel,
        runtimes_end: channel.as_raw_fd(),
        preserved,
        open_files,
        recorded_first,
        straight,
        filter: None,
        by_root: sys::credentials::started_by_root(),
    };
    let (pid, pidfd) = child.spawn()?;
    undo.child = Some(pid);
    // It has more to do than we: where there is no other CPU for it, it goes first.
    let _ = sched_yield();
    open_files.restore()?;
    // What the child need not wait for.
    let directory = &undo.container.directory;
    directory.write_config(&config)?;
    if let Some(cgroup) = &cgroup {
        finish_cgroup(cgroup, &plan)?;
    }
    undo.container.record.note_stdio(&plan, &streams);
    if let Some(group) = &undo.container.record.intel_rdt {
        group.add(pid.as_raw())?;
    }
    if !plan.net_devices.is_empty() {
        undo.moved = Some(move_net_devices(&plan, netns, pid)?);
    }
    parent(
        &mut undo.container,
        (&plan, &spec),
        &procfs,
        (&channel, straight),
        unit,
        (pid, pidfd.as_fd()),
        foreground,
    )?;

    let terminal = own_console
        .map(|console| terminal::receive(console.as_fd()))
        .transpose()?;
    let receiver = annotations::pidfd_receiver(&spec);
    for path in options.pidfd_socket.as_deref().into_iter().chain(receiver) {
        terminal::send_pidfd(path, pidfd.as_fd())?;
    }
    if gate == Gate::Start {
        undo.container.directory.mark(Stage::Created)?;
    }
    if let Some(path) = &options.pid_file {
        process::write_pid_file(path, pid)?;
    }
    // Memory is never given back, and a string for the kernel is cleared as it goes: that would copy pages which the child still shares.
    std::mem::forget((spec, plan));
    Ok(Launched {
        undo,
        pid,
        pidfd,
        channel,
        going: straight,
        terminal,
        _open: (procfs, cgroup, network),
    })
}

/// Takes the id, and makes and fills the cgroup, unless systemd is going to, and the group of resctrl.
pub(crate) fn begin(
    settings: &Settings,
    id: &str,
    bundle: &Path,
    plan: &Plan,
    spec: &oci_spec::runtime::Spec,
    location: Option<cgroups::Location>,
) -> Result<(Undo, Option<cgroups::Cgroup>)> {
    let intel_rdt = plan.intel_rdt.as_ref();
    let intel_rdt = intel_rdt
        .map(|wanted| Resctrl::find()?.group(wanted, id))
        .transpose()?;
    let mut record = Record::new(spec, id, bundle, plan, location)?;
    record.intel_rdt = intel_rdt;
    let directory = Directory::create(settings, id)?;
    let mut undo = Undo {
        container: Container {
            directory,
            record,
            damaged: false,
        },
        child: None,
        moved: None,
        armed: true,
    };
    let container = &mut undo.container;
    if container.directory.is_on_disk()? {
        container.record.boot_id = Some(state::boot_id()?.to_owned());
    }
    // The journal names the cgroup and the like before they are made.
    container.directory.write_journal(&container.record)?;
    let cgroup = make_cgroup(settings, container, plan, spec)?;
    if let (Some(group), Some(wanted)) = (&container.record.intel_rdt, &plan.intel_rdt) {
        group.make(wanted)?;
    }
    Ok((undo, cgroup))
}

/// The network namespace that the container joins, if devices are to be moved there.
fn joined_netns(plan: &Plan, joined: &[Joined]) -> Result<Option<OwnedFd>> {
    let mut joined = joined.iter().filter(|_| !plan.net_devices.is_empty());
    let netns = joined.find(|namespace| namespace.flag == libc::CLONE_NEWNET);
    let copy = netns.map(|netns| netns.as_fd().try_clone_to_owned());
    copy.transpose()
        .context("linux.namespaces: keep the network namespace open")
}

/// While the child waits for `Recorded`.
fn move_net_devices(plan: &Plan, joined: Option<OwnedFd>, pid: Pid) -> Result<Moved> {
    let netns = match joined {
        Some(netns) => netns,
        None => std::fs::File::open(format!("/proc/{pid}/ns/net"))
            .context("linux.netDevices: open the container's network namespace")?
            .into(),
    };
    Moved::all(&plan.net_devices, netns.as_fd())
}

/// The runtime's side, from the birth of the child until it is ready, or if it goes `straight` on until it is told to.
fn parent(
    container: &mut Container,
    (plan, spec): (&Plan, &oci_spec::runtime::Spec),
    procfs: &Procfs,
    (channel, straight): (&Channel, bool),
    unit: Option<Unit>,
    (pid, pidfd): (Pid, BorrowedFd<'_>),
    foreground: Option<&Foreground>,
) -> Result<()> {
    if let Some(mappings) = &plan.mappings {
        mappings
            .write(procfs, pid)
            .context("linux.uidMappings: set up the user namespace")?;
    }
    // From here on it may live without us: whoever deletes the container finds it.
    container.record.init = Some(ProcessId::of(pid, pidfd)?);
    container.directory.write_record(&container.record)?;
    if let Some(unit) = unit {
        unit.take(container, pid, plan)?;
    } else if container.record.cgroup.is_none() {
        // Where no cgroup knows the process, it must be found even if state.json is damaged.
        container.directory.write_journal(&container.record)?;
    }
    if let Some(score) = plan.process.oom_score_adj {
        process::set_oom_score(procfs, &pid.to_string(), score)?;
    }
    if plan.namespaces.is_private(libc::CLONE_NEWUSER) {
        plan.process.raise_limits(pid);
    }
    if !straight {
        channel.send(&Message::Recorded)?;
    }
    // Before any hook: no hook runs for a container that cannot be.
    let filter = plan::filter(spec)?;
    let send_filter = || {
        filter
            .as_ref()
            .map_or(Ok(()), |filter| channel.send_filter(filter))
    };
    if !plan.has_early_hooks() {
        send_filter()?;
    }
    if straight {
        channel.send(&Message::Go)?;
    }
    protect::let_go();
    if straight {
        return Ok(());
    }
    loop {
        Foreground::wait_for(foreground, channel.as_fd())?;
        match channel.receive()? {
            Some(Message::Hooks) => {
                let lifetime = Lifetime {
                    container: Some(pidfd),
                    foreground,
                };
                run_runtime_hooks(&container.record, plan, pid.as_raw(), lifetime)?;
                channel.send(&Message::Continue)?;
                send_filter()?;
            }
            Some(Message::Ready) => return Ok(()),
            Some(Message::Failed(text)) => {
                let without_rights = plan
                    .namespaces
                    .is_new(libc::CLONE_NEWUSER)
                    .then(userns::without_rights);
                return Err(Error::failed(match without_rights.flatten() {
                    Some(reason) => format!("{text}: {reason}"),
                    None => text,
                }));
            }
            Some(other) => {
                return Err(Error::failed(format!(
                    "the container's process said {other:?} during set-up"
                )));
            }
            None => return Err(died(pid)),
        }
    }
}

/// Runs the hooks of the runtime's namespace, for a process that is not there yet.
pub(crate) fn run_runtime_hooks(
    record: &Record,
    plan: &Plan,
    pid: i32,
    lifetime: Lifetime<'_>,
) -> Result<()> {
    #[allow(
        deprecated,
        reason = "prestart hooks are deprecated, and used by every Docker"
    )]
    let points = [
        ("prestart", plan.hooks.prestart()),
        ("createRuntime", plan.hooks.create_runtime()),
    ];
    let state = state::for_hooks(record, pid, Status::Creating);
    for (point, hooks) in points {
        let hooks = hooks.as_deref().unwrap_or_default();
        hooks::run(point, hooks, &state, &record.bundle, lifetime)?;
    }
    Ok(())
}

/// The child is gone without a word.
fn died(pid: Pid) -> Error {
    let how = match waitpid(pid, Some(WaitPidFlag::__WALL)) {
        Ok(WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _)) => {
            "was killed (is the memory limit too small to start in?)".to_owned()
        }
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("was ended by {signal}"),
        Ok(WaitStatus::Exited(_, status)) => format!("exited with status {status}"),
        _ => "ended".to_owned(),
    };
    Error::failed(format!("the container's process {how} during set-up"))
}

/// The cgroup that systemd is going to make, and the connection to it.
pub(crate) struct Unit {
    location: cgroups::Location,
    systemd: cgroups::Systemd,
}

impl Unit {
    /// Has it made around a process, and fills it.
    pub(crate) fn take(mut self, container: &mut Container, pid: Pid, plan: &Plan) -> Result<()> {
        let annotations = container.record.annotations.iter();
        let annotations = annotations.map(|(name, value)| (name.as_str(), value.as_str()));
        self.systemd
            .start(&self.location, pid.as_raw(), &plan.resources, annotations)?;
        // On record only now that it is ours: until here systemd drops the unit with its only process.
        container.record.cgroup = Some(self.location.clone());
        container.directory.write_journal(&container.record)?;
        container.directory.write_record(&container.record)?;
        let cgroup = cgroups::Cgroup::adopt(&self.location, pid.as_raw())?;
        fill_cgroup(&cgroup, plan)?;
        finish_cgroup(&cgroup, plan)
    }
}

/// Where the container's cgroup will be: one that is ours to make, or one that is systemd's.
pub(crate) fn locate_cgroup(
    settings: &Settings,
    plan: &Plan,
    id: &str,
) -> Result<(Option<cgroups::Location>, Option<Unit>)> {
    let path = plan.cgroup_path.as_deref();
    match settings.cgroup_manager {
        CgroupManager::Disabled => Ok((None, None)),
        CgroupManager::Cgroupfs => {
            let path = Path::new(path.unwrap_or(id));
            let host = cgroups::Host::probe().context(
                "find a place for the container's cgroup (--cgroup-manager disabled does without one)",
            )?;
            Ok((Some(cgroups::Location::resolve(&host, path)?), None))
        }
        CgroupManager::Systemd => {
            let mut systemd = cgroups::Systemd::connect()?;
            let location = systemd.locate(&cgroups::Host::probe()?, path, id)?;
            Ok((None, Some(Unit { location, systemd })))
        }
    }
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
    let error = match cgroups::Cgroup::create(location) {
        Ok(cgroup) => {
            fill_cgroup(&cgroup, plan)?;
            return Ok(Some(cgroup));
        }
        Err(error) => error,
    };
    // What was there before must not be removed by our undo.
    container.record.cgroup = None;
    if !is_denied(&error) {
        return Err(error.into());
    }
    let needed_for = match needs_cgroup(spec) {
        // An ordinary user without a delegated cgroup can still have a container, if it asks for no limits.
        None if settings
            .rootless
            .unwrap_or_else(|| !userns::is_machines_root()) =>
        {
            log::debug!("no cgroup for the container: {error}");
            container.directory.write_journal(&container.record)?;
            return Ok(None);
        }
        None => "a container takes",
        Some(field) => &format!("{field} takes"),
    };
    Err(error).with_context(|| {
        format!(
            "{needed_for} a cgroup of its own, and none is delegated to this user (use --systemd-cgroup, start coracle by \
             \"systemd-run --user --scope -p Delegate=yes\", or let root chown a cgroup v2 directory with its cgroup.procs and \
             cgroup.subtree_control)"
        )
    })
}

/// Puts the limits into the cgroup, and gives it to the user who is to manage it from inside.
fn fill_cgroup(cgroup: &cgroups::Cgroup, plan: &Plan) -> Result<()> {
    cgroup.limit(&plan.resources)?;
    if !cgroup.restricts_devices_at_once() {
        restrict_devices(cgroup, plan)?;
    }
    let is_anothers = |uid: &u32| *uid != geteuid().as_raw();
    match plan.cgroup_owner().filter(is_anothers) {
        Some(uid) => match cgroup.delegate(uid) {
            // An ordinary user's other ids are not its to give to; its cgroup is its own as it is.
            Err(error) if !geteuid().is_root() && is_denied(&error) => {
                log::debug!("{error}");
                Ok(())
            }
            delegated => Ok(delegated?),
        },
        None => Ok(()),
    }
}

/// What [`fill_cgroup`] has left for the time in which the child is at work: it takes long, and must be done before anything of the
/// container's runs.
pub(crate) fn finish_cgroup(cgroup: &cgroups::Cgroup, plan: &Plan) -> Result<()> {
    match cgroup.restricts_devices_at_once() {
        true => restrict_devices(cgroup, plan),
        false => Ok(()),
    }
}

/// Device rules take the rights of the host's root. Without them a container gets no devices but those that its user may open.
fn restrict_devices(cgroup: &cgroups::Cgroup, plan: &Plan) -> Result<()> {
    if userns::is_machines_root() {
        cgroup.restrict_devices(&plan.resources)?;
    }
    Ok(())
}

fn is_denied(error: &cgroups::Error) -> bool {
    matches!(
        error.errno(),
        Some(Errno::EACCES | Errno::EPERM | Errno::EROFS)
    )
}

/// The field of the configuration for which a container cannot do without a cgroup. Device rules are none: an ordinary user's container has
/// no devices but those that the user may open.
fn needs_cgroup(spec: &oci_spec::runtime::Spec) -> Option<&'static str> {
    let linux = spec.linux().as_ref()?;
    let resources = linux.resources().clone().unwrap_or_default();
    let path = linux.cgroups_path().as_ref();
    [
        ("linux.resources.memory", resources.memory().is_some()),
        ("linux.resources.cpu", resources.cpu().is_some()),
        ("linux.resources.pids", resources.pids().is_some()),
        ("linux.resources.blockIO", resources.block_io().is_some()),
        (
            "linux.resources.hugepageLimits",
            resources
                .hugepage_limits()
                .as_ref()
                .is_some_and(|limits| !limits.is_empty()),
        ),
        ("linux.resources.network", resources.network().is_some()),
        (
            "linux.resources.rdma",
            resources
                .rdma()
                .as_ref()
                .is_some_and(|limits| !limits.is_empty()),
        ),
        (
            "linux.resources.unified",
            resources
                .unified()
                .as_ref()
                .is_some_and(|values| !values.is_empty()),
        ),
        (
            "linux.cgroupsPath",
            path.is_some_and(|path| !path.as_os_str().is_empty()),
        ),
    ]
    .into_iter()
    .find_map(|(field, asked)| asked.then_some(field))
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
        &directory.socket_address(EXEC_SOCKET)?,
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
    ) -> Result<Self> {
        let now = humantime::format_rfc3339_nanos(std::time::SystemTime::now());
        let owner = if sys::credentials::started_by_root() {
            "root".to_owned()
        } else {
            let uid = geteuid();
            // Static binaries know users by /etc/passwd only; a number is as good a name.
            nix::unistd::User::from_uid(uid)
                .ok()
                .flatten()
                .map_or_else(|| uid.to_string(), |user| user.name)
        };
        Ok(Record {
            oci_version: spec.version().clone(),
            id: id.to_owned(),
            boot_id: None,
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
            stdio: Vec::new(),
            intel_rdt: None,
            poststart: plan.hooks.poststart().clone().unwrap_or_default(),
            poststop: plan.hooks.poststop().clone().unwrap_or_default(),
        })
    }

    /// Adds what only a checkpoint asks for.
    pub(crate) fn note_stdio(&mut self, plan: &Plan, streams: &Streams) {
        if plan.process.terminal.is_none() {
            self.stdio = checkpoint::pipes_among(streams);
        }
    }
}
