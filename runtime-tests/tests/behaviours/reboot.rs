//! Records that have outlived what they are of: the machine was started anew, or the pid belongs to somebody else by now.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use runtime_tests::{
    Container, View, cgroup_dirs_named, eventually, is_coracle, pids_in_cgroups_named, requires,
    rootless, shell,
};
use serde_json::{Value, json};

/// Somebody who has nothing to do with the container.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Stranger(Command::new("sleep").arg("1000000").spawn().unwrap())
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running container, as it is on record after a reboot: by then its process and whoever is in its cgroup are others.
fn before_the_reboot() -> (Container, i64) {
    let mut c = Container::idle();
    c.run_detached();
    let pid = c.pid();
    c.enter(View::after_reboot());
    (c, pid)
}

fn runs(pid: i64) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

/// Ends the processes that the container was not to touch, and removes their cgroups.
fn clear(c: &Container) {
    for pid in pids_in_cgroups_named(&c.id) {
        shell(&format!("kill -9 {pid}"));
    }
    for dir in cgroup_dirs_named(&c.id) {
        // systemd may be faster.
        eventually("the cgroup is gone", || {
            (fs::remove_dir(&dir).is_ok() || !dir.exists()).then_some(())
        });
    }
}

#[test]
fn a_container_from_before_a_reboot_is_stopped_and_touches_no_stranger() {
    requires!(rootless().is_none(), "the views are root's");
    requires!(
        is_coracle(),
        "runc knows processes by pid and start time alone"
    );
    let (c, pid) = before_the_reboot();
    assert_eq!(
        (c.status().as_str(), &c.state()["pid"]),
        ("stopped", &json!(0))
    );
    c.kill("KILL").fails_with(1, "container not running");
    c.runtime(&["kill", "--all", &c.id, "KILL"])
        .fails_with(1, "container not running");
    c.runtime(&["ps", &c.id])
        .fails_with(1, "container not running");
    c.runtime(&["pause", &c.id])
        .fails_with(1, "container not running");
    c.runtime(&["update", "--pids-limit", "5", &c.id])
        .fails_with(1, "container not running");
    assert_eq!(c.exec("true").code, 255);
    assert_eq!(c.start().code, 1);
    c.delete().ok();
    assert!(runs(pid), "delete killed a stranger");
    assert!(
        !cgroup_dirs_named(&c.id).is_empty(),
        "delete took a stranger's cgroup away"
    );
    clear(&c);
    c.assert_nothing_left();
}

#[test]
fn delete_with_force_after_a_reboot_touches_no_stranger() {
    requires!(rootless().is_none(), "the views are root's");
    requires!(
        is_coracle(),
        "runc knows processes by pid and start time alone"
    );
    let (c, pid) = before_the_reboot();
    c.delete_force().ok();
    assert!(runs(pid), "delete --force killed a stranger");
    clear(&c);
    c.assert_nothing_left();
}

#[test]
fn a_damaged_record_from_before_a_reboot_touches_no_stranger() {
    requires!(rootless().is_none(), "the views are root's");
    requires!(is_coracle(), "runc cannot delete what it cannot read");
    let (c, pid) = before_the_reboot();
    fs::write(c.state_root().join(&c.id).join("state.json"), "{").unwrap();
    c.delete_force().ok();
    assert!(runs(pid), "delete --force killed a stranger");
    clear(&c);
    c.assert_nothing_left();
}

#[test]
fn an_empty_cgroup_from_before_a_reboot_goes_with_its_record() {
    let mut c = Container::idle();
    c.run_detached();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.enter(View::after_reboot());
    c.delete().ok();
    c.assert_nothing_left();
}

#[test]
fn a_pid_that_belongs_to_another_process_is_never_signalled() {
    requires!(is_coracle(), "its state.json has another form");
    let c = Container::idle();
    c.run_detached();
    let file = c.state_root().join(&c.id).join("state.json");
    // A pid comes round only after many others: never within the same hundredth of a second.
    let begun = start_time(c.pid());
    let mut stranger = eventually("the clock ticks", || {
        let stranger = Stranger::new();
        (start_time(stranger.0.id().into()) != begun).then_some(stranger)
    });
    change(&file, |record| {
        record["init"]["pid"] = json!(stranger.0.id())
    });
    assert_eq!(c.status(), "stopped");
    c.kill("KILL").fails_with(1, "container not running");
    c.delete_force().ok();
    assert!(stranger.is_alive(), "delete --force killed a stranger");
    c.assert_nothing_left();
}

fn start_time(pid: i64) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(19).unwrap().to_owned()
}

fn change(file: &Path, edit: impl FnOnce(&mut Value)) {
    let mut record: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    edit(&mut record);
    fs::write(file, record.to_string()).unwrap();
}
