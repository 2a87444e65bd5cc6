//! `exec`: one more process in a running container.
//!
//! A process in between, on cgroup v2 born in the container's cgroup, joins its namespaces by one setns(2) on a pidfd of its init, and does
//! all that is to be done: terminal, labels, descriptors, user. Only then it clones the one that becomes a member of the pid namespace, so
//! what is to be seen in the container from its first instant has nothing of the host any more (CVE-2016-9962).

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::unistd::{Pid, geteuid, setsid};
use oci_spec::runtime::Spec;

use crate::agent::Notifier;
use crate::foreground::{Foreground, fit_terminal};
use crate::lsm::Labels;
use crate::memory_policy::MemoryPolicy;
use crate::namespaces::{CLONE_NEWTIME, Namespaces};
use crate::process::{self, Process};
use crate::procfs::{Inherited, Procfs};
use crate::protocol::{Channel, Message};
use crate::rootfs::Root;
use crate::spawn::{Inside, spawn_inside};
use crate::state::{Container, Status};
use crate::sys::wait::{Whose, ended, has_executed};
use crate::{
    Context, Error, Kind, Result, Settings, annotations, capabilities, config, plan, protect,
    start, sys, terminal,
};

/// The options of [`exec`].
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// The container's id.
    pub id: String,
    /// The command and its arguments, which need not be text; those of `process` when this is empty.
    pub args: Vec<OsString>,
    /// The whole process, as a `process.json` has it (`--process`); it takes the place of what the other flags say about it.
    pub process: Option<oci_spec::runtime::Process>,
    /// A unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// A unix socket that receives a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// Where to write the pid of the process.
    pub pid_file: Option<PathBuf>,
    /// Working directory inside the container.
    pub cwd: Option<PathBuf>,
    /// `NAME=value`, added to the container's environment.
    pub env: Vec<String>,
    /// Allocate a terminal.
    pub tty: bool,
    /// `uid[:gid]`.
    pub user: Option<String>,
    /// Additional group ids.
    pub additional_gids: Vec<u32>,
    /// Do not wait for the process.
    pub detach: bool,
    /// SELinux label of the process.
    pub process_label: Option<String>,
    /// AppArmor profile of the process.
    pub apparmor: Option<String>,
    /// Set no_new_privs.
    pub no_new_privs: bool,
    /// Capabilities added to the container's.
    pub capabilities: Vec<String>,
    /// How many file descriptors from 3 on the process gets (besides `LISTEN_FDS`).
    pub preserve_fds: u32,
    /// `[controller,..:]path` sub-cgroups below the container's cgroup.
    pub cgroups: Vec<String>,
    /// Exec into a paused container: the process stays frozen until the container is resumed.
    pub ignore_paused: bool,
}

/// Runs a process in a container. Returns its exit status (128 + signal when a signal ended it), 0 when detached.
pub fn exec(settings: &Settings, options: &ExecOptions) -> Result<i32> {
    protect::ensure()?;
    let preserved = process::preserved(options.preserve_fds.saturating_add(process::listen_fds()));
    let container = Container::open(settings, &options.id)?;
    let stopped = || Error::new(Kind::WrongStatus, "cannot exec in a stopped container");
    let init = container.record.open_init()?.ok_or_else(stopped)?;
    if container.is_creating()? {
        return Err(stopped());
    }
    if !options.ignore_paused && container.record.is_frozen()? {
        let text = "cannot exec in a paused container (use --ignore-paused to override)";
        return Err(Error::new(Kind::WrongStatus, text));
    }
    let spec = config::parse_spec(&container.directory.read_config()?)?;
    let linux = config::linux(&spec);
    let mut process = wanted(&spec, options)?;
    process.labels.check()?;
    process.pass_listen_fds();
    let (own_console, console) = terminal::receiver(
        process.terminal.is_some(),
        options.detach,
        options.console_socket.as_deref(),
    )?;

    let procfs = Procfs::open()?;
    let cgroup = cgroup_to_enter(&container, options)?;
    let foreground = (!options.detach).then(Foreground::prepare).transpose()?;
    let (channel, childs_channel) = Channel::pair()?;
    // Nothing is to be done when it is ready but to let it go.
    let straight = process.terminal.is_none()
        && container.record.intel_rdt.is_none()
        && options.pidfd_socket.is_none()
        && options.pid_file.is_none();
    let filter = plan::filter(&spec)?;
    let mut child = Child {
        id: &options.id,
        namespaces: Namespaces::of(&linux)?,
        shows_listener: filter.as_ref().is_some_and(|filter| filter.notify) && !geteuid().is_root(),
        filter,
        personality: linux
            .personality()
            .as_ref()
            .map(plan::personality)
            .transpose()?,
        memory_policy: plan::memory_policy(&linux)?,
        tasks: cgroup
            .as_ref()
            .map(cgroups::Cgroup::tasks)
            .transpose()?
            .unwrap_or_default(),
        process,
        program: CString::default(),
        init: init.as_fd(),
        procfs: &procfs,
        console,
        channel: childs_channel,
        preserved,
        attach_to: None,
        straight,
    };
    child.process.affinity.apply_initial()?;
    let first = cgroup.as_ref();
    let (pid, pidfd) = match child.spawn(first) {
        // From a login session, say, an ordinary user cannot get into their own units, but systemd can put them there.
        Err(error)
            if error.kind() == Kind::Denied && first.is_some_and(|first| first.is_unit()) =>
        {
            child.attach_to = first;
            child.spawn(None)?
        }
        Err(error) => match init_cgroup(&container, options, first)? {
            Some(inner) => child.spawn(Some(&inner))?,
            None => return Err(error),
        },
        spawned => spawned?,
    };
    let Child {
        channel: childs_channel,
        process,
        program,
        namespaces,
        filter,
        ..
    } = child;
    // With our copy closed, the end of the child is the end of the conversation.
    drop(childs_channel);
    protect::let_go();

    let mut running = Running {
        pid,
        pidfd,
        armed: true,
    };
    if let Some(group) = &container.record.intel_rdt {
        group.add(pid.as_raw())?;
    }
    if !straight {
        Foreground::wait_for(foreground.as_ref(), channel.as_fd())?;
        channel.expect(&Message::Ready)?;
    }
    let terminal = own_console
        .map(|console| terminal::receive(console.as_fd()))
        .transpose()?;
    terminal
        .iter()
        .for_each(|master| fit_terminal(master.as_fd()));
    if let Some(path) = &options.pidfd_socket {
        terminal::send_pidfd(path, running.pidfd.as_fd())?;
    }
    if let Some(path) = &options.pid_file {
        process::write_pid_file(path, pid)?;
    }
    let notifier = Notifier {
        container: &container,
        pid: pid.as_raw(),
        pidfd: running.pidfd.as_fd(),
        status: Status::Running,
    };
    let hand_over = |listener| notifier.hand_over(listener);
    if !straight {
        channel.send(&Message::Go)?;
    }
    start::wait_executed(&channel, foreground.as_ref(), hand_over)?;
    // Else its status says what became of it.
    let has_executed = || has_executed(running.pidfd.as_fd()).context("look for the process");
    if foreground.is_none() && !has_executed()? {
        return Err(Error::failed(
            "the process ended before it executed its program",
        ));
    }
    running.armed = false;
    let status = match foreground {
        Some(foreground) => foreground.supervise(pid, running.pidfd.as_fd(), terminal, false)?,
        None => 0,
    };
    // Nothing comes after this: what is open goes with the process, and its memory.
    std::mem::forget((container, init, procfs, cgroup, channel, running));
    std::mem::forget((process, program, namespaces, filter));
    std::mem::forget(spec);
    Ok(status)
}

/// A process that ends with us unless it gets as far as the user's program.
struct Running {
    pid: Pid,
    pidfd: OwnedFd,
    armed: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.armed {
            let _ = sys::process::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
            let _ = ended(Whose::Pid(self.pid), 0);
        }
    }
}

/// The process that is asked for: a whole one, or the container's own with what the flags change.
fn wanted(spec: &Spec, options: &ExecOptions) -> Result<Process> {
    let mut process = match &options.process {
        Some(process) => whole(spec, process.clone()),
        None => changed(spec, options),
    }?;
    process.keeps_groups = annotations::keeps_groups(spec);
    // Checked as text, and executed as they were given: no argument of a command line has a null byte.
    if !options.args.is_empty() {
        let given = options.args.iter();
        process.args = given.flat_map(|arg| CString::new(arg.as_bytes())).collect();
    }
    Ok(process)
}

fn whole(spec: &Spec, mut process: oci_spec::runtime::Process) -> Result<Process> {
    if process.exec_cpu_affinity().is_none() {
        let configured = spec.process().as_ref();
        process.set_exec_cpu_affinity(
            configured.and_then(|process| process.exec_cpu_affinity().clone()),
        );
    }
    let mut process = Process::new(&process)?;
    // As other runtimes do it: who says nothing of a label is not set free.
    if let Some(configured) = spec.process() {
        process.labels.fill_from(Labels::new(configured));
    }
    Ok(process)
}

fn changed(spec: &Spec, options: &ExecOptions) -> Result<Process> {
    let mut configured = spec
        .process()
        .clone()
        .ok_or_else(|| Error::invalid("process: missing in the container's configuration"))?;
    let text = options.args.iter();
    let text = text.map(|arg| arg.to_string_lossy().into_owned()).collect();
    configured
        .set_args(Some(text))
        .set_terminal(Some(options.tty))
        .set_console_size(None);
    let mut env = configured.env().clone().unwrap_or_default();
    env.extend(options.env.iter().cloned());
    configured.set_env(Some(env));
    if let Some(cwd) = &options.cwd {
        configured.set_cwd(cwd.clone());
    }
    if let Some(label) = &options.process_label {
        configured.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &options.apparmor {
        configured.set_apparmor_profile(Some(profile.clone()));
    }
    if options.no_new_privs {
        configured.set_no_new_privileges(Some(true));
    }
    let mut process = Process::new(&configured)?;
    if let Some(user) = &options.user {
        let (uid, gid) = parse_user(user)?;
        process.uid = uid;
        process.gid = gid.unwrap_or(process.gid);
    }
    process.groups.extend(&options.additional_gids);
    for name in &options.capabilities {
        match capabilities::number(name) {
            Some(number) => process.capabilities.add(number),
            None => return Err(Error::invalid(format!("unknown capability {name:?}"))),
        }
    }
    Ok(process)
}

/// `uid[:gid]`: decimal numbers that fit, and nothing else (CVE-2026-30892).
pub(crate) fn parse_user(user: &str) -> Result<(u32, Option<u32>)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // The last number means "no change" to the kernel.
        let number = text
            .parse::<u32>()
            .ok()
            .filter(|number| digits && *number != u32::MAX);
        number.ok_or_else(|| {
            Error::invalid(format!(
                "invalid user {user:?}: expected uid[:gid], in numbers"
            ))
        })
    };
    match user.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(user)?, None)),
    }
}

/// The container's cgroup, or what each `--cgroup [controller,..:]path` names below it. It must be there in every hierarchy: where it is
/// not, the process would stay out of the container's limits.
fn cgroup_to_enter(
    container: &Container,
    options: &ExecOptions,
) -> Result<Option<cgroups::Cgroup>> {
    if options.cgroups.is_empty() {
        return container.cgroup();
    }
    let top = container.required_cgroup()?;
    let mut location = top.location().clone();
    for argument in &options.cgroups {
        let (controllers, path) = match argument.rsplit_once(':') {
            Some((controllers, path)) => (controllers.split(',').collect(), path),
            None => (Vec::new(), argument.as_str()),
        };
        location = location.below(&controllers, std::path::Path::new(path))?;
    }
    let cgroup = cgroups::Cgroup::open(&location)?;
    match cgroup.missing() {
        Some(path) => {
            let text = format!("sub cgroup {} does not exist", path.display());
            Err(Error::invalid(text))
        }
        None => Ok(Some(cgroup)),
    }
}

/// Where the container's process lives, for one that cannot be made in `refused`: a container that hands controllers to sub-cgroups of
/// its own, as systemd does, has moved all its processes there.
fn init_cgroup(
    container: &Container,
    options: &ExecOptions,
    refused: Option<&cgroups::Cgroup>,
) -> Result<Option<cgroups::Cgroup>> {
    let record = &container.record;
    let (Some(refused), Some(location), Some(init)) = (refused, &record.cgroup, &record.init)
    else {
        return Ok(None);
    };
    if !options.cgroups.is_empty() || !refused.is_inner()? {
        return Ok(None);
    }
    let inner = location.of_member(init.pid)?;
    Ok(inner.as_ref().map(cgroups::Cgroup::open).transpose()?)
}

/// Everything that the new process needs of what the runtime has prepared.
struct Child<'a> {
    id: &'a str,
    namespaces: Namespaces,
    filter: Option<seccomp::Program>,
    personality: Option<u64>,
    memory_policy: Option<MemoryPolicy>,
    tasks: Vec<OwnedFd>,
    process: Process,
    /// What is executed, once `enter` has found it.
    program: CString,
    init: BorrowedFd<'a>,
    procfs: &'a Procfs,
    console: Option<OwnedFd>,
    channel: Channel,
    preserved: Vec<RawFd>,
    /// The cgroup into which systemd is to move it.
    attach_to: Option<&'a cgroups::Cgroup>,
    /// It need not say that it is ready, and wait.
    straight: bool,
    /// Somebody is to take the listener of its filter who has no right over what is not dumpable.
    shows_listener: bool,
}

impl Child<'_> {
    /// Makes the process. In the runtime this returns; in the child it never does.
    fn spawn(&mut self, cgroup: Option<&cgroups::Cgroup>) -> Result<(Pid, OwnedFd)> {
        let joins_time = self.namespaces.is_private(CLONE_NEWTIME);
        spawn_inside(0, cgroup, joins_time, self)
    }
}

impl Inside for Child<'_> {
    /// In the process in between.
    fn enter(&mut self, keep: Option<RawFd>) -> Result<()> {
        let inherited = self.procfs.inherited();
        sys::process::reset_signals(inherited.ignored_signals);
        sys::process::prctl(libc::PR_SET_DUMPABLE, 0).context("become undumpable")?;
        process::enter_cgroup(&self.tasks)?;
        if let Some(unit) = self.attach_to {
            unit.add_by_systemd(Pid::this().as_raw())?;
        }
        self.process.affinity.apply_final()?;
        if let Some(score) = self.process.oom_score_adj {
            process::set_oom_score(self.procfs, "self", score)?;
        }
        sys::process::setns(self.init, self.namespaces.all())
            .context("join the container's namespaces")?;
        let inherited = match self.namespaces.is_private(libc::CLONE_NEWUSER) {
            // Other ids, and all rights.
            true => Inherited::default(),
            false => inherited,
        };
        let groups = process::Groups::drop_all(&self.process, self.procfs, &inherited)?;
        if self.namespaces.is_private(libc::CLONE_NEWUSER) {
            process::become_user(0, 0).context("become root in the user namespace")?;
        }
        process::join_keyring(self.id, &self.process.labels, self.procfs)?;
        let root = Root::current()?;
        if let (Some(terminal), Some(console)) = (self.process.terminal, &self.console) {
            terminal.open(&root, self.process.uid, console.as_fd(), false)?;
        }
        if let Some(domain) = self.personality {
            sys::process::personality(domain).context("linux.personality: set it")?;
        }
        if let Some(policy) = &self.memory_policy {
            policy.apply()?;
        }
        self.process.labels.apply(self.procfs)?;
        self.process.add_home(&root);
        root.leave();
        let ours: Vec<RawFd> = keep.into_iter().chain([self.channel.as_raw_fd()]).collect();
        process::close_others(self.procfs, &self.preserved, &ours)?;
        self.process
            .settle(self.filter.is_some(), groups, &inherited)?;
        self.program = self.process.program(self.straight, self.filter.is_some())?;
        Ok(())
    }

    /// In the container: what only the process itself can do.
    fn run(&mut self) -> ! {
        let ready = setsid().context("start a session").and_then(|_| {
            if self.process.terminal.is_some() {
                terminal::take_control()?;
            }
            if !self.straight {
                self.channel.send(&Message::Ready)?;
                self.channel.expect(&Message::Go)?;
            }
            // There is nothing of the host left in here.
            if self.shows_listener {
                sys::process::prctl(libc::PR_SET_DUMPABLE, 1).context("become dumpable")?;
            }
            Ok(())
        });
        let error = match ready {
            Ok(()) => self
                .process
                .exec(&self.program, self.filter.as_ref(), &self.channel),
            Err(error) => error,
        };
        self.channel.send_failure(&error);
        sys::process::exit_now(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        assert_eq!(parse_user("0").unwrap(), (0, None));
        assert_eq!(parse_user("1000:33").unwrap(), (1000, Some(33)));
        for bad in [
            "",
            ":",
            "1:",
            ":1",
            "root",
            "-1",
            "+1",
            "1:2:3",
            "4294967295",
            "4294967296",
            " 1",
            "1 ",
            "0x1",
            "1:-1",
        ] {
            assert!(parse_user(bad).is_err(), "{bad}");
        }
    }
}
