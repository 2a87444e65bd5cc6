//! Hostile layers: whatever stands in them, nothing outside of the bundle changes, and there is a whole tree or none (CVE-2021-29136,
//! CVE-2021-32760, CVE-2025-47290, RUSTSEC-2026-0112, RUSTSEC-2026-0113).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use image::unpack::{self, Layer};

use crate::Test;
use crate::tar::{Header, Tar, blob, layer, seal};

/// The row in which the tree changes meanwhile.
const RACED: &str = "raced";

pub(crate) const TESTS: &[Test] = &[
    ("hostile_layers_stay_inside", stay_inside),
    ("malformed_layers_are_refused", malformed),
    ("a_changing_tree_leads_nowhere", raced),
    ("a_bomb_is_bounded_by_the_disk", disk_full),
];

/// A place for one row: what lies beside the bundle must be the same afterwards.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    before: Vec<String>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let canary = dir.path().join("canary");
        fs::create_dir_all(canary.join("sub")).expect("a directory");
        fs::create_dir(dir.path().join("bundle")).expect("a directory");
        fs::create_dir(dir.path().join("store")).expect("a directory");
        fs::write(canary.join("secret"), "untouched").expect("a file");
        fs::write(canary.join("sub/file"), "untouched").expect("a file");
        let before = fingerprint(&canary);
        Place { dir, before }
    }

    pub(crate) fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    pub(crate) fn check(&self, row: &str) {
        assert_eq!(
            fingerprint(&self.canary()),
            self.before,
            "{row}: outside was touched"
        );
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["bundle", "canary", "store"], "{row}");
    }

    /// Both forms: a plain bundle, and layers of overlayfs. What fails leaves nothing, unless somebody works against the clean-up too.
    fn unpack(&self, row: &str, layers: &[Vec<u8>]) -> [Result<(), image::Error>; 2] {
        let layers = || -> Vec<Layer> { layers.iter().map(|content| layer(content)).collect() };
        let bundle = self.dir.path().join("bundle");
        let plain = unpack::rootfs(&bundle, layers());
        self.check(row);
        let count = fs::read_dir(&bundle).expect("the bundle").count();
        assert!(
            count == usize::from(plain.is_ok()) || row == RACED,
            "{row}: remains in the bundle"
        );
        let store = self.dir.path().join("store");
        let overlay = image::layers::ensure(&store, layers()).map(drop);
        self.check(row);
        if overlay.is_err() {
            let count = fs::read_dir(store.join("layers")).expect("layers").count();
            assert!(count == 0 || row == RACED, "{row}: remains in the store");
        }
        for result in [&plain, &overlay] {
            if let Err(error) = result {
                let text = error.to_string();
                assert!(
                    !text.contains("killed") && text.lines().count() == 1,
                    "{row}: {text}"
                );
            }
        }
        [plain, overlay]
    }
}

/// Everything that could change.
fn fingerprint(path: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut directories = vec![path.to_owned()];
    while let Some(path) = directories.pop() {
        let stat = path.symlink_metadata().expect("a file");
        let content = fs::read(&path).unwrap_or_default();
        lines.push(format!(
            "{path:?} {:o} {} {} {} {}.{} {content:?}",
            stat.mode(),
            stat.uid(),
            stat.ino(),
            stat.nlink(),
            stat.mtime(),
            stat.ctime_nsec(),
        ));
        if stat.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            directories.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
    }
    lines.sort();
    lines
}

/// A way that seems to lead out: a layer that makes `way`, seen from the canary's directory.
type Escape = (&'static str, fn(&Path) -> Tar);

const ESCAPES: &[Escape] = &[
    ("absolute", |out| Tar::new().symlink("way", out)),
    ("relative", |out| Tar::new().symlink("way", climb(out))),
    ("chain", |out| {
        Tar::new().symlink("a", climb(out)).symlink("way", "a")
    }),
    ("nested", |out| {
        let deep = Path::new("../..").join(climb(out));
        Tar::new()
            .dir("d")
            .dir("d/e")
            .symlink("d/e/f", deep)
            .symlink("way", "d/e/f")
    }),
    ("root", |out| {
        Tar::new().symlink("r", "/").symlink(
            "way",
            Path::new("r").join(out.strip_prefix("/").expect("absolute")),
        )
    }),
    ("parents", |out| {
        Tar::new()
            .symlink("up", "..")
            .symlink("way", Path::new("up/../up").join(climb(out)))
    }),
    ("proc", |_| Tar::new().symlink("way", "/proc/self/cwd")),
    ("descriptor", |_| {
        Tar::new().symlink("way", "/proc/self/fd/1/..")
    }),
    ("loop", |_| {
        Tar::new().symlink("way", "back").symlink("back", "way")
    }),
    ("hardlink", |out| Tar::new().hardlink("way", out)),
    ("linked link", |out| {
        Tar::new().symlink("a", out).hardlink("way", "a")
    }),
    ("slash", |out| Tar::new().symlink("way", out).dir("way/")),
];

/// What goes by the way.
type Deed = (&'static str, fn(Tar) -> Tar);

const DEEDS: &[Deed] = &[
    ("file", |tar| tar.file("way/new", b"x")),
    ("overwrite", |tar| tar.file("way/secret", b"x")),
    ("directory", |tar| tar.dir("way/sub")),
    ("symlink", |tar| tar.symlink("way/new", "x")),
    ("link there", |tar| {
        tar.file("x", b"").hardlink("way/new", "x")
    }),
    ("link from there", |tar| {
        tar.hardlink("x", "way/secret").file("x", b"gone")
    }),
    ("fifo", |tar| tar.of(b'6', "way/new")),
    ("device", |tar| tar.of(b'3', "way/new")),
    ("whiteout", |tar| tar.file("way/.wh.secret", b"")),
    ("opaque", |tar| tar.file("way/.wh..wh..opq", b"")),
    ("mode", |tar| {
        tar.header(&Header {
            mode: 0o777,
            uid: 77,
            ..Header::new(b'5', b"way")
        })
    }),
    ("attribute", |tar| {
        tar.pax(&[("SCHILY.xattr.user.x", b"y")]).dir("way/sub")
    }),
    ("deep", |tar| tar.file("way/a/b/c/d", b"x")),
    ("dots", |tar| tar.file("way/../way/./new", b"x")),
];

fn climb(out: &Path) -> PathBuf {
    Path::new("../../../../../../../../../../..").join(out.strip_prefix("/").expect("absolute"))
}

/// A row of the corpus: its name, and the layers that would do harm to a canary in this directory.
pub(crate) type Row = (String, Box<dyn Fn(&Path) -> Vec<Vec<u8>> + Sync>);

/// The hostile corpus.
pub(crate) fn hostile() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (escape, way) in ESCAPES {
        for (deed, act) in DEEDS {
            rows.push((
                format!("{escape}, {deed}"),
                Box::new(|canary| vec![act(way(canary)).end()]),
            ));
            rows.push((
                format!("{escape}, {deed}, in another layer"),
                Box::new(|canary| vec![way(canary).end(), act(Tar::new()).end()]),
            ));
        }
    }
    // Names that lead out by themselves.
    for name in [
        "../canary",
        "../../canary",
        "/canary",
        "a/../../canary",
        "./.././canary",
        "//canary",
        "..",
        "a/../..",
    ] {
        for (deed, act) in DEEDS {
            let layer = move |_: &Path| {
                let mut tar = act(Tar::new());
                rename(&mut tar, name);
                vec![tar.end()]
            };
            rows.push((format!("{name}, {deed}"), Box::new(layer)));
        }
    }
    rows
}

/// Two layers, each of which is enough: proved without `RESOLVE_IN_ROOT` and without the jail.
fn stay_inside() {
    let rows = hostile();
    assert!(rows.len() >= 400, "{} rows", rows.len());
    for (row, layers) in rows {
        let place = Place::new();
        let _either = place.unpack(&row, &layers(&place.canary()));
    }
}

/// Where below a directory a layer's `d` and `way` are, at most five levels down.
fn find_both(directory: &Path, levels: usize) -> Option<PathBuf> {
    if directory.join("way").symlink_metadata().is_ok()
        && directory.join("d").symlink_metadata().is_ok()
    {
        return Some(directory.to_owned());
    }
    let deeper = levels.checked_sub(1)?;
    let entries = fs::read_dir(directory).ok()?.flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|entry| find_both(&entry.path(), deeper))
}

/// Somebody exchanges a directory for a link that leads out, while it is filled: 5,000 times.
fn raced() {
    let ended = AtomicBool::new(false);
    let swaps = AtomicUsize::new(0);
    while swaps.load(Ordering::Relaxed) < 5000 {
        let place = Place::new();
        let mut tar = Tar::new().dir("d").symlink("way", place.canary());
        for n in 0..500 {
            tar = tar
                .file(&format!("d/new-{n}/x"), b"x")
                .file("d/secret", b"x")
                .dir("d/sub");
            tar = tar
                .hardlink(&format!("d/link-{n}"), "d/secret")
                .file("d/.wh.sub", b"");
        }
        ended.store(false, Ordering::Relaxed);
        let race = || {
            while !ended.load(Ordering::Relaxed) {
                let Some(found) = find_both(place.dir.path(), 5) else {
                    continue;
                };
                let (one, other) = (found.join("d"), found.join("way"));
                let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                let at = nix::fcntl::AT_FDCWD;
                while !ended.load(Ordering::Relaxed)
                    && nix::fcntl::renameat2(at, &one, at, &other, flags).is_ok()
                {
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(race);
            let result = catch_unwind(AssertUnwindSafe(|| place.unpack(RACED, &[tar.end()])));
            ended.store(true, Ordering::Relaxed);
            let _either = result.unwrap_or_else(|panic| resume_unwind(panic));
        });
    }
}

/// Puts `name` in front of every path, in place of `way`.
fn rename(tar: &mut Tar, name: &str) {
    for block in tar.0.chunks_exact_mut(512) {
        let block: &mut [u8; 512] = block.try_into().expect("a block");
        if &block[257..262] == b"ustar" && block.starts_with(b"way") {
            let mut path = [name.as_bytes(), &block[3..100]].concat();
            path.resize(100, 0);
            block[..100].copy_from_slice(&path);
            seal(block);
        }
    }
}

/// Layers of which nothing may become a tree.
pub(crate) fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let huge = "x/".repeat(3000);
    let file = |size: u64| Header {
        size,
        ..Header::new(b'0', b"a")
    };
    let pax = |text: &[u8]| Tar::new().raw_pax(text).file("a", b"").end();
    let sparse = |map: &str, size: &str, data: &[u8]| {
        let records = [
            ("GNU.sparse.map", map.as_bytes()),
            ("GNU.sparse.size", size.as_bytes()),
        ];
        Tar::new().pax(&records).file("a", data).end()
    };
    let mut bad_checksum = Tar::new().file("a", b"x").end();
    bad_checksum[0] = b'b';
    let mut not_a_number = Header::new(b'0', b"a");
    not_a_number.link = b"";
    let mut letters = Tar::new().header(&not_a_number).0;
    letters[124..135].copy_from_slice(b"zzzzzzzzzzz");
    seal((&mut letters[..512]).try_into().expect("a block"));
    let mut negative = Tar::new().header(&not_a_number).0;
    negative[124..136].copy_from_slice(&[0xff; 12]);
    seal((&mut negative[..512]).try_into().expect("a block"));
    vec![
        ("root as a link", Tar::new().symlink("/", "/etc").end()),
        ("root as a file", Tar::new().file("./", b"x").end()),
        ("root as a device", Tar::new().of(b'3', ".").end()),
        ("root by dots", Tar::new().symlink("a/..", "/etc").end()),
        ("bare whiteout", Tar::new().file(".wh.", b"").end()),
        ("whiteout of here", Tar::new().file("a/.wh..", b"").end()),
        ("whiteout of above", Tar::new().file("a/.wh...", b"").end()),
        ("unknown type", Tar::new().of(b'Z', "a").end()),
        ("link to nothing", Tar::new().symlink("a", "").end()),
        ("hard link to nothing", Tar::new().hardlink("a", "b").end()),
        (
            "hard link to a directory",
            Tar::new().dir("b").hardlink("a", "b").end(),
        ),
        ("hard link to the root", Tar::new().hardlink("a", "/").end()),
        (
            "file as a directory",
            Tar::new().file("a", b"").file("a/b", b"").end(),
        ),
        (
            "long component",
            Tar::new()
                .pax(&[("path", &[b'x'; 300])])
                .file("a", b"")
                .end(),
        ),
        (
            "long path",
            Tar::new()
                .pax(&[("path", huge.as_bytes())])
                .file("a", b"")
                .end(),
        ),
        (
            "NUL in a name",
            Tar::new().pax(&[("path", b"a\0b")]).file("a", b"").end(),
        ),
        (
            "NUL in a link",
            Tar::new()
                .pax(&[("linkpath", b"a\0b")])
                .symlink("a", "b")
                .end(),
        ),
        ("checksum", bad_checksum),
        ("letters for a size", letters),
        ("negative size", negative),
        (
            "PAX size of letters",
            Tar::new().pax(&[("size", b"x")]).file("a", b"").end(),
        ),
        (
            "negative PAX size",
            Tar::new().pax(&[("size", b"-1")]).file("a", b"").end(),
        ),
        (
            "huge PAX size",
            Tar::new()
                .pax(&[("size", b"9223372036854775807")])
                .file("a", b"")
                .end(),
        ),
        (
            "overflowing PAX size",
            Tar::new()
                .pax(&[("size", b"99999999999999999999")])
                .file("a", b"")
                .end(),
        ),
        (
            "uid too large",
            Tar::new()
                .pax(&[("uid", b"4294967296")])
                .file("a", b"")
                .end(),
        ),
        (
            "uid of nobody at all",
            Tar::new()
                .pax(&[("uid", b"4294967295")])
                .file("a", b"")
                .end(),
        ),
        (
            "negative gid",
            Tar::new().pax(&[("gid", b"-1")]).file("a", b"").end(),
        ),
        (
            "time of letters",
            Tar::new().pax(&[("mtime", b"now")]).file("a", b"").end(),
        ),
        ("record without length", pax(b"path=b\n")),
        ("record too long", pax(b"99 path=b\n")),
        ("record too short", pax(b"3 path=b\n")),
        ("record of no length", pax(b"0 path=b\n")),
        ("record without a newline", pax(b"9 path=bc")),
        ("record without a name", pax(b"5 =b\n")),
        ("record without a value", pax(b"8 path\n\n")),
        ("negative record", pax(b"-9 path=b\n")),
        ("sparse out of order", sparse("512,1,0,1", "1024", b"xy")),
        ("sparse overlap", sparse("0,2,1,1", "1024", b"xyz")),
        ("sparse beyond the end", sparse("1024,1", "1024", b"x")),
        (
            "sparse overflow",
            sparse(
                "9223372036854775807,9223372036854775807",
                "9223372036854775807",
                b"x",
            ),
        ),
        ("sparse with too little", sparse("0,2", "1024", b"x")),
        ("sparse with half a piece", sparse("0", "1024", b"")),
        ("sparse of letters", sparse("a,b", "1024", b"x")),
        (
            "sparse without a size",
            Tar::new()
                .pax(&[("GNU.sparse.map", b"0,1")])
                .file("a", b"x")
                .end(),
        ),
        (
            "sparse 1.0 without an end",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.realsize", b"9"),
                ])
                .file("a", &[b'1'; 512])
                .end(),
        ),
        (
            "records of a gigabyte",
            Tar::new()
                .header(&Header {
                    size: 1 << 30,
                    ..Header::new(b'x', b"a")
                })
                .end(),
        ),
        (
            "name of a gigabyte",
            Tar::new()
                .header(&Header {
                    size: 1 << 30,
                    ..Header::new(b'L', b"a")
                })
                .end(),
        ),
        (
            "size beyond the end",
            Tar::new().header(&file(1 << 20)).data(b"x").end(),
        ),
        (
            "size beyond everything",
            Tar::new().header(&file(0o77777777777)).end(),
        ),
        (
            "cut in a header",
            Tar::new().file("a", b"x").end()[..300].to_vec(),
        ),
        (
            "cut in the data",
            Tar::new().file("a", &[b'x'; 4096]).end()[..2000].to_vec(),
        ),
        (
            "garbage",
            b"no archive at all, but long enough to be taken for a header of one".repeat(20),
        ),
        ("xz", [&b"\xfd7zXZ\0\0\x04"[..], &[7; 1024]].concat()),
        (
            "attribute without a name",
            Tar::new()
                .pax(&[("SCHILY.xattr.", b"x")])
                .file("a", b"")
                .end(),
        ),
        (
            "attribute too large",
            Tar::new()
                .pax(&[("SCHILY.xattr.user.x", &[b'x'; 70_000])])
                .file("a", b"")
                .end(),
        ),
        (
            "device numbers",
            Tar::new()
                .header(&Header {
                    device: (0o7777777, 0o7777777),
                    ..Header::new(b'3', b"a")
                })
                .pax(&[("gid", b"x")])
                .file("b", b"")
                .end(),
        ),
    ]
}

/// Proved without the checksum, without the digest, and with what is left in the bundle.
fn malformed() {
    for (row, content) in &broken() {
        let place = Place::new();
        for result in place.unpack(row, std::slice::from_ref(content)) {
            let error = result.expect_err(row);
            assert!(
                matches!(error.kind(), image::Kind::Invalid | image::Kind::Failed),
                "{row}: {error}"
            );
        }
    }
    for (row, compressed, content) in lies() {
        let place = Place::new();
        let bundle = place.dir.path().join("bundle");
        let error = unpack::rootfs(&bundle, vec![blob(&compressed, &content)]).expect_err(row);
        assert_eq!(error.kind(), image::Kind::Invalid, "{row}: {error}");
        place.check(row);
        assert_eq!(
            fs::read_dir(&bundle).expect("the bundle").count(),
            0,
            "{row}"
        );
    }
}

/// Blobs that are not what they say: compressed bytes, and the content whose digest was promised.
fn lies() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let content = Tar::new().file("a", &[b'x'; 10_000]).end();
    let gzip = gzip(&content);
    let mut broken = gzip.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 0xff;
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd][..], &[0xff; 40]].concat();
    vec![
        (
            "another digest",
            content.clone(),
            b"something else".to_vec(),
        ),
        (
            "gzip cut",
            gzip[..gzip.len() - 20].to_vec(),
            content.clone(),
        ),
        ("gzip header only", gzip[..10].to_vec(), content.clone()),
        ("gzip broken", broken, content.clone()),
        ("gzip of nothing", b"\x1f\x8b".to_vec(), content.clone()),
        ("zstd broken", zstd, content.clone()),
        (
            "more behind the end",
            [&content[..], b"more"].concat(),
            content,
        ),
    ]
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(content).expect("memory");
    gzip.finish().expect("memory")
}

/// On a small file system: nothing that looks like a layer or a root file system stays, and memory stays small.
fn disk_full() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: mounting needs root");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let options = Some("size=8m");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, options).expect("a tmpfs");
    let size = 256 << 20;
    let header = Header {
        size,
        ..Header::new(b'0', b"bomb")
    };
    let mut content = Tar::new().header(&header).0;
    content.resize(content.len() + size as usize + 1024, 0);
    let bomb = gzip(&content);
    let (bundle, store) = (dir.path().join("bundle"), dir.path().join("store"));
    fs::create_dir(&bundle)
        .and_then(|()| fs::create_dir(&store))
        .expect("directories");
    let results = [
        unpack::rootfs(&bundle, vec![blob(&bomb, &content)]),
        image::layers::ensure(&store, vec![blob(&bomb, &content)]).map(drop),
    ];
    let left = [
        fs::read_dir(&bundle).expect("the bundle").count(),
        fs::read_dir(store.join("layers")).expect("layers").count(),
    ];
    nix::mount::umount(dir.path()).expect("unmounted");
    for result in results {
        let error = result.expect_err("8 MiB hold no 256").to_string();
        assert!(error.contains("no space left"), "{error}");
    }
    assert_eq!(left, [0, 0]);
}
