//! The other commands: names and ids, lists, copies.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Stdio;

use runtime_tests::{Store, shell};

#[test]
fn names_are_unique_and_good_for_every_command() {
    let store = Store::new();
    store.detached("web", &[], "sleep 1000");
    store
        .run(&["-d", "--name", "web"], "true")
        .fails_with(125, "already in use");
    let id = store.inspect("web")["Id"].as_str().unwrap().to_owned();
    for name in ["web", &id[..8], &id] {
        assert_eq!(
            store.coracle(&["exec", name, "hostname"]).ok().trim_end(),
            &id[..12]
        );
        let state: serde_json::Value =
            serde_json::from_str(&store.coracle(&["state", name]).ok()).unwrap();
        assert_eq!(state["id"], id);
    }
    store.coracle(&["pause", "web"]).ok();
    assert_eq!(store.state("web", "Status"), "paused");
    store.coracle(&["resume", "web"]).ok();
    store.coracle(&["rm", "web"]).fails_with(1, "it is running");
    store.coracle(&["kill", "web", "KILL"]).ok();
    assert_eq!(store.coracle(&["wait", "web"]).ok(), "137\n");
    store.coracle(&["rm", "web"]).ok();
    store
        .coracle(&["rm", "web"])
        .fails_with(1, "does not exist");
    store.coracle(&["rm", "-f", "web"]).ok();
    store.detached("web", &[], "true");
}

#[test]
fn the_list_is_dockers_where_there_are_such_containers_and_runcs_elsewhere() {
    let store = Store::new();
    let head = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
    assert_eq!(store.coracle(&["list"]).ok(), head);
    assert_eq!(store.coracle(&["list", "-f", "json"]).ok(), "null\n");
    store.detached("web", &[], "sleep 1000");
    store.run(&["--name", "done"], "exit 3").exits(3);
    let table = store.coracle(&["list"]).ok();
    assert!(
        table.starts_with("ID ") && table.contains("web") && table.contains("Up "),
        "{table}"
    );
    assert!(table.contains("Exited (3)"), "{table}");
    let list: serde_json::Value =
        serde_json::from_str(&store.coracle(&["list", "-f", "json"]).ok()).unwrap();
    assert_eq!(
        (&list[0]["name"], &list[0]["status"]),
        (&"web".into(), &"running".into())
    );
    assert_eq!(
        (&list[1]["name"], &list[1]["status"]),
        (&"done".into(), &"stopped".into())
    );
    assert_eq!(list[1]["pid"], 0);
}

#[test]
fn copies_go_both_ways_and_never_out_of_the_root() {
    let store = Store::new();
    let here = |name: &str| store.path().join(name);
    store.detached("web", &[], "mkdir -p /tree/sub; echo inside > /tree/sub/file; ln -s ../../../../etc /tree/link; sleep 1000");
    store
        .coracle(&[
            "exec",
            "web",
            "sh",
            "-c",
            "while [ ! -L /tree/link ]; do sleep 0.01; done",
        ])
        .ok();
    let copy = |from: &str, to: &str| store.coracle(&["cp", from, to]);
    let to = here("out").display().to_string();
    copy("web:/tree", &to).ok();
    assert_eq!(
        fs::read_to_string(here("out/sub/file")).unwrap(),
        "inside\n"
    );
    assert!(here("out/link").is_symlink());
    copy("web:/tree/sub/file", &format!("{to}/renamed")).ok();
    assert_eq!(fs::read_to_string(here("out/renamed")).unwrap(), "inside\n");

    fs::write(here("in"), "from outside\n").unwrap();
    copy(&here("in").display().to_string(), "web:/tmp").ok();
    let said = store
        .coracle(&["exec", "web", "sh", "-c", "cat /tmp/in; stat -c %u /tmp/in"])
        .ok();
    assert_eq!(said, "from outside\n0\n");
    // A link in the container means the container's own place.
    copy(&here("in").display().to_string(), "web:/tree/link/placed").ok();
    assert!(
        store.rootfs().join("etc/placed").exists() && !std::path::Path::new("/etc/placed").exists()
    );
    copy("web:/nowhere", &to).fails(1);
    copy("web:/tree", "web:/x").fails(1);

    // Streams, of a container that has ended too.
    store.coracle(&["stop", "-t", "0", "web"]).ok();
    let tar = store.coracle(&["cp", "web:/tree/sub/.", "-"]).stdout;
    assert!(tar.contains("inside"));
    fs::create_dir(here("stage")).unwrap();
    symlink("/etc", here("stage/evil")).unwrap();
    let evil = here("evil.tar");
    shell(&format!(
        "cd {0} && mkdir t && echo canary > t/x && tar -cf {1} -C stage evil && rm stage/evil && mkdir stage/evil && echo owned > stage/evil/{2} && tar -rf {1} -C stage evil/{2} && tar -rPf {1} --transform 's,^,../../,' -C t x",
        store.path().display(),
        evil.display(),
        store.parent
    ));
    let mut child = store
        .command(&["cp", "-", "web:/tmp"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&fs::read(&evil).unwrap())
        .unwrap();
    child.wait().unwrap();
    assert!(
        !std::path::Path::new("/etc").join(&store.parent).exists(),
        "a link in the stream leads out"
    );
    assert!(!store.path().join("x").exists());
    assert_eq!(fs::metadata(store.rootfs()).unwrap().uid(), 0);
}

#[test]
fn inspect_tells_what_docker_tells() {
    let store = Store::new();
    store.detached(
        "web",
        &[
            "-e",
            "A=1",
            "-l",
            "tier=front",
            "-v",
            "data:/data",
            "--restart",
            "on-failure:2",
        ],
        "sleep 1000",
    );
    let all = store.inspect("web");
    assert_eq!(all["Name"], "web");
    assert_eq!(all["State"]["Running"], true);
    assert_eq!(all["Config"]["Labels"]["tier"], "front");
    assert!(
        all["Config"]["Env"]
            .as_array()
            .unwrap()
            .contains(&"A=1".into())
    );
    assert_eq!(all["HostConfig"]["RestartPolicy"]["MaximumRetryCount"], 2);
    assert_eq!(all["HostConfig"]["NetworkMode"], "none");
    let mount = &all["Mounts"][0];
    assert_eq!(
        (&mount["Type"], &mount["Name"], &mount["RW"]),
        (&"volume".into(), &"data".into(), &true.into())
    );
}

#[test]
fn stats_end_with_their_reader() {
    let store = Store::new();
    store.detached("web", &[], "sleep 1000");
    let once = store.coracle(&["stats", "--no-stream", "web"]).ok();
    assert!(once.contains("web") && !once.contains("--"), "{once}");
    let mut child = store
        .command(&["stats", "web"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_id_is_written_where_it_is_asked_for() {
    let store = Store::new();
    let path = store.path().join("cid");
    let flags = ["--cidfile", path.to_str().unwrap(), "--name", "web"];
    store.run(&flags, "true").ok();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        store.inspect("web")["Id"].as_str().unwrap()
    );
    store
        .run(&["--cidfile", path.to_str().unwrap()], "true")
        .fails_with(125, "--cidfile");
}
