//! Containers of images: what the image says, what the flags say over it, and the network.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use runtime_tests::{Store, eventually, shell};
use serde_json::{Value, json};

/// An image layout of the test's root file system, made by hand: one layer and a configuration.
pub(crate) fn image(store: &Store, config: &Value) -> String {
    let layout = store.path().join("image");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |file: PathBuf, kind: &str| -> Value {
        let digest = shell(&format!("sha256sum {} | cut -c-64", file.display()))
            .trim()
            .to_owned();
        let size = fs::metadata(&file).unwrap().len();
        fs::rename(&file, blobs.join(&digest)).unwrap();
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": size })
    };
    let document = |name: &str, value: &Value| {
        let path = layout.join(name);
        fs::write(&path, value.to_string()).unwrap();
        path
    };
    let tar = layout.join("layer");
    shell(&format!(
        "tar -cf {} -C {} .",
        tar.display(),
        store.rootfs().display()
    ));
    let layer = put(tar, "layer.v1.tar");
    let architecture = shell("uname -m")
        .trim()
        .replace("x86_64", "amd64")
        .replace("aarch64", "arm64");
    let configuration = json!({
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let configuration = put(document("config", &configuration), "config.v1+json");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": configuration, "layers": [layer],
    });
    let mut manifest = put(document("manifest", &manifest), "manifest.v1+json");
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "localhost/app:1" });
    document(
        "index.json",
        &json!({ "schemaVersion": 2, "manifests": [manifest] }),
    );
    document("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }));
    store
        .coracle(&["pull", &format!("oci:{}", layout.display())])
        .ok();
    "localhost/app:1".to_owned()
}

fn run(store: &Store, flags: &[&str], image: &str, command: &[&str]) -> runtime_tests::Output {
    let args = store.run_args_of(flags, &[&[image], command].concat());
    store.coracle(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn the_image_says_how_it_is_run() {
    let store = Store::new();
    fs::create_dir(store.rootfs().join("data")).unwrap();
    fs::write(store.rootfs().join("data/seed"), "seeded\n").unwrap();
    let image = image(
        &store,
        &json!({
            "Entrypoint": ["sh", "-c"], "Cmd": ["echo $A; id -u; pwd; cat /data/seed"], "Env": ["A=image"],
            "User": "user", "WorkingDir": "/tmp", "Volumes": { "/data": {} }, "StopSignal": "SIGUSR1",
            "ExposedPorts": { "80": {}, "53/udp": {} },
            "Labels": { "run.oci.keep_original_groups": "1", "tier": "front" },
        }),
    );
    assert_eq!(
        run(&store, &["--rm"], &image, &[]).ok(),
        "image\n1000\n/tmp\nseeded\n"
    );
    let flags = ["--rm", "-u", "0", "-w", "/", "-e", "A=flag"];
    assert_eq!(
        run(&store, &flags, &image, &["echo $A; id -u; pwd"]).ok(),
        "flag\n0\n/\n"
    );
    let output = run(
        &store,
        &["--rm", "--entrypoint", "/bin/echo"],
        &image,
        &["-n", "x"],
    );
    assert_eq!(output.ok(), "x");
    let script = "trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done";
    run(&store, &["-d", "--name", "web"], &image, &[script]).ok();
    store.wait_to_log("web", "ready");
    let all = store.inspect("web");
    assert_eq!(all["Config"]["Labels"]["tier"], "front");
    let exposed = json!({ "53/udp": {}, "80/tcp": {} });
    assert_eq!(all["Config"]["ExposedPorts"], exposed);
    assert_eq!(
        all["Config"]["Annotations"]["run.oci.keep_original_groups"],
        Value::Null,
        "labels do nothing"
    );
    store.coracle(&["stop", "web"]).ok();
    assert_eq!(store.state("web", "ExitCode"), 6);
    assert!(
        store.coracle(&["rmi", &image]).code != 0,
        "a container uses it"
    );
    assert!(store.coracle(&["list"]).ok().contains("localhost/app:1"));
}

#[test]
fn what_a_container_writes_is_its_own() {
    let store = Store::new();
    let image = image(&store, &json!({}));
    run(
        &store,
        &["--name", "one"],
        &image,
        &["sh", "-c", "echo mine > /file"],
    )
    .ok();
    run(&store, &["--rm"], &image, &["test", "!", "-e", "/file"]).ok();
    assert!(
        store
            .coracle(&["cp", "one:/file", "-"])
            .stdout
            .contains("mine"),
        "also once it has ended"
    );
    store.coracle(&["restart", "one"]).ok();
    store.coracle(&["wait", "one"]).ok();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&store.parent), "nothing stays mounted");
    run(&store, &["--pull=never"], "localhost/none:1", &["true"]).fails(125);
}

#[test]
fn another_platform_than_the_images_is_looked_for_or_an_error() {
    let store = Store::new();
    let image = image(&store, &json!({ "Cmd": ["true"] }));
    let text = store.coracle(&["inspect", &image]).ok();
    let inspected: Value = serde_json::from_str(&text).unwrap();
    let own = format!("linux/{}", inspected[0]["Architecture"].as_str().unwrap());
    run(&store, &["--rm", "--platform", &own], &image, &[]).ok();
    let other = ["--rm", "--platform", "linux/s390x"];
    let is_other = format!("image {image}: it is for {own}, not for linux/s390x");
    for (flags, words) in [
        (&["--pull=never"][..], is_other.clone()),
        (
            &[],
            format!("{is_other}: pull localhost/app:1: http://localhost: "),
        ),
    ] {
        let output = run(&store, &[&other, flags].concat(), &image, &[]);
        output.fails_with(125, &words);
    }
    let bundle = store.path().join("bundle").display().to_string();
    let unpack = |platform| store.coracle(&["unpack", "--platform", platform, &image, &bundle]);
    unpack("linux/s390x").fails_with(1, &is_other);
    unpack(&own).ok();
}

#[test]
fn a_published_port_answers_until_the_container_is_gone() {
    let store = Store::new();
    let image = image(&store, &json!({}));
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let publish = format!("127.0.0.1:{free}:80");
    let serve = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www";
    run(
        &store,
        &["-d", "--name", "web", "-p", &publish],
        &image,
        &["sh", "-c", serve],
    )
    .ok();
    let get = || {
        let mut stream = TcpStream::connect(("127.0.0.1", free)).ok()?;
        let limit = Some(Duration::from_secs(5));
        stream.set_read_timeout(limit).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.contains("hello").then_some(())
    };
    eventually("the port answers", get);
    assert_eq!(
        store.coracle(&["port", "web", "80"]).ok(),
        format!("127.0.0.1:{free}\n")
    );
    assert!(
        store
            .coracle(&["list"])
            .ok()
            .contains(&format!("127.0.0.1:{free}->80/tcp"))
    );
    let address = store.inspect("web")["NetworkSettings"]["IPAddress"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        store
            .coracle(&["exec", "web", "cat", "/etc/hosts"])
            .ok()
            .contains(&address)
    );
    let output = run(&store, &["-p", &publish], &image, &["true"]);
    assert!(
        output.code == 125 && output.stderr.contains("publish port"),
        "a clash: {output:#?}"
    );
    store.coracle(&["restart", "-t", "0", "web"]).ok();
    eventually("it answers again", get);
    let monitor = store.monitor("web");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(monitor),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    eventually("another monitor takes over", || {
        (store.state("web", "Running") == true && store.coracle(&["logs", "web"]).code == 0)
            .then_some(())
    });
    eventually("and answers", get);
    store.coracle(&["rm", "-f", "web"]).ok();
    assert!(
        TcpListener::bind(("127.0.0.1", free)).is_ok(),
        "the port is free again"
    );
}
