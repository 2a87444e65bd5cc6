//! The systemd cgroup manager: scopes, their properties, what they survive, and what happens without systemd.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use runtime_tests::{
    Container, Limit, Output, eventually, has_systemd, is_coracle, limit_of, requires, runtime,
    shell,
};
use serde_json::json;

const NO_SYSTEMD: &str =
    "systemd is not the init of this machine: the virtual machine has it (`make vm-test`)";

/// A container of systemd's, in a unit of this test's own.
fn by_systemd(script: &[&str]) -> (Container, String) {
    let mut c = Container::with_args(script).with_global_flags(&["--systemd-cgroup"]);
    let unit = format!("test-{}.scope", c.id);
    let path = format!("system.slice:test:{}", c.id);
    c.set("/linux/cgroupsPath", json!(path));
    (c, unit)
}

const IDLE: &[&str] = &["sleep", "1000000"];

fn property(unit: &str, name: &str) -> String {
    let value = shell(&format!("systemctl show --value -p {name} {unit}"));
    value.trim().to_owned()
}

#[test]
fn a_container_is_a_scope_with_a_delegated_cgroup() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (c, unit) = by_systemd(IDLE);
    c.run_detached();
    for (name, expected) in [
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("ControlGroup", &format!("/system.slice/{unit}")),
    ] {
        assert_eq!(property(&unit, name), expected, "{name}");
    }
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert!(
        cgroup.contains(&format!("/system.slice/{unit}\n")),
        "{cgroup}"
    );
    c.delete_force().ok();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    c.assert_nothing_left();
}

#[test]
fn the_cgroup_namespace_begins_at_the_scope() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (mut c, _) = by_systemd(&[
        "sh",
        "-c",
        "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max",
    ]);
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    c.set("/linux/resources/pids", json!({ "limit": 77 }));
    assert_eq!(c.run().ok(), "0::/\n77\n");
}

#[test]
fn without_a_path_the_scope_is_named_after_the_container() {
    requires!(
        has_systemd() && is_coracle(),
        "each runtime has its own name for the scope, and needs systemd"
    );
    let c = Container::idle().with_global_flags(&["--systemd-cgroup"]);
    c.run_detached();
    let unit = format!("coracle-{}.scope", c.id);
    assert_eq!(property(&unit, "ActiveState"), "active");
}

#[test]
fn a_nested_slice_is_made_and_a_slice_can_be_the_unit() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (mut c, _) = by_systemd(IDLE);
    let name = c.id.replace('-', "_");
    c.set(
        "/linux/cgroupsPath",
        json!(format!("machine-{name}.slice::inner")),
    );
    c.run_detached();
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    let expected = format!("/machine.slice/machine-{name}.slice/inner.scope\n");
    assert!(cgroup.contains(&expected), "{cgroup}");
    c.delete_force().ok();
    shell(&format!("systemctl stop machine-{name}.slice"));

    c.set(
        "/linux/cgroupsPath",
        json!(format!("system.slice:ignored:{name}.slice")),
    );
    c.run_detached();
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert!(cgroup.contains(&format!("/{name}.slice\n")), "{cgroup}");
    c.delete_force().ok();
    let state = property(&format!("{name}.slice"), "ActiveState");
    assert_eq!(state, "inactive");
}

#[test]
fn a_path_of_another_form_is_refused() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (mut c, _) = by_systemd(IDLE);
    c.set("/linux/cgroupsPath", json!("/a/b"));
    c.create().fails_with(
        1,
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead",
    );
    c.set("/linux/cgroupsPath", json!("a--b.slice:x:y"));
    c.create().fails_with(1, "invalid slice name: ");
    if is_coracle() {
        c.set("/linux/cgroupsPath", json!("system.slice:x:a b"));
        c.create().fails_with(
            1,
            "linux.cgroupsPath: \"x-a b.scope\" is not a valid name for a systemd unit",
        );
    }
    c.assert_nothing_left();
}

/// Every limit is in the cgroup, and in the unit, from where systemd writes it again.
#[test]
fn limits_are_properties_and_survive_a_daemon_reload() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (mut c, unit) = by_systemd(IDLE);
    c.set(
        "/linux/resources",
        json!({
            "devices": [{ "allow": false, "access": "rwm" }],
            "memory": { "limit": 67_108_864, "swap": 134_217_728, "reservation": 33_554_432 },
            "cpu": { "shares": 2048, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0" },
            "pids": { "limit": 55 },
        }),
    );
    c.run_detached();
    let check = |when: &str| {
        for (name, expected) in [
            ("MemoryMax", "67108864"),
            ("MemoryLow", "33554432"),
            ("MemorySwapMax", "67108864"),
            ("CPUQuotaPerSecUSec", "500ms"),
            ("AllowedCPUs", "0"),
            ("AllowedMemoryNodes", "0"),
            ("TasksMax", "55"),
            ("DevicePolicy", "strict"),
        ] {
            assert_eq!(property(&unit, name), expected, "{name} {when}");
        }
        for (limit, expected) in [
            (Limit::MEMORY, "67108864"),
            (Limit::MEMORY_RESERVATION, "33554432"),
            (Limit::CPU_QUOTA, "50000 100000"),
            (Limit::CPUS, "0"),
            (Limit::PIDS, "55"),
        ] {
            let value = limit_of(c.pid(), limit);
            assert_eq!(value.as_deref(), Some(expected), "{} {when}", limit.v2);
        }
    };
    check("at first");
    shell("systemctl daemon-reload");
    check("after a reload");
    let weight = limit_of(c.pid(), Limit::CPU_SHARES);
    assert_eq!(
        weight.as_deref(),
        Some(property(&unit, "CPUWeight").as_str())
    );
}

#[test]
fn unified_limits_are_properties_too() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (mut c, unit) = by_systemd(IDLE);
    let unified = json!({ "memory.high": "50000000", "memory.min": "8192", "pids.max": "44",
        "cpu.weight": "50", "memory.oom.group": "1" });
    c.set("/linux/resources/unified", unified);
    c.run_detached();
    shell("systemctl daemon-reload");
    for (name, expected) in [
        ("MemoryMin", "8192"),
        ("TasksMax", "44"),
        ("CPUWeight", "50"),
    ] {
        assert_eq!(property(&unit, name), expected, "{name}");
    }
    let group = Limit::new("memory", "", "memory.oom.group");
    assert_eq!(limit_of(c.pid(), group).as_deref(), Some("1"));
    let high = Limit::new("memory", "", "memory.high");
    assert_eq!(limit_of(c.pid(), high).as_deref(), Some("49999872"));
}

/// What users of GPUs complain about: a reload of systemd took their devices away.
#[test]
fn devices_survive_a_daemon_reload() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (mut c, unit) = by_systemd(IDLE);
    // The kernel's log is allowed, the machine's own memory and loop devices are not.
    c.set(
        "/linux/devices",
        json!([{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 },
               { "path": "/dev/loop", "type": "b", "major": 7, "minor": 0 }]),
    );
    c.push(
        "/linux/resources/devices",
        json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" }),
    );
    c.run_detached();
    let check = |when: &str| {
        let opened = c.exec(": > /dev/kmsg && : > /dev/null");
        assert_eq!(opened.code, 0, "{when}: {opened:?}");
        let denied = c.exec(": < /dev/loop");
        assert!(
            denied.stderr.contains("Operation not permitted"),
            "{when}: {denied:?}"
        );
    };
    check("at first");
    shell("systemctl daemon-reload");
    check("after a reload");
    // systemd puts its own list in force: that must be as good.
    shell(&format!(
        "systemctl set-property --runtime {unit} TasksMax=99"
    ));
    check("after systemd has written its properties");
    let allowed = property(&unit, "DeviceAllow");
    assert!(allowed.contains("/dev/char/1:11 rw"), "{allowed}");
}

#[test]
fn update_changes_the_unit_as_well() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (c, unit) = by_systemd(IDLE);
    c.run_detached();
    c.runtime(&[
        "update",
        "--memory",
        "50331648",
        "--pids-limit",
        "66",
        &c.id,
    ])
    .ok();
    c.runtime(&[
        "update",
        "--cpu-quota",
        "25000",
        "--cpu-period",
        "100000",
        &c.id,
    ])
    .ok();
    shell("systemctl daemon-reload");
    assert_eq!(property(&unit, "MemoryMax"), "50331648");
    assert_eq!(property(&unit, "TasksMax"), "66");
    assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), "250ms");
    assert_eq!(
        limit_of(c.pid(), Limit::MEMORY).as_deref(),
        Some("50331648")
    );
    assert_eq!(
        limit_of(c.pid(), Limit::CPU_QUOTA).as_deref(),
        Some("25000 100000")
    );
}

#[test]
fn annotations_are_unit_properties() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (mut c, unit) = by_systemd(IDLE);
    c.set(
        "/annotations",
        json!({
            "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
            "org.systemd.property.RuntimeMaxSec": "uint64 3600",
            "org.systemd.property.Description": "'a description of its own'",
            "org.systemd.property.Before": "@as ['multi-user.target']",
            "org.systemd.property.SendSIGHUP": "true",
        }),
    );
    c.run_detached();
    for (name, expected) in [
        ("TimeoutStopUSec", "7s"),
        ("RuntimeMaxUSec", "1h"),
        ("Description", "a description of its own"),
        ("SendSIGHUP", "yes"),
    ] {
        assert_eq!(property(&unit, name), expected, "{name}");
    }
    assert!(property(&unit, "Before").contains("multi-user.target"));
    c.delete_force().ok();

    c.set(
        "/annotations",
        json!({ "org.systemd.property.TimeoutStopUSec": "uint64 'x'" }),
    );
    let error = c.create().fails(1);
    assert!(error.contains("TimeoutStopUSec"), "{error}");
    c.set(
        "/annotations",
        json!({ "org.systemd.property.NoSuch": "true" }),
    );
    let error = c.create().fails(1);
    assert!(error.contains("NoSuch"), "{error}");
    c.assert_nothing_left();
}

#[test]
fn a_unit_that_is_there_is_refused_and_unharmed() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (first, unit) = by_systemd(IDLE);
    first.run_detached();
    let mut second = Container::idle().with_global_flags(&["--systemd-cgroup"]);
    second.set(
        "/linux/cgroupsPath",
        first.config["linux"]["cgroupsPath"].clone(),
    );
    let error = second.create().fails(1);
    assert!(error.contains(&unit), "{error}");
    second.delete_force().ok();
    assert_eq!(first.status(), "running");
    assert_eq!(property(&unit, "ActiveState"), "active");
}

/// A scope that has failed stays under its name until somebody resets it.
#[test]
fn a_failed_unit_of_the_same_name_gives_way() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (c, unit) = by_systemd(IDLE);
    shell(&format!(
        "systemd-run --quiet --scope --unit={unit} --property=CollectMode=inactive --property=RuntimeMaxSec=1 \
         --slice=system.slice sleep 100 || true"
    ));
    assert_eq!(property(&unit, "ActiveState"), "failed");
    c.run_detached();
    assert_eq!(property(&unit, "ActiveState"), "active");
}

#[test]
fn a_failed_create_leaves_no_unit() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (mut c, unit) = by_systemd(&["/no/such/program"]);
    c.create().fails_with(1, "/no/such/program");
    assert_eq!(property(&unit, "LoadState"), "not-found");
    // The unit is made, and then the limit turns out to be one that the kernel does not take.
    c.set("/linux/resources/unified", json!({ "memory.nosuch": "1" }));
    let error = c.create().fails(1);
    assert!(error.contains("memory.nosuch"), "{error}");
    assert_eq!(property(&unit, "LoadState"), "not-found");
    c.assert_nothing_left();
}

#[test]
fn a_container_over_its_memory_limit_is_killed() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (mut c, unit) = by_systemd(&["sh", "-c", "exec tail /dev/zero"]);
    c.set(
        "/linux/resources/memory",
        json!({ "limit": 16_777_216, "swap": 16_777_216 }),
    );
    c.run().exits(137);
    eventually("the unit goes", || {
        (property(&unit, "LoadState") == "not-found").then_some(())
    });
}

/// As for want of memory. It waits for the end of the cgroup then, and hears of nothing when that is removed under its hands.
#[test]
fn a_unit_that_systemd_is_stopping_can_be_deleted() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    for _ in 0..10 {
        let (c, unit) = by_systemd(IDLE);
        c.run_detached();
        // A first process of a pid namespace does not mind SIGTERM.
        shell(&format!("systemctl stop --no-block {unit}"));
        c.delete_force().ok();
        assert_eq!(property(&unit, "LoadState"), "not-found");
    }
}

#[test]
fn pause_and_exec_work_in_a_scope() {
    requires!(has_systemd(), "{NO_SYSTEMD}");
    let (c, unit) = by_systemd(IDLE);
    c.run_detached();
    c.runtime(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    c.runtime(&["resume", &c.id]).ok();
    let cgroup = c.exec("cat /proc/self/cgroup").ok();
    assert!(
        cgroup
            .trim_end()
            .ends_with(&format!("/system.slice/{unit}")),
        "{cgroup}"
    );
}

/// The user that the virtual machine has for this.
const TESTER: u32 = 1000;

/// The runtime as an ordinary user with a manager of their own.
fn as_tester(c: &Container, args: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=1000", "--regid=1000", "--clear-groups"])
        .arg(runtime())
        .arg("--root")
        .arg(c.dir().join("tester"))
        .arg("--systemd-cgroup")
        .args(args)
        .env("XDG_RUNTIME_DIR", format!("/run/user/{TESTER}"))
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .stdin(Stdio::null());
    c.to_files(command)
}

#[test]
fn an_ordinary_users_container_is_their_managers() {
    requires!(
        has_systemd() && Path::new("/home/tester").exists(),
        "an ordinary user with a systemd manager is needed: the virtual machine has one (`make vm-test`)"
    );
    shell("loginctl enable-linger tester");
    let manager = format!("/run/user/{TESTER}/systemd/private");
    eventually("the user's manager runs", || {
        Path::new(&manager).exists().then_some(())
    });
    let (mut c, _) = by_systemd(IDLE);
    let path = format!("user.slice:test:{}", c.id);
    c.set("/linux/cgroupsPath", json!(path));
    let id_map = json!([{ "containerID": 0, "hostID": TESTER, "size": 1 }]);
    c.set("/linux/uidMappings", id_map.clone());
    c.set("/linux/gidMappings", id_map);
    for kind in ["user", "cgroup"] {
        c.push("/linux/namespaces", json!({ "type": kind }));
    }
    c.set(
        "/linux/resources",
        json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 55 } }),
    );
    // There is only one group in the namespace.
    let devpts = c.config["mounts"][2].clone();
    assert_eq!(devpts["type"], "devpts");
    c.set(
        "/mounts/2/options",
        json!([
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620"
        ]),
    );
    c.write_config();
    shell(&format!(
        "chown -R {TESTER}:{TESTER} {}",
        c.rootfs().display()
    ));
    fs::create_dir(c.dir().join("tester")).unwrap();
    shell(&format!(
        "chown {TESTER} {}",
        c.dir().join("tester").display()
    ));
    let bundle = c.bundle().display().to_string();
    let delete = || as_tester(&c, &["delete", "--force", &c.id]);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        as_tester(&c, &["run", "--detach", "--bundle", &bundle, &c.id]).ok();
        let state = as_tester(&c, &["state", &c.id]).ok();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        let pid = state["pid"].as_i64().unwrap();
        assert_eq!(limit_of(pid, Limit::MEMORY).as_deref(), Some("67108864"));
        assert_eq!(limit_of(pid, Limit::PIDS).as_deref(), Some("55"));
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let scope = format!("/user@{TESTER}.service/user.slice/test-{}.scope\n", c.id);
        assert!(cgroup.ends_with(&scope), "{cgroup}");
        // These tests run outside of the user's part of the tree, from where the user may move nothing into it.
        let inside = as_tester(&c, &["exec", &c.id, "cat", "/proc/self/cgroup"]).ok();
        assert_eq!(inside, "0::/\n");
        as_tester(&c, &["update", "--pids-limit", "44", &c.id]).ok();
        assert_eq!(limit_of(pid, Limit::PIDS).as_deref(), Some("44"));
        as_tester(&c, &["pause", &c.id]).ok();
        as_tester(&c, &["resume", &c.id]).ok();
        delete().ok();
        c.assert_nothing_left();
    }));
    if let Err(panic) = result {
        let _ = delete();
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn an_ordinary_user_without_a_manager_is_told_so() {
    requires!(is_coracle(), "the words are Coracle's own");
    let c = Container::idle();
    c.write_config();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=4999", "--regid=4999", "--clear-groups"])
        .arg(runtime())
        .args([
            "--root",
            "/tmp/nowhere",
            "--systemd-cgroup",
            "create",
            "--bundle",
        ])
        .arg(c.bundle())
        .arg(&c.id)
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("DBUS_SESSION_BUS_ADDRESS");
    let output = c.finish(command);
    let message = output.message();
    output.fails(1);
    for words in [
        "connect to systemd: /run/user/4999/systemd/private: No such file or directory",
        "the systemd cgroup manager needs the user's systemd, which a login or `loginctl enable-linger` starts",
    ] {
        assert!(message.contains(words), "{message}");
    }
}

/// The runtime's view of a machine whose init is something else.
fn without_systemd(c: &Container, name: &str) -> Output {
    c.write_config();
    let hide = "for dir in /run/systemd /run/dbus; do [ ! -d $dir ] || mount -t tmpfs none $dir; done; exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", hide, "sh"])
        .arg(runtime())
        .args(["--systemd-cgroup", "--root"])
        .arg(c.state_root())
        .args([name, "--bundle"])
        .arg(c.bundle())
        .arg(&c.id)
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .stdin(Stdio::null());
    c.finish(command)
}

#[test]
fn without_systemd_the_error_says_what_is_missing() {
    let c = Container::idle();
    let output = without_systemd(&c, "create");
    if is_coracle() {
        let message = output.message();
        output.fails(1);
        for words in [
            "connect to systemd: /run/systemd/private: No such file or directory",
            "the systemd cgroup manager needs systemd as init; use the cgroupfs manager without it",
        ] {
            assert!(message.contains(words), "{message}");
        }
    } else {
        assert_ne!(output.code, 0, "{output:?}");
    }
    c.assert_nothing_left();
}

#[test]
fn a_container_can_be_deleted_when_systemd_has_gone() {
    requires!(has_systemd() && is_coracle(), "{NO_SYSTEMD}");
    let (c, unit) = by_systemd(IDLE);
    c.run_detached();
    let mut command = Command::new("unshare");
    let hide = "mount -t tmpfs none /run/systemd; exec \"$@\"";
    command
        .args(["--mount", "sh", "-c", hide, "sh"])
        .arg(runtime())
        .arg("--root")
        .arg(c.state_root())
        .args(["delete", "--force", &c.id]);
    let output = c.finish(command);
    assert!(
        output
            .stderr
            .contains(&format!("systemd unit {unit} is left to itself")),
        "{output:?}"
    );
    output.ok();
    eventually("systemd notices by itself", || {
        (property(&unit, "LoadState") == "not-found").then_some(())
    });
}

/// The whole of systemd as a container's first process: it takes its cgroup over, moves itself below, and starts a service.
#[test]
fn systemd_runs_as_a_containers_init() {
    let systemd = "/usr/lib/systemd/systemd";
    requires!(has_systemd() && Path::new(systemd).exists(), "{NO_SYSTEMD}");
    let (mut c, unit) = by_systemd(&[systemd, "--unit=probe.service", "--log-target=null"]);
    let dir = c.dir().join("overlay");
    let service = dir.join("upper/etc/systemd/system/probe.service");
    for part in ["upper", "work"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
    fs::create_dir_all(service.parent().unwrap()).unwrap();
    fs::write(
        service,
        "[Unit]\nDefaultDependencies=no\n[Service]\nTasksMax=5\nExecStart=/bin/sleep 1000000\n",
    )
    .unwrap();
    let rootfs = c.rootfs();
    shell(&format!(
        "mount -t overlay -o lowerdir=/,upperdir={0}/upper,workdir={0}/work overlay {1}",
        dir.display(),
        rootfs.display()
    ));
    for place in ["/run", "/tmp"] {
        c.push(
            "/mounts",
            json!({ "destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] }),
        );
    }
    let cgroup = c.config["mounts"].as_array().unwrap().len() - 3;
    assert_eq!(c.config["mounts"][cgroup]["type"], "cgroup");
    c.set(
        &format!("/mounts/{cgroup}/options"),
        json!(["nosuid", "noexec", "nodev", "rw"]),
    );
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    c.push("/process/env", json!("container=oci"));
    let started = c.run_with(&["--detach"]);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        started.ok();
        let below = format!("/sys/fs/cgroup/system.slice/{unit}/system.slice/probe.service");
        eventually("the service has its cgroup", || {
            let tasks = fs::read_to_string(format!("{below}/pids.max")).ok()?;
            (tasks.trim() == "5").then_some(())
        });
        // Its root cgroup hands controllers down by now, so nothing may live there: exec goes where the init is.
        let inside = c.exec("cat /proc/self/cgroup").ok();
        assert_eq!(inside, "0::/init.scope\n");
        c.delete_force().ok();
        assert_eq!(property(&unit, "LoadState"), "not-found");
    }));
    let _ = c.delete_force();
    shell(&format!("umount -l {}", rootfs.display()));
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
