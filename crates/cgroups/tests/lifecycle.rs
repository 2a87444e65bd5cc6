//! The life of a cgroup on the hierarchies of this machine, and on the unified hierarchy alone in a mount namespace of our
//! own. Needs root; says so and passes where that is missing.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cgroups::{Cgroup, Error, Host, Layout, Location};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::LinuxResources;

/// A cgroup that is removed whatever happens.
struct Scratch {
    cgroup: Cgroup,
    top: PathBuf,
}

impl Scratch {
    fn new(name: &str) -> Scratch {
        let top = PathBuf::from(format!("/coracle-test-{}-{name}", std::process::id()));
        let location = Location::resolve(&Host::probe().unwrap(), &top.join("inner")).unwrap();
        Scratch {
            cgroup: Cgroup::create(&location).unwrap(),
            top,
        }
    }

    fn dirs(&self) -> Vec<PathBuf> {
        self.cgroup
            .location()
            .places()
            .iter()
            .map(|place| place.dir())
            .collect()
    }

    /// Reads a file wherever it is.
    fn read(&self, file: &str) -> Option<String> {
        self.dirs()
            .iter()
            .find_map(|dir| std::fs::read_to_string(dir.join(file)).ok())
            .map(|text| text.trim_end().to_owned())
    }

    fn has(&self, controller: &str) -> bool {
        self.cgroup
            .location()
            .places()
            .iter()
            .any(|place| place.controllers.iter().any(|one| one == controller))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = self.cgroup.remove();
        let top = Location::resolve(&Host::probe().unwrap(), &self.top).unwrap();
        Cgroup::open(&top).unwrap().remove().unwrap();
        removed.unwrap();
    }
}

/// A process that ends with the value.
struct Process(Child);

impl Process {
    fn start(script: &str) -> Process {
        Process(
            Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn in_cgroup(cgroup: &Cgroup, script: &str) -> Process {
        // Waits for a line, so that what it starts is in the cgroup from the beginning.
        let mut child = Command::new("sh")
            .args(["-c", &format!("read x; {script}")])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        cgroup.add(child.id() as i32).unwrap();
        drop(child.stdin.take());
        Process(child)
    }

    fn id(&self) -> i32 {
        self.0.id() as i32
    }

    fn end(&mut self) -> std::process::ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_root(test: &str) -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        println!("{test}: skipped, needs root");
    }
    root
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn life(layout: Layout) {
    assert_eq!(Host::probe().unwrap().layout(), layout);
    created_and_removed();
    limits();
    devices();
    frozen_and_thawed();
    killed();
    removed_while_in_use();
    removed_once_empty();
    signals();
    statistics();
    roots_are_refused();
    out_of_memory();
}

fn created_and_removed() {
    let scratch = Scratch::new("create");
    let dirs = scratch.dirs();
    assert!(dirs.iter().all(|dir| dir.is_dir()));
    assert_eq!(
        scratch.cgroup.clone_into().is_some(),
        scratch.cgroup.location().layout() != Layout::V1
    );
    // An empty one may be taken over, one in use may not.
    let again = Cgroup::create(scratch.cgroup.location()).unwrap();
    let process = Process::in_cgroup(&again, "sleep 100");
    assert!(scratch.cgroup.processes().unwrap().contains(&process.id()));
    let error = Cgroup::create(scratch.cgroup.location())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("container's cgroup is not empty: "),
        "{error}"
    );
    assert!(
        !scratch
            .cgroup
            .wait_empty(Duration::from_millis(20))
            .unwrap()
    );
    scratch.cgroup.delegate(12345).unwrap();
    drop(process);
    drop(scratch);
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

fn limits() {
    let scratch = Scratch::new("limits");
    let cgroup = &scratch.cgroup;
    for (controller, json) in [
        ("pids", r#"{"pids":{"limit":9}}"#),
        ("memory", r#"{"memory":{"limit":67108864}}"#),
    ] {
        match cgroup.limit(&resources(json)) {
            Ok(()) => assert!(scratch.has(controller)),
            Err(error) => {
                assert!(
                    !scratch.has(controller) && matches!(error, Error::MissingController { .. }),
                    "{error}"
                );
            }
        }
    }
    if scratch.has("pids") {
        assert_eq!(scratch.read("pids.max").unwrap(), "9");
    }
    if cgroup.location().layout() != Layout::V2 {
        assert_eq!(scratch.read("memory.limit_in_bytes").unwrap(), "67108864");
        // Raising, lowering and lifting, each of which the kernel takes in one order only.
        for (limit, swap) in [
            (134_217_728, 268_435_456),
            (33_554_432, 67_108_864),
            (-1, -1),
        ] {
            cgroup
                .update(&resources(&format!(
                    r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#
                )))
                .unwrap();
            if limit > 0 {
                assert_eq!(
                    scratch.read("memory.memsw.limit_in_bytes").unwrap(),
                    swap.to_string()
                );
                assert_eq!(
                    scratch.read("memory.limit_in_bytes").unwrap(),
                    limit.to_string()
                );
            }
        }
        for (quota, period, burst) in [
            (50_000, 100_000, 40_000),
            (5_000, 10_000, 1_000),
            (500_000, 1_000_000, 300_000),
        ] {
            let json = format!(
                r#"{{"cpu":{{"shares":512,"quota":{quota},"period":{period},"burst":{burst}}}}}"#
            );
            cgroup.update(&resources(&json)).unwrap();
            assert_eq!(scratch.read("cpu.cfs_quota_us").unwrap(), quota.to_string());
            assert_eq!(scratch.read("cpu.cfs_burst_us").unwrap(), burst.to_string());
        }
        cgroup
            .update(&resources(
                r#"{"cpu":{"cpus":"0","mems":"0"},"blockIO":{"weight":500}}"#,
            ))
            .unwrap();
        assert_eq!(scratch.read("cpuset.cpus").unwrap(), "0");
        let error = cgroup
            .update(&resources(r#"{"unified":{"pids.max":"5"}}"#))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("linux.resources.unified: "), "{error}");
        let error = cgroup
            .update(&resources(r#"{"cpu":{"cpus":"4000"}}"#))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("linux.resources.cpu.cpus: write \"4000\" to /sys/fs/cgroup/"),
            "{error}"
        );
    } else {
        cgroup
            .update(&resources(r#"{"unified":{"cgroup.max.depth":"5"}}"#))
            .unwrap();
        assert_eq!(scratch.read("cgroup.max.depth").unwrap(), "5");
        let error = cgroup
            .update(&resources(r#"{"unified":{"nope.max":"5"}}"#))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("controller \"nope\" not available"),
            "{error}"
        );
    }
    if scratch.has("hugetlb") {
        cgroup
            .update(&resources(
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
            ))
            .unwrap();
        assert_eq!(scratch.read("hugetlb.2MB.max").unwrap(), "4194304");
    }
}

fn devices() {
    let scratch = Scratch::new("devices");
    let only = |device: &str| {
        let number = if device == "null" { 3 } else { 5 };
        resources(&format!(
            r#"{{"devices":[{{"allow":false,"access":"rwm"}},
                {{"allow":true,"type":"c","major":1,"minor":{number},"access":"rw"}}]}}"#
        ))
    };
    let tries = |device: &str| {
        // The shell itself needs nothing, so what fails is the device.
        let script = format!("exec 3</dev/{device}");
        Process::in_cgroup(&scratch.cgroup, &script).end().success()
    };
    scratch.cgroup.restrict_devices(&only("null")).unwrap();
    assert!(tries("null") && !tries("zero"), "only /dev/null is allowed");
    // Once more on an opened cgroup, where the first program has to give way.
    Cgroup::open(scratch.cgroup.location())
        .unwrap()
        .restrict_devices(&only("zero"))
        .unwrap();
    assert!(tries("zero") && !tries("null"), "only /dev/zero is allowed");
}

fn frozen_and_thawed() {
    let scratch = Scratch::new("freeze");
    let process = Process::in_cgroup(&scratch.cgroup, "while :; do :; done");
    assert!(!scratch.cgroup.is_frozen().unwrap());
    scratch.cgroup.freeze().unwrap();
    assert!(scratch.cgroup.is_frozen().unwrap());
    scratch.cgroup.thaw().unwrap();
    assert!(!scratch.cgroup.is_frozen().unwrap());
    // Even frozen processes are got rid of.
    scratch.cgroup.freeze().unwrap();
    scratch.cgroup.remove().unwrap();
    drop(process);
}

fn killed() {
    let scratch = Scratch::new("kill");
    let mut process = Process::in_cgroup(&scratch.cgroup, "sleep 100 & sleep 100 & sleep 100");
    scratch.cgroup.freeze().unwrap();
    scratch.cgroup.kill().unwrap();
    assert!(!process.end().success());
    assert!(scratch.cgroup.wait_empty(Duration::from_secs(5)).unwrap());
    assert!(scratch.cgroup.processes().unwrap().is_empty());
}

fn removed_while_in_use() {
    let scratch = Scratch::new("busy");
    let mut process = Process::in_cgroup(&scratch.cgroup, "sleep 100 & sleep 100");
    for dir in scratch.dirs() {
        std::fs::create_dir_all(dir.join("deep/deeper")).unwrap();
    }
    let start = Instant::now();
    scratch.cgroup.remove().unwrap();
    println!(
        "removed with processes and sub-cgroups in {:?}",
        start.elapsed()
    );
    assert!(scratch.dirs().iter().all(|dir| !dir.exists()));
    process.end();
    // Gone is fine, everywhere.
    let gone = Cgroup::open(scratch.cgroup.location()).unwrap();
    assert!(gone.missing().is_some() && gone.processes().unwrap().is_empty());
    gone.remove().unwrap();
    gone.stats().unwrap();
    gone.kill().ok();
    assert!(scratch.cgroup.wait_empty(Duration::from_secs(1)).unwrap());
}

fn removed_once_empty() {
    let scratch = Scratch::new("leaving");
    let mut process = Process::in_cgroup(&scratch.cgroup, "exec sleep 100");
    let remove = |milliseconds| {
        scratch
            .cgroup
            .remove_once_empty(Duration::from_millis(milliseconds))
            .unwrap()
    };
    // Who stays is not touched.
    assert!(!remove(20));
    assert!(!scratch.cgroup.processes().unwrap().is_empty());
    process.0.kill().unwrap();
    assert!(remove(5000));
    assert!(scratch.dirs().iter().all(|dir| !dir.exists()));
}

fn signals() {
    use std::os::unix::process::ExitStatusExt;
    let scratch = Scratch::new("signal");
    let mut process = Process::in_cgroup(&scratch.cgroup, "exec sleep 100");
    scratch.cgroup.signal(15).unwrap();
    let status = process.end();
    assert_eq!(status.signal(), Some(15));
}

fn statistics() {
    let scratch = Scratch::new("stats");
    let mut process = Process::in_cgroup(
        &scratch.cgroup,
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
    );
    process.end();
    let stats = scratch.cgroup.stats().unwrap();
    assert!(stats.cpu.usage.total > 0, "{stats:?}");
    if scratch.has("memory") {
        assert!(stats.memory.usage.limit > 0 && !stats.memory.raw.is_empty());
    }
    if scratch.has("hugetlb") {
        assert!(stats.hugetlb.contains_key("2MB"));
    }
    let json = serde_json::to_value(&stats).unwrap();
    assert!(json["cpu"]["usage"]["total"].is_u64() && json["pids"].is_object());
}

fn roots_are_refused() {
    let root = Location::resolve(&Host::probe().unwrap(), Path::new("/")).unwrap();
    let root = Cgroup::open(&root).unwrap();
    for error in [root.kill(), root.remove(), root.freeze(), root.signal(15)] {
        assert!(matches!(error, Err(Error::Root { .. })));
    }
}

fn out_of_memory() {
    let scratch = Scratch::new("oom");
    if !scratch.has("memory") {
        println!("out_of_memory: skipped, no memory controller in this view");
        return;
    }
    let mut watch = scratch.cgroup.oom_watch().unwrap().unwrap();
    assert_eq!(watch.read().unwrap().kills, 0);
    scratch
        .cgroup
        .limit(&resources(r#"{"memory":{"limit":8388608,"swap":8388608}}"#))
        .unwrap();
    let mut process = Process::in_cgroup(
        &scratch.cgroup,
        "exec head -c 100000000 /dev/zero | tail >/dev/null",
    );
    poll(
        &mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)],
        PollTimeout::from(10_000_u16),
    )
    .unwrap();
    process.end();
    assert!(watch.read().unwrap().kills > 0);
    scratch.cgroup.remove().unwrap();
    assert!(watch.read().unwrap().gone);
}

/// The v1 way in: the process itself, through the open `tasks` files.
#[test]
fn a_process_enters_by_itself() {
    if !is_root("a_process_enters_by_itself") || Host::probe().unwrap().layout() == Layout::V2 {
        return;
    }
    let scratch = Scratch::new("tasks");
    let tasks = scratch.cgroup.tasks().unwrap();
    let pids = scratch
        .dirs()
        .into_iter()
        .find(|dir| dir.starts_with("/sys/fs/cgroup/pids"))
        .unwrap();
    assert_eq!(
        tasks.len(),
        scratch
            .dirs()
            .iter()
            .filter(|dir| !dir.starts_with("/sys/fs/cgroup/unified"))
            .count()
    );
    let script = format!("echo 0 >{}; exec sleep 100", pids.join("tasks").display());
    let process = Process::start(&script);
    let deadline = Instant::now() + Duration::from_secs(5);
    let inside = || {
        std::fs::read_to_string(pids.join("cgroup.procs"))
            .unwrap()
            .contains(&process.id().to_string())
    };
    while !inside() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(inside());
}

#[test]
fn on_this_machine() {
    if is_root("on_this_machine") {
        life(Host::probe().unwrap().layout());
    }
}

/// Runs an ignored test of this file where the mount table has been changed by a script.
fn in_view(test: &str, script: &str) {
    if !is_root(test) {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let script = format!(
        "mount --make-rprivate / && {script} && exec \"$0\" --exact {test} --ignored --nocapture"
    );
    let status = Command::new("unshare")
        .args(["-m", "sh", "-ec", &script])
        .arg(this)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn unified_alone() {
    in_view(
        "inner_unified",
        "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup",
    );
}

#[test]
#[ignore = "run by unified_alone in its mount namespace"]
fn inner_unified() {
    life(Layout::V2);
}

#[test]
fn legacy_alone() {
    if Path::new("/sys/fs/cgroup/unified").exists() {
        in_view("inner_legacy", "umount /sys/fs/cgroup/unified");
    } else {
        println!("legacy_alone: skipped, this machine is not hybrid");
    }
}

#[test]
#[ignore = "run by legacy_alone in its mount namespace"]
fn inner_legacy() {
    life(Layout::V1);
}
