//! Machines whose cgroups are not as they should be: what is said, and that nothing is left behind.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use runtime_tests::{
    Container, Hierarchy, Output, V2Cgroup, View, by_systemd, cgroup_dirs_named, has_controller,
    has_v2_controller, is_coracle, is_crun, kernel_has, requires, rootless, shell,
};
use serde_json::json;

/// These are set-ups for a runtime that makes its cgroups itself, as root.
macro_rules! ours {
    () => {
        requires!(
            !by_systemd(),
            "with systemd the cgroups are its own to look after"
        );
        requires!(rootless().is_none(), "the views and cgroups are root's");
    };
}

/// A process that lives in a cgroup of the host until it is dropped.
struct Inhabitant(Child);

impl Inhabitant {
    fn of(dir: &Path) -> Self {
        let mut script = Command::new("sh");
        script.args([
            "-c",
            "echo 0 > \"$0/cgroup.procs\" && echo in && exec sleep 1000000",
        ]);
        let child = script.arg(dir).stdout(std::process::Stdio::piped()).spawn();
        let mut inhabitant = Self(child.unwrap());
        let mut said = [0; 3];
        let stdout = inhabitant.0.stdout.as_mut().unwrap();
        std::io::Read::read_exact(stdout, &mut said).expect("it gets into the cgroup");
        inhabitant
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A container below a v2 cgroup that the test made and changed; `None` without v2.
fn below() -> Option<(Container, V2Cgroup)> {
    let view = View::of(Hierarchy::V2)?;
    let above = V2Cgroup::new()?;
    let mut c = Container::new("echo ran").in_view(view);
    c.set(
        "/linux/cgroupsPath",
        json!(format!("{}/{}", above.path(), c.id)),
    );
    Some((c, above))
}

fn has_huge_pages() -> bool {
    has_v2_controller("hugetlb") && kernel_has("/sys/kernel/mm/hugepages/hugepages-2048kB")
}

fn limit_hugepages(c: &mut Container) {
    c.set(
        "/linux/resources/hugepageLimits",
        json!([{ "pageSize": "2MB", "limit": 2_097_152 }]),
    );
}

/// `run` failed with these words, as one line, and left nothing.
#[track_caller]
fn refused(c: &Container, words: &[&str]) {
    assert_refused(c, &c.run(), words);
}

#[track_caller]
fn assert_refused(c: &Container, output: &Output, words: &[&str]) {
    assert_eq!(output.code, 1, "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "one line: {output:?}");
    for word in words {
        assert!(output.message().contains(word), "{word:?} in {output:?}");
    }
    let left = c.leftovers();
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn no_cgroups_at_all() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    for change in [
        "umount -l /sys/fs/cgroup",
        "umount -l /sys/fs/cgroup && mount -t tmpfs none /sys/fs/cgroup",
        "umount -l /sys",
    ] {
        let c = Container::new("true").in_view(View::new(&[], change));
        let remedy = "no cgroup hierarchy is mounted at or below /sys/fs/cgroup (mount -t cgroup2 cgroup2 /sys/fs/cgroup)";
        refused(&c, &[remedy, "--cgroup-manager disabled does without"]);
    }
    // Without a view of cgroups inside there is nothing that a container needs them for.
    let mut c = Container::new("echo ran")
        .in_view(View::new(&[], "umount -l /sys/fs/cgroup"))
        .with_global_flags(&["--cgroup-manager", "disabled"]);
    c.config["mounts"].as_array_mut().unwrap().remove(6);
    assert_eq!(c.run().ok(), "ran\n");
}

#[test]
fn read_only_cgroups() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    let change = "for dir in /sys/fs/cgroup/* /sys/fs/cgroup; do \
        if mountpoint -q $dir; then mount -o bind,remount,ro $dir; fi; done";
    let c = Container::new("true").in_view(View::new(&[], change));
    refused(
        &c,
        &[
            "make cgroup /sys/fs/cgroup",
            "mounted read-only here, remount it read-write",
        ],
    );
}

#[test]
fn processes_where_controllers_are_to_be_handed_down() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    let made = below();
    requires!(
        made.is_some() && has_huge_pages(),
        "no huge pages on cgroup v2"
    );
    let (mut c, above) = made.unwrap();
    let mut inhabitant = Inhabitant::of(above.dir());
    assert_eq!(
        c.run().ok(),
        "ran\n",
        "a container without limits needs no controller"
    );
    limit_hugepages(&mut c);
    let file = format!("{}/cgroup.subtree_control does not take", above.path());
    let remedy = "processes live in that cgroup, move them into a sub-cgroup";
    refused(&c, &["linux.resources.hugepageLimits: ", &file, remedy]);
    assert!(inhabitant.is_alive());
}

#[test]
fn a_threaded_cgroup_above() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    let made = below();
    requires!(
        made.is_some() && has_huge_pages(),
        "no huge pages on cgroup v2"
    );
    let (mut c, above) = made.unwrap();
    above.write("cgroup.type", "threaded");
    let kind = "its cgroup.type is \"domain invalid\"";
    refused(
        &c,
        &[
            "create the container's process: put a process into cgroup",
            kind,
            "choose a cgroup elsewhere",
        ],
    );
    limit_hugepages(&mut c);
    refused(
        &c,
        &[
            "linux.resources.hugepageLimits: ",
            &above.path(),
            "threaded",
        ],
    );
}

#[test]
fn a_cgroup_that_already_hands_controllers_down() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    let made = below();
    requires!(
        made.is_some() && has_huge_pages(),
        "no huge pages on cgroup v2"
    );
    let (mut c, above) = made.unwrap();
    c.set("/linux/cgroupsPath", json!(above.path()));
    above.write("cgroup.subtree_control", "+hugetlb");
    let expected = "it hands controllers to its sub-cgroups, and so takes no process itself: see its cgroup.subtree_control";
    refused(&c, &[&above.path(), expected]);
}

#[test]
fn no_more_cgroups_are_allowed() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    for file in ["cgroup.max.depth", "cgroup.max.descendants"] {
        let made = below();
        requires!(made.is_some(), "no cgroup v2");
        let (c, above) = made.unwrap();
        above.write(file, "0");
        let limit = format!("{}/{file} is reached", above.path());
        refused(&c, &["make cgroup ", &limit]);
    }
}

#[test]
fn no_more_processes_are_allowed_above() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    requires!(
        has_v2_controller("pids") && View::of(Hierarchy::V2).is_some(),
        "no pids controller on v2"
    );
    let (c, above) = below().unwrap();
    above.write("pids.max", "0");
    let limit = format!("{}/pids.max is reached: 0", above.path());
    refused(&c, &["create the container's process: ", &limit]);
}

#[test]
fn a_cgroup_that_somebody_lives_in() {
    ours!();
    requires!(is_coracle(), "runc before 1.2 only warns, crun moves in");
    let made = below();
    requires!(made.is_some(), "no cgroup v2");
    let (mut c, above) = made.unwrap();
    let mut inhabitant = Inhabitant::of(above.dir());
    c.set("/linux/cgroupsPath", json!(above.path()));
    let place = format!("in /sys/fs/cgroup{}", above.path());
    refused(
        &c,
        &[
            "container's cgroup is not empty: 1 process(es) found",
            &place,
        ],
    );
    assert!(inhabitant.is_alive() && above.dir().exists());
}

#[test]
fn a_frozen_cgroup() {
    ours!();
    requires!(!is_crun(), "crun waits for ever");
    let made = below();
    requires!(made.is_some(), "no cgroup v2");
    let (mut c, above) = made.unwrap();
    c.set("/linux/cgroupsPath", json!(above.path()));
    above.write("cgroup.freeze", "1");
    let output = c.run();
    let message = output.message();
    assert!(
        output.code != 0 && message.contains("container's cgroup unexpectedly frozen"),
        "{output:?}"
    );
    if is_coracle() {
        refused(&c, &[&above.path(), "thaw it"]);
    }
    assert!(above.dir().exists());
}

#[test]
fn a_part_of_the_hierarchy_without_a_controller() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    let made = below();
    requires!(made.is_some(), "no cgroup v2");
    let (_, above) = made.unwrap();
    // What a container engine shows of a cgroup that was not handed the controller.
    let mount = above.dir().parent().unwrap();
    let change = format!(
        "mount --rbind {}/plain /sys/fs/cgroup",
        above.dir().display()
    );
    fs::create_dir(above.dir().join("plain")).unwrap();
    let mut c = Container::new("echo ran").in_view(View::new(&[], &change));
    c.set("/linux/cgroupsPath", json!(format!("/{}", c.id)));
    assert_eq!(c.run().ok(), "ran\n");
    limit_hugepages(&mut c);
    let expected = "the cgroup controller \"hugetlb\" is not available: /sys/fs/cgroup/cgroup.controllers does not list it";
    refused(&c, &["linux.resources.hugepageLimits: ", expected]);
    assert!(mount.exists());
}

#[test]
fn half_of_the_controllers_of_a_hybrid_machine() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    requires!(
        Path::new("/sys/fs/cgroup/pids/pids.max").exists()
            || Path::new("/sys/fs/cgroup/pids/cgroup.procs").exists(),
        "no cgroup v1"
    );
    let change = "umount -l /sys/fs/cgroup/pids; umount -l /sys/fs/cgroup/memory || true";
    let mut c = Container::new("echo ran").in_view(View::new(&[], change));
    assert_eq!(
        c.run().ok(),
        "ran\n",
        "what is not asked for may be missing"
    );
    c.set("/linux/resources/pids", json!({ "limit": 20 }));
    let expected = "linux.resources.pids.limit: the cgroup controller \"pids\" is not available: \
        it is bound to a cgroup v1 hierarchy that is not mounted below /sys/fs/cgroup";
    refused(&c, &[expected]);
}

#[test]
fn no_device_controller() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    requires!(
        Path::new("/sys/fs/cgroup/devices/cgroup.procs").exists(),
        "no cgroup v1"
    );
    let change = "umount -l /sys/fs/cgroup/devices; umount -l /sys/fs/cgroup/unified || true";
    let c = Container::new("true").in_view(View::new(&[], change));
    refused(
        &c,
        &[
            "linux.resources.devices: the cgroup controller \"devices\" is not available: it is bound to",
        ],
    );
}

#[test]
fn a_realtime_process_where_none_is_allowed() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    requires!(
        Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists(),
        "the cgroups of this kernel do not share out realtime"
    );
    let run = |c: &Container| {
        let run = c.bundle_command("run", &[]);
        let mut realtime = Command::new("chrt");
        realtime.args(["--fifo", "1"]).arg(run.get_program());
        realtime.args(run.get_args());
        c.finish(realtime)
    };
    let mut c = Container::new("echo ran");
    let reason = "enter the container's cgroup: invalid argument: its cpu.rt_runtime_us is 0";
    let remedy = "set linux.resources.cpu.realtimeRuntime";
    assert_refused(&c, &run(&c), &[reason, remedy]);
    c.set("/linux/resources/cpu", json!({ "realtimeRuntime": 5000 }));
    assert_eq!(run(&c).ok(), "ran\n");
}

#[test]
fn an_empty_cpuset_above_is_filled() {
    ours!();
    requires!(
        Path::new("/sys/fs/cgroup/cpuset/cpuset.cpus").exists(),
        "no cgroup v1"
    );
    let mut c = Container::new("grep -c . /proc/self/status >/dev/null; echo ran");
    let above = format!("/{}-above", c.id);
    let dir = format!("/sys/fs/cgroup/cpuset{above}");
    fs::create_dir(&dir).unwrap();
    let empty = fs::read_to_string(format!("{dir}/cpuset.cpus")).unwrap();
    c.set("/linux/cgroupsPath", json!(format!("{above}/leaf")));
    let output = c.run();
    let filled = fs::read_to_string(format!("{dir}/cpuset.cpus")).unwrap();
    for dir in cgroup_dirs_named(&above[1..]) {
        fs::remove_dir(dir).unwrap();
    }
    assert_eq!(output.ok(), "ran\n");
    assert_eq!(empty.trim(), "");
    assert_ne!(filled.trim(), "");
}

#[test]
fn an_update_that_the_kernel_refuses_changes_nothing() {
    ours!();
    requires!(is_coracle(), "the words are ours");
    requires!(
        has_controller("memory") && has_controller("cpuset"),
        "a controller is missing"
    );
    let mut c =
        Container::new("head -c 20000000 /dev/zero > /dev/shm/held; echo held; sleep 1000000");
    c.set("/linux/resources/memory", json!({ "limit": 67_108_864 }));
    c.run_detached();
    c.wait_to_say("held\n");
    let limits =
        json!({ "memory": { "limit": 10_485_760, "checkBeforeUpdate": true } }).to_string();
    let output = c.runtime_with_input(&["update", "--resources", "-", &c.id], &limits);
    assert_eq!(output.code, 1, "{output:?}");
    let message = output.message();
    assert!(
        message.contains("linux.resources.memory.limit: rejecting memory limit 10485760 <= usage ")
            || message.contains("more memory is in use than the new limit allows"),
        "{output:?}"
    );
    let limit = runtime_tests::Limit::MEMORY;
    assert_eq!(runtime_tests::limit_of(c.pid(), limit).unwrap(), "67108864");
    let output = c.runtime(&["update", "--cpuset-cpus", "4095-99999", &c.id]);
    let message = output.message();
    assert!(
        message.contains("linux.resources.cpu.cpus: write \"4095-99999\" to /sys/fs/cgroup")
            && message.contains("(the CPUs there are: "),
        "{output:?}"
    );
    assert_eq!(c.status(), "running");
    shell(&format!("test -e /proc/{}", c.pid()));
}
