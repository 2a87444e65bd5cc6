//! Containers of images that an ordinary user runs, with ranges of ids and with the user's own id only.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime_tests::{
    Account, Hierarchy, Ids, Store, by_systemd, eventually, has_program, hierarchy, kernel_since,
    requires, runtime, shell,
};
use serde_json::json;

use super::images::image;

macro_rules! requires_overlay {
    () => {
        requires!(
            kernel_since(5, 11),
            "overlay in user namespaces takes Linux 5.11"
        );
    };
}

/// A user with a store that root has filled with an image.
struct User {
    account: Account,
    store: Store,
    layout: PathBuf,
}

impl User {
    fn new(ids: Ids) -> Self {
        Self::with(Account::new(ids))
    }

    fn with(account: Account) -> Self {
        let store = Store::new();
        fs::create_dir(store.rootfs().join("data")).unwrap();
        shell(&format!("chown 1000 {}/data", store.rootfs().display()));
        image(
            &store,
            &json!({ "Cmd": ["true"], "Volumes": { "/data": {} } }),
        );
        let home = store.path().join("home");
        fs::create_dir(&home).unwrap();
        shell(&format!(
            "chmod 755 {}; chown {} {}",
            store.path().display(),
            Account::ID,
            home.display()
        ));
        let tun = home.join("tun");
        // As it is on most machines.
        let account = account.after(&format!(
            "mknod -m 666 {0} c 10 200; mount --bind {0} /dev/net/tun; rm {0}",
            tun.display()
        ));
        let user = User {
            account,
            layout: store.path().join("image"),
            store,
        };
        user.coracle(&["pull", &format!("oci:{}", user.layout.display())])
            .ok();
        user
    }

    /// On a machine whose kernel has not loaded the driver.
    fn without_tun(mut self) -> Self {
        let account = Account::new(Ids::Ranges);
        self.account = account.after("mount -t tmpfs none /dev/net");
        self
    }

    fn home(&self) -> PathBuf {
        self.store.path().join("home")
    }

    fn coracle(&self, args: &[&str]) -> runtime_tests::Output {
        let mut command: Command = self.account.command(Path::new(&runtime()));
        command
            .arg("--root")
            .arg(self.home().join("run"))
            .arg("--store")
            .arg(self.home().join("store"))
            .args(args);
        runtime_tests::finish(command, self.store.path())
    }

    fn run(&self, flags: &[&str], script: &str) -> runtime_tests::Output {
        let args = [&["run"], flags, &["localhost/app:1", "sh", "-c", script]];
        self.coracle(&args.concat())
    }

    /// Nothing of a container is left.
    #[track_caller]
    fn assert_nothing_left(&self) {
        for place in ["run", "store/containers", "store/names", "store/volumes"] {
            let entries = fs::read_dir(self.home().join(place)).into_iter().flatten();
            let left: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let home = self.home().display().to_string();
        eventually("no process of the user's is left", || {
            let found = shell(&format!("pgrep -f {home} || true"));
            let own = std::process::id().to_string();
            let mut others = found.lines().filter(|pid| {
                *pid != own
                    && fs::read(format!("/proc/{pid}/cmdline"))
                        .is_ok_and(|line| line.starts_with(b"pasta"))
            });
            others.next().is_none().then_some(())
        });
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let names = fs::read_dir(self.home().join("store/names"))
            .into_iter()
            .flatten();
        for name in names.flatten() {
            self.coracle(&["rm", "-f", &name.file_name().to_string_lossy()]);
        }
    }
}

#[test]
fn an_image_runs_with_the_ids_there_are() {
    requires_overlay!();
    for ids in [Ids::Ranges, Ids::Own] {
        let user = User::new(ids);
        let script = "id -u; echo mine > /data/file; cat /data/file; echo x > /file";
        let output = user.run(&["--rm", "--network=none"], script);
        assert_eq!(output.ok(), "0\nmine\n");
        let host = user.run(
            &["--rm", "--network=host"],
            "ls /sys > /dev/null; echo host",
        );
        assert_eq!(host.ok(), "host\n");
        let other = user.run(&["--rm", "--network=none", "-u", "1000"], "id -u");
        match ids {
            Ids::Ranges => assert_eq!(other.ok(), "1000\n"),
            Ids::Own => other.fails_with(125, "not mapped in the user namespace"),
        }
        user.run(&["--rm", "--network=cni:x"], "true")
            .fails_with(125, "takes root");
        user.assert_nothing_left();
    }
}

/// A user can make no device, so it is bound, wherever it is to be.
#[test]
fn a_device_is_where_it_is_wanted() {
    requires_overlay!();
    let user = User::new(Ids::Ranges);
    for at in ["/dev/nil", "/srv/dev/nil"] {
        let device = format!("/dev/null:{at}:rw");
        let flags = ["--rm", "--network=none", "--device", &device];
        let said = user.run(&flags, &format!("echo x > {at} && stat -c %t:%T {at}"));
        assert_eq!(said.ok(), "1:3\n");
    }
    user.run(
        &["--rm", "--network=none", "--device=/etc/hosts:/dev/x"],
        "true",
    )
    .fails_with(125, "/etc/hosts is not a device");
    user.assert_nothing_left();
}

#[test]
fn where_users_have_no_overlay_an_image_is_unpacked_and_run() {
    let user = User::new(Ids::Ranges);
    if !kernel_since(5, 11) {
        user.run(&["--rm", "--network=none"], "true")
            .fails_with(125, "takes Linux 5.11");
        user.assert_nothing_left();
    }
    let bundle = user.home().join("bundle").display().to_string();
    user.coracle(&["unpack", "localhost/app:1", &bundle]).ok();
    let run = ["run", "--rm", "--network=none", "--rootfs"];
    let rootfs = format!("{bundle}/rootfs");
    let said =
        user.coracle(&[&run[..], &[&rootfs, "sh", "-c", "id -u; stat -c %u /data"]].concat());
    assert_eq!(said.ok(), "0\n1000\n");
    user.assert_nothing_left();
}

#[test]
fn keep_id_makes_the_user_themselves() {
    requires_overlay!();
    let user = User::new(Ids::Ranges);
    let home = user.home();
    let bind = format!("{}:/home", home.display());
    let flags = [
        "-d",
        "--name=web",
        "--network=none",
        "--userns=keep-id",
        "-v",
        &bind,
    ];
    let script = "id -u; id -g; stat -c %u /bin /data /home; echo mine > /home/file && echo written; exec sleep 1000";
    user.run(&flags, script).ok();
    let expected = "4242\n4242\n0\n1000\n4242\nwritten\n";
    eventually("it has said everything", || {
        (user.coracle(&["logs", "web"]).stdout == expected).then_some(())
    });
    assert_eq!(fs::metadata(home.join("file")).unwrap().uid(), Account::ID);
    let root = user.coracle(&[
        "exec",
        "-u",
        "0",
        "web",
        "sh",
        "-c",
        "id -u; touch /bin/x && echo fine",
    ]);
    assert_eq!(root.ok(), "0\nfine\n");
    // Known again when it is started again.
    user.coracle(&["restart", "-t", "0", "web"]).ok();
    let said = user.coracle(&["exec", "web", "id", "-u"]).ok();
    assert_eq!(said, "4242\n");
    user.coracle(&["rm", "-fv", "web"]).ok();
    user.run(&["--rm", "--network=none", "--userns=auto"], "true")
        .fails_with(125, "it takes root");
    user.assert_nothing_left();
    let user = User::new(Ids::Own);
    user.run(&["--rm", "--network=none", "--userns=keep-id"], "true")
        .fails_with(125, "takes ranges of ids for the user in /etc/subuid");
}

#[test]
fn limits_hold_in_a_delegated_cgroup() {
    requires_overlay!();
    requires!(
        hierarchy() == Hierarchy::V2 && !by_systemd(),
        "only cgroup v2 is delegated to users, and theirs has no systemd here"
    );
    let user = User::with(Account::new(Ids::Ranges).with_cgroup("memory pids"));
    let limits = ["--network=none", "-m", "64m", "--pids-limit", "50"];
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
    let said = user.run(&[&["--rm"][..], &limits].concat(), script);
    assert_eq!(said.ok(), "67108864\n50\n");
    let named = [&["-d", "--name=web"][..], &limits].concat();
    user.run(&named, "exec sleep 1000").ok();
    let shown = user.coracle(&["stats", "--no-stream", "web"]).ok();
    assert!(shown.contains("/ 64MiB"), "{shown}");
    user.coracle(&["rm", "-f", "web"]).ok();
    user.assert_nothing_left();
}

/// The user of the test machines whose systemd makes scopes, as that of somebody who has logged in.
#[test]
fn limits_hold_in_a_scope_of_the_users_systemd() {
    const USER: u32 = 1000;
    requires_overlay!();
    requires!(
        hierarchy() == Hierarchy::V2 && by_systemd(),
        "the user's systemd makes cgroups in test machines only (vm test --init systemd --env CGROUP_MANAGER=systemd)"
    );
    let store = Store::new();
    image(&store, &json!({ "Cmd": ["true"] }));
    let home = store.path().join("home");
    fs::create_dir(&home).unwrap();
    shell(&format!(
        "chmod 755 {}; chown {USER} {}; systemctl start user@{USER}.service",
        store.path().display(),
        home.display()
    ));
    let coracle = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--init-groups", "--inh-caps=-all"])
            .args([format!("--reuid={USER}"), format!("--regid={USER}")])
            .arg(runtime())
            .args(["--systemd-cgroup", "--store"])
            .arg(home.join("store"))
            .args(args)
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", format!("/run/user/{USER}"))
            .env_remove("DBUS_SESSION_BUS_ADDRESS");
        runtime_tests::finish(command, store.path())
    };
    let layout = format!("oci:{}", store.path().join("image").display());
    coracle(&["pull", &layout]).ok();
    let run = ["run", "--network=none", "-m", "64m", "--pids-limit", "50"];
    let limits = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
    let once = ["--rm", "localhost/app:1", "sh", "-c", limits];
    let said = coracle(&[&run[..], &once].concat()).ok();
    assert_eq!(said, "67108864\n50\n");
    let named = ["-d", "--name=web", "localhost/app:1", "sleep", "1000"];
    coracle(&[&run[..], &named].concat()).ok();
    let shown = coracle(&["inspect", "web"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let pid = &shown[0]["State"]["Pid"];
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.contains(&format!("user@{USER}.service")), "{cgroup}");
    let shown = coracle(&["stats", "--no-stream", "web"]).ok();
    assert!(shown.contains("/ 64MiB"), "{shown}");
    coracle(&["rm", "-f", "web"]).ok();
    let cgroup = Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches("0::/").trim_end());
    assert!(!cgroup.exists(), "{}", cgroup.display());
}

/// Nothing counts for a container without a cgroup, but its processes can be looked at.
#[test]
fn stats_know_what_the_processes_tell() {
    requires_overlay!();
    let user = User::new(Ids::Ranges);
    user.run(
        &["-d", "--name=web", "--network=none"],
        "sleep 1000 & exec sleep 1000",
    )
    .ok();
    let shown = user
        .coracle(&["stats", "--no-stream", "--format=json", "web"])
        .ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["Name"], &shown["PIDs"]),
        (&json!("web"), &json!("2"))
    );
    assert!(
        shown["MemUsage"]
            .as_str()
            .is_some_and(|usage| !usage.starts_with("0B")),
        "{shown}"
    );
    user.coracle(&["rm", "-f", "web"]).ok();
}

#[test]
fn a_machine_without_tun_is_told_what_to_do() {
    requires_overlay!();
    requires!(has_program("pasta"), "pasta is missing (package passt)");
    let user = User::new(Ids::Ranges).without_tun();
    user.run(&["--rm"], "true").fails_with(125, "modprobe tun");
    user.assert_nothing_left();
}

#[test]
fn a_monitor_that_is_killed_loses_no_container() {
    requires_overlay!();
    let user = User::new(Ids::Ranges);
    let script = "mkdir /own; chown 7 /own; while :; do sleep 0.1; done";
    user.run(&["-d", "--name=web", "--network=none"], script)
        .ok();
    user.coracle(&["exec", "web", "id", "-u"]).ok();
    let id = fs::read_link(user.home().join("store/names/web")).unwrap();
    shell(&format!(
        "for p in $(pgrep -f 'coracle-monitor web'); do ls -l /proc/$p/fd | grep -q {} && kill -9 $p; done; true",
        id.display()
    ));
    assert!(user.coracle(&["list"]).ok().contains("Up "));
    let source = user.layout.join("oci-layout");
    user.coracle(&["cp", &source.display().to_string(), "web:/own/file"])
        .ok();
    user.coracle(&["restart", "-t", "0", "web"]).ok();
    let seen = user.coracle(&["exec", "web", "ls", "/own"]).ok();
    assert_eq!(seen, "file\n");
    user.coracle(&["stop", "-t", "0", "web"]).ok();
    user.coracle(&["cp", "web:/own/file", "-"]).ok();
    user.coracle(&["rm", "-v", "web"]).ok();
    user.assert_nothing_left();
}

#[test]
fn pasta_publishes_ports_and_goes_with_the_container() {
    requires_overlay!();
    requires!(has_program("pasta"), "pasta is missing (package passt)");
    let user = User::new(Ids::Ranges);
    let serve = "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www";
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let publish = format!("127.0.0.1:{port}:80");
    user.run(&["-d", "--name=web", "-p", &publish], serve).ok();
    eventually("the port answers", || {
        let answer = shell(&format!("curl -s -m 5 http://127.0.0.1:{port}/ || true"));
        answer.contains("hello").then_some(())
    });
    user.run(&["--rm", "-p", &publish], "true").fails(125);
    user.coracle(&["rm", "-f", "web"]).ok();
    user.assert_nothing_left();
    user.run(&["--rm"], "true").ok();
    user.assert_nothing_left();
}
