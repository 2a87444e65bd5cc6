//! `pause` and `resume`.

use runtime_tests::{Container, eventually, has_cgroup, is_coracle, requires};

#[test]
fn a_paused_container_does_nothing_until_resumed() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    let c = Container::new("n=0; while :; do n=$((n + 1)); echo $n; usleep 10000; done");
    c.run_detached();
    c.wait_to_say("3\n");
    c.runtime(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    let frozen = c.said();
    assert_eq!(c.said(), frozen);
    c.runtime(&["resume", &c.id]).ok();
    assert_eq!(c.status(), "running");
    eventually("it goes on", || {
        (c.said().len() > frozen.len()).then_some(())
    });
}

#[test]
fn pause_twice_and_resume_twice_are_refused() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    let c = Container::idle();
    c.run_detached();
    c.runtime(&["resume", &c.id])
        .fails_with(1, "container not paused");
    c.runtime(&["pause", &c.id]).ok();
    let again = c.runtime(&["pause", &c.id]);
    assert_eq!(again.code, 1, "{again:?}");
    c.runtime(&["resume", &c.id]).ok();
    c.runtime(&["resume", &c.id])
        .fails_with(1, "container not paused");
}

#[test]
fn pause_of_a_stopped_container_is_refused() {
    let c = Container::new("true");
    c.run_with(&["--keep"]).ok();
    let output = c.runtime(&["pause", &c.id]);
    assert_eq!(output.code, 1);
    assert!(
        output.message().contains("container not running"),
        "{output:?}"
    );
}

#[test]
fn kill_of_a_paused_container_ends_it() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    let c = Container::idle();
    c.run_detached();
    c.runtime(&["pause", &c.id]).ok();
    c.kill("KILL").ok();
    if !is_coracle() {
        // On cgroup v1 runc 1.1 leaves it frozen.
        let _ = c.runtime(&["resume", &c.id]);
    }
    c.wait_for("stopped");
    c.delete().ok();
    c.assert_nothing_left();
}

#[test]
fn a_created_container_can_be_paused() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    let c = Container::new("echo started; sleep 1000000");
    c.create().ok();
    c.runtime(&["pause", &c.id]).ok();
    c.runtime(&["resume", &c.id]).ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    c.wait_to_say("started\n");
}
