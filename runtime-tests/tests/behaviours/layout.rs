//! Where things lie in the released program: what every command needs is side by side, and what only a panic needs waits for one.

use std::path::Path;
use std::process::Command;

use runtime_tests::{Container, has_program, is_coracle, requires, rootless, runtime};
use serde_json::json;

/// The bytes of a section of the program under test; nothing if it has no such section.
fn section(name: &str) -> usize {
    let listed = Command::new("readelf").arg("-SW").arg(runtime()).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let words = |line: &str| {
        let (_, behind) = line.split_once("] ")?;
        let words: Vec<_> = behind.split_whitespace().map(str::to_owned).collect();
        (words.first()? == name).then_some(words)
    };
    let found = listed.lines().find_map(words);
    found.map_or(0, |words| usize::from_str_radix(&words[4], 16).unwrap())
}

#[test]
fn what_every_command_needs_lies_side_by_side() {
    requires!(is_coracle(), "about our own program");
    requires!(has_program("readelf"), "readelf is missing");
    for (name, least) in [
        (".text.start", 300_000),
        (".rodata.start", 50_000),
        (".later", 80_000),
    ] {
        let bytes = section(name);
        assert!(bytes > least, "{name} has {bytes} bytes");
    }
}

/// The standard library panics when it gets no random numbers for its maps, as that of a configuration's annotations.
#[test]
fn a_panic_names_its_place() {
    requires!(is_coracle(), "about our own program");
    requires!(has_program("strace"), "strace is missing");
    requires!(rootless().is_none(), "/dev is hidden");
    let mut c = Container::new("true");
    c.set("/annotations", json!({ "a": "b" }));
    c.write_config();
    let hidden = "mount -t tmpfs none /dev && exec strace -f -o \"$0\" -e inject=getrandom:error=ENOSYS \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", hidden]);
    command.arg(c.dir().join("strace"));
    command
        .arg(runtime())
        .args(["--root".as_ref(), c.state_root()]);
    command.args([
        "run".as_ref(),
        "--bundle".as_ref(),
        c.bundle().as_path(),
        Path::new(&c.id),
    ]);
    let output = c.finish(command);
    assert_eq!(output.code, 128 + 6, "{output:?}");
    let words = "coracle: panicked at /rustc/";
    assert!(output.stderr.contains(words), "{output:?}");
    assert!(
        output
            .stderr
            .contains("/library/std/src/sys/random/linux.rs:"),
        "{output:?}"
    );
    assert!(
        output.stderr.contains("\nfailed to generate random data: "),
        "{output:?}"
    );
}
