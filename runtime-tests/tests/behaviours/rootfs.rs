//! The root filesystem.

use std::fs;

use runtime_tests::Container;
use serde_json::json;

#[test]
fn the_root_is_the_bundles_and_nothing_of_the_host_is_seen() {
    let c = Container::new("cat /mark; ls -A /");
    fs::write(c.rootfs().join("mark"), "mine\n").unwrap();
    let seen = c.run().ok();
    assert!(seen.starts_with("mine\n"), "{seen}");
    assert!(!seen.contains("boot") && !seen.contains("work"), "{seen}");
}

#[test]
fn a_writable_root_keeps_what_is_written() {
    let c = Container::new("echo kept > /kept");
    c.run().ok();
    assert_eq!(
        fs::read_to_string(c.rootfs().join("kept")).unwrap(),
        "kept\n"
    );
}

#[test]
fn a_read_only_root_refuses_writing() {
    let mut c = Container::new("touch /x");
    c.set("/root/readonly", json!(true));
    let output = c.run();
    assert!(
        output.code != 0 && output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
    assert!(!c.rootfs().join("x").exists());
}

#[test]
fn a_read_only_root_still_has_its_mounts_writable() {
    let mut c = Container::new("touch /dev/shm/x /tmp/x && echo both");
    c.set("/root/readonly", json!(true));
    c.push(
        "/mounts",
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }),
    );
    assert_eq!(c.run().ok(), "both\n");
}

#[test]
fn a_read_only_root_gets_missing_mount_points() {
    let mut c = Container::new("grep -c ' /new/place ' /proc/self/mountinfo");
    c.set("/root/readonly", json!(true));
    c.push(
        "/mounts",
        json!({ "destination": "/new/place", "type": "tmpfs", "source": "tmpfs" }),
    );
    assert_eq!(c.run().ok(), "1\n");
}

#[test]
fn the_old_root_is_gone() {
    let c = Container::new("cat /proc/self/mountinfo");
    let info = c.run().ok();
    let places: Vec<&str> = info
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    assert_eq!(
        places.iter().filter(|place| **place == "/").count(),
        1,
        "{info}"
    );
    let strange = places.iter().find(|place| {
        !["/", "/proc", "/dev", "/sys"].iter().any(|known| {
            *place == known
                || place.starts_with(&format!("{}/", known.trim_end_matches('/'))) && *known != "/"
        })
    });
    assert_eq!(strange, None, "{info}");
}

#[test]
fn the_root_can_be_an_absolute_path() {
    let mut c = Container::new("echo absolute");
    let rootfs = c.rootfs();
    c.set("/root/path", json!(rootfs));
    assert_eq!(c.run().ok(), "absolute\n");
}

#[test]
fn two_containers_can_share_a_root() {
    let mut a = Container::idle();
    let b = Container::new("echo from b");
    let rootfs = b.rootfs();
    a.set("/root/path", json!(rootfs));
    a.run_detached();
    assert_eq!(b.run().ok(), "from b\n");
    assert_eq!(a.exec("echo still").ok(), "still\n");
}
