//! Somebody exchanges what lies at a path for something else, again and again, while containers are made upon it: a volume that another
//! container has too.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use runtime_tests::{Container, Output, is_coracle, long, requires, rootless, shell};
use serde_json::json;

use crate::with_own_dev;

/// Exchanges two names (renameat2(2) `RENAME_EXCHANGE`) until it is dropped. There is always something at both.
struct Racer {
    ended: Arc<AtomicBool>,
    swaps: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Racer {
    fn new(one: PathBuf, other: PathBuf) -> Self {
        let (ended, swaps) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (until, count) = (Arc::clone(&ended), Arc::clone(&swaps));
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                renameat2(
                    AT_FDCWD,
                    &one,
                    AT_FDCWD,
                    &other,
                    RenameFlags::RENAME_EXCHANGE,
                )
                .expect("both are there");
                count.fetch_add(1, Ordering::Relaxed);
                thread::yield_now();
            }
        });
        Racer {
            ended,
            swaps,
            thread: Some(thread),
        }
    }

    fn swaps(&self) -> usize {
        self.swaps.load(Ordering::Relaxed)
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What nobody in a container may reach: everything that could change of it.
struct Canary {
    place: PathBuf,
    before: Vec<String>,
}

impl Canary {
    /// A tree with something at every place that the tests use.
    fn beside(c: &Container) -> Self {
        let place = c.dir().join("canary");
        fs::create_dir_all(place.join("sub/deep")).unwrap();
        fs::write(place.join("sub/file"), SECRET).unwrap();
        fs::write(place.join("secret"), SECRET).unwrap();
        let before = fingerprint(&place);
        Canary { place, before }
    }

    fn assert_untouched(&self) {
        assert_eq!(fingerprint(&self.place), self.before, "touched outside");
    }
}

const SECRET: &str = "secret of the host\n";

fn fingerprint(path: &Path) -> Vec<String> {
    let stat = path.symlink_metadata().unwrap();
    let facts = (stat.mode(), stat.uid(), stat.ino(), stat.mtime_nsec());
    let mut lines = vec![format!("{} {facts:?}", path.display())];
    if stat.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        lines.extend(entries.flat_map(|entry| fingerprint(&entry.unwrap().path())));
        lines.sort();
    }
    lines
}

/// Runs the container while its racer is at work, 100 times and until there were 5,000 swaps; with `make long`, 10,000 times and 100,000.
/// Each time it has to fail cleanly, or to see nothing of the host.
fn run_many(c: &Container, racer: &Racer, check: impl Fn(&Output)) {
    let (runs, swaps) = if long() {
        (10_000, 100_000)
    } else {
        (100, 5_000)
    };
    let mut round = 0;
    while round < runs || racer.swaps() < swaps {
        let output = c.run();
        assert!(!output.stdout.contains("host"), "{output:?}");
        assert!(output.code == 0 || !output.stderr.is_empty(), "{output:?}");
        check(&output);
        c.assert_nothing_left();
        round += 1;
    }
}

/// A hook that does nothing: with it, mounts are attached while the host's root still is the root.
fn with_early_hook(c: &mut Container) {
    c.set(
        "/hooks",
        json!({ "createRuntime": [{ "path": "/bin/true" }] }),
    );
}

/// Mounts below a place, where what is missing has to be made, and what is there is mounted upon.
fn mount_below(c: &mut Container, place: &str) {
    let source = c.dir().join("source");
    fs::create_dir(&source).unwrap();
    let missing = (0..4).map(|n| (format!("new/{n}"), "tmpfs"));
    for (destination, kind) in missing.chain([("sub".into(), "tmpfs"), ("sub/deep".into(), "bind")])
    {
        let options = if kind == "bind" {
            json!(["rbind"])
        } else {
            json!([])
        };
        c.push(
            "/mounts",
            json!({ "destination": format!("{place}/{destination}"), "type": kind, "source": source, "options": options }),
        );
    }
}

/// What the container sees of all places: nothing there is the host's.
const LOOK: &str = "cat /volume/*/secret /volume/*/sub/file; echo x > /volume/way/sub/mine; true";

/// CVE-2021-30465, CVE-2024-45310, CVE-2019-18837: a directory that is mounted upon is a symbolic link a moment later. Proved with runc 1.1.5,
/// which has made a directory outside after a few rounds, and with paths that are resolved inside the root and opened by the name that was found.
fn a_destination_becomes_a_link(prepare: fn(&mut Container)) {
    requires!(is_coracle(), "runc 1.1 makes directories outside");
    let mut c = Container::new(LOOK);
    let canary = Canary::beside(&c);
    let volume = c.rootfs().join("volume");
    fs::create_dir_all(volume.join("way/sub")).unwrap();
    symlink(&canary.place, volume.join("link")).unwrap();
    mount_below(&mut c, "/volume/way");
    prepare(&mut c);
    let racer = Racer::new(volume.join("way"), volume.join("link"));
    run_many(&c, &racer, |_| {
        canary.assert_untouched();
        // To be made anew; the one of the two that is the link leads to where there is none.
        for name in ["way/new", "link/new"] {
            let _ = fs::remove_dir_all(volume.join(name));
        }
    });
}

#[test]
fn a_mount_destination_that_becomes_a_link_leads_nowhere() {
    a_destination_becomes_a_link(|_| ());
}

#[test]
fn a_mount_destination_that_becomes_a_link_leads_nowhere_before_the_root_is_changed() {
    a_destination_becomes_a_link(with_early_hook);
}

/// The same by `..`: a directory on the way is moved out of the root while it is walked through, so that what lies above it is the host's.
/// Proved with `..` walked by hand from a directory that is no mount of its own: in a mount of its own the kernel finds nothing there either.
#[test]
fn a_mount_destination_that_is_moved_out_leads_nowhere() {
    let mut c = Container::new(LOOK);
    let canary = Canary::beside(&c);
    let (inside, outside) = (c.rootfs().join("volume/x"), c.dir().join("x"));
    for place in [&inside, &outside] {
        fs::create_dir_all(place.join("y")).unwrap();
        symlink("../../canary", place.join("y/up")).unwrap();
    }
    fs::create_dir_all(c.rootfs().join("volume/canary/sub/deep")).unwrap();
    mount_below(&mut c, "/volume/x/y/up");
    with_early_hook(&mut c);
    let made = c.rootfs().join("volume/canary/new");
    let racer = Racer::new(inside, outside);
    run_many(&c, &racer, |_| {
        canary.assert_untouched();
        let _ = fs::remove_dir_all(&made);
    });
}

/// CVE-2025-31133, CVE-2025-62161: what masked paths are covered with is the null device at one moment, and a link to something else at the
/// next. Proved with a device that is opened again after the look at its number.
#[test]
fn what_masks_paths_is_the_null_device_at_every_moment() {
    requires!(is_coracle(), "runc 1.1 does not come back from it");
    requires!(rootless().is_none(), "root makes devices");
    let mut c = Container::new("cat /masked; echo done");
    let dev = with_own_dev(&mut c);
    fs::write(c.rootfs().join("target"), SECRET).unwrap();
    fs::write(c.rootfs().join("masked"), SECRET).unwrap();
    let (null, link) = (dev.join("null"), dev.join("link"));
    shell(&format!("mknod -m 666 {} c 1 3", null.display()));
    symlink("/target", &link).unwrap();
    c.set("/linux/maskedPaths", json!(["/masked"]));
    assert_eq!(c.run().ok(), "done\n", "without a race");
    let racer = Racer::new(null, link);
    run_many(&c, &racer, |output| {
        assert!(output.code != 0 || output.stdout == "done\n", "{output:?}");
    });
}

/// The root file system itself is exchanged for another: whatever is used is one of the two with its mounts, and never a mixture. Proved with
/// mounts whose places are looked up by the path of the root.
#[test]
fn a_root_file_system_that_is_exchanged_is_one_of_the_two() {
    let c = Container::new("cat /name /dir/name /proc/1/comm; true");
    let other = c.dir().join("other");
    runtime_tests::fill_rootfs(&other);
    for (root, name) in [(&c.rootfs(), "one"), (&other, "two")] {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("name"), name).unwrap();
        fs::write(root.join("dir/name"), name).unwrap();
    }
    let racer = Racer::new(c.rootfs(), other);
    run_many(&c, &racer, |output| {
        let seen = output.stdout.as_str();
        assert!(
            output.code != 0 || ["oneonesh\n", "twotwosh\n"].contains(&seen),
            "{output:?}"
        );
    });
}
