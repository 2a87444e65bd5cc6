//! The socket by which the runtime hands over a terminal's master.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::error::{Context, Failure, Result};
use crate::sys;

/// A console socket; its name goes away with it.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Not in the bundle, whose name may be too long for a socket's address.
    pub(crate) fn new(number: u32) -> Result<ConsoleSocket> {
        let path = PathBuf::from(format!(
            "/run/coracle-pty-{}-{number}.sock",
            std::process::id()
        ));
        // Left by a shim of the same pid that was killed.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .context(|| format!("make console socket {}", path.display()))?;
        Ok(ConsoleSocket { listener, path })
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
