//! An image built by buildah from scratch, unpacked by umoci, run by the runtime itself.

use std::fs;

use runtime_tests::{Engine, eventually, fill_rootfs, has_program, http_get, requires, rootless};
use serde_json::{Value, json};

const PAGE: &str = "served from the image\n";

#[test]
fn an_image_of_buildah_unpacked_by_umoci_answers_over_http() {
    requires!(
        has_program("buildah") && has_program("umoci"),
        "buildah or umoci is not installed"
    );
    requires!(
        rootless().is_none(),
        "umoci and the runtime itself run as root here"
    );
    let engine = Engine::new();
    let layout = build(&engine);
    let bundle = unpack(&engine, &layout);
    let id = format!("{}-web", engine.name);

    // umoci's configuration has a terminal and no cgroup of ours: an engine changes what it must.
    let file = bundle.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(
        config["process"]["args"],
        json!(["httpd", "-f", "-p", "8000", "-h", "/www"])
    );
    assert!(
        config["process"]["env"]
            .as_array()
            .unwrap()
            .contains(&json!("GREETING=hi"))
    );
    config["process"]["terminal"] = json!(false);
    config["linux"]["cgroupsPath"] = json!(format!("/{}/web", engine.name));
    fs::write(&file, config.to_string()).unwrap();

    engine
        .runtime(&[
            "run",
            "--detach",
            "--bundle",
            &bundle.to_string_lossy(),
            &id,
        ])
        .ok();
    let body = eventually("the server answers inside", || {
        let output = engine.runtime(&[
            "exec",
            &id,
            "wget",
            "-q",
            "-O",
            "-",
            "http://127.0.0.1:8000/",
        ]);
        (output.code == 0).then_some(output.stdout)
    });
    assert_eq!(body, PAGE);

    // And from outside, through the container's network namespace.
    let state: Value = serde_json::from_str(&engine.runtime(&["state", &id]).ok()).unwrap();
    assert_eq!(
        http_get(&engine, state["pid"].as_i64(), "127.0.0.1", 8000),
        PAGE
    );

    engine.runtime(&["kill", &id, "KILL"]).ok();
    eventually("it has stopped", || {
        engine
            .runtime(&["state", &id])
            .ok()
            .contains("\"stopped\"")
            .then_some(())
    });
    engine.runtime(&["delete", &id]).ok();
    assert_eq!(engine.runtime(&["state", &id]).code, 1);
}

/// `FROM scratch`, busybox, a page, and its small HTTP server: the path of an OCI layout.
fn build(engine: &Engine) -> String {
    let container = engine.buildah(&["from", "scratch"]).ok();
    let container = container.trim();
    let content = engine.path("content");
    fill_rootfs(&content);
    fs::create_dir(content.join("www")).unwrap();
    fs::write(content.join("www/index.html"), PAGE).unwrap();
    engine
        .buildah(&[
            "copy",
            "--quiet",
            container,
            &content.to_string_lossy(),
            "/",
        ])
        .ok();
    // A command runs in the image as well, by the runtime under test.
    let said = engine
        .buildah(&[
            "run",
            container,
            "sh",
            "-c",
            "echo built by $(id -u); touch /built",
        ])
        .ok();
    assert_eq!(said.trim(), "built by 0");
    let cmd = r#"["httpd","-f","-p","8000","-h","/www"]"#;
    engine
        .buildah(&[
            "config",
            "--cmd",
            cmd,
            "--env",
            "GREETING=hi",
            "--workingdir",
            "/www",
            container,
        ])
        .ok();
    engine
        .buildah(&[
            "commit",
            "--quiet",
            "--format",
            "oci",
            container,
            &format!("oci:{}:latest", engine.path("layout").display()),
        ])
        .ok();
    engine.path("layout").to_string_lossy().into_owned()
}

fn unpack(engine: &Engine, layout: &str) -> std::path::PathBuf {
    let bundle = engine.path("bundle");
    engine
        .run(
            "umoci",
            &[
                "unpack",
                "--image",
                &format!("{layout}:latest"),
                &bundle.to_string_lossy(),
            ],
        )
        .ok();
    assert!(
        bundle.join("rootfs/built").exists(),
        "the command's file is in the image"
    );
    bundle
}
