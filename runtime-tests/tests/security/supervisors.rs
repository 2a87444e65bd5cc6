//! Who stays beside a container: its monitor, or a shim. What they can be made to spend, who may talk to them, and what a container has
//! of them.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use runtime_tests::ttrpc::{Alone, NOT_FOUND, OK, frame, text};
use runtime_tests::{
    Store, eventually, has_program, is_coracle, long, pids_in_cgroups_named, requires, rootless,
    shell,
};

/// A connection to a container's monitor that gets the output.
fn attach(store: &Store, name: &str) -> OwnedFd {
    let directory = File::open(store.directory(name)).unwrap();
    // The whole path is too long for an address.
    let path = format!("/proc/self/fd/{}/control.sock", directory.as_raw_fd());
    let client = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    setsockopt(&client, sockopt::ReceiveTimeout, &TimeVal::seconds(60)).unwrap();
    connect(client.as_raw_fd(), &UnixAddr::new(path.as_str()).unwrap()).unwrap();
    // It may be turned away.
    let _ = send(client.as_raw_fd(), b"a", MsgFlags::MSG_NOSIGNAL);
    client
}

/// Attaches and waits for a piece of output; `None` for who is turned away.
fn hear(store: &Store, name: &str) -> Option<()> {
    let client = attach(store, name);
    let mut message = [0; 32 << 10];
    let length = recv(client.as_raw_fd(), &mut message, MsgFlags::empty()).ok()?;
    (length > 1 && message[0] == b'o').then_some(())
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn private_kilobytes(pid: i32) -> usize {
    let line = shell(&format!("grep ^Private_Dirty /proc/{pid}/smaps_rollup"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// CVE-2025-64329, CVE-2022-31030: those who attach and go leave nothing behind. (For the shim and `exec`, see `cri`.) Proved with clients
/// that are kept when they have gone.
#[test]
fn many_attaches_leave_the_monitor_as_it_is() {
    requires!(is_coracle(), "only Coracle has monitors");
    let store = Store::new();
    store.detached("web", &[], "while :; do echo line; sleep 0.01; done");
    let monitor = store.monitor("web");
    let times = if long() { 10_000 } else { 200 };
    let attach_and_go = |times| (0..times).for_each(|_| hear(&store, "web").expect("output"));
    attach_and_go(times / 10);
    let before = (descriptors(monitor), private_kilobytes(monitor));
    attach_and_go(times);
    eventually("nobody is attached", || {
        (descriptors(monitor) <= before.0).then_some(())
    });
    let after = private_kilobytes(monitor);
    assert!(
        after <= before.1 + 64,
        "{after} kB, and {} kB before",
        before.1
    );
}

/// CVE-2025-64329: those who attach and do not read make the container wait, and not its monitor grow; more than it serves are turned away.
/// Proved with output that is read whoever is behind: 250 MB.
#[test]
fn those_who_do_not_read_cost_little() {
    requires!(is_coracle(), "only Coracle has monitors");
    let store = Store::new();
    store.detached(
        "web",
        &[],
        "while :; do head -c 65536 /dev/zero | tr '\\0' x; done",
    );
    let monitor = store.monitor("web");
    let idle: Vec<OwnedFd> = (0..300).map(|_| attach(&store, "web")).collect();
    let written =
        || fs::metadata(store.directory("web").join("json.log")).map_or(0, |log| log.len());
    // The container waits: the log does not grow any more.
    let mut before = 0;
    eventually("the container waits", || {
        let (last, now) = (before, written());
        before = now;
        std::thread::sleep(std::time::Duration::from_millis(200));
        (last == now && written() == now).then_some(())
    });
    let used = private_kilobytes(monitor);
    // A message and a descriptor for each of 256.
    assert!(used < 16 << 10, "{used} kB");
    assert!(descriptors(monitor) < 300);
    drop(idle);
    eventually("somebody is served again", || hear(&store, "web"));
}

/// What is inherited by everything in a container would be seen, and felt, in all of them: the reason why supervisors have no filter of
/// their own. A container's filter is the one of its configuration. Proved with a monitor that sets no_new_privs.
#[test]
fn a_monitors_container_has_nothing_of_it() {
    requires!(is_coracle(), "only Coracle has monitors");
    let store = Store::new();
    let flags = ["--security-opt", "seccomp=unconfined"];
    let script =
        "grep -E '^(NoNewPrivs|Seccomp|Seccomp_filters):' /proc/self/status; /bin/inside fds";
    assert_eq!(
        store.run(&flags, script).ok(),
        "NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n0 1 2\n"
    );
}

/// A shim with a container that runs.
fn shim() -> Alone {
    let alone = Alone::new("sleep 1000000");
    let mut client = alone.connect();
    assert_eq!(client.call("Create", &alone.create("")).0, OK);
    assert_eq!(client.call("Start", &text(1, "box")).0, OK);
    alone
}

fn end(alone: &Alone) {
    let mut client = alone.connect();
    let kill = [text(1, "box"), runtime_tests::ttrpc::number(3, 9)].concat();
    assert_eq!(client.call("Kill", &kill).0, OK);
    assert_eq!(client.call("Wait", &text(1, "box")).0, OK);
    assert_eq!(client.call("Delete", &text(1, "box")).0, OK);
    client.call("Shutdown", &text(1, "box"));
    alone.wait_until_empty();
}

/// The same of a shim. Proved with a shim that sets no_new_privs, and with descriptors that are not closed.
#[test]
fn a_shims_container_has_nothing_of_it() {
    requires!(rootless().is_none(), "containerd is root's");
    let alone = shim();
    for pid in pids_in_cgroups_named(&alone.host.name) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t0\nSeccomp:\t0\n"), "{status}");
        assert_eq!(descriptors(pid), 3);
    }
    end(&alone);
}

/// CVE-2020-15257: nobody but root talks to a shim. Its socket is a file that only its owner reaches, no abstract one, which everybody in
/// the network namespace does; and a stranger who gets that far hears nothing. Proved with a socket of mode 0666, and without the look
/// at the peer.
#[test]
fn the_socket_of_a_shim_is_its_owners() {
    requires!(
        is_coracle(),
        "containerd's own shim makes the directory for root, whose rights need no bits"
    );
    requires!(rootless().is_none(), "containerd is root's");
    requires!(has_program("socat"), "socat is not installed");
    let alone = shim();
    let sockets = alone.host.sh("cat /proc/net/unix");
    assert!(!sockets.contains('@'), "{sockets}");
    let address = sockets
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7))
        .find(|path| alone.root(path).exists() && path.starts_with("/run"))
        .expect("it listens at a file");
    let path = alone.root(address);
    let mode = |path: &std::path::Path| shell(&format!("stat -c %a {}", path.display()));
    assert_eq!(mode(&path), "600\n");
    assert_eq!(mode(path.parent().unwrap()), "700\n");
    // Even where somebody has opened the way.
    shell(&format!("chmod 666 {}", path.display()));
    for above in path.ancestors().skip(1).take(3) {
        shell(&format!("chmod 755 {}", above.display()));
    }
    let request = [text(1, "containerd.task.v2.Task"), text(2, "State")].concat();
    let request = frame(request.len() as u32, 1, 1, &request);
    let file = alone.host.path("request");
    fs::write(&file, request).unwrap();
    shell(&format!("chmod 755 {}", alone.host.path("").display()));
    let ask = |user: &str| {
        let line = format!(
            "setpriv --reuid={user} --regid={user} --clear-groups socat -t 5 - UNIX-CONNECT:{address} < {} | wc -c",
            file.display()
        );
        alone.host.sh(&line).trim().parse::<usize>().unwrap()
    };
    assert!(ask("0") > 0, "the owner is answered");
    assert_eq!(ask("4242"), 0, "a stranger is not");
    let (code, _) = alone.connect().call("State", &text(1, "none"));
    assert_eq!(code, NOT_FOUND, "and it serves on");
    end(&alone);
}
