//! `linux.intelRdt` on a machine without it; what is done with one is tested against a tree of files, in the crate `runtime`.

use std::path::Path;

use runtime_tests::{Container, is_coracle, requires};
use serde_json::json;

#[test]
fn without_resctrl_there_is_a_clear_error() {
    requires!(is_coracle(), "runc 1.3 starts the container all the same");
    requires!(
        !Path::new("/sys/fs/resctrl/schemata").exists(),
        "the machine has resctrl"
    );
    let mut c = Container::idle();
    c.set(
        "/linux/intelRdt",
        json!({ "closID": "gold", "enableMonitoring": true }),
    );
    c.create().fails_with(1, "Intel RDT is not enabled");
    c.assert_nothing_left();
    c.unset("/linux/intelRdt");
    c.run_detached();
    let update = c.runtime(&["update", "--l3-cache-schema", "L3:0=f", &c.id]);
    update.fails_with(1, "Intel RDT");
    let state = c.state();
    assert_eq!(state["status"], "running");
    c.set("/linux/intelRdt", json!({ "closID": "../gold" }));
    c.create().fails_with(1, "linux.intelRdt.closID");
}
