//! Masked and read-only paths.

use std::fs;
use std::os::unix::fs::symlink;

use runtime_tests::{Container, is_coracle, is_runc_since, kernel_since, requires, rootless};
use serde_json::json;

#[test]
fn a_masked_file_is_empty_and_a_masked_directory_too() {
    requires!(
        !is_runc_since(1, 3),
        "runc 1.3 reads cap_last_cap below what it has masked"
    );
    let mut c = Container::new(
        "cat /secret /proc/version; ls -A /hidden; ls /proc/sys | wc -l; touch /hidden/x",
    );
    fs::write(c.rootfs().join("secret"), "secret\n").unwrap();
    fs::create_dir(c.rootfs().join("hidden")).unwrap();
    fs::write(c.rootfs().join("hidden/file"), "secret\n").unwrap();
    c.set(
        "/linux/maskedPaths",
        json!([
            "/secret",
            "/hidden",
            "/proc/version",
            "/proc/sys",
            "/nonesuch"
        ]),
    );
    let output = c.run();
    assert_eq!(output.stdout, "0\n", "{output:?}");
    assert!(
        output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
    assert!(
        !c.rootfs().join("nonesuch").exists(),
        "what does not exist needs no mask"
    );
}

#[test]
fn read_only_paths_refuse_writing() {
    let mut c =
        Container::new("cat /kept; echo x > /kept; echo 1 > /proc/sys/kernel/msgmax; touch /dir/x");
    fs::write(c.rootfs().join("kept"), "kept\n").unwrap();
    fs::create_dir(c.rootfs().join("dir")).unwrap();
    c.set(
        "/linux/readonlyPaths",
        json!(["/kept", "/dir", "/proc/sys", "/nonesuch"]),
    );
    let output = c.run();
    assert_eq!(output.stdout, "kept\n");
    assert_eq!(
        output.stderr.matches("Read-only file system").count(),
        3,
        "{output:?}"
    );
}

#[test]
fn without_them_the_paths_are_open() {
    requires!(
        rootless().is_none() || kernel_since(5, 19),
        "root of a user namespace sets kernel.* since Linux 5.19"
    );
    let mut c = Container::new(
        "cat /proc/sys/kernel/msgmax > /dev/null; echo 4321 > /proc/sys/kernel/msgmax && cat /proc/sys/kernel/msgmax",
    );
    c.unset("/linux/readonlyPaths").unset("/linux/maskedPaths");
    assert_eq!(c.run().ok(), "4321\n");
}

#[test]
fn many_masked_paths() {
    let mut c = Container::new("cat /many/* | wc -c");
    fs::create_dir(c.rootfs().join("many")).unwrap();
    let paths: Vec<String> = (0..200).map(|n| format!("/many/{n}")).collect();
    for path in &paths {
        fs::write(c.rootfs().join(&path[1..]), "secret").unwrap();
    }
    c.set("/linux/maskedPaths", json!(paths));
    assert_eq!(c.run().ok(), "0\n");
}

#[test]
fn a_fake_dev_null_in_the_image_masks_nothing_else() {
    // CVE-2025-31133, CVE-2025-62161: /dev/null is a link to what must not be had. Proved with devices that are not looked at when they are
    // there already, a link that is followed, and its number not looked at: each of the three is enough.
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 does not come back from it"
    );
    let mut c = Container::new("cat /masked; cat /target");
    c.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    fs::write(c.rootfs().join("target"), "target\n").unwrap();
    fs::write(c.rootfs().join("masked"), "secret\n").unwrap();
    symlink("/target", c.rootfs().join("dev/null")).unwrap();
    c.set("/linux/maskedPaths", json!(["/masked"]));
    let output = c.run();
    assert!(!output.stdout.contains("secret"), "{output:?}");
    assert!(
        output.code == 1 || output.stdout == "target\n",
        "refused, or masked by the real null device: {output:?}"
    );
}

#[test]
fn a_masked_path_behind_a_symlink_stays_inside() {
    let mut c = Container::new("echo fine");
    symlink("/etc", c.rootfs().join("link")).unwrap();
    c.set(
        "/linux/maskedPaths",
        json!(["/link/hostname-of-the-host", "/link/passwd"]),
    );
    assert_eq!(c.run().ok(), "fine\n");
    assert!(runtime_tests::read_text("/etc/passwd".as_ref()).contains("root:"));
}
