//! criu(8) at work: `criu swrk` at the other end of a socket, one process for one checkpoint or restore.

use std::convert::Infallible;
use std::ffi::CStr;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, send, socketpair,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, execvp, geteuid};
use prost::Message as _;

use super::rpc::{Features, Kind, Notify, Request, Response, Version};
use crate::protocol::{Channel, Message};
use crate::spawn::{not_entered, spawn};
use crate::sys::process::{Cloned, exit_now, place, received, reset_signals};
use crate::userns::in_initial_namespace;
use crate::{Context, Error, Result, process};

/// The socket, as the arguments of criu tell it, and behind it what else it is handed.
const SOCKET: RawFd = 3;
const HANDING: &str = "hand descriptors to criu";
/// The first descriptor that [`Criu::start`] hands over.
pub(super) const HANDED: i32 = SOCKET + 1;
/// What is used has been there since 3.15 (November 2020): pid namespaces from outside, and `status-ready`.
const OLDEST: Version = Version {
    major: 3,
    minor: 15,
};
/// criu's own limit for a message is a tenth of this.
const MESSAGE_MAX: usize = 64 << 10;

/// Refuses whoever has not root's rights on the machine: criu's own words for that are in no log.
pub(super) fn check_rights() -> Result<()> {
    match geteuid().is_root() && in_initial_namespace() {
        true => Ok(()),
        false => Err(Error::failed(
            "it takes root, as criu does: not an ordinary user, nor root of a user namespace",
        )),
    }
}

/// Dropped, it is let go: criu then undoes what it was doing, and ends.
pub(super) struct Criu {
    pid: Pid,
    socket: Option<OwnedFd>,
    version: Version,
}

/// What criu has to be told before it goes on: the point that it has come to, and the descriptor that it passes with that.
pub(super) type Notified<'a> = &'a mut dyn FnMut(&Notify, Option<OwnedFd>) -> Result<()>;

impl Criu {
    /// Starts it and asks for its version, for a checkpoint.
    pub(super) fn start() -> Result<Self> {
        Self::start_with(0, None, &[], || Ok(()))
    }

    /// Starts it in new namespaces (`CLONE_NEW*`) and in `cgroup`, with `handed` as its descriptors from [`HANDED`] on. `before` is run
    /// there first.
    pub(super) fn start_with(
        namespaces: i32,
        cgroup: Option<&cgroups::Cgroup>,
        handed: &[BorrowedFd<'_>],
        before: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let (socket, criu_end) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .context("make a socket pair for criu")?;
        let (report, report_end) = Channel::pair()?;
        // Out of the way of each other, and of the places where they go.
        let free = HANDED + handed.len() as RawFd;
        let aside = |fd: BorrowedFd<'_>| {
            fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(free))
                .map(received)
                .context(HANDING)
        };
        let all = [criu_end.as_fd()].into_iter().chain(handed.iter().copied());
        let all: Vec<OwnedFd> = all.map(aside).collect::<Result<_>>()?;
        let childs_report = Channel::from(aside(report_end.as_fd())?);
        // Only the other side holds them then, whose end is to be seen.
        drop((criu_end, report_end));
        let tasks = cgroup.map(cgroups::Cgroup::tasks).transpose()?;
        match spawn(namespaces, cgroup)? {
            Cloned::Child { entered } => {
                reset_signals(None);
                let begun = entered
                    .map_err(not_entered)
                    .and_then(|()| process::enter_cgroup(&tasks.unwrap_or_default()))
                    .and_then(|()| before());
                let Err(error) = begun.and_then(|()| execute(&all));
                childs_report.send_failure(&error);
                exit_now(1)
            }
            Cloned::Parent { pid, .. } => {
                drop((all, childs_report));
                let mut criu = Criu {
                    pid,
                    socket: Some(socket),
                    version: OLDEST,
                };
                if let Some(Message::Failed(text)) = report.receive()? {
                    return Err(Error::failed(text));
                }
                criu.check_version()?;
                Ok(criu)
            }
        }
    }

    /// Its pid, as long as it is not finished.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    fn check_version(&mut self) -> Result<()> {
        let request = Request {
            kind: Kind::Version as i32,
            keep_open: true,
            ..Request::default()
        };
        let answer = self
            .ask(&request, &mut |_, _| Ok(()))
            .context("ask for the version of criu")?;
        self.version = answer.version.unwrap_or(Version { major: 0, minor: 0 });
        self.needs(OLDEST, "checkpoint and restore")
    }

    /// Refuses a version in which `what` is not there yet.
    pub(super) fn needs(&self, version: Version, what: &str) -> Result<()> {
        if self.version >= version {
            return Ok(());
        }
        Err(Error::failed(format!(
            "criu {}.{} is too old: {what} takes {}.{}",
            self.version.major, self.version.minor, version.major, version.minor
        )))
    }

    /// Refuses a kernel, or a criu, without one of these.
    pub(super) fn needs_features(&self, wanted: Features) -> Result<()> {
        if wanted == Features::default() {
            return Ok(());
        }
        let request = Request {
            kind: Kind::FeatureCheck as i32,
            features: Some(wanted),
            keep_open: true,
            ..Request::default()
        };
        let answer = self
            .ask(&request, &mut |_, _| Ok(()))
            .context("ask for the features of criu")?;
        let has = answer.features.unwrap_or_default();
        for (wanted, has, what) in [
            (
                wanted.mem_track,
                has.mem_track,
                "--pre-dump takes a kernel that tracks changes of memory (CONFIG_MEM_SOFT_DIRTY)",
            ),
            (
                wanted.lazy_pages,
                has.lazy_pages,
                "--lazy-pages takes a kernel with userfaultfd(2) that root may use",
            ),
        ] {
            if wanted && !has {
                return Err(Error::failed(format!("criu is missing features: {what}")));
            }
        }
        Ok(())
    }

    /// Has something done, and calls `notified` for every point on the way. An answer may be a refusal.
    pub(super) fn ask(&self, request: &Request, notified: Notified<'_>) -> Result<Response> {
        self.send(request)?;
        loop {
            let (answer, fd) = self.receive()?;
            if answer.kind() != Kind::Notify || !answer.success {
                return Ok(answer);
            }
            let notify = answer.notify.unwrap_or_default();
            log::debug!("criu: {}", notify.script);
            notified(&notify, fd)?;
            self.send(&Request {
                kind: Kind::Notify as i32,
                notify_success: true,
                ..Request::default()
            })?;
        }
    }

    fn socket(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn send(&self, request: &Request) -> Result<()> {
        let bytes = request.encode_to_vec();
        loop {
            match send(self.socket(), &bytes, MsgFlags::MSG_NOSIGNAL) {
                // That it is gone shows when its answer is waited for.
                Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("talk to criu"),
            }
        }
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        const RECEIVING: &str = "listen to criu";
        let mut bytes = vec![0; MESSAGE_MAX];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let (length, fd) = loop {
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.socket(), &mut buffers, Some(&mut space), flags) {
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(error) => return Err(error).context(RECEIVING),
                Ok(message) => {
                    let mut parts = message.cmsgs().context(RECEIVING)?;
                    let fd = parts.find_map(|part| match part {
                        ControlMessageOwned::ScmRights(fds) => fds.first().copied().map(received),
                        _ => None,
                    });
                    break (message.bytes, fd);
                }
            }
        };
        if length == 0 {
            return Err(Error::failed("criu ended without an answer"));
        }
        let answer = Response::decode(&bytes[..length])
            .map_err(|error| Error::failed(format!("{RECEIVING}: {error}")))?;
        Ok((answer, fd))
    }

    /// Waits for its end. One that was told to do several things in a row ends with an error when nothing comes any more.
    pub(super) fn finish(mut self) -> Result<WaitStatus> {
        self.socket = None;
        wait(self.pid)
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        // Killed, it would leave processes stopped in the middle of something.
        if self.socket.take().is_some() {
            let _ = wait(self.pid);
        }
    }
}

fn wait(pid: Pid) -> Result<WaitStatus> {
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)) {
            Err(Errno::EINTR) => {}
            status => return status.context("wait for criu"),
        }
    }
}

/// Puts descriptors from [`SOCKET`] on, and becomes criu.
fn execute(fds: &[OwnedFd]) -> Result<Infallible> {
    for (fd, number) in fds.iter().zip(SOCKET..) {
        place(fd.as_fd(), number).context(HANDING)?;
    }
    let program: &CStr = c"criu";
    match execvp(program, &[program, c"swrk", c"3"]) {
        Err(Errno::ENOENT) => Err(Error::failed(
            "criu is not installed: there is no program \"criu\" in $PATH",
        )),
        executed => executed.context("execute criu"),
    }
}
