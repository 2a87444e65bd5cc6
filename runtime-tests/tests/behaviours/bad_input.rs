//! Bad input: each row one change of the base configuration, the exit status, the words that the message must contain,
//! and nothing left behind.

use std::fs;

use runtime_tests::{Container, has_controller, is_coracle, requires};
use serde_json::{Value, json};

/// One change of a good configuration, and what the message must say: always the field or the object.
struct Row {
    pointer: &'static str,
    value: Value,
    words: &'static [&'static str],
    /// What runc 1.1 says instead; `None` where it takes the configuration or names nothing.
    runc: Option<&'static [&'static str]>,
}

fn row(pointer: &'static str, value: Value, words: &'static [&'static str]) -> Row {
    Row {
        pointer,
        value,
        words,
        runc: Some(words),
    }
}

impl Row {
    /// runc 1.1 has other words.
    fn but_runc_says(self, words: &'static [&'static str]) -> Self {
        Self {
            runc: Some(words),
            ..self
        }
    }

    /// runc 1.1 takes it.
    fn but_runc_takes_it(self) -> Self {
        Self { runc: None, ..self }
    }

    fn check(&self) {
        let mut c = Container::new("echo started");
        c.set(self.pointer, self.value.clone());
        fs::write(c.rootfs().join("etc/plain"), "no program\n").unwrap();
        let words = if is_coracle() {
            Some(self.words)
        } else {
            self.runc
        };
        let Some(words) = words else { return };
        for output in [c.create(), c.run()] {
            assert_eq!(
                output.code, 1,
                "{} {}: {output:?}",
                self.pointer, self.value
            );
            let message = output.message().to_lowercase();
            for word in words {
                assert!(
                    message.contains(&word.to_lowercase()),
                    "{} {}: {word:?} in {}",
                    self.pointer,
                    self.value,
                    output.message()
                );
            }
            if is_coracle() {
                assert_eq!(
                    message.trim_end().lines().count(),
                    1,
                    "one sentence: {}",
                    output.message()
                );
            }
            assert_eq!(output.stdout, "");
            c.assert_nothing_left();
        }
    }
}

#[test]
fn the_process() {
    let rows = [
        row("/process", Value::Null, &["process"]),
        row("/process/args", json!([]), &["args must not be empty"]),
        row("/process/args", json!("sh"), &["process.args"]),
        row(
            "/process/args",
            json!(["nonesuch"]),
            &["exec: \"nonesuch\": executable file not found in $PATH"],
        ),
        row(
            "/process/args",
            json!(["/nonesuch"]),
            &["exec: \"/nonesuch\": stat /nonesuch: no such file or directory"],
        ),
        row(
            "/process/args",
            json!(["/etc/plain"]),
            &["exec: \"/etc/plain\": permission denied"],
        ),
        row(
            "/process/args",
            json!(["/etc"]),
            &["exec: \"/etc\": is a directory: permission denied"],
        )
        .but_runc_says(&["exec: \"/etc\": permission denied"]),
        row("/process/args", json!([""]), &["exec: \"\""]).but_runc_says(&[]),
        row("/process/args", json!(["sh", "nul\u{0}inside"]), &["args"]).but_runc_takes_it(),
        row(
            "/process/cwd",
            json!(""),
            &["cwd property must not be empty"],
        ),
        row(
            "/process/cwd",
            json!("tmp"),
            &["cwd must be an absolute path"],
        ),
        row(
            "/process/cwd",
            json!("/etc/plain"),
            &["/etc/plain", "not a directory"],
        ),
        row(
            "/process/env",
            json!(["PATH=/bin", "WITHOUT"]),
            &["WITHOUT"],
        )
        .but_runc_takes_it(),
        row("/process/env", json!({ "PATH": "/bin" }), &["process.env"]),
        row("/process/user/uid", json!(4_294_967_296_u64), &["user.uid"]),
        row("/process/user/uid", json!(-1), &["user.uid"]),
        row("/process/user/gid", json!("root"), &["user.gid"]),
        row("/process/terminal", json!("yes"), &["process.terminal"]),
        row(
            "/process/rlimits",
            json!([{ "type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1 }]),
            &["RLIMIT_NONSENSE"],
        ),
        row(
            "/process/rlimits",
            json!([{ "type": "RLIMIT_CORE", "soft": 2, "hard": 1 }]),
            &["rlimit"],
        ),
        row("/process/oomScoreAdj", json!(1001), &["oom"]),
        row(
            "/process/apparmorProfile",
            json!("no-such-profile"),
            &["apparmor"],
        ),
        row(
            "/process/selinuxLabel",
            json!("system_u:system_r:nonsense_t:s0"),
            &["selinux"],
        ),
    ];
    for row in rows {
        row.check();
    }
}

#[test]
fn the_root_and_the_mounts() {
    let rows = [
        row("/root", Value::Null, &["root must be specified"]),
        row(
            "/root/path",
            json!("nonesuch"),
            &["rootfs", "nonesuch", "no such file or directory"],
        ),
        row("/root/path", json!("config.json"), &["config.json"]).but_runc_says(&[]),
        row("/root/readonly", json!("yes"), &["root.readonly"]),
        row("/mounts", json!("all"), &["mounts"]),
        row(
            "/mounts/7",
            json!({ "destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["frob"] }),
            &["/x", "frob"],
        )
        .but_runc_says(&["/x"]),
        row(
            "/mounts/7",
            json!({ "destination": "/x", "type": "nosuchfs", "source": "none" }),
            &["/x", "no such device"],
        ),
        row(
            "/mounts/7",
            json!({ "destination": "/x", "type": "bind", "source": "/nonesuch", "options": ["bind"] }),
            &["/nonesuch"],
        ),
        row(
            "/mounts/7",
            json!({ "type": "tmpfs", "source": "tmpfs" }),
            &["destination"],
        )
        .but_runc_says(&[]),
        row(
            "/mounts/7",
            json!({ "destination": "/bin/sh/x", "type": "tmpfs", "source": "tmpfs" }),
            &["/bin/sh", "not a directory"],
        ),
        row(
            "/linux/maskedPaths",
            json!("/proc/kcore"),
            &["linux.maskedPaths"],
        ),
        row(
            "/linux/rootfsPropagation",
            json!("nonsense"),
            &["rootfsPropagation", "nonsense"],
        )
        .but_runc_says(&["nonsense"]),
    ];
    for mut row in rows {
        if row.pointer == "/mounts/7" {
            // One mount more than the base configuration has.
            let mut mounts = runtime_tests::base_config()["mounts"].clone();
            mounts.as_array_mut().unwrap().push(row.value);
            row = Row {
                pointer: "/mounts",
                value: mounts,
                ..row
            };
        }
        row.check();
    }
}

#[test]
fn namespaces_and_what_needs_them() {
    let rows = [
        row(
            "/linux/namespaces",
            json!([{ "type": "mount" }, { "type": "teapot" }]),
            &["teapot"],
        ),
        row(
            "/linux/namespaces",
            json!([{ "type": "mount" }, { "type": "uts" }, { "type": "uts" }]),
            &["uts"],
        )
        .but_runc_says(&["duplicated ns"]),
        row(
            "/linux/namespaces",
            json!([{ "type": "mount" }, { "type": "uts" }, { "type": "network", "path": "/nonesuch" }]),
            &["/nonesuch"],
        ),
        row(
            "/linux/namespaces",
            json!([{ "type": "mount" }]),
            &["hostname", "uts namespace"],
        ),
        row(
            "/linux/namespaces",
            json!([{ "type": "uts" }]),
            &["namespace"],
        ),
        row("/linux/namespaces", json!("all"), &["linux.namespaces"]),
        row(
            "/linux/sysctl",
            json!({ "kernel.nonsense": "1" }),
            &["kernel.nonsense"],
        ),
        row(
            "/linux/devices",
            json!([{ "path": "/dev/odd", "type": "x", "major": 1, "minor": 1 }]),
            &["/dev/odd"],
        )
        .but_runc_says(&["device type"]),
    ];
    for row in rows {
        row.check();
    }
}

#[test]
fn resources_out_of_range() {
    requires!(
        has_controller("cpu") && has_controller("memory") && has_controller("cpuset"),
        "a controller is missing"
    );
    let rows = [
        row(
            "/linux/resources/memory",
            json!({ "limit": "lots" }),
            &["memory.limit"],
        ),
        row(
            "/linux/resources/memory",
            json!({ "limit": 67_108_864, "swap": 33_554_432 }),
            &["memory"],
        ),
        row(
            "/linux/resources/memory",
            json!({ "limit": 67_108_864, "swappiness": 1000 }),
            &["swappiness"],
        ),
        row(
            "/linux/resources/cpu",
            json!({ "quota": 1, "period": 100_000 }),
            &["cpu"],
        ),
        row(
            "/linux/resources/cpu",
            json!({ "quota": 1000, "period": 1 }),
            &["cpu"],
        ),
        row(
            "/linux/resources/cpu",
            json!({ "shares": -1 }),
            &["cpu.shares"],
        ),
        row(
            "/linux/resources/cpu",
            json!({ "cpus": "99" }),
            &["cpuset.cpus"],
        ),
        row(
            "/linux/resources/cpu",
            json!({ "cpus": "one" }),
            &["cpuset.cpus"],
        ),
        row(
            "/linux/resources/cpu",
            json!({ "cpus": "0", "mems": "99" }),
            &["cpuset.mems"],
        ),
        row(
            "/linux/resources/pids",
            json!({ "limit": 9_223_372_036_854_775_808_u64 }),
            &["pids.limit"],
        ),
        row(
            "/linux/resources/devices",
            json!([{ "allow": true, "type": "x", "access": "r" }]),
            &["device", "type", "x"],
        ),
        row(
            "/linux/resources/devices",
            json!([{ "allow": true, "type": "c", "access": "z" }]),
            &["access"],
        )
        .but_runc_takes_it(),
        row(
            "/linux/resources/hugepageLimits",
            json!([{ "pageSize": "3MB", "limit": 1 }]),
            &["3MB"],
        )
        .but_runc_takes_it(),
    ];
    for row in rows {
        row.check();
    }
}

#[test]
fn a_file_that_is_no_configuration() {
    let deep = "[".repeat(100_000);
    let texts = [
        "",
        " ",
        "x{",
        "{",
        "[]",
        "null",
        "\"text\"",
        "{\"process\":",
        "\u{0}",
        &deep,
    ];
    for text in texts {
        if !is_coracle() && text == "null" {
            continue; // runc 1.1 reads a nil pointer
        }
        let c = Container::new("true");
        fs::write(c.bundle().join("config.json"), text).unwrap();
        let bundle = c.bundle();
        let output = c.runtime(&["create", "--bundle", &bundle.to_string_lossy(), &c.id]);
        let short: String = text.chars().take(20).collect();
        assert_eq!(output.code, 1, "{short:?}: {output:?}");
        assert!(!output.stderr.is_empty());
        if is_coracle() {
            assert!(
                output.stderr.contains("config.json") || text == "[]" || text == "null",
                "{short:?}: the file is named: {output:?}"
            );
        }
        c.assert_nothing_left();
    }
}

#[test]
fn no_configuration_and_no_bundle() {
    let c = Container::new("true");
    let bundle = c.bundle();
    c.runtime(&["create", "--bundle", &bundle.to_string_lossy(), &c.id])
        .fails_with(1, "config.json");
    fs::create_dir(bundle.join("config.json")).unwrap();
    c.runtime(&["create", "--bundle", &bundle.to_string_lossy(), &c.id])
        .fails_with(1, "directory");
    c.runtime(&["create", "--bundle", "/nonesuch-bundle", &c.id])
        .fails_with(1, "/nonesuch-bundle");
    c.assert_nothing_left();
}

#[test]
fn ids() {
    let c = Container::new("true");
    c.write_config();
    let bundle = c.bundle().to_string_lossy().into_owned();
    for id in [
        "a/b", "..", ".", "a b", "a\nb", "ü", "a%", "/", "../x", "a:b",
    ] {
        for command in ["create", "run"] {
            let output = c.runtime(&[command, "--bundle", &bundle, id]);
            assert_eq!(output.code, 1, "{id:?}: {output:?}");
            assert!(
                output.message().contains("invalid container ID format"),
                "{id:?}: {output:?}"
            );
        }
        for command in ["state", "start", "delete", "pause"] {
            assert_eq!(c.runtime(&[command, id]).code, 1, "{command} {id:?}");
        }
    }
    let output = c.runtime(&["create", "--bundle", &bundle, ""]);
    assert_eq!(output.code, 1);
    let words = if is_coracle() {
        "container id cannot be empty"
    } else {
        "container ID"
    };
    assert!(
        output.message().contains(words) || !is_coracle(),
        "{output:?}"
    );
    let long = "x".repeat(5000);
    assert_eq!(c.runtime(&["create", "--bundle", &bundle, &long]).code, 1);
    assert!(
        !c.state_root().exists() || fs::read_dir(c.state_root()).unwrap().count() == 0,
        "nothing is made for them"
    );
}

#[test]
fn good_ids_of_every_form() {
    for tail in [".x", "_", "+1", "-", "..", "A"] {
        let mut c = Container::new("true");
        c.id.push_str(tail);
        c.run().ok();
    }
}

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
