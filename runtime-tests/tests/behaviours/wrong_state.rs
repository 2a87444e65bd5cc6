//! Commands on a container that does not exist, or is in the wrong state for them.

use runtime_tests::{Container, has_cgroup, is_coracle, requires};

#[test]
fn a_container_that_does_not_exist() {
    let c = Container::new("true");
    let commands: [&[&str]; 10] = [
        &["start"],
        &["state"],
        &["kill"],
        &["delete"],
        &["pause"],
        &["resume"],
        &["update"],
        &["events"],
        &["ps"],
        &["update", "--pids-limit", "5"],
    ];
    for command in commands {
        let mut args = command.to_vec();
        args.push(&c.id);
        let output = c.runtime(&args);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(
            output.message().contains("container does not exist"),
            "{output:?}"
        );
        assert_eq!(output.stdout, "");
    }
    c.exec("true").fails_with(255, "container does not exist");
    assert!(!c.state_root().join(&c.id).exists());
}

#[test]
fn the_wrong_state_for_a_command() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    // (state, command, words): the container must stay as it was.
    let cases = [
        ("created", "resume", "container not paused"),
        (
            "running",
            "start",
            "cannot start an already running container",
        ),
        ("running", "resume", "container not paused"),
        ("running", "delete", "that is not stopped: running"),
        ("paused", "start", ""),
        ("paused", "delete", "that is not stopped: paused"),
        (
            "stopped",
            "start",
            "cannot start a container that has stopped",
        ),
        ("stopped", "pause", "container not running"),
        ("stopped", "resume", "container not paused"),
        (
            "stopped",
            "kill",
            if is_coracle() {
                "container not running"
            } else {
                ""
            },
        ),
    ];
    for (state, command, words) in cases {
        if !is_coracle() && (state, command) == ("created", "resume") {
            continue;
        }
        let c = in_state(state);
        let output = c.runtime(&[command, &c.id]);
        assert_eq!(output.code, 1, "{command} of {state}: {output:?}");
        assert!(
            output.message().contains(words),
            "{command} of {state}: {output:?}"
        );
        assert_eq!(c.status(), state, "after {command}");
    }
}

fn in_state(state: &str) -> Container {
    let c = if state == "stopped" {
        Container::new("true")
    } else {
        Container::idle()
    };
    match state {
        "created" => _ = c.create().ok(),
        "stopped" => _ = c.run_with(&["--keep"]).ok(),
        _ => _ = c.run_detached(),
    }
    if state == "paused" {
        c.runtime(&["pause", &c.id]).ok();
    }
    assert_eq!(c.status(), state);
    c
}
