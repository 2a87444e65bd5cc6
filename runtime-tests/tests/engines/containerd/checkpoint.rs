//! `ctr containers checkpoint` and `restore`, `ctr tasks checkpoint`: by criu, whose files containerd keeps as an image.

use runtime_tests::{Shim, assert_count_goes_on, count_in, counting, has_criu, requires};

use super::{above, containerd};

#[test]
fn a_count_in_memory_goes_on_in_another_container() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let Some(containerd) = containerd() else {
        return;
    };
    let count = |id: &str| {
        let output = containerd.exec(id, &["cat", "/dev/shm/count"]);
        Some(output.stdout).filter(|_| output.code == 0)
    };
    let script = counting("/dev/shm");
    containerd
        .run(&["--detach"], "box", &["sh", "-c", &script])
        .ok();
    let before = count_in(|| count("box"));
    let checkpoint = "localhost/checkpoint:1";
    let flags = ["containers", "checkpoint", "--task", "box", checkpoint];
    containerd.ctr(&flags).ok();
    containerd.wait_for("box", "RUNNING");
    assert_count_goes_on(before.clone(), || count("box"));
    containerd.remove("box");

    let flags = ["containers", "restore", "--live", "again", checkpoint];
    containerd.ctr(&flags).ok();
    containerd.wait_for("again", "RUNNING");
    assert_count_goes_on(before, || count("again"));
    containerd.remove("again");
}

/// `ctr` says so only to containerd's own shim.
#[test]
fn a_container_may_end_with_its_checkpoint() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let Some(containerd) = above(Shim::runc) else {
        return;
    };
    containerd
        .run(&["--detach"], "box", &["sleep", "1000000"])
        .ok();
    let flags = ["tasks", "checkpoint", "--exit", "box"];
    containerd.ctr(&flags).ok();
    containerd.wait_for("box", "STOPPED");
    let deleted = containerd.ctr(&["tasks", "delete", "box"]);
    assert!(deleted.stderr.contains("exit code 137"), "{deleted:?}");
    containerd.ctr(&["containers", "delete", "box"]).ok();
}
