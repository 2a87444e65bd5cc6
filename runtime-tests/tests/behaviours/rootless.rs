//! An ordinary user's containers: what works without root, and what is said where something is refused. (`ROOTLESS=own`, `ranges` and
//! `delegated` run all other behaviours as such a user as well.)

use std::fs;
use std::process::Command;

use runtime_tests::{
    Account, Container, Hierarchy, Ids, Limit, has_capability, has_controller, has_program,
    hierarchy, is_coracle, is_runc, is_runc_since, kernel_has, limit_of, requires, rootless,
    runtime, shell,
};
use serde_json::json;

fn own(script: &str) -> Container {
    Container::new(script).of(Account::new(Ids::Own))
}

/// These tests bring their own users.
macro_rules! as_root {
    () => {
        requires!(rootless().is_none(), "the test has users of its own");
    };
}

#[track_caller]
fn refused(c: &Container, words: &[&str]) {
    let output = c.run();
    assert_eq!(output.code, 1, "{output:?}");
    for words in words {
        assert!(output.message().contains(words), "no {words:?}: {output:?}");
    }
    c.assert_nothing_left();
}

#[test]
fn with_no_more_than_its_own_id() {
    as_root!();
    let c = own(
        "id -u; cat /proc/self/uid_map /proc/self/setgroups; echo x > /dev/null; ls /dev/pts > /dev/null; hostname",
    );
    let seen = c.run().ok();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "4242", "1", "deny", "inside"]);
}

#[test]
fn with_ranges_of_ids() {
    as_root!();
    requires!(
        !is_runc(),
        "runc gives an ordinary user's container no groups"
    );
    let mut c =
        Container::new("id -u; id -G; cat /proc/self/setgroups").of(Account::new(Ids::Ranges));
    c.set(
        "/process/user",
        json!({ "uid": 7, "gid": 8, "additionalGids": [9, 10] }),
    );
    assert_eq!(c.run().ok(), "7\n8 9 10\nallow\n");
}

#[test]
fn namespaces_shared_with_the_host_show_the_hosts_file_systems() {
    as_root!();
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 fails where the kernel refuses a new one"
    );
    requires!(
        kernel_has("/dev/mqueue"),
        "the host has no message queues mounted"
    );
    let mut c = own("cat /proc/self/mountinfo; ls /sys/class/net /dev/mqueue > /dev/null; echo $$");
    c.unset("/hostname").set(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "user" }, { "type": "cgroup" }]),
    );
    let seen = c.run().ok();
    for (place, kind) in [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev/mqueue", "mqueue"),
    ] {
        assert!(
            seen.lines().any(|line| line.contains(&format!(" {place} "))
                && line.contains(&format!(" - {kind} "))),
            "{place}: {seen}"
        );
    }
    assert_ne!(
        seen.lines().last(),
        Some("1"),
        "the pid namespace is the host's"
    );
}

#[test]
fn additional_groups_where_they_cannot_be_set() {
    as_root!();
    let mut c = own("true");
    c.set(
        "/process/user",
        json!({ "uid": 0, "gid": 0, "additionalGids": [5] }),
    );
    refused(
        &c,
        if is_coracle() {
            &["process.user.additionalGids: ", "setgroups"]
        } else {
            &["additional groups"]
        },
    );

    let c = Container::idle().of(Account::new(Ids::Own));
    c.run_detached();
    let output = c.exec_with(&["--additional-gids", "5"], &["true"]);
    assert!(
        output.code != 0 && output.message().contains("groups"),
        "{output:?}"
    );
    assert_eq!(c.exec("id -u").ok(), "0\n");

    requires!(is_coracle(), "runc 1.3 takes no path without mappings");
    // The joined namespace decides, not the mappings.
    let mut joining = own("id -u");
    let namespaces = joining.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap();
    namespaces.retain(|namespace| namespace["type"] != "user");
    namespaces.push(json!({ "type": "user", "path": format!("/proc/{}/ns/user", c.pid()) }));
    joining
        .unset("/linux/uidMappings")
        .unset("/linux/gidMappings");
    assert_eq!(joining.run().ok(), "0\n");
    joining.set(
        "/process/user",
        json!({ "uid": 0, "gid": 0, "additionalGids": [5] }),
    );
    refused(&joining, &["process.user.additionalGids: ", "setgroups"]);
}

#[test]
fn ids_that_are_not_mapped_are_named() {
    as_root!();
    requires!(is_coracle(), "about our sentences");
    let mut c = own("true");
    c.set("/process/user", json!({ "uid": 3, "gid": 0 }));
    refused(
        &c,
        &["process.user.uid: become user 3: ", "linux.uidMappings"],
    );
    c.set("/process/user", json!({ "uid": 0, "gid": 3 }));
    refused(
        &c,
        &["process.user.gid: become group 3: ", "linux.gidMappings"],
    );
    c.set("/process/user", json!({ "uid": 0, "gid": 0 }));
    c.push("/mounts/2/options", json!("gid=5"));
    refused(&c, &["mounts[2]", "not mapped"]);
}

#[test]
fn devices_are_the_hosts() {
    as_root!();
    requires!(is_coracle(), "runc 1.3 binds whatever has the name");
    let mut c = own("head -c 3 /dev/zero | wc -c");
    c.set(
        "/linux/devices",
        json!([{ "path": "/dev/zero", "type": "c", "major": 1, "minor": 5 }]),
    );
    assert_eq!(c.run().ok(), "3\n");
    c.set(
        "/linux/devices",
        json!([{ "path": "/dev/zero", "type": "c", "major": 1, "minor": 7 }]),
    );
    refused(
        &c,
        &["linux.devices: create /dev/zero: ", "something else there"],
    );
    c.set(
        "/linux/devices",
        json!([{ "path": "/dev/nonesuch", "type": "c", "major": 1, "minor": 7 }]),
    );
    refused(
        &c,
        &[
            "linux.devices: create /dev/nonesuch: ",
            "only the host's bound",
        ],
    );
}

#[test]
fn ranges_that_nobody_gave() {
    as_root!();
    requires!(is_coracle(), "about our sentences");
    let none = Container::new("true").of(Account::new(Ids::Ranges).with_ranges(""));
    refused(
        &none,
        &[
            "linux.uidMappings: ",
            "newgidmap for 4242:1 300000:65536",
            "/etc/subgid gives ordinary no ids",
            "usermod --add-subgids",
        ],
    );
    let others =
        Container::new("true").of(Account::new(Ids::Ranges).with_ranges("ordinary:900000:10\n"));
    refused(
        &others,
        &[
            "newgidmap for ",
            "not allowed",
            "map only ids that /etc/subgid gives to ordinary",
        ],
    );
}

/// Runs the container with a PATH of these programs alone; they are copies, so that they have no rights of their own.
fn run_with_programs(c: &Container, names: &[&str]) -> runtime_tests::Output {
    let programs = c.dir().join("programs");
    fs::create_dir(&programs).unwrap();
    for name in names {
        shell(&format!(
            "cp $(command -v {name}) {0}/ && chmod 755 {0}/{name}",
            programs.display()
        ));
    }
    let mut command = c.bundle_command("run", &[]);
    command.env("PATH", programs);
    c.to_files(command)
}

#[test]
fn without_newuidmap_or_its_rights() {
    as_root!();
    requires!(is_coracle(), "about our sentences");
    let around = ["unshare", "mount", "sh", "setpriv"];
    let c = Container::new("true").of(Account::new(Ids::Ranges));
    run_with_programs(&c, &around).fails_with(1, "newgidmap not found in $PATH, which mapping more than the caller's own id takes: install the uidmap package, or map only 4242");
    c.assert_nothing_left();
    let c = Container::new("true").of(Account::new(Ids::Ranges));
    let all: Vec<&str> = around
        .into_iter()
        .chain(["newuidmap", "newgidmap"])
        .collect();
    run_with_programs(&c, &all).fails_with(1, "newgidmap is neither setuid root nor has it file capabilities: reinstall the uidmap package");
    c.assert_nothing_left();
    let c = own("id -u");
    assert_eq!(
        run_with_programs(&c, &around).ok(),
        "0\n",
        "one's own id takes no help"
    );
}

#[test]
fn no_more_user_namespaces() {
    as_root!();
    requires!(is_coracle(), "about our sentences");
    let mut c = Container::new("true");
    c.push("/linux/namespaces", json!({ "type": "user" }))
        .set(
            "/linux/uidMappings",
            json!([{ "containerID": 0, "hostID": 0, "size": 1 }]),
        )
        .set(
            "/linux/gidMappings",
            json!([{ "containerID": 0, "hostID": 0, "size": 1 }]),
        );
    let inner = c.bundle_command("run", &[]);
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "sh", "-c"])
        .args([
            "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"",
            "sh",
        ])
        .arg(inner.get_program())
        .args(inner.get_args());
    c.to_files(command).fails_with(1, "no space left on device: user.max_user_namespaces is 0: raise it (sysctl -w user.max_user_namespaces=");
    c.assert_nothing_left();
}

/// The container's `run` as an ordinary user on a kernel with this file in /proc/sys/kernel, where a system call fails.
fn where_sysctl(file: &str, value: &str, inject: &str) -> runtime_tests::Output {
    let files = "/proc/sys/kernel/random/boot_id /proc/sys/kernel/osrelease";
    let change = format!(
        "mkdir -p /tmp/sysctl && mount -t tmpfs none /tmp/sysctl && cp --parents {files} /tmp/sysctl && mount --move /tmp/sysctl/proc/sys/kernel \
         /proc/sys/kernel 2>/dev/null || mount --bind /tmp/sysctl/proc/sys/kernel /proc/sys/kernel && echo {value} > /proc/sys/kernel/{file}"
    );
    let c = Container::new("true").of(Account::new(Ids::Own).after(&change));
    let inner = c.bundle_command("run", &[]);
    let words: Vec<_> = inner.get_args().map(|word| word.to_owned()).collect();
    // The tracer must be the user as well: it goes in front of the runtime.
    let at = words
        .iter()
        .position(|word| word == runtime().as_os_str())
        .unwrap();
    let mut command = Command::new(inner.get_program());
    command.args(&words[..at]);
    command.args(["strace", "-f", "-o", "/dev/null", "-e", inject]);
    command
        .args(&words[at..])
        .env_remove("XDG_RUNTIME_DIR")
        .env("USER", "ordinary");
    let output = c.to_files(command);
    c.assert_nothing_left();
    output
}

#[test]
fn user_namespaces_that_debian_or_ubuntu_restricts() {
    as_root!();
    requires!(is_coracle(), "about our sentences");
    requires!(has_program("strace"), "strace is missing");
    where_sysctl("unprivileged_userns_clone", "0", "inject=clone,clone3:error=EPERM")
        .fails_with(1, "operation not permitted: user namespaces are for root only: sysctl -w kernel.unprivileged_userns_clone=1");
    where_sysctl("apparmor_restrict_unprivileged_userns", "1", "inject=mount,mount_setattr:error=EACCES")
        .fails_with(1, "permission denied: AppArmor gives no rights in the user namespaces of programs without a profile: install an AppArmor profile");
    where_sysctl(
        "apparmor_restrict_unprivileged_userns",
        "1",
        "inject=clone3:error=EACCES",
    )
    .fails_with(1, "permission denied: AppArmor gives no rights");
    let output = where_sysctl(
        "apparmor_restrict_unprivileged_userns",
        "0",
        "inject=mount,mount_setattr:error=EACCES",
    );
    assert!(
        output.code == 1 && !output.stderr.contains("AppArmor"),
        "{output:?}"
    );
}

#[test]
fn without_a_user_namespace() {
    as_root!();
    requires!(is_coracle(), "about our sentences");
    let mut c = own("true");
    let namespaces = c.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "user");
    c.unset("/linux/uidMappings").unset("/linux/gidMappings");
    refused(
        &c,
        &[
            "operation not permitted: ",
            "add {\"type\": \"user\"} to linux.namespaces",
        ],
    );
}

#[test]
fn limits_without_a_cgroup_are_refused_and_named() {
    as_root!();
    requires!(is_coracle(), "about our sentences");
    let mut c = own("true");
    c.run().ok();
    c.set("/linux/resources/pids", json!({ "limit": 10 }));
    refused(
        &c,
        &[
            "linux.resources.pids takes a cgroup of its own, and none is delegated to this user",
            "make cgroup /sys/fs/cgroup/",
        ],
    );
    let path = format!("/{}", c.id);
    c.unset("/linux/resources")
        .set("/linux/cgroupsPath", json!(path));
    refused(&c, &["linux.cgroupsPath takes a cgroup"]);
    c.unset("/linux/cgroupsPath");
    let c = c.with_global_flags(&["--rootless=false"]);
    refused(
        &c,
        &["a container takes a cgroup of its own", "make cgroup "],
    );
    let c = c.with_global_flags(&["--rootless=true"]);
    c.run().ok();
}

#[test]
fn what_takes_a_cgroup_says_that_there_is_none() {
    as_root!();
    let c = Container::idle().of(Account::new(Ids::Own));
    c.run_detached();
    let output = c.runtime(&["pause", &c.id]);
    assert!(
        output.code == 1 && output.message().contains("cgroup"),
        "{output:?}"
    );
    requires!(
        is_coracle(),
        "runc 1.3 cannot tell the processes without a cgroup"
    );
    c.exec_with(&["--detach"], &["sleep", "1000000"]).ok();
    let pids: Vec<i32> =
        serde_json::from_str(&c.runtime(&["ps", "-f", "json", &c.id]).ok()).unwrap();
    assert!(
        pids.len() == 2 && pids.contains(&(c.pid() as i32)),
        "{pids:?}"
    );
    c.runtime(&["kill", "--all", &c.id, "KILL"]).ok();
    c.wait_for("stopped");
}

/// A user with a cgroup of cgroup v2, in which its commands run.
fn delegated(c: Container, controllers: &str) -> Option<(Container, String)> {
    if hierarchy() != Hierarchy::V2 {
        return None;
    }
    let account = Account::new(Ids::Own).with_cgroup(controllers);
    let cgroup = account.cgroup().unwrap().display().to_string();
    Some((c.of(account), cgroup))
}

#[test]
fn a_delegated_cgroup_holds_the_container_and_its_limits() {
    as_root!();
    let c = delegated(Container::idle(), "memory pids");
    requires!(
        c.is_some() && has_controller("memory"),
        "cgroup v2 alone with its controllers is not here"
    );
    let (mut c, cgroup) = c.unwrap();
    c.set("/linux/resources/memory", json!({ "limit": 67_108_864 }))
        .set("/linux/resources/pids", json!({ "limit": 30 }));
    c.run_detached();
    assert_eq!(limit_of(c.pid(), Limit::MEMORY).unwrap(), "67108864");
    let place = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    let expected = format!(
        "0::{}/{}\n",
        cgroup.trim_start_matches("/sys/fs/cgroup"),
        c.id
    );
    assert_eq!(place, expected);
    c.runtime(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    c.runtime(&["resume", &c.id]).ok();
    c.runtime(&["update", "--pids-limit", "40", &c.id]).ok();
    assert_eq!(limit_of(c.pid(), Limit::PIDS).unwrap(), "40");
    assert_eq!(c.exec("id -u").ok(), "0\n");
}

#[test]
fn a_controller_that_is_not_delegated_matters_only_if_asked_for() {
    as_root!();
    requires!(is_coracle(), "about our sentences");
    let c = delegated(Container::new("echo ran"), "pids");
    requires!(
        c.is_some() && has_controller("memory"),
        "cgroup v2 alone with its controllers is not here"
    );
    let (mut c, _) = c.unwrap();
    c.set("/linux/resources/pids", json!({ "limit": 30 }));
    assert_eq!(c.run().ok(), "ran\n");
    c.set("/linux/resources/memory", json!({ "limit": 67_108_864 }));
    refused(
        &c,
        &["linux.resources.memory", "\"memory\"", "not available"],
    );
}

#[test]
fn a_cgroup_that_cannot_be_entered_from_here() {
    as_root!();
    requires!(is_coracle(), "about our sentences");
    requires!(hierarchy() == Hierarchy::V2, "cgroup v2 alone is not here");
    let owner = Account::new(Ids::Own).with_cgroup("pids");
    let cgroup = owner.cgroup().unwrap().display().to_string();
    // The same user, whose command starts somewhere else.
    let mut c = own("true");
    let path = format!("{}/{}", cgroup.trim_start_matches("/sys/fs/cgroup"), c.id);
    c.set("/linux/cgroupsPath", json!(path));
    refused(
        &c,
        &[
            "linux.cgroupsPath: ",
            "/proc/self/cgroup",
            "inside the delegated cgroup",
        ],
    );
}

#[test]
fn the_state_directory_of_a_user() {
    as_root!();
    requires!(is_coracle(), "about our sentences");
    let c = own("echo ran");
    c.write_config();
    let account = Account::new(Ids::Own);
    let run = |directory: Option<&str>| {
        let mut command = account.command(runtime());
        command.args(["run", "--bundle"]).arg(c.bundle()).arg(&c.id);
        if let Some(directory) = directory {
            command.env("XDG_RUNTIME_DIR", directory);
        }
        c.to_files(command)
    };
    run(None).fails_with(1, "XDG_RUNTIME_DIR is not set: name a directory");
    run(Some("relative")).fails_with(1, "XDG_RUNTIME_DIR is \"relative\", which is not absolute");
    run(Some("/root")).fails_with(
        1,
        "create state root /root/coracle: permission denied: choose a directory",
    );
    run(Some("/proc/nonesuch")).fails_with(1, "create state root /proc/nonesuch/coracle: ");
    let own = c.dir().join("run");
    fs::create_dir(&own).unwrap();
    account.give(&own);
    assert_eq!(run(Some(own.to_str().unwrap())).ok(), "ran\n");
    assert_eq!(
        shell(&format!("stat -c %a:%u {}/coracle", own.display())),
        "1700:4242\n"
    );
}

#[test]
fn root_without_the_right_to_set_groups() {
    as_root!();
    requires!(is_coracle(), "runc 1.3 wants mappings");
    requires!(has_capability(21), "no CAP_SYS_ADMIN");
    // Root of a user namespace with one id: setgroups is denied there for good.
    let c = Container::new("echo ran").with_global_flags(&["--cgroup-manager", "disabled"]);
    let mut config = c.config.clone();
    config["linux"]["devices"] = json!([]);
    for mount in config["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
    let mut c = c;
    c.config = config;
    let inner = c.bundle_command("run", &[]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]);
    command.arg(inner.get_program()).args(inner.get_args());
    assert_eq!(c.to_files(command).ok(), "ran\n");
}
