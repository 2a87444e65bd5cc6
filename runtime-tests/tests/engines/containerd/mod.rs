//! What `ctr` asks of containerd's shims. `SHIM=/usr/bin/containerd-shim-runc-v2` proves the tests; `CONTAINERD=DIR` is another
//! containerd than that in the path.

use runtime_tests::{Containerd, Shim, has_containerd, has_program, rootless};

mod checkpoint;
mod crash;
mod events;
mod limits;
mod logging;
mod runc_shim;
mod tasks;

const IMAGE: &str = "localhost/busybox:latest";

/// A containerd with the shim under test, where this machine can have one.
fn containerd() -> Option<Containerd> {
    above(Shim::under_test)
}

fn above(shim: fn() -> Shim) -> Option<Containerd> {
    let reason = if rootless().is_some() {
        "containerd runs as root here"
    } else if !has_containerd() || !has_program("buildah") {
        "containerd or buildah is not installed"
    } else {
        return Some(Containerd::above(shim()));
    };
    runtime_tests::skip(reason);
    None
}
