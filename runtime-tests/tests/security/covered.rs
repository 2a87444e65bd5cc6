//! Files that a runtime writes to or masks with, and something else mounted over them or put in their place.

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use runtime_tests::{
    Account, Container, Ids, View, eventually, is_coracle, requires, rootless, shell,
};
use serde_json::json;

use crate::with_own_dev;

/// CVE-2025-52881, CVE-2025-62596, CVE-2019-16884: a mount of the configuration covers files that the runtime writes labels and kernel
/// parameters to, or is told to hide. Proved without the check of what is mounted below /proc.
#[test]
fn nothing_is_mounted_over_the_files_of_proc() {
    requires!(is_coracle(), "runc 1.1 mounts over the attributes");
    for destination in [
        "/proc/self",
        "/proc/self/attr",
        "/proc/self/attr/exec",
        "/proc/thread-self/attr",
        "/proc/sys",
        "/proc/sys/kernel/msgmax",
        "/proc/sysrq-trigger",
        "/proc/../proc/sys",
        "//proc//self/./attr",
    ] {
        for kind in ["tmpfs", "bind"] {
            let mut c = Container::new("echo ran");
            let fake = c.dir().join("fake");
            fs::create_dir(&fake).unwrap();
            let options = if kind == "bind" {
                json!(["bind"])
            } else {
                json!([])
            };
            c.push(
                "/mounts",
                json!({ "destination": destination, "type": kind, "source": fake, "options": options }),
            );
            let output = c.run();
            assert!(
                output.code == 1 && output.message().contains("/proc"),
                "{kind} {destination}: {output:?}"
            );
            c.assert_nothing_left();
        }
    }
}

/// CVE-2025-52881: a symbolic link of the image leads a mount there. Proved as above.
#[test]
fn no_link_leads_a_mount_over_the_files_of_proc() {
    requires!(is_coracle(), "runc 1.1 mounts there");
    for (destination, link, target) in [
        ("/volume/attr", "volume", "/proc/self"),
        ("/volume/sys", "volume", "/proc"),
        ("/way", "way", "/proc/sys/kernel"),
        ("/way", "way", "../../proc/self/attr"),
    ] {
        let mut c = Container::new("cat /proc/sys/kernel/msgmax /proc/self/attr/../status");
        symlink(target, c.rootfs().join(link)).unwrap();
        c.push(
            "/mounts",
            json!({ "destination": destination, "type": "tmpfs", "source": "fake" }),
        );
        let output = c.run();
        assert!(
            output.code == 1 && output.message().contains("/proc"),
            "{destination} by {target}: {output:?}"
        );
        c.assert_nothing_left();
    }
}

/// CVE-2025-52881, CVE-2025-62596: the /proc that the runtime itself sees is covered, as in a container around it. Proved with files that are
/// opened without `RESOLVE_NO_XDEV`.
#[test]
fn a_covered_proc_is_not_written_to() {
    requires!(is_coracle(), "runc 1.1 writes to what is there");
    requires!(rootless().is_none(), "root mounts over the host's /proc");
    let mut c = Container::new("echo ran");
    let fake = c.dir().join("fake");
    fs::write(&fake, "untouched").unwrap();
    c.set("/linux/sysctl", json!({ "kernel.domainname": "written" }));
    let cover = format!(
        "mount --bind {} /proc/sys/kernel/domainname",
        fake.display()
    );
    c.enter(View::new(&[], &cover));
    let output = c.run();
    assert!(
        output.code == 1 && output.message().contains("kernel/domainname"),
        "{output:?}"
    );
    assert_eq!(fs::read_to_string(&fake).unwrap(), "untouched");
    c.assert_nothing_left();
    c.enter(View::new(&[], "mount -t tmpfs proc /proc"));
    let output = c.run();
    assert!(output.code == 1 && output.stdout.is_empty(), "{output:?}");
    c.assert_nothing_left();
}

/// A parameter that is none of a namespace's, by a name that begins like one. Proved without the look at `..`.
#[test]
fn no_name_leads_to_a_kernel_parameter_of_the_host() {
    requires!(is_coracle(), "runc 1.1 sets it");
    let value = shell("cat /proc/sys/vm/swappiness");
    for name in [
        "net/../vm/swappiness",
        "net.//.vm.swappiness",
        "net/ipv4/../../vm/swappiness",
        "fs/mqueue/../../vm/swappiness",
    ] {
        let mut c = Container::new("echo ran");
        // If it is set after all, no harm is done.
        c.set("/linux/sysctl", json!({ name: value.trim() }));
        let output = c.run();
        assert!(
            output.code == 1 && output.message().contains("linux.sysctl"),
            "{name}: {output:?}"
        );
        c.assert_nothing_left();
    }
}

/// CVE-2025-52881: a container covers its own /proc, and somebody joins it. What is written about the new process goes to the kernel.
/// Proved with a score that is written by the container's /proc.
#[test]
fn exec_does_not_write_to_the_containers_proc() {
    requires!(is_coracle(), "runc 1.1 does not come in then");
    let mut c = Container::new(
        "mkdir /fake && mount -t tmpfs fake /proc && mkdir -p /proc/self/attr /proc/self/fd &&
         echo untouched > /proc/self/oom_score_adj && echo untouched > /proc/self/attr/exec && cp -r /proc /kept &&
         echo covered && while :; do sleep 1000; done",
    );
    for set in ["bounding", "effective", "permitted"] {
        c.push(
            &format!("/process/capabilities/{set}"),
            json!("CAP_SYS_ADMIN"),
        );
    }
    c.run_detached();
    c.wait_to_say("covered\n");
    let process = json!({
        "args": ["sh", "-c", "cat /proc/self/oom_score_adj /proc/self/attr/exec; echo joined; exec sleep 1000"],
        "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 }, "oomScoreAdj": 321
    });
    fs::write(c.dir().join("process.json"), process.to_string()).unwrap();
    let file = c.dir().join("process.json").display().to_string();
    let pid_file = c.dir().join("pid").display().to_string();
    let args = [
        "exec",
        "--detach",
        "--pid-file",
        &pid_file,
        "--process",
        &file,
        &c.id,
    ];
    c.to_files(c.command(&args)).ok();
    let pid = eventually("the pid is written", || {
        fs::read_to_string(&pid_file)
            .ok()
            .filter(|pid| !pid.is_empty())
    });
    assert_eq!(
        fs::read_to_string(format!("/proc/{}/oom_score_adj", pid.trim())).unwrap(),
        "321\n"
    );
    assert_eq!(c.wait_to_say("joined\n"), "untouched\nuntouched\njoined\n");
}

/// CVE-2025-31133, CVE-2025-62161: /dev is a volume, so that no devices are made there, and something else is called null in it.
/// Proved without the look at its number.
#[test]
fn another_null_device_masks_nothing() {
    requires!(is_coracle(), "runc 1.1 masks with anything");
    requires!(rootless().is_none(), "root makes devices");
    for make in [
        "mknod -m 666 null c 1 5",
        "mknod -m 666 null b 1 3",
        "mknod null p",
        "echo leaked > null",
        "ln -s /target null",
        "mkdir null",
        "true",
    ] {
        let mut c = Container::new("head -c 3 /masked; echo ran");
        let dev = with_own_dev(&mut c);
        fs::write(c.rootfs().join("target"), "leaked").unwrap();
        fs::write(c.rootfs().join("masked"), "secret\n").unwrap();
        shell(&format!("cd {} && {make}", dev.display()));
        c.set("/linux/maskedPaths", json!(["/masked"]));
        let output = c.run();
        assert!(
            output.code == 1 && output.message().contains("use /dev/null"),
            "{make}: {output:?}"
        );
        c.assert_nothing_left();
    }
}

/// CVE-2023-25809: what a container without a cgroup namespace of its own sees is the host's, and an ordinary user's may be writable.
/// Proved without the read-only attribute.
#[test]
fn the_hosts_cgroups_are_read_only_for_an_ordinary_users_container() {
    requires!(is_coracle(), "runc 1.1 leaves it to the files' owners");
    requires!(rootless().is_none(), "it has its own user");
    let mut c = Container::new(
        "grep -E ' cgroup2? ' /proc/mounts | while read _ dir _; do mkdir $dir/made 2>&1 && echo made $dir; done",
    )
    .of(Account::new(Ids::Own));
    let mounts = c.config["mounts"].as_array_mut().unwrap();
    for mount in mounts.iter_mut().filter(|mount| mount["type"] == "cgroup") {
        mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
    }
    let output = c.run();
    assert!(!output.stdout.contains("made /"), "{output:?}");
    assert!(
        output.stdout.contains("Read-only file system"),
        "{output:?}"
    );
}

/// CVE-2024-25621: whatever the umask, what a container leaves on the disk and below /run is its owner's. Proved with a directory
/// of the containers that takes the umask's mode.
#[test]
fn the_files_of_a_container_are_its_owners() {
    requires!(is_coracle(), "only Coracle has such containers");
    let store = runtime_tests::Store::new();
    let args = store.run_args(
        &["-d", "--name", "web", "-v", "data:/data"],
        &["sleep", "1000000"],
    );
    let mut command = std::process::Command::new("sh");
    let line = store.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    command.args(["-c", "umask 0; exec \"$@\"", "sh"]);
    command.arg(line.get_program()).args(line.get_args());
    assert!(
        command
            .stdout(File::create("/dev/null").unwrap())
            .status()
            .unwrap()
            .success()
    );
    let mut open = Vec::new();
    for place in ["run", "store"] {
        // What nobody else may enter hides what is inside.
        let found = shell(&format!(
            "find {}/{place} -type d ! -perm /077 -prune -o ! -type l -perm /077 -print",
            store.path().display()
        ));
        open.extend(found.lines().map(str::to_owned));
    }
    assert_eq!(open, [""; 0]);
    let socket = store.directory("web").join("control.sock");
    assert_eq!(shell(&format!("stat -c %a {}", socket.display())), "600\n");
}
