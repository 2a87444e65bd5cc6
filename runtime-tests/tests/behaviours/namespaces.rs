//! Namespaces: new, joined by path, or the host's.

use std::fs;

use runtime_tests::{
    Container, is_coracle, is_runc_since, kernel_has, kernel_since, requires, rootless,
};
use serde_json::json;

const KINDS: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

fn own(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}"))
        .unwrap()
        .to_string_lossy()
        .into_owned()
}

fn seen(c: &Container, kind: &str) -> String {
    fs::read_link(format!("/proc/{}/ns/{kind}", c.pid()))
        .unwrap()
        .to_string_lossy()
        .into_owned()
}

#[test]
fn each_namespace_is_new_when_asked_for_and_shared_when_not() {
    requires!(
        rootless().is_none(),
        "an ordinary user's container has a user namespace"
    );
    for (kind, file) in KINDS {
        if kind == "time" && !is_coracle() {
            continue;
        }
        for wanted in [true, false] {
            let mut c = Container::idle();
            let mut namespaces = vec![json!({ "type": "mount" })];
            if wanted && kind != "mount" {
                namespaces.push(json!({ "type": kind }));
            }
            if kind == "mount" && !wanted {
                continue;
            }
            c.set("/linux/namespaces", json!(namespaces))
                .unset("/hostname");
            share_network_mounts(&mut c);
            c.run_detached();
            assert_eq!(
                seen(&c, file) != own(file),
                wanted,
                "{kind} wanted: {wanted}"
            );
        }
    }
}

/// A container without its own network, ipc or cgroup namespace cannot mount sysfs, mqueue and cgroup anew everywhere.
fn share_network_mounts(c: &mut Container) {
    let mounts = c.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !matches!(mount["type"].as_str(), Some("sysfs" | "mqueue" | "cgroup")));
    c.unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
}

#[test]
fn init_is_process_1_with_its_own_host_name() {
    let c = Container::new("echo $$; hostname");
    assert_eq!(c.run().ok(), "1\ninside\n");
}

#[test]
fn domain_name() {
    let mut c = Container::new("cat /proc/sys/kernel/domainname");
    c.set("/domainname", json!("example.org"));
    if is_coracle() {
        assert_eq!(c.run().ok(), "example.org\n");
    }
}

#[test]
fn the_loopback_of_a_new_network_is_up() {
    let c = Container::new("ip -o addr show lo; ip -o link | wc -l");
    let seen = c.run().ok();
    assert!(seen.contains("127.0.0.1/8"), "{seen}");
    assert!(seen.ends_with("\n1\n"), "no other link: {seen}");
}

#[test]
fn each_namespace_can_be_joined_by_its_path() {
    requires!(
        rootless().is_none(),
        "an ordinary user's container has a user namespace"
    );
    let holder = Container::idle();
    holder.run_detached();
    for (kind, file) in [
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("pid", "pid"),
        ("cgroup", "cgroup"),
    ] {
        let mut c = Container::idle();
        let path = format!("/proc/{}/ns/{file}", holder.pid());
        let namespaces = c.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        namespaces.push(json!({ "type": kind, "path": path }));
        if kind == "uts" {
            c.unset("/hostname");
        }
        c.run_detached();
        assert_eq!(seen(&c, file), seen(&holder, file), "{kind}");
        c.delete_force().ok();
        c.assert_nothing_left();
    }
    assert_eq!(holder.status(), "running");
}

#[test]
fn all_namespaces_of_a_pod_are_joined_at_once() {
    requires!(
        rootless().is_none(),
        "an ordinary user's container has a user namespace"
    );
    let holder = Container::idle();
    holder.run_detached();
    let mut c = Container::new(
        "hostname; for kind in net ipc uts; do readlink /proc/self/ns/$kind; done; exit 3",
    );
    let path = |file: &str| format!("/proc/{}/ns/{file}", holder.pid());
    c.set(
        "/linux/namespaces",
        json!([
            { "type": "network", "path": path("net") }, { "type": "ipc", "path": path("ipc") },
            { "type": "uts", "path": path("uts") }, { "type": "pid" }, { "type": "mount" }
        ]),
    );
    c.unset("/hostname");
    let expected = format!(
        "inside\n{}\n{}\n{}\n",
        seen(&holder, "net"),
        seen(&holder, "ipc"),
        seen(&holder, "uts")
    );
    assert_eq!(c.run().exits(3), expected);
}

#[test]
fn a_namespace_path_of_another_kind_is_refused() {
    let holder = Container::idle();
    holder.run_detached();
    let mut c = Container::new("true");
    c.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "network", "path": format!("/proc/{}/ns/uts", holder.pid()) }]));
    c.unset("/hostname");
    assert_eq!(c.run().code, 1);
    c.assert_nothing_left();
}

#[test]
fn a_namespace_path_that_does_not_exist_is_named() {
    requires!(
        rootless().is_none(),
        "an ordinary user's container has a user namespace"
    );
    let mut c = Container::new("true");
    c.set(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "network", "path": "/run/nonesuch-ns" }]),
    );
    c.unset("/hostname");
    c.run().fails_with(1, "/run/nonesuch-ns");
    c.assert_nothing_left();
}

#[test]
fn time_offsets() {
    requires!(
        kernel_has("/proc/self/timens_offsets"),
        "the kernel has no time namespaces"
    );
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 has no time namespaces"
    );
    let mut c = Container::new("cut -d. -f1 /proc/uptime");
    c.push("/linux/namespaces", json!({ "type": "time" }));
    c.set("/linux/timeOffsets", json!({ "monotonic": { "secs": 1000, "nanosecs": 0 }, "boottime": { "secs": 86_400_000, "nanosecs": 0 } }));
    let uptime: u64 = c.run().ok().trim().parse().unwrap();
    assert!(uptime > 86_400_000, "{uptime}");
}

#[test]
fn sysctls_are_set_in_their_namespaces() {
    let mut c = Container::new(
        "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/fs/mqueue/msg_max",
    );
    c.set("/linux/sysctl", json!({
        "kernel.msgmax": "12345", "net.ipv4.ip_unprivileged_port_start": "80", "fs.mqueue.msg_max": "44"
    }));
    if rootless().is_some() && !kernel_since(5, 19) {
        c.run().fails_with(1, "since 5.19");
        return;
    }
    assert_eq!(c.run().ok(), "12345\n80\n44\n");
}

#[test]
fn a_sysctl_of_the_whole_machine_is_refused() {
    for name in ["kernel.panic", "vm.swappiness", "fs.file-max"] {
        let mut c = Container::new("true");
        c.set("/linux/sysctl", json!({ name: "1" }));
        c.run().fails_with(1, name);
        c.assert_nothing_left();
    }
}

#[test]
fn a_sysctl_needs_its_own_namespace() {
    let mut c = Container::new("true");
    c.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|namespace| namespace["type"] != "network");
    c.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    c.run().fails_with(1, "net.ipv4.ip_forward");
    c.assert_nothing_left();
}

#[test]
fn exec_joins_a_shared_pid_namespace_as_well() {
    let mut c = Container::idle();
    c.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|namespace| namespace["type"] != "pid");
    c.run_detached();
    assert_eq!(c.exec("readlink /proc/self/ns/pid").ok().trim(), own("pid"));
}
