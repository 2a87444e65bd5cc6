//! containerd or the shim is killed.

use std::collections::BTreeSet;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::{
    Containerd, Shim, containerd_version, eventually, pids_in_cgroups_named, read_text, requires,
};

use super::{IMAGE, containerd};

/// Ends the loop of the container `box`. Who says so may be killed by that end, before it can tell of its success.
fn stop(containerd: &Containerd) {
    containerd.exec("box", &["touch", "/stop"]);
}

/// The containers run on, their output goes on, and what happened meanwhile is heard of afterwards.
#[test]
fn containers_survive_containerd() {
    let Some(mut containerd) = containerd() else {
        return;
    };
    let log = containerd.engine.path("log");
    let uri = format!("file://{}", log.display());
    let script = "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 5";
    let flags = ["--detach", "--log-uri", &uri];
    containerd.run(&flags, "box", &["sh", "-c", script]).ok();
    containerd
        .run(&["--detach"], "other", &["sleep", "1000000"])
        .ok();
    let lines = || read_text(&log).lines().count();
    eventually("it writes", || (lines() > 0).then_some(()));
    containerd.kill();
    let before = lines();
    eventually("it goes on writing", || {
        (lines() > before + 3).then_some(())
    });
    containerd.start_again();
    containerd.wait_for("box", "RUNNING");
    assert_eq!(containerd.shims().len(), 2);
    let before = lines();
    eventually("it still writes", || (lines() > before + 3).then_some(()));
    let events = containerd.events();
    stop(&containerd);
    events.wait_for("box", "exit box");
    let deleted = containerd.ctr(&["tasks", "delete", "box"]);
    assert!(deleted.stderr.contains("exit code 5"), "{deleted:?}");
    let text = read_text(&log);
    let numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(
        numbers,
        Vec::from_iter(1..=numbers.len()),
        "no line is lost"
    );
    // A shim that nobody could reach would stay.
    containerd.remove("other");
    eventually("the shims have ended", || {
        containerd.shims().is_empty().then_some(())
    });
}

/// The writer of a fifo whose reader has been killed gets no SIGPIPE, and a new reader gets what comes then.
#[test]
fn fifos_survive_their_reader() {
    let Some(mut containerd) = containerd() else {
        return;
    };
    let script = "while [ ! -e /stop ]; do echo line; sleep 0.05; done; exit 6";
    let mut command = containerd.run_command(&[], IMAGE, "box", &["sh", "-c", script]);
    let mut client = command.stdout(Stdio::piped()).spawn().unwrap();
    containerd.wait_for("box", "RUNNING");
    // One that ends by itself removes its fifos.
    let own = format!("^ctr --address {}", containerd.socket().display());
    containerd.engine.run("pkill", &["-KILL", "-f", &own]).ok();
    containerd.kill();
    client.wait().unwrap();
    containerd.start_again();
    containerd.wait_for("box", "RUNNING");
    let mut attach = containerd.ctr_command(&["tasks", "attach", "box"]);
    let mut client = attach.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    // Open until it ends, which would be by SIGPIPE otherwise.
    let mut stdout = std::io::BufReader::new(client.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "line\n");
    stop(&containerd);
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    // Who is attached to the end removes the task.
    assert_eq!(client.wait().unwrap().code(), Some(6));
}

/// The process ends while nobody listens; who comes later hears of it.
#[test]
fn an_end_without_containerd_is_heard_of_afterwards() {
    requires!(
        !Shim::under_test().is_runc() || containerd_version() < (1, 7),
        "containerd's own shim shows an ended container as empty, which this containerd takes for a leak and removes"
    );
    let Some(mut containerd) = containerd() else {
        return;
    };
    let stop = containerd.engine.path("stop");
    let bind = format!(
        "type=bind,src={},dst=/host,options=rbind",
        containerd.engine.dir().display()
    );
    let script = "while [ ! -e /host/stop ]; do sleep 0.05; done; exit 7";
    let flags = ["--detach", "--mount", &bind];
    containerd.run(&flags, "box", &["sh", "-c", script]).ok();
    containerd.kill();
    std::fs::write(stop, "").unwrap();
    eventually("it has ended", || {
        pids_in_cgroups_named(&containerd.engine.name)
            .is_empty()
            .then_some(())
    });
    containerd.start_again();
    containerd.wait_for("box", "STOPPED");
    let deleted = containerd.ctr(&["tasks", "delete", "box"]);
    assert!(deleted.stderr.contains("exit code 7"), "{deleted:?}");
    eventually("the shim has ended", || {
        containerd.shims().is_empty().then_some(())
    });
}

/// containerd calls the shim's `delete` then: the container ends with the shim.
#[test]
fn a_killed_shim_leaves_nothing() {
    let Some(containerd) = containerd() else {
        return;
    };
    containerd.run(&["--rm"], "first", &["true"]).ok();
    let before = containerd.inventory();
    let events = containerd.events();
    containerd
        .run(&["--detach", "--null-io"], "box", &["sleep", "1000000"])
        .ok();
    for shim in containerd.shims() {
        kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    }
    events.wait_for("box", "exit box");
    events.wait_for("box", "delete");
    eventually("it has ended", || {
        pids_in_cgroups_named(&containerd.engine.name)
            .is_empty()
            .then_some(())
    });
    containerd.ctr(&["containers", "delete", "box"]).ok();
    containerd.wait_for_nothing_but(&but_gos_socket(&containerd, before));
}

/// The same while nobody is there to notice: containerd cleans up when it comes back.
#[test]
fn a_shim_killed_beside_containerd_leaves_nothing() {
    let Some(mut containerd) = containerd() else {
        return;
    };
    containerd.run(&["--rm"], "first", &["true"]).ok();
    let before = containerd.inventory();
    containerd
        .run(&["--detach", "--null-io"], "box", &["sleep", "1000000"])
        .ok();
    containerd.kill();
    for shim in containerd.shims() {
        kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    }
    containerd.start_again();
    eventually("it has ended", || {
        pids_in_cgroups_named(&containerd.engine.name)
            .is_empty()
            .then_some(())
    });
    containerd.ctr(&["containers", "delete", "box"]).ok();
    containerd.wait_for_nothing_but(&but_gos_socket(&containerd, before));
}

/// containerd's own shim leaves its socket.
fn but_gos_socket(containerd: &Containerd, mut before: BTreeSet<String>) -> BTreeSet<String> {
    if containerd.shim.is_runc() {
        let sockets = containerd.engine.run("find", &["/run/containerd/s"]).ok();
        before.extend(sockets.lines().map(str::to_owned));
    }
    before
}
