//! Labels of the Linux security modules: `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel`.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::annotations::MOUNT_CONTEXT_TYPE;
use crate::procfs::Procfs;
use crate::sys::xattr;
use crate::{Context, Error, Result};

/// The labels that a process gets when it executes the user's program.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Labels {
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
}

impl Labels {
    /// Empty strings are no labels.
    pub(crate) fn new(configured: &oci_spec::runtime::Process) -> Self {
        let given = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
        Labels {
            apparmor: given(configured.apparmor_profile()),
            selinux: given(configured.selinux_label()),
        }
    }

    /// Takes what is not there from others.
    pub(crate) fn fill_from(&mut self, others: Labels) {
        self.apparmor = self.apparmor.take().or(others.apparmor);
        self.selinux = self.selinux.take().or(others.selinux);
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
        match &self.selinux {
            Some(label) => check_selinux("process.selinuxLabel", label),
            None => Ok(()),
        }
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
            let hint = match written {
                Err(Errno::ENOENT) => ": no profile of this name is loaded",
                _ => "",
            };
            written.with_context(|| {
                format!(
                    "process.apparmorProfile: unable to apply apparmor profile {profile:?}{hint}"
                )
            })?;
        }
        if let Some(label) = &self.selinux {
            procfs
                .write("self/attr/exec", label.as_bytes())
                .with_context(|| format!("process.selinuxLabel: apply {label:?}"))?;
        }
        Ok(())
    }

    /// Gives the keys that this process makes until execve(2) the label of the user's program, which may not even search them otherwise.
    pub(crate) fn apply_to_keys(&self, procfs: &Procfs) -> Result<()> {
        let Some(label) = &self.selinux else {
            return Ok(());
        };
        match procfs.write("self/attr/keycreate", label.as_bytes()) {
            // A kernel without keyrings.
            Err(Errno::ENOENT) => Ok(()),
            written => written.with_context(|| {
                format!("process.selinuxLabel: label the session keyring {label:?}")
            }),
        }
    }
}

/// The options by which SELinux takes a label for a file system (mount(8)): of all its files, of the file system itself, of files without
/// one, of the root directory.
const CONTEXTS: [&CStr; 4] = [c"context", c"fscontext", c"defcontext", c"rootcontext"];

/// Whether an option of a file system is one that SELinux takes before the file system sees it.
pub(crate) fn is_context(option: &CStr) -> bool {
    CONTEXTS.contains(&option)
}

/// `linux.mountLabel`: what the files of a container's own file systems are labelled with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MountLabel {
    /// The option that brings it to a file system.
    pub option: &'static CStr,
    pub label: CString,
}

impl MountLabel {
    /// A label that the kernel cannot enforce is an error; an empty string is none. `option` is another than `context`.
    pub(crate) fn new(label: Option<&str>, option: Option<&str>) -> Result<Option<Self>> {
        let Some(label) = label.filter(|label| !label.is_empty()) else {
            return Ok(None);
        };
        check_selinux("linux.mountLabel", label)?;
        let label = CString::new(label)
            .map_err(|_| Error::invalid("linux.mountLabel: contains a null byte"))?;
        let option = context_option(option)?;
        Ok(Some(MountLabel { option, label }))
    }

    /// Labels the root directory of a new mount whose file system takes no option for that.
    pub(crate) fn apply_to(&self, tree: &OwnedFd) -> nix::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = openat(tree, ".", flags, Mode::empty())?;
        xattr::set(
            directory.as_fd(),
            c"security.selinux",
            self.label.as_bytes_with_nul(),
        )
    }
}

fn context_option(name: Option<&str>) -> Result<&'static CStr> {
    let Some(name) = name else {
        return Ok(CONTEXTS[0]);
    };
    let mut known = CONTEXTS.into_iter();
    known
        .find(|option| option.to_bytes() == name.as_bytes())
        .ok_or_else(|| {
            Error::invalid(format!(
                "annotations.{MOUNT_CONTEXT_TYPE}: expected context, fscontext, defcontext or rootcontext, not {name:?}"
            ))
        })
}

/// The AppArmor profile for a container that asks for none: the one that another engine has loaded for those of its own, Docker's or podman's.
pub fn default_apparmor_profile() -> Option<String> {
    if !is_apparmor_enabled() {
        return None;
    }
    let loaded = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").ok()?;
    default_profile(&loaded).map(str::to_owned)
}

/// The same of the list of profiles that are loaded, as in `docker-default (enforce)`.
fn default_profile(loaded: &str) -> Option<&str> {
    let enforced = |wanted: fn(&str) -> bool| {
        let mut names = loaded
            .lines()
            .filter_map(|line| line.strip_suffix(" (enforce)"));
        names.find(|name| wanted(name))
    };
    enforced(|name| name == "docker-default")
        .or_else(|| enforced(|name| name.starts_with("containers-default-")))
}

fn is_apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|enabled| enabled.starts_with(b"Y"))
}

/// SELinux is there and its policy knows the label.
fn check_selinux(field: &str, label: &str) -> Result<()> {
    let invalid = |text: String| Err(Error::invalid(format!("{field}: {text}")));
    // Writing asks (selinuxfs).
    let file = File::options().write(true).open("/sys/fs/selinux/context");
    match file.and_then(|mut file| file.write_all(label.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            invalid("a label is asked for, but SELinux is not enabled in this kernel".into())
        }
        Err(error) if error.kind() == ErrorKind::InvalidInput => invalid(format!(
            "SELinux's policy does not know the label {label:?}"
        )),
        // Whoever may not ask learns it when the label is applied.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_profile_comes_first() {
        let loaded = "containers-default-0.62.2 (enforce)\ndocker-default (enforce)\n";
        assert_eq!(default_profile(loaded), Some("docker-default"));
        let loaded = "docker-default (complain)\ncontainers-default-0.62.2 (enforce)\n";
        assert_eq!(default_profile(loaded), Some("containers-default-0.62.2"));
        assert_eq!(default_profile("lsb_release (enforce)\n"), None);
    }

    #[test]
    fn kinds_of_labels() {
        assert_eq!(context_option(None).unwrap(), c"context");
        assert_eq!(context_option(Some("rootcontext")).unwrap(), c"rootcontext");
        assert!(context_option(Some("size")).is_err());
    }
}
