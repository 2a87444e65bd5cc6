//! The five capability sets.

use runtime_tests::{Container, Ids, requires, rootless};
use serde_json::{Value, json};

/// CapInh, CapPrm, CapEff, CapBnd, CapAmb of a process in the container.
fn sets(status: &str) -> Vec<u64> {
    let lines = status
        .lines()
        .filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"));
    lines
        .map(|(_, value)| u64::from_str_radix(value, 16).unwrap())
        .collect()
}

fn seen(capabilities: Value, user: u32) -> Vec<u64> {
    let mut c = Container::with_args(&["cat", "/proc/self/status"]);
    c.set("/process/capabilities", capabilities)
        .set("/process/user", json!({ "uid": user, "gid": user }));
    sets(&c.run().ok())
}

const KILL: u64 = 1 << 5;
const CHOWN: u64 = 1;
const NET_RAW: u64 = 1 << 13;

#[test]
fn root_has_exactly_the_configured_sets() {
    let sets = seen(
        json!({ "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL", "CAP_CHOWN"] }),
        0,
    );
    let both = KILL | CHOWN;
    assert_eq!(sets, [0, both, both, both, 0]);
}

#[test]
fn no_capabilities_at_all() {
    assert_eq!(seen(json!({}), 0), [0; 5]);
}

#[test]
fn another_user_has_none_without_ambient() {
    requires!(rootless() != Some(Ids::Own), "one id only is mapped");
    let set = ["CAP_KILL"];
    assert_eq!(
        seen(
            json!({ "bounding": set, "permitted": set, "effective": set }),
            1000
        ),
        [0, 0, 0, KILL, 0]
    );
}

#[test]
fn ambient_capabilities_reach_another_user() {
    requires!(rootless() != Some(Ids::Own), "one id only is mapped");
    let set = ["CAP_KILL", "CAP_NET_RAW"];
    let sets = seen(
        json!({ "bounding": set, "permitted": set, "effective": set, "inheritable": set, "ambient": set }),
        1000,
    );
    assert_eq!(sets, [KILL | NET_RAW; 5]);
}

#[test]
fn inheritable_is_empty_unless_configured() {
    requires!(rootless() != Some(Ids::Own), "one id only is mapped");
    // CVE-2022-29162, CVE-2022-27650, CVE-2025-27612. Proved with a set that is the bounding one, and with one that `--cap` adds to.
    let c = Container::idle();
    c.run_detached();
    let init = std::fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    assert_eq!((sets(&init)[0], sets(&init)[4]), (0, 0));
    for flags in [&[][..], &["--cap", "CAP_NET_ADMIN"], &["--user", "1000"]] {
        let status = c.exec_with(flags, &["cat", "/proc/self/status"]).ok();
        assert_eq!(sets(&status)[0], 0, "{flags:?}: CapInh");
    }
}

#[test]
fn exec_has_the_containers_sets() {
    let c = Container::idle();
    c.run_detached();
    let init = std::fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    assert_eq!(sets(&c.exec("cat /proc/self/status").ok()), sets(&init));
}

#[test]
fn an_unknown_capability_is_a_warning() {
    let mut c = Container::new("echo went on");
    c.push("/process/capabilities/bounding", json!("CAP_FLYING"));
    let output = c.run();
    assert_eq!(output.stdout, "went on\n", "{output:?}");
}
