//! What the commands about images print, accept and refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use runtime_tests::{Home, requires};
use serde_json::Value;

use super::has_tools;

#[test]
fn the_list_is_as_docker_shows_it() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    let home = Home::new();
    assert_eq!(
        home.coracle(&["images"]).ok(),
        "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"
    );
    home.coracle(&["pull", "-q", &home.make_layout(1000)]).ok();
    home.coracle(&["tag", "layout:v1", "alpine", "quay.io/team/app:2"])
        .ok();
    let table = home.coracle(&["images"]).ok();
    let rows: Vec<Vec<_>> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().take(3).collect())
        .collect();
    let id = home.coracle(&["images", "-q"]).ok();
    let id = id.trim();
    assert_eq!(id.len(), 12);
    assert_eq!(
        rows,
        [
            ["alpine", "latest", id],
            ["localhost/layout", "v1", id],
            ["quay.io/team/app", "2", id]
        ]
    );
    assert_eq!(home.coracle(&["images", "alpine"]).ok().lines().count(), 2);
    assert_eq!(home.coracle(&["images", "nothing"]).ok().lines().count(), 1);
    assert!(
        home.coracle(&["images", "--digests"])
            .ok()
            .contains(&home.digest("alpine"))
    );

    let listed: Value =
        serde_json::from_str(&home.coracle(&["images", "--format", "json"]).ok()).unwrap();
    assert_eq!(listed[0]["Names"].as_array().unwrap().len(), 3);
    let inspected: Value = serde_json::from_str(&home.coracle(&["inspect", id]).ok()).unwrap();
    assert_eq!(inspected[0]["Id"], listed[0]["Id"]);
    assert_eq!(
        inspected[0]["Config"]["Env"]
            .as_array()
            .unwrap()
            .last()
            .unwrap(),
        "GREETING=hi"
    );
    assert_eq!(inspected[0]["RepoTags"][0], "alpine:latest");
}

#[test]
fn images_go_name_by_name() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    let home = Home::new();
    home.coracle(&["pull", "-q", &home.make_layout(1000)]).ok();
    home.coracle(&["tag", "layout:v1", "a", "b"]).ok();
    let digest = home.digest("a");
    assert_eq!(home.coracle(&["rmi", "a"]).ok(), "Untagged: a:latest\n");
    let some = home.coracle(&["rmi", "a", "b"]);
    assert_eq!(some.stdout, "Untagged: b:latest\n");
    some.fails_with(1, "a: no such image");

    // A container's record keeps its image.
    let record = home.store().join("containers/web/container.json");
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    fs::write(&record, format!(r#"{{"id": "web", "image": "{digest}"}}"#)).unwrap();
    home.coracle(&["rmi", "layout:v1"])
        .fails_with(1, "a container uses the image");
    assert_eq!(
        home.coracle(&["prune", "-a"]).ok(),
        "Total reclaimed space: 0B\n"
    );
    fs::write(&record, "{").unwrap();
    home.coracle(&["prune", "-a"])
        .fails_with(1, "container web: container.json");
    fs::remove_file(&record).unwrap();
    assert!(
        home.coracle(&["rmi", "layout:v1"])
            .ok()
            .contains("Deleted: sha256:")
    );
    assert_eq!(
        fs::read_dir(home.store().join("images/blobs/sha256"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn bad_words_are_refused_before_anything_happens() {
    let home = Home::new();
    for (args, words) in [
        (&["pull", "UPPER/case:x:y"][..], "invalid reference"),
        (&["pull", "a@sha256:12"], "64 lower-case hexadecimal digits"),
        (
            &["pull", "--platform", "linux", "a"],
            "os/architecture[/variant]",
        ),
        (&["pull", "oci:/nowhere"], "image layout /nowhere"),
        (&["pull", "docker-archive:/nowhere"], "load /nowhere"),
        (&["load", "-i", "/nowhere"], "load /nowhere"),
        (&["load", "-i", "/dev/null"], "no archive of images"),
        (&["save", "--format", "zip", "a"], "archive format \"zip\""),
        (&["save", "a"], "a: no such image"),
        (&["push", "a"], "a: no such image"),
        (&["tag", "a", "b"], "a: no such image"),
        (&["tag", "a", "B"], "invalid reference \"B\""),
        (&["rmi", "a"], "a: no such image"),
        (&["inspect", "a"], "a: no such image"),
        (&["images", "--format", "xml"], "invalid format option"),
        (&["login", "a b"], "invalid reference"),
        (
            &["login", "--password-stdin"],
            "--password-stdin needs --username",
        ),
        (
            &["login", "-u", "a", "-p", "b", "--password-stdin"],
            "exclude each other",
        ),
        (&["login", "localhost:1"], "without a terminal use"),
        (&["logout", "example.com"], "not logged in to example.com"),
    ] {
        home.coracle(args).fails_with(1, words);
    }
    home.coracle(&["pull"])
        .fails_with(125, "requires exactly 1 argument");
    home.coracle(&["pull", "127.0.0.1:1/a"])
        .fails_with(1, "connection refused");
    assert_eq!(home.coracle(&["images", "-q"]).ok(), "");
}

/// CVE-2024-25621: proved with the umask's modes for the store, for its directories, and for its files.
#[test]
fn the_store_is_its_owners_alone() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    let home = Home::new();
    let mut pull = home.coracle_command(&["pull", "-q", &home.make_layout(1000)]);
    // Whatever the umask says.
    let program = pull.get_program().to_owned();
    let args: Vec<_> = pull.get_args().map(ToOwned::to_owned).collect();
    pull = home.command("sh", &["-c", "umask 0; exec \"$@\"", "sh"]);
    pull.arg(program).args(args);
    home.finish(pull).ok();
    assert_private(&home.store());
}

fn assert_private(path: &Path) {
    let metadata = fs::symlink_metadata(path).unwrap();
    assert_eq!(
        metadata.permissions().mode() & 0o077,
        0,
        "{}",
        path.display()
    );
    // What is in a layer has the modes that its image gives it, behind a directory that nobody else may enter.
    if metadata.is_dir() && !path.ends_with("layers") {
        for entry in fs::read_dir(path).unwrap() {
            assert_private(&entry.unwrap().path());
        }
    }
}
