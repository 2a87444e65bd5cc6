//! User namespaces: mapped ids, and what a user other than root can do.

use std::os::unix::fs::chown;

use runtime_tests::{Container, is_coracle, is_runc_since, requires, rootless, shell};
use serde_json::json;

fn mapped(mut c: Container) -> Container {
    c.push("/linux/namespaces", json!({ "type": "user" }));
    c.set(
        "/linux/uidMappings",
        json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]),
    );
    c.set(
        "/linux/gidMappings",
        json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]),
    );
    for entry in ["", "/*", "/*/*"] {
        shell(&format!(
            "chown -h 100000:200000 {}{entry} 2>/dev/null || true",
            c.rootfs().display()
        ));
    }
    c
}

#[test]
fn root_inside_is_another_user_outside() {
    requires!(rootless().is_none(), "root chooses the mappings");
    let c = mapped(Container::new(
        "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; touch /made; sleep 1000000",
    ));
    c.run_detached();
    let seen = c.wait_to_say("200000");
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(
        words,
        ["0", "0", "0", "100000", "65536", "0", "200000", "65536"]
    );
    assert_eq!(
        shell(&format!("stat -c %u:%g /proc/{}", c.pid())),
        "100000:200000\n"
    );
    runtime_tests::eventually("the file", || {
        c.rootfs().join("made").exists().then_some(())
    });
    assert_eq!(
        shell(&format!("stat -c %u:%g {}/made", c.rootfs().display())),
        "100000:200000\n"
    );
}

#[test]
fn exec_joins_the_user_namespace() {
    requires!(rootless().is_none(), "root chooses the mappings");
    let c = mapped(Container::idle());
    c.run_detached();
    assert_eq!(
        c.exec("id -u; awk '{print $2}' /proc/self/uid_map").ok(),
        "0\n100000\n"
    );
    assert_eq!(
        c.exec_with(&["--user", "1000"], &["id", "-u"]).ok(),
        "1000\n"
    );
}

#[test]
fn the_devices_and_file_systems_work_there_too() {
    requires!(rootless().is_none(), "root chooses the mappings");
    let c = mapped(Container::new(
        "echo x > /dev/null && head -c 2 /dev/zero | wc -c; ls /sys/class > /dev/null; touch /dev/shm/x; hostname; ip -o link | wc -l; tty",
    ));
    let output = c.run();
    assert!(output.stdout.starts_with("2\ninside\n1\n"), "{output:?}");
}

#[test]
fn many_mappings() {
    requires!(rootless().is_none(), "root chooses the mappings");
    let mut c = mapped(Container::new("wc -l < /proc/self/uid_map"));
    // 340 lines are the kernel's limit.
    let lines: Vec<_> = (0..300)
        .map(|n| json!({ "containerID": n, "hostID": 100_000 + 2 * n, "size": 1 }))
        .collect();
    c.set("/linux/uidMappings", json!(lines));
    assert_eq!(c.run().ok(), "300\n");
}

#[test]
fn too_many_mappings_are_an_error() {
    requires!(rootless().is_none(), "root chooses the mappings");
    // CVE-2021-43784: a length that overflowed. Proved without the count of the mappings; the kernel's own refusal says something else.
    let mut c = mapped(Container::new("true"));
    let lines: Vec<_> = (0..6000)
        .map(|n| json!({ "containerID": n, "hostID": 100_000 + 2 * n, "size": 1 }))
        .collect();
    c.set("/linux/uidMappings", json!(lines));
    let output = c.run();
    let why = if is_coracle() { "340 mappings" } else { "" };
    assert!(
        output.code != 0 && !output.stderr.is_empty() && output.message().contains(why),
        "{output:?}"
    );
    c.assert_nothing_left();
}

#[test]
fn a_user_namespace_without_mappings_is_refused() {
    requires!(rootless().is_none(), "root chooses the mappings");
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 starts such a container as the overflow user"
    );
    let mut c = Container::new("id -u");
    c.push("/linux/namespaces", json!({ "type": "user" }));
    let output = c.run();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.message().contains("uidMappings") || output.message().contains("mapping"),
        "{output:?}"
    );
    c.assert_nothing_left();
}

#[test]
fn a_user_that_is_not_mapped_is_an_error() {
    requires!(rootless().is_none(), "root chooses the mappings");
    let mut c = mapped(Container::new("id -u"));
    c.set("/process/user", json!({ "uid": 70_000, "gid": 0 }));
    let output = c.run();
    assert_ne!(output.code, 0, "{output:?}");
    assert!(!output.stderr.is_empty());
    c.assert_nothing_left();
}

#[test]
fn a_user_namespace_can_be_joined_by_its_path() {
    requires!(rootless().is_none(), "root chooses the mappings");
    let holder = mapped(Container::idle());
    holder.run_detached();
    let mut c = mapped(Container::new("id -u; awk '{print $2}' /proc/self/uid_map"));
    let namespaces = c.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "user");
    namespaces.push(json!({ "type": "user", "path": format!("/proc/{}/ns/user", holder.pid()) }));
    c.unset("/linux/uidMappings").unset("/linux/gidMappings");
    if !is_coracle() {
        c.set(
            "/linux/uidMappings",
            holder.config["linux"]["uidMappings"].clone(),
        );
        c.set(
            "/linux/gidMappings",
            holder.config["linux"]["gidMappings"].clone(),
        );
    }
    let output = c.run();
    requires!(
        is_coracle() || output.code == 0,
        "runc 1.1 takes no mappings beside a path"
    );
    assert_eq!(output.ok(), "0\n100000\n");
}

#[test]
fn spec_rootless_runs_as_a_user_without_root() {
    requires!(rootless().is_none(), "root chooses the mappings");
    requires!(
        runtime_tests::has_program("setpriv"),
        "util-linux's setpriv is missing"
    );
    let c = Container::new("true");
    let home = c.dir().join("home");
    shell(&format!(
        "mkdir -p {0}/bundle/rootfs && cp -a {1}/. {0}/bundle/rootfs/",
        home.display(),
        c.rootfs().display()
    ));
    shell(&format!("chown -R 4242:4242 {}", home.display()));
    let line = format!(
        "cd {0}/bundle && export XDG_RUNTIME_DIR={0} HOME={0} && {1} spec --rootless && sed -i 's/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"id\"/' config.json && {1} --root {0}/state run {2}",
        home.display(),
        runtime_tests::runtime().display(),
        c.id
    );
    let mut command = std::process::Command::new("setpriv");
    command.args([
        "--reuid=4242",
        "--regid=4242",
        "--clear-groups",
        "sh",
        "-c",
        &line,
    ]);
    let output = c.finish(command);
    let seen = output.ok();
    assert!(seen.starts_with("uid=0(root) gid=0(root)"), "{seen}");
    let _ = chown(&home, Some(0), Some(0));
}
