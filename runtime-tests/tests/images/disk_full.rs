//! A disk that fills up while an image arrives.

use std::fs;

use runtime_tests::{Home, Registry, need_root, requires, shell};

use super::has_tools;

/// A store on a file system of its own.
struct SmallDisk<'a>(&'a Home);

impl<'a> SmallDisk<'a> {
    fn new(home: &'a Home) -> Self {
        fs::create_dir(home.store()).unwrap();
        shell(&format!(
            "mount -t tmpfs -o size=1m tmpfs {}",
            home.store().display()
        ));
        SmallDisk(home)
    }

    fn resize(&self, size: &str) {
        shell(&format!(
            "mount -o remount,size={size} {}",
            self.0.store().display()
        ));
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        shell(&format!("umount -l {}", self.0.store().display()));
    }
}

#[test]
fn nothing_is_half_visible_and_the_next_try_goes_on() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    need_root();
    let (maker, registry) = (Home::new(), Registry::plain());
    let image = registry.image("app:1");
    maker
        .coracle(&["pull", "-q", &maker.make_layout(3_000_000)])
        .ok();
    maker.coracle(&["push", "-q", "layout:v1", &image]).ok();
    let archive = maker.path("archive").to_string_lossy().into_owned();
    maker.coracle(&["save", "-o", &archive, "layout:v1"]).ok();

    let home = Home::new();
    let disk = SmallDisk::new(&home);
    home.coracle(&["pull", &image])
        .fails_with(1, "No space left on device");
    assert_eq!(home.coracle(&["images", "-q"]).ok(), "");
    let partial = home.store().join("images/partial");
    assert_eq!(
        fs::read_dir(&partial).unwrap().count(),
        1,
        "what has come stays"
    );
    disk.resize("16m");
    home.coracle(&["pull", &image]).ok();
    assert_eq!(home.digest(&image), maker.digest("layout:v1"));
    assert_eq!(fs::read_dir(&partial).unwrap().count(), 0);

    home.coracle(&["prune", "--all"]).ok();
    disk.resize("1m");
    home.coracle(&["load", "-i", &archive])
        .fails_with(1, "No space left on device");
    assert_eq!(home.coracle(&["images", "-q"]).ok(), "");
    assert_eq!(
        fs::read_dir(&partial).unwrap().count(),
        0,
        "what has no name yet goes"
    );
    disk.resize("16m");
    home.coracle(&["load", "-i", &archive]).ok();
}
