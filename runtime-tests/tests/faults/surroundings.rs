//! The disk, the memory and the kernel around the runtime do not do what they should. What is tested elsewhere stands in docs/SECURITY.md.
//!
//! Clocks that jump are left out: time(7) of one machine is for all of it, so a test would set everybody's, and a time namespace has clocks
//! of its own only for what never jumps. Whatever the runtime waits for has a limit by the monotonic clock, and what it knows a process by
//! is counted from the boot.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use nix::mount::{MsFlags, mount};
use runtime_tests::{Output, eventually, has_v1_controller, requires, shell};
use serde_json::json;

use crate::machine::{BUNDLE, STATE, limited, on_a_machine, processes};

const CREATE: &[&str] = &["create", "--bundle", BUNDLE, "c1"];

/// Whoever has lost his parents is our child.
fn reap() {
    let ((), left) = limited(|| while nix::sys::wait::waitpid(None, None).is_ok() {});
    assert_eq!(left, None, "processes are left");
}

/// With every amount of room that is too small, for files and for their bytes.
#[test]
fn a_full_disk_of_states_leaves_nothing() {
    on_a_machine(
        "surroundings::a_full_disk_of_states_leaves_nothing",
        |machine| {
            machine.make_bundle(|_| {});
            fs::create_dir(STATE).expect("an empty directory");
            shell(&format!(
                "mount -t tmpfs -o size=1m,mode=700 states {STATE}"
            ));
            machine.coracle(CREATE).ok();
            machine.coracle(&["delete", "--force", "c1"]).ok();
            let before = machine.snapshot().without("mount");
            for (limit, unit, step) in [("nr_inodes", "", 1), ("size", "k", 4)] {
                let mut failures = 0;
                for room in 1.. {
                    shell(&format!(
                        "mount -o remount,{limit}={}{unit} {STATE}",
                        room * step
                    ));
                    let create = machine.coracle(CREATE);
                    if create.code == 0 {
                        break;
                    }
                    assert!(
                        create.message().contains("no space left on device"),
                        "{create:?}"
                    );
                    reap();
                    let differences = machine.snapshot().without("mount").differences(&before);
                    assert_eq!(differences, [""; 0], "{limit}={room}: {create:?}");
                    failures += 1;
                }
                assert!(failures > 1, "{limit}: failed {failures} times only");
                // It is full now, and still everything can be done that takes no more room.
                machine.coracle(&["start", "c1"]).ok();
                machine.coracle(&["kill", "c1", "KILL"]).ok();
                machine.coracle(&["delete", "--force", "c1"]).ok();
                shell(&format!("mount -o remount,size=1m,nr_inodes=1000 {STATE}"));
            }
        },
    );
}

/// What takes no writing goes on; what does says why not, and can be repeated.
#[test]
fn with_a_read_only_disk_of_states_a_container_waits_for_better_times() {
    on_a_machine(
        "surroundings::with_a_read_only_disk_of_states_a_container_waits_for_better_times",
        |machine| {
            machine.make_bundle(|_| {});
            machine
                .coracle(&["run", "--detach", "--bundle", BUNDLE, "c1"])
                .ok();
            machine.coracle(&["delete", "--force", "c1"]).ok();
            reap();
            let before = machine.snapshot().without("mount");
            machine
                .coracle(&["run", "--detach", "--bundle", BUNDLE, "c1"])
                .ok();
            shell("mount -o remount,ro /run");
            let refused = |output: Output| {
                assert_eq!(output.code, 1, "{output:?}");
                assert!(
                    output.message().contains("read-only file system"),
                    "{output:?}"
                );
            };
            refused(machine.coracle(&["create", "--bundle", BUNDLE, "c2"]));
            assert!(machine.coracle(&["state", "c1"]).ok().contains("running"));
            machine.coracle(&["exec", "c1", "true"]).ok();
            machine.coracle(&["pause", "c1"]).ok();
            machine.coracle(&["resume", "c1"]).ok();
            refused(machine.coracle(&["delete", "--force", "c1"]));
            shell("mount -o remount,rw /run");
            machine.coracle(&["delete", "--force", "c1"]).ok();
            reap();
            let differences = machine.snapshot().without("mount").differences(&before);
            assert_eq!(differences, [""; 0]);
        },
    );
}

/// With every amount of memory from too little to enough: the kernel kills the runtime, or its child, or the call fails.
#[test]
fn a_runtime_that_is_killed_for_want_of_memory_leaves_what_delete_finds() {
    on_a_machine(
        "surroundings::a_runtime_that_is_killed_for_want_of_memory_leaves_what_delete_finds",
        |machine| {
            requires!(
                has_v1_controller("memory"),
                "memory is a controller of cgroup v2 here"
            );
            machine.make_bundle(|_| {});
            machine.coracle(CREATE).ok();
            machine.coracle(&["delete", "--force", "c1"]).ok();
            let small = format!("/sys/fs/cgroup/memory/{}/small", machine.parent);
            fs::create_dir(&small).expect("a cgroup");
            reap();
            let before = machine.snapshot();
            let mut kills = 0;
            for pages in (8..).step_by(8) {
                let limit = pages * 4096;
                let script = format!(
                    "echo {limit} > {small}/memory.limit_in_bytes && echo 0 > {small}/tasks && exec \"$@\""
                );
                let inner = machine.command(CREATE);
                let mut command = Command::new("/bin/busybox");
                command
                    .args(["sh", "-c", &script, "sh"])
                    .arg(inner.get_program())
                    .args(inner.get_args());
                let output = machine.finish(command);
                let had_enough = output.code == 0;
                kills += usize::from(output.code == 137);
                machine.coracle(&["delete", "--force", "c1"]).ok();
                reap();
                let differences = machine.snapshot().differences(&before);
                assert_eq!(differences, [""; 0], "{limit} bytes: {output:?}");
                if had_enough {
                    break;
                }
            }
            fs::remove_dir(&small).expect("an empty cgroup");
            assert!(kills > 2, "killed {kills} times only");
        },
    );
}

/// A file of a FUSE file system whose server has taken the request to open it and never answers: whoever waits for that does not even end
/// when he is killed.
#[test]
fn an_init_that_does_not_die_is_told_and_deleted_later() {
    on_a_machine(
        "surroundings::an_init_that_does_not_die_is_told_and_deleted_later",
        |machine| {
            requires!(Path::new("/dev/fuse").exists(), "there is no /dev/fuse");
            machine.make_bundle(|_| {});
            machine.coracle(CREATE).ok();
            machine.coracle(&["delete", "--force", "c1"]).ok();
            reap();
            // Where no snapshot looks.
            shell("mount -t tmpfs hanging /mnt");
            let hanging = Hanging::mount("/mnt/hanging");
            machine.make_bundle(|config| {
            config["process"]["args"] = json!(["/bin/sh", "-c", "exec < /hanging"]);
            let mount = json!({ "destination": "/hanging", "type": "bind", "source": "/mnt/hanging", "options": ["bind"] });
            config["mounts"].as_array_mut().expect("a list").push(mount);
        });
            shell(&format!("touch {BUNDLE}/rootfs/hanging"));
            let before = machine.snapshot();
            machine
                .coracle(&["run", "--detach", "--bundle", BUNDLE, "c1"])
                .ok();
            eventually("the container opens the file", || {
                hanging.is_asked().then_some(())
            });
            let refused = machine.coracle(&["delete", "--force", "c1"]);
            assert_eq!(refused.code, 1, "{refused:?}");
            assert!(
                refused
                    .message()
                    .contains("does not end 10 seconds after SIGKILL"),
                "{refused:?}"
            );
            assert!(
                processes().iter().any(|process| process.contains("(D ")),
                "{:?}",
                processes()
            );
            assert!(machine.coracle(&["state", "c1"]).ok().contains("\"pid\""));
            hanging.end();
            machine.coracle(&["delete", "--force", "c1"]).ok();
            reap();
            let differences = machine.snapshot().differences(&before);
            assert_eq!(differences, [""; 0]);
        },
    );
}

/// The server of a FUSE file system that is one file (fuse(4), include/uapi/linux/fuse.h).
struct Hanging {
    /// Says that it is to end.
    end: Sender<()>,
    asked: std::sync::mpsc::Receiver<()>,
}

impl Hanging {
    const INIT: u32 = 26;
    const GETATTR: u32 = 3;
    const OPEN: u32 = 14;

    fn mount(place: &str) -> Self {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("root may");
        File::create(place).expect("a file");
        let options = format!(
            "fd={},rootmode=100644,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        mount(
            Some("hanging"),
            place,
            Some("fuse"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("root mounts");
        let (end, ended) = channel();
        let (ask, asked) = channel();
        thread::spawn(move || {
            while serve(&device) != Some(Self::OPEN) {}
            let _ = ask.send(());
            let _ = ended.recv();
            // With the last descriptor every request ends.
            drop(device);
        });
        Hanging { end, asked }
    }

    fn is_asked(&self) -> bool {
        self.asked.try_recv().is_ok()
    }

    fn end(&self) {
        let _ = self.end.send(());
    }
}

/// Takes one request, and answers it if it is no `OPEN`.
fn serve(mut device: &File) -> Option<u32> {
    let mut request = vec![0; 64 << 10];
    let length = device.read(&mut request).ok()?;
    let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
    let opcode = word(4);
    assert!(length >= 40, "a request has a header");
    let mut answer = Vec::new();
    let mut put = |words: &[u32]| {
        words
            .iter()
            .for_each(|word| answer.extend(word.to_ne_bytes()))
    };
    match opcode {
        // Version 7.31, and room for a write; of the rest nothing.
        Hanging::INIT => put(&[7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        // Valid for long; inode 1, of 4096 bytes in 8 blocks; three times; a regular file with one name, of root's.
        Hanging::GETATTR => {
            put(&[1000, 0, 0, 0, 1, 0, 4096, 0, 8, 0]);
            put(&[0; 9]);
            put(&[0o100_644, 1, 0, 0, 0, 4096, 0]);
        }
        Hanging::OPEN => return Some(opcode),
        // ENOSYS.
        _ => {}
    }
    let error = if answer.is_empty() { -38_i32 } else { 0 };
    let mut reply = Vec::new();
    reply.extend((16 + answer.len() as u32).to_ne_bytes());
    reply.extend(error.to_ne_bytes());
    reply.extend(&request[8..16]);
    reply.extend(answer);
    device.write_all(&reply).ok()?;
    Some(opcode)
}
