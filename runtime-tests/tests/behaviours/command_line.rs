//! The command line: global flags, Go's flag syntax, logs, help, version, exit codes.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use runtime_tests::{
    Container, has_cgroup, is_coracle, is_runc_since, read_text, requires, rootless, runtime,
};
use serde_json::Value;

const COMMANDS: [&str; 15] = [
    "create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "spec", "features",
    "pause", "resume", "update", "events",
];

fn bare() -> Container {
    Container::idle()
}

#[test]
fn version() {
    let c = bare();
    for flag in ["--version", "-v", "-version"] {
        let text = c.runtime(&[flag]).ok();
        let lines: Vec<&str> = text.lines().collect();
        let name = runtime().file_name().unwrap().to_string_lossy();
        assert!(
            lines[0].starts_with(&format!("{name} version ")) || !is_coracle(),
            "{text}"
        );
        assert!(
            lines[1].starts_with("commit: ") && lines[2].starts_with("spec: 1."),
            "{text}"
        );
    }
}

#[test]
fn help_of_the_program_and_of_each_command() {
    let c = bare();
    for flag in ["--help", "-h", "help"] {
        let text = c.runtime(&[flag]).ok();
        assert!(text.starts_with("NAME:\n   "), "{text}");
        for command in COMMANDS {
            assert!(
                text.contains(&format!("   {command} ")),
                "{command} in {text}"
            );
        }
    }
    for command in COMMANDS {
        for args in [[command, "--help"], [command, "-h"], ["help", command]] {
            let output = c.runtime(&args);
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{args:?}");
            assert!(output.stdout.starts_with("NAME:\n   "), "{output:?}");
            assert!(
                output.stdout.contains(&format!(" {command} - ")),
                "{output:?}"
            );
            assert!(output.stdout.contains("USAGE:\n"), "{output:?}");
        }
    }
    if is_coracle() {
        assert!(
            c.runtime(&["--help"])
                .ok()
                .starts_with("NAME:\n   coracle - ")
        );
    }
}

#[test]
fn help_names_every_flag() {
    let c = bare();
    let flags: [(&str, &[&str]); 9] = [
        (
            "create",
            &[
                "bundle",
                "console-socket",
                "pid-file",
                "no-pivot",
                "no-new-keyring",
                "preserve-fds",
            ],
        ),
        (
            "run",
            &[
                "bundle",
                "console-socket",
                "pid-file",
                "no-pivot",
                "no-new-keyring",
                "preserve-fds",
                "detach",
                "keep",
                "no-subreaper",
            ],
        ),
        (
            "exec",
            &[
                "console-socket",
                "cwd",
                "env",
                "tty",
                "user",
                "additional-gids",
                "process",
                "detach",
                "pid-file",
                "process-label",
                "apparmor",
                "no-new-privs",
                "cap",
                "preserve-fds",
                "cgroup",
                "ignore-paused",
            ],
        ),
        ("kill", &["all"]),
        ("delete", &["force"]),
        ("list", &["format", "quiet"]),
        ("events", &["interval", "stats"]),
        ("spec", &["bundle", "rootless"]),
        (
            "update",
            &[
                "resources",
                "blkio-weight",
                "cpu-period",
                "cpu-quota",
                "cpu-share",
                "cpu-rt-period",
                "cpu-rt-runtime",
                "cpuset-cpus",
                "cpuset-mems",
                "memory",
                "memory-reservation",
                "memory-swap",
                "pids-limit",
                "l3-cache-schema",
                "mem-bw-schema",
            ],
        ),
    ];
    for (command, flags) in flags {
        let text = c.runtime(&[command, "--help"]).ok();
        // runc 1.3 still takes it, and says nothing of it.
        let hidden = |flag: &str| (command, flag) == ("kill", "all") && is_runc_since(1, 3);
        for flag in flags.iter().filter(|flag| !hidden(flag)) {
            assert!(
                text.contains(&format!("--{flag}")),
                "{command} --{flag}: {text}"
            );
        }
    }
}

#[test]
fn unknown_commands_and_flags() {
    let c = bare();
    c.runtime(&["frobnicate"])
        .fails_with(3, "No help topic for 'frobnicate'");
    for args in [
        &["--frob"][..],
        &["state", "--frob", "x"],
        &["create", "-frob", "x"],
        &["run", "--keep=maybe", "x"],
        &["run", "--preserve-fds", "x", "y"],
        &["create", "--bundle"],
    ] {
        let output = c.runtime(args);
        assert_eq!(output.code, 1, "{args:?}: {output:?}");
        assert!(
            format!("{}{}", output.stdout, output.stderr).contains("USAGE:"),
            "with the usage: {args:?}: {output:?}"
        );
    }
    let output = c.runtime(&["state", "--frob", "x"]);
    assert!(
        output
            .message()
            .contains("flag provided but not defined: -frob"),
        "{output:?}"
    );
    let output = c.runtime(&["create", "--bundle"]);
    assert!(
        output.message().contains("flag needs an argument: -bundle"),
        "{output:?}"
    );
}

#[test]
fn the_number_of_arguments_is_checked() {
    let c = bare();
    for args in [
        &["state"][..],
        &["start"],
        &["create"],
        &["run"],
        &["kill"],
        &["delete"],
        &["pause"],
        &["resume"],
        &["state", "a", "b"],
        &["create", "a", "b"],
        &["list", "x"],
        &["spec", "x"],
    ] {
        let output = c.runtime(args);
        assert_eq!(output.code, 1, "{args:?}: {output:?}");
        assert!(
            output.message().contains("argument"),
            "{args:?}: {output:?}"
        );
    }
}

#[test]
fn flags_in_gos_syntax() {
    let c = Container::idle();
    c.write_config();
    let bundle = c.bundle().to_string_lossy().into_owned();
    let pid_file = c.dir().join("pid").to_string_lossy().into_owned();
    let forms: [Vec<String>; 6] = [
        vec![
            "-bundle".into(),
            bundle.clone(),
            "-detach".into(),
            c.id.clone(),
        ],
        vec![
            format!("-bundle={bundle}"),
            "--detach=true".into(),
            c.id.clone(),
        ],
        vec![
            format!("--bundle={bundle}"),
            "-d".into(),
            format!("-pid-file={pid_file}"),
            c.id.clone(),
        ],
        vec![
            "-b".into(),
            bundle.clone(),
            "-d=1".into(),
            "-no-subreaper".into(),
            c.id.clone(),
        ],
        vec![
            format!("-b={bundle}"),
            "-d=T".into(),
            "--keep=false".into(),
            "-no-pivot=0".into(),
            c.id.clone(),
        ],
        vec![c.id.clone(), "-d".into(), "--bundle".into(), bundle.clone()],
    ];
    for form in forms {
        let mut args = vec!["run".to_owned()];
        args.extend(form);
        if !is_coracle() && args[1] == c.id {
            continue;
        }
        c.to_files(c.command(&args)).ok();
        assert_eq!(c.status(), "running", "{args:?}");
        let mut delete = vec!["delete".to_owned(), "-force".to_owned(), c.id.clone()];
        c.runtime(&delete).ok();
        delete[1] = "--force=true".into();
        c.runtime(&delete).ok();
    }
}

#[test]
fn the_log_file_of_a_failure_is_one_json_object() {
    let mut c = Container::with_args(&["/nonesuch"]);
    // A warning beside the error would break podman, which reads the file as one object.
    c.push(
        "/process/capabilities/bounding",
        serde_json::json!("CAP_FLYING"),
    );
    let log = c.dir().join("log.json");
    let c = c.with_global_flags(&["--log", &log.to_string_lossy(), "--log-format", "json"]);
    let output = c.create();
    assert_eq!(output.code, 1);
    let text = read_text(&log);
    if is_coracle() {
        let entry: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(entry["level"], "error");
        assert!(
            entry["msg"].as_str().unwrap().contains("/nonesuch"),
            "{entry}"
        );
        assert!(entry["time"].as_str().unwrap().contains('T'));
    }
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    assert!(
        output.stderr.contains("/nonesuch"),
        "and stderr says it in plain text: {output:?}"
    );
    assert!(!output.stderr.trim_start().starts_with('{'), "{output:?}");
}

#[test]
fn the_log_file_is_appended_to() {
    let c = Container::idle();
    let log = c.dir().join("log");
    fs::write(&log, "before\n").unwrap();
    let c = c.with_global_flags(&["--log", &log.to_string_lossy()]);
    c.runtime(&["state", &c.id])
        .fails_with(1, "container does not exist");
    let text = read_text(&log);
    assert!(
        text.starts_with("before\n") && text.contains("level=error msg=\"container does not exist"),
        "{text}"
    );
}

#[test]
fn success_is_silent() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    let c = Container::idle();
    let log = c.dir().join("log.json");
    let c = c.with_global_flags(&["--log", &log.to_string_lossy(), "--log-format", "json"]);
    for output in [
        c.create(),
        c.start(),
        c.runtime(&["pause", &c.id]),
        c.runtime(&["resume", &c.id]),
        c.kill("KILL"),
    ] {
        assert_eq!(
            (output.code, output.stdout.as_str(), output.stderr.as_str()),
            (0, "", ""),
            "{output:?}"
        );
    }
    c.wait_for("stopped");
    assert_eq!(c.delete().ok(), "");
    assert_eq!(read_text(&log), "", "and nothing in the log");
}

#[test]
fn debug_output_goes_to_the_log() {
    let c = Container::new("true");
    let log = c.dir().join("log");
    let c = c.with_global_flags(&["--debug", "--log", &log.to_string_lossy()]);
    c.run().ok();
    let text = read_text(&log);
    assert!(text.contains("level=debug msg="), "{text}");
}

#[test]
fn the_state_root_is_made_and_used() {
    let c = Container::idle();
    assert!(!c.state_root().exists());
    c.run_detached();
    assert!(c.state_root().join(&c.id).is_dir());
    let elsewhere = Container::idle();
    elsewhere
        .runtime(&["state", &c.id])
        .fails_with(1, "container does not exist");
}

#[test]
fn global_flags_of_crun_that_podman_sends() {
    requires!(is_coracle(), "runc has none of them");
    let c = Container::new("true");
    for flags in [
        &["--cgroup-manager", "cgroupfs"][..],
        &["--cgroup-manager=cgroupfs"],
        &["--log-level", "error"],
        &["--rootless", "false"],
    ] {
        c.create().ok();
        c.delete().ok();
        let mut args = flags.to_vec();
        args.extend(["state", &c.id]);
        c.runtime(&args).fails_with(1, "container does not exist");
    }
}

#[test]
fn engines_probes() {
    let c = bare();
    requires!(is_coracle(), "about the flags that podman probes");
    assert_eq!(c.runtime(&["checkpoint", "--help"]).code, 0);
    let output = c.runtime(&["restore", "--lsm-mount-context"]);
    assert!(
        format!("{}{}", output.stdout, output.stderr).contains("flag needs an argument"),
        "{output:?}"
    );
}

#[test]
fn kill_and_delete_by_regex() {
    requires!(is_coracle(), "a flag of crun's");
    let a = Container::idle();
    a.run_detached();
    let b = Container::idle().beside(&a);
    b.run_detached();
    let pattern = format!("^({}|{})$", a.id, b.id);
    a.runtime(&["kill", "--regex", &pattern, "KILL"]).ok();
    a.wait_for("stopped");
    b.wait_for("stopped");
    a.runtime(&["delete", "-r", &pattern]).ok();
    a.assert_nothing_left();
    b.assert_nothing_left();
}

#[test]
fn another_configuration_file() {
    requires!(is_coracle(), "a flag of crun's");
    let c = Container::new("echo other");
    c.write_config();
    let other = c.dir().join("other.json");
    fs::rename(c.bundle().join("config.json"), &other).unwrap();
    let bundle = c.bundle().to_string_lossy().into_owned();
    let output = c.runtime(&[
        "create",
        "-b",
        &bundle,
        "--config",
        &other.to_string_lossy(),
        &c.id,
    ]);
    output.ok();
    assert_eq!(c.status(), "created");
}

#[test]
fn an_engine_need_not_say_where_home_is() {
    requires!(rootless().is_none(), "the test has a user of its own");
    let c = Container::new("true");
    let id = "0123456789abcdef".repeat(4);
    let as_user = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=4242", "--regid=4242", "--clear-groups"])
            .arg(runtime())
            .args(["--root", "/tmp/ct-nobodys-state"])
            .args(args)
            .env_clear();
        c.finish(command)
    };
    for command in ["state", "start", "kill"] {
        as_user(&[command, &id]).fails_with(1, "does not exist");
    }
    as_user(&["list"]).ok();
}

/// The program that `--init` puts in front of a container's command, with a standard error that takes nothing.
#[test]
fn an_error_that_nobody_can_be_told_keeps_its_exit_status() {
    requires!(is_coracle(), "about our own init");
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let status = Command::new(runtime())
        .arg0("coracle-init")
        .args(["--", "/nope"])
        .stderr(full.unwrap())
        .status();
    assert_eq!(status.unwrap().code(), Some(127));
}
