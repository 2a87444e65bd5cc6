//! podman with `--runtime`: what a user types, and what must come back.

mod checkpoint;
mod files;
mod namespaces;
mod services;

use std::fs;

use runtime_tests::{
    Engine, Hierarchy, Terminal, eventually, has_controller, has_program, hierarchy, http_get,
    requires, rootless,
};
use serde_json::Value;

const IMAGE: &str = "localhost/busybox";

macro_rules! engine {
    () => {{
        runtime_tests::requires!(
            runtime_tests::has_program("podman") && runtime_tests::has_program("buildah"),
            "podman or buildah is not installed"
        );
        runtime_tests::Engine::new()
    }};
}
use engine;

/// What a container with these flags of `podman run` prints when it runs a line of shell.
fn printed_with(engine: &Engine, flags: &[&str], script: &str) -> String {
    let args = [&["run", "--rm"], flags, &[IMAGE, "sh", "-c", script]].concat();
    engine.podman(&args).ok()
}

/// Starts a container called `box` with these flags, which waits.
fn start_box(engine: &Engine, flags: &[&str]) {
    let args = ["run", "-d", "--name", "box"];
    engine
        .podman(&[&args, flags, &[IMAGE, "sleep", "1000000"]].concat())
        .ok();
}

/// The version of podman here, to the minor number.
fn version(engine: &Engine) -> (u32, u32) {
    let text = engine.podman(&["version", "--format", "{{.Version}}"]).ok();
    let mut numbers = text
        .trim()
        .split('.')
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[test]
fn run_gives_output_and_exit_status() {
    let engine = engine!();
    assert_eq!(
        engine
            .podman(&["run", "--rm", IMAGE, "sh", "-c", "echo $$; id -u; exit 0"])
            .ok(),
        "1\n0\n"
    );
    engine
        .podman(&["run", "--rm", IMAGE, "sh", "-c", "exit 42"])
        .exits(42);
    engine
        .podman(&["run", "--rm", IMAGE, "sh", "-c", "kill -9 1; kill -9 $$"])
        .exits(0);
    let output = engine.podman(&["run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\n", "err\n")
    );
}

#[test]
fn exit_codes_125_126_127() {
    let engine = engine!();
    engine
        .podman(&["run", "--rm", "--no-such-flag", IMAGE, "true"])
        .fails(125);
    engine.podman(&["run", "--rm", IMAGE, "/etc"]).fails(126);
    engine
        .podman(&["run", "--rm", IMAGE, "/etc/passwd"])
        .fails(126);
    engine
        .podman(&["run", "--rm", IMAGE, "no-such-program"])
        .fails(127);
    engine
        .podman(&["run", "--rm", IMAGE, "/no/such/program"])
        .fails(127);
    engine
        .podman(&["run", "-d", "--name", "box", IMAGE, "sleep", "1000000"])
        .ok();
    engine
        .podman(&["exec", "box", "no-such-program"])
        .fails(127);
    engine.podman(&["exec", "box", "/etc"]).fails(126);
    engine
        .podman(&["exec", "box", "sh", "-c", "exit 7"])
        .exits(7);
}

#[test]
fn a_detached_container_from_run_to_rm() {
    let engine = engine!();
    let id = engine
        .podman(&[
            "run",
            "-d",
            "--name",
            "box",
            IMAGE,
            "sh",
            "-c",
            "echo started; trap 'echo term; exit 5' TERM; sleep 1000000 & wait",
        ])
        .ok();
    assert_eq!(id.trim().len(), 64, "{id}");
    eventually("the log", || {
        (engine.podman(&["logs", "box"]).stdout == "started\n").then_some(())
    });
    assert_eq!(
        engine.podman(&["exec", "box", "hostname"]).ok().trim(),
        &id[..12]
    );
    assert_eq!(
        engine
            .podman(&[
                "exec",
                "-e",
                "A=1",
                "-w",
                "/tmp",
                "-u",
                "1000",
                "box",
                "sh",
                "-c",
                "echo $A; pwd; id -u"
            ])
            .ok(),
        "1\n/tmp\n1000\n"
    );
    assert!(engine.podman(&["ps"]).ok().contains("Up "));
    assert!(engine.podman(&["top", "box"]).ok().contains("sleep"));

    // Without a cgroup there is nothing to freeze.
    if engine.has_limits() {
        let status = || {
            engine
                .podman(&["inspect", "-f", "{{.State.Status}}", "box"])
                .ok()
        };
        engine.podman(&["pause", "box"]).ok();
        assert_eq!(status(), "paused\n");
        engine.podman(&["unpause", "box"]).ok();
        assert_eq!(status(), "running\n");
    }

    engine.podman(&["stop", "-t", "60", "box"]).ok();
    assert_eq!(
        engine
            .podman(&[
                "inspect",
                "-f",
                "{{.State.Status}} {{.State.ExitCode}}",
                "box"
            ])
            .ok(),
        "exited 5\n"
    );
    assert_eq!(engine.podman(&["logs", "box"]).ok(), "started\nterm\n");

    engine.podman(&["start", "box"]).ok();
    engine.podman(&["kill", "-s", "KILL", "box"]).ok();
    assert_eq!(engine.podman(&["wait", "box"]).ok(), "137\n");
    engine.podman(&["rm", "box"]).ok();
    assert_eq!(engine.podman(&["ps", "-aq"]).ok(), "");
}

#[test]
fn a_terminal_through_a_pty() {
    let engine = engine!();
    requires!(
        rootless().is_none(),
        "an ordinary user's podman says nothing on a terminal that root has opened"
    );
    let mut terminal = Terminal::open();
    terminal.resize(30, 100);
    let mut child = terminal.start(&engine.podman_command(&["run", "--rm", "-it", IMAGE, "sh"]));
    terminal.wait_to_see("/ # ");
    terminal.type_in("tty; echo ans$((40 + 2))\r");
    terminal.wait_to_see("ans42\r\n");
    assert!(
        terminal.seen().contains("/dev/pts/0"),
        "{}",
        terminal.seen()
    );
    eventually("the window's size", || {
        let before = terminal.seen().len();
        terminal.type_in("stty size; echo measured\r");
        eventually("an answer", || {
            terminal.seen()[before..]
                .contains("measured\r\n")
                .then_some(())
        });
        terminal.seen()[before..]
            .contains("30 100\r\n")
            .then_some(())
    });
    terminal.type_in("exit 9\r");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    engine
        .podman(&["run", "-d", "--name", "box", IMAGE, "sleep", "1000000"])
        .ok();
    let mut terminal = Terminal::open();
    let mut child = terminal.start(&engine.podman_command(&[
        "exec",
        "-it",
        "box",
        "sh",
        "-c",
        "tty; read line; echo got $line; exit 8",
    ]));
    terminal.wait_to_see("/dev/pts/");
    terminal.type_in("typed\r");
    terminal.wait_to_see("got typed\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(8));
}

#[test]
fn limits_reach_the_container() {
    let engine = engine!();
    requires!(
        engine.has_limits(),
        "an ordinary user without systemd has no cgroup"
    );
    requires!(
        has_controller("memory") && has_controller("cpu") && has_controller("pids"),
        "a controller is missing"
    );
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids/pids.max 2>/dev/null || cat memory.max cpu.max pids.max";
    let seen = engine
        .podman(&[
            "run",
            "--rm",
            "--memory",
            "64m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "50",
            IMAGE,
            "sh",
            "-c",
            script,
        ])
        .ok();
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>(),
        ["67108864", "50000", "100000", "50"]
    );
}

#[test]
fn a_kill_for_want_of_memory_is_known() {
    let engine = engine!();
    requires!(
        engine.has_limits(),
        "an ordinary user without systemd has no cgroup"
    );
    requires!(has_controller("memory"), "no memory controller");
    let limited = ["--memory", "16m", IMAGE];
    engine
        .podman(&[&["run", "--rm"], &limited[..], &["tail", "/dev/zero"]].concat())
        .exits(137);
    // What podman makes of it, `State.OOMKilled`, is not asked for: conmon stops watching memory.events at a change that
    // comes before the kill, as runc's users know too.
    let script = "tail /dev/zero; echo killed $?; cd /sys/fs/cgroup; cat memory.events memory/memory.oom_control; exec sleep 1000000";
    let run = ["run", "-d", "--name", "box"];
    engine
        .podman(&[&run[..], &limited[..], &["sh", "-c", script]].concat())
        .ok();
    eventually("the log", || {
        let log = engine.podman(&["logs", "box"]).stdout;
        (log.contains("killed 137\n") && log.contains("oom_kill 1\n")).then_some(())
    });
    engine.podman(&["kill", "box"]).ok();
    assert_eq!(engine.podman(&["wait", "box"]).ok(), "137\n");
}

#[test]
fn stats_and_update_of_a_running_container() {
    let engine = engine!();
    requires!(
        engine.has_limits(),
        "an ordinary user without systemd has no cgroup"
    );
    requires!(
        hierarchy() == Hierarchy::V2 && has_controller("memory") && has_controller("pids"),
        "needs cgroup v2 with the memory and pids controllers"
    );
    let run = ["run", "-d", "--name", "box", "--memory", "64m"];
    engine
        .podman(&[&run[..], &[IMAGE, "sleep", "1000000"]].concat())
        .ok();
    let stats = || -> Value {
        let text = engine.podman(&["stats", "--no-stream", "--format", "json", "box"]);
        serde_json::from_str(&text.ok()).unwrap()
    };
    let first = stats();
    assert_eq!(first[0]["pids"], "1", "{first}");
    assert!(
        first[0]["mem_usage"]
            .as_str()
            .unwrap()
            .ends_with("/ 67.11MB"),
        "{first}"
    );
    engine
        .podman(&["update", "--memory", "128m", "--pids-limit", "77", "box"])
        .ok();
    let script = "cd /sys/fs/cgroup; cat memory.max pids.max";
    assert_eq!(
        engine.podman(&["exec", "box", "sh", "-c", script]).ok(),
        "134217728\n77\n"
    );
    let second = stats();
    assert!(
        second[0]["mem_usage"]
            .as_str()
            .unwrap()
            .ends_with("/ 134.2MB"),
        "{second}"
    );
}

#[test]
fn security_options() {
    let engine = engine!();
    let output = engine.podman(&["run", "--rm", "--read-only", IMAGE, "touch", "/x"]);
    assert!(
        output.code == 1 && output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
    assert_eq!(
        engine
            .podman(&[
                "run",
                "--rm",
                "--read-only",
                "--tmpfs",
                "/t",
                IMAGE,
                "sh",
                "-c",
                "touch /t/x && echo written"
            ])
            .ok(),
        "written\n"
    );
    let status = engine
        .podman(&[
            "run",
            "--rm",
            "--cap-drop",
            "all",
            IMAGE,
            "grep",
            "-E",
            "Cap(Eff|Bnd|Inh|Amb)",
            "/proc/self/status",
        ])
        .ok();
    assert_eq!(status.matches("0000000000000000").count(), 4, "{status}");
    let status = engine
        .podman(&[
            "run",
            "--rm",
            "--cap-drop",
            "all",
            "--cap-add",
            "kill",
            IMAGE,
            "grep",
            "CapEff",
            "/proc/self/status",
        ])
        .ok();
    assert_eq!(status, "CapEff:\t0000000000000020\n");
    assert_eq!(
        engine
            .podman(&["run", "--rm", "--user", "1000:1000", IMAGE, "id"])
            .ok()
            .trim(),
        "uid=1000(user) gid=1000(user) groups=1000(user)"
    );
    assert_eq!(
        engine
            .podman(&[
                "run",
                "--rm",
                "--security-opt",
                "no-new-privileges",
                IMAGE,
                "grep",
                "NoNewPrivs",
                "/proc/self/status"
            ])
            .ok(),
        "NoNewPrivs:\t1\n"
    );
}

#[test]
fn seccomp_profiles() {
    let engine = engine!();
    assert_eq!(
        engine
            .podman(&[
                "run",
                "--rm",
                IMAGE,
                "grep",
                "^Seccomp:",
                "/proc/self/status"
            ])
            .ok(),
        "Seccomp:\t2\n",
        "podman's default profile"
    );
    let unconfined = engine.podman(&[
        "run",
        "--rm",
        "--security-opt",
        "seccomp=unconfined",
        IMAGE,
        "grep",
        "^Seccomp:",
        "/proc/self/status",
    ]);
    assert_eq!(unconfined.ok(), "Seccomp:\t0\n");
    let profile = engine.path("profile.json");
    fs::write(&profile, r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }] }"#).unwrap();
    let output = engine.podman(&[
        "run",
        "--rm",
        "--security-opt",
        &format!("seccomp={}", profile.display()),
        IMAGE,
        "mkdir",
        "/x",
    ]);
    assert!(
        output.code == 1 && output.stderr.contains("Function not implemented"),
        "{output:?}"
    );
}

#[test]
fn a_published_port_is_answered() {
    let engine = engine!();
    engine.podman(&["run", "-d", "--name", "web", "-p", "8080:80", IMAGE, "sh", "-c", "mkdir /www; echo hello from the container > /www/index.html; exec httpd -f -p 80 -h /www"]).ok();
    assert_eq!(
        http_get(&engine, None, "127.0.0.1", 8080),
        "hello from the container\n"
    );
    engine.podman(&["stop", "-t", "0", "web"]).ok();
    engine.podman(&["rm", "web"]).ok();
}

#[test]
fn volumes_and_files_that_podman_brings() {
    let engine = engine!();
    let volume = engine.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "of the host\n").unwrap();
    let bind = format!("{}:/v:ro", volume.display());
    let output = engine.podman(&[
        "run",
        "--rm",
        "-v",
        &bind,
        IMAGE,
        "sh",
        "-c",
        "cat /v/file; grep -c inside /etc/hostname; touch /v/x",
    ]);
    assert!(
        output.stdout.starts_with("of the host\n")
            && output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
    assert_eq!(
        engine
            .podman(&[
                "run",
                "--rm",
                "--hostname",
                "named",
                IMAGE,
                "sh",
                "-c",
                "hostname; cat /etc/hostname"
            ])
            .ok()
            .trim_end(),
        "named\nnamed"
    );
    assert_eq!(
        engine
            .podman(&["run", "--rm", "--init", IMAGE, "true"])
            .code,
        if has_program("catatonit") { 0 } else { 125 }
    );
}

#[test]
fn a_build_with_a_run_line() {
    let engine = engine!();
    let context = engine.path("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Containerfile"), format!("FROM {IMAGE}\nRUN echo built > /mark && id -u >> /mark\nENV GREETING=hi\nCMD [\"sh\", \"-c\", \"cat /mark; echo $GREETING\"]\n")).unwrap();
    engine
        .podman(&[
            "build",
            "--tag",
            "localhost/built",
            &context.to_string_lossy(),
        ])
        .ok();
    assert_eq!(
        engine.podman(&["run", "--rm", "localhost/built"]).ok(),
        "built\n0\nhi\n"
    );
    fs::write(
        context.join("Containerfile"),
        format!("FROM {IMAGE}\nRUN exit 3\n"),
    )
    .unwrap();
    let output = engine.podman(&["build", &context.to_string_lossy()]);
    assert!(
        output.code != 0 && output.stderr.contains("exit status 3"),
        "{output:?}"
    );
}

#[test]
fn a_pod_shares_its_network() {
    let engine = engine!();
    engine
        .podman(&[
            "run",
            "-d",
            "--name",
            "first",
            IMAGE,
            "sh",
            "-c",
            "mkdir /www; echo shared > /www/index.html; exec httpd -f -p 81 -h /www",
        ])
        .ok();
    let seen = eventually("the server in the shared network", || {
        let output = engine.podman(&[
            "run",
            "--rm",
            "--network",
            "container:first",
            "--pid",
            "container:first",
            IMAGE,
            "wget",
            "-q",
            "-O",
            "-",
            "http://127.0.0.1:81/",
        ]);
        (output.code == 0).then_some(output.stdout)
    });
    assert_eq!(seen, "shared\n");
}

#[test]
fn rm_leaves_no_state_of_the_runtime() {
    let engine = engine!();
    let id = engine
        .podman(&["run", "-d", "--name", "box", IMAGE, "sleep", "1000000"])
        .ok();
    let inspect = engine.podman(&["inspect", "box"]).ok();
    let inspect: Value = serde_json::from_str(&inspect).unwrap();
    assert_eq!(
        inspect[0]["OCIRuntime"],
        runtime_tests::runtime().to_string_lossy().as_ref()
    );
    engine.podman(&["rm", "-f", "-t", "0", "box"]).ok();
    let left = engine
        .run(
            "sh",
            &[
                "-c",
                "find /run $XDG_RUNTIME_DIR -name \"$0*\" 2> /dev/null; true",
                id.trim(),
            ],
        )
        .ok();
    assert!(
        !left.lines().any(|line| line.ends_with("state.json")),
        "{left}"
    );
    assert_eq!(
        runtime_tests::cgroup_dirs_named(id.trim()),
        Vec::<std::path::PathBuf>::new()
    );
}
