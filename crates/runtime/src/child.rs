//! The container's process, from its birth to execve(2) of the user's program: [`Child::run`].
//!
//! It never clears up: it says what failed, and exits. Undoing is for the runtime's side, in `launch.rs`, where the conversation
//! between the two is drawn.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::socket::{SockFlag, accept4};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, setsid};

use crate::hooks::Lifetime;
use crate::launch::CreateOptions;
use crate::masks::Known;
use crate::mounts::{Mount, Prepared, Source, Surroundings, UserNamespaces};
use crate::namespaces::{CLONE_NEWTIME, Joined};
use crate::new_network::NewNetwork;
use crate::plan::Plan;
use crate::procfs::{Inherited, Procfs};
use crate::protocol::{Channel, Message};
use crate::rootfs::Root;
use crate::spawn::{Inside, not_entered, spawn, spawn_inside};
use crate::state::{Record, Status};
use crate::sys::credentials::started_by_root;
use crate::sys::process::Cloned;
use crate::userns::{in_initial_namespace, started_in_initial_namespace};
use crate::{
    Context, Error, Result, affinity, devices, hooks, masks, namespaces, new_network, process,
    protect, state, sys, terminal,
};

/// Host files that the runtime opens. All of them for a container with a user namespace: its root may not be allowed to walk to them,
/// and cannot make devices. And those whose ids are mapped, by user namespaces that only the runtime has rights over.
#[derive(Default)]
pub(crate) struct Sources {
    mounts: Vec<Option<Source>>,
    devices: Vec<OwnedFd>,
    /// Devices are bound instead of made.
    bind_devices: bool,
}

impl Sources {
    pub(crate) fn open(plan: &Plan, procfs: &Procfs, joined: &[Joined]) -> Result<Self> {
        let with_user_namespace = plan.namespaces.is_private(libc::CLONE_NEWUSER);
        let all = with_user_namespace && started_by_root() && crate::mounts::may_mount_here();
        let mut user_namespaces = UserNamespaces::new(plan, procfs, joined);
        let mut open = |mount: &Mount| match all || mount.is_idmapped() {
            true => mount.open_source(&mut user_namespaces),
            false => Ok(None),
        };
        let mut sources = Sources {
            mounts: plan.mounts.iter().map(&mut open).collect::<Result<_>>()?,
            bind_devices: with_user_namespace || !started_in_initial_namespace(),
            ..Self::default()
        };
        if all {
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
pub(crate) struct Child<'a> {
    pub plan: &'a mut Plan,
    pub record: &'a Record,
    pub options: &'a CreateOptions,
    pub directory: BorrowedFd<'a>,
    pub procfs: &'a Procfs,
    pub cgroup: Option<&'a cgroups::Cgroup>,
    /// Where its cgroup is, or will be once it is recorded.
    pub location: Option<&'a cgroups::Location>,
    pub tasks: Vec<OwnedFd>,
    pub joined: Vec<Joined>,
    pub network: Option<&'a NewNetwork>,
    pub sources: Sources,
    pub console: Option<OwnedFd>,
    pub listener: Option<OwnedFd>,
    pub channel: Channel,
    /// The runtime's end of the conversation, of which a new process has a copy.
    pub runtimes_end: RawFd,
    pub preserved: Vec<RawFd>,
    /// The limit to be restored once no mount is a descriptor any more.
    pub open_files: process::OpenFiles,
    /// `Recorded` comes before anything else: until then its ids are not mapped, or it is not in its cgroup.
    pub recorded_first: bool,
    /// `Go` comes instead, behind the filter if there is one, and is all that comes.
    pub straight: bool,
    /// Arrives when everything is set up.
    pub filter: Option<seccomp::Program>,
    /// Whoever made it may look behind everything.
    pub by_root: bool,
}

impl Inside for Child<'_> {
    /// What only another process can do before the child is there.
    fn enter(&mut self, _keep: Option<RawFd>) -> Result<()> {
        sys::process::prctl(libc::PR_SET_DUMPABLE, 0).context("become undumpable")?;
        namespaces::join(&self.joined)
    }

    fn run(&mut self) -> ! {
        // It has been born there.
        self.joined.clear();
        self.live(Ok(()))
    }
}

impl Child<'_> {
    /// Makes the process. In the runtime this returns; in the child it never does.
    pub(crate) fn spawn(mut self) -> Result<(Pid, OwnedFd)> {
        // The cgroup namespace's root is the cgroup that its maker is in: the child unshares it once it is inside.
        let mut late = libc::CLONE_NEWCGROUP;
        if self.late_ipc() {
            late |= libc::CLONE_NEWIPC;
        }
        if self.late_time() {
            late |= CLONE_NEWTIME;
        }
        if self.network.is_some() {
            late |= libc::CLONE_NEWNET;
        }
        let new = self.plan.namespaces.new & !late;
        let cgroup = self.cgroup;
        if self.needs_intermediate() {
            let joins_time = self.joins(CLONE_NEWTIME);
            return spawn_inside(new, cgroup, joins_time, &mut self);
        }
        match spawn(new, cgroup)? {
            Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
            Cloned::Child { entered } => self.live(entered),
        }
    }

    /// Whether it joins a namespace of this kind.
    fn joins(&self, flag: i32) -> bool {
        self.joined.iter().any(|namespace| namespace.flag == flag)
    }

    /// A pid namespace is only entered by children; new namespaces must be made inside a joined user namespace; and what a new user
    /// namespace does not own must be joined before it.
    fn needs_intermediate(&self) -> bool {
        let new_user = self.plan.namespaces.is_new(libc::CLONE_NEWUSER);
        self.joins(libc::CLONE_NEWPID)
            || self.joins(libc::CLONE_NEWUSER)
            || new_user && !self.joined.is_empty()
    }

    /// Only children of its maker enter a time namespace, unless clone3(2) makes it; and its offsets are set before anyone is inside.
    fn late_time(&self) -> bool {
        self.plan.namespaces.is_new(CLONE_NEWTIME)
            && (self.plan.time_offsets.is_some() || !sys::process::has_clone3())
    }

    /// An ipc namespace's message queue directory belongs to whoever makes the namespace: that should be the container's root.
    fn late_ipc(&self) -> bool {
        self.plan.namespaces.is_new(libc::CLONE_NEWIPC)
            && self.plan.namespaces.is_new(libc::CLONE_NEWUSER)
    }

    /// Offsets are set while nobody is inside (time_namespaces(7)): unshare(2) makes the namespace for children, and setns(2) enters it.
    fn enter_time_namespace(&self) -> Result<()> {
        const MAKING: &str = "linux.namespaces: make a time namespace";
        sys::process::unshare(CLONE_NEWTIME).context(MAKING)?;
        if let Some(offsets) = &self.plan.time_offsets {
            let written = self.procfs.write("self/timens_offsets", offsets.as_bytes());
            written.context("linux.timeOffsets: set them")?;
        }
        let made = File::open("/proc/self/ns/time_for_children").context(MAKING)?;
        sys::process::setns(made.as_fd(), CLONE_NEWTIME)
            .context("linux.namespaces: enter the time namespace")
    }

    fn fail(&self, error: &Error) -> ! {
        self.channel.send_failure(error);
        sys::process::exit_now(1)
    }

    /// The child's whole life.
    fn live(&mut self, entered: nix::Result<()>) -> ! {
        let set_up = entered.map_err(not_entered).and_then(|()| self.set_up());
        let error = match set_up {
            Ok(program) => match self.wait_for_go() {
                Ok(connection) => {
                    let answer = connection.as_ref().unwrap_or(&self.channel);
                    let error = self.start(&program, answer);
                    answer.send_failure(&error);
                    sys::process::exit_now(1)
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        self.fail(&error)
    }

    /// The numbered list: in which order things are done, and why in that order.
    fn set_up(&mut self) -> Result<CString> {
        // 1. Nothing that the caller left set must reach the container; nothing of it is traced or read from inside.
        let inherited = self.procfs.inherited();
        sys::process::reset_signals(inherited.ignored_signals);
        affinity::reset();
        protect::let_go();
        // The lock is the runtime's alone: a hook of ours that hangs must not keep others from deleting the container.
        sys::process::close(self.directory.as_raw_fd()).context("close the state directory")?;
        // 2. v1: a single thread that moves itself skips the kernel's global lock. Before any id changes: the files were opened by root.
        process::enter_cgroup(&self.tasks)?;
        // 3. With a user namespace nothing works until the ids are mapped; systemd needs the process to make a cgroup for it.
        if self.recorded_first {
            // Else there would be no end of the conversation when the runtime is killed.
            sys::process::close(self.runtimes_end).context("close the runtime's end")?;
            self.channel.expect(&Message::Recorded)?;
        }
        // It may lie where only the caller may look.
        let new_user = self.plan.namespaces.is_new(libc::CLONE_NEWUSER);
        let early = new_user
            .then(|| Root::find(&self.plan.rootfs))
            .transpose()?;
        let inherited = match self.plan.namespaces.is_private(libc::CLONE_NEWUSER) {
            // Other ids, and all rights, from here on at the latest.
            true => Inherited::default(),
            false => inherited,
        };
        let groups = process::Groups::drop_all(&self.plan.process, self.procfs, &inherited)?;
        if self.plan.namespaces.is_private(libc::CLONE_NEWUSER) {
            process::become_user(0, 0).context("become root in the user namespace")?;
        }
        if self.late_ipc() {
            sys::process::unshare(libc::CLONE_NEWIPC)
                .context("linux.namespaces: make an ipc namespace")?;
        }
        namespaces::join(&self.joined)?;
        if self.late_time() {
            self.enter_time_namespace()?;
        }
        sys::process::prctl(libc::PR_SET_DUMPABLE, 0).context("become undumpable")?;
        setsid().context("start a session")?;
        if !self.options.no_new_keyring {
            process::join_keyring(&self.options.id, &self.plan.process.labels, self.procfs)?;
        }
        // 4. In its cgroup by now, so this becomes the root of the namespace; the cgroup mounts below show it.
        if self.plan.namespaces.is_new(libc::CLONE_NEWCGROUP) {
            sys::process::unshare(libc::CLONE_NEWCGROUP)
                .context("linux.namespaces: make a cgroup namespace")?;
        }
        umask(Mode::empty());
        // 5. While the host's paths are there: every mount, detached.
        let rootfs = CString::new(self.plan.rootfs.as_os_str().as_encoded_bytes());
        let root = match (early, rootfs.unwrap_or_default()) {
            (Some(found), _) => Root::open((found.as_fd(), c""), self.plan.propagation)?,
            (None, path) => Root::open((AT_FDCWD, &*path), self.plan.propagation)?,
        };
        let pivot_last = !sys::mount::has_mount_setattr();
        let pivot_late = self.plan.has_early_hooks() || self.options.no_pivot;
        let pivot_first = !pivot_last && !pivot_late;
        let alone = pivot_first
            && !self.sources.bind_devices
            && self.plan.namespaces.is_new(libc::CLONE_NEWNS);
        let mut network = self.network;
        if network.is_none() && self.plan.namespaces.is_new(libc::CLONE_NEWNET) {
            new_network::raise()?;
        }
        let makes_now = |mount: &Mount| mount.is_file_system() && !mount.is_made_in_place();
        if !alone || self.plan.mounts.iter().any(makes_now) {
            new_network::enter(&mut network)?;
        }
        let prepared = self.prepare_mounts(alone)?;
        // 6. Hooks of this stage expect the container's files below the bundle, and moving the root instead of pivoting needs a place
        //    other than /; without either the root can be changed first, which makes everything after it cheaper. Before Linux 5.12
        //    attributes of mounts are set by way of the host's /proc, so the root is changed last.
        let place = if pivot_first {
            Path::new("/")
        } else {
            &self.plan.rootfs
        };
        root.attach(place)?;
        if pivot_first {
            root.pivot()?;
        }
        // 7. The mounts in the order given, then what stands upon them.
        let mut readonly_later = Vec::new();
        for (mount, prepared) in self.plan.mounts.iter().zip(prepared) {
            if mount.shows_network() {
                new_network::enter(&mut network)?;
            }
            let tree = mount.attach(prepared, &root)?;
            readonly_later.extend(tree.map(|tree| (mount, tree)));
        }
        new_network::enter(&mut network)?;
        let mut known = Known::look(&root, self.plan);
        self.make_devices(&root, &mut known)?;
        self.open_files.restore()?;
        if let Some(terminal) = self.plan.process.terminal {
            let console = self
                .console
                .as_ref()
                .ok_or_else(|| Error::failed("nobody to receive the terminal"))?;
            terminal.open(&root, self.plan.process.uid, console.as_fd(), true)?;
            terminal::take_control()?;
        }
        // runc makes a missing working directory; one that is there is for chdir(2) to judge, with the user's own rights.
        let cwd = &self.plan.process.cwd;
        if cwd != Path::new("/") && root.open_path(cwd, OFlag::O_PATH).err() == Some(Errno::ENOENT)
        {
            root.ensure_directory(cwd)
                .with_context(|| format!("process.cwd: create {}", cwd.display()))?;
        }
        if self.plan.has_early_hooks() {
            self.run_early_hooks()?;
            // They may have mounted something there.
            known = Known::look(&root, self.plan);
        }
        if pivot_late && !pivot_last {
            self.change_root(&root)?;
        }
        // 8. What no mount may come after.
        for (mount, tree) in &readonly_later {
            mount.make_readonly(tree)?;
        }
        drop(readonly_later);
        if self.plan.readonly {
            root.set_readonly()?;
        }
        masks::apply(&root, self.plan, known)?;
        if pivot_last {
            self.change_root(&root)?;
        }
        if let Some(propagation) = self.plan.propagation {
            Root::set_root_propagation(propagation)?;
        }
        self.name_host()?;
        for (path, value) in &self.plan.sysctls {
            let written = self.procfs.write(path, value.as_bytes());
            let since = match written {
                Err(Errno::EACCES) if !path.starts_with("sys/net/") && !in_initial_namespace() => {
                    " (in a user namespace Linux allows it since 5.19)"
                }
                _ => "",
            };
            written.with_context(|| format!("linux.sysctl: set {path} to {value:?}{since}"))?;
        }
        if let Some(domain) = self.plan.personality {
            sys::process::personality(domain).context("linux.personality: set it")?;
        }
        if let Some(policy) = &self.plan.memory_policy {
            policy.apply()?;
        }
        self.plan.process.labels.apply(self.procfs)?;
        self.plan.process.add_home(&root);
        root.leave();
        // 9. Before anything of the configuration is looked up by path again: no descriptor may lead out.
        let ours: Vec<RawFd> = self
            .listener
            .iter()
            .map(AsRawFd::as_raw_fd)
            .chain([self.channel.as_raw_fd()])
            .collect();
        process::close_others(self.procfs, &self.preserved, &ours)?;
        // 10. The user, and with it the end of most rights.
        let process = &mut self.plan.process;
        process.settle(self.plan.is_filtered, groups, &inherited)?;
        let plan = &self.plan;
        plan.process.program(self.straight, plan.is_filtered)
    }

    fn prepare_mounts(&mut self, alone: bool) -> Result<Vec<Prepared>> {
        self.sources.open_devices(self.plan)?;
        let around = Surroundings {
            scratch: &self.plan.rootfs,
            cgroup: self.location,
            namespaces: &self.plan.namespaces,
            alone,
        };
        let sources = std::mem::take(&mut self.sources.mounts);
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

    fn make_devices(&self, root: &Root, known: &mut Known) -> Result<()> {
        let Some(list) = &self.plan.devices else {
            return Ok(());
        };
        devices::create(list, &self.sources.devices, root, known)
    }

    fn run_early_hooks(&self) -> Result<()> {
        self.channel.send(&Message::Hooks)?;
        // `Recorded` was sent before anything else was, and is read where it is needed first.
        if !self.recorded_first {
            self.channel.expect(&Message::Recorded)?;
        }
        self.channel.expect(&Message::Continue)?;
        let hooks = self
            .plan
            .hooks
            .create_container()
            .as_deref()
            .unwrap_or_default();
        // A hook starts with what its kind usually has, not with what making devices needs.
        umask(Mode::from_bits_truncate(0o022));
        let run = hooks::run(
            "createContainer",
            hooks,
            &self.hook_state(Status::Creating),
            &self.record.bundle,
            Lifetime::default(),
        );
        umask(Mode::empty());
        run
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
    fn wait_for_go(&mut self) -> Result<Option<Channel>> {
        if !self.straight && !self.recorded_first && !self.plan.has_early_hooks() {
            self.channel.expect(&Message::Recorded)?;
        }
        if self.plan.is_filtered {
            self.filter = Some(self.channel.receive_filter()?);
        }
        if self.straight {
            return self.channel.expect(&Message::Go).map(|()| None);
        }
        self.channel.send(&Message::Ready)?;
        let Some(listener) = &self.listener else {
            return self.channel.expect(&Message::Go).map(|()| None);
        };
        self.let_join(true)?;
        loop {
            match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(connection) => {
                    let connection = Channel::from(sys::process::received(connection));
                    if connection.receive()? == Some(Message::Go) {
                        self.let_join(false)?;
                        return Ok(Some(connection));
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for start"),
            }
        }
    }

    /// While it waits an ordinary user may join the container (`exec`), whom the kernel refuses what is not dumpable. There is nothing of
    /// the host left in it, and who joins has the same rights.
    fn let_join(&self, may: bool) -> Result<()> {
        if !self.by_root {
            sys::process::prctl(libc::PR_SET_DUMPABLE, u64::from(may))
                .context("change who may join")?;
        }
        Ok(())
    }

    fn run_start_hooks(&self) -> Result<()> {
        let hooks = self.plan.hooks.start_container().as_deref();
        let Some(hooks) = hooks.filter(|hooks| !hooks.is_empty()) else {
            return Ok(());
        };
        hooks::run(
            "startContainer",
            hooks,
            &self.hook_state(Status::Created),
            Path::new("/"),
            Lifetime::default(),
        )
    }

    /// The last steps. Returns only if they fail.
    fn start(&self, program: &std::ffi::CStr, answer: &Channel) -> Error {
        let filter = self.filter.as_ref();
        let ready = self.run_start_hooks().and_then(|()| match filter {
            // So that whoever is to have the listener can take it.
            Some(filter) if filter.notify => self.let_join(true),
            _ => Ok(()),
        });
        match ready {
            Ok(()) => self.plan.process.exec(program, filter, answer),
            Err(error) => error,
        }
    }
}
