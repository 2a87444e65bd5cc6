//! `state`: what engines read, and who may read the files behind it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use runtime_tests::{Container, eventually, is_coracle, requires};
use serde_json::json;

#[test]
fn state_tells_all_that_the_specification_and_engines_ask() {
    let mut c = Container::idle();
    c.set("/annotations", json!({ "org.example.key": "value" }));
    c.run_detached();
    let state = c.state();
    assert_eq!(state["id"], c.id.as_str());
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], c.bundle().to_string_lossy().as_ref());
    assert_eq!(state["rootfs"], c.rootfs().to_string_lossy().as_ref());
    assert_eq!(state["annotations"], json!({ "org.example.key": "value" }));
    assert!(state["owner"].is_string());
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    let created = state["created"].as_str().unwrap();
    assert!(
        created.len() >= 20 && created.contains('T') && created.ends_with('Z'),
        "RFC 3339 in UTC: {created}"
    );
    let comm = format!("/proc/{}/comm", state["pid"]);
    eventually("pid is the container's init", || {
        (fs::read_to_string(&comm).unwrap() == "sleep\n").then_some(())
    });
}

#[test]
fn state_is_indented_by_two_and_alone_on_its_streams() {
    let c = Container::idle();
    c.create().ok();
    let output = c.runtime(&["state", &c.id]);
    assert!(
        output.stdout.starts_with("{\n  \"ociVersion\": "),
        "{output:?}"
    );
    assert!(
        output.stdout.ends_with('}'),
        "no newline at the end: {output:?}"
    );
    assert_eq!(output.stderr, "");
}

#[test]
fn a_stopped_container_has_pid_0() {
    let c = Container::new("true");
    c.run_with(&["--keep"]).ok();
    let state = c.state();
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&json!("stopped"), &json!(0))
    );
}

#[test]
fn a_container_killed_behind_the_runtimes_back_is_stopped() {
    let c = Container::idle();
    c.run_detached();
    runtime_tests::shell(&format!("kill -9 {}", c.pid()));
    c.wait_for("stopped");
    c.delete().ok();
    c.assert_nothing_left();
}

#[test]
fn state_files_are_for_their_owner_only() {
    let c = Container::idle();
    c.run_detached();
    let dir = c.state_root().join(&c.id);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
    // CVE-2024-25621. Proved with the umask's modes for the directories, and for the files. runc leaves the search bit to others.
    let forbidden = if is_coracle() { 0o077 } else { 0o066 };
    assert_eq!(mode(&dir) & forbidden, 0, "{:o}", mode(&dir));
    if is_coracle() {
        assert_eq!(
            mode(c.state_root()) & 0o077,
            0,
            "{:o}",
            mode(c.state_root())
        );
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(
                mode(&path) & 0o077,
                0,
                "{}: {:o}",
                path.display(),
                mode(&path)
            );
        }
    }
}

/// How far a container has got is known by the record's mode, at one look; a copy of the state root need not have it.
#[test]
fn the_mode_of_the_record_is_only_a_shorter_way() {
    requires!(is_coracle(), "it marks no record");
    let c = Container::idle();
    c.create().ok();
    let file = c.state_root().join(&c.id).join("state.json");
    let mode = || fs::metadata(&file).unwrap().mode() & 0o7777;
    // The second is what a `start` leaves that was killed.
    let without = [0o600, 0o1700].map(Permissions::from_mode);
    assert_eq!((c.status().as_str(), mode()), ("created", 0o1600));
    for mode in without.clone() {
        fs::set_permissions(&file, mode).unwrap();
        assert_eq!(c.status(), "created");
    }
    c.start().ok();
    assert_eq!((c.status().as_str(), mode()), ("running", 0o700));
    for mode in without {
        fs::set_permissions(&file, mode).unwrap();
        assert_eq!(c.status(), "running");
        c.exec("true").ok();
    }
    let again = c.start();
    assert!(
        again
            .stderr
            .contains("cannot start an already running container"),
        "{again:?}"
    );
    c.kill("KILL").ok();
    eventually("it has stopped", || (c.status() == "stopped").then_some(()));
}

#[test]
fn a_damaged_state_is_an_error_and_delete_force_cleans_up() {
    let c = Container::idle();
    c.run_detached();
    let pid = c.pid();
    let file = c.state_root().join(&c.id).join("state.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    let output = c.runtime(&["state", &c.id]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(!output.stderr.is_empty());
    if is_coracle() {
        c.delete_force().ok();
        c.assert_nothing_left();
        assert!(
            !fs::exists(format!("/proc/{pid}/exe")).unwrap()
                || fs::read_link(format!("/proc/{pid}/exe")).is_err()
        );
    } else {
        // runc cannot clean up after this: mend what the test broke.
        fs::write(&file, text).unwrap();
    }
}
