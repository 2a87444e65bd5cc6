//! Namespaces of the host, of other containers, and of users; what the first process in a container is.

use std::fs;

use runtime_tests::{Engine, eventually, has_program, requires, rootless};

use super::{IMAGE, engine, printed_with, start_box};

/// The namespace that a process made by `podman exec` or by the engine itself is in.
const OWN: &str = "readlink /proc/self/ns/";

#[test]
fn the_hosts_namespaces() {
    let engine = engine!();
    for (flag, kind) in [
        ("--pid=host", "pid"),
        ("--ipc=host", "ipc"),
        ("--uts=host", "uts"),
        ("--network=host", "net"),
        ("--cgroupns=host", "cgroup"),
    ] {
        let hosts = engine.run("sh", &["-c", &format!("{OWN}{kind}")]).ok();
        let (own, shared) = (
            printed_with(&engine, &[], &format!("{OWN}{kind}")),
            printed_with(&engine, &[flag], &format!("{OWN}{kind}")),
        );
        assert_eq!(shared, hosts, "{flag}");
        // podman leaves the cgroup namespace of cgroup v1 alone.
        assert!(own != hosts || kind == "cgroup", "{kind}: {own}");
    }
}

#[test]
fn the_namespaces_of_another_container() {
    let engine = engine!();
    start_box(&engine, &["--ipc=shareable"]);
    for (flag, kind) in [
        ("--pid=container:box", "pid"),
        ("--ipc=container:box", "ipc"),
        ("--network=container:box", "net"),
    ] {
        let script = format!("{OWN}{kind}");
        let boxs = engine.podman(&["exec", "box", "sh", "-c", &script]).ok();
        assert_eq!(printed_with(&engine, &[flag], &script), boxs, "{flag}");
        assert_ne!(printed_with(&engine, &[], &script), boxs, "{kind}");
    }
}

#[test]
fn a_pod_from_create_to_rm() {
    let engine = engine!();
    requires!(has_program("catatonit"), "pods need catatonit");
    engine
        .podman(&["pod", "create", "--name", "pod", "--hostname", "together"])
        .ok();
    let in_pod = ["run", "-d", "--pod", "pod", "--name", "one", IMAGE];
    engine
        .podman(&[&in_pod[..], &["sleep", "1000000"]].concat())
        .ok();
    let script = "hostname; for kind in net ipc uts; do readlink /proc/self/ns/$kind; done";
    let one = engine.podman(&["exec", "one", "sh", "-c", script]).ok();
    assert!(one.starts_with("together\n"), "{one}");
    assert_eq!(printed_with(&engine, &["--pod", "pod"], script), one);
    let status = |wanted: &str| {
        eventually(&format!("the pod is {wanted}"), || {
            let status = engine
                .podman(&["pod", "ps", "--format", "{{.Status}}"])
                .ok();
            (status.trim() == wanted).then_some(())
        });
    };
    status("Running");
    if engine.has_limits() {
        engine.podman(&["pod", "pause", "pod"]).ok();
        status("Paused");
        engine.podman(&["pod", "unpause", "pod"]).ok();
    }
    engine.podman(&["pod", "stop", "--time", "0", "pod"]).ok();
    status("Exited");
    engine.podman(&["pod", "start", "pod"]).ok();
    status("Running");
    engine
        .podman(&["pod", "rm", "--force", "--time", "0", "pod"])
        .ok();
    assert_eq!(engine.podman(&["ps", "--all", "--quiet"]).ok(), "");
}

/// What `/proc/self/uid_map` says: id inside, id outside, how many.
fn uid_map(engine: &Engine, flags: &[&str]) -> Vec<u32> {
    let map = printed_with(engine, flags, "cat /proc/self/uid_map");
    map.split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect()
}

#[test]
fn user_namespaces_of_root() {
    let engine = engine!();
    requires!(rootless().is_none(), "root chooses the mappings");
    assert_eq!(
        uid_map(&engine, &["--uidmap=0:200000:5000"]),
        [0, 200_000, 5000]
    );
    // The ids that `--userns=auto` takes from belong to a user called containers.
    for name in ["subuid", "subgid"] {
        let file = engine.path(name);
        fs::write(&file, "containers:2147483647:2147483647\n").unwrap();
        let file = file.to_string_lossy();
        engine
            .run("mount", &["--bind", &file, &format!("/etc/{name}")])
            .ok();
    }
    let first = uid_map(&engine, &["--userns=auto:size=3000"]);
    assert_eq!((first[0], first[2]), (0, 3000), "{first:?}");
    assert!(first[1] >= 2_147_483_647, "{first:?}");
    let script = "id -u; touch /tmp/mine && stat -c %u /tmp/mine; stat -c %u /proc/1 /bin";
    assert_eq!(
        printed_with(&engine, &["--userns=auto"], script),
        "0\n0\n0\n0\n"
    );
}

#[test]
fn user_namespaces_of_an_ordinary_user() {
    let engine = engine!();
    requires!(rootless().is_some(), "keep-id is for ordinary users");
    let own = engine.run("id", &["-u"]).ok();
    let flags = ["--userns=keep-id"];
    assert_eq!(printed_with(&engine, &flags, "id -u"), own);
    assert_eq!(printed_with(&engine, &[], "id -u"), "0\n");
}

#[test]
fn an_init_reaps_what_is_left() {
    let engine = engine!();
    requires!(has_program("catatonit"), "--init needs catatonit");
    start_box(&engine, &["--init"]);
    let first = engine.podman(&["exec", "box", "cat", "/proc/1/comm"]).ok();
    assert!(
        first.contains("init") || first.contains("catatonit"),
        "{first}"
    );
    // An orphan that ends becomes nobody's zombie.
    let script = "(sleep 0.1 & echo $!)";
    let orphan = engine.podman(&["exec", "box", "sh", "-c", script]).ok();
    let proc = format!("/proc/{}", orphan.trim());
    eventually("the orphan is gone", || {
        let there = engine.podman(&["exec", "box", "test", "-d", &proc]);
        (there.code == 1).then_some(())
    });
}

#[test]
fn what_systemd_finds_in_a_container() {
    let engine = engine!();
    requires!(
        rootless().is_none() || engine.has_limits(),
        "an ordinary user without systemd has no cgroup"
    );
    let script = "echo $container; for d in /run /run/lock /tmp; do grep \" $d tmpfs \" /proc/mounts | cut -d' ' -f2; done";
    assert_eq!(
        printed_with(&engine, &["--systemd=always"], script),
        "podman\n/run\n/run/lock\n/tmp\n"
    );
    // systemd makes cgroups of its own.
    let script = "d=/sys/fs/cgroup; [ -e $d/cgroup.procs ] || d=$d/systemd; mkdir $d/init.scope && rmdir $d/init.scope && echo writable";
    assert_eq!(
        printed_with(&engine, &["--systemd=always", "--cgroupns=private"], script),
        "writable\n"
    );
}
