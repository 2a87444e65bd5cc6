//! `linux.memoryPolicy`, seen in /proc/self/numa_maps.

use std::path::Path;

use runtime_tests::{Container, is_coracle, requires};
use serde_json::json;

/// The policy of the first mapping, as numa(7) writes it.
const LOOK: &str = "head -n 1 /proc/self/numa_maps | cut -d ' ' -f 2";

fn has_numa() -> bool {
    Path::new("/proc/self/numa_maps").exists()
}

#[test]
fn policies_reach_the_kernel() {
    requires!(is_coracle(), "runc 1.3 has no memoryPolicy");
    requires!(has_numa(), "the kernel has no NUMA");
    let mut c = Container::new(LOOK);
    for (policy, seen) in [
        (json!({ "mode": "MPOL_DEFAULT" }), "default\n"),
        (json!({ "mode": "MPOL_LOCAL" }), "local\n"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), "bind:0\n"),
        (
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }),
            "interleave:0\n",
        ),
        (
            json!({ "mode": "MPOL_PREFERRED", "nodes": "0" }),
            "prefer:0\n",
        ),
        (
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }),
            "bind=static:0\n",
        ),
        (
            json!({ "mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"] }),
            "prefer=relative:0\n",
        ),
    ] {
        c.set("/linux/memoryPolicy", policy.clone());
        assert_eq!(c.run().ok(), seen, "{policy}");
    }
}

#[test]
fn an_executed_process_has_it_too() {
    requires!(is_coracle(), "runc 1.3 has no memoryPolicy");
    requires!(has_numa(), "the kernel has no NUMA");
    let mut c = Container::idle();
    c.set(
        "/linux/memoryPolicy",
        json!({ "mode": "MPOL_BIND", "nodes": "0" }),
    );
    c.run_detached();
    assert_eq!(c.exec(LOOK).ok(), "bind:0\n");
}

#[test]
fn wrong_policies_are_refused_in_runcs_words() {
    requires!(is_coracle(), "runc 1.3 has no memoryPolicy");
    let mut c = Container::new("true");
    for (policy, words) in [
        (json!({ "nodes": "0" }), "invalid memory policy mode"),
        (
            json!({ "mode": "BIND", "nodes": "0" }),
            "invalid memory policy mode",
        ),
        (
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["F"] }),
            "invalid memory policy flag",
        ),
        (
            json!({ "mode": "MPOL_BIND", "nodes": "0-9876543210" }),
            "invalid memory policy node",
        ),
        (
            json!({ "mode": "MPOL_DEFAULT", "nodes": "0-7" }),
            "mode requires 0 nodes but got 8",
        ),
        // The kernel's own word.
        (
            json!({ "mode": "MPOL_BIND", "nodes": "900" }),
            "linux.memoryPolicy: set it: invalid argument",
        ),
    ] {
        c.set("/linux/memoryPolicy", policy);
        c.run().fails_with(1, words);
        c.assert_nothing_left();
    }
}
