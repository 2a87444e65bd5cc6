//! Where a task's output goes without a client: fifos, a file, a program.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use runtime_tests::{eventually, read_text};

use super::containerd;

#[test]
fn output_goes_to_a_file() {
    let Some(containerd) = containerd() else {
        return;
    };
    let log = containerd.engine.path("logs/box");
    let uri = format!("file://{}", log.display());
    let script = "echo out; echo err >&2";
    let flags = ["--detach", "--log-uri", &uri];
    containerd.run(&flags, "box", &["sh", "-c", script]).ok();
    containerd.wait_for("box", "STOPPED");
    // Two streams have no order between them.
    let text = read_text(&log);
    assert!(text == "out\nerr\n" || text == "err\nout\n", "{text:?}");
}

/// The program gets stdout as 3, stderr as 4, and says by closing 5 that it is ready; its arguments are the query.
#[test]
fn output_goes_to_a_program() {
    let Some(containerd) = containerd() else {
        return;
    };
    let logger = containerd.engine.path("logger");
    let script = "#!/bin/sh\ncd $(dirname $0)\necho $CONTAINER_NAMESPACE $CONTAINER_ID \"$@\" > started\n\
                  exec 5>&-\ncat <&3 > stdout\ncat <&4 > stderr\necho done > ended\n";
    fs::write(&logger, script).unwrap();
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).unwrap();
    let uri = format!("binary://{}?--level=high", logger.display());
    let script = "echo out; echo err >&2";
    let flags = ["--detach", "--log-uri", &uri];
    containerd.run(&flags, "box", &["sh", "-c", script]).ok();
    containerd.wait_for("box", "STOPPED");
    containerd.ctr(&["tasks", "delete", "box"]);
    let read = |name: &str| read_text(&containerd.engine.path(name));
    eventually("the program has ended", || {
        (read("ended") == "done\n").then_some(())
    });
    assert_eq!(
        (read("stdout"), read("stderr")),
        ("out\n".into(), "err\n".into())
    );
    let started = read("started");
    assert!(started.starts_with("default box --level"), "{started}");
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let Some(containerd) = containerd() else {
        return;
    };
    containerd.run(&["--rm"], "first", &["true"]).ok();
    let before = containerd.inventory();
    let flags = ["--detach", "--log-uri", "binary:///no/logger"];
    let output = containerd.run(&flags, "box", &["true"]);
    assert!(
        output.code != 0 && output.stderr.contains("/no/logger"),
        "{output:?}"
    );
    containerd.ctr(&["containers", "delete", "box"]);
    containerd.wait_for_nothing_but(&before);
}
