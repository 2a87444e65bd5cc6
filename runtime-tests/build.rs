//! Builds `inside/main.rs`, the static test init that looks from inside a container, for the musl target.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=inside/main.rs");
    let target = format!(
        "{}-unknown-linux-musl",
        env::var("CARGO_CFG_TARGET_ARCH").unwrap()
    );
    let inside = Path::new(&env::var("OUT_DIR").unwrap()).join("inside");
    let status = Command::new(env::var("RUSTC").unwrap())
        .args([
            "--edition=2024",
            "--crate-name=inside",
            "-Copt-level=s",
            "-Cpanic=abort",
            "-Cstrip=symbols",
        ])
        .args(["--target", &target, "-o"])
        .arg(&inside)
        .arg("inside/main.rs")
        .status()
        .expect("rustc starts");
    assert!(
        status.success(),
        "the test init did not build: run `rustup target add {target}` (scripts/setup.sh does)"
    );
    println!("cargo::rustc-env=INSIDE={}", inside.display());
}
