//! Many at once, and many one after the other. Whoever held a descriptor, an inotify watch or a namespace would be a process, a mount or a
//! file, and of these none may be left.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use runtime_tests::{long, requires};

use crate::machine::{BUNDLE, Machine, Said, much, on_a_machine, processes};

/// How much more memory than before the containers' cgroup may take, in bytes: the kernel's caches.
const MEMORY: u64 = 16 << 20;

/// What 10,000 containers take of a machine's memory. Most of it are the kernel's notes, for each memory cgroup, of every mounted file
/// system that has something to give back: so it grows with the square of their number.
const ROOM: u64 = 20 << 30;

#[test]
fn creates_of_one_id_have_one_winner_each_time() {
    on_a_machine(
        "many::creates_of_one_id_have_one_winner_each_time",
        |machine| {
            machine.make_bundle(|_| {});
            let before = warm(machine);
            for round in 0..much(20, 1000) {
                let create = || {
                    let said = Said::new();
                    let mut command = machine.command(&["create", "--bundle", BUNDLE, "c1"]);
                    said.by(&mut command);
                    (command.spawn().expect("the runtime starts"), said)
                };
                let all: Vec<(Child, Said)> = (0..64).map(|_| create()).collect();
                let mut winners = 0;
                for (mut child, said) in all {
                    let code = child.wait().expect("a child").code().unwrap_or(255);
                    let output = said.output("create".to_owned(), code);
                    winners += usize::from(code == 0);
                    let wanted = "create failed: container with given ID already exists: c1\n";
                    assert!(
                        code == 0 || (code == 1 && output.stderr == wanted),
                        "{round}: {output:?}"
                    );
                }
                assert_eq!(winners, 1, "in round {round}");
                machine.coracle(&["start", "c1"]).ok();
                machine.coracle(&["delete", "--force", "c1"]).ok();
            }
            assert_as_before(machine, &before);
        },
    );
}

#[test]
fn containers_come_and_go_without_a_trace() {
    on_a_machine("many::containers_come_and_go_without_a_trace", |machine| {
        machine.make_bundle(|_| {});
        let before = warm(machine);
        for _ in 0..much(100, 10_000) {
            machine.coracle(&["create", "--bundle", BUNDLE, "c1"]).ok();
            machine.coracle(&["start", "c1"]).ok();
            machine.coracle(&["kill", "c1", "KILL"]).ok();
            machine.coracle(&["delete", "--force", "c1"]).ok();
        }
        assert_as_before(machine, &before);
    });
}

#[test]
fn containers_live_side_by_side_and_leave_nothing() {
    on_a_machine(
        "many::containers_live_side_by_side_and_leave_nothing",
        |machine| {
            machine.make_bundle(|_| {});
            let before = warm(machine);
            let available = available();
            requires!(
                !long() || available > ROOM,
                "10,000 containers have {available} bytes of memory, and need {ROOM}"
            );
            let many = if long() { 10_000 } else { much(50, 1000) };
            let ids: Vec<String> = (1..=many).map(|n| format!("n{n}")).collect();
            let mut times = Times::default();
            for id in &ids {
                machine.make_bundle(|config| {
                    config["linux"]["cgroupsPath"] = format!("/{}/{id}", machine.parent).into();
                });
                let run = ["run", "--detach", "--bundle", BUNDLE, id];
                times.of("run", || machine.coracle(&run).ok());
            }
            let each = available.saturating_sub(self::available()) / many as u64;
            machine.make_bundle(|_| {});
            assert_eq!(processes().len(), ids.len());
            let list = ["list", "--quiet"];
            let listed = times.of("list", || machine.coracle(&list).ok());
            assert_eq!(listed.lines().count(), ids.len());
            for id in [&ids[0], &ids[ids.len() - 1]] {
                times.of("exec", || machine.coracle(&["exec", id, "true"]).ok());
            }
            for id in &ids {
                let delete = ["delete", "--force", id];
                times.of("delete", || machine.coracle(&delete).ok());
            }
            if long() {
                eprintln!("{many} containers of {} KiB, {times}", each >> 10);
            }
            assert_as_before(machine, &before);
        },
    );
}

/// How long each command took.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<Duration>>);

impl Times {
    fn of<T>(&mut self, command: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.0.entry(command).or_default().push(start.elapsed());
        result
    }
}

/// The median of each tenth of them, in the order in which they came.
impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (command, times) in &self.0 {
            write!(f, "{command} ms:")?;
            for tenth in times.chunks(times.len().div_ceil(10)) {
                let mut tenth = tenth.to_vec();
                tenth.sort();
                write!(f, " {:.1}", tenth[tenth.len() / 2].as_secs_f64() * 1000.0)?;
            }
            f.write_str("; ")?;
        }
        Ok(())
    }
}

/// What the machine has left for more, in bytes.
fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("proc is mounted");
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("a number") << 10
}

/// What there was, and how much memory was taken.
type Before = (crate::snapshot::Snapshot, u64);

/// What is made once for all containers is made by the first.
fn warm(machine: &Machine) -> Before {
    machine
        .coracle(&["run", "--detach", "--bundle", BUNDLE, "c1"])
        .ok();
    machine.coracle(&["delete", "--force", "c1"]).ok();
    while nix::sys::wait::waitpid(None, None).is_ok() {}
    (machine.snapshot(), memory(machine))
}

/// What is charged to the containers' cgroup, their kernel objects included; 0 where the memory controller is not there.
fn memory(machine: &Machine) -> u64 {
    let files = [
        format!(
            "/sys/fs/cgroup/memory/{}/memory.usage_in_bytes",
            machine.parent
        ),
        format!("/sys/fs/cgroup/{}/memory.current", machine.parent),
    ];
    let text = files
        .iter()
        .find_map(|file| fs::read_to_string(Path::new(file)).ok());
    text.map_or(0, |text| text.trim().parse().expect("a number"))
}

#[track_caller]
fn assert_as_before(machine: &Machine, (snapshot, used): &Before) {
    // Whoever has lost his parents is our child.
    while nix::sys::wait::waitpid(None, None).is_ok() {}
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let differences = machine.snapshot().differences(snapshot);
        let more = memory(machine).saturating_sub(*used);
        if differences.is_empty() && more < MEMORY {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "left: {more} bytes, {differences:#?}"
        );
        std::thread::yield_now();
    }
}
