//! What a checkpoint holds, and where: mounts, namespaces, limits, memory from elsewhere.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use runtime_tests::{
    Container, Hierarchy, Limit, View, criu_has, eventually, finish, has_controller, has_criu,
    hierarchy, is_coracle, kernel_lacks, kernel_since, limit_of, requires, shell,
};
use serde_json::json;

use crate::checkpoint::{WAIT, checkpoint, command, count, counting, restore, start};
use crate::idmapped::{Volume, bind, lines};

/// The mount points of a container, with what is mounted there and how.
fn mounts(c: &Container) -> Vec<String> {
    let path = format!("/proc/{}/mountinfo", c.pid());
    let table = std::fs::read_to_string(path).unwrap();
    let mut mounts: Vec<String> = table
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let mut flags: Vec<&str> = fields[5].split(',').collect();
            flags.retain(|flag| matches!(*flag, "ro" | "rw" | "nosuid" | "nodev" | "noexec"));
            format!("{} {}", fields[4], flags.join(","))
        })
        .collect();
    mounts.sort();
    mounts
}

#[test]
fn mounts_are_as_they_were() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let mut c = Container::new(&format!(
        "echo $(cat /data/word /data/inner/word) > /dev/shm/word; {WAIT}"
    ))
    // Where what is bound follows the host, as systemd has it everywhere.
    .in_view(View::new(&[], "mount --make-rshared /"));
    for name in ["data", "inner"] {
        std::fs::create_dir(c.dir().join(name)).unwrap();
        std::fs::write(c.dir().join(name).join("word"), name).unwrap();
    }
    std::fs::write(c.dir().join("file"), "a file").unwrap();
    std::os::unix::fs::symlink("/run/things", c.rootfs().join("link")).unwrap();
    for (destination, source, options) in [
        ("/data", "data", json!(["bind", "ro"])),
        // Inside another bind, of a file, behind a symbolic link, and on a tmpfs.
        ("/data/inner", "inner", json!(["bind", "rw"])),
        ("/etc/file", "file", json!(["bind"])),
        ("/link/here", "file", json!(["bind"])),
        ("/dev/shm/deep/file", "file", json!(["bind", "ro"])),
    ] {
        let source = c.dir().join(source);
        c.push(
            "/mounts",
            json!({ "destination": destination, "type": "bind", "source": source, "options": options }),
        );
    }
    c.set(
        "/linux/maskedPaths",
        json!(["/proc/keys", "/proc/acpi", "/sys/firmware", "/proc/no"]),
    );
    c.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    std::fs::create_dir(c.dir().join("data/inner")).ok();
    start(&c);
    eventually("it is up", || {
        (c.exec("cat /dev/shm/word").code == 0).then_some(())
    });
    let before = mounts(&c);
    checkpoint(&c, &[]).ok();
    restore(&c, &[]).ok();
    assert_eq!(mounts(&c), before);
    let look = "cat /data/word /data/inner/word /etc/file /run/things/here /dev/shm/deep/file /proc/keys; \
        ! touch /data/x && touch /data/inner/y && test -c /dev/null && echo x > /dev/null && echo fine";
    assert_eq!(c.exec(look).ok(), "datainnera filea filea filefine\n");
    assert_eq!(c.exec("hostname").ok(), "inside\n");
}

#[test]
fn binds_with_mapped_ids() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    requires!(is_coracle(), "runc 1.1 has no idmapped mounts");
    requires!(
        !kernel_lacks("mount_setattr"),
        "Linux has idmapped mounts since 5.12"
    );
    // An older Linux lists the bind before the root, and criu then takes what all follow from what is bound, which shows too little.
    let shared = match kernel_since(6, 8) {
        true => "mount --make-rshared /",
        false => "true",
    };
    let mut c = Container::new(WAIT).in_view(View::new(&[], shared));
    let volume = Volume::new();
    let mappings = Some((lines(0, 500), lines(0, 600)));
    bind(&mut c, volume.path(), json!(["bind"]), mappings);
    start(&c);
    let view = "stat -c %u:%g /volume/0 /volume/7";
    let before = c.exec(view).ok();
    checkpoint(&c, &[]).ok();
    restore(&c, &[]).ok();
    assert_eq!(c.exec(view).ok(), before);
    assert_eq!(before.lines().next(), Some("500:600"));
}

#[test]
fn limits_are_those_of_the_bundle() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    requires!(has_controller("pids"), "no pids controller");
    let mut c = Container::new(WAIT);
    c.set("/linux/resources", json!({ "pids": { "limit": 77 } }));
    start(&c);
    checkpoint(&c, &[]).ok();
    c.set("/linux/resources", json!({ "pids": { "limit": 55 } }));
    c.write_config();
    restore(&c, &[]).ok();
    let pids = Limit::new("pids", "pids.max", "pids.max");
    assert_eq!(limit_of(c.pid(), pids).as_deref(), Some("55"));
}

#[test]
fn with_a_cgroup_namespace() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let mut c = Container::new(WAIT);
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    start(&c);
    let view = "ls -d /sys/fs/cgroup/*; cat /proc/1/cgroup";
    let before = c.exec(view).ok();
    checkpoint(&c, &[]).ok();
    restore(&c, &[]).ok();
    assert_eq!(c.exec(view).ok(), before);
}

#[test]
fn the_hosts_view_of_cgroup_v2_from_a_shared_mount() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let shared = match hierarchy() {
        Hierarchy::V2 => "mount --make-rshared /",
        _ => {
            "umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && mount --make-rshared /"
        }
    };
    let c = Container::new(WAIT).in_view(View::new(&[], shared));
    start(&c);
    let view = "grep -c ' /sys/fs/cgroup .* cgroup2 ' /proc/self/mountinfo; ls /sys/fs/cgroup/cgroup.procs";
    let before = c.exec(view).ok();
    // In the hierarchies of v1, which nobody sees here, it is in its caller's cgroups. criu would make all below them again, other tests' too.
    let mode = &["--manage-cgroups-mode", "ignore"];
    checkpoint(&c, mode).ok();
    restore(&c, mode).ok();
    assert_eq!(c.exec(view).ok(), before);
}

#[test]
fn a_network_namespace_that_was_joined_is_joined_again() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let mut c = Container::new(WAIT);
    let name = c.id.clone();
    shell(&format!("ip netns add {name}"));
    let namespaces = c.config["linux"]["namespaces"].as_array_mut().unwrap();
    for namespace in namespaces {
        if namespace["type"] == "network" {
            namespace["path"] = json!(format!("/run/netns/{name}"));
        }
    }
    let inode = |c: &Container| shell(&format!("readlink /proc/{}/ns/net", c.pid()));
    start(&c);
    let before = inode(&c);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        checkpoint(&c, &[]).ok();
        restore(&c, &[]).ok();
        assert_eq!(inode(&c), before);
    }));
    c.delete_force().ok();
    shell(&format!("ip netns del {name}"));
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn the_annotation_names_crius_configuration() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let mut c = Container::new(WAIT);
    let file = c.dir().join("criu.conf");
    std::fs::write(&file, "log-file other.log\n").unwrap();
    c.set("/annotations", json!({ "org.criu.config": file }));
    start(&c);
    checkpoint(&c, &[]).ok();
    assert!(c.dir().join("work/other.log").exists());
    assert!(!c.dir().join("work/dump.log").exists());
}

#[test]
fn only_what_has_changed_since_the_parent() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    requires!(
        criu_has(&["--feature", "mem_dirty_track"]),
        "the kernel does not track memory"
    );
    let c = counting();
    let (id, before) = count(&c);
    let parent = c.dir().join("parent");
    let mut pre_dump = c.command(&["checkpoint", "--pre-dump", "--image-path"]);
    pre_dump.arg(&parent).arg(&c.id);
    c.finish(pre_dump).ok();
    assert_eq!(c.status(), "running");
    assert!(parent.join("pages-1.img").exists());
    std::fs::create_dir(c.dir().join("images")).unwrap();
    checkpoint(&c, &["--parent-path", "../parent"]).ok();
    assert!(c.dir().join("images/parent").exists());
    restore(&c, &[]).ok();
    let (restored, after) = count(&c);
    assert!(restored == id && after >= before);
}

/// A port that is free, as far as anybody can tell.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

#[test]
fn memory_by_way_of_a_page_server() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let c = counting();
    let (id, before) = count(&c);
    let images = c.dir().join("images");
    std::fs::create_dir(&images).unwrap();
    let port = free_port();
    let mut server = Command::new("criu");
    server.args([
        "page-server",
        "--daemon",
        "--address",
        "127.0.0.1",
        "--port",
        &port,
        "--images-dir",
    ]);
    finish(
        {
            server.arg(&images);
            server
        },
        c.dir(),
    )
    .ok();
    checkpoint(&c, &["--page-server", &format!("127.0.0.1:{port}")]).ok();
    restore(&c, &[]).ok();
    let (restored, after) = count(&c);
    assert!(restored == id && after >= before);
}

#[test]
fn who_waits_for_lazy_pages_is_told_when_they_are_ready() {
    requires!(is_coracle(), "runc 1.1 waits for ever");
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    requires!(
        criu_has(&["--feature", "uffd-noncoop"]),
        "no userfaultfd(2) for this"
    );
    let c = counting();
    count(&c);
    let server = format!("127.0.0.1:{}", free_port());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let script = format!(
        "exec \"$@\" --lazy-pages --page-server {server} --status-fd {} 2>{}/errors",
        writer.as_raw_fd(),
        c.dir().display()
    );
    fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let line = command(&c, "checkpoint", &[]);
    let mut dump = Command::new("sh");
    dump.args(["-c", &script, "sh"])
        .arg(line.get_program())
        .args(line.get_args());
    let mut dump = dump.spawn().unwrap();
    drop(writer);
    let mut told = Vec::new();
    reader.read_to_end(&mut told).unwrap();
    assert_eq!(told, [0]);
    assert!(c.dir().join("images/pstree.img").exists());
    // Whoever comes for them says when it is enough: that is the end of it here.
    drop(TcpStream::connect(&server).unwrap());
    assert_eq!(dump.wait().unwrap().code(), Some(0));
    c.assert_nothing_left();
}
