//! Networks that other programs make.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use runtime_tests::{Output, fill_rootfs, has_program, is_coracle, kernel_has, requires, runtime};

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

/// A network as Debian's plugins make it, with published ports.
fn bridge_and_portmap(data: &Path) -> String {
    let list = serde_json::json!({
        "cniVersion": "1.0.0", "name": "web-net",
        "plugins": [
            { "type": "bridge", "bridge": "cni7", "isGateway": true, "ipMasq": true,
              "ipam": { "type": "host-local", "dataDir": data, "ranges": [[{ "subnet": "10.77.0.0/24" }]],
                        "routes": [{ "dst": "0.0.0.0/0" }] } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    list.to_string()
}

/// How many addresses are on loan.
fn given_addresses(data: &Path) -> usize {
    let entries = fs::read_dir(data.join("web-net")).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("10."))
        .count()
}

#[test]
fn plugins_of_cni_make_a_network() {
    requires!(
        kernel_has("/usr/lib/cni/portmap"),
        "the CNI plugins are missing (containernetworking-plugins)"
    );
    let machine = Machine::new();
    let data = machine.store().join("ipam");
    let configurations = configure(&machine, "10-web.conflist", &bridge_and_portmap(&data));
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
    assert_eq!(given_addresses(&data), 0);
    let output = run(&["attach-cni", "web-net", "web", &web.path()]);
    assert!(
        output
            .stderr
            .contains("no CNI network has the name \"web-net\""),
        "{output:?}"
    );
}

/// host-local writes the addresses that it lends onto the disk, where they outlive the containers. Proved without `lost`: the
/// attachments of an earlier boot dropped like the others.
#[test]
fn an_address_is_given_back_after_a_restart_of_the_machine() {
    requires!(
        kernel_has("/usr/lib/cni/portmap"),
        "the CNI plugins are missing (containernetworking-plugins)"
    );
    let machine = Machine::new();
    let data = machine.store().join("ipam");
    let configurations = configure(&machine, "10-web.conflist", &bridge_and_portmap(&data));
    let run = |args: &[&str]| with_cni(&machine, &configurations, args);
    let attach = || {
        let web = Namespace::new();
        let output = run(&["attach-cni", "web-net", "web", &web.path(), "-p", "8080:80"]);
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(given_addresses(&data), 1);
    };
    attach();
    let state = machine.store().join("network/state.json");
    let mut before: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    before["boot"] = "an earlier one".into();
    fs::write(&state, before.to_string()).unwrap();
    for _ in 0..2 {
        let output = run(&["detach", "web"]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
        assert_eq!(given_addresses(&data), 0);
    }
    attach();
    assert_eq!(run(&["detach", "web"]).code, 0);
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

/// Its own container waits for it, and nobody else.
#[test]
fn a_plugin_that_hangs_is_waited_for_by_nobody_else() {
    let machine = Machine::new();
    let plugins = machine.store().join("plugins");
    fs::create_dir(&plugins).unwrap();
    let pid = machine.store().join("pid");
    let script = format!(
        "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\necho $$ > {0}.new; mv {0}.new {0}\nexec sleep 1000\n",
        pid.display()
    );
    fs::write(plugins.join("hang"), script).unwrap();
    finish(
        std::process::Command::new("chmod")
            .arg("755")
            .arg(plugins.join("hang")),
    );
    let list = r#"{"cniVersion":"1.0.0","name":"slow","plugins":[{"type":"hang"}]}"#;
    let configurations = configure(&machine, "slow.conflist", list);
    let (one, two) = (Namespace::new(), Namespace::new());
    let mut waiting = machine.command(&["attach-cni", "slow", "one", &one.path()]);
    waiting
        .env("NETCONFPATH", &configurations)
        .env("CNI_PATH", &plugins)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    let pid = runtime_tests::eventually("the plugin works", || fs::read_to_string(&pid).ok());
    let _two = machine.attach("two", &two, &["-p", "8080:80"]);
    machine.detach("two");
    finish(std::process::Command::new("kill").arg(pid.trim()));
    let output = waiting.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("execute CNI plugin \"hang\" with ADD"),
        "{error}"
    );
    machine.assert_clean();
}

/// From `run` to its removal.
#[test]
fn a_container_of_an_image_has_a_network_of_cni() {
    requires!(is_coracle(), "images are Coracle's");
    requires!(
        kernel_has("/usr/lib/cni/portmap"),
        "the CNI plugins are missing (containernetworking-plugins)"
    );
    let machine = Machine::new();
    let data = machine.store().join("ipam");
    let configurations = configure(&machine, "10-web.conflist", &bridge_and_portmap(&data));
    let rootfs = machine.store().join("rootfs");
    fill_rootfs(&rootfs);
    fs::write(rootfs.join("index.html"), "hello\n").unwrap();
    let coracle = |args: &[&str]| {
        let program = runtime();
        let mut command = machine.host.command(program.to_str().unwrap());
        command
            .env("NETCONFPATH", &configurations)
            .arg("--root")
            .arg(machine.store().join("run"))
            .arg("--store")
            .arg(machine.store())
            .args(args);
        finish(command.stdin(Stdio::null()))
    };
    let rootfs = rootfs.display().to_string();
    let run = [
        "run",
        "-d",
        "--name=web",
        "--network=cni:web-net",
        "-p",
        "8080:80",
        "--rootfs",
        &rootfs,
    ];
    let started = coracle(&[&run[..], &["httpd", "-f", "-p", "80", "-h", "/"]].concat());
    let shown = coracle(&["network", "inspect", "cni:web-net"]).stdout;
    let hosts = coracle(&["exec", "web", "cat", "/etc/hosts"]).stdout;
    let answer = machine.neighbour.sh(
        "for i in $(seq 100); do curl -s http://192.0.2.1:8080/index.html && break; sleep 0.1; done",
    );
    let ports = coracle(&["port", "web"]).stdout;
    let removed = coracle(&["rm", "-f", "web"]);
    started.ok();
    removed.ok();
    assert!(shown.contains("10.77.0.2/24"), "{shown}");
    assert!(hosts.contains("10.77.0.2\t"), "{hosts}");
    assert_eq!(answer, "hello\n");
    assert_eq!(ports, "80/tcp -> 0.0.0.0:8080\n");
    assert_eq!(machine.neighbour.ask("tcp", "192.0.2.1:8080"), "refused");
    assert_eq!(given_addresses(&data), 0);
    let missing = coracle(&["run", "--network=cni:other", "--rootfs", &rootfs, "true"]);
    missing.fails_with(125, "no CNI network has the name \"other\"");
}

/// CVE-2021-20206. Proved with a type that is only looked for.
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

/// A client keeps its address (CVE-2021-20199). Proved with a proxy in front of pasta.
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
    assert_eq!(answer, "web 192.0.2.2", "the client's own address");
    assert!(
        shown.stdout.contains("eth0") && shown.stdout.contains("192.0.2.1/24"),
        "{shown:?}"
    );
    assert!(detached.code == 0 && !pid_file.exists(), "{detached:?}");
}
