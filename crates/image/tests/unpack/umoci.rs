//! The hostile and the malformed layers, by umoci as well: both refuse a layer, both make the same of it, or the difference has a name.
//! Neither touches what is outside.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::Digest;
use serde_json::{Value, json};

use crate::Test;
use crate::corpus::{Place, Row, broken, hostile};
use crate::tar::layer;

pub(crate) const TESTS: &[Test] = &[("hostile_layers_become_what_umoci_makes_of_them", compare)];

/// What is known of each file below a directory. Not the times of directories, which not every layer names (see `runtime-tests/tests/images`).
type Tree = BTreeMap<PathBuf, String>;

/// One that has removed itself is empty.
fn tree(root: &Path) -> Tree {
    let mut files = Tree::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let Ok(stat) = path.symlink_metadata() else {
            continue;
        };
        let owned = format!("{:o} {}:{}", stat.mode(), stat.uid(), stat.gid());
        let facts = if stat.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            paths.extend(entries.map(|entry| entry.expect("an entry").path()));
            owned
        } else {
            let content = match stat.mode() & libc::S_IFMT {
                libc::S_IFREG => fs::read(&path).expect("a file"),
                libc::S_IFLNK => fs::read_link(&path)
                    .expect("a link")
                    .into_os_string()
                    .into_vec(),
                _ => Vec::new(),
            };
            let content = String::from_utf8_lossy(&content);
            let (links, device, time) = (stat.nlink(), stat.rdev(), stat.mtime());
            format!("{owned} {links} {device} {time} {content:?}")
        };
        let name = path.strip_prefix(root).expect("below").to_owned();
        files.insert(name, facts);
    }
    files
}

/// An OCI layout of these layers, with the tag `v1`.
fn layout(path: &Path, layers: &[Vec<u8>]) {
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory");
    let put = |kind: &str, content: &[u8]| -> Value {
        let digest = Digest::of(content).to_string();
        let name = digest.strip_prefix("sha256:").expect("sha256");
        fs::write(blobs.join(name), content).expect("a blob");
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": content.len() })
    };
    let put_json = |kind: &str, value: Value| put(kind, value.to_string().as_bytes());
    let digests: Vec<_> = layers
        .iter()
        .map(|content| Digest::of(content).to_string())
        .collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": digests },
    });
    let config = put_json("config.v1+json", config);
    let layers: Vec<_> = layers
        .iter()
        .map(|content| put("layer.v1.tar", content))
        .collect();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let mut manifest = put_json("manifest.v1+json", manifest);
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(path.join("index.json"), index.to_string()).expect("an index");
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a layout");
}

/// Unpacks by umoci, which sees the machine's files read-only but for those in `place`. What it says when it refuses.
fn unpack(place: &Path, layout: &Path, root: &Path) -> Result<(), String> {
    let script = "mount --bind $0 $0 && mount -o remount,bind,ro / && exec umoci raw unpack --image $1:v1 $2";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .args([place, layout, root])
        .output()
        .expect("unshare starts");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What may be different, and why. Nothing else is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// An entry below a link that leads nowhere within the root is refused; umoci makes the directories that the link names, within it.
    LinkToNowhere,
    /// Below a link of a lower layer there is a directory in the link's place, as over an overlay; umoci goes by the link.
    LinkOfALowerLayer,
    /// A directory with a whiteout and nothing else is there, as over an overlay; umoci does not make it.
    OnlyAWhiteout,
    /// `.wh..` and `.wh...` are whiteouts of nothing; umoci removes the directory itself, and what that one is in.
    WhiteoutOfADirectory,
    /// umoci cuts an id off to 32 bits, so that 4294967296 is root, or keeps its own for 4294967295.
    IdOfNobody,
}

/// None when both refuse, or make the same.
fn difference(
    row: &str,
    ours: &Result<Tree, String>,
    theirs: &Result<Tree, String>,
) -> Option<Difference> {
    use Difference::*;
    let way = |tree: &Tree, kind: u32| {
        let kind = format!("{kind:o}");
        tree.iter()
            .any(|(path, facts)| path.ends_with("way") && facts.starts_with(&kind))
    };
    let is_dir = |tree| way(tree, libc::S_IFDIR >> 12);
    let is_link = |tree| way(tree, libc::S_IFLNK >> 12);
    match (ours, theirs) {
        (Err(_), Err(_)) => None,
        (Ok(ours), Ok(theirs)) if ours == theirs => None,
        (Err(ours), Ok(theirs)) if ours.ends_with("way is not a directory") && is_link(theirs) => {
            Some(LinkToNowhere)
        }
        (Ok(ours), Ok(theirs)) if is_dir(ours) && is_link(theirs) => Some(LinkOfALowerLayer),
        (Ok(ours), Err(theirs)) if is_dir(ours) && theirs.contains("too many levels") => {
            Some(LinkOfALowerLayer)
        }
        (Ok(ours), Ok(theirs)) => {
            let mut ours = ours.clone();
            let was_there = ours.remove(Path::new("canary")).is_some();
            assert!(
                was_there && ours == *theirs,
                "{row}: {ours:?}, and umoci's {theirs:?}"
            );
            Some(OnlyAWhiteout)
        }
        (Err(ours), Ok(_)) if ours.ends_with("a whiteout of nothing") => Some(WhiteoutOfADirectory),
        (Err(ours), Ok(_)) if ours.contains("tar header: uid 42") || ours.ends_with("gid -1") => {
            Some(IdOfNobody)
        }
        _ => panic!("{row}: {ours:?}, and umoci: {theirs:?}"),
    }
}

/// Proved with directories that keep the unpacker's ids, and the counts by taking 4294967295 as an id.
fn compare() {
    let program = |name: &str| Command::new(name).arg("--version").output().is_ok();
    if !nix::unistd::geteuid().is_root() || !program("umoci") || !program("unshare") {
        return println!("skipped: umoci is not installed, or this is not root");
    }
    let mut rows = hostile();
    for (row, content) in broken() {
        rows.push((row.to_owned(), Box::new(move |_| vec![content.clone()])));
    }
    let mut counts = BTreeMap::new();
    // Most of the time they wait for the disk.
    std::thread::scope(|scope| {
        let parts = rows.chunks(rows.len().div_ceil(6));
        let threads: Vec<_> = parts
            .map(|rows| scope.spawn(|| rows.iter().filter_map(one).collect::<Vec<_>>()))
            .collect();
        for difference in threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
        {
            *counts.entry(difference).or_insert(0) += 1;
        }
    });
    println!("{} rows: {counts:?}", rows.len());
    let expected = [
        (Difference::LinkToNowhere, 108),
        (Difference::LinkOfALowerLayer, 120),
        (Difference::OnlyAWhiteout, 12),
        (Difference::WhiteoutOfADirectory, 2),
        (Difference::IdOfNobody, 3),
    ];
    assert_eq!(
        counts,
        BTreeMap::from(expected),
        "how many rows differ in which way"
    );
}

/// A row by both, each of which has to stay inside.
fn one((row, layers): &Row) -> Option<Difference> {
    let place = Place::new();
    let layers = layers(&place.canary());
    let path = |name: &str| place.dir.path().join(name);
    let blobs = layers.iter().map(|content| layer(content)).collect();
    let ours = image::unpack::rootfs(&path("bundle"), blobs).map(|()| tree(&path("bundle/rootfs")));
    layout(&path("store/layout"), &layers);
    let theirs = unpack(
        place.dir.path(),
        &path("store/layout"),
        &path("store/theirs"),
    );
    place.check(row);
    let theirs = theirs.map(|()| tree(&path("store/theirs")));
    difference(row, &ours.map_err(|error| error.to_string()), &theirs)
}
