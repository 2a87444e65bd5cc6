//! `linux.resources.devices`. Kernel: `cgroup-v1/devices.rst`; `cgroup-v2.rst`, "Device controller".

mod program;
mod rules;

use nix::errno::Errno;
use oci_spec::runtime::LinuxDeviceCgroup;

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::{Error, Result, refusal, sys};

use std::os::fd::AsFd;

const FIELD: &str = "linux.resources.devices";

/// Puts the rules in force. What none of them names is denied, the last one that names a device wins.
pub(crate) fn apply(cgroup: &Cgroup, wanted: &[LinuxDeviceCgroup]) -> Result<()> {
    let rules = rules::parse(wanted)?;
    if let Some(dir) = cgroup.legacy("devices") {
        for (file, line) in rules::legacy(&rules)? {
            dir.write(file, &line).map_err(refused)?;
        }
        return Ok(());
    }
    match cgroup.unified() {
        Some(dir) => attach(dir, &program::compile(&rules), cgroup.fresh).map_err(refused),
        None => Err(Error::MissingController {
            field: FIELD.into(),
            controller: "devices".into(),
            why: refusal::missing_controller(cgroup, "devices"),
        }),
    }
}

/// The devices that rules allow, and how, as patterns of systemd's `DeviceAllow=` (systemd.resource-control(5)): more than that where a
/// later rule takes something back, or where there is no pattern. `None` stands for everything.
pub(crate) fn allowed(wanted: &[LinuxDeviceCgroup]) -> Result<Option<Vec<(String, String)>>> {
    rules::parse(wanted).map(|rules| rules::patterns(&rules))
}

fn refused(source: Error) -> Error {
    Error::Refused {
        field: FIELD.into(),
        source: Box::new(source),
    }
}

/// Attaches the program, in place of whatever is there: all attached programs have to agree to an access, so an old one
/// left beside the new one would keep on denying.
fn attach(dir: &Dir, instructions: &[u64], fresh: bool) -> Result<()> {
    let failed = |action: &'static str| move |errno| Error::io(action, dir.path(), errno);
    let program = match sys::load_device_program(instructions) {
        // Before Linux 5.11 programs count as locked memory.
        Err(Errno::EPERM) if sys::lift_memlock().is_ok() => sys::load_device_program(instructions),
        loaded => loaded,
    };
    let program = program.map_err(failed("load the device program for"))?;
    let old = if fresh {
        Vec::new()
    } else {
        sys::device_programs(dir.as_fd()).map_err(failed("list device programs of"))?
    };
    let replaced = if let [only] = old.as_slice() {
        Some(only.as_fd())
    } else {
        None
    };
    let attached = sys::attach_device_program(dir.as_fd(), program.as_fd(), replaced);
    attached.map_err(failed("attach the device program to"))?;
    if replaced.is_none() {
        for program in &old {
            let detached = sys::detach_device_program(dir.as_fd(), program.as_fd());
            detached.map_err(failed("detach an old device program from"))?;
        }
    }
    Ok(())
}
