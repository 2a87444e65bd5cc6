//! The shim without containerd: what comes at its socket, and what is left when it is killed. `SHIM=/usr/bin/containerd-shim-runc-v2`
//! proves the tests.

mod bad_input;
mod checkpoint;
mod ended;
mod killed;

use runtime_tests::Shim;
use runtime_tests::ttrpc::OK;

/// What containerd's own shim does otherwise; besides, some of its errors are of an unknown kind.
const DIFFERENCES: &str = "containerd's own shim hands every id on to the runtime, opens a fifo only together with a reader, \
                           for which Create waits, and may end when Create fails";

fn is_strict() -> bool {
    !Shim::under_test().is_runc()
}

/// An error of this kind, where the shim has kinds.
fn is(code: u64, kind: u64) -> bool {
    code == kind || (!is_strict() && code != OK)
}
