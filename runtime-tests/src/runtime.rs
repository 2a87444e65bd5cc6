//! Which runtime is under test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The runtime's binary: `$RUNTIME`, or the release build of Coracle.
pub fn runtime() -> &'static Path {
    static RUNTIME: OnceLock<PathBuf> = OnceLock::new();
    RUNTIME.get_or_init(find)
}

fn find() -> PathBuf {
    if let Some(path) = env::var_os("RUNTIME") {
        return std::fs::canonicalize(&path)
            .unwrap_or_else(|e| panic!("RUNTIME={}: {e}", path.display()));
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace");
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let musl = format!("{}-unknown-linux-musl/release/coracle", env::consts::ARCH);
    let places = [musl.as_str(), "release/coracle", "debug/coracle"];
    places
        .iter()
        .map(|place| target.join(place))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!(
                "no runtime at {}: run `make build`, or set RUNTIME",
                target.join(musl).display()
            )
        })
}

/// Who makes the cgroups of the containers under test: the cgroupfs manager, or systemd with `CGROUP_MANAGER=systemd`.
pub fn by_systemd() -> bool {
    env::var_os("CGROUP_MANAGER").is_some_and(|manager| manager == "systemd")
}

/// The global flags that say so.
pub(crate) fn cgroup_manager_flags() -> &'static [&'static str] {
    if by_systemd() {
        &["--systemd-cgroup"]
    } else {
        &[]
    }
}

/// What the runtime says about itself: `runc version 1.3.6+ds1`.
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let answer = Command::new(runtime())
            .arg("--version")
            .output()
            .expect("the runtime starts");
        String::from_utf8_lossy(&answer.stdout).into_owned()
    })
}

fn name() -> &'static str {
    version().split_whitespace().next().unwrap_or_default()
}

/// Coracle is under test.
pub fn is_coracle() -> bool {
    name() == "coracle"
}

/// runc is under test, to prove the test.
pub fn is_runc() -> bool {
    name() == "runc"
}

/// runc of at least this version is under test, to prove the test.
pub fn is_runc_since(major: u32, minor: u32) -> bool {
    let number = version().split_whitespace().nth(2).unwrap_or_default();
    let mut numbers = number.split('.').map_while(|part| part.parse().ok());
    is_runc() && (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// crun is under test, to prove the test.
pub fn is_crun() -> bool {
    name() == "crun"
}
