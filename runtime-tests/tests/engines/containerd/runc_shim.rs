//! The runtime under test below containerd's own shim, which knows it as a replacement of runc.

use runtime_tests::{Containerd, Shim, has_controller, requires};

fn containerd() -> Option<Containerd> {
    super::above(Shim::runc)
}

#[test]
fn output_and_exit_status() {
    let Some(containerd) = containerd() else {
        return;
    };
    super::tasks::shows_output_and_exit_status(&containerd);
}

#[test]
fn a_task_from_run_to_delete() {
    let Some(containerd) = containerd() else {
        return;
    };
    super::tasks::lives_from_run_to_delete(&containerd);
}

#[test]
fn limits_and_metrics() {
    requires!(
        has_controller("memory") && has_controller("cpu"),
        "a controller is missing"
    );
    let Some(containerd) = containerd() else {
        return;
    };
    super::limits::are_set_and_measured(&containerd);
}

#[test]
fn a_kill_for_want_of_memory_is_an_event() {
    requires!(has_controller("memory"), "no memory controller");
    let Some(containerd) = containerd() else {
        return;
    };
    super::limits::tell_of_a_kill(&containerd);
}
