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
        .fails_with(1, "no space left on device");
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
        .fails_with(1, "no space left on device");
    assert_eq!(home.coracle(&["images", "-q"]).ok(), "");
    assert_eq!(
        fs::read_dir(&partial).unwrap().count(),
        0,
        "what has no name yet goes"
    );
    disk.resize("16m");
    home.coracle(&["load", "-i", &archive]).ok();
}

/// Proved with layers that are left where they failed.
#[test]
fn layers_that_do_not_fit_when_they_are_unpacked_are_not_there() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    need_root();
    let home = Home::new();
    home.make_layout(1000);
    let dir = home.path("").display().to_string();
    shell(&format!(
        "cd {dir} && mkdir big && head -c 40000000 /dev/zero > big/zeros && tar -C big -cf big.tar . &&
        umoci raw add-layer --image layout:v1 big.tar"
    ));
    let image = format!("oci:{}:v1", home.path("layout").display());
    let disk = SmallDisk::new(&home);
    disk.resize("16m");
    home.coracle(&["pull", &image])
        .fails_with(1, "no space left on device");
    assert_eq!(home.coracle(&["images", "-q"]).ok(), "");
    let layers = home.store().join("layers");
    assert_eq!(fs::read_dir(&layers).unwrap().count(), 0);
    disk.resize("80m");
    let again = home.coracle(&["pull", &image]);
    assert_eq!(again.stderr.matches(": complete").count(), 0, "{again:?}");
    assert_eq!(fs::read_dir(&layers).unwrap().count(), 2);

    // The bundle is on the same disk, which has no room for a second copy.
    let bundle = home.store().join("bundle").display().to_string();
    home.coracle(&["unpack", "layout:v1", &bundle])
        .fails_with(1, "no space left on device");
    assert!(!home.store().join("bundle").exists());
    disk.resize("160m");
    home.coracle(&["unpack", "layout:v1", &bundle]).ok();
}
