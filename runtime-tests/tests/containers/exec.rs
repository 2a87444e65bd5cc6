//! `exec` in containers of images, as people know it from Docker.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use runtime_tests::{Store, by_systemd, shell};

/// A store whose root file system knows a user.
fn store() -> Store {
    let store = Store::new();
    let etc = store.rootfs().join("etc");
    fs::create_dir_all(&etc).unwrap();
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n";
    fs::write(etc.join("passwd"), passwd).unwrap();
    fs::write(etc.join("group"), "root:x:0:\nlogs:x:50:web\nother:x:60:\n").unwrap();
    store
}

#[test]
fn users_are_known_by_name() {
    let store = store();
    store.detached("web", &["-e", "A=1"], "sleep 1000");
    let ids = "id -u; id -g; id -G; echo $HOME; grep CapEff /proc/self/status";
    let exec = |flags: &[&str], script: &str| {
        let args = [&["exec"], flags, &["web", "sh", "-c", script]].concat();
        store.coracle(&args)
    };
    let none = "CapEff:\t0000000000000000\n";
    let expected = format!("33\n34\n34 50\n/srv\n{none}");
    assert_eq!(exec(&["-u", "web"], ids).ok(), expected);
    let expected = format!("33\n60\n60\n/srv\n{none}");
    assert_eq!(exec(&["-u", "web:other"], ids).ok(), expected);
    let expected = format!("7\n0\n0\n/\n{none}");
    assert_eq!(exec(&["-u", "7"], ids).ok(), expected);
    // What is in force is the container's file as it is now.
    let new = "echo new:x:44:44::/new:/bin/sh >> /etc/passwd";
    exec(&[], new).ok();
    assert!(
        exec(&["-u", "new"], ids)
            .ok()
            .starts_with("44\n44\n44\n/new\n")
    );
    exec(&["-u", "nobody"], "true").fails_with(125, "no such user");
    exec(&["-u", "4294967296"], "true").fails(125);
    exec(&[], "rm /etc/passwd; mkfifo /etc/passwd").ok();
    exec(&["-u", "web"], "true").fails_with(125, "not a regular file");
}

#[test]
fn flags_mean_what_they_mean_to_docker() {
    let store = store();
    store.detached("web", &["-e", "A=1", "--cap-drop", "all"], "sleep 1000");
    let exec = |flags: &[&str], script: &str| {
        let args = [&["exec"], flags, &["web", "sh", "-c", script]].concat();
        store.coracle(&args)
    };
    let said = exec(&["-e", "A=2", "-e", "B=3", "-w", "/tmp"], "echo $A$B; pwd");
    assert_eq!(said.ok(), "23\n/tmp\n");
    let effective = "grep CapEff /proc/self/status";
    assert_eq!(exec(&[], effective).ok(), "CapEff:\t0000000000000000\n");
    let all = exec(&["--privileged"], effective).ok();
    assert_ne!(all, "CapEff:\t0000000000000000\n");
    assert_eq!(exec(&["-d"], "echo unseen; touch /tmp/there").ok(), "");
    runtime_tests::eventually("the detached process has run", || {
        (exec(&[], "test -e /tmp/there").code == 0).then_some(())
    });
    store
        .coracle(&["exec", "web", "nothing-like-this"])
        .fails(127);
    store.coracle(&["exec", "web", "/etc"]).fails(126);
    let mut command = store.command(&["exec", "web", "printf", "%s"]);
    command.arg(OsStr::from_bytes(b"\xfe"));
    assert_eq!(command.output().expect("it starts").stdout, b"\xfe");
    exec(&[], "exit 7").exits(7);
    store.coracle(&["stop", "-t", "0", "web"]).ok();
    exec(&[], "true").fails_with(125, "cannot exec in a stopped container");
}

#[test]
fn input_is_for_who_asks_for_it() {
    let store = store();
    store.detached("web", &[], "sleep 1000");
    for (flags, said) in [(&["exec", "-i"][..], "hello\nend\n"), (&["exec"], "end\n")] {
        let args = [flags, &["web", "sh", "-c", "cat; echo end"]].concat();
        let mut child = store
            .command(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"hello\n");
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{flags:?}");
    }
    let mut terminal = runtime_tests::Terminal::open();
    let run = store.command(&["exec", "-it", "web", "sh"]);
    let mut child = terminal.start(&run);
    terminal.type_in("echo $TERM $((40+2)); exit 3\n");
    terminal.wait_to_see("xterm 42");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_bundles_container_is_told_in_numbers() {
    let store = store();
    let bundle = store.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    shell(&format!(
        "cp -a {} {}/rootfs",
        store.rootfs().display(),
        bundle.display()
    ));
    store
        .coracle(&["spec", "-b", bundle.to_str().unwrap()])
        .ok();
    let config = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    spec["process"]["args"] = serde_json::json!(["sleep", "1000"]);
    spec["process"]["terminal"] = false.into();
    spec["linux"]["cgroupsPath"] = match by_systemd() {
        true => format!("{}.slice:coracle:bundle", store.parent),
        false => format!("/{}/bundle", store.parent),
    }
    .into();
    fs::write(&config, spec.to_string()).unwrap();
    store
        .coracle(&["run", "-d", "-b", bundle.to_str().unwrap(), "bundle"])
        .ok();
    let output = store.coracle(&["exec", "-u", "web", "bundle", "true"]);
    let privileged = store.coracle(&["exec", "--privileged", "bundle", "true"]);
    store.coracle(&["delete", "--force", "bundle"]).ok();
    output.fails_with(255, "expected uid[:gid], in numbers");
    privileged.fails_with(255, "--privileged is for containers of images");
}
