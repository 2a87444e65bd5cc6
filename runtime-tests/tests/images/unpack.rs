//! `unpack`: images of layers become bundles, which hold what umoci makes of them and run under any runtime.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use runtime_tests::{
    Account, Home, Ids, Registry, has_capability, has_program, requires, runtime, shell,
};

use super::has_tools;

/// CAP_SYS_ADMIN, for trusted attributes and everything else that only root's files have.
const SYS_ADMIN: u32 = 21;

/// Builds the layers of an image, one below another, in the current directory. Each `layer NAME` takes what is in the directory NAME.
const LAYERS: &str = r#"
umoci init --layout layout && umoci new --image layout:v1
layer() {
    tar -C $1 --format=pax --xattrs --xattrs-include='*' --numeric-owner -S -cf $1.tar . &&
    umoci raw add-layer --image layout:v1 $1.tar
}
# Where things stand, so that directories have times that are not those of today.
old() { find $1 -depth -exec touch -hd '2001-02-03 04:05:06.789' {} +; }
"#;

/// Everything that a layer can have.
const KINDS: &str = r#"
mkdir -p one/bin one/deep/a/b/c one/gone/x one/opaque/below one/mixed one/kept
cp /bin/busybox one/bin/ && for tool in sh true cat id ls; do ln one/bin/busybox one/bin/$tool; done
echo data > one/file; ln one/file one/deep/link; ln one/file one/deep/a/again; ln -s ../file one/deep/symlink; ln -s /nowhere one/dangling
echo setuid > one/setuid; chown 1:2 one/setuid; chmod 6755 one/setuid
mkfifo -m 620 one/fifo; mknod one/null c 1 3; mknod one/block b 7 9; chmod 606 one/block; chown 3:4 one/null
mkdir -m 1777 one/tmp; mkdir -m 2750 one/group; chown 5:6 one/group; chown -h 7:8 one/dangling
truncate -s 3M one/sparse; printf middle | dd of=one/sparse bs=1 seek=1000000 conv=notrunc 2>/dev/null
setfattr -n user.word -v value one/file; setfattr -n user.dir -v d one/group; setcap cap_net_raw+ep one/bin/busybox
printf x > one/"$(printf 'odd \t name \303\251')"; long=one/$(printf 'n%.0s' $(seq 120)); mkdir $long; echo long > $long/$(printf 'm%.0s' $(seq 120))
echo 1 > one/gone/x/file; echo 1 > one/opaque/below/file; echo 1 > one/opaque/file; echo 1 > one/mixed/file; echo 1 > one/kept/file
echo 1 > one/becomes-dir; mkdir one/becomes-file; echo 1 > one/becomes-file/x; ln -s kept one/becomes-link
old one; layer one
mkdir -p two/opaque two/becomes-dir two/deep/a two/mixed
touch two/.wh.gone two/opaque/.wh..wh..opq two/deep/a/.wh.b two/mixed/.wh.file
echo 2 > two/opaque/new; echo 2 > two/becomes-dir/file; echo 2 > two/becomes-file; echo 2 > two/mixed/file; echo 2 > two/file
chmod 700 two/mixed; old two; touch -d 2005-01-01 two/deep two/opaque; layer two
mkdir -p three/gone three/kept
echo 3 > three/gone/again; ln -s file three/kept/link; touch three/.wh.tmp; setfattr -n user.more -v 3 three/kept
old three; layer three
"#;

/// What somebody does in a container, as umoci records it.
const REPACKED: &str = r#"
mkdir -p one/bin one/etc one/srv/data/deep one/srv/old; cp /bin/busybox one/bin/; ln one/bin/busybox one/bin/true
for n in $(seq 50); do echo $n > one/srv/data/$n; done; ln -s data one/srv/current; echo root:x:0:0::/:/bin/sh > one/etc/passwd
old one; layer one
umoci unpack --image layout:v1 work >/dev/null
cd work/rootfs; rm srv/data/1 srv/data/2; rm -r srv/old; ln srv/data/3 srv/three; rm -r srv/data/deep; echo now > srv/data/deep
rm srv/current; mkdir srv/current; chmod 700 etc; chown 10:10 srv; mv srv/data/4 srv/data/four; cd ../..
umoci repack --image layout:v1 --refresh-bundle work >/dev/null
mkdir work/rootfs/srv/old; rm -r work/rootfs/srv/current; echo file > work/rootfs/srv/current; ln -s ../bin/true work/rootfs/etc/link
umoci repack --image layout:v1 work >/dev/null
"#;

/// Makes the layout `layout` with the tag `v1`, whose first command is a greeting.
fn make(home: &Home, script: &str) -> String {
    let dir = home.path("");
    shell(&format!(
        "cd {} && set -e\n{LAYERS}\n{script}\numoci config --image layout:v1 --config.cmd /bin/true",
        dir.display()
    ));
    format!("oci:{}:v1", home.path("layout").display())
}

/// What is known of a file.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    device: u64,
    modified: (i64, i64),
    attributes: String,
    content: Vec<u8>,
    /// The first of its names.
    linked: Option<PathBuf>,
}

/// Everything below `root`, by path.
fn tree(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let found = shell(&format!(
        "cd {} && find . -print0 | sort -z",
        root.display()
    ));
    let mut first = BTreeMap::new();
    let mut files = BTreeMap::new();
    for name in found.split_terminator('\0') {
        let path = root.join(name);
        let stat = path.symlink_metadata().unwrap();
        let name = PathBuf::from(name);
        let is_linked = !stat.is_dir() && stat.nlink() > 1;
        let linked = is_linked.then(|| first.entry(stat.ino()).or_insert(name.clone()).clone());
        let facts = Facts {
            mode: stat.mode(),
            owner: (stat.uid(), stat.gid()),
            size: if stat.is_file() { stat.size() } else { 0 },
            device: stat.rdev(),
            modified: (stat.mtime(), stat.mtime_nsec()),
            attributes: attributes(&path),
            content: content(&path, &stat),
            linked,
        };
        files.insert(name, facts);
    }
    files
}

fn attributes(path: &Path) -> String {
    shell(&format!(
        "getfattr -hd -m - --absolute-names -- '{}' | grep -v '^#' || true",
        path.display()
    ))
}

fn content(path: &Path, stat: &fs::Metadata) -> Vec<u8> {
    if stat.is_file() {
        fs::read(path).unwrap()
    } else if stat.is_symlink() {
        fs::read_link(path).unwrap().into_os_string().into_vec()
    } else {
        Vec::new()
    }
}

/// Unpacks by both, and compares what there is.
fn same_as_umoci(script: &str) {
    requires!(
        has_tools() && has_program("setcap") && has_program("getfattr"),
        "docker-registry, htpasswd, openssl, skopeo, umoci, setcap or getfattr is not installed"
    );
    requires!(
        has_capability(SYS_ADMIN),
        "this is what root's files are like"
    );
    let home = Home::new();
    let image = make(&home, script);
    home.run("umoci", &["unpack", "--image", "layout:v1", "theirs"])
        .ok();
    home.coracle(&["unpack", &image, "ours"]).ok();
    let (mut ours, theirs) = (
        tree(&home.path("ours/rootfs")),
        tree(&home.path("theirs/rootfs")),
    );
    for (path, facts) in &theirs {
        assert_eq!(
            ours.remove(path).as_ref(),
            Some(facts),
            "{}",
            path.display()
        );
    }
    assert!(ours.is_empty(), "only ours: {ours:?}");
    let sparse = home.path("ours/rootfs/sparse");
    if let Ok(stat) = sparse.metadata() {
        assert!(
            stat.blocks() * 512 < stat.size() / 2,
            "a sparse file has become full"
        );
    }
    // Another compression makes no difference.
    home.run(
        "skopeo",
        &[
            "copy",
            "--dest-compress-format",
            "zstd",
            "--dest-compress",
            "oci:layout:v1",
            "oci:zstd:v1",
        ],
    )
    .ok();
    home.coracle(&["unpack", "oci:zstd:v1", "again"]).ok();
    assert_eq!(tree(&home.path("again/rootfs")), theirs);
}

/// Proved with directories that get their times before the files in them are made.
#[test]
fn every_kind_of_file_is_as_umoci_makes_it() {
    same_as_umoci(KINDS);
}

/// Proved without whiteouts.
#[test]
fn what_was_changed_layer_by_layer_is_as_umoci_makes_it() {
    same_as_umoci(REPACKED);
}

#[test]
fn a_bundle_runs_under_any_runtime() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    let (home, registry) = (Home::new(), Registry::plain());
    let image = registry.image("app:1");
    home.coracle(&["pull", &home.make_layout(1000)]).ok();
    home.run(
        "umoci",
        &[
            "config",
            "--image",
            "layout:v1",
            "--config.cmd",
            "/bin/sh",
            "--config.cmd",
            "-c",
            "--config.cmd",
            "echo $GREETING; id -u",
        ],
    )
    .ok();
    home.run(
        "skopeo",
        &[
            "copy",
            "--dest-tls-verify=false",
            "oci:layout:v1",
            &format!("docker://{image}"),
        ],
    )
    .ok();
    // It is pulled on the way.
    let other = Home::new();
    other.coracle(&["unpack", &image, "bundle"]).ok();
    assert!(other.coracle(&["images"]).ok().contains("app"));
    for runtime in [runtime().to_str().unwrap(), "runc"] {
        requires!(has_program(runtime), "{runtime} is not installed");
        let id = format!("unpacked-{}", std::process::id());
        let said = other
            .run(
                runtime,
                &["--root", "state", "run", "--bundle", "bundle", &id],
            )
            .ok();
        assert_eq!(said, "hi\n0\n", "{runtime}");
    }
    other
        .coracle(&["unpack", &image, "bundle"])
        .fails_with(1, "exists already");
    other
        .coracle(&["unpack", &registry.image("none:1"), "none"])
        .fails_with(1, "404");
    assert!(!other.path("none").exists());
}

#[test]
fn an_image_without_a_command_is_a_bundle_with_a_shell() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    let home = Home::new();
    let image = home.make_layout(1000);
    let clear = ["config", "--image", "layout:v1", "--clear", "config.cmd"];
    home.run("umoci", &clear).ok();
    home.coracle(&["unpack", &image, "bundle"]).ok();
    let umoci = ["unpack", "--rootless", "--image", "layout:v1", "theirs"];
    home.run("umoci", &umoci).ok();
    for bundle in ["bundle", "theirs"] {
        let config = fs::read(home.path(bundle).join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["process"]["args"], serde_json::json!(["sh"]));
    }
}

#[test]
fn an_ordinary_user_unpacks_with_the_ids_there_are() {
    requires!(
        has_tools() && has_program("setcap") && has_program("getfattr") && has_program("newuidmap"),
        "docker-registry, htpasswd, openssl, skopeo, umoci, setcap, getfattr or newuidmap is not installed"
    );
    requires!(has_capability(SYS_ADMIN), "root makes the user");
    for ids in [Ids::Own, Ids::Ranges] {
        let (home, account) = (Home::new(), Account::new(ids));
        let image = make(&home, KINDS);
        let user = home.path("user");
        fs::create_dir(&user).unwrap();
        account.give(&user);
        shell(&format!(
            "chmod 755 {0} && chmod -R a+rX {0}/layout",
            home.path("").display()
        ));
        let coracle = |args: &[&str]| {
            let mut command = account.command(runtime());
            command
                .args(["--store", "store"])
                .args(args)
                .current_dir(&user);
            home.finish(command)
        };
        coracle(&["pull", "-q", &image]).ok();
        let name = "localhost/layout:v1";
        assert!(coracle(&["images"]).ok().contains("localhost/layout"));
        assert_eq!(user.join("store/layers").read_dir().unwrap().count(), 3);
        coracle(&["unpack", name, "bundle"]).ok();
        let files = tree(&user.join("bundle/rootfs"));
        let facts = |name: &str| &files[Path::new(name)];
        let (uid, gid) = match ids {
            Ids::Own => (Account::ID, Account::ID),
            Ids::Ranges => (account.host_id(1), account.host_id(2)),
        };
        assert_eq!(
            (facts("./setuid").owner, facts("./setuid").mode),
            ((uid, gid), 0o106_755)
        );
        let device = facts("./block");
        assert_eq!(
            (device.mode, device.size),
            (0o100_606, 0),
            "a user has no devices"
        );
        assert_eq!(facts("./becomes-dir/file").content, b"2\n");
        assert!(!files.contains_key(Path::new("./opaque/file")));
        coracle(&["rmi", name]).ok();
        assert_eq!(user.join("store/layers").read_dir().unwrap().count(), 0);
    }
}
