//! The container's terminal: a pty of its own devpts, whose master goes to whoever asked for it.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    connect, recvmsg, sendmsg, socket, socketpair,
};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown};

use crate::rootfs::Root;
use crate::sys::process::{received, standard_stream};
use crate::sys::{self, mount, pty};
use crate::{Context, Error, Result, devices};

/// A terminal that a process wants.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Terminal {
    /// `process.consoleSize`: rows and columns.
    pub size: Option<(u16, u16)>,
}

impl Terminal {
    /// In the container: opens a pty, sends its master over `receiver`, and makes the slave our standard streams. With `console` it is
    /// mounted on /dev/console too.
    pub(crate) fn open(
        self,
        root: &Root,
        owner: u32,
        receiver: BorrowedFd<'_>,
        console: bool,
    ) -> Result<()> {
        let opening = "process.terminal: open a pseudoterminal";
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
        // By way of the devpts itself, not of /dev/ptmx, and only if it is the real one (CVE-2025-52565).
        let master = root
            .open_ordinary(Path::new("/dev/pts/ptmx"), flags)
            .context(opening)?;
        let is_devpts = fstatfs(&master).context(opening)?.filesystem_type() == DEVPTS_SUPER_MAGIC;
        if !is_devpts || !devices::is_character_device(&master, 5, 2).context(opening)? {
            return Err(Error::failed(format!(
                "{opening}: /dev/pts/ptmx is not the multiplexer of a devpts"
            )));
        }
        let slave = pty::open_peer(master.as_fd()).context(opening)?;
        fchown(&slave, Some(Uid::from_raw(owner)), None::<Gid>)
            .with_context(|| format!("process.user.uid: give the terminal to user {owner}"))?;
        if let Some((rows, columns)) = self.size {
            pty::set_size(slave.as_fd(), rows, columns).context("process.consoleSize: set it")?;
        }
        if console {
            let place = root
                .ensure_file(Path::new("/dev/console"))
                .context("create /dev/console")?;
            mount::clone_tree(&slave, c"", false)
                .and_then(|tree| mount::attach(tree.as_fd(), place.as_fd()))
                .context("mount the terminal on /dev/console")?;
        }
        let name = format!("/dev/pts/{}", pty::number(master.as_fd()).context(opening)?);
        send(receiver, name.as_bytes(), master.as_fd())
            .context("send the terminal to the console socket")?;
        dup2_stdin(&slave)
            .and(dup2_stdout(&slave))
            .and(dup2_stderr(&slave))
            .context("process.terminal: use it")
    }
}

/// Makes the terminal on our standard input our controlling one. We must lead a session.
pub(crate) fn take_control() -> Result<()> {
    pty::make_controlling(standard_stream(libc::STDIN_FILENO))
        .context("process.terminal: make it the controlling terminal")
}

/// Connects to `--console-socket`.
pub(crate) fn connect_to(path: &Path) -> Result<OwnedFd> {
    let connecting = || format!("connect to {}", path.display());
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .with_context(connecting)?;
    let address = UnixAddr::new(path).with_context(connecting)?;
    connect(socket.as_raw_fd(), &address).with_context(connecting)?;
    Ok(socket)
}

/// Sends a descriptor with a payload (unix(7) `SCM_RIGHTS`).
pub(crate) fn send(socket: BorrowedFd<'_>, payload: &[u8], fd: BorrowedFd<'_>) -> nix::Result<()> {
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(payload)],
        &rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map(drop)
}

/// The rows and columns of a terminal; `None` when it is none.
pub fn window_size(terminal: BorrowedFd<'_>) -> Option<(u16, u16)> {
    let size = sys::terminal::window_size(terminal).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Gives a terminal rows and columns, by either of its ends.
pub fn set_window_size(terminal: BorrowedFd<'_>, (rows, columns): (u16, u16)) -> Result<()> {
    pty::set_size(terminal, rows, columns).context("set the size of the terminal")
}

/// Sends a pidfd to `--pidfd-socket`.
pub(crate) fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>) -> Result<()> {
    let socket = connect_to(path)?;
    send(socket.as_fd(), b"0", pidfd)
        .with_context(|| format!("send the pidfd to {}", path.display()))
}

/// Sends the master of a terminal to whoever [`receive`]s it.
pub fn send_terminal(socket: BorrowedFd<'_>, master: BorrowedFd<'_>) -> Result<()> {
    send(socket, b"terminal", master).context("send the terminal")
}

/// Receives the master of a terminal that was sent to us.
pub fn receive(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let receiving = "receive the terminal";
    let master = receive_fd(socket).context(receiving)?;
    master.ok_or_else(|| Error::failed(format!("{receiving}: none came")))
}

/// Receives a message, and the descriptor that comes with it.
pub(crate) fn receive_fd(socket: BorrowedFd<'_>) -> nix::Result<Option<OwnedFd>> {
    let mut payload = [0; 64];
    let mut buffers = [IoSliceMut::new(&mut payload)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), flags)?;
    let fd = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied().map(received),
        _ => None,
    });
    Ok(fd)
}

/// Who gets the terminal's master: whoever listens at `--console-socket`, or we do. The first is our end, the second the child's.
pub(crate) fn receiver(
    wanted: bool,
    detached: bool,
    console_socket: Option<&Path>,
) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    match (wanted, detached, console_socket) {
        (true, true, None) => Err(Error::invalid(
            "cannot allocate tty if coracle will detach without setting console socket",
        )),
        (false, _, Some(_)) | (true, false, Some(_)) => Err(Error::invalid(
            "cannot use console socket if coracle will not detach or allocate tty",
        )),
        (true, true, Some(path)) => Ok((None, Some(connect_to(path)?))),
        (true, false, None) => {
            let pair = socketpair(
                AddressFamily::Unix,
                SockType::Stream,
                None,
                SockFlag::SOCK_CLOEXEC,
            );
            pair.map(|(ours, childs)| (Some(ours), Some(childs)))
                .context("make a socket pair")
        }
        (false, _, None) => Ok((None, None)),
    }
}
