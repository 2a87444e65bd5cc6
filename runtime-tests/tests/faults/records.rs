//! Records that were damaged on the disk.

use std::fs;
use std::process::Command;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use runtime_tests::{Output, eventually};

use crate::machine::{BUNDLE, Machine, much, on_a_machine};

const RECORD: &str = "/run/coracle/c1/state.json";

fn run(machine: &Machine) -> Pid {
    machine
        .coracle(&["run", "--detach", "--bundle", BUNDLE, "c1"])
        .ok();
    let state = machine.coracle(&["state", "c1"]).ok();
    let state: serde_json::Value = serde_json::from_str(&state).expect("state is JSON");
    Pid::from_raw(state["pid"].as_i64().expect("a pid") as i32)
}

fn is_alive(pid: Pid) -> bool {
    // A zombie has no more memory.
    kill(pid, None).is_ok() && fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

#[track_caller]
fn assert_one_sentence(output: Output, damage: &str) {
    assert_eq!(output.code, 1, "{damage}: {output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{damage}: {output:?}");
    assert!(output.stderr.contains(RECORD), "{damage}: {output:?}");
}

/// Every way in which a record can be damaged so that it is seen: cut, and with a byte that no JSON has, at each of its bytes.
fn damaged(record: &[u8]) -> Vec<(String, Vec<u8>)> {
    let all = 0..record.len();
    let cut = all
        .clone()
        .map(|at| (format!("cut at {at}"), record[..at].to_vec()));
    let overwritten = all.map(|at| {
        let mut bytes = record.to_vec();
        bytes[at] = 0;
        (format!("a zero at {at}"), bytes)
    });
    cut.chain(overwritten).collect()
}

/// The container's process is a stranger for whoever cannot read the record: nothing is sent to it.
#[test]
fn a_damaged_record_is_an_error_that_touches_nobody() {
    on_a_machine(
        "records::a_damaged_record_is_an_error_that_touches_nobody",
        |machine| {
            machine.make_bundle(|_| {});
            let pid = run(machine);
            let record = fs::read(RECORD).expect("a record");
            let all = damaged(&record);
            for (damage, bytes) in all.iter().step_by(much(7, 1)) {
                fs::write(RECORD, bytes).expect("a file");
                for args in [
                    &["state", "c1"][..],
                    &["kill", "c1", "KILL"],
                    &["pause", "c1"],
                    &["delete", "c1"],
                ] {
                    assert_one_sentence(machine.coracle(args), damage);
                }
                assert!(is_alive(pid), "{damage}");
            }
            fs::write(RECORD, record).expect("a file");
            machine.coracle(&["kill", "c1", "KILL"]).ok();
            machine.coracle(&["delete", "--force", "c1"]).ok();
        },
    );
}

/// It is found by the journal.
#[test]
fn a_container_with_a_damaged_record_is_deleted_whole() {
    on_a_machine(
        "records::a_container_with_a_damaged_record_is_deleted_whole",
        |machine| {
            machine.make_bundle(|_| {});
            run(machine);
            let length = fs::read(RECORD).expect("a record").len();
            machine.coracle(&["delete", "--force", "c1"]).ok();
            let before = machine.snapshot();
            for at in (0..2 * length).step_by(much(41, 1)) {
                let pid = run(machine);
                let record = fs::read(RECORD).expect("a record");
                // Numbers in it may be longer or shorter.
                let Some((damage, bytes)) = damaged(&record).into_iter().nth(at) else {
                    continue;
                };
                fs::write(RECORD, bytes).expect("a file");
                machine.coracle(&["delete", "--force", "c1"]).ok();
                assert!(!is_alive(pid), "{damage}");
                while nix::sys::wait::waitpid(None, None).is_ok() {}
                let differences = machine.snapshot().differences(&before);
                assert_eq!(differences, [""; 0], "{damage}");
            }
        },
    );
}

/// Each digit of the pid, of the start time and of the boot's name becomes every other one, among strangers who have the pids around.
#[test]
fn a_record_of_another_process_signals_no_stranger() {
    on_a_machine(
        "records::a_record_of_another_process_signals_no_stranger",
        |machine| {
            machine.make_bundle(|_| {});
            let stranger = |_| {
                let mut command = Command::new("/bin/busybox");
                command
                    .args(["sleep", "1000000"])
                    .spawn()
                    .expect("busybox is installed")
            };
            // A pid comes round only after many others: never within the same hundredth of a second.
            let mut strangers: Vec<_> = (0..20).map(stranger).collect();
            let pid = eventually("the clock ticks", || {
                let pid = run(machine);
                let of = |pid: u32| start_time(pid as i32);
                if of(strangers[19].id()) != start_time(pid.as_raw()) {
                    return Some(pid);
                }
                machine.coracle(&["delete", "--force", "c1"]).ok();
                None
            });
            eventually("the clock ticks", || {
                let mut one = stranger(0);
                let is_later = start_time(one.id() as i32) != start_time(pid.as_raw());
                let _ = one.kill();
                let _ = one.wait();
                is_later.then_some(())
            });
            strangers.extend((0..20).map(stranger));
            let record = fs::read(RECORD).expect("a record");
            let text = String::from_utf8(record.clone()).expect("text");
            let part = |begin: &str, end: char| {
                let begin = text.find(begin)? + begin.len();
                Some(begin..begin + text[begin..].find(end)?)
            };
            let ids = part("\"init\":{", '}').expect("it is in the record");
            // A record on a tmpfs has none.
            let boot = part("\"bootId\":\"", '"').unwrap_or_default();
            let digits = ids.chain(boot);
            for at in digits.filter(|at| record[*at].is_ascii_digit()) {
                for digit in (b'0'..=b'9').filter(|digit| *digit != record[at]) {
                    let mut bytes = record.clone();
                    bytes[at] = digit;
                    fs::write(RECORD, bytes).expect("a file");
                    let killed = machine.coracle(&["kill", "c1", "KILL"]);
                    let what = format!("byte {at} is {}: {killed:?}", char::from(digit));
                    assert_eq!(killed.code, 1, "{what}");
                    let alive =
                        |one: &mut std::process::Child| one.try_wait().expect("a child").is_none();
                    assert!(strangers.iter_mut().all(alive) && is_alive(pid), "{what}");
                }
            }
            fs::write(RECORD, record).expect("a file");
            machine.coracle(&["delete", "--force", "c1"]).ok();
            for mut stranger in strangers {
                let _ = stranger.kill();
                let _ = stranger.wait();
            }
        },
    );
}

/// Field 22 of /proc/PID/stat.
fn start_time(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    fields
        .split_whitespace()
        .nth(19)
        .expect("a field")
        .to_owned()
}
