//! Tells the linker what a small static file does without, as for `coracle` itself.

fn main() {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Only what is released never unwinds.
    if is("CARGO_CFG_TARGET_ENV", "musl") && is("PROFILE", "release") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../coracle/link.ld");
        println!("cargo:rerun-if-changed={script}");
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{script},-z,pack-relative-relocs");
    }
}
