//! What the behaviour tests stand on: a container with a base configuration that each test changes in one place, runs
//! with the runtime under test, looks at from inside, and that leaves nothing behind.
//!
//! The runtime is `$RUNTIME`, or the release build of Coracle. A test is believed once it has passed against
//! `RUNTIME=/usr/bin/runc`.

mod account;
mod agent;
mod apparmor;
mod bundle;
mod cgroup;
mod command;
mod container;
mod containerd;
mod count;
mod docker;
mod document;
mod engine;
mod floor;
mod host;
mod machine;
mod registry;
mod runtime;
mod shim;
mod store;
mod strace;
mod terminal;
#[cfg(target_arch = "x86_64")]
mod trace;
pub mod ttrpc;
mod without;

pub use account::{Account, Ids, rootless};
pub use agent::SeccompAgent;
pub use apparmor::{Profile, has_apparmor, runs_apparmor};
pub use bundle::{base_config, docker_config, fill_rootfs, install_inside, template_config};
pub use cgroup::{
    Limit, V2Cgroup, cgroup_dirs_named, controller_dir, limit_of, pids_in_cgroups_named, v2_dir,
};
pub use command::{Output, eventually, finish, read_text, shell};
pub use container::Container;
pub use containerd::{Containerd, Events};
pub use count::{assert_count_goes_on, count_in, counting};
pub use docker::Docker;
pub use document::{blocks, document};
pub use engine::{Engine, http_get};
pub use floor::{floor, write_floor_plan};
pub use host::{Host, body, cable, connect, get, get_from, within};
pub use machine::{
    Hierarchy, View, criu_has, has_capability, has_cgroup, has_controller, has_criu, has_program,
    has_systemd, has_v1_controller, has_v2_controller, hierarchy, kernel_has, kernel_since, long,
    need_root, number_of, skip,
};
pub use registry::{Home, Registry};
pub use runtime::{by_systemd, is_coracle, is_crun, is_runc, is_runc_since, runtime};
pub use shim::{Shim, containerd_version, has_containerd};
pub use store::Store;
pub use strace::{count_calls, traced};
pub use terminal::{ConsoleSocket, Terminal};
#[cfg(target_arch = "x86_64")]
pub use trace::{Call, Fault, Tracer};
pub use without::{Without, kernel_lacks};

/// Leaves the test with a printed reason when this machine cannot show the behaviour.
#[macro_export]
macro_rules! requires {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            $crate::skip(&format!($($reason)+));
            return;
        }
    };
}
