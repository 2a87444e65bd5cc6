//! Tells the program which commit it was built from, for `coracle --version`, and the linker what a small static file does without.

mod linker;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use linker::Part;

fn main() {
    if let Some(name) = linker::called() {
        panic!("become the linker: {}", linker::main(&name));
    }
    println!("cargo:rustc-check-cfg=cfg(own_entry)");
    println!("cargo:rerun-if-env-changed=CORACLE_COMMIT");
    let commit = env::var("CORACLE_COMMIT").ok().or_else(commit_of_this_tree);
    println!(
        "cargo:rustc-env=CORACLE_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
    link_small();
}

/// What every start executes of musl's assembly, which has no section for each function.
const ASSEMBLY: &str =
    "*crt1.o(.text) *:memcpy.lo(.text) *:memset.lo(.text) *:__set_thread_area.lo(.text)";

/// What is released, linked with musl, starts by an entry point of its own, which relocates what is needed (src/sys/entry.rs); leaves unwind tables
/// away, since it never unwinds; packs relocations, which musl understands since 1.2.4; and has what each command needs side by side, since
/// the kernel maps 16 pages around each that is.
fn link_small() {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if !is("CARGO_CFG_TARGET_ENV", "musl") || !is("PROFILE", "release") {
        return;
    }
    let known = ["x86_64", "aarch64"];
    if known.iter().any(|arch| is("CARGO_CFG_TARGET_ARCH", arch)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-e,program_entry");
        println!("cargo:rustc-cfg=own_entry");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let cc = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let directory = linker::install(&out, &cc).expect("cc has a linker");
    let [functions, constants, locations, rest] =
        Part::ALL.map(|part| format!("INCLUDE \"{}\"", part.path(&directory).display()));
    let script = format!(
        "{}\
         SECTIONS {{ .text.start : {{ {ASSEMBLY} {functions} }} }}\n\
         INSERT BEFORE .text;\n\
         SECTIONS {{ . = ALIGN(CONSTANT(MAXPAGESIZE)); .rodata.start : {{\n\
         *.rcgu.o(.rodata.cst*) {constants} *(.rodata.str1.1 .rodata.*.str1.1) }} }}\n\
         INSERT BEFORE .rodata;\n\
         SECTIONS {{ . = ALIGN(CONSTANT(MAXPAGESIZE)); .later : {{\n\
         locations = .; {locations} locations_end = .; {rest} rest_end = .; }} }}\n\
         INSERT BEFORE .tdata;\n",
        include_str!("../link.ld"),
    );
    let path = out.join("link.ld");
    fs::write(&path, script).expect("cargo's directory is writable");
    println!("cargo:rustc-link-arg-bins=-B{}", directory.display());
    println!(
        "cargo:rustc-link-arg-bins=-Wl,-T,{},-z,pack-relative-relocs",
        path.display()
    );
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
