//! Terminals that an image prepares.

use std::fs;
use std::os::unix::fs::symlink;

use runtime_tests::{ConsoleSocket, Container, is_coracle, requires, rootless, shell};
use serde_json::json;

/// A container with a terminal in an image's own /dev.
fn with_image_dev(prepare: &str) -> Container {
    let mut c = Container::new("tty; cat < /dev/console > /dev/null; echo ran");
    c.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    c.set("/process/terminal", json!(true));
    shell(&format!("cd {} && {prepare}", c.rootfs().display()));
    c
}

/// CVE-2025-52565: the multiplexer that the container's terminal comes from is the image's. Proved without the look at the file
/// system that it is on.
#[test]
fn a_fake_multiplexer_gives_no_terminal() {
    requires!(is_coracle(), "runc 1.1 takes a terminal of the host's");
    requires!(rootless().is_none(), "root makes devices");
    for prepare in [
        "mkdir dev/pts",
        "mkdir dev/pts && echo fake > dev/pts/ptmx",
        "mkdir dev/pts && mkfifo dev/pts/ptmx",
        "mkdir dev/pts && mknod dev/pts/ptmx c 1 3",
        "mkdir dev/pts && mknod dev/pts/ptmx c 5 2",
        "mkdir dev/pts && ln -s ../ptmx dev/pts/ptmx && mknod dev/ptmx c 5 2",
        "mkdir dev/other && mknod dev/other/ptmx c 5 2 && ln -s other dev/pts",
    ] {
        let mut c = with_image_dev(prepare);
        // What a multiplexer on another file system would find beside itself.
        c.push(
            "/mounts",
            json!({ "destination": "/dev/pts/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] }),
        );
        let socket = ConsoleSocket::listen(c.dir());
        let path = socket.path.display().to_string();
        let output = c.create_with(&["--console-socket", &path]);
        assert!(
            output.code == 1 && output.message().contains("process.terminal"),
            "{prepare}: {output:?}"
        );
        c.assert_nothing_left();
    }
}

/// CVE-2025-52565: /dev/console is a link of the image's to what nobody may reach. Proved with a place that is opened by a path of the host.
#[test]
fn the_console_is_never_mounted_outside() {
    for early in [false, true] {
        let outside = tempfile::tempdir().unwrap();
        let file = outside.path().join("file");
        fs::write(&file, "untouched").unwrap();
        let mut c = with_image_dev("mkdir dev/pts");
        c.push(
            "/mounts",
            json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] }),
        );
        if early {
            c.set(
                "/hooks",
                json!({ "createRuntime": [{ "path": "/bin/true" }] }),
            );
        }
        for target in [file.clone(), outside.path().join("missing")] {
            let link = c.rootfs().join("dev/console");
            let _ = fs::remove_file(&link);
            let _ = fs::remove_file(c.dir().join("console.sock"));
            symlink(&target, &link).unwrap();
            let socket = ConsoleSocket::listen(c.dir());
            let path = socket.path.display().to_string();
            let created = c.create_with(&["--console-socket", &path]);
            assert_eq!(fs::read_to_string(&file).unwrap(), "untouched");
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
            if created.code == 0 {
                c.delete_force().ok();
            }
            c.assert_nothing_left();
        }
    }
}
