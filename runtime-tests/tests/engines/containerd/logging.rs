//! Where a task's output goes without a client: fifos, a file, a program.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use runtime_tests::{Containerd, Shim, eventually, read_text, requires};

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

/// A script of shell in the engine's directory, which is its working directory too, as a URI.
fn logger(containerd: &Containerd, script: &str) -> String {
    let path = containerd.engine.path("logger");
    fs::write(&path, format!("#!/bin/sh\ncd $(dirname $0)\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("binary://{}", path.display())
}

/// The program gets stdout as 3, stderr as 4, and says by closing 5 that it is ready; its arguments are the query.
#[test]
fn output_goes_to_a_program() {
    let Some(containerd) = containerd() else {
        return;
    };
    // containerd's own shim sends SIGTERM at once when the task is deleted; ours lets the logger come to its end.
    let patience = if containerd.shim.is_runc() {
        "trap '' TERM\n"
    } else {
        ""
    };
    let script = "echo $CONTAINER_NAMESPACE $CONTAINER_ID \"$@\" > started\n\
                  exec 5>&-\ncat <&3 > stdout\ncat <&4 > stderr\necho done > ended";
    let logger = logger(&containerd, &format!("{patience}{script}"));
    let uri = format!("{logger}?--level=high");
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

/// A process that wrote into a pipe without a reader would be killed by SIGPIPE, and one whose reader does not read would wait.
#[test]
fn a_program_that_ends_takes_nothing_with_it() {
    requires!(
        !Shim::under_test().is_runc(),
        "containerd's own shim lets SIGPIPE end a container whose logger has ended"
    );
    let Some(containerd) = containerd() else {
        return;
    };
    let logger = logger(
        &containerd,
        "echo $$ > logger.pid\nexec 5>&-\nread line <&3\necho $line > heard",
    );
    let script = "echo out; while [ ! -e /go ]; do sleep 0.05; done; yes | head -c 1000000 || exit 1; exit 9";
    let flags = ["--detach", "--log-uri", &logger];
    containerd.run(&flags, "box", &["sh", "-c", script]).ok();
    let pid = eventually("the logger has started", || {
        let pid = read_text(&containerd.engine.path("logger.pid"));
        (!pid.is_empty()).then_some(pid)
    });
    eventually("the logger has ended", || {
        let alive = containerd.engine.run("kill", &["-0", pid.trim()]);
        (alive.code != 0).then_some(())
    });
    assert_eq!(read_text(&containerd.engine.path("heard")), "out\n");
    containerd.exec("box", &["touch", "/go"]).ok();
    containerd.wait_for("box", "STOPPED");
    let deleted = containerd.ctr(&["tasks", "delete", "box"]);
    assert!(deleted.stderr.contains("exit code 9"), "{deleted:?}");
    eventually("the shim has ended", || {
        containerd.shims().is_empty().then_some(())
    });
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
