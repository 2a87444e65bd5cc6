//! Builds the static programs of the tests for the musl target: `inside`, which looks from inside a container, and `floor`, which does only
//! what no runtime can avoid.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    for (name, variable) in [("inside", "INSIDE"), ("floor", "FLOOR")] {
        println!("cargo::rerun-if-changed={name}");
        let program = Path::new(&env::var("OUT_DIR").unwrap()).join(name);
        build(name, &program);
        println!("cargo::rustc-env={variable}={}", program.display());
    }
}

fn build(name: &str, program: &Path) {
    let target = format!(
        "{}-unknown-linux-musl",
        env::var("CARGO_CFG_TARGET_ARCH").unwrap()
    );
    let status = Command::new(env::var("RUSTC").unwrap())
        .args([
            "--edition=2024",
            "-Copt-level=s",
            "-Cpanic=abort",
            "-Cstrip=symbols",
        ])
        .args(["--target", &target, "--crate-name", name, "-o"])
        .arg(program)
        .arg(format!("{name}/main.rs"))
        .status()
        .expect("rustc starts");
    assert!(
        status.success(),
        "{name} did not build: run `rustup target add {target}` (scripts/setup.sh does)"
    );
}
