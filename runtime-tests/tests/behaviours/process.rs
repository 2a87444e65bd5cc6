//! The container's process: user, groups, umask, directory, environment, limits, and what else is set before exec.

use std::fs;

use runtime_tests::{
    Container, Ids, has_capability, is_coracle, is_runc_since, read_text, requires, rootless,
};
use serde_json::json;

#[test]
fn user_and_groups() {
    requires!(rootless() != Some(Ids::Own), "one id only is mapped");
    let mut c = Container::new("id -u; id -g; id -G");
    c.set(
        "/process/user",
        json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 10, 4000] }),
    );
    assert_eq!(c.run().ok(), "1000\n1001\n1001 5 10 4000\n");
}

#[test]
fn the_hosts_groups_do_not_leak() {
    let c = Container::new("grep Groups /proc/self/status");
    assert_eq!(c.run().ok().trim_end(), "Groups:");
}

#[test]
fn umask() {
    let c = Container::new("umask");
    assert_eq!(c.run().ok(), "0022\n");
    let mut c = Container::new("umask; touch /f; stat -c %a /f");
    c.set("/process/user/umask", json!(0o27));
    assert_eq!(c.run().ok(), "0027\n640\n");
}

#[test]
fn working_directory() {
    let mut c = Container::new("pwd");
    c.set("/process/cwd", json!("/usr"));
    assert_eq!(c.run().ok(), "/usr\n");
}

#[test]
fn a_missing_working_directory_is_made() {
    let mut c = Container::new("pwd");
    c.set("/process/cwd", json!("/new/deep/directory"));
    assert_eq!(c.run().ok(), "/new/deep/directory\n");
}

#[test]
fn a_working_directory_that_only_the_user_may_enter() {
    requires!(rootless() != Some(Ids::Own), "one id only is mapped");
    let mut c = Container::new("pwd; id -u");
    c.set("/process/cwd", json!("/private"))
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let dir = c.rootfs().join("private");
    fs::create_dir(&dir).unwrap();
    let owner = Some(c.host_id(1000));
    std::os::unix::fs::chown(&dir, owner, owner).unwrap();
    runtime_tests::shell(&format!("chmod 700 {}", dir.display()));
    assert_eq!(c.run().ok(), "/private\n1000\n");
}

#[test]
fn a_working_directory_through_a_symlink_stays_inside() {
    let mut c = Container::new("pwd -P; ls | grep -c vmlinuz");
    std::os::unix::fs::symlink("/", c.rootfs().join("link")).unwrap();
    c.set("/process/cwd", json!("/link"));
    assert_eq!(c.run().stdout, "/\n0\n");
}

#[test]
fn environment_is_as_configured() {
    let mut c = Container::with_args(&["env"]);
    c.set(
        "/process/env",
        json!(["PATH=/bin", "A=1", "EMPTY=", "B=with space", "HOME=/h"]),
    );
    let mut lines: Vec<String> = c.run().ok().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        ["A=1", "B=with space", "EMPTY=", "HOME=/h", "PATH=/bin"]
    );
}

#[test]
fn home_comes_from_the_containers_passwd_when_missing() {
    requires!(rootless() != Some(Ids::Own), "one id only is mapped");
    let mut c = Container::new("echo $HOME");
    assert_eq!(c.run().ok(), "/root\n");
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(c.run().ok(), "/home/user\n");
    c.set("/process/user", json!({ "uid": 4711, "gid": 4711 }));
    assert_eq!(c.run().ok(), "/\n");
    fs::remove_file(c.rootfs().join("etc/passwd")).unwrap();
    assert_eq!(c.run().ok(), "/\n");
}

#[test]
fn an_environment_entry_without_equals_is_refused() {
    // CVE-2026-57231: it must never take the host's value.
    let mut c = Container::new("env");
    c.push("/process/env", json!("SECRET"));
    let mut command = c.bundle_command("run", &[]);
    command.env("SECRET", "of the host");
    let output = c.to_files(command);
    assert!(!output.stdout.contains("of the host"), "{output:?}");
    if is_coracle() {
        output.fails_with(1, "SECRET");
    }
}

#[test]
fn the_program_is_found_by_the_containers_path() {
    let mut c = Container::with_args(&["tool"]);
    let dir = c.rootfs().join("opt/tools");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("tool"), "#!/bin/sh\necho found\n").unwrap();
    runtime_tests::shell(&format!("chmod 755 {}/tool", dir.display()));
    c.set("/process/env", json!(["PATH=/nowhere:/opt/tools:/bin"]));
    assert_eq!(c.run().ok(), "found\n");
}

#[test]
fn resource_limits() {
    let mut c = Container::new("cat /proc/self/limits");
    c.set("/process/rlimits", json!([
        { "type": "RLIMIT_NOFILE", "soft": 256, "hard": 512 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_STACK", "soft": 1_048_576, "hard": 2_097_152 }, { "type": "RLIMIT_MEMLOCK", "soft": 4096, "hard": 8192 },
        { "type": "RLIMIT_NICE", "soft": 0, "hard": 0 }, { "type": "RLIMIT_CPU", "soft": 100, "hard": 200 }
    ]));
    let seen = c.run().ok();
    let limit = |name: &str| {
        let line = seen
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name} in {seen}"));
        line.split_whitespace()
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .join(" ")
    };
    // Sometimes Go raises the soft limit of open files after runc 1.1 has set it.
    if is_coracle() {
        assert_eq!(limit("Max open files"), "256 512");
    }
    assert_eq!(limit("Max core file size"), "0 0");
    assert_eq!(limit("Max stack size"), "1048576 2097152");
    assert_eq!(limit("Max locked memory"), "4096 8192");
    assert_eq!(limit("Max cpu time"), "100 200");
}

#[test]
fn oom_score_adj() {
    let mut c = Container::new("cat /proc/self/oom_score_adj");
    c.set("/process/oomScoreAdj", json!(321));
    assert_eq!(c.run().ok(), "321\n");
    c.unset("/process/oomScoreAdj");
    assert_eq!(
        c.run().ok(),
        read_text("/proc/self/oom_score_adj".as_ref()),
        "without one the engine's own stays"
    );
}

#[test]
fn a_lower_oom_score_adj_needs_the_capability() {
    requires!(rootless().is_none(), "the test is root's to begin with");
    requires!(has_capability(24), "CAP_SYS_RESOURCE is missing");
    let mut c = Container::new("cat /proc/self/oom_score_adj");
    c.set("/process/oomScoreAdj", json!(-500));
    assert_eq!(c.run().ok(), "-500\n");
}

#[test]
fn no_new_privs() {
    let mut c = Container::new("grep NoNewPrivs /proc/self/status");
    assert_eq!(c.run().ok(), "NoNewPrivs:\t0\n");
    c.set("/process/noNewPrivileges", json!(true));
    assert_eq!(c.run().ok(), "NoNewPrivs:\t1\n");
}

#[test]
fn the_session_keyring_is_the_containers_own() {
    requires!(
        rootless().is_none(),
        "setpriv leaves the session keyring of root"
    );
    // keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
    let c = Container::inside(&["syscall", "250", "0", "-3", "0"]);
    let other = Container::inside(&["syscall", "250", "0", "-3", "0"]);
    assert_ne!(c.run().ok(), other.run().ok(), "each container has its own");
    let shared = (
        c.run_with(&["--no-new-keyring"]).ok(),
        c.run_with(&["--no-new-keyring"]).ok(),
    );
    assert_eq!(
        shared.0, shared.1,
        "with --no-new-keyring it is the caller's"
    );
}

#[test]
fn personality() {
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 has no personality"
    );
    let mut c = Container::new("uname -m");
    c.set("/linux/personality", json!({ "domain": "LINUX32" }));
    assert_eq!(c.run().ok(), "i686\n");
}

#[test]
fn scheduler_and_io_priority() {
    requires!(is_coracle() || is_runc_since(1, 3), "runc 1.1 has neither");
    // Fields 19 and 41 of proc_pid_stat(5): nice, and the policy's number.
    let mut c = Container::new("cut -d ' ' -f 19,41 /proc/1/stat; ionice -p 1");
    c.set(
        "/process/scheduler",
        json!({ "policy": "SCHED_BATCH", "nice": 7 }),
    );
    c.set(
        "/process/ioPriority",
        json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }),
    );
    assert_eq!(c.run().ok(), "7 3\nbest-effort: prio 6\n");
}

#[test]
fn the_hosts_affinity_is_not_inherited() {
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 keeps the engine's"
    );
    let c = Container::new("grep Cpus_allowed_list /proc/self/status");
    let mut command = std::process::Command::new("taskset");
    let inner = c.bundle_command("run", &[]);
    command
        .arg("1")
        .arg(inner.get_program())
        .args(inner.get_args());
    let all = runtime_tests::shell("grep Cpus_allowed_list /proc/self/status");
    assert_eq!(c.to_files(command).ok(), all);
}
