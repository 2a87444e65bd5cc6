//! Pods and containers through containerd's CRI, as a kubelet asks for them. `SHIM=/usr/bin/containerd-shim-runc-v2` proves the tests;
//! `CONTAINERD=DIR` is another containerd than that in the path; `LONG=yes` runs the whole of what is bounded otherwise.

mod documented;
mod kubelet;
mod lifecycle;
mod many;
mod security;
mod streaming;
mod websocket;

use kubelet::Kubelet;
use runtime_tests::{has_containerd, has_program, rootless};

/// A kubelet, where this machine can have one.
fn kubelet() -> Option<Kubelet> {
    can_have_one().then(Kubelet::new)
}

fn can_have_one() -> bool {
    let reason = if rootless().is_some() {
        "containerd runs as root here"
    } else if !has_containerd() || !has_program("buildah") {
        "containerd or buildah is not installed"
    } else {
        return true;
    };
    runtime_tests::skip(reason);
    false
}
