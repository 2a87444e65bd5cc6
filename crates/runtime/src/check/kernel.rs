//! The kernel itself: its version, seccomp, security modules, keys.

use std::fs;

use nix::sys::utsname::uname;
use nix::unistd::geteuid;

use super::{Check, number, read};

/// Where the project's floor lies.
const OLDEST: (u32, u32) = (5, 10);

pub(super) fn checks() -> Vec<Check> {
    vec![version(), seccomp(), notify(), security_modules(), keys()]
}

/// Major and minor version of the running kernel.
pub(super) fn release() -> (u32, u32) {
    let release = uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    parse(&release)
}

fn parse(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn version() -> Check {
    let text = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let machine = std::env::consts::ARCH;
    let value = format!("{text} ({machine})");
    match release() < OLDEST {
        true => Check::missing("kernel", value, "use Linux 5.10 or later."),
        false => Check::ok("kernel", value),
    }
    .essential()
}

fn actions() -> Option<String> {
    read("/proc/sys/kernel/seccomp/actions_avail")
}

fn seccomp() -> Check {
    match actions() {
        Some(actions) => Check::ok("seccomp", actions),
        None => Check::missing(
            "seccomp",
            "not in this kernel",
            "containers with linux.seccomp need a kernel with CONFIG_SECCOMP_FILTER.",
        ),
    }
}

fn notify() -> Check {
    let name = "seccomp.notify";
    match actions().is_some_and(|actions| actions.split(' ').any(|action| action == "user_notif")) {
        true => Check::ok(name, "user_notif"),
        false => Check::missing(
            name,
            "no user_notif",
            "SCMP_ACT_NOTIFY needs a kernel with it.",
        ),
    }
}

/// AppArmor and SELinux, and what else securityfs lists.
fn security_modules() -> Check {
    let name = "lsm";
    let mut modules = read("/sys/kernel/security/lsm").unwrap_or_default();
    if modules.is_empty() {
        // securityfs need not be mounted.
        let apparmor = read("/sys/module/apparmor/parameters/enabled").is_some_and(|on| on == "Y");
        let selinux = fs::exists("/sys/fs/selinux/enforce").unwrap_or(false);
        let found = [("apparmor", apparmor), ("selinux", selinux)];
        let found: Vec<_> = found
            .iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| *name)
            .collect();
        modules = found.join(",");
    }
    let has = |module: &str| modules.split(',').any(|one| one == module);
    match has("apparmor") || has("selinux") {
        true => Check::ok(name, modules),
        false => Check::limited(
            name,
            if modules.is_empty() {
                "none".into()
            } else {
                modules
            },
            "process.apparmorProfile and process.selinuxLabel need AppArmor or SELinux: enable one by lsm= on the kernel's command line.",
        ),
    }
}

/// Each container takes a session keyring of its creator's quota (keyrings(7)).
fn keys() -> Check {
    let name = "keys";
    let file = match geteuid().is_root() {
        true => "/proc/sys/kernel/keys/root_maxkeys",
        false => "/proc/sys/kernel/keys/maxkeys",
    };
    let sysctl = file.trim_start_matches("/proc/sys/").replace('/', ".");
    match number(file) {
        None => Check::ok(name, "no keyrings in this kernel"),
        Some(most) if most < 1000 => Check::limited(
            name,
            format!("{most} keys"),
            format!(
                "each container takes a keyring: raise {sysctl} for more than about {most} containers, or use --no-new-keyring."
            ),
        ),
        Some(most) => Check::ok(name, format!("{most} keys")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(parse("6.1.0-43-cloud-amd64"), (6, 1));
        assert_eq!(parse("5.10"), (5, 10));
        assert_eq!(parse("7.2-rc3"), (7, 2));
        assert!(release() >= (3, 0));
    }
}
