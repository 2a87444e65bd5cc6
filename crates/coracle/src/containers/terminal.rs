//! The terminal of a container for as long as the container lives: a process of its own holds its master besides the monitor, and gives
//! it to the monitor that comes after one that was killed. Otherwise the kernel would hang the terminal up, and that is SIGHUP for whoever
//! is on it.

use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::{Context, Init, Result};

use super::directory::Container;

/// The name under which `coracle` keeps a terminal.
pub(crate) const NAME: &str = "coracle-terminal";

/// Where it listens, in the container's directory.
const SOCKET: &str = "terminal.sock";

/// Who keeps the terminal of our container. It ends with the container, or with this.
#[derive(Debug)]
pub(crate) struct Keeper(Child);

impl Keeper {
    /// Hands a copy of the master over.
    pub(crate) fn start(
        container: &Container,
        master: BorrowedFd<'_>,
        init: &Init,
    ) -> Result<Self> {
        let copy = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned()
                .context("copy the terminal's descriptor")
        };
        let keeper = Command::new("/proc/self/exe")
            .arg0(NAME)
            .arg(&container.record.name)
            .stdin(copy(master)?)
            .stdout(OwnedFd::from(container.listen(SOCKET)?))
            .stderr(copy(init.as_fd())?)
            .spawn();
        keeper.map(Keeper).context("start who keeps the terminal")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The master of a terminal whose monitor was killed, if somebody still has it.
pub(crate) fn fetch(container: &Container) -> Result<Option<OwnedFd>> {
    match container.connect_to(SOCKET)? {
        Some(socket) => runtime::receive_terminal(socket.as_fd()).map(Some),
        None => Ok(None),
    }
}

/// What the process called [`NAME`] does. Standard input is the terminal's master, standard output the socket, and standard error a pidfd
/// of the container's process.
pub(crate) fn main() -> i32 {
    let (master, init) = (stdin(), stderr());
    let Ok(socket) = stdout().as_fd().try_clone_to_owned() else {
        return 1;
    };
    // The standard library accepts on any kind of unix socket.
    let socket = UnixListener::from(socket);
    runtime::give_back_program();
    loop {
        let mut watched = [
            PollFd::new(init.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return 1,
        }
        if watched[0].any() == Some(true) {
            return 0;
        }
        if let Ok((client, _)) = socket.accept() {
            let _ = runtime::send_terminal(client.as_fd(), master.as_fd());
        }
    }
}
