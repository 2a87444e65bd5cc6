//! What `make dist` packs, installed in a bare Debian and used from there: by podman, and by hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use runtime_tests::{Host, has_program, need_root, requires, runtime, shell, skip};

/// In the Debian that the package was installed in: a container by hand, one of podman's, and what else came with the package.
const USE: &str = r#"
coracle --version | head -n 1
coracle check > /dev/null || [ $? = 1 ]
mkdir -p /bundle/rootfs/bin && cd /bundle
cp /bin/busybox rootfs/bin/sh
coracle spec
sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"sh", "-c", "echo by hand"/' config.json
coracle run package
podman --runtime coracle --cgroup-manager cgroupfs run --rm --network none --cgroup-parent "/$NAME" --rootfs /bundle/rootfs sh -c 'echo by podman'
. "$SHARE/bash-completion/completions/coracle"
gzip -dc "$SHARE"/man/man8/coracle-run.8.gz | head -n 1
containerd-shim-coracle-v2 -v | head -n 1
"#;

const SAID: [&str; 5] = [
    "coracle version 0.1.0",
    "by hand",
    "by podman",
    ".TH CORACLE\\-RUN 8 \"\" \"coracle 0.1.0\" \"System Manager's Manual\"",
    "containerd-shim-coracle-v2 0.1.0",
];

/// podman 5 warns of cgroup v1.
const VARIABLES: &str =
    "PODMAN_IGNORE_CGROUPSV1_WARNING=yes PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// podman's own defaults ask for higher limits than a machine without CAP_SYS_RESOURCE may have.
const CONTAINERS_CONF: &str = r#"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
events_logger = "file"
"#;

/// Packs what RUNTIME's directory has, and gives the directory of the packages.
fn dist(to: &Path) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let binary = std::fs::canonicalize(runtime()).expect("the runtime");
    let status = Command::new("scripts/dist.sh")
        .current_dir(workspace)
        .env("DIST", to)
        .env("BINARY", &binary)
        .env("SHIM", binary.with_file_name("containerd-shim-coracle-v2"))
        .stdout(Stdio::null())
        .status()
        .expect("scripts/dist.sh");
    assert!(status.success());
    to.to_owned()
}

/// The only file of a directory with such a name.
fn package(dist: &Path, end: &str) -> PathBuf {
    let files = std::fs::read_dir(dist).expect("the packages");
    let mut files = files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.to_string_lossy().ends_with(end));
    let found = files.next().expect("a package");
    assert_eq!(files.next(), None);
    found
}

/// A host with a bare Debian below `root`, which goes with the host, and there the package and its installation. Nothing where it
/// cannot be had.
fn debian(suite: &str, end: &str, install: &str) -> Option<Host> {
    need_root();
    let tools = ["mmdebstrap", "dpkg-deb"];
    if let Some(missing) = tools.into_iter().find(|tool| !has_program(tool)) {
        skip(&format!("{missing} is not installed"));
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/chroot.sh");
    let chroot = Command::new(script)
        .arg(suite)
        .stderr(Stdio::inherit())
        .output()
        .expect("chroot.sh");
    if chroot.status.code() == Some(75) {
        skip("Debian's archive does not answer, and no chroot is in the cache");
        return None;
    }
    assert!(chroot.status.success(), "{chroot:?}");
    let chroot = String::from_utf8(chroot.stdout).expect("a path");

    let host = Host::new();
    let package = package(&dist(&host.path("dist")), end);
    std::fs::write(host.path("use.sh"), USE).expect("a file");
    std::fs::write(host.path("containers.conf"), CONTAINERS_CONF).expect("a file");
    host.sh(&format!(
        r#"
cd {directory}
mkdir root layers
mount -t tmpfs layers layers
mkdir layers/upper layers/work
mount -t overlay -o lowerdir={chroot},upperdir=layers/upper,workdir=layers/work overlay root
mkdir -p root/var/lib/containers root/etc/containers
cp containers.conf root/etc/containers/
cp {package} use.sh root/tmp/
chroot root sh -ec 'cd / && {install} /tmp/{name}'
"#,
        directory = host.path("").display(),
        chroot = chroot.trim(),
        package = package.display(),
        name = package.file_name().expect("a name").to_string_lossy(),
    ));
    Some(host)
}

/// Installs a package in a bare Debian and uses it there. The Debian itself stays as it is.
fn installed_in(suite: &str, end: &str, install: &str, share: &str) {
    let Some(host) = debian(suite, end, install) else {
        return;
    };
    let said = host.sh(&format!(
        r#"
cd {directory}
for each in proc dev sys; do mount --rbind /$each root/$each; done
for each in run var/lib/containers; do mount -t tmpfs tmpfs root/$each; done
chroot root env {VARIABLES} SHARE={share} NAME={name} bash -ec '. /tmp/use.sh'
"#,
        directory = host.path("").display(),
        name = host.name,
    ));
    assert_eq!(said.lines().collect::<Vec<_>>(), SAID);
}

#[test]
fn the_deb_on_debian_12() {
    installed_in("bookworm", ".deb", "dpkg --install", "/usr/share");
}

#[test]
fn the_deb_on_debian_13() {
    installed_in("trixie", ".deb", "dpkg --install", "/usr/share");
}

#[test]
fn the_tarball_on_debian_12() {
    installed_in("bookworm", ".tar.gz", "tar -xzf", "/usr/local/share");
}

#[test]
fn the_tarball_on_debian_13() {
    installed_in("trixie", ".tar.gz", "tar -xzf", "/usr/local/share");
}

/// Nested: a container by hand, one of podman's and one with limits, all inside a privileged container.
#[test]
fn in_a_container_of_our_own() {
    let Some(host) = debian("bookworm", ".deb", "dpkg --install") else {
        return;
    };
    let root = host.path("root").display().to_string();
    let script = format!(
        "export NAME=/ SHARE=/usr/share {VARIABLES}; . /tmp/use.sh; \
         coracle run --rm --network none --memory 32m --rootfs /bundle/rootfs sh -c 'echo with limits'"
    );
    let run = [
        "run",
        "--rm",
        "--privileged",
        "--network",
        "none",
        "--name",
        "outer",
    ];
    let places = [
        "--tmpfs",
        "/run",
        "--tmpfs",
        "/var/lib/containers",
        "--rootfs",
        &root,
    ];
    let args = [&run[..], &places, &["bash", "-ec", &script]].concat();
    let said = host.coracle(&args).ok();
    let expected = [&SAID[..], &["with limits"]].concat();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_same_commit_packs_the_same_bytes() {
    requires!(
        has_program("dpkg-deb"),
        "packages are made by Debian's tools"
    );
    let directory = tempfile::tempdir().expect("/tmp is writable");
    let sums = ["one", "other"].map(|name| {
        let packed = dist(&directory.path().join(name));
        shell(&format!("cat {}/SHA256SUMS", packed.display()))
    });
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[0].lines().count(), 2, "{}", sums[0]);
}
