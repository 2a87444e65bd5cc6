//! Tells the program which commit it was built from, for `coracle --version`, and the linker what a small static file does without.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=CORACLE_COMMIT");
    let commit = std::env::var("CORACLE_COMMIT")
        .ok()
        .or_else(commit_of_this_tree);
    println!(
        "cargo:rustc-env=CORACLE_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
    link_small();
}

/// What every start executes of musl's assembly, which has no section for each function.
const ASSEMBLY: &str =
    "*crt1.o(.text) *:memcpy.lo(.text) *:memset.lo(.text) *:__set_thread_area.lo(.text)\n";

/// Leaves unwind tables away, packs relocations, which musl understands since 1.2.4, and puts the functions that start containers side by side:
/// the kernel maps 16 pages around each that is executed. Only what is released never unwinds.
fn link_small() {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if !is("CARGO_CFG_TARGET_ENV", "musl") {
        return;
    }
    if is("PROFILE", "release") {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
        let [script, order] = ["link.ld", "order.txt"].map(|name| {
            println!("cargo:rerun-if-changed={name}");
            std::fs::read_to_string(directory.join(name)).expect("it lies beside this program")
        });
        let sections: String = order
            .lines()
            // One that several compilation units have gets a number at its end.
            .map(|name| format!("*(.text.{name} .text.unlikely.{name} .text.{name}.[0-9]*)\n"))
            .collect();
        let whole = format!(
            "{script}SECTIONS {{ .text.start : {{\n{ASSEMBLY}{sections}}} }}\nINSERT BEFORE .text;\n"
        );
        let path = Path::new(&std::env::var("OUT_DIR").expect("cargo sets it")).join("link.ld");
        std::fs::write(&path, whole).expect("cargo's directory is writable");
        println!(
            "cargo:rustc-link-arg-bins=-Wl,-T,{},-z,pack-relative-relocs",
            path.display()
        );
    }
    // src/sys/entry.rs
    let known = ["x86_64", "aarch64"];
    if known.iter().any(|arch| is("CARGO_CFG_TARGET_ARCH", arch)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-e,program_entry");
    }
}

/// `None` without git, in an unpacked source archive, and when that archive lies inside somebody else's repository.
fn commit_of_this_tree() -> Option<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    if Path::new(&git(&["rev-parse", "--show-toplevel"])?) != workspace {
        return None;
    }
    // The log of HEAD grows with each commit and checkout. A path that does not exist would make cargo run this every time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    git(&["rev-parse", "HEAD"])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(args)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}
