//! `check`: what it says against what the machine says by itself, and with what is taken away.

use std::fs;
use std::process::Command;

use runtime_tests::{
    Account, Container, Hierarchy, Ids, Output, has_controller, has_program, has_v1_controller,
    hierarchy, is_coracle, requires, rootless, runtime, shell,
};
use serde_json::{Value, json};

/// `check` of this machine as root, behind a line of shell in a mount namespace of its own.
fn behind(change: &str) -> Output {
    let c = Container::new("true");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "slave", "sh", "-c"]);
    command.arg(format!("{change} && exec \"$@\"")).arg("sh");
    command.arg(runtime()).args(["check", "--format", "json"]);
    c.finish(command)
}

#[track_caller]
fn report(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// One check's status, value and advice.
#[track_caller]
fn entry(report: &Value, name: &str) -> (String, String, String) {
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("{name} in {report}"));
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("value"), text("advice"))
}

macro_rules! needs_coracle {
    () => {
        requires!(is_coracle(), "a command of our own");
        requires!(rootless().is_none(), "the test has users of its own");
    };
}

#[test]
fn it_tells_what_the_machine_has() {
    needs_coracle!();
    let output = behind("true");
    let report = report(&output);
    assert_eq!(
        (output.code, &report["usable"]),
        (0, &json!(true)),
        "{output:?}"
    );
    let value = |name: &str| entry(&report, name).1;
    assert!(value("kernel").starts_with(shell("uname -r").trim()));
    assert_eq!(
        value("seccomp"),
        fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail")
            .unwrap()
            .trim()
    );
    let memory = shell("awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo");
    assert!(
        value("memory").starts_with(&format!("{} MiB", memory.trim())),
        "{}",
        value("memory")
    );
    assert!(
        value("cpus")
            .ends_with(shell("awk '/Cpus_allowed_list/ { print $2 }' /proc/self/status").trim())
    );
    let layout = match hierarchy() {
        Hierarchy::V1 => "v1",
        Hierarchy::Hybrid => "v1 and v2 (hybrid)",
        Hierarchy::V2 => "v2",
    };
    assert_eq!(value("cgroup"), layout);
    for controller in ["cpu", "cpuset", "memory", "pids"] {
        let told = value("cgroup.controllers")
            .split(' ')
            .any(|one| one == controller);
        assert_eq!(told, has_controller(controller), "{controller}");
    }
    assert_eq!(
        value("ip_forward"),
        fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
            .unwrap()
            .trim()
    );
    for kind in [
        "user", "ipc", "uts", "network", "pid", "cgroup", "time", "mount",
    ] {
        assert_eq!(
            entry(&report, &format!("namespace.{kind}")).0,
            "ok",
            "{kind}"
        );
    }
    for check in report["checks"].as_array().unwrap() {
        let is_ok = check["status"] == "ok";
        let advice = check["advice"].as_str().unwrap_or_default();
        assert_eq!(is_ok, advice.is_empty(), "{check}");
        assert!(
            is_ok || advice.ends_with('.') && !advice.trim_end_matches('.').is_empty(),
            "{check}"
        );
    }
}

#[test]
fn it_changes_nothing() {
    needs_coracle!();
    // Other tests make cgroups and mounts meanwhile: those have the names of containers.
    let all = || {
        shell(
            "cut -d' ' -f1 /proc/modules | sort; find /sys/fs/cgroup -type d | grep -v -e ct- -e delegated- | sort; ls /sys/class/net; \
             grep -v -e ct- -e /tmp /proc/self/mountinfo | cut -d' ' -f5",
        )
    };
    let before = all();
    behind("true").ok();
    let account = Account::new(Ids::Own);
    account
        .command(runtime())
        .arg("check")
        .output()
        .expect("it runs");
    assert_eq!(all(), before);
}

#[test]
fn a_table_for_people() {
    needs_coracle!();
    let c = Container::new("true");
    let table = c.runtime(&["check"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    let column = lines[0].find(" ok").unwrap();
    assert!(lines[0].starts_with("kernel  "), "{table}");
    assert!(
        lines
            .iter()
            .filter(|line| !line.starts_with(' ') && line.contains("  "))
            .all(|line| line.as_bytes()[column] == b' '),
        "{table}"
    );
    assert_eq!(lines.last(), Some(&"containers can run here"));
    assert!(!table.contains('\x1b'), "colour is for terminals");
    c.runtime(&["check", "--format", "yaml"])
        .fails_with(1, "invalid format option");
}

#[test]
fn colour_on_a_terminal_unless_refused() {
    needs_coracle!();
    let mut terminal = runtime_tests::Terminal::open();
    let mut command = Command::new("env");
    command.arg("NO_COLOR=").arg(runtime()).arg("check");
    assert_eq!(terminal.run(&command), 0);
    terminal.wait_to_see("\x1b[32mok");
    let mut terminal = runtime_tests::Terminal::open();
    let mut command = Command::new("env");
    command.arg("NO_COLOR=1").arg(runtime()).arg("check");
    assert_eq!(terminal.run(&command), 0);
    assert!(!terminal.wait_to_see("can run here").contains('\x1b'));
}

#[test]
fn without_user_namespaces() {
    needs_coracle!();
    let c = Container::new("true");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command
        .arg("echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"")
        .arg("sh");
    command
        .arg(runtime())
        .args(["--root", "/tmp", "check", "--format", "json"]);
    let (status, value, _) = entry(&report(&c.finish(command)), "namespace.user");
    assert_eq!(status, "missing");
    assert!(value.contains("user.max_user_namespaces is 0"), "{value}");
}

#[test]
fn an_ordinary_user_sees_its_own_rights() {
    needs_coracle!();
    let check = |account: Account| {
        let c = Container::new("true");
        let mut command = account.command(runtime());
        command.args(["--root", "/tmp", "check", "--format", "json"]);
        report(&c.finish(command))
    };
    let ranges = check(Account::new(Ids::Ranges));
    assert_eq!(entry(&ranges, "ids").0, "ok");
    assert!(
        entry(&ranges, "ids").1.starts_with("65536 uids"),
        "{ranges}"
    );
    assert_eq!(entry(&ranges, "namespace.user").0, "ok");
    assert_eq!(entry(&ranges, "cgroup.writable").0, "limited");
    let own = check(Account::new(Ids::Own));
    let (status, _, advice) = entry(&own, "ids");
    assert!(
        status == "limited"
            && advice.contains("usermod --add-subuids")
            && advice.contains(" ordinary."),
        "{advice}"
    );
    requires!(hierarchy() == Hierarchy::V2, "cgroup v2 alone is not here");
    let account = Account::new(Ids::Own).with_cgroup("pids");
    let cgroup = account.cgroup().unwrap().display().to_string();
    let delegated = check(account);
    assert_eq!(
        entry(&delegated, "cgroup.writable"),
        ("ok".into(), cgroup.clone(), String::new())
    );
    let (status, value, advice) = entry(&delegated, "cgroup.controllers");
    assert!(
        status == "limited" && value == "pids" && advice.starts_with(&format!("{cgroup} lacks ")),
        "{value} {advice}"
    );
}

#[test]
fn without_a_state_directory() {
    needs_coracle!();
    let c = Container::new("true");
    let account = Account::new(Ids::Own);
    let mut command = account.command(runtime());
    command.args(["check", "--format", "json"]);
    let output = c.finish(command);
    assert_eq!(
        (output.code, &report(&output)["usable"]),
        (1, &json!(false))
    );
    let (status, _, advice) = entry(&report(&output), "state");
    assert!(
        status == "missing" && advice.contains("XDG_RUNTIME_DIR is not set"),
        "{advice}"
    );
    let mut command = account.command(runtime());
    command.args(["--root", "/root/state", "check"]);
    let output = c.finish(command);
    assert!(
        output.code == 1 && output.stdout.contains("cannot be written"),
        "{output:?}"
    );
}

#[test]
fn other_views_of_the_cgroups() {
    needs_coracle!();
    let none = behind("umount -l /sys/fs/cgroup");
    assert_eq!(none.code, 1, "{none:?}");
    let (status, value, _) = entry(&report(&none), "cgroup");
    assert!(
        status == "missing"
            && value.starts_with("no cgroup hierarchy is mounted at or below /sys/fs/cgroup"),
        "{value}"
    );

    let v2 = behind("umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup");
    assert_eq!(entry(&report(&v2), "cgroup").1, "v2");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    requires!(
        own.lines().any(|line| line == "0::/"),
        "the tests run in a cgroup of their own"
    );
    if has_v1_controller("memory") {
        let (status, _, advice) = entry(&report(&v2), "cgroup.controllers");
        assert!(
            status != "ok" && advice.contains("memory"),
            "what v1 has bound, v2 has not: {advice}"
        );
    }
    let readonly = behind(
        "umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && mount -o remount,bind,ro /sys/fs/cgroup",
    );
    let (status, value, advice) = entry(&report(&readonly), "cgroup.writable");
    assert_eq!((readonly.code, status.as_str()), (1, "missing"), "{value}");
    assert!(
        value.contains("cannot be written") && advice.contains("read-write"),
        "{value} {advice}"
    );

    requires!(
        hierarchy() == Hierarchy::Hybrid,
        "there is no v1 to be seen alone"
    );
    let v1 = behind("umount -l /sys/fs/cgroup/unified");
    assert_eq!(entry(&report(&v1), "cgroup").1, "v1");
    assert_eq!(entry(&report(&v1), "cgroup.kill").0, "limited");
}

#[test]
fn older_kernels_imitated() {
    needs_coracle!();
    requires!(has_program("strace"), "strace is missing");
    let without = |calls: &str| {
        behind(&format!(
            "set -- strace -f -o /dev/null -e inject={calls} \"$@\""
        ))
    };
    let old = without("mount_setattr:error=ENOSYS");
    assert_eq!(entry(&report(&old), "mount.setattr").0, "limited");
    assert_eq!(entry(&report(&old), "mount.idmap").0, "limited");
    let protection = entry(&report(&old), "binary").1;
    assert!(
        protection == "protected by a sealed copy in memory"
            || protection == "on a read-only file system",
        "{protection}"
    );
    let old = without("clone3:error=ENOSYS");
    assert_eq!(old.code, 0, "clone(2) is as good: {old:?}");
    assert_eq!(entry(&report(&old), "namespace.mount").0, "ok");
}

#[test]
fn behind_a_seccomp_filter_of_another_container() {
    needs_coracle!();
    let mut c = Container::new("/coracle --root /tmp check --format json");
    fs::copy(runtime(), c.rootfs().join("coracle")).unwrap();
    // The flags of clone3 are behind a pointer, out of a filter's sight; those of clone are not.
    let new_user = json!({ "index": 0, "value": 0x1000_0000, "valueTwo": 0x1000_0000, "op": "SCMP_CMP_MASKED_EQ" });
    c.set(
        "/linux/seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
            { "names": ["clone", "unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [new_user] },
        ] }),
    );
    c.push("/process/capabilities/bounding", json!("CAP_SYS_ADMIN"))
        .push("/process/capabilities/effective", json!("CAP_SYS_ADMIN"))
        .push("/process/capabilities/permitted", json!("CAP_SYS_ADMIN"));
    let output = c.run();
    assert_eq!(output.code, 1, "{output:?}");
    let (status, value, _) = entry(&report(&output), "namespace.user");
    assert_eq!(status, "missing");
    assert!(
        value.contains("a seccomp filter around this process denies it"),
        "{value}"
    );
}
