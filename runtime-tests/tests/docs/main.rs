//! Every command of the documents is executed as it stands there: blocks marked `sh`, in order, in one shell for each document, with a
//! registry at localhost:5000. What is marked `text` is not a command, or needs the network outside.

use std::fs;
use std::os::unix::fs::symlink;

use runtime_tests::{
    Engine, Registry, blocks, document, has_program, is_coracle, requires, runtime,
};

/// The lines of all `sh` blocks. `make` is what builds and tests this very tree.
fn commands(document: &str) -> String {
    let lines = blocks(document, "sh").concat();
    let is_make = |line: &&str| line.trim_start_matches("sudo ").starts_with("make ");
    let lines: Vec<_> = lines.lines().filter(|line| !is_make(line)).collect();
    lines.join("\n")
}

fn execute(name: &str) {
    requires!(is_coracle(), "the documents are ours");
    requires!(
        ["buildah", "docker-registry", "socat", "curl"]
            .iter()
            .all(|program| has_program(program)),
        "buildah, docker-registry, socat or curl is not installed"
    );
    let engine = Engine::new();
    let registry = Registry::beside(&engine);
    let bin = engine.path("bin");
    fs::create_dir(&bin).unwrap();
    symlink(runtime(), bin.join("coracle")).unwrap();
    fs::write(bin.join("sudo"), "#!/bin/sh\nexec \"$@\"\n").unwrap();
    let commands = commands(&document(name));
    assert!(commands.lines().count() > 5, "{name} has commands");
    let script = format!(
        "cd {dir}; export PATH={dir}/bin:$PATH TMPDIR={dir}
        chmod 755 bin/sudo; mkdir -p /var/lib/coracle work; mount -t tmpfs store /var/lib/coracle
        # Debian's buildah keeps images below /var/lib/containers.
        mkdir -p /var/lib/containers; mount -t tmpfs images /var/lib/containers
        socat TCP-LISTEN:5000,bind=127.0.0.1,reuseaddr,fork TCP:{registry} & forward=$!
        trap 'coracle list --quiet | while read id; do coracle rm -f $id || coracle delete --force $id; done >/dev/null 2>&1; kill $forward' EXIT
        cd work; set -eux -o pipefail
        {commands}\n",
        dir = engine.dir().display(),
        registry = registry.address,
    );
    let output = engine.run("bash", &["-c", &script]);
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
}

#[test]
fn the_guide() {
    execute("docs/guide.md");
}

#[test]
fn the_readme() {
    execute("README.md");
}
