//! Every command of the documents is executed as it stands there: blocks marked `sh`, in order, in one shell for each document, with a
//! registry at localhost:5000. What stands under "As an ordinary user" one executes afterwards. What is marked `text` is not a command, or
//! needs the network outside.

use std::fs;
use std::os::unix::fs::symlink;

use runtime_tests::{
    Account, Engine, Ids, Registry, blocks, document, has_program, is_coracle, requires, runtime,
};
use std::path::Path;

/// The title of what is not for root.
const BY_A_USER: &str = "\n## As an ordinary user\n";

/// A document without what a user executes, and that.
fn parts(document: &str) -> (String, &str) {
    let Some((before, rest)) = document.split_once(BY_A_USER) else {
        return (document.to_owned(), "");
    };
    let end = rest.find("\n## ").unwrap_or(rest.len());
    (format!("{before}{}", &rest[end..]), &rest[..end])
}

/// A line of shell by which root has an ordinary user execute lines in a home directory.
fn by_a_user(account: &Account, home: &str, lines: &str) -> String {
    let command = account.command(Path::new("bash"));
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''")));
    format!(
        "# pasta looks for the machine's way out.
        ip link add uplink type veth peer name other; ip link set other up; ip address add 192.0.2.1/24 dev uplink
        ip link set uplink up; ip route add default via 192.0.2.2
        mkdir -p {home}/run; chown {id} {home} {home}/run; cd {home}; export HOME={home} XDG_RUNTIME_DIR={home}/run
        {command} -eux -o pipefail <<'END OF THE USER'\n{lines}\nEND OF THE USER\n",
        id = Account::ID,
        command = words.collect::<Vec<_>>().join(" "),
    )
}

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
    let document = document(name);
    let (by_root, by_user) = parts(&document);
    let lines = commands(&by_root);
    assert!(lines.lines().count() > 5, "{name} has commands");
    let home = engine.dir().join("home").display().to_string();
    // As it is on most machines.
    let account = Account::new(Ids::Ranges).after(&format!(
        "mknod -m 666 {home}/tun c 10 200; mount --bind {home}/tun /dev/net/tun; rm {home}/tun"
    ));
    let as_user = match commands(by_user) {
        none if none.is_empty() => String::new(),
        lines => by_a_user(&account, &home, &lines),
    };
    let script = format!(
        "cd {dir}; export PATH={dir}/bin:$PATH TMPDIR={dir}
        chmod 755 bin/sudo; mkdir -p /var/lib/coracle work; mount -t tmpfs store /var/lib/coracle
        # Debian's buildah keeps images below /var/lib/containers.
        mkdir -p /var/lib/containers; mount -t tmpfs images /var/lib/containers
        socat TCP-LISTEN:5000,bind=127.0.0.1,reuseaddr,fork TCP:{registry} & forward=$!
        trap 'coracle list --quiet | while read id; do coracle rm -f $id || coracle delete --force $id; done >/dev/null 2>&1; kill $forward' EXIT
        cd work; set -eux -o pipefail
        {lines}
        {as_user}\n",
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

/// The tests that `docs/SECURITY.md` and `docs/RELIABILITY.md` name. Proved with a name that is none's.
#[test]
fn every_attack_and_every_fault_has_its_tests() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources = runtime_tests::shell(&format!(
        "cd {} && find crates runtime-tests -name '*.rs' -exec cat {{}} +",
        workspace.display()
    ));
    let tables = document("docs/SECURITY.md") + &document("docs/RELIABILITY.md");
    let cells = tables.lines().filter_map(|line| line.rsplit('|').nth(1));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let missing: Vec<_> = names
        .filter(|name| {
            !sources.contains(&format!("fn {name}(")) && !sources.contains(&format!("(\"{name}\","))
        })
        .collect();
    assert_eq!(missing, [""; 0]);
}
