//! Bad input: each row one change of the base configuration, the exit status, the words that the message must contain,
//! and nothing left behind.

use std::fs;

use runtime_tests::{Container, Ids, has_controller, is_coracle, requires, rootless};
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

    /// What is wrong about the runtime's answers to this row.
    fn wrong(&self) -> Vec<String> {
        let Some(words) = (if is_coracle() {
            Some(self.words)
        } else {
            self.runc
        }) else {
            return Vec::new();
        };
        let mut c = Container::new("echo started");
        c.set(self.pointer, self.value.clone());
        fs::write(c.rootfs().join("etc/plain"), "no program\n").unwrap();
        let mut wrong = Vec::new();
        for output in [c.create(), c.run()] {
            let message = output.message().to_lowercase();
            if output.code != 1 || !output.stdout.is_empty() {
                wrong.push(format!(
                    "exit {} and stdout {:?}: {message}",
                    output.code, output.stdout
                ));
            }
            if let Some(word) = words
                .iter()
                .find(|word| !message.contains(&word.to_lowercase()))
            {
                wrong.push(format!("no {word:?} in: {message}"));
            }
            if is_coracle() && message.trim_end().lines().count() != 1 {
                wrong.push(format!("not one sentence: {message}"));
            }
            wrong.extend(
                c.leftovers()
                    .iter()
                    .map(|left| format!("left behind: {left}")),
            );
            if !wrong.is_empty() {
                break;
            }
        }
        let value = self.value.to_string();
        let end = &value[value.len().saturating_sub(100)..];
        wrong
            .iter()
            .map(|what| format!("{} {end}: {what}", self.pointer))
            .collect()
    }
}

fn check(rows: Vec<Row>) {
    let wrong: Vec<String> = rows.iter().flat_map(Row::wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_process() {
    let rows = vec![
        row("/process", Value::Null, &["process"]),
        row("/process/args", json!([]), &["exec args cannot be empty"])
            .but_runc_says(&["args must not be empty"]),
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
        .but_runc_says(&["exec: \"/etc\": "]),
        row("/process/args", json!([""]), &["exec: \"\""]).but_runc_says(&[]),
        row("/process/args", json!(["sh", "nul\u{0}inside"]), &["args"]).but_runc_takes_it(),
        row("/process/cwd", json!(""), &["process.cwd"])
            .but_runc_says(&["cwd property must not be empty"]),
        row(
            "/process/cwd",
            json!("tmp"),
            &["cwd", "must be an absolute path"],
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
        row("/process/oomScoreAdj", json!(1001), &["oom"]).but_runc_says(&[]),
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
    check(rows);
}

#[test]
fn labels_without_their_module() {
    requires!(is_coracle(), "runc ignores a label that nobody looks at");
    requires!(
        !std::path::Path::new("/sys/fs/selinux/enforce").exists(),
        "the machine has SELinux"
    );
    let mut c = Container::new("true");
    c.set(
        "/linux/mountLabel",
        json!("system_u:object_r:container_file_t:s0"),
    );
    c.run().fails_with(1, "linux.mountLabel: ");
    c.assert_nothing_left();
}

#[test]
fn the_root_and_the_mounts() {
    requires!(rootless() != Some(Ids::Own), "one id only is mapped");
    let rows = vec![
        row("/root", Value::Null, &["root"]),
        row(
            "/root/path",
            json!("nonesuch"),
            &["root", "nonesuch", "no such file or directory"],
        ),
        row("/root/path", json!("config.json"), &["config.json"]).but_runc_says(&[]),
        row("/root/readonly", json!("yes"), &["root.readonly"]),
        row("/mounts", json!("all"), &["mounts"]),
        row(
            "/mounts/7",
            json!({ "destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["frob"] }),
            &["mounts[7]", "frob"],
        )
        .but_runc_says(&["/x"]),
        row(
            "/mounts/7",
            json!({ "destination": "/x", "type": "nosuchfs", "source": "none" }),
            &["mounts[7]", "nosuchfs"],
        )
        .but_runc_says(&["/x", "no such device"]),
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
    // One mount more than the base configuration has.
    let more = |row: Row| {
        let mut mounts = runtime_tests::base_config()["mounts"].clone();
        mounts.as_array_mut().unwrap().push(row.value);
        Row {
            pointer: "/mounts",
            value: mounts,
            ..row
        }
    };
    check(
        rows.into_iter()
            .map(|row| {
                if row.pointer == "/mounts/7" {
                    more(row)
                } else {
                    row
                }
            })
            .collect(),
    );
}

#[test]
fn namespaces_and_what_needs_them() {
    requires!(
        rootless().is_none(),
        "an ordinary user's container has a user namespace"
    );
    let rows = vec![
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
            &["type"],
        ),
    ];
    check(rows);
}

#[test]
fn resources_out_of_range() {
    requires!(rootless().is_none(), "device rules are for root");
    requires!(
        has_controller("cpu") && has_controller("memory") && has_controller("cpuset"),
        "a controller is missing"
    );
    let rows = vec![
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
    check(rows);
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
