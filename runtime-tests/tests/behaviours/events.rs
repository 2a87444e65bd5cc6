//! `events`: statistics once, and as a stream.

use std::fs::File;
use std::path::PathBuf;
use std::process::Child;

use runtime_tests::{
    Container, Hierarchy, View, eventually, has_cgroup, has_controller, hierarchy, is_coracle,
    is_crun, is_runc, kernel_has, read_text, requires, rootless,
};
use serde_json::{Value, json};

#[test]
fn statistics() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    requires!(
        has_controller("memory") && has_controller("pids") && has_controller("cpu"),
        "a controller is missing"
    );
    let mut c =
        Container::new("head -c 3000000 /dev/zero > /dev/shm/held; echo ready; sleep 1000000");
    c.set("/linux/resources/memory", json!({ "limit": 67_108_864 }))
        .set("/linux/resources/pids", json!({ "limit": 64 }));
    c.run_detached();
    c.wait_to_say("ready\n");
    let text = c.runtime(&["events", "--stats", &c.id]).ok();
    assert_eq!(text.lines().count(), 1, "one object a line: {text}");
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&event["type"], &event["id"]),
        (&json!("stats"), &json!(c.id))
    );
    let data = &event["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert!(
        data["memory"]["usage"]["usage"].as_u64().unwrap() > 3_000_000,
        "{data}"
    );
    assert!(data["memory"]["raw"].is_object());
    assert_eq!(data["pids"]["limit"], 64);
    assert!(
        (1..4).contains(&data["pids"]["current"].as_u64().unwrap()),
        "{data}"
    );
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert!(data["cpu"]["throttling"].is_object());
    for part in ["blkio", "cpuset", "hugetlb", "intel_rdt"] {
        assert!(data.get(part).is_some(), "{part} in {data}");
    }
}

#[test]
fn pressure_stall_information() {
    requires!(has_cgroup(), "an ordinary user has no cgroup to limit");
    requires!(
        hierarchy() == Hierarchy::V2 && kernel_has("/proc/pressure/cpu"),
        "no cgroup v2 with pressure"
    );
    requires!(
        !is_runc() && !is_crun(),
        "neither runc 1.1 nor crun tells of it"
    );
    let mut c = Container::new("while :; do :; done & while :; do :; done");
    c.set(
        "/linux/resources/cpu",
        json!({ "quota": 10_000, "period": 100_000 }),
    );
    c.run_detached();
    // Two that want the processor and get a tenth of it.
    let data = eventually("pressure on the processor", || {
        let text = c.runtime(&["events", "--stats", &c.id]).ok();
        let event: Value = serde_json::from_str(&text).unwrap();
        let data = event["data"].clone();
        let throttled = data["cpu"]["throttling"]["throttledTime"].as_u64()? > 0;
        (data["cpu"]["psi"]["some"]["total"].as_u64()? > 100_000 && throttled).then_some(data)
    });
    for part in ["cpu", "memory", "blkio"] {
        for share in ["some", "full"] {
            let pressure = &data[part]["psi"][share];
            for time in ["avg10", "avg60", "avg300"] {
                assert!(pressure[time].is_f64(), "{part} {share} {time}: {pressure}");
            }
            assert!(pressure["total"].is_u64(), "{part} {share}: {pressure}");
        }
    }
}

/// A stream of events that has begun, and the file that it goes to.
fn stream_of(c: &Container) -> (Child, PathBuf) {
    let log = c.dir().join("events");
    let child = c
        .command(&["events", "--interval", "10ms", &c.id])
        .stdout(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    eventually("three events", || {
        (read_text(&log).lines().count() >= 3).then_some(())
    });
    (child, log)
}

#[test]
fn a_stream_until_the_container_ends() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    let c = Container::idle();
    c.run_detached();
    let (mut child, log) = stream_of(&c);
    c.kill("KILL").ok();
    if is_coracle() {
        assert!(
            child.wait().unwrap().success(),
            "the stream ends with its container"
        );
    } else {
        c.delete_force().ok();
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = read_text(&log);
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(event["id"], c.id.as_str());
    }
}

#[test]
fn a_stream_without_a_memory_controller() {
    requires!(rootless().is_none(), "the views are root's");
    requires!(is_coracle(), "runc ends with an error");
    requires!(
        hierarchy() == Hierarchy::Hybrid,
        "v2 has the memory controller"
    );
    let c = Container::idle().in_view(View::of(Hierarchy::V2).unwrap());
    c.run_detached();
    let (mut child, _) = stream_of(&c);
    c.kill("KILL").ok();
    assert!(child.wait().unwrap().success());
}

#[test]
fn go_durations() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    let c = Container::idle();
    c.run_detached();
    for interval in ["5s", "1m30s", "250ms", "1h", "1.5s"] {
        assert_eq!(
            c.runtime(&["events", "--interval", interval, "--stats", &c.id])
                .code,
            0,
            "{interval}"
        );
    }
    for interval in ["5", "x", "0s", "-1s"] {
        assert_eq!(
            c.runtime(&["events", "--interval", interval, &c.id]).code,
            1,
            "{interval}"
        );
    }
}

#[test]
fn events_of_a_container_that_does_not_run() {
    let c = Container::new("true");
    c.runtime(&["events", "--stats", &c.id])
        .fails_with(1, "container does not exist");
    c.run_with(&["--keep"]).ok();
    let output = c.runtime(&["events", "--stats", &c.id]);
    assert_eq!(output.code, 1);
    assert!(
        output.message().contains(&c.id) || output.message().contains("not running"),
        "{output:?}"
    );
}
