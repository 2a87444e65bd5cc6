//! Labels of the Linux security modules: `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel`.

use nix::errno::Errno;

use crate::procfs::Procfs;
use crate::{Context, Error, Result};

/// The labels that a process gets when it executes the user's program.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Labels {
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
}

impl Labels {
    /// Empty strings are no labels.
    pub(crate) fn new(apparmor: Option<&str>, selinux: Option<&str>) -> Self {
        let given =
            |label: Option<&str>| label.filter(|label| !label.is_empty()).map(str::to_owned);
        Labels {
            apparmor: given(apparmor),
            selinux: given(selinux),
        }
    }

    /// A label that the kernel cannot enforce is an error before anything is made.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(profile) = &self.apparmor
            && profile != "unconfined"
            && !is_apparmor_enabled()
        {
            return Err(Error::invalid(format!(
                "process.apparmorProfile: profile {profile:?} is asked for, but AppArmor is not enabled in this kernel"
            )));
        }
        if self.selinux.is_some() && !is_selinux_enabled() {
            return Err(Error::invalid(
                "process.selinuxLabel: a label is asked for, but SELinux is not enabled in this kernel",
            ));
        }
        Ok(())
    }

    /// Tells the kernel what the next execve(2) changes to.
    pub(crate) fn apply(&self, procfs: &Procfs) -> Result<()> {
        if let Some(profile) = self.apparmor.as_ref().filter(|_| is_apparmor_enabled()) {
            let value = format!("exec {profile}");
            // Since 5.8 AppArmor has a file of its own; the other is shared with SELinux.
            let written = match procfs.write("self/attr/apparmor/exec", value.as_bytes()) {
                Err(Errno::ENOENT) => procfs.write("self/attr/exec", value.as_bytes()),
                written => written,
            };
            written.with_context(|| format!("process.apparmorProfile: apply {profile:?}"))?;
        }
        if let Some(label) = &self.selinux {
            procfs
                .write("self/attr/exec", label.as_bytes())
                .with_context(|| format!("process.selinuxLabel: apply {label:?}"))?;
        }
        Ok(())
    }
}

/// `linux.mountLabel` needs SELinux.
pub(crate) fn check_mount_label(label: Option<&str>) -> Result<()> {
    match label {
        Some(label) if !label.is_empty() && !is_selinux_enabled() => Err(Error::invalid(
            "linux.mountLabel: a label is asked for, but SELinux is not enabled in this kernel",
        )),
        _ => Ok(()),
    }
}

fn is_apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|enabled| enabled.starts_with(b"Y"))
}

fn is_selinux_enabled() -> bool {
    std::path::Path::new("/sys/fs/selinux/enforce").exists()
}
