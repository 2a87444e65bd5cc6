//! `--userns`: containers with ids of their own.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use runtime_tests::{Output, Store, kernel_since, requires, shell};
use serde_json::json;

use super::images::image;

fn run(store: &Store, flags: &[&str], script: &str) -> Output {
    let args = store.run_args_of(flags, &["localhost/app:1", "sh", "-c", script]);
    store.coracle(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What a store's file system can do.
fn can_map(store: &Store) -> bool {
    let kind = shell(&format!("stat -f -c %T {}", store.path().display()));
    ["ext2/ext3", "xfs", "btrfs", "tmpfs"].contains(&kind.trim())
}

/// `cp` is proved with `first_id` that knows of no ids of a container's own.
#[test]
fn auto_gives_each_container_ids_of_its_own() {
    let store = Store::new();
    requires!(
        can_map(&store),
        "the file system of /tmp has no id-mapped mounts"
    );
    fs::create_dir(store.rootfs().join("data")).unwrap();
    shell(&format!("chown 7:8 {}/data", store.rootfs().display()));
    image(&store, &json!({ "Volumes": { "/data": {} } }));
    let flags = |name: &'static str| {
        [
            "-d",
            "--name",
            name,
            "--userns=auto",
            "-v",
            "shared:/shared",
        ]
    };
    let work = "echo mine > /file; echo mine > /data/file; echo $(id -u) > /shared/$HOSTNAME; chown 5 /shared/$HOSTNAME; exec sleep 1000";
    if !kernel_since(5, 12) {
        run(&store, &flags("one"), work).fails_with(125, "need Linux 5.12");
        return;
    }
    run(&store, &flags("one"), work).ok();
    run(&store, &flags("two"), work).ok();
    let exec = |name: &str, script: &str| store.coracle(&["exec", name, "sh", "-c", script]);
    let map = |name: &str| -> Vec<u32> {
        let text = exec(name, "cat /proc/self/uid_map").ok();
        text.split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect()
    };
    let (one, two) = (map("one"), map("two"));
    assert_eq!((one[0], one[2], two[2]), (0, 65_536, 65_536));
    assert!(one[1].abs_diff(two[1]) >= 65_536, "{one:?} {two:?}");
    let pid = store.state("one", "Pid");
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), one[1]);
    // Inside everything belongs to whom the image says.
    let owners = "while [ ! -e /shared/$HOSTNAME ]; do sleep 0.05; done; stat -c %u:%g /bin /file /data /data/file /shared/*";
    for name in ["one", "two"] {
        let seen = exec(name, owners).ok();
        assert!(seen.starts_with("0:0\n0:0\n7:8\n0:0\n5:"), "{name}: {seen}");
    }
    let upper = store.directory("one").join("upper/file");
    assert_eq!(fs::metadata(upper).unwrap().uid(), one[1]);
    assert_eq!(store.inspect("one")["HostConfig"]["UsernsMode"], "auto");
    let said = store.coracle(&["exec", "-u", "33", "one", "id", "-u"]).ok();
    assert_eq!(said, "33\n");
    // Another start has the same.
    store.coracle(&["restart", "-t", "0", "one"]).ok();
    assert_eq!(map("one"), one);
    assert_eq!(exec("one", "stat -c %u /file").ok(), "0\n");
    // Copies are its root's.
    let here = store.path().join("file").display().to_string();
    store.coracle(&["cp", "one:/file", &here]).ok();
    store.coracle(&["cp", &here, "one:/copy"]).ok();
    store.coracle(&["stop", "-t", "0", "one"]).ok();
    store.coracle(&["cp", &here, "one:/other"]).ok();
    store.coracle(&["restart", "one"]).ok();
    assert_eq!(exec("one", "stat -c %u /copy /other").ok(), "0\n0\n");
    // With their owners they keep the numbers that each side has.
    chown(&here, Some(33), Some(70)).unwrap();
    store.coracle(&["cp", "-a", &here, "one:/kept"]).ok();
    assert_eq!(exec("one", "stat -c %u:%g /kept").ok(), "33:70\n");
    let back = store.path().join("back");
    let there = back.display().to_string();
    store.coracle(&["cp", "-a", "one:/kept", &there]).ok();
    let status = fs::metadata(back).unwrap();
    assert_eq!((status.uid(), status.gid()), (33, 70));
    let stream = store.coracle(&["cp", "one:/kept", "-"]).ok();
    assert!(stream.contains("0000041\0"), "the tar's number is 33");
    chown(&here, Some(70_000), None).unwrap();
    let output = store.coracle(&["cp", "-a", &here, "one:/kept"]);
    output.fails_with(1, "the user 70000 is none of the container's");
    // What was given back is given again.
    store.coracle(&["rm", "-f", "one"]).ok();
    run(&store, &flags("three"), work).ok();
    assert_eq!(map("three"), one);
}

/// Proved with a device that is made where it is to be bound, and with a source that nobody looks at.
#[test]
fn a_device_has_another_name_with_ids_of_its_own() {
    let store = Store::new();
    requires!(
        can_map(&store) && kernel_since(5, 12),
        "the file system of /tmp has no id-mapped mounts"
    );
    image(&store, &json!({}));
    let flags = ["--rm", "--userns=auto", "--device", "/dev/null:/dev/nil"];
    let said = run(
        &store,
        &flags,
        "echo x > /dev/nil && stat -c %t:%T /dev/nil",
    )
    .ok();
    assert_eq!(said, "1:3\n");
    let flags = ["--rm", "--userns=auto", "--device", "/etc/hosts:/dev/nil"];
    run(&store, &flags, "true").fails_with(125, "/etc/hosts is not a device");
}

#[test]
fn ids_of_the_user_containers_are_given_and_end() {
    let store = Store::new();
    requires!(
        can_map(&store) && kernel_since(5, 12),
        "the file system of /tmp has no id-mapped mounts"
    );
    image(&store, &json!({}));
    let file = store.path().join("subuid");
    fs::write(&file, "containers:400000:131072\n").unwrap();
    // In a mount namespace with another /etc; what is mounted there is not to be undone here.
    let coracle = store.command(&[]);
    let words: Vec<_> = std::iter::once(coracle.get_program())
        .chain(coracle.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let (coracle, file) = (words.join(" "), file.display());
    let run = store.run_args_of(&["--userns=auto"], &[]).join(" ");
    let run = format!("{coracle} {run}");
    let said = shell(&format!(
        "unshare --mount --propagation slave sh -c '
            mount --bind {file} /etc/subuid; mount --bind {file} /etc/subgid
            {run} -d --name one localhost/app:1 sleep 1000 > /dev/null
            {run} -d --name two localhost/app:1 sleep 1000 > /dev/null
            for name in one two; do {coracle} exec $name cat /proc/self/uid_map; done
            {run} --rm localhost/app:1 true 2>&1
            {coracle} rm -f one two > /dev/null'"
    ));
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(
        words[..6],
        ["0", "400000", "65536", "0", "465536", "65536"],
        "{said}"
    );
    assert!(said.contains("no 65536 ids are free"), "{said}");
}

#[test]
fn what_is_not_there_is_said() {
    let store = Store::new();
    for (mode, why) in [
        ("keep-id", "it is for ordinary users"),
        ("nomap", "expected host, auto or keep-id"),
        ("container:web", "expected host, auto or keep-id"),
        ("auto", "--rootfs"),
    ] {
        let flag = format!("--userns={mode}");
        store.run(&[&flag, "--rm"], "true").fails_with(125, why);
    }
}
