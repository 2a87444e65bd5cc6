//! Devices: the default ones, configured ones, and what the cgroup lets a container open.

use std::os::unix::fs::symlink;

use runtime_tests::{Container, Hierarchy, View, is_coracle, is_runc_since, requires, rootless};
use serde_json::json;

#[test]
fn the_default_devices_and_links_are_there() {
    let c = Container::new(
        "for d in null zero full random urandom tty; do stat -c '%F %a %t:%T %n' /dev/$d; done;
         for l in fd stdin stdout stderr ptmx core; do echo $l $(readlink /dev/$l); done",
    );
    let seen = c.run().ok();
    for (device, number) in [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ] {
        assert!(
            seen.contains(&format!(
                "character special file 666 {number} /dev/{device}\n"
            )),
            "{device}: {seen}"
        );
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        assert!(
            seen.contains(&format!("{link} {target}\n")),
            "{link}: {seen}"
        );
    }
}

#[test]
fn the_default_devices_work() {
    let c = Container::new(
        "head -c 3 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/null; echo x > /dev/full",
    );
    let output = c.run();
    assert_eq!(output.stdout, "3\n4\n");
    assert!(output.stderr.contains("No space left"), "{output:?}");
}

#[test]
fn configured_devices_are_made() {
    requires!(
        rootless().is_none(),
        "no device is made in a user namespace"
    );
    let mut c = Container::new("stat -c '%F %a %u:%g %t:%T' /dev/fuse /dev/deep/block /dev/pipe");
    c.set("/linux/devices", json!([
        { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8 },
        { "path": "/dev/deep/block", "type": "b", "major": 7, "minor": 99, "fileMode": 0o600, "uid": 0, "gid": 0 },
        { "path": "/dev/pipe", "type": "p", "fileMode": 0o622, "uid": 0, "gid": 0 }
    ]));
    assert_eq!(
        c.run().ok(),
        "character special file 640 7:8 a:e5\nblock special file 600 0:0 7:63\nfifo 622 0:0 0:0\n"
    );
}

#[test]
fn a_configured_device_can_replace_a_default_one() {
    requires!(
        rootless().is_none(),
        "no device is made in a user namespace"
    );
    let mut c = Container::new("stat -c '%a %u %t:%T' /dev/full");
    c.set("/linux/devices", json!([{ "path": "/dev/full", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 1000, "gid": 0 }]));
    assert_eq!(c.run().ok(), "600 1000 1:5\n");
}

#[test]
fn devices_are_refused_and_allowed_on_cgroup_v1() {
    device_access_in(Hierarchy::V1);
}

#[test]
fn devices_are_refused_and_allowed_on_hybrid_cgroups() {
    device_access_in(Hierarchy::Hybrid);
}

#[test]
fn devices_are_refused_and_allowed_on_cgroup_v2() {
    device_access_in(Hierarchy::V2);
}

/// /dev/kmsg (1:11) and /dev/mem (1:1) by mknod; only the first is allowed, and only for reading.
fn device_access_in(hierarchy: Hierarchy) {
    requires!(
        rootless().is_none(),
        "no device is made in a user namespace"
    );
    let view = View::of(hierarchy);
    requires!(
        view.is_some(),
        "this machine's cgroups cannot be seen as {hierarchy:?}"
    );
    let script = "mknod /dev/kmsg c 1 11; mknod /dev/mem c 1 1; mknod /dev/zero2 c 1 5;
        dd if=/dev/kmsg of=/dev/null count=0 2>&1 && echo kmsg can be read;
        dd if=/dev/null of=/dev/kmsg count=0 conv=notrunc 2>/dev/null || echo kmsg cannot be written;
        head -c 1 /dev/mem 2>/dev/null >/dev/null || echo mem cannot be read;
        head -c 2 /dev/zero2 | wc -c";
    let mut c = Container::new(script).in_view(view.unwrap());
    c.set(
        "/linux/resources/devices",
        json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rm" },
            { "allow": true, "type": "c", "major": 1, "minor": 1, "access": "m" }
        ]),
    );
    for set in ["bounding", "effective", "permitted"] {
        c.push(&format!("/process/capabilities/{set}"), json!("CAP_SYSLOG"));
        c.push(
            &format!("/process/capabilities/{set}"),
            json!("CAP_SYS_RAWIO"),
        );
    }
    let seen = c.run().stdout;
    for line in [
        "kmsg can be read\n",
        "kmsg cannot be written\n",
        "mem cannot be read\n",
        "2\n",
    ] {
        assert!(seen.contains(line), "{line:?} in {seen:?}");
    }
}

#[test]
fn any_device_can_be_made_but_not_opened() {
    let c = Container::new("mknod /dev/disk b 254 0 && head -c 1 /dev/disk");
    let output = c.run();
    assert!(
        output.code != 0 && output.stderr.contains("Operation not permitted"),
        "{output:?}"
    );
}

#[test]
fn all_devices_can_be_allowed() {
    requires!(
        rootless().is_none(),
        "no device is made in a user namespace"
    );
    let mut c = Container::new(
        "mknod /dev/kmsg c 1 11 && dd if=/dev/kmsg of=/dev/null count=0 2>/dev/null && echo read",
    );
    c.set(
        "/linux/resources/devices",
        json!([{ "allow": true, "access": "rwm" }]),
    );
    for set in ["bounding", "effective", "permitted"] {
        c.push(&format!("/process/capabilities/{set}"), json!("CAP_SYSLOG"));
    }
    assert_eq!(c.run().ok(), "read\n");
}

#[test]
fn no_device_is_made_through_a_symlink() {
    // CVE-2026-41579, CVE-2026-47766: the image's /dev points out of the root. Proved with paths of the host, before the root is changed.
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 makes links outside"
    );
    let outside = tempfile::tempdir().unwrap();
    let mut c = Container::new("ls -l /dev/null | cut -c1");
    c.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    std::fs::remove_dir(c.rootfs().join("dev")).unwrap();
    symlink(outside.path(), c.rootfs().join("dev")).unwrap();
    let _ = c.run();
    let made: Vec<_> = std::fs::read_dir(outside.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(made.is_empty(), "made on the host: {made:?}");
}
