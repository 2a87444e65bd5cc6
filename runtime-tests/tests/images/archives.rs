//! Archives of podman, skopeo and Coracle, read by each other.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use runtime_tests::{Engine, Home, has_program, requires};
use serde_json::Value;

use super::has_tools;

/// The id of the only image.
fn id(home: &Home) -> String {
    let images: Value =
        serde_json::from_str(&home.coracle(&["images", "--format", "json"]).ok()).unwrap();
    assert_eq!(images.as_array().unwrap().len(), 1, "{images}");
    images[0]["Id"].as_str().unwrap().to_owned()
}

#[test]
fn podman_saves_and_coracle_loads() {
    requires!(has_program("podman"), "podman is not installed");
    requires!(
        runtime_tests::rootless().is_none(),
        "the archive belongs to another user here"
    );
    let engine = Engine::new();
    let wanted = engine
        .podman(&[
            "image",
            "inspect",
            "--format",
            "{{.Id}}",
            "localhost/busybox",
        ])
        .ok();
    for format in ["docker-archive", "oci-archive"] {
        let home = Home::new();
        let file = engine
            .path(&format!("{format}.tar"))
            .to_string_lossy()
            .into_owned();
        engine
            .podman(&[
                "save",
                "--quiet",
                "--format",
                format,
                "--output",
                &file,
                "localhost/busybox",
            ])
            .ok();
        let said = home.coracle(&["load", "-q", "-i", &file]).ok();
        assert_eq!(said, "Loaded image: localhost/busybox:latest\n", "{format}");
        if format == "oci-archive" {
            assert_eq!(id(&home), format!("sha256:{}", wanted.trim()));
        }
        // The way back, under another name.
        home.coracle(&["tag", "busybox", "localhost/back:1"]).ok();
        let back = home.path("back.tar").to_string_lossy().into_owned();
        for out in ["docker-archive", "oci-archive"] {
            home.coracle(&["save", "--format", out, "-o", &back, "localhost/back:1"])
                .ok();
            let loaded = engine.podman(&["load", "--quiet", "--input", &back]);
            assert!(loaded.stdout.contains("localhost/back:1"), "{loaded:?}");
            assert_eq!(
                engine
                    .podman(&["run", "--rm", "localhost/back:1", "echo", "it runs"])
                    .ok(),
                "it runs\n"
            );
            engine.podman(&["rmi", "localhost/back:1"]).ok();
        }
    }
}

#[test]
fn skopeo_and_coracle_read_each_others_archives() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    let home = Home::new();
    let source = home.make_layout(100_000);
    home.coracle(&["pull", "-q", &source]).ok();
    let wanted = id(&home);
    for format in ["docker-archive", "oci-archive"] {
        let other = Home::new();
        let path = home
            .path(&format!("skopeo-{format}"))
            .to_string_lossy()
            .into_owned();
        let name = match format {
            "docker-archive" => "localhost/layout:v1",
            _ => "v1",
        };
        home.run(
            "skopeo",
            &[
                "copy",
                "--insecure-policy",
                "--quiet",
                &source,
                &format!("{format}:{path}:{name}"),
            ],
        )
        .ok();
        let stdin = File::open(&path).unwrap();
        let mut load = other.coracle_command(&["load", "--quiet"]);
        load.stdin(stdin);
        other.finish(load).ok();
        assert_eq!(id(&other), wanted, "{format}");

        // As `docker save | gzip` makes it.
        let zipped = Home::new();
        home.run("gzip", &["--keep", "--fast", &path]).ok();
        zipped
            .coracle(&["load", "-q", "-i", &format!("{path}.gz")])
            .ok();
        assert_eq!(id(&zipped), wanted);

        let saved = home.path("saved").to_string_lossy().into_owned();
        home.coracle(&[
            "save",
            "--format",
            format,
            "--output",
            &saved,
            "localhost/layout:v1",
        ])
        .ok();
        let text = home
            .run(
                "skopeo",
                &["inspect", "--config", &format!("{format}:{saved}")],
            )
            .ok();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["config"]["Cmd"], serde_json::json!(["sh"]));
        let last = Home::new();
        last.coracle(&["pull", "-q", &format!("{format}:{saved}")])
            .ok();
        assert_eq!(id(&last), wanted);
    }
}

#[test]
fn saving_replaces_a_file_whole_or_not_at_all() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    let home = Home::new();
    home.coracle(&["pull", "-q", &home.make_layout(1000)]).ok();
    let file = home.path("out/image.tar");
    fs::create_dir(home.path("out")).unwrap();
    fs::write(&file, "old").unwrap();
    let out = file.to_string_lossy();
    home.coracle(&["save", "-o", &out, "nothing"])
        .fails_with(1, "nothing: no such image");
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    let blob = home.store().join("images/blobs/sha256");
    let layer = fs::read_dir(&blob)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len());
    fs::remove_file(layer.unwrap()).unwrap();
    home.coracle(&["save", "-o", &out, "layout:v1"])
        .fails_with(1, "is not in the image store");
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    assert_eq!(fs::read_dir(home.path("out")).unwrap().count(), 1);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o111, 0);
}

#[test]
fn what_is_no_archive_is_not_repeated() {
    let home = Home::new();
    let file = home.path("text");
    fs::write(&file, "a secret line\n".repeat(100)).unwrap();
    let file = file.display().to_string();
    let said = home.coracle(&["load", "-i", &file]).fails(1);
    assert_eq!(
        said,
        format!("load {file}: it is not a tar archive, or a damaged one\n")
    );
}
