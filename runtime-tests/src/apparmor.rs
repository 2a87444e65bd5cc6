//! AppArmor, where the kernel runs it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::shell;
use crate::machine::has_program;
use crate::rootless;

/// The kernel runs AppArmor.
pub fn runs_apparmor() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|enabled| enabled.starts_with(b"Y"))
}

/// The kernel runs AppArmor, and profiles can be loaded.
pub fn has_apparmor() -> bool {
    runs_apparmor() && has_program("apparmor_parser") && rootless().is_none()
}

/// A profile of AppArmor's that refuses to read /secret. It is loaded for as long as it lives.
#[derive(Debug)]
pub struct Profile {
    /// What it is called.
    pub name: String,
    file: PathBuf,
}

impl Profile {
    /// Loads a profile by way of a file in `dir`.
    pub fn load(name: &str, dir: &Path) -> Self {
        let file = dir.join(name);
        let rules = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, deny /secret r,";
        fs::write(
            &file,
            format!("profile {name} flags=(attach_disconnected) {{ {rules} }}\n"),
        )
        .expect("the test's directory is writable");
        let profile = Profile {
            name: name.to_owned(),
            file,
        };
        profile.parser("--replace");
        profile
    }

    /// What /proc says of a process under it.
    pub fn enforced(&self) -> String {
        format!("{} (enforce)\n", self.name)
    }

    fn parser(&self, what: &str) {
        let file = self.file.display();
        shell(&format!("apparmor_parser --skip-cache {what} {file}"));
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}
