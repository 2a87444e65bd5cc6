//! The socket by which the runtime hands over a terminal's master.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::error::{Context, Failure, Result};
use crate::sys;

/// A console socket in a bundle; its name goes away with it.
///
/// It is bound, and found by the runtime, by way of the open directory: the bundle's path may be too long for a socket's address.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
    _bundle: File,
}

impl ConsoleSocket {
    /// `number` is one that no other socket has.
    pub(crate) fn new(bundle: &Path, number: u32) -> Result<ConsoleSocket> {
        let making = || format!("make a console socket in {}", bundle.display());
        let directory = File::open(bundle).context(making)?;
        let (pid, fd) = (std::process::id(), directory.as_raw_fd());
        let path = PathBuf::from(format!("/proc/{pid}/fd/{fd}/{number}.pty"));
        let listener = UnixListener::bind(&path).context(making)?;
        listener.set_nonblocking(true).context(making)?;
        Ok(ConsoleSocket {
            listener,
            path,
            _bundle: directory,
        })
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The master, which the runtime has sent before it succeeded.
    pub(crate) fn receive(&self) -> Result<OwnedFd> {
        let receiving = || "receive the terminal from the runtime".to_owned();
        let (connection, _) = self.listener.accept().context(receiving)?;
        let mut name = [0; 256];
        let mut control = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let mut buffers = [IoSliceMut::new(&mut name)];
        let message = recvmsg::<()>(
            connection.as_raw_fd(),
            &mut buffers,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
        )
        .context(receiving)?;
        let found = message
            .cmsgs()
            .context(receiving)?
            .find_map(|message| match message {
                ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                _ => None,
            });
        let fd =
            found.ok_or_else(|| Failure::unknown(format!("{}: there is none", receiving())))?;
        Ok(sys::received(fd))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
