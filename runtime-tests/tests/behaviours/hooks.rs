//! The six hooks: their order, their place, the state they read, their failures and their time limits.

use std::fs;

use runtime_tests::{
    Container, eventually, is_coracle, is_runc_since, read_text, requires, rootless,
};
use serde_json::{Value, json};

const ON_THE_HOST: [&str; 4] = ["prestart", "createRuntime", "poststart", "poststop"];

fn hook(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin", "HOOK=set"] })
}

#[test]
fn hooks_run_in_order() {
    let mut c = Container::new("echo process >> /log; echo said");
    let log = c.rootfs().join("log");
    for name in ON_THE_HOST {
        c.set(
            &format!("/hooks/{name}"),
            json!([
                hook(&format!("echo {name} 1 >> {}", log.display())),
                hook(&format!("echo {name} 2 >> {}", log.display()))
            ]),
        );
    }
    // createContainer runs in the container's namespaces before pivot_root, startContainer inside the container.
    c.set(
        "/hooks/createContainer",
        json!([hook(&format!("echo createContainer >> {}", log.display()))]),
    );
    c.set(
        "/hooks/startContainer",
        json!([hook("echo startContainer >> /log")]),
    );
    c.create().ok();
    requires!(is_coracle(), "runc 1.3 runs poststart hooks at create");
    let at_create = [
        "prestart 1",
        "prestart 2",
        "createRuntime 1",
        "createRuntime 2",
        "createContainer",
    ];
    assert_eq!(read_text(&log).lines().collect::<Vec<_>>(), at_create);
    c.start().ok();
    c.wait_for("stopped");
    let mut at_start = read_text(&log)
        .lines()
        .skip(5)
        .map(str::to_owned)
        .collect::<Vec<_>>();
    at_start.retain(|line| !line.starts_with("poststart"));
    assert_eq!(at_start, ["startContainer", "process"]);
    assert!(read_text(&log).contains("poststart 1\n") && read_text(&log).contains("poststart 2\n"));
    c.delete().ok();
    assert!(
        read_text(&log).ends_with("poststop 1\npoststop 2\n"),
        "{}",
        read_text(&log)
    );
}

#[test]
fn hooks_read_the_state_on_stdin() {
    let mut c = Container::idle();
    let log = c.rootfs().join("log");
    for name in ON_THE_HOST.into_iter().chain(["createContainer"]) {
        c.set(
            &format!("/hooks/{name}"),
            json!([hook(&format!(
                "(echo {name}; cat; echo) >> {}",
                log.display()
            ))]),
        );
    }
    c.set(
        "/hooks/startContainer",
        json!([hook("(echo startContainer; cat; echo) >> /log")]),
    );
    c.set("/annotations", json!({ "key": "value" }));
    c.run_detached();
    let pid = c.pid();
    c.delete_force().ok();
    let text = read_text(&log);
    let mut lines = text.lines();
    let mut seen = Vec::new();
    while let (Some(name), Some(state)) = (lines.next(), lines.next()) {
        let state: Value =
            serde_json::from_str(state).unwrap_or_else(|e| panic!("{name}: {e}: {state}"));
        let status = match name {
            "prestart" | "createRuntime" | "createContainer" => "creating",
            "startContainer" => "created",
            "poststart" => "running",
            _ => "stopped",
        };
        if is_coracle() || name != "poststart" {
            assert_eq!(state["status"], status, "{name}");
        }
        assert_eq!(state["id"], c.id.as_str(), "{name}");
        assert_eq!(
            state["bundle"],
            c.bundle().to_string_lossy().as_ref(),
            "{name}"
        );
        assert_eq!(state["annotations"], json!({ "key": "value" }), "{name}");
        assert!(state["ociVersion"].is_string());
        match name {
            "prestart" | "createRuntime" | "poststart" => assert_eq!(state["pid"], pid, "{name}"),
            "poststop" => assert!(
                state["pid"].is_null() || state["pid"] == 0,
                "{name}: {state}"
            ),
            _ => {}
        }
        seen.push(name.to_owned());
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            "createContainer",
            "createRuntime",
            "poststart",
            "poststop",
            "prestart",
            "startContainer"
        ]
    );
}

#[test]
fn hooks_run_where_they_should() {
    let mut c = Container::idle();
    let log = c.rootfs().join("log");
    let look = |file: &str| {
        hook(&format!(
            "echo $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/net) $HOOK $0 >> {file}"
        ))
    };
    c.set(
        "/hooks/createRuntime",
        json!([look(&log.to_string_lossy())]),
    );
    c.set(
        "/hooks/createContainer",
        json!([look(&log.to_string_lossy())]),
    );
    c.set("/hooks/startContainer", json!([hook("echo $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/net) $HOOK $(hostname) >> /log")]));
    c.run_detached();
    let link = |of: &str, kind: &str| {
        fs::read_link(format!("/proc/{of}/ns/{kind}"))
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    let pid = c.pid().to_string();
    let lines: Vec<String> = read_text(&log).lines().map(str::to_owned).collect();
    // An ordinary user's commands have a mount namespace of their own.
    let hosts = match rootless() {
        None => link("self", "mnt"),
        Some(_) => lines[0].split(' ').next().unwrap().to_owned(),
    };
    assert_eq!(
        lines[0],
        format!("{} {} set sh", hosts, link("self", "net")),
        "createRuntime: the host's"
    );
    assert_eq!(
        lines[1],
        format!("{} {} set sh", link(&pid, "mnt"), link(&pid, "net")),
        "createContainer: the container's"
    );
    assert_eq!(
        lines[2],
        format!("{} {} set inside", link(&pid, "mnt"), link(&pid, "net")),
        "startContainer: inside"
    );
}

#[test]
fn a_hook_has_only_its_own_environment() {
    let mut c = Container::new("true");
    let log = c.dir().join("log");
    let mut command = {
        c.set(
            "/hooks/createRuntime",
            json!([{ "path": "/usr/bin/env", "args": ["env"], "env": ["ONLY=this"] },
            hook(&format!("tr '\\0' '\\n' < /proc/$$/environ > {}", log.display()))]),
        );
        c.bundle_command("run", &[])
    };
    command.env("SECRET", "of the host");
    c.to_files(command).ok();
    let seen = read_text(&log);
    assert!(
        seen.contains("HOOK=set") && !seen.contains("SECRET"),
        "{seen}"
    );
}

#[test]
fn a_failing_hook_at_creation_leaves_nothing() {
    for name in ["prestart", "createRuntime", "createContainer"] {
        let mut c = Container::new("echo started");
        c.set(
            &format!("/hooks/{name}"),
            json!([hook("true"), hook("echo the reason >&2; exit 3")]),
        );
        let output = c.create();
        assert_eq!(output.code, 1, "{name}: {output:?}");
        let words = if is_coracle() || is_runc_since(1, 3) {
            format!("error running {name} hook #1: ")
        } else {
            "running hook #1".to_owned()
        };
        assert!(output.message().contains(&words), "{name}: {output:?}");
        assert!(
            output.message().contains("the reason"),
            "what the hook wrote to stderr is told: {output:?}"
        );
        c.assert_nothing_left();
    }
}

#[test]
fn a_failing_start_container_hook_starts_nothing() {
    let mut c = Container::new("echo started");
    c.set("/hooks/startContainer", json!([hook("exit 3")]));
    c.create().ok();
    let output = c.start();
    if is_coracle() {
        output.fails_with(1, "error running startContainer hook #0: ");
    }
    c.wait_for("stopped");
    assert_eq!(c.said(), "");
    c.delete().ok();
    c.assert_nothing_left();
}

#[test]
fn a_failing_poststart_hook_is_an_error() {
    requires!(is_coracle(), "runc 1.3 runs poststart hooks at create");
    let mut c = Container::idle();
    c.set("/hooks/poststart", json!([hook("exit 3")]));
    c.create().ok();
    c.start().fails_with(1, "error running poststart hook #0: ");
    c.delete_force().ok();
    c.assert_nothing_left();
}

#[test]
fn a_failing_poststop_hook_is_told_and_the_others_run() {
    requires!(is_coracle(), "runc 1.3 stops at the first that fails");
    let mut c = Container::new("true");
    let log = c.dir().join("log");
    c.set(
        "/hooks/poststop",
        json!([
            hook("exit 3"),
            hook(&format!("echo second >> {}", log.display()))
        ]),
    );
    c.run_with(&["--keep"]).ok();
    let output = c.delete();
    assert!(output.message().contains("poststop hook #0"), "{output:?}");
    assert_eq!(read_text(&log), "second\n");
    c.assert_nothing_left();
}

#[test]
fn a_hanging_hook_is_ended_by_its_timeout() {
    for name in ["prestart", "createRuntime", "createContainer"] {
        let mut c = Container::new("echo started");
        let pid_file = c.rootfs().join("pids");
        // The hook leaves a child that keeps its pipes open: neither may hold up the runtime.
        let mut slow = hook(&format!(
            "sleep 1000001 & echo $! $$ > {}; wait",
            pid_file.display()
        ));
        slow["timeout"] = json!(1);
        c.set(&format!("/hooks/{name}"), json!([slow]));
        if !is_coracle() {
            c.set(
                &format!("/hooks/{name}/0/args"),
                json!(["sh", "-c", "exec sleep 1000001"]),
            );
        }
        let output = c.create();
        assert_eq!(output.code, 1, "{name}: {output:?}");
        let words = if is_coracle() {
            format!("error running {name} hook #0: ")
        } else {
            "hook".to_owned()
        };
        assert!(output.message().contains(&words), "{name}: {output:?}");
        c.assert_nothing_left();
        // Those of createContainer are numbered by the container's pid namespace, and went with it.
        let pids = read_text(&pid_file);
        for pid in pids
            .split_whitespace()
            .filter(|_| name != "createContainer")
        {
            eventually("the hook's whole process group is gone", || {
                let status = read_text(format!("/proc/{pid}/status").as_ref());
                (status.is_empty() || status.contains("State:\tZ")).then_some(())
            });
        }
    }
}

#[test]
fn a_hook_that_does_not_exist_is_named() {
    let mut c = Container::new("true");
    c.set(
        "/hooks/createRuntime",
        json!([{ "path": "/nonesuch-hook" }]),
    );
    c.run().fails_with(1, "/nonesuch-hook");
    c.assert_nothing_left();
}

#[test]
fn a_hook_path_must_be_absolute() {
    let mut c = Container::new("true");
    c.set("/hooks/createRuntime", json!([{ "path": "bin/true" }]));
    let output = c.run();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.message().contains("bin/true"), "{output:?}");
    c.assert_nothing_left();
}

#[test]
fn a_hook_that_reads_nothing_and_writes_much_does_not_block() {
    let mut c = Container::new("echo done");
    c.set(
        "/hooks/createRuntime",
        json!([hook(
            "exec <&-; head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"
        )]),
    );
    assert_eq!(c.run().ok(), "done\n");
}
