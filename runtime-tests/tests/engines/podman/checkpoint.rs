//! `podman container checkpoint` and `restore`: by criu, also as an archive for another machine.

use runtime_tests::{Engine, assert_count_goes_on, count_in, counting, has_criu, requires};

use super::{IMAGE, engine};

/// Starts a container called `box` that counts.
fn start_counting(engine: &Engine) {
    let run = ["run", "-d", "--name", "box", "--tmpfs", "/scratch", IMAGE];
    engine
        .podman(&[&run[..], &["sh", "-c", &counting("/scratch")]].concat())
        .ok();
}

/// What a container has written down.
fn count(engine: &Engine, name: &str) -> Option<String> {
    let output = engine.podman(&["exec", name, "cat", "/scratch/count"]);
    Some(output.stdout).filter(|_| output.code == 0)
}

fn status(engine: &Engine) -> String {
    let format = "{{.State.Status}} {{.State.Checkpointed}}";
    engine.podman(&["inspect", "--format", format, "box"]).ok()
}

#[test]
fn a_count_in_memory_goes_on() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let engine = engine!();
    start_counting(&engine);
    let before = count_in(|| count(&engine, "box"));
    engine.podman(&["container", "checkpoint", "box"]).ok();
    assert_eq!(status(&engine), "exited true\n");
    engine.podman(&["container", "restore", "box"]).ok();
    assert_eq!(status(&engine), "running false\n");
    assert_count_goes_on(before, || count(&engine, "box"));
    engine.podman(&["stop", "-t", "0", "box"]).ok();
    assert_eq!(engine.podman(&["wait", "box"]).ok(), "137\n");
}

#[test]
fn it_may_be_left_running() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let engine = engine!();
    start_counting(&engine);
    let before = count_in(|| count(&engine, "box"));
    engine
        .podman(&["container", "checkpoint", "--leave-running", "box"])
        .ok();
    assert!(status(&engine).starts_with("running "));
    assert_count_goes_on(before, || count(&engine, "box"));
}

#[test]
fn an_archive_becomes_a_container_of_another_name() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let engine = engine!();
    start_counting(&engine);
    // What it has changed in its root file system is in the archive as well.
    engine
        .podman(&["exec", "box", "sh", "-c", "echo kept > /file"])
        .ok();
    let before = count_in(|| count(&engine, "box"));
    let archive = engine.path("checkpoint.tar.gz").display().to_string();
    engine
        .podman(&["container", "checkpoint", "--export", &archive, "box"])
        .ok();
    engine.podman(&["rm", "box"]).ok();
    engine
        .podman(&[
            "container",
            "restore",
            "--import",
            &archive,
            "--name",
            "other",
        ])
        .ok();
    assert_count_goes_on(before, || count(&engine, "other"));
    let file = engine.podman(&["exec", "other", "cat", "/file"]);
    assert_eq!(file.ok(), "kept\n");
}
