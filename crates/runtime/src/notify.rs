//! sd_notify(3) from inside a container: its process gets a socket at `/run/notify/notify.sock`, and what it says there about being ready
//! goes on to the service manager that has started us with `NOTIFY_SOCKET`, together with the pid that is to be watched.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, recv,
    send, sendmsg, socket,
};
use nix::sys::stat::{Mode, mkdirat, umask};
use nix::unistd::pipe2;
use oci_spec::runtime::{MountBuilder, Spec};

use crate::directory::{Directory, NOTIFY_DIRECTORY, NOTIFY_SOCKET};
use crate::{Context, Error, Result};

/// Where the container finds the directory with the socket.
const INSIDE: &str = "/run/notify";
/// A longer message is cut, as systemd does.
const MESSAGE_MAX: usize = 4096;
/// How long the service manager may take to have read everything.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(30);

/// `NOTIFY_SOCKET` of our own environment.
pub(crate) fn host() -> Option<PathBuf> {
    let path = std::env::var_os("NOTIFY_SOCKET")?;
    (!path.is_empty()).then(|| path.into())
}

/// Adds the mount and the variable to a configuration. `state` is the path of the container's state directory.
pub(crate) fn extend(spec: &mut Spec, state: &Path) -> Result<()> {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
    let mount = MountBuilder::default()
        .destination(INSIDE)
        .typ("bind")
        .source(state.join(NOTIFY_DIRECTORY))
        .options(options.map(str::to_owned).to_vec())
        .build()
        .map_err(|error| Error::failed(error.to_string()))?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.push(format!("NOTIFY_SOCKET={INSIDE}/notify.sock"));
        process.set_env(Some(env));
    }
    Ok(())
}

/// Makes the directory that is mounted into the container.
pub(crate) fn make_directory(directory: &Directory) -> Result<()> {
    let mode = Mode::from_bits_truncate(0o755);
    let previous = umask(Mode::empty());
    let made = mkdirat(directory, NOTIFY_DIRECTORY, mode);
    umask(previous);
    made.context("make the directory of the notify socket")
}

/// The container's socket, and the connection to the service manager.
#[derive(Debug)]
pub(crate) struct Notify {
    inside: OwnedFd,
    host: OwnedFd,
}

impl Notify {
    /// `host` is what `NOTIFY_SOCKET` says.
    pub(crate) fn open(directory: &Directory, host: &Path) -> Result<Self> {
        let datagrams = || {
            let flags = SockFlag::SOCK_CLOEXEC;
            socket(AddressFamily::Unix, SockType::Datagram, flags, None)
        };
        let opening = "open the notify socket";
        let inside = datagrams().context(opening)?;
        // Whoever the container's process is.
        let previous = umask(Mode::empty());
        let bound = bind(
            inside.as_raw_fd(),
            &directory.socket_address(NOTIFY_SOCKET)?,
        );
        umask(previous);
        bound.context(opening)?;
        let connecting = || format!("NOTIFY_SOCKET: connect to {}", host.display());
        let address = match host.as_os_str().as_bytes() {
            [b'@', name @ ..] => UnixAddr::new_abstract(name),
            _ => UnixAddr::new(host),
        };
        let host = datagrams().with_context(connecting)?;
        address
            .and_then(|address| connect(host.as_raw_fd(), &address))
            .with_context(connecting)?;
        Ok(Notify { inside, host })
    }

    /// Waits until the container's process `pid` is ready or has ended, and until the service manager knows.
    pub(crate) fn wait(&self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<()> {
        loop {
            let mut watched = [
                PollFd::new(self.inside.as_fd(), PollFlags::POLLIN),
                PollFd::new(pidfd, PollFlags::POLLIN),
            ];
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for the container to be ready"),
            }
            if watched[0].any() == Some(true) {
                if let Some(barrier) = self.forward(pid)? {
                    return barrier.wait();
                }
            } else if watched[1].any() == Some(true) {
                return Ok(());
            }
        }
    }

    /// Takes one message, which is there. If it says that the container is ready, the service manager is told, and its answer comes back.
    pub(crate) fn forward(&self, pid: i32) -> Result<Option<Barrier>> {
        let mut message = [0; MESSAGE_MAX];
        let received = recv(
            self.inside.as_raw_fd(),
            &mut message,
            MsgFlags::MSG_DONTWAIT,
        );
        let length = match received {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            received => received.context("read the notify socket")?,
        };
        let mut lines = message[..length].split(|byte| *byte == b'\n');
        let Some(ready) = lines.find(|line| line.starts_with(b"READY=")) else {
            return Ok(None);
        };
        let telling = "NOTIFY_SOCKET: tell that the container is ready";
        let tell = |text: &[u8]| send(self.host.as_raw_fd(), text, MsgFlags::MSG_NOSIGNAL);
        tell(&[ready, b"\n"].concat())
            .and_then(|_| tell(format!("MAINPID={pid}\n").as_bytes()))
            .context(telling)?;
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).context(telling)?;
        let fds = [theirs.as_raw_fd()];
        sendmsg::<()>(
            self.host.as_raw_fd(),
            &[IoSlice::new(b"BARRIER=1")],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .context(telling)?;
        Ok(Some(Barrier(ours)))
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }
}

/// The end of a pipe whose other end the service manager closes when it has read everything (sd_notify_barrier(3)).
#[derive(Debug)]
#[must_use]
pub(crate) struct Barrier(OwnedFd);

impl Barrier {
    fn wait(&self) -> Result<()> {
        let mut watched = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(BARRIER_TIMEOUT).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Ok(0) => log::warn!("NOTIFY_SOCKET: nobody has answered the barrier"),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for the service manager"),
        }
        Ok(())
    }
}
