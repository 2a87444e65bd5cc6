//! What containerd hears of its tasks: everything, once, in the guaranteed order.

use runtime_tests::{Shim, containerd_version, requires};

use super::containerd;

#[test]
fn events_come_in_their_order() {
    let Some(containerd) = containerd() else {
        return;
    };
    let events = containerd.events();
    containerd
        .run(&["--detach"], "box", &["sleep", "1000000"])
        .ok();
    containerd.exec("box", &["true"]).ok();
    containerd.ctr(&["tasks", "pause", "box"]).ok();
    containerd.ctr(&["tasks", "resume", "box"]).ok();
    containerd.remove("box");
    events.wait_for("box", "delete");
    assert_eq!(
        events.of("box"),
        [
            "create",
            "start",
            "exec-added",
            "exec-started",
            "exit one",
            "paused",
            "resumed",
            "exit box",
            "delete"
        ]
    );
}

/// A process that ends at once is heard of as well, and its shim does not end before that.
#[test]
fn no_event_is_lost_of_short_tasks() {
    requires!(
        !Shim::under_test().is_runc() || containerd_version().0 < 2,
        "containerd's own shim has lost TaskDelete since 2.0 when it ends faster than it is heard"
    );
    let Some(containerd) = containerd() else {
        return;
    };
    let events = containerd.events();
    for round in 0..10 {
        let id = format!("box-{round}");
        containerd.run(&["--rm"], &id, &["true"]).ok();
        events.wait_for(&id, "delete");
        let exit = format!("exit {id}");
        assert_eq!(events.of(&id), ["create", "start", &exit, "delete"]);
    }
}
