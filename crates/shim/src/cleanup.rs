//! `delete`: what becomes of a container whose shim is gone, or never came to anything. It can be done again.

use std::io::Write;
use std::path::PathBuf;

use prost::Message;

use crate::Arguments;
use crate::container::check_id;
use crate::error::{Context, Result};
use crate::protos::Timestamp;
use crate::protos::task::DeleteResponse;
use crate::runtime::{Paper, Runtime};
use crate::service::{pid_file, read_pid};
use crate::{bootstrap, idmap, mounts};

/// What a process has as its status that ended together with its shim.
const KILLED: u32 = 128 + libc::SIGKILL as u32;

/// Kills and deletes the container, unmounts its root, and prints a `DeleteResponse`.
pub(crate) fn delete(arguments: &Arguments) -> Result<()> {
    check_id("-id", &arguments.id)?;
    let bundle = bundle(arguments)?;
    if let Some(runtime) = Runtime::load(&bundle)? {
        let mut complaint = Paper::new()?;
        let status = runtime
            .command(&complaint)
            .args(["delete", "--force", &arguments.id])
            .status()
            .context(|| "execute the runtime".to_owned())?;
        if !status.success() {
            eprintln!("delete {}: {}", arguments.id, complaint.last_error());
        }
    }
    let rootfs = bundle.join("rootfs");
    idmap::remove(&mounts::place_of_layers(&rootfs));
    mounts::unmount_all(&rootfs)?;
    bootstrap::remove_dead_socket(&bundle);
    let response = DeleteResponse {
        pid: read_pid(&pid_file(&bundle, "")).unwrap_or(0) as u32,
        exit_status: KILLED,
        exited_at: Some(Timestamp::now()),
    };
    std::io::stdout()
        .write_all(&response.encode_to_vec())
        .context(|| "answer".to_owned())
}

/// The container's bundle. The current directory is that of some container of the group.
fn bundle(arguments: &Arguments) -> Result<PathBuf> {
    if let Some(bundle) = &arguments.bundle {
        return Ok(bundle.clone());
    }
    let here = std::env::current_dir().context(|| "find the bundle".to_owned())?;
    Ok(here.with_file_name(&arguments.id))
}
