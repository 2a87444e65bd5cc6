//! What `checkpoint` and `restore` cannot do, and what they say about it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::{
    Account, Container, Ids, eventually, has_criu, is_coracle, requires, rootless,
};

use crate::checkpoint::{WAIT, checkpoint, command, count, counting, restore, start};

#[test]
fn only_a_running_container_has_something_to_be_written() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let c = Container::new(WAIT);
    c.create().ok();
    checkpoint(&c, &[]).fails_with(1, "ontainer cannot be checkpointed in created state");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    checkpoint(&c, &[]).fails_with(1, "ontainer cannot be checkpointed in stopped state");
    c.delete().ok();
    checkpoint(&c, &[]).fails_with(1, "container does not exist");
}

#[test]
fn an_id_is_restored_once() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let c = counting();
    let (id, _) = count(&c);
    checkpoint(&c, &[]).ok();
    restore(&c, &[]).ok();
    let pid = c.pid();
    restore(&c, &[]).fails_with(1, "container with given ID already exists");
    assert_eq!((c.pid(), count(&c).0), (pid, id));
}

#[test]
fn there_have_to_be_images() {
    let c = Container::new(WAIT);
    c.write_config();
    assert_eq!(restore(&c, &[]).code, 1);
    c.assert_nothing_left();
    let images = c.dir().join("images");
    if is_coracle() {
        assert!(!images.exists(), "a restore makes no images");
    }
    fs::create_dir_all(&images).unwrap();
    assert_eq!(restore(&c, &[]).code, 1);
    fs::write(images.join("descriptors.json"), "[]").unwrap();
    let output = restore(&c, &[]);
    assert_eq!(output.code, 1);
    c.assert_nothing_left();
    if has_criu() && is_coracle() {
        let message = output.message();
        assert!(message.contains("work/restore.log"), "{message}");
        assert!(
            message.starts_with("restore failed: criu cannot restore it: "),
            "{message}"
        );
    }
}

#[test]
fn a_failure_names_the_log_and_its_cause() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let c = Container::new(WAIT);
    // A terminal of ours is not the container's to take along.
    let mut command = c.bundle_command("run", &["--detach"]);
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    let output = checkpoint(&c, &[]);
    assert_eq!(output.code, 1, "{output:?}");
    assert_eq!(c.status(), "running");
    if is_coracle() {
        let message = output.message();
        let log = c.dir().join("work/dump.log");
        assert!(
            message.starts_with("checkpoint failed: criu cannot"),
            "{message}"
        );
        assert!(message.contains(&*log.to_string_lossy()), "{message}");
        assert!(!message.contains("error "), "the log tells more: {message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    }
}

#[test]
fn damaged_images_leave_nothing_behind() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let c = counting();
    count(&c);
    checkpoint(&c, &[]).ok();
    let images = c.dir().join("images");
    let core = fs::read_dir(&images)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let core = core.filter(|path| path.to_string_lossy().contains("/mm-"));
    core.for_each(|path| fs::write(path, "no image").unwrap());
    assert_eq!(restore(&c, &[]).code, 1);
    c.assert_nothing_left();
}

#[test]
fn a_restore_that_is_killed_leaves_nothing_that_delete_does_not_find() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    requires!(is_coracle(), "runc leaves a mount");
    let mut c = counting();
    count(&c);
    checkpoint(&c, &[]).ok();
    let pid = c.dir().join("hook");
    let script = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        pid.display()
    );
    c.set(
        "/hooks/createRuntime",
        serde_json::json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }]),
    );
    c.write_config();
    let mut command = command(&c, "restore", &["--detach", "--bundle"]);
    command
        .arg(c.bundle())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut restored = command.spawn().unwrap();
    eventually("the hook is at work", || pid.exists().then_some(()));
    assert_eq!(c.status(), "creating");
    restored.kill().unwrap();
    restored.wait().unwrap();
    let deleted = c.delete_force();
    // Nobody else is left who would end the hook.
    let hook = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(hook), Signal::SIGKILL).unwrap();
    deleted.ok();
    c.assert_nothing_left();
}

#[test]
fn an_ordinary_user_is_told_that_it_takes_root() {
    requires!(is_coracle(), "runc leaves it to criu, whose words are lost");
    requires!(rootless().is_none(), "the test has a user of its own");
    let c = Container::new(WAIT).of(Account::new(Ids::Own));
    start(&c);
    checkpoint(&c, &[]).fails_with(1, "checkpoint failed: it takes root, as criu does");
    assert!(!c.dir().join("images").exists());
    c.delete_force().ok();
    restore(&c, &[]).fails_with(1, "restore failed: it takes root, as criu does");
}

#[test]
fn flags_are_checked_before_anything_is_done() {
    requires!(is_coracle(), "runc has other words");
    requires!(rootless().is_none(), "criu is root's");
    let c = Container::new(WAIT);
    start(&c);
    for (flags, words) in [
        (
            &["--manage-cgroups-mode", "hard"][..],
            "invalid manage-cgroups-mode value \"hard\"",
        ),
        (&["--network-lock", "x"], "invalid network-lock value \"x\""),
        (&["--empty-ns", "pid"], "namespace \"pid\" is not supported"),
        (&["--page-server", "host"], "use --page-server ADDRESS:PORT"),
        (&["--page-server", "host:x"], "invalid port number \"x\""),
        (&["--parent-path", "/abs"], "--parent-path must be relative"),
        (&["--parent-path", "../none"], "invalid --parent-path"),
        (
            &["--status-fd", "x"],
            "invalid value \"x\" for flag -status-fd",
        ),
        (
            &["--lazy-pages", "--status-fd", "99"],
            "invalid --status-fd argument 99",
        ),
        (&["--lazy-pages", "--status-fd", "0"], "not writable"),
        (
            &["--leave-stopped"],
            "flag provided but not defined: -leave-stopped",
        ),
    ] {
        checkpoint(&c, flags).fails_with(1, words);
    }
    assert_eq!(c.status(), "running");
    restore(&c, &["--pre-dump"]).fails_with(1, "flag provided but not defined: -pre-dump");
    restore(&c, &["--manage-cgroups-mode", "x"]).fails(1);
}

#[test]
fn criu_may_be_missing_old_or_broken() {
    requires!(is_coracle(), "runc has other words");
    requires!(rootless().is_none(), "criu is root's");
    let c = Container::new(WAIT);
    start(&c);
    let bin = c.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    let with = |script: Option<&str>| {
        if let Some(script) = script {
            let criu = bin.join("criu");
            fs::write(&criu, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&criu, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = command(&c, "checkpoint", &[]);
        command.env("PATH", &bin);
        c.finish(command)
    };
    with(None).fails_with(
        1,
        "checkpoint failed: criu is not installed: there is no program \"criu\" in $PATH",
    );
    with(Some("exit 3")).fails_with(1, "criu ended without an answer");
    // type VERSION, success, version 3.10
    let old = r"printf '\010\012\020\001\122\004\010\003\020\012' >&3";
    with(Some(old)).fails_with(1, "criu 3.10 is too old: checkpoint and restore takes 3.15");
    with(Some("printf 'nonsense' >&3")).fails_with(1, "listen to criu");
    assert_eq!(c.status(), "running");
}
