//! Docker with the runtime under test as its default runtime, as Amazon's ECS agent has it too: what `docker` asks for, and what
//! must come back.

use std::fs;

use runtime_tests::{
    Docker, Hierarchy, Terminal, by_systemd, eventually, has_controller, has_program, hierarchy,
    http_get, requires, rootless,
};
use serde_json::Value;

const IMAGE: &str = "localhost/busybox";

macro_rules! docker {
    () => {{
        requires!(
            has_program("dockerd") && has_program("docker") && has_program("buildah"),
            "docker or buildah is not installed"
        );
        requires!(
            rootless().is_none() && !by_systemd(),
            "docker runs as root here, without systemd"
        );
        Docker::new()
    }};
}

#[test]
fn output_and_exit_status() {
    let docker = docker!();
    let script = "echo $$; echo err >&2; exit 42";
    let output = docker.run(&["run", "--rm", IMAGE, "sh", "-c", script]);
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (42, "1\n", "err\n")
    );
    for (program, status) in [("/etc", 126), ("/no/such/program", 127), ("no-such", 127)] {
        docker.run(&["run", "--rm", IMAGE, program]).fails(status);
    }
    let limits = docker.run(&["run", "--rm", "--memory", "1", IMAGE, "true"]);
    limits.fails(125);
}

#[test]
fn every_limit_arrives() {
    let docker = docker!();
    requires!(
        ["memory", "cpu", "cpuset", "pids"]
            .iter()
            .all(|name| has_controller(name)),
        "a controller is missing"
    );
    let flags = [
        "--memory",
        "64m",
        "--memory-reservation",
        "32m",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
        "--pids-limit",
        "50",
        "--ulimit",
        "nofile=100:200",
        "--shm-size",
        "16m",
    ];
    let (files, expected) = if hierarchy() == Hierarchy::V2 {
        (
            "memory.max memory.low cpu.max cpuset.cpus pids.max",
            "67108864 33554432 50000 100000 0 50",
        )
    } else {
        (
            "memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us \
             cpu/cpu.shares cpuset/cpuset.cpus pids/pids.max",
            "67108864 33554432 50000 100000 512 0 50",
        )
    };
    let script = format!(
        "cd /sys/fs/cgroup; cat {files}; ulimit -Sn; ulimit -Hn; df -k /dev/shm | awk 'END {{ print $2 }}'"
    );
    let run = [&["run", "--rm"], &flags[..], &[IMAGE, "sh", "-c", &script]].concat();
    let seen = docker.run(&run).ok();
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>().join(" "),
        format!("{expected} 100 200 16384")
    );
}

#[test]
fn what_the_process_may_do() {
    let docker = docker!();
    let status = |flags: &[&str]| {
        let script = "awk '/^(Uid|CapEff|CapBnd|Seccomp:|NoNewPrivs)/ { print $2 }' /proc/self/status; pwd; hostname; \
            touch /new 2>/dev/null && echo writable; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
        let run = [&["run", "--rm"], flags, &[IMAGE, "sh", "-c", script]].concat();
        docker
            .run(&run)
            .ok()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        status(&["--hostname", "box"]),
        "0 00000000a80425fb 00000000a80425fb 0 2 / box writable 0"
    );
    let flags = [
        "--user",
        "1234:5",
        "--workdir",
        "/tmp",
        "--hostname",
        "box",
        "--read-only",
        "--cap-drop",
        "all",
        "--cap-add",
        "chown",
        "--security-opt",
        "no-new-privileges",
        "--security-opt",
        "seccomp=unconfined",
        "--sysctl",
        "net.ipv4.ip_unprivileged_port_start=80",
    ];
    assert_eq!(
        status(&flags),
        "1234 0000000000000000 0000000000000001 1 0 /tmp box 80"
    );
    assert!(status(&["--privileged", "--hostname", "box"]).contains(" 0 0 / box"));
}

#[test]
fn a_container_from_run_to_remove() {
    let docker = docker!();
    let script = "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    docker
        .run(&[
            "run", "--detach", "--name", "box", IMAGE, "sh", "-c", script,
        ])
        .ok();
    eventually("its log", || {
        (docker.run(&["logs", "box"]).stdout == "up\n").then_some(())
    });
    let exec = [
        "exec",
        "--env",
        "A=b",
        "--user",
        "7",
        "box",
        "sh",
        "-c",
        "id -u; echo $A; exit 5",
    ];
    assert_eq!(docker.run(&exec).exits(5), "7\nb\n");
    assert!(docker.run(&["top", "box"]).ok().contains("sleep 0.1"));
    docker.run(&["pause", "box"]).ok();
    let status = [
        "inspect",
        "--format",
        "{{.State.Status}} {{.State.ExitCode}}",
        "box",
    ];
    assert_eq!(docker.run(&status).ok(), "paused 0\n");
    docker.run(&["unpause", "box"]).ok();
    let stats = docker
        .run(&["stats", "--no-stream", "--format", "{{.PIDs}}", "box"])
        .ok();
    assert!(stats.trim().parse::<u32>().is_ok(), "{stats}");
    docker.run(&["stop", "box"]).ok();
    assert_eq!(docker.run(&status).ok(), "exited 3\n");
    assert_eq!(docker.run(&["logs", "box"]).ok(), "up\nasked\n");
    docker.run(&["start", "box"]).ok();
    docker.run(&["kill", "box"]).ok();
    assert_eq!(docker.run(&["wait", "box"]).ok(), "137\n");
    docker.run(&["rm", "box"]).ok();
}

#[test]
fn update_of_a_running_container() {
    let docker = docker!();
    requires!(
        has_controller("memory") && has_controller("pids"),
        "no memory or pids controller"
    );
    docker
        .run(&[
            "run", "--detach", "--name", "box", "--memory", "64m", IMAGE, "sleep", "1000000",
        ])
        .ok();
    docker
        .run(&[
            "update",
            "--memory",
            "32m",
            "--memory-swap",
            "64m",
            "--pids-limit",
            "20",
            "box",
        ])
        .ok();
    let script = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes pids.max pids/pids.max 2>/dev/null; true";
    assert_eq!(
        docker.run(&["exec", "box", "sh", "-c", script]).ok(),
        "33554432\n20\n"
    );
}

#[test]
fn restarts_and_health() {
    let docker = docker!();
    docker
        .run(&[
            "run",
            "--detach",
            "--name",
            "failing",
            "--restart",
            "on-failure:2",
            IMAGE,
            "sh",
            "-c",
            "echo run; exit 1",
        ])
        .ok();
    eventually("three runs in all", || {
        let state = [
            "inspect",
            "--format",
            "{{.RestartCount}} {{.State.Status}}",
            "failing",
        ];
        (docker.run(&state).stdout == "2 exited\n").then_some(())
    });
    assert_eq!(docker.run(&["logs", "failing"]).ok(), "run\nrun\nrun\n");
    let check = [
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "1s",
    ];
    let run = ["run", "--detach", "--name", "patient"];
    docker
        .run(
            &[
                &run[..],
                &check,
                &[IMAGE, "sh", "-c", "touch /tmp/well; sleep 1000000"],
            ]
            .concat(),
        )
        .ok();
    eventually("its health", || {
        let health = ["inspect", "--format", "{{.State.Health.Status}}", "patient"];
        (docker.run(&health).stdout == "healthy\n").then_some(())
    });
}

#[test]
fn a_terminal() {
    let docker = docker!();
    let mut terminal = Terminal::open();
    let command = docker.command(&[
        "run",
        "--rm",
        "-it",
        IMAGE,
        "sh",
        "-c",
        "tty; stty size; exit 9",
    ]);
    terminal.resize(33, 77);
    assert_eq!(terminal.run(&command), 9, "{}", terminal.seen());
    terminal.wait_to_see("/dev/pts/0");
}

#[test]
fn a_published_port() {
    let docker = docker!();
    let script = "mkdir /www; echo hello > /www/index.html; httpd -f -p 80 -h /www";
    docker
        .run(&[
            "run",
            "--detach",
            "--name",
            "web",
            "--publish",
            "127.0.0.1:8080:80",
            IMAGE,
            "sh",
            "-c",
            script,
        ])
        .ok();
    assert_eq!(http_get(&docker.engine, None, "127.0.0.1", 8080), "hello\n");
}

#[test]
fn built_saved_and_loaded() {
    let docker = docker!();
    let context = docker.engine.path("context");
    fs::create_dir(&context).unwrap();
    fs::write(
        context.join("Dockerfile"),
        format!("FROM {IMAGE}\nRUN echo made > /file && echo someone:x:77:77::/:/bin/sh >> /etc/passwd\nUSER someone\nENV A=b\nCMD [\"sh\", \"-c\", \"id -un; cat /file; echo $A\"]\n"),
    )
    .unwrap();
    let context = context.display().to_string();
    docker
        .run(&["build", "--quiet", "--tag", "made", &context])
        .ok();
    let archive = docker.engine.path("made.tar").display().to_string();
    docker.run(&["save", "--output", &archive, "made"]).ok();
    docker.run(&["rmi", "--force", "made"]).ok();
    docker.run(&["load", "--quiet", "--input", &archive]).ok();
    assert_eq!(
        docker.run(&["run", "--rm", "made"]).ok(),
        "someone\nmade\nb\n"
    );
}

#[test]
fn a_container_outlives_the_daemon() {
    let mut docker = docker!();
    docker
        .run(&[
            "run",
            "--detach",
            "--name",
            "box",
            IMAGE,
            "sh",
            "-c",
            "until [ -e /go ]; do sleep 0.1; done; echo gone; exit 6",
        ])
        .ok();
    docker.replace_daemon();
    let inspected: Value = serde_json::from_str(&docker.run(&["inspect", "box"]).ok()).unwrap();
    assert_eq!(inspected[0]["State"]["Status"], "running");
    docker.run(&["exec", "box", "touch", "/go"]).ok();
    assert_eq!(docker.run(&["wait", "box"]).ok(), "6\n");
    assert_eq!(docker.run(&["logs", "box"]).ok(), "gone\n");
}
