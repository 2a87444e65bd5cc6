//! Networks that other programs make.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use runtime_tests::{Output, has_program, kernel_has, requires};

use crate::machine::{Machine, Namespace, Running, finish};

/// Makes a directory with one configuration of CNI.
fn configure(machine: &Machine, file: &str, text: &str) -> PathBuf {
    let directory = machine.store().join("net.d");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join(file), text).unwrap();
    directory
}

fn with_cni(machine: &Machine, configurations: &Path, args: &[&str]) -> Output {
    let mut command = machine.command(args);
    let command = command.env("NETCONFPATH", configurations);
    finish(command.stdin(Stdio::null()))
}

#[test]
fn plugins_of_cni_make_a_network() {
    requires!(
        kernel_has("/usr/lib/cni/portmap"),
        "the CNI plugins are missing (containernetworking-plugins)"
    );
    let machine = Machine::new();
    let data = machine.store().join("ipam");
    let list = serde_json::json!({
        "cniVersion": "1.0.0", "name": "web-net",
        "plugins": [
            { "type": "bridge", "bridge": "cni7", "isGateway": true, "ipMasq": true,
              "ipam": { "type": "host-local", "dataDir": data, "ranges": [[{ "subnet": "10.77.0.0/24" }]],
                        "routes": [{ "dst": "0.0.0.0/0" }] } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    let configurations = configure(&machine, "10-web.conflist", &list.to_string());
    let web = Namespace::new();
    let run = |args: &[&str]| with_cni(&machine, &configurations, args);
    let output = run(&["attach-cni", "web-net", "web", &web.path(), "-p", "8080:80"]);
    assert!(output.stdout.contains("10.77.0.2/24"), "{output:?}");
    let _server = web.serve("web", &["80"]);
    assert_eq!(
        machine.neighbour.ask("tcp", "192.0.2.1:8080"),
        "web 192.0.2.2"
    );
    // What DEL needs is on record.
    fs::remove_dir_all(&configurations).unwrap();
    let output = run(&["detach", "web"]);
    assert!(output.code == 0, "{output:?}");
    assert_eq!(machine.neighbour.ask("tcp", "192.0.2.1:8080"), "refused");
    assert_eq!(
        fs::read_dir(data.join("web-net"))
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with("10.")
            })
            .count(),
        0
    );
    let output = run(&["attach-cni", "web-net", "web", &web.path()]);
    assert!(
        output
            .stderr
            .contains("no CNI network has the name \"web-net\""),
        "{output:?}"
    );
}

#[test]
fn plugins_look_whether_all_is_in_order() {
    requires!(
        kernel_has("/usr/lib/cni/ptp"),
        "the CNI plugins are missing (containernetworking-plugins)"
    );
    let machine = Machine::new();
    let data = machine.store().join("ipam");
    let single = serde_json::json!({
        "cniVersion": "1.0.0", "name": "one", "type": "ptp",
        "ipam": { "type": "host-local", "dataDir": data, "subnet": "10.78.0.0/24" },
    });
    let configurations = configure(&machine, "one.conf", &single.to_string());
    let web = Namespace::new();
    let run = |args: &[&str]| with_cni(&machine, &configurations, args);
    assert_eq!(run(&["attach-cni", "one", "web", &web.path()]).code, 0);
    let checked = run(&["check", "web"]);
    assert_eq!(checked.code, 0, "{checked:?}");
    web.sh("ip address flush dev eth0");
    assert_ne!(run(&["check", "web"]).code, 0);
    assert_eq!(run(&["detach", "web"]).code, 0);
}

#[test]
fn a_plugin_with_a_path_is_refused() {
    let machine = Machine::new();
    let list = r#"{"cniVersion":"1.0.0","name":"evil","plugins":[{"type":"../../../bin/sh"}]}"#;
    let configurations = configure(&machine, "evil.conflist", list);
    let web = Namespace::new();
    let output = with_cni(
        &machine,
        &configurations,
        &["attach-cni", "evil", "web", &web.path()],
    );
    assert!(
        output.stderr.contains("the type is not a plain file name"),
        "{output:?}"
    );
    machine.detach("web");
}

#[test]
fn pasta_serves_an_ordinary_user() {
    requires!(has_program("pasta"), "pasta is missing (package passt)");
    let machine = Machine::new();
    machine.host.sh("ip route add default via 192.0.2.2");
    let store = machine.store();
    finish(
        std::process::Command::new("chown")
            .args(["-R", "nobody"])
            .arg(store),
    );
    // As nobody, with /dev/net/tun as it is on most machines: a user namespace with a network namespace of its own.
    let tun = store.join("tun");
    let as_user = |command: &[&str]| {
        let mut user = machine.host.command("unshare");
        let script = "mknod -m 666 $0 c 10 200; mount --bind $0 /dev/net/tun; rm $0
                      exec setpriv --reuid nobody --regid nogroup --clear-groups -- \"$@\"";
        user.args(["--mount", "sh", "-e", "-c", script])
            .arg(&tun)
            .args(command);
        user
    };
    let unshare = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "sleep",
        "infinity",
    ];
    let mut holder = as_user(&unshare).spawn().unwrap();
    let namespace = |kind: &str| format!("/proc/{}/ns/{kind}", holder.id());
    runtime_tests::eventually("the user's namespaces", || {
        // With the last exec everything is as it will be.
        let name = fs::read_to_string(format!("/proc/{}/comm", holder.id())).ok();
        name.filter(|name| name == "sleep\n")
    });
    let network = store.join("network");
    let attach = |args: &[&str]| {
        let program = [env!("CARGO_BIN_EXE_attach"), network.to_str().unwrap()];
        finish(as_user(&[&program, args].concat()).stdin(Stdio::null()))
    };
    let (netns, userns) = (namespace("net"), namespace("user"));
    let output = attach(&["attach-pasta", "web", &netns, &userns, "-p", "8080:80"]);
    let pid_file = store.join("network/pasta-web.pid");
    let attached = output.code == 0 && pid_file.exists();
    let shown = finish(std::process::Command::new("nsenter").args([
        &format!("--net={netns}"),
        "ip",
        "-o",
        "address",
    ]));
    let mut server = std::process::Command::new("nsenter");
    server.args([
        &format!("--net={netns}"),
        env!("CARGO_BIN_EXE_attach"),
        "-",
        "serve",
        "web",
        "80",
    ]);
    let _server = Running::start(server);
    let answer = machine.neighbour.ask("tcp", "192.0.2.1:8080");
    let detached = attach(&["detach", "web"]);
    let _ = holder.kill();
    let _ = holder.wait();
    assert!(attached, "{output:?}");
    assert!(answer.starts_with("web "), "{answer}");
    assert!(
        shown.stdout.contains("eth0") && shown.stdout.contains("192.0.2.1/24"),
        "{shown:?}"
    );
    assert!(detached.code == 0 && !pid_file.exists(), "{detached:?}");
}
