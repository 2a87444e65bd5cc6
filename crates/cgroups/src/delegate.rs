//! Handing a v2 cgroup to another user.

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{Uid, fchownat};

use crate::dir::Dir;
use crate::{Error, Result};

/// The files of `/sys/kernel/cgroup/delegate` on Linux 5.10, for kernels that do not publish the list.
const FILES: &str = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n";

/// Changes the owner of the directory and of the files that its user needs to make sub-cgroups and move processes
/// between them. Runtime-spec, `config-linux.md`, "Cgroup ownership": files that do not exist are passed over.
pub(crate) fn chown(dir: &Dir, uid: u32) -> Result<()> {
    let published = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
    let files = published.as_deref().unwrap_or(FILES);
    for file in [""].into_iter().chain(files.lines()) {
        match fchownat(
            dir,
            file,
            Some(Uid::from_raw(uid)),
            None,
            AtFlags::AT_EMPTY_PATH,
        ) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => {
                return Err(Error::io(
                    format!("give user {uid}"),
                    dir.path().join(file),
                    errno,
                ));
            }
        }
    }
    Ok(())
}
