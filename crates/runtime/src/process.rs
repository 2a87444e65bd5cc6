//! The user's process (runtime-spec config.md "process"): checked once, and then, in the container, everything between "the
//! surroundings are ready" and execve(2). `create`, `run` and `exec` share all of it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstat, stat, umask};
use nix::unistd::{AccessFlags, Gid, Pid, Uid, chdir, faccessat, fchown};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};

use crate::affinity::ExecAffinity;
use crate::capabilities::Sets;
use crate::lsm::Labels;
use crate::procfs::{Inherited, Procfs};
use crate::protocol::Channel;
use crate::rootfs::Root;
use crate::scheduling::Scheduling;
use crate::spawn::not_entered;
use crate::terminal::Terminal;
use crate::{Context, Error, Result, sys};

/// The largest /etc/passwd that is read for a home directory.
const PASSWD_MAX: usize = 1 << 20;

/// A process as the kernel wants it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: PathBuf,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// It keeps the caller's groups instead.
    pub keeps_groups: bool,
    pub umask: Option<u32>,
    pub capabilities: Sets,
    pub rlimits: Vec<PosixRlimit>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    pub labels: Labels,
    pub terminal: Option<Terminal>,
    pub scheduling: Scheduling,
    pub affinity: ExecAffinity,
    /// Its standard streams, where they are the runtime's and have been looked at by somebody who sees the same ids.
    pub streams: Option<Streams>,
}

/// What the standard streams of a process are, in their order, as far as they are open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams([Option<Stream>; 3]);

#[derive(Clone, Copy, Debug)]
struct Stream {
    uid: u32,
    is_null: bool,
    is_pipe: bool,
}

impl Streams {
    /// Those of this process.
    pub(crate) fn look() -> Self {
        Streams([0, 1, 2].map(|number| {
            let found = fstat(sys::process::standard_stream(number)).ok()?;
            Some(Stream {
                uid: found.st_uid,
                is_null: found.st_rdev == nix::sys::stat::makedev(1, 3),
                is_pipe: found.st_mode & libc::S_IFMT == libc::S_IFIFO,
            })
        }))
    }

    /// Whether one is a pipe, with a name or without.
    pub(crate) fn is_pipe(&self, number: RawFd) -> bool {
        self.0[number as usize].is_some_and(|stream| stream.is_pipe)
    }
}

impl Process {
    /// Checks `process`; error messages name the field.
    pub(crate) fn new(configured: &oci_spec::runtime::Process) -> Result<Self> {
        let invalid = |field: &str, text: &str| Error::invalid(format!("process.{field}: {text}"));
        let args = c_strings(
            "process.args",
            configured.args().as_deref().unwrap_or_default(),
        )?;
        if args.is_empty() {
            return Err(invalid("args", "exec args cannot be empty"));
        }
        if configured.cwd().as_os_str().is_empty() {
            return Err(invalid("cwd", "cwd property must not be empty"));
        }
        if !configured.cwd().is_absolute() {
            return Err(invalid(
                "cwd",
                &format!("cwd must be an absolute path, not {:?}", configured.cwd()),
            ));
        }
        let variables = configured.env().as_deref().unwrap_or_default();
        for (index, variable) in variables.iter().enumerate() {
            if !variable.contains('=') || variable.starts_with('=') {
                return Err(invalid(
                    &format!("env[{index}]"),
                    &format!("{variable:?} is not of the form NAME=value"),
                ));
            }
        }
        if configured
            .oom_score_adj()
            .is_some_and(|score| !(-1000..=1000).contains(&score))
        {
            return Err(invalid("oomScoreAdj", "must be between -1000 and 1000"));
        }
        let rlimits = configured.rlimits().clone().unwrap_or_default();
        for (index, limit) in rlimits.iter().enumerate() {
            if rlimits[..index]
                .iter()
                .any(|other| other.typ() == limit.typ())
            {
                return Err(invalid(
                    &format!("rlimits[{index}]"),
                    &format!("duplicated {}", limit.typ()),
                ));
            }
        }
        let user = configured.user();
        Ok(Process {
            args,
            env: c_strings("process.env", variables)?,
            cwd: configured.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            keeps_groups: false,
            umask: user.umask(),
            capabilities: Sets::new(configured.capabilities().as_ref()),
            rlimits,
            no_new_privileges: configured.no_new_privileges().unwrap_or(false),
            oom_score_adj: configured.oom_score_adj(),
            labels: Labels::new(configured),
            terminal: configured
                .terminal()
                .unwrap_or(false)
                .then(|| terminal(configured)),
            scheduling: Scheduling::new(configured)?,
            affinity: ExecAffinity::new(configured)?,
            streams: None,
        })
    }

    /// From the outside, where the rights of the host are: makes room for limits that are above the hard ones that `pid` inherits. In a
    /// user namespace it could not do that itself; a limit that nobody may raise is for [`Process::settle`] to report.
    pub(crate) fn raise_limits(&self, pid: Pid) {
        for limit in &self.rlimits {
            let resource = resource(limit.typ());
            if let Ok((soft, hard)) = sys::process::limit(resource)
                && limit.hard() > hard
            {
                let _ = sys::process::set_limit(pid, resource, soft, limit.hard());
            }
        }
    }

    /// In the container: `HOME` by its /etc/passwd, unless it is configured.
    pub(crate) fn add_home(&mut self, root: &Root) {
        if !self
            .env
            .iter()
            .any(|variable| variable.as_bytes().starts_with(b"HOME="))
        {
            self.env.push(home(root, self.uid));
        }
    }

    /// Hands the sockets of sd_listen_fds(3) on, to a process that will be the first of its pid namespace.
    pub(crate) fn pass_listen_fds(&mut self) {
        let count = listen_fds();
        if count > 0 {
            self.env.extend(CString::new(format!("LISTEN_FDS={count}")));
            self.env.push(c"LISTEN_PID=1".into());
        }
    }

    /// In the container, with all its mounts in place: becomes the configured user in the configured directory.
    /// What is left for [`Process::exec`] is only what must come after the last thing that needs privileges.
    pub(crate) fn settle(
        &mut self,
        is_filtered: bool,
        groups: Groups,
        inherited: &Inherited,
    ) -> Result<()> {
        self.scheduling.apply()?;
        self.own_standard_streams();
        let permitted = match inherited.permitted {
            Some(permitted) => permitted,
            None => sys::credentials::permitted_capabilities().context("read own capabilities")?,
        };
        self.capabilities.limit_to(permitted);
        self.capabilities.apply_bounding(inherited.bounding)?;
        // As root first, since the user may not be allowed to walk there; and as the user if root is not (a FUSE mount, NFS).
        let entered = chdir(&self.cwd);
        if !matches!(entered, Ok(()) | Err(Errno::EACCES)) {
            return entered
                .with_context(|| format!("process.cwd: chdir to {}", self.cwd.display()));
        }
        for limit in &self.rlimits {
            let (soft, hard) = (limit.soft(), limit.hard());
            sys::process::set_limit(Pid::from_raw(0), resource(limit.typ()), soft, hard)
                .with_context(|| {
                    format!("process.rlimits: set {} to {soft}:{hard}", limit.typ())
                })?;
        }
        if self.uid != 0 {
            sys::process::prctl(libc::PR_SET_KEEPCAPS, 1)
                .context("keep capabilities over the change of user")?;
        }
        groups.set(&self.groups)?;
        if (inherited.uid, inherited.gid) != (Some(self.uid), Some(self.gid)) {
            become_user(self.uid, self.gid)?;
        }
        if entered.is_err() {
            chdir(&self.cwd)
                .with_context(|| format!("process.cwd: chdir to {}", self.cwd.display()))?;
        }
        if self.cwd != Path::new("/") {
            check_inside(&self.cwd)?;
        }
        umask(Mode::from_bits_truncate(self.umask.unwrap_or(0o022)));
        if self.no_new_privileges {
            sys::process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
                .context("process.noNewPrivileges: set it")?;
        }
        if !is_filtered || self.no_new_privileges {
            return self.capabilities.apply();
        }
        // Installing a filter without no_new_privs takes CAP_SYS_ADMIN, which the change of user made ineffective.
        let all = sys::credentials::permitted_capabilities().context("read own capabilities")?;
        sys::credentials::set_capabilities(all, all, 0)
            .context("keep capabilities for the seccomp filter")
    }

    /// The last step: the seccomp filter as late as it can be, so that a profile need not allow what set-up does, and execve(2).
    /// Returns only if it fails.
    pub(crate) fn exec(
        &self,
        program: &CStr,
        filter: Option<&seccomp::Program>,
        channel: &Channel,
    ) -> Error {
        let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
            strings
                .iter()
                .map(|string| string.as_ptr())
                .chain([std::ptr::null()])
                .collect()
        };
        let (args, env) = (pointers(&self.args), pointers(&self.env));
        if let Some(filter) = filter {
            let installed = install(filter, channel);
            let installed = match self.no_new_privileges {
                true => installed,
                false => installed.and_then(|()| self.capabilities.apply()),
            };
            if let Err(error) = installed {
                return error;
            }
        }
        let errno = sys::process::execve(program, &args, &env);
        // Which nobody may have looked at before.
        if filter.is_none()
            && let Err(error) = self.look_up()
        {
            return error;
        }
        let text = errno.desc().to_lowercase();
        Error::failed(format!("exec {}: {text}", program.to_string_lossy()))
    }

    /// The file to execute. A path is left to execve(2) if the process goes `straight` on to that: [`Process::exec`] says what is wrong with
    /// it. Behind a filter it might not be able to.
    pub(crate) fn program(&self, straight: bool, is_filtered: bool) -> Result<CString> {
        let name = &self.args[0];
        match straight && !is_filtered && name.as_bytes().contains(&b'/') {
            true => Ok(name.clone()),
            false => self.look_up(),
        }
    }

    /// The file to execute, looked up as Go's `exec.LookPath` does, in whose words engines expect the errors.
    fn look_up(&self) -> Result<CString> {
        let name = &self.args[0];
        let shown = name.to_string_lossy();
        if name.as_bytes().contains(&b'/') {
            let status = stat(name.as_c_str()).map_err(|error| {
                Error::failed(format!(
                    "exec: \"{shown}\": stat {shown}: {}",
                    error.desc().to_lowercase()
                ))
            })?;
            return match executable(name, status.st_mode) {
                Ok(()) => Ok(name.clone()),
                Err(text) => Err(Error::failed(format!("exec: \"{shown}\": {text}"))),
            };
        }
        let path = self
            .env
            .iter()
            .rev()
            .find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="));
        let mut denied = false;
        for directory in path.unwrap_or_default().split(|byte| *byte == b':') {
            let directory = if directory.is_empty() {
                b"."
            } else {
                directory
            };
            let Ok(candidate) = CString::new([directory, b"/", name.as_bytes()].concat()) else {
                continue;
            };
            if let Ok(status) = stat(candidate.as_c_str()) {
                match executable(&candidate, status.st_mode) {
                    Ok(()) => return Ok(candidate),
                    Err(_) => denied = true,
                }
            }
        }
        let text = if denied && !name.is_empty() {
            "permission denied"
        } else {
            "executable file not found in $PATH"
        };
        Err(Error::failed(format!("exec: \"{shown}\": {text}")))
    }

    /// So that the user can open /dev/stdout and its like again. It may be somebody else's file on a file system without owners.
    fn own_standard_streams(&self) {
        let Streams(streams) = self.streams.unwrap_or_else(Streams::look);
        for (number, stream) in (0..).zip(streams) {
            if stream.is_some_and(|stream| stream.uid != self.uid && !stream.is_null) {
                let stream = sys::process::standard_stream(number);
                let _ = fchown(stream, Some(Uid::from_raw(self.uid)), None::<Gid>);
            }
        }
    }
}

/// Installs the filter, and hands the listener over if there is one: until then whatever it is to decide waits.
fn install(filter: &seccomp::Program, channel: &Channel) -> Result<()> {
    match sys::process::install_filter(&filter.instructions, filter.flags) {
        Ok(listener) if filter.notify => channel.hand_over(listener),
        Err(Errno::EBUSY) if filter.notify => Err(Error::failed(
            "linux.seccomp: seccomp notify unsupported: the filter around this runtime has a listener already, and Linux allows one",
        )),
        Err(error) if filter.notify => {
            Err(error).context("linux.seccomp: seccomp notify unsupported")
        }
        installed => installed
            .map(drop)
            .context("linux.seccomp: install the filter"),
    }
}

/// All ids of the process, the group's first: changing it takes a right that goes with the user.
pub(crate) fn become_user(uid: u32, gid: u32) -> Result<()> {
    sys::credentials::set_gid(gid)
        .map_err(|errno| unmapped("gid", &format!("become group {gid}"), errno))?;
    sys::credentials::set_uid(uid)
        .map_err(|errno| unmapped("uid", &format!("become user {uid}"), errno))
}

/// An id that the user namespace does not know is an invalid argument to the kernel.
fn unmapped(field: &str, what: &str, errno: Errno) -> Error {
    let hint = match (errno, field) {
        (Errno::EINVAL, "uid") => ": it is not mapped in the user namespace (linux.uidMappings)",
        (Errno::EINVAL, "gid") => ": it is not mapped in the user namespace (linux.gidMappings)",
        (Errno::EINVAL, _) => ": each must be mapped in the user namespace (linux.gidMappings)",
        _ => "",
    };
    let text = errno.desc().to_lowercase();
    Error::failed(format!("process.user.{field}: {what}: {text}{hint}"))
}

/// Whether setgroups(2) works here, or whether a user namespace around us has given it up (/proc/self/setgroups says deny).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Groups {
    /// Any mapped group can be set.
    Settable,
    /// The creator's groups stay.
    Denied,
    /// They stay because the configuration wants it, or there are none.
    Kept,
}

impl Groups {
    /// Drops all additional groups that a process does not keep, where that is allowed.
    pub(crate) fn drop_all(
        process: &Process,
        procfs: &Procfs,
        inherited: &Inherited,
    ) -> Result<Self> {
        if process.keeps_groups || inherited.no_groups && process.groups.is_empty() {
            return Ok(Groups::Kept);
        }
        match sys::credentials::set_groups(&[]) {
            Err(Errno::EPERM)
                if procfs
                    .read("self/setgroups")
                    .is_ok_and(|text| text.starts_with(b"deny")) =>
            {
                Ok(Groups::Denied)
            }
            dropped => dropped
                .map(|()| Groups::Settable)
                .context("drop additional groups"),
        }
    }

    /// Sets additional groups. Where that is denied, none are fine.
    fn set(self, groups: &[u32]) -> Result<()> {
        match self {
            // They are gone already.
            _ if groups.is_empty() => Ok(()),
            Groups::Kept => Ok(()),
            Groups::Settable => sys::credentials::set_groups(groups)
                .map_err(|errno| unmapped("additionalGids", "set them", errno)),
            Groups::Denied => Err(Error::invalid(
                "process.user.additionalGids: cannot set any additional groups in a rootless container whose user namespace denies \
                 setgroups(2): leave them out, or map a range of groups in linux.gidMappings",
            )),
        }
    }
}

/// The limit of open files, raised as far as it goes while each mount is a descriptor.
#[derive(Clone, Copy)]
pub(crate) struct OpenFiles {
    soft: u64,
    hard: u64,
    raised: bool,
}

impl OpenFiles {
    /// Raises the soft limit to the hard one, unless there is ample room for this many descriptors.
    pub(crate) fn raise(needed: usize) -> Result<Self> {
        let (soft, hard) = sys::process::limit(resource(PosixRlimitType::RlimitNofile))
            .context("read the limit of open files")?;
        let is_ample = soft >= (128 + sys::process::LEFT_MAX + 2 * needed) as u64;
        if !is_ample {
            sys::process::leave_none();
        }
        let raised = !is_ample && soft < hard;
        let limit = OpenFiles { soft, hard, raised };
        if raised {
            limit.set(hard)?;
        }
        Ok(limit)
    }

    /// Sets the limit that was there, which the user's process inherits.
    pub(crate) fn restore(&self) -> Result<()> {
        match self.raised {
            true => self.set(self.soft),
            false => Ok(()),
        }
    }

    fn set(&self, soft: u64) -> Result<()> {
        let resource = resource(PosixRlimitType::RlimitNofile);
        sys::process::set_limit(Pid::from_raw(0), resource, soft, self.hard)
            .context("set the limit of open files")
    }
}

/// Closes every descriptor but the standard streams, the preserved ones and those of `ours` that the last steps need.
pub(crate) fn close_others(procfs: &Procfs, preserved: &[RawFd], ours: &[RawFd]) -> Result<()> {
    let mut kept: Vec<RawFd> = preserved.iter().chain(ours).copied().collect();
    kept.sort_unstable();
    kept.dedup();
    let mut next = 3;
    let last = i64::from(u32::MAX) + 1;
    for fd in kept.iter().map(|fd| i64::from(*fd)).chain([last]) {
        if fd > next {
            match sys::process::close_range(next as u32, (fd - 1) as u32) {
                // A seccomp filter around us.
                Err(Errno::ENOSYS | Errno::EPERM) => return close_listed(procfs, &kept),
                closed => closed.context(CLOSING)?,
            }
        }
        next = next.max(fd + 1);
    }
    Ok(())
}

const CLOSING: &str = "close file descriptors";

/// The same by the list that /proc gives.
fn close_listed(procfs: &Procfs, kept: &[RawFd]) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let list = procfs.open_file("self/fd", flags).context(CLOSING)?;
    let mut list = nix::dir::Dir::from_fd(list).context(CLOSING)?;
    let number =
        |entry: nix::Result<nix::dir::Entry>| entry.ok()?.file_name().to_str().ok()?.parse().ok();
    let open: Vec<RawFd> = list.iter().filter_map(number).collect();
    let own = list.as_raw_fd();
    drop(list);
    let mut others = open
        .into_iter()
        .filter(|fd| *fd > 2 && *fd != own && !kept.contains(fd));
    others.try_for_each(sys::process::close).context(CLOSING)
}

/// The descriptors `3..3+count` that the caller really handed to us: holes are allowed, and what we opened ourselves is close-on-exec.
pub(crate) fn preserved(count: u32) -> Vec<RawFd> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let inherited = |fd: &RawFd| {
        let flags = fcntl(sys::process::standard_stream(*fd), FcntlArg::F_GETFD);
        flags.is_ok_and(|flags| !FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC))
    };
    let last = 3_i64 + i64::from(count);
    (3..last.min(i64::from(RawFd::MAX)) as RawFd)
        .filter(inherited)
        .collect()
}

/// How many sockets sd_listen_fds(3) has for us, from 3 on.
pub(crate) fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match number("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}

/// v1: a single thread that moves itself, by the `tasks` files that its parent opened, skips the kernel's global lock.
pub(crate) fn enter_cgroup(tasks: &[OwnedFd]) -> Result<()> {
    tasks
        .iter()
        .try_for_each(|tasks| nix::unistd::write(tasks, b"0").map(drop))
        .map_err(not_entered)
}

/// A session keyring of the container's own, with the label of its process.
pub(crate) fn join_keyring(id: &str, labels: &Labels, procfs: &Procfs) -> Result<()> {
    labels.apply_to_keys(procfs)?;
    let name = CString::new(format!("_ses.{id}")).unwrap_or_default();
    match sys::process::join_session_keyring(&name) {
        // A kernel without keyrings, or a seccomp profile around us that denies them: nothing is shared either.
        Ok(()) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(error) => Err(error).context("join a new session keyring"),
    }
}

/// Sets `oomScoreAdj` of a process (`self` or a pid); lowering it takes a right that an ordinary user does not have.
pub(crate) fn set_oom_score(procfs: &Procfs, process: &str, score: i32) -> Result<()> {
    match procfs.write(
        &format!("{process}/oom_score_adj"),
        score.to_string().as_bytes(),
    ) {
        Err(Errno::EACCES | Errno::EPERM) if !nix::unistd::geteuid().is_root() => Ok(()),
        written => written.with_context(|| format!("process.oomScoreAdj: set it to {score}")),
    }
}

/// Writes a pid file: complete or not at all, since engines read it as soon as it is there.
pub(crate) fn write_pid_file(path: &Path, pid: Pid) -> Result<()> {
    use std::io::Write;
    let writing = || format!("write pid file {}", path.display());
    let name = path
        .file_name()
        .ok_or_else(|| Error::invalid(format!("pid file {} has no name", path.display())))?;
    let temporary = path.with_file_name(format!(".{}", name.to_string_lossy()));
    let mut file = std::fs::File::create_new(&temporary).with_context(writing)?;
    let written = file
        .write_all(pid.to_string().as_bytes())
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(writing)
}

fn c_strings(field: &str, strings: &[String]) -> Result<Vec<CString>> {
    let convert = |(index, string): (usize, &String)| {
        CString::new(string.as_str())
            .map_err(|_| Error::invalid(format!("{field}[{index}]: contains a null byte")))
    };
    strings.iter().enumerate().map(convert).collect()
}

fn terminal(configured: &oci_spec::runtime::Process) -> Terminal {
    let clamp = |value: u64| value.min(u16::MAX.into()) as u16;
    let size = configured
        .console_size()
        .map(|size| (clamp(size.height()), clamp(size.width())));
    Terminal {
        size: size.filter(|size| *size != (0, 0)),
    }
}

fn executable(path: &CStr, mode: libc::mode_t) -> Result<(), &'static str> {
    if SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        return Err("is a directory: permission denied");
    }
    match faccessat(
        nix::fcntl::AT_FDCWD,
        path,
        AccessFlags::X_OK,
        AtFlags::AT_EACCESS,
    ) {
        // EPERM is a seccomp filter's word about faccessat2(2), which execve(2) does not need.
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(_) => Err("permission denied"),
    }
}

/// A working directory that came in through a leaked descriptor lies outside the root: getcwd(2) then says `(unreachable)`
/// (CVE-2024-21626).
fn check_inside(cwd: &Path) -> Result<()> {
    match nix::unistd::getcwd() {
        Ok(path) if path.as_os_str().as_bytes().starts_with(b"/") => Ok(()),
        Err(error) if error != Errno::ENOENT => Err(error).context("process.cwd: look it up again"),
        _ => Err(Error::failed(format!(
            "process.cwd: {}: current working directory is outside of container mount namespace root -- possible container breakout detected",
            cwd.display()
        ))),
    }
}

/// `HOME=` of a user by the container's own /etc/passwd: a bounded read of a regular file inside the root, `/` without one.
fn home(root: &Root, uid: u32) -> CString {
    let found = read_passwd(root)
        .and_then(|passwd| home_in(&passwd, uid))
        .unwrap_or_else(|| b"/".to_vec());
    CString::new([b"HOME=".to_vec(), found].concat()).unwrap_or_else(|_| c"HOME=/".into())
}

fn read_passwd(root: &Root) -> Option<Vec<u8>> {
    let file = root
        .open_path(
            Path::new("/etc/passwd"),
            OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
        )
        .ok()?;
    let status = fstat(&file).ok()?;
    if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return None;
    }
    let mut contents = Vec::new();
    let mut buffer = [0; 4096];
    while contents.len() < PASSWD_MAX {
        match nix::unistd::read(&file, &mut buffer).ok()? {
            0 => break,
            length => contents.extend_from_slice(&buffer[..length]),
        }
        if contents.len() as i64 == status.st_size {
            break;
        }
    }
    sys::process::leave(file);
    Some(contents)
}

fn home_in(passwd: &[u8], uid: u32) -> Option<Vec<u8>> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<_> = line.split(|byte| *byte == b':').collect();
        let matches = std::str::from_utf8(fields.get(2)?).ok()?.parse() == Ok(uid);
        matches
            .then(|| fields.get(5).map(|home| home.to_vec()))
            .flatten()
            .filter(|home| !home.is_empty())
    })
}

/// The kernel's number of a resource limit.
#[allow(clippy::unnecessary_cast, reason = "musl's constants are signed")]
fn resource(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType::*;
    let number = match kind {
        RlimitCpu => libc::RLIMIT_CPU,
        RlimitFsize => libc::RLIMIT_FSIZE,
        RlimitData => libc::RLIMIT_DATA,
        RlimitStack => libc::RLIMIT_STACK,
        RlimitCore => libc::RLIMIT_CORE,
        RlimitRss => libc::RLIMIT_RSS,
        RlimitNproc => libc::RLIMIT_NPROC,
        RlimitNofile => libc::RLIMIT_NOFILE,
        RlimitMemlock => libc::RLIMIT_MEMLOCK,
        RlimitAs => libc::RLIMIT_AS,
        RlimitLocks => libc::RLIMIT_LOCKS,
        RlimitSigpending => libc::RLIMIT_SIGPENDING,
        RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        RlimitNice => libc::RLIMIT_NICE,
        RlimitRtprio => libc::RLIMIT_RTPRIO,
        RlimitRttime => libc::RLIMIT_RTTIME,
    };
    number as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn process(change: impl FnOnce(&mut serde_json::Value)) -> Result<Process> {
        let mut json = json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "env": ["PATH=/bin"] });
        change(&mut json);
        Process::new(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn errors_name_the_field() {
        let error = |change: fn(&mut serde_json::Value)| process(change).unwrap_err().to_string();
        assert!(error(|p| p["args"] = json!([])).starts_with("process.args: "));
        assert!(error(|p| p["args"] = json!(["a\0"])).starts_with("process.args[0]: "));
        assert!(error(|p| p["cwd"] = json!("tmp")).starts_with("process.cwd: "));
        assert!(error(|p| p["env"] = json!(["A=1", "B"])).starts_with("process.env[1]: "));
        assert!(error(|p| p["oomScoreAdj"] = json!(1001)).starts_with("process.oomScoreAdj: "));
        let limit = json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 });
        assert!(
            process(|p| p["rlimits"] = json!([limit, limit]))
                .unwrap_err()
                .to_string()
                .starts_with("process.rlimits[1]: ")
        );
    }

    #[test]
    fn homes() {
        let passwd =
            b"root:x:0:0::/root:/bin/sh\nbroken\nwww:x:33:33::/var/www:\nnone:x:44:44:::\n";
        assert_eq!(home_in(passwd, 33).unwrap(), b"/var/www");
        assert_eq!(home_in(passwd, 44), None);
        assert_eq!(home_in(passwd, 1), None);
    }

    #[test]
    fn look_up_in_gos_words() {
        let error = |name: &str| {
            process(|p| p["args"] = json!([name]))
                .unwrap()
                .look_up()
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error("no-such-thing"),
            "exec: \"no-such-thing\": executable file not found in $PATH"
        );
        assert_eq!(
            error("/no/thing"),
            "exec: \"/no/thing\": stat /no/thing: no such file or directory"
        );
        assert_eq!(
            error("/etc"),
            "exec: \"/etc\": is a directory: permission denied"
        );
        assert_eq!(
            error("/etc/passwd"),
            "exec: \"/etc/passwd\": permission denied"
        );
    }
}
