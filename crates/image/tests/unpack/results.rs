//! What becomes of layers that are right.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;

use image::{Descriptor, Digest, Event, Progress, PullOptions, Source, Store, media_type};
use serde_json::json;

use crate::Test;
use crate::corpus::gzip;
use crate::tar::{Header, Tar, blob, layer};

pub(crate) const TESTS: &[Test] = &[
    ("layers_lie_upon_each_other", upon_each_other),
    ("metadata_survives", metadata),
    ("sparse_files_have_holes", sparse),
    ("every_compression_is_found_out", compression),
    ("all_readers_see_the_same_entries", sizes),
    ("an_archive_without_an_end_is_whole", unended),
    ("overlay_layers_have_whiteouts", overlay),
    ("a_killed_unpackers_remains_go", remains),
    ("unused_layers_go", unused),
    ("a_pull_tells_what_is_unpacked", told),
];

/// The tree of layers in a plain bundle, looked at by `look`.
fn unpack(layers: &[Tar], look: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().expect("a directory");
    let layers = layers.iter().map(|tar| layer(&tar.clone().end())).collect();
    image::unpack::rootfs(dir.path(), layers).expect("a tree");
    look(&dir.path().join("rootfs"));
}

/// Every path below, with the content of files and the target of links.
fn list(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let stat = path.symlink_metadata().expect("a file");
            let name = path
                .strip_prefix(root)
                .expect("below")
                .display()
                .to_string();
            found.push(if stat.is_dir() {
                directories.push(path);
                format!("{name}/")
            } else if stat.is_symlink() {
                format!(
                    "{name} -> {}",
                    fs::read_link(path).expect("a link").display()
                )
            } else if stat.is_file() {
                format!("{name}={}", fs::read_to_string(path).expect("text"))
            } else {
                format!("{name}?")
            });
        }
    }
    found.sort();
    found
}

fn upon_each_other() {
    let tar = Tar::new;
    let base = || {
        tar()
            .dir("d")
            .file("d/a", b"1")
            .file("d/b", b"1")
            .dir("d/s")
            .file("d/s/x", b"1")
    };
    let rows: Vec<(&str, Vec<Tar>, &[&str])> = vec![
        (
            "whiteout",
            vec![base(), tar().file("d/.wh.a", b"")],
            &["d/", "d/b=1", "d/s/", "d/s/x=1"],
        ),
        (
            "whiteout of a directory",
            vec![base(), tar().file("d/.wh.s", b"")],
            &["d/", "d/a=1", "d/b=1"],
        ),
        (
            "whiteout before its replacement",
            vec![base(), tar().file("d/.wh.a", b"").file("d/a", b"2")],
            &["d/", "d/a=2", "d/b=1", "d/s/", "d/s/x=1"],
        ),
        (
            "whiteout behind its replacement",
            vec![base(), tar().file("d/a", b"2").file("d/.wh.a", b"")],
            &["d/", "d/a=2", "d/b=1", "d/s/", "d/s/x=1"],
        ),
        (
            "whiteout of a directory that is made again",
            vec![
                base(),
                tar().dir("d/s").file("d/s/y", b"2").file("d/.wh.s", b""),
            ],
            &["d/", "d/a=1", "d/b=1", "d/s/", "d/s/y=2"],
        ),
        (
            "opaque first",
            vec![base(), tar().file("d/.wh..wh..opq", b"").file("d/c", b"2")],
            &["d/", "d/c=2"],
        ),
        (
            "opaque last",
            vec![base(), tar().file("d/c", b"2").file("d/.wh..wh..opq", b"")],
            &["d/", "d/c=2"],
        ),
        (
            "whiteout of nothing",
            vec![base(), tar().file(".wh.x", b"")],
            &["d/", "d/a=1", "d/b=1", "d/s/", "d/s/x=1"],
        ),
        (
            "aufs",
            vec![tar().file(".wh..wh.aufs", b"").file("a", b"1")],
            &["a=1"],
        ),
        (
            "file over a directory",
            vec![base(), tar().file("d", b"2")],
            &["d=2"],
        ),
        (
            "directory over a file",
            vec![tar().file("a", b"1"), tar().dir("a").file("a/b", b"2")],
            &["a/", "a/b=2"],
        ),
        (
            "directory over a link",
            vec![
                tar().dir("x").symlink("a", "x"),
                tar().dir("a").file("a/b", b"2"),
            ],
            &["a/", "a/b=2", "x/"],
        ),
        (
            "file through a link below",
            vec![
                tar().dir("usr/bin").symlink("bin", "usr/bin"),
                tar().file("bin/sh", b"2"),
            ],
            &["bin -> usr/bin", "usr/", "usr/bin/", "usr/bin/sh=2"],
        ),
        (
            "file through an absolute link",
            vec![tar().dir("usr").symlink("a", "/usr").file("a/b", b"1")],
            &["a -> /usr", "usr/", "usr/b=1"],
        ),
        (
            "later duplicates",
            vec![
                tar()
                    .file("a", b"1")
                    .symlink("a", "x")
                    .dir("a")
                    .file("a", b"2")
                    .file("a", b"3"),
            ],
            &["a=3"],
        ),
        (
            "hard link below",
            vec![tar().file("a", b"1"), tar().hardlink("b", "a")],
            &["a=1", "b=1"],
        ),
        (
            "hard link to itself",
            vec![tar().file("a", b"1").hardlink("a", "./a")],
            &["a=1"],
        ),
        (
            "hard link to a link",
            vec![tar().symlink("a", "nowhere").hardlink("b", "a")],
            &["a -> nowhere", "b -> nowhere"],
        ),
        (
            "names",
            vec![
                tar()
                    .file("./a//b", b"1")
                    .file("/c", b"2")
                    .file("../e", b"3"),
            ],
            &["a/", "a/b=1", "c=2", "e=3"],
        ),
        ("nothing", vec![tar()], &[]),
    ];
    for (row, layers, wanted) in rows {
        unpack(&layers, |root| assert_eq!(list(root), wanted, "{row}"));
    }
}

fn metadata() {
    let header = |kind, path, mode| Header {
        mode,
        ..Header::new(kind, path)
    };
    let tar = Tar::new()
        .header(&Header {
            uid: 7,
            ..header(b'5', b"d", 0o1777)
        })
        .pax(&[
            ("mtime", b"1000000000.123456789"),
            ("SCHILY.xattr.user.note", b"a\nb\0c"),
        ])
        .header(&Header {
            uid: 5,
            ..header(b'0', b"d/setuid", 0o6755)
        })
        .header(&header(b'0', b"d/closed", 0))
        .header(&header(b'6', b"d/fifo", 0o600))
        .header(&Header {
            device: (1, 0o3),
            ..header(b'3', b"d/null", 0o666)
        })
        .pax(&[("mtime", b"-0.5")])
        .symlink("d/link", "x")
        .hardlink("d/twin", "d/setuid");
    let upper = Tar::new().file("d/late", b"");
    unpack(&[tar, upper], |root| {
        let stat = |name: &str| root.join(name).symlink_metadata().expect(name);
        let directory = stat("d");
        // Its time holds although a later layer has put something in.
        assert_eq!(
            (
                directory.mode() & 0o7777,
                directory.uid(),
                directory.mtime()
            ),
            (0o1777, 7, 0o7500000000)
        );
        let setuid = stat("d/setuid");
        assert_eq!(
            (setuid.mode() & 0o7777, setuid.uid(), setuid.nlink()),
            (0o6755, 5, 2)
        );
        assert_eq!(
            (setuid.mtime(), setuid.mtime_nsec()),
            (1_000_000_000, 123_456_789)
        );
        assert_eq!(stat("d/twin").ino(), setuid.ino());
        assert_eq!(stat("d/closed").mode() & 0o7777, 0);
        assert!(stat("d/fifo").file_type().is_fifo());
        let null = stat("d/null");
        assert!(null.file_type().is_char_device() && null.rdev() == nix::sys::stat::makedev(1, 3));
        let link = stat("d/link");
        assert_eq!((link.mtime(), link.mtime_nsec()), (-1, 500_000_000));
    });
}

fn sparse() {
    let data = [&[b'a'; 512][..], &[b'b'; 512]].concat();
    let map = [
        ("GNU.sparse.map", &b"4096,512,1048576,512"[..]),
        ("GNU.sparse.size", b"2000000"),
        ("GNU.sparse.name", b"file"),
    ];
    let first = Tar::new().pax(&map).file("x", &data);
    let version = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"file"),
        ("GNU.sparse.realsize", b"2000000"),
    ];
    let mut block = b"2\n4096\n512\n1048576\n512\n".to_vec();
    block.resize(512, 0);
    let second = Tar::new().pax(&version).file("x", &[block, data].concat());
    for tar in [first, second] {
        unpack(&[tar.file("next", b"n")], |root| {
            let content = fs::read(root.join("file")).expect("a file");
            assert_eq!(content.len(), 2_000_000);
            assert_eq!(
                (
                    content[4096],
                    content[4607],
                    content[4608],
                    content[1_048_576]
                ),
                (b'a', b'a', 0, b'b')
            );
            assert!(root.join("file").metadata().expect("a file").blocks() * 512 < 100_000);
            assert_eq!(fs::read(root.join("next")).expect("a file"), b"n");
        });
    }
}

fn compression() {
    let content = Tar::new().file("a", &[b'x'; 300_000]).end();
    let (left, right) = content.split_at(1000);
    let rows = [
        ("none", content.clone()),
        ("gzip", gzip(&content)),
        ("gzip members", [gzip(left), gzip(right)].concat()),
        ("gzip and zeros", [gzip(&content), vec![0; 100]].concat()),
    ];
    for (row, compressed) in rows {
        let dir = tempfile::tempdir().expect("a directory");
        let result = image::unpack::rootfs(dir.path(), vec![blob(&compressed, &content)]);
        assert!(result.is_ok(), "{row}: {result:?}");
        let size = dir
            .path()
            .join("rootfs/a")
            .metadata()
            .expect("a file")
            .len();
        assert_eq!(size, 300_000, "{row}");
    }
}

/// A size that stands twice, or where none belongs, hides no entry from us that Go's reader sees, and shows none that it does not
/// (CVE-2025-62518, CVE-2026-33056): a scanner has read the same files.
/// CVE-2025-62518, CVE-2026-33056. Proved with data behind every kind of entry.
fn sizes() {
    let inner = Tar::new().file("inner", b"x").0;
    let header = |kind, size| Header {
        size,
        link: b"b",
        ..Header::new(kind, b"a")
    };
    let length = inner.len() as u64;
    let rows: &[(&str, u8, u64, &[&str])] = &[
        ("1024", b'0', 0, &["a", "b"]),
        ("0", b'0', length, &["a", "b", "inner"]),
        ("", b'0', length, &["a", "b"]),
        ("", b'2', length, &["a", "b", "inner"]),
        ("1024", b'2', length, &["a", "b", "inner"]),
        ("1024", b'5', 0, &["a", "b", "inner"]),
    ];
    for (record, kind, size, wanted) in rows {
        let tar = match *record {
            "" => Tar::new(),
            record => Tar::new().pax(&[("size", record.as_bytes())]),
        };
        let tar = tar
            .header(&header(*kind, *size))
            .data(&inner)
            .file("b", b"");
        unpack(&[tar], |root| {
            let names = list(root).into_iter().map(|line| {
                line.split(['=', ' ', '/'])
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            });
            assert_eq!(Vec::from_iter(names), *wanted, "{record} {size}");
        });
    }
}

/// Archives that simply stop, after the last entry's data or its padding, are whole (umoci writes such).
fn unended() {
    let tar = Tar::new().file("a", b"x");
    for length in [tar.0.len(), tar.0.len() - 511] {
        unpack_bytes(&tar.0[..length], |root| assert_eq!(list(root), ["a=x"]));
    }
}

fn unpack_bytes(content: &[u8], look: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().expect("a directory");
    image::unpack::rootfs(dir.path(), vec![layer(content)]).expect("a tree");
    look(&dir.path().join("rootfs"));
}

/// Each layer by itself, as overlayfs shows it above another one.
fn overlay() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: mounting needs root");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let make = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).expect("a directory");
        path
    };
    let lower = Tar::new()
        .dir("d")
        .file("d/a", b"1")
        .dir("s")
        .file("s/x", b"1")
        .dir("t")
        .file("t/x", b"1");
    let upper = Tar::new()
        .file("d/.wh.a", b"")
        .file("d/b", b"2")
        .file("s/.wh..wh..opq", b"")
        .file(".wh.t", b"")
        .dir("t")
        .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .dir("e");
    let store = make("store");
    let layers = || vec![layer(&lower.clone().end()), layer(&upper.clone().end())];
    let paths = image::layers::ensure(&store, layers()).expect("layers");
    assert_eq!(
        image::layers::ensure(&store, layers()).expect("layers"),
        paths
    );
    let (target, top, work) = (make("target"), make("upper"), make("work"));
    let mounted = image::layers::mount(&paths, &top, &work, &target, false);
    let found = mounted.map(|()| {
        let found = list(&target);
        nix::mount::umount(&target).expect("unmounted");
        found
    });
    assert_eq!(found.expect("a mount"), ["d/", "d/b=2", "e/", "s/", "t/"]);
    let removed = image::layers::remove_unused(&store, &[layers()[0].diff_id.clone()].into())
        .expect("removed");
    assert_eq!(removed, [layers()[1].diff_id.clone()]);
    assert_eq!(
        fs::read_dir(store.join("layers")).expect("layers").count(),
        1
    );
}

/// What lies under a name that nobody holds the lock of goes before the layer is made.
fn remains() {
    let dir = tempfile::tempdir().expect("a directory");
    let content = Tar::new().file("a", b"1").end();
    let diff_id = layer(&content).diff_id;
    let left = dir.path().join(format!("layers/new-{}", diff_id.hex()));
    fs::create_dir_all(left.join("deep/er")).expect("a directory");
    let other = dir.path().join(format!("layers/new-{}", "0".repeat(64)));
    fs::create_dir_all(other.join("x")).expect("a directory");
    let paths = image::layers::ensure(dir.path(), vec![layer(&content)]).expect("layers");
    assert_eq!(list(&paths[0]), ["a=1"]);
    image::layers::remove_unused(dir.path(), &[diff_id].into()).expect("removed");
    assert_eq!(
        fs::read_dir(dir.path().join("layers"))
            .expect("layers")
            .count(),
        1
    );
}

fn unused() {
    let dir = tempfile::tempdir().expect("a directory");
    let [used, unused, deep] = [&b"1"[..], b"2", b"3"].map(|data| {
        let tar = Tar::new().dir("d").file("d/a", data).symlink("d/l", "/etc");
        layer(&tar.end())
    });
    let [kept, ..] = [&used, &unused, &deep].map(|layer| layer.diff_id.clone());
    let removed = [&unused, &deep].map(|layer| layer.diff_id.clone());
    let paths = image::layers::ensure(dir.path(), vec![deep, unused, used]).expect("layers");
    // Deeper than an unpacker may have descriptors, and closed to anybody but root.
    fs::create_dir_all(paths[2].join("d/".repeat(1500))).expect("a directory");
    let closed = Permissions::from_mode(0o000);
    fs::set_permissions(paths[2].join("d"), closed.clone()).expect("a mode");
    fs::set_permissions(&paths[1], closed).expect("a mode");
    let found = image::layers::remove_unused(dir.path(), &[kept].into()).expect("removed");
    assert_eq!(BTreeSet::from_iter(found), removed.into());
    assert_eq!(list(&dir.path().join("layers")).len(), 4);
    assert_eq!(list(&paths[0]), ["d/", "d/a=1", "d/l -> /etc"]);
}

/// What has happened to one blob.
struct Told(Digest, Mutex<Vec<&'static str>>);

impl Progress for Told {
    fn blob(&self, blob: &Descriptor, event: Event<'_>) {
        let word = match event {
            Event::Moved(_) | Event::Retrying(..) => return,
            Event::Exists => "exists",
            Event::Complete => "complete",
            Event::Unpacking => "unpacking",
            Event::Unpacked => "unpacked",
        };
        if blob.digest == self.0 {
            self.1.lock().expect("no panic").push(word);
        }
    }
}

fn told() {
    let dir = tempfile::tempdir().expect("a directory");
    let layout = dir.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).expect("a directory");
    let put = |kind: &str, content: &[u8]| {
        let digest = Digest::of(content);
        let path = layout.join("blobs/sha256").join(digest.hex());
        fs::write(path, content).expect("a file");
        json!({ "mediaType": kind, "digest": digest, "size": content.len() })
    };
    let content = Tar::new().file("a", b"1").end();
    let layer = Digest::of(&content);
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [layer] } });
    let manifest = json!({
        "schemaVersion": 2, "config": put(media_type::CONFIG, config.to_string().as_bytes()),
        "layers": [put(media_type::LAYER, &content)],
    });
    let manifest = put(media_type::MANIFEST, manifest.to_string().as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).expect("a file");
    let store = Store::open(&dir.path().join("store")).expect("a store");
    let source: Source = format!("oci:{}", layout.display())
        .parse()
        .expect("a source");
    for (unpack, events) in [
        (false, &["complete"][..]),
        (true, &["exists", "unpacking", "unpacked"]),
        (true, &["exists", "unpacked"]),
    ] {
        let told = Told(layer.clone(), Mutex::default());
        let options = PullOptions {
            unpack,
            ..PullOptions::default()
        };
        image::pull(&store, &source, &options, &told).expect("an image");
        assert_eq!(*told.1.lock().expect("no panic"), events);
    }
}
