//! One container through its whole life: create, start, state, kill, delete; and run, which is all of them.

use std::fs;

use runtime_tests::{
    Container, Hierarchy, View, by_systemd, eventually, has_cgroup, is_coracle, requires, rootless,
};
use serde_json::json;

#[test]
fn create_waits_for_start() {
    let c = Container::new("echo started");
    c.create().ok();
    let state = c.state();
    assert_eq!(state["status"], "created");
    assert!(state["pid"].as_i64().unwrap() > 0);
    assert_eq!(c.said(), "", "nothing of the container's runs before start");
    c.start().ok();
    c.wait_to_say("started\n");
    c.wait_for("stopped");
    c.delete().ok();
    c.runtime(&["state", &c.id])
        .fails_with(1, "container does not exist");
    c.assert_nothing_left();
}

#[test]
fn the_whole_life_on_cgroup_v1() {
    whole_life_in(Hierarchy::V1);
}

#[test]
fn the_whole_life_on_hybrid_cgroups() {
    whole_life_in(Hierarchy::Hybrid);
}

#[test]
fn the_whole_life_on_cgroup_v2() {
    whole_life_in(Hierarchy::V2);
}

fn whole_life_in(hierarchy: Hierarchy) {
    let view = View::of(hierarchy);
    requires!(
        view.is_some(),
        "this machine's cgroups cannot be seen as {hierarchy:?}"
    );
    let c = Container::idle().in_view(view.unwrap());
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    assert_eq!(c.exec("echo from exec").ok(), "from exec\n");
    c.runtime(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    c.runtime(&["resume", &c.id]).ok();
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    c.assert_nothing_left();
}

#[test]
fn start_twice_is_refused() {
    let c = Container::idle();
    c.create().ok();
    c.start().ok();
    c.start()
        .fails_with(1, "cannot start an already running container");
    assert_eq!(c.status(), "running");
}

#[test]
fn start_of_a_stopped_container_is_refused() {
    let c = Container::new("true");
    c.create().ok();
    c.start().ok();
    c.wait_for("stopped");
    c.start()
        .fails_with(1, "cannot start a container that has stopped");
}

#[test]
fn delete_of_a_created_container_kills_it() {
    let c = Container::new("echo started");
    c.create().ok();
    let pid = c.pid();
    c.delete().ok();
    c.assert_nothing_left();
    eventually("init is gone", || gone(pid));
    assert_eq!(c.said(), "");
}

#[test]
fn delete_of_a_running_container_needs_force() {
    let c = Container::idle();
    c.run_detached();
    let words = format!(
        "cannot delete container {} that is not stopped: running",
        c.id
    );
    c.delete().fails_with(1, &words);
    assert_eq!(c.status(), "running");
    let pid = c.pid();
    c.delete_force().ok();
    c.assert_nothing_left();
    eventually("init is gone", || gone(pid));
}

#[test]
fn delete_force_of_a_paused_container() {
    requires!(has_cgroup(), "an ordinary user has no cgroup");
    let c = Container::idle();
    c.run_detached();
    c.runtime(&["pause", &c.id]).ok();
    c.delete_force().ok();
    c.assert_nothing_left();
}

#[test]
fn delete_force_of_nothing_is_success() {
    let c = Container::idle();
    let output = c.delete_force();
    assert_eq!((output.code, output.stdout.as_str()), (0, ""));
    c.delete().fails_with(1, "container does not exist");
}

#[test]
fn delete_ends_every_process_of_a_shared_pid_namespace() {
    requires!(
        rootless().is_none(),
        "an ordinary user's container has a user namespace"
    );
    let mut c = Container::new("sleep 1000000 & echo $!; exit 0");
    c.set(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "uts" }]),
    );
    c.run_detached();
    let orphan: i64 = c.wait_to_say("\n").trim().parse().unwrap();
    c.wait_for("stopped");
    assert!(
        fs::exists(format!("/proc/{orphan}")).unwrap(),
        "without a pid namespace the child outlives init"
    );
    c.delete_force().ok();
    eventually("the orphan is gone", || gone(orphan));
    c.assert_nothing_left();
}

#[test]
fn delete_spares_the_container_that_has_its_cgroup_now() {
    requires!(
        is_coracle(),
        "runc leaves the cgroup to whoever is in it and fails"
    );
    requires!(
        rootless().is_none() && !by_systemd(),
        "root names the cgroup, by its path"
    );
    let mut first = Container::new("true");
    let path = json!(format!("/{}-shared", first.id));
    first.set("/linux/cgroupsPath", path.clone());
    first.run_detached();
    first.wait_for("stopped");
    let mut second = Container::idle().beside(&first);
    second.set("/linux/cgroupsPath", path);
    second.run_detached();
    let output = first.delete();
    assert!(
        output.code == 0 && output.message().contains("lives in it"),
        "{output:?}"
    );
    assert_eq!(second.status(), "running");
    second.delete_force().ok();
    first.assert_nothing_left();
}

#[test]
fn run_passes_the_exit_status_and_leaves_nothing() {
    for status in [0, 1, 7, 125, 255] {
        let c = Container::new(&format!("exit {status}"));
        c.run().exits(status);
        c.assert_nothing_left();
    }
}

#[test]
fn run_tells_a_signal_as_128_more() {
    let c = Container::idle();
    let child = c.bundle_command("run", &[]).spawn().unwrap();
    eventually("the container runs", || {
        (c.runtime(&["state", &c.id]).code == 0 && c.status() == "running").then_some(())
    });
    c.kill("KILL").ok();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(137));
    c.assert_nothing_left();
}

#[test]
fn run_connects_stdin_stdout_and_stderr() {
    let c = Container::new("read line; echo out $line; echo err $line >&2");
    c.write_config();
    let bundle = c.bundle();
    let output = c.runtime_with_input(&["run", "-b", &bundle.to_string_lossy(), &c.id], "typed\n");
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (0, "out typed\n", "err typed\n")
    );
}

#[test]
fn run_detached_returns_while_the_container_runs() {
    let c = Container::idle();
    let pid_file = c.dir().join("pid");
    c.run_with(&["-d", "--pid-file", &pid_file.to_string_lossy()])
        .ok();
    assert_eq!(c.status(), "running");
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap(),
        c.pid().to_string(),
        "decimal, without a newline"
    );
}

#[test]
fn run_keep_leaves_the_stopped_container() {
    let c = Container::new("exit 4");
    c.run_with(&["--keep"]).exits(4);
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    c.assert_nothing_left();
}

#[test]
fn pid_file_is_relative_to_where_the_command_was_typed() {
    let c = Container::idle();
    let mut command = c.bundle_command("create", &["--pid-file", "init.pid"]);
    command.current_dir(c.dir());
    c.to_files(command).ok();
    assert_eq!(
        fs::read_to_string(c.dir().join("init.pid")).unwrap(),
        c.pid().to_string()
    );
    assert!(!c.bundle().join("init.pid").exists());
}

#[test]
fn the_bundle_is_the_current_directory_when_none_is_named() {
    let c = Container::new("echo here");
    c.write_config();
    let mut command = c.command(&["run", &c.id]);
    command.current_dir(c.bundle());
    assert_eq!(c.to_files(command).ok(), "here\n");
}

#[test]
fn no_pivot_moves_the_root_instead() {
    let c = Container::new("ls / | head -1; test ! -e /usr/lib");
    assert_eq!(c.run_with(&["--no-pivot"]).ok(), "bin\n");
}

#[test]
fn an_id_can_be_used_again_after_delete() {
    let c = Container::new("echo again");
    for _ in 0..3 {
        assert_eq!(c.run().ok(), "again\n");
    }
}

#[test]
fn a_taken_id_is_refused_and_its_container_unharmed() {
    let c = Container::idle();
    c.run_detached();
    let pid = c.pid();
    c.create()
        .fails_with(1, "container with given ID already exists");
    assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
}

#[test]
fn cgroups_path_is_where_the_container_lives() {
    requires!(
        !by_systemd(),
        "systemd's form of cgroupsPath is systemd.rs's subject"
    );
    requires!(rootless().is_none(), "absolute paths are for root");
    let mut c = Container::idle();
    let parent = format!("/{}-parent", c.id);
    c.set("/linux/cgroupsPath", json!(format!("{parent}/leaf")));
    c.run_detached();
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert!(cgroups.contains(&format!("{parent}/leaf\n")), "{cgroups}");
    c.delete_force().ok();
    let left = runtime_tests::cgroup_dirs_named(&format!("{parent}/leaf"));
    assert!(left.is_empty(), "{left:?}");
    for dir in runtime_tests::cgroup_dirs_named(&parent[1..]) {
        fs::remove_dir(dir).unwrap();
    }
}

fn gone(pid: i64) -> Option<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    (status.is_empty() || status.contains("State:\tZ")).then_some(())
}
