//! Older kernels and stricter surroundings, imitated: without a system call everything is as it is with it, or a sentence says why not.

use std::fs;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use runtime_tests::{
    ConsoleSocket, Container, Hierarchy, Without, hierarchy, is_coracle, requires, rootless, shell,
};
use serde_json::json;

/// Ways to do without the calls that have a fallback: one, several, all at once.
fn ways() -> Vec<(&'static str, Without)> {
    vec![
        ("Linux 5.10", Without::linux_5_10()),
        ("Linux 6.14", Without::calls(&["open_tree_attr"])),
        ("no clone3", Without::calls(&["clone3"])),
        ("no close_range", Without::calls(&["close_range"])),
        (
            "neither faccessat2 nor memfd_create",
            Without::calls(&["faccessat2", "memfd_create"]),
        ),
        (
            "denied",
            Without::answering(
                Errno::EPERM,
                &["clone3", "close_range", "faccessat2", "keyctl"],
            ),
        ),
        (
            "none of these",
            Without::calls(&[
                "mount_setattr",
                "open_tree_attr",
                "clone3",
                "close_range",
                "faccessat2",
                "keyctl",
            ]),
        ),
    ]
}

/// Runs a check for each of the ways.
fn in_every_way(check: impl Fn(&dyn Fn(Container) -> Container, &str)) {
    for (name, without) in ways() {
        check(&|c| c.without(without.clone()), name);
    }
}

/// What a container says of its mounts: place, options, peers and type; ids and the temporary directory are different each time.
fn mounts_of(said: &str) -> Vec<String> {
    let fields = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let (_, after) = line.split_once(" - ").unwrap();
        let peers = words[6].split(':').next().unwrap();
        format!(
            "{} {} {peers} {}",
            words[4],
            words[5],
            after.split(' ').next().unwrap()
        )
    };
    // In the order of their places: the kernel's is that in which they were made, not that in which they were mounted.
    let mut mounts: Vec<_> = said.lines().map(fields).collect();
    mounts.sort();
    mounts
}

#[test]
fn the_whole_life() {
    requires!(rootless().is_none(), "what root may do is compared");
    requires!(is_coracle(), "about fallbacks of our own");
    in_every_way(|around, name| {
        let c = around(Container::idle());
        c.create().ok();
        assert_eq!(c.status(), "created", "{name}");
        c.start().ok();
        c.exec("exit 7").fails(7);
        // Both the first process and those that come later are in the cgroup. The v2 line is what clone3(2) would have seen to.
        let file = c.dir().join("pid");
        c.exec_with(
            &["--detach", "--pid-file", &file.to_string_lossy()],
            &["sleep", "1000000"],
        )
        .ok();
        let later = fs::read_to_string(&file).unwrap();
        let places = |pid: &str| shell(&format!("cat /proc/{pid}/cgroup"));
        let first = places(&c.pid().to_string());
        assert!(
            first.lines().any(|line| line.contains(&c.id)
                && (hierarchy() == Hierarchy::V1 || line.starts_with("0::"))),
            "{name}: {first}"
        );
        assert_eq!(places(&later), first, "{name}");
        c.runtime(&["pause", &c.id]).ok();
        assert_eq!(c.status(), "paused", "{name}");
        c.runtime(&["resume", &c.id]).ok();
        c.kill("KILL").ok();
        c.wait_for("stopped");
        c.delete().ok();
        c.assert_nothing_left();
    });
}

#[test]
fn mounts_have_the_same_attributes() {
    requires!(rootless().is_none(), "what root may do is compared");
    requires!(is_coracle(), "about fallbacks of our own");
    let mut expected: Option<Vec<String>> = None;
    let all = ("all calls", Without::default());
    for (name, without) in std::iter::once(all).chain(ways()) {
        let mut c = Container::new("cat /proc/self/mountinfo").without(without);
        let dir = c.dir().join("volume");
        fs::create_dir(&dir).unwrap();
        let path = dir.display().to_string();
        shell(&format!(
            "mount --bind {path} {path} && mount --make-shared {path}"
        ));
        for (place, options) in [
            ("/plain", json!(["bind"])),
            (
                "/strict",
                json!(["bind", "ro", "nosuid", "nodev", "noexec", "nosymfollow"]),
            ),
            ("/accessed", json!(["bind", "noatime", "nodiratime"])),
            ("/often", json!(["bind", "strictatime"])),
            ("/again", json!(["bind", "relatime", "rw"])),
            ("/peer", json!(["rbind", "rshared"])),
            ("/alone", json!(["rbind", "rprivate"])),
        ] {
            c.push(
                "/mounts",
                json!({ "destination": place, "type": "bind", "source": dir, "options": options }),
            );
        }
        for (options, place) in [
            (json!(["nosymfollow", "noatime", "mode=700"]), "/new"),
            (json!(["ro", "tmpcopyup"]), "/etc"),
        ] {
            c.push("/mounts", json!({ "destination": place, "type": "tmpfs", "source": "tmpfs", "options": options }));
        }
        c.push("/mounts", json!({ "destination": "/new", "type": "tmpfs", "source": "tmpfs", "options": ["remount", "nosuid"] }));
        c.set("/root/readonly", json!(true));
        c.set("/linux/rootfsPropagation", json!("rslave"));
        for place in [
            "plain", "strict", "accessed", "often", "again", "peer", "alone", "new",
        ] {
            fs::create_dir(c.rootfs().join(place)).unwrap();
        }
        let output = c.run();
        shell(&format!("umount {path}"));
        let seen = mounts_of(&output.ok());
        assert_eq!(&seen, expected.get_or_insert(seen.clone()), "{name}");
        c.assert_nothing_left();
    }
    let expected = expected.unwrap();
    for line in [
        "/strict ro,nosuid,nodev,noexec,",
        "/accessed rw,noatime,nodiratime",
        "/often rw master",
        "/again rw,relatime",
        "/new rw,nosuid,noatime,nosymfollow",
    ] {
        assert!(
            expected.iter().any(|seen| seen.starts_with(line)),
            "{line}: {expected:#?}"
        );
    }
}

#[test]
fn user_namespaces() {
    requires!(rootless().is_none(), "what root may do is compared");
    requires!(is_coracle(), "about fallbacks of our own");
    in_every_way(|around, name| {
        let mut c = around(Container::idle());
        c.push("/linux/namespaces", json!({ "type": "user" }));
        c.push("/linux/namespaces", json!({ "type": "cgroup" }));
        c.set(
            "/linux/uidMappings",
            json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]),
        );
        c.set(
            "/linux/gidMappings",
            json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]),
        );
        shell(&format!("chown -hR 100000:100000 {}", c.rootfs().display()));
        let dir = c.dir().join("volume");
        fs::create_dir(&dir).unwrap();
        c.push("/mounts", json!({ "destination": "/volume", "type": "bind", "source": dir, "options": ["rbind", "ro"] }));
        let path = dir.display();
        shell(&format!(
            "mount --bind {path} {path} && mount --make-shared {path}"
        ));
        let output = c.run_with(&["--detach"]);
        shell(&format!("umount {path}"));
        output.ok();
        let said = c.exec("id -u; grep ' /volume ' /proc/self/mountinfo").ok();
        assert!(
            said.starts_with("0\n") && said.contains(" ro,"),
            "{name}: {said}"
        );
        assert!(!said.contains("shared:"), "{name}: {said}");
    });
}

#[test]
fn terminals_and_open_files() {
    requires!(
        rootless().is_none(),
        "an ordinary user cannot do without memfd_create"
    );
    requires!(is_coracle(), "about fallbacks of our own");
    in_every_way(|around, name| {
        let mut c = around(Container::inside(&["fds"]));
        assert_eq!(c.run().ok(), "0 1 2\n", "{name}");
        c.set("/process/args", json!(["sh", "-c", "tty; /bin/inside fds"]));
        c.set("/process/terminal", json!(true));
        let socket = ConsoleSocket::listen(c.dir());
        c.create_with(&["--console-socket", &socket.path.to_string_lossy()])
            .ok();
        let (terminal, _) = socket.receive();
        c.start().ok();
        let seen = terminal.wait_to_see("0 1 2\r\n");
        assert!(
            seen.contains("/dev/pts/0") || seen.contains("/dev/console"),
            "{name}: {seen}"
        );
        c.wait_for("stopped");
    });
}

#[test]
fn namespaces_of_every_kind() {
    requires!(rootless().is_none(), "what root may do is compared");
    requires!(is_coracle(), "about fallbacks of our own");
    requires!(
        runtime_tests::kernel_has("/proc/self/ns/time"),
        "no time namespaces"
    );
    in_every_way(|around, name| {
        let kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup", "time"];
        let script = kinds
            .map(|kind| format!("readlink /proc/self/ns/{kind}"))
            .join("; ");
        let mut c = around(Container::new(&format!("{script}; sleep 1000000")));
        c.push("/linux/namespaces", json!({ "type": "cgroup" }));
        c.push("/linux/namespaces", json!({ "type": "time" }));
        c.run_detached();
        let said = c.wait_to_say("time:");
        for kind in kinds {
            let own = shell(&format!("readlink /proc/self/ns/{kind}"));
            assert!(
                said.contains(&format!("{kind}:")) && !said.contains(&own),
                "{name}: {kind}: {said}"
            );
        }
        // A second container joins the first one's, through a process in between.
        let mut second = around(Container::new("readlink /proc/self/ns/pid"));
        let path = format!("/proc/{}/ns/pid", c.pid());
        second.set(
            "/linux/namespaces/0",
            json!({ "type": "pid", "path": path }),
        );
        assert!(said.contains(&second.run().ok()), "{name}");
    });
}

#[test]
fn the_network_is_new_whoever_makes_it() {
    requires!(rootless().is_none(), "for an ordinary user clone3 makes it");
    requires!(is_coracle(), "about fallbacks of our own");
    let container = || Container::new("readlink /proc/self/ns/net; ip -o addr show lo");
    let own = shell("readlink /proc/self/ns/net");
    let check = |c: Container, name: &str| {
        let said = c.run().ok();
        let is_up = said.contains("net:[") && said.contains("127.0.0.1/8");
        assert!(is_up && !said.contains(&own), "{name}: {said}");
    };
    check(container(), "a thread");
    // It cannot be sent.
    let without = Without::calls(&["sendmsg"]);
    check(container().without(without), "its process");
    // What this thread may use its children may.
    let mut one = CpuSet::new();
    let mine = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let first = (0..CpuSet::count()).find(|cpu| mine.is_set(*cpu).unwrap());
    one.set(first.unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    check(container(), "on one CPU");
}

#[test]
fn what_cannot_be_done_without_is_named() {
    requires!(rootless().is_none(), "what root may do is compared");
    requires!(is_coracle(), "about sentences of our own");
    for (call, since) in [
        ("openat2", "5.6"),
        ("open_tree", "5.2"),
        ("move_mount", "5.2"),
        ("fsopen", "5.2"),
        ("fsconfig", "5.2"),
        ("fsmount", "5.2"),
    ] {
        for errno in [Errno::ENOSYS, Errno::EPERM] {
            let c = Container::new("true").without(Without::answering(errno, &[call]));
            let output = c.run();
            let sentence = format!(
                "(coracle needs {call}(2) (Linux {since}): the kernel does not have it, or a seccomp filter denies it)"
            );
            // Those of mounting may be denied for want of rights as well.
            let is_told =
                errno == Errno::ENOSYS || matches!(call, "openat2" | "open_tree" | "fsconfig");
            assert_eq!(
                (output.code, output.message().contains(&sentence)),
                (1, is_told),
                "{output:?}"
            );
            c.assert_nothing_left();
        }
    }
}

#[test]
fn without_pidfds_nobody_is_signalled() {
    requires!(is_coracle(), "about sentences of our own");
    for call in ["pidfd_open", "pidfd_send_signal"] {
        let c = Container::idle();
        c.run_detached();
        let mut command = c.command(&["kill", &c.id, "KILL"]);
        Without::calls(&[call]).apply(&mut command);
        c.finish(command)
            .fails_with(1, &format!("coracle needs {call}(2)"));
        assert_eq!(c.status(), "running");
    }
}

#[test]
fn a_filter_that_denies_pivot_root_leaves_no_pivot() {
    let denied = Without::answering(Errno::EPERM, &["pivot_root"]);
    let c = Container::new("echo there").without(denied);
    assert_eq!(c.run_with(&["--no-pivot"]).ok(), "there\n");
    c.run().fails_with(
        1,
        if is_coracle() {
            "--no-pivot"
        } else {
            "pivot_root"
        },
    );
    c.assert_nothing_left();
}

#[test]
fn who_may_not_wait_for_a_process_says_so_and_leaves_none() {
    requires!(is_coracle(), "about sentences of our own");
    let denied = Without::answering(Errno::EPERM, &["waitid"]);
    let c = Container::idle().without(denied);
    c.run_with(&["--detach"]).fails_with(
        1,
        "look for the container's process: operation not permitted",
    );
    c.assert_nothing_left();
}
