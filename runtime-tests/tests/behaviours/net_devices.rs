//! `linux.netDevices`: devices of the runtime's network namespace move into the container's. Each test's runtime has a network
//! namespace of its own, which goes with it.

use std::process::Command;

use runtime_tests::{Container, Output, has_program, is_coracle, requires, rootless};
use serde_json::{Value, json};

/// Runs the container where `set_up` has been done before, and looks at that namespace afterwards.
fn run_with(c: &Container, set_up: &str) -> Output {
    let inner = c.bundle_command("run", &[]);
    let script = format!("{set_up}\n\"$@\"; status=$?; echo; ip -o link; exit $status");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-ec", &script, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    c.finish(command)
}

fn container(script: &str, devices: Value) -> Container {
    let mut c = Container::new(script);
    c.set("/linux/netDevices", devices);
    c
}

const VETH: &str = "ip link add eth7 mtu 1400 address 02:00:00:00:00:07 type veth peer name peer";

macro_rules! requires_devices {
    () => {
        requires!(is_coracle(), "runc 1.3 has no netDevices");
        requires!(rootless().is_none(), "the host's devices are root's");
        requires!(has_program("ip"), "iproute2 is missing");
    };
}

#[test]
fn a_device_comes_up_with_what_it_has() {
    requires_devices!();
    let c = container("ip addr show eth7", json!({ "eth7": {} }));
    let set_up = format!(
        "{VETH}; ip addr add 10.7.0.2/24 dev eth7; ip addr add 10.7.1.2 peer 10.7.1.1 dev eth7; ip addr add 169.254.7.7/16 scope link dev eth7
        ip addr add fd07::2/64 nodad dev eth7; ip addr add 10.7.2.2/24 valid_lft 1000 preferred_lft 1000 dev eth7; ip link set eth7 up"
    );
    let output = run_with(&c, &set_up);
    let (seen, host) = output
        .ok()
        .split_once("\n\n")
        .map(|(seen, host)| (seen.to_owned(), host.to_owned()))
        .unwrap();
    for part in [
        "mtu 1400",
        ",UP",
        "02:00:00:00:00:07",
        "inet 10.7.0.2/24",
        "10.7.1.2 peer 10.7.1.1",
        "inet6 fd07::2/64",
    ] {
        assert!(seen.contains(part), "{part:?} in {seen}");
    }
    for part in ["169.254.7.7", "10.7.2.2", "tentative"] {
        assert!(!seen.contains(part), "no {part:?} in {seen}");
    }
    assert!(!host.contains("eth7"), "it is not moved back: {host}");
}

#[test]
fn a_device_gets_another_name() {
    requires_devices!();
    let c = container(
        "ls /sys/class/net",
        json!({ "eth7": { "name": "net0" }, "peer": { "name": "eth%d" } }),
    );
    let output = run_with(&c, &format!("{VETH}; ip link set eth7 up"));
    let seen = output.ok();
    assert!(seen.starts_with("eth0\nlo\nnet0\n"), "{seen}");
}

#[test]
fn numbers_are_the_first_free_ones() {
    requires_devices!();
    let devices = json!({ "eth7": { "name": "x%d" }, "peer": { "name": "x%d" } });
    let c = container("ls /sys/class/net", devices);
    let seen = run_with(&c, VETH).ok();
    assert!(seen.starts_with("lo\nx0\nx1\n"), "{seen}");
}

#[test]
fn a_clash_is_an_error_and_all_stay_at_home() {
    requires_devices!();
    let mut c = container(
        "true",
        json!({ "eth7": { "name": "aa" }, "peer": { "name": "lo" } }),
    );
    let set_up = format!("{VETH}; ip addr add 10.7.0.2/24 dev eth7");
    let output = run_with(&c, &format!("{set_up}; trap 'ip -o addr' EXIT"));
    assert!(
        output.stdout.contains("eth7    inet 10.7.0.2/24"),
        "{output:?}"
    );
    output.fails_with(
        1,
        "linux.netDevices.peer: the container's network namespace has a device lo already",
    );
    c.assert_nothing_left();
    c.set("/linux/netDevices", json!({ "missing": {} }));
    run_with(&c, VETH).fails_with(
        1,
        "link not found for interface missing on runtime namespace",
    );
    c.set("/linux/netDevices", json!({ "lo": { "name": "x" } }));
    run_with(&c, VETH).fails_with(1, "linux.netDevices.lo: move the network device");
    c.assert_nothing_left();
}

#[test]
fn a_failure_later_on_gives_the_devices_back() {
    requires_devices!();
    let mut c = container("true", json!({ "eth7": { "name": "aa" } }));
    c.set("/process/args", json!(["/no/such"]));
    let set_up = format!(
        "{VETH}; ip addr add 10.7.0.2/24 dev eth7; ip link set eth7 up; trap 'ip -o addr' EXIT"
    );
    let output = run_with(&c, &set_up);
    assert!(
        output.stdout.contains("eth7    inet 10.7.0.2/24"),
        "{output:?}"
    );
    output.fails_with(1, "no such file");
}

#[test]
fn in_a_user_namespace_and_with_its_sysctls() {
    requires_devices!();
    let mut c = container(
        "ip addr show eth7; cat /proc/sys/net/ipv4/conf/eth7/forwarding",
        json!({ "eth7": {} }),
    );
    c.push("/linux/namespaces", json!({ "type": "user" }));
    for field in ["/linux/uidMappings", "/linux/gidMappings"] {
        c.set(
            field,
            json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]),
        );
    }
    c.set(
        "/linux/sysctl",
        json!({ "net.ipv4.conf.eth7.forwarding": "1" }),
    );
    let seen = run_with(&c, &format!("{VETH}; ip addr add 10.7.0.2/24 dev eth7")).ok();
    assert!(
        seen.contains("inet 10.7.0.2/24") && seen.contains(",UP") && seen.contains("\n1\n"),
        "{seen}"
    );
}

#[test]
fn into_a_namespace_that_is_joined() {
    requires_devices!();
    let holder = Container::idle();
    holder.run_detached();
    let mut c = container("ip addr show eth7", json!({ "eth7": {} }));
    c.set(
        "/linux/namespaces/1/path",
        json!(format!("/proc/{}/ns/net", holder.pid())),
    );
    assert_eq!(c.config["linux"]["namespaces"][1]["type"], "network");
    let seen = run_with(&c, &format!("{VETH}; ip addr add 10.7.0.2/24 dev eth7")).ok();
    assert!(seen.contains("inet 10.7.0.2/24"), "{seen}");
}

#[test]
fn only_into_a_namespace_of_its_own() {
    requires_devices!();
    let mut c = container("true", json!({ "eth7": {} }));
    c.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|namespace| namespace["type"] != "network");
    run_with(&c, VETH).fails_with(1, "without a private NET namespace");
    c = container("true", json!({ "eth7": { "name": "a/b" } }));
    run_with(&c, VETH).fails_with(1, "invalid network device name \"a/b\"");
}
