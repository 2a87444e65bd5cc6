//! Mounts: every kind, their flags, their propagation, and destinations that stay inside the root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use runtime_tests::{
    Container, Ids, has_program, is_coracle, is_runc_since, kernel_lacks, kernel_since, requires,
    rootless, shell,
};
use serde_json::{Value, json};

fn volume(c: &Container) -> PathBuf {
    let dir = c.dir().join("volume");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "of the host\n").unwrap();
    dir
}

fn mount(c: &mut Container, destination: &str, kind: &str, source: &str, options: Value) {
    c.push(
        "/mounts",
        json!({ "destination": destination, "type": kind, "source": source, "options": options }),
    );
}

/// What the container's mountinfo says about a mount point: options, super options, optional fields and type.
fn line_of(info: &str, destination: &str) -> String {
    let found = info
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(destination));
    found
        .unwrap_or_else(|| panic!("{destination} is a mount point in {info}"))
        .to_owned()
}

/// What a line of mountinfo says of peers and masters, between the options and the dash.
fn optional_fields(line: &str) -> &str {
    let before_dash = line.split(" - ").next().unwrap();
    before_dash.splitn(7, ' ').nth(6).unwrap_or("")
}

#[test]
fn bind_mount_of_a_directory_and_of_a_file() {
    let mut c = Container::new("cat /volume/file /one/file; echo of the container > /volume/new");
    let dir = volume(&c);
    let file = dir.join("file");
    mount(
        &mut c,
        "/volume",
        "bind",
        &dir.to_string_lossy(),
        json!(["bind", "rw"]),
    );
    mount(
        &mut c,
        "/one/file",
        "bind",
        &file.to_string_lossy(),
        json!(["bind", "ro"]),
    );
    assert_eq!(c.run().ok(), "of the host\nof the host\n");
    assert_eq!(
        fs::read_to_string(dir.join("new")).unwrap(),
        "of the container\n"
    );
    assert!(
        c.rootfs().join("volume").is_dir(),
        "a missing destination is made as what the source is"
    );
    assert!(c.rootfs().join("one/file").is_file());
}

#[test]
fn a_read_only_bind_mount() {
    let mut c = Container::new("cat /volume/file; touch /volume/x");
    let dir = volume(&c);
    mount(
        &mut c,
        "/volume",
        "bind",
        &dir.to_string_lossy(),
        json!(["bind", "ro"]),
    );
    let output = c.run();
    assert!(
        output.stdout == "of the host\n" && output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
}

#[test]
fn the_type_of_a_bind_mount_comes_from_its_options() {
    let mut c = Container::new("cat /volume/file");
    let dir = volume(&c);
    mount(
        &mut c,
        "/volume",
        "none",
        &dir.to_string_lossy(),
        json!(["rbind"]),
    );
    c.push(
        "/mounts",
        json!({ "destination": "/second", "source": dir, "options": ["bind"] }),
    );
    assert_eq!(c.run().ok(), "of the host\n");
}

#[test]
fn a_relative_bind_source_lies_in_the_bundle() {
    let mut c = Container::new("cat /volume/file");
    let dir = c.bundle().join("beside");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "in the bundle\n").unwrap();
    mount(&mut c, "/volume", "bind", "beside", json!(["bind"]));
    assert_eq!(c.run().ok(), "in the bundle\n");
}

#[test]
fn every_mount_flag_is_set() {
    let mut c = Container::new("cat /proc/self/mountinfo");
    mount(
        &mut c,
        "/t",
        "tmpfs",
        "tmpfs",
        json!([
            "nosuid", "nodev", "noexec", "noatime", "ro", "size=1m", "mode=700"
        ]),
    );
    mount(
        &mut c,
        "/s",
        "tmpfs",
        "tmpfs",
        json!([
            "sync",
            "dirsync",
            "nodiratime",
            "relatime",
            "suid",
            "dev",
            "exec",
            "rw"
        ]),
    );
    let info = c.run().ok();
    let (t, s) = (line_of(&info, "/t"), line_of(&info, "/s"));
    for flag in [
        "nosuid",
        "nodev",
        "noexec",
        "noatime",
        "ro",
        "size=1024k",
        "mode=700",
    ] {
        assert!(t.contains(flag), "{flag}: {t}");
    }
    for flag in ["rw,nodiratime,relatime", "sync", "dirsync"] {
        assert!(s.contains(flag), "{flag}: {s}");
    }
}

#[test]
fn bind_mount_flags_are_set_too() {
    let mut c = Container::new("cat /proc/self/mountinfo");
    let dir = volume(&c);
    mount(
        &mut c,
        "/v",
        "bind",
        &dir.to_string_lossy(),
        json!(["rbind", "nosuid", "nodev", "noexec", "ro"]),
    );
    let line = line_of(&c.run().ok(), "/v");
    assert!(line.contains("ro,nosuid,nodev,noexec"), "{line}");
}

#[test]
fn propagation_of_a_mount() {
    // With hooks the root becomes the root after its mounts, which must not change them.
    for hooks in [
        json!({}),
        json!({ "createRuntime": [{ "path": "/bin/true" }] }),
    ] {
        for (option, mark) in [
            ("private", ""),
            ("rprivate", ""),
            ("rslave", "master:"),
            ("rshared", "shared:"),
            ("unbindable", "unbindable"),
        ] {
            let mut c = Container::new("cat /proc/self/mountinfo");
            c.set("/linux/rootfsPropagation", json!("rslave"));
            c.set("/hooks", hooks.clone());
            let dir = volume(&c);
            let path = dir.display();
            shell(&format!(
                "mount --bind {path} {path} && mount --make-shared {path}"
            ));
            mount(
                &mut c,
                "/v",
                "bind",
                &dir.to_string_lossy(),
                json!(["rbind", option]),
            );
            let output = c.run();
            shell(&format!("umount {path}"));
            let line = line_of(&output.ok(), "/v");
            let optional = optional_fields(&line);
            // runc 1.3 makes it a slave like the root.
            let mark = match option {
                "rshared" if is_runc_since(1, 3) => "master:",
                _ => mark,
            };
            assert!(
                if mark.is_empty() {
                    optional.is_empty()
                } else {
                    optional.contains(mark)
                },
                "{option}: {line}"
            );
        }
    }
}

#[test]
fn a_shared_root_takes_no_mount_of_the_host_away() {
    // The old root is unmounted with all that is below it, in a mount namespace whose mounts are peers of the host's.
    let host = tempfile_dir("host");
    let path = host.display();
    shell(&format!(
        "mount -t tmpfs outer {path} && mount --make-shared {path} && mkdir {path}/sub && mount -t tmpfs inner {path}/sub"
    ));
    for hooks in [
        json!({}),
        json!({ "createRuntime": [{ "path": "/bin/true" }] }),
    ] {
        let mut c = Container::new("true");
        c.set("/linux/rootfsPropagation", json!("shared"));
        c.set("/hooks", hooks);
        let output = c.run();
        assert_eq!(
            shell(&format!("grep -c {path} /proc/self/mountinfo")),
            "2\n",
            "{output:?}"
        );
        output.ok();
    }
    shell(&format!("umount -R {path} && rmdir {path}"));
}

#[test]
fn propagation_of_the_root() {
    // runc 1.1 leaves a shared root private.
    let shared = if is_coracle() || is_runc_since(1, 3) {
        "shared:"
    } else {
        ""
    };
    for (option, mark) in [("", ""), ("private", ""), ("slave", ""), ("shared", shared)] {
        let mut c = Container::new("cat /proc/self/mountinfo");
        if !option.is_empty() {
            c.set("/linux/rootfsPropagation", json!(option));
        }
        let line = line_of(&c.run().ok(), "/");
        let optional = optional_fields(&line);
        assert!(
            if mark.is_empty() {
                !optional.contains("shared:")
            } else {
                optional.contains(mark)
            },
            "{option}: {line}"
        );
    }
}

#[test]
fn mounts_of_the_container_never_reach_the_host() {
    let mut c = Container::new("mount -t tmpfs inside /tmp && grep -c 'inside /tmp' /proc/mounts");
    c.push("/process/capabilities/bounding", json!("CAP_SYS_ADMIN"));
    c.push("/process/capabilities/effective", json!("CAP_SYS_ADMIN"));
    c.push("/process/capabilities/permitted", json!("CAP_SYS_ADMIN"));
    assert_eq!(c.run().ok(), "1\n");
    c.assert_nothing_left();
}

#[test]
fn rprivate_does_not_make_a_bind_recursive() {
    requires!(
        rootless().is_none(),
        "a user namespace may not uncover what lies below mounts"
    );
    let mut c = Container::new("ls /volume/sub");
    let dir = volume(&c);
    let sub = dir.join("sub");
    fs::create_dir(&sub).unwrap();
    shell(&format!(
        "mount -t tmpfs below {0} && touch {0}/below",
        sub.display()
    ));
    mount(
        &mut c,
        "/volume",
        "bind",
        &dir.to_string_lossy(),
        json!(["bind", "rprivate"]),
    );
    let output = c.run();
    let mut recursive = Container::new("ls /volume/sub");
    mount(
        &mut recursive,
        "/volume",
        "bind",
        &dir.to_string_lossy(),
        json!(["rbind", "rprivate"]),
    );
    let second = recursive.run();
    shell(&format!("umount {}", sub.display()));
    assert_eq!(output.ok(), "");
    assert_eq!(second.ok(), "below\n");
}

#[test]
fn recursive_read_only() {
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 knows no rro on this kernel"
    );
    let mut c = Container::new("touch /volume/sub/x");
    let dir = volume(&c);
    let sub = dir.join("sub");
    fs::create_dir(&sub).unwrap();
    shell(&format!("mount -t tmpfs below {}", sub.display()));
    mount(
        &mut c,
        "/volume",
        "bind",
        &dir.to_string_lossy(),
        json!(["rbind", "rro"]),
    );
    let output = c.run();
    shell(&format!("umount {}", sub.display()));
    if kernel_lacks("mount_setattr") {
        output.fails_with(
            1,
            "mounts[7].options: apply them at /volume: rro needs mount_setattr(2), which Linux has since 5.12",
        );
        return c.assert_nothing_left();
    }
    assert!(
        output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
}

#[test]
fn a_remount_changes_options_of_the_mount_and_of_the_file_system() {
    let mut c = Container::new("grep ' /t ' /proc/self/mountinfo");
    mount(
        &mut c,
        "/t",
        "tmpfs",
        "tmpfs",
        json!(["size=64k", "noexec"]),
    );
    // runc takes the mount's own flags from the remount alone.
    mount(
        &mut c,
        "/t",
        "tmpfs",
        "tmpfs",
        json!(["remount", "size=128k", "nosuid", "noexec"]),
    );
    let line = c.run().ok();
    assert!(
        line.contains("size=128k") && line.contains("nosuid") && line.contains("noexec"),
        "{line}"
    );
    mount(
        &mut c,
        "/t",
        "tmpfs",
        "tmpfs",
        json!(["remount", "no-such-option=1"]),
    );
    let output = c.run();
    assert!(
        output.code == 1
            && (!is_coracle()
                || output
                    .message()
                    .contains("mounts[9].options: \"no-such-option\"")),
        "{output:?}"
    );
    c.assert_nothing_left();
}

#[test]
fn values_with_commas_reach_the_file_system_whole() {
    // Overlay takes an escaped colon or comma in the name of a layer.
    let mut c = Container::new("cat /o/file");
    let dir = c.dir().join("with,comma");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "in the layer\n").unwrap();
    let other = volume(&c);
    let lower = format!("lowerdir={}:{}", dir.display(), other.display()).replace(',', "\\,");
    mount(&mut c, "/o", "overlay", "overlay", json!([lower, "sync"]));
    if rootless().is_some() && !kernel_since(5, 11) {
        c.run().fails_with(1, "since Linux 5.11");
        return;
    }
    assert_eq!(c.run().ok(), "in the layer\n");
}

#[test]
fn symbolic_links_are_not_followed_on_a_mount_that_says_so() {
    requires!(
        is_coracle() || is_runc_since(1, 3),
        "runc 1.1 knows no nosymfollow"
    );
    for kind in ["bind", "tmpfs"] {
        let mut c = Container::new("grep ' /v ' /proc/self/mountinfo; cat /v/link || echo refused");
        let dir = volume(&c);
        symlink("file", dir.join("link")).unwrap();
        let options = match kind {
            "bind" => vec!["bind", "nosymfollow"],
            _ => vec!["nosymfollow"],
        };
        mount(&mut c, "/v", kind, &dir.to_string_lossy(), json!(options));
        let said = c.run().ok();
        assert!(
            said.contains("nosymfollow") && said.contains("refused"),
            "{kind}: {said}"
        );
    }
}

/// podman's pods have a read-only /dev. What stands in it comes first: other mounts, devices, links.
#[test]
fn a_read_only_dev_has_everything_in_it() {
    let mut c = Container::new(
        "echo > /dev/null && ls -d /dev/pts/ptmx /dev/fd; touch /dev/x 2>&1 | grep -o Read-only",
    );
    let mounts = c.config["mounts"].as_array_mut().unwrap();
    let dev = mounts.iter_mut().find(|each| each["destination"] == "/dev");
    let options = dev.unwrap()["options"].as_array_mut().unwrap();
    options.push(json!("ro"));
    assert_eq!(c.run().ok(), "/dev/fd\n/dev/pts/ptmx\nRead-only\n");
}

#[test]
fn tmpfs_with_the_content_of_the_image() {
    let mut c = Container::new("cat /etc/mark; ls -ld /etc | cut -c1-10; touch /etc/new");
    fs::write(c.rootfs().join("etc/mark"), "copied up\n").unwrap();
    mount(&mut c, "/etc", "tmpfs", "tmpfs", json!(["tmpcopyup"]));
    let output = c.run();
    assert!(output.stdout.starts_with("copied up\n"), "{output:?}");
    assert_eq!(output.code, 0);
    assert!(!c.rootfs().join("etc/new").exists());
}

#[test]
fn tmpfs_content_keeps_links_holes_and_capabilities() {
    requires!(rootless().is_none(), "root's mounts");
    requires!(is_coracle(), "runc 1.3 copies links and holes as files");
    requires!(has_program("setcap"), "setcap is missing");
    let mut c = Container::new(
        "cd /etc/deep && stat -c '%h %a %u:%g' one ../two && stat -c %s holes; readlink ../link2; \
         [ $(stat -c %b holes) -lt 1000 ] && tail -n 1 holes | tail -c 5; \
         exec su user -s /bin/sh -c '/etc/deep/busybox grep CapEff /proc/self/status'",
    );
    let deep = c.rootfs().join("etc/deep");
    fs::create_dir(&deep).unwrap();
    let deep = deep.display();
    shell(&format!(
        "cd {deep} && echo x > one && chown 7:8 one && chmod 640 one && ln one ../two && ln -s ../two link && ln link ../link2"
    ));
    shell(&format!(
        "cd {deep} && truncate -s 8M holes && echo tail >> holes"
    ));
    shell(&format!(
        "cd {deep} && cp {}/bin/busybox . && setcap cap_kill+ep busybox",
        c.rootfs().display()
    ));
    mount(&mut c, "/etc", "tmpfs", "tmpfs", json!(["tmpcopyup"]));
    assert_eq!(
        c.run().ok(),
        "2 640 7:8\n2 640 7:8\n8388613\n../two\ntail\nCapEff:\t0000000000000020\n"
    );
}

#[test]
fn tmpfs_content_keeps_times_and_extended_attributes() {
    requires!(rootless().is_none(), "root's mounts");
    requires!(is_coracle(), "runc 1.3 copies neither");
    requires!(kernel_since(6, 6), "tmpfs has user.* since Linux 6.6");
    requires!(has_program("setfattr"), "setfattr is missing");
    let mut c = Container::new("stat -c %Y /etc /etc/deep /etc/deep/file; sleep 1000000");
    let deep = c.rootfs().join("etc/deep");
    fs::create_dir(&deep).unwrap();
    fs::write(deep.join("file"), "").unwrap();
    let etc = deep.parent().unwrap().display();
    shell(&format!(
        "cd {etc} && for at in . deep deep/file; do setfattr -n user.mark -v of-$at $at; setfattr -n trusted.mark -v t $at; done
        touch -d @1000 deep/file && touch -d @2000 deep && touch -d @3000 ."
    ));
    mount(&mut c, "/etc", "tmpfs", "tmpfs", json!(["tmpcopyup"]));
    c.run_detached();
    assert_eq!(c.wait_to_say("1000\n"), "3000\n2000\n1000\n");
    for at in [".", "deep", "deep/file"] {
        let attribute = |name: &str| {
            let path = format!("/proc/{}/root/etc/{at}", c.pid());
            shell(&format!(
                "getfattr --absolute-names --only-values -n {name}.mark {path}"
            ))
        };
        assert_eq!(attribute("user"), format!("of-{at}"));
        assert_eq!(attribute("trusted"), "t");
    }
}

#[test]
fn overlay() {
    let mut c = Container::new("cat /o/file; echo changed > /o/file");
    let dir = volume(&c);
    for name in ["upper", "work"] {
        fs::create_dir(c.dir().join(name)).unwrap();
    }
    let options = [
        format!("lowerdir={}", dir.display()),
        format!("upperdir={}/upper", c.dir().display()),
        format!("workdir={}/work", c.dir().display()),
    ];
    mount(&mut c, "/o", "overlay", "overlay", json!(options));
    if rootless().is_some() && !kernel_since(5, 11) {
        c.run().fails_with(1, "since Linux 5.11");
        return;
    }
    assert_eq!(c.run().ok(), "of the host\n");
    assert_eq!(
        fs::read_to_string(c.dir().join("upper/file")).unwrap(),
        "changed\n"
    );
}

#[test]
fn the_usual_file_systems_are_what_they_say() {
    let c = Container::new("cat /proc/self/mountinfo");
    let info = c.run().ok();
    for (place, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        let line = line_of(&info, place);
        assert!(line.contains(&format!(" - {kind} ")), "{line}");
    }
    let group = match rootless() {
        Some(Ids::Own) => String::new(),
        _ => format!("gid={},", c.host_id(5)),
    };
    assert!(line_of(&info, "/dev/pts").contains(&format!("{group}mode=620,ptmxmode=666")));
    assert!(line_of(&info, "/dev/shm").contains("nosuid,nodev,noexec"));
}

#[test]
fn cgroups_are_visible_and_read_only() {
    let c = Container::new(
        "for file in $(find /sys/fs/cgroup -name cgroup.procs); do mkdir ${file%/*}/made-inside || echo refused; done; mkdir /sys/fs/cgroup/made-inside",
    );
    let output = c.run();
    assert!(output.stdout.starts_with("refused\n"), "{output:?}");
    // Without a namespace of its own it sees the cgroups of other tests, which come and go.
    let refused = |line: &str| {
        line.contains("Read-only file system") || line.contains("No such file or directory")
    };
    assert!(
        output.stderr.contains("Read-only file system") && output.stderr.lines().all(refused),
        "{output:?}"
    );
    assert!(
        output.code != 0 || !is_coracle(),
        "runc 1.1 leaves the directory of v1 hierarchies writable: {output:?}"
    );
}

#[test]
fn the_cgroup_mount_shows_the_containers_own_cgroup_as_root() {
    requires!(rootless().is_none(), "root's mounts");
    // cgroup v1 shows it at the top of each hierarchy, v2 when there is a cgroup namespace.
    let mut c = Container::new(
        "cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null; exit 0",
    );
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    let seen = c.run().ok();
    assert!(
        seen.lines().next() == Some("1"),
        "its init is the first process there: {seen:?}"
    );
}

#[test]
fn symlinks_in_the_destination_stay_inside_the_root() {
    let outside = tempfile_dir("outside");
    let mut c = Container::new("cat /link/volume/file");
    symlink(&outside, c.rootfs().join("link")).unwrap();
    let dir = volume(&c);
    mount(
        &mut c,
        "/link/volume",
        "bind",
        &dir.to_string_lossy(),
        json!(["bind"]),
    );
    assert_eq!(c.run().ok(), "of the host\n");
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "nothing is made outside"
    );
    fs::remove_dir_all(&outside).unwrap();
}

#[test]
fn dots_in_the_destination_stay_inside_the_root() {
    let mut c = Container::new("cat /volume/file");
    let dir = volume(&c);
    mount(
        &mut c,
        "/../../../volume",
        "bind",
        &dir.to_string_lossy(),
        json!(["bind"]),
    );
    let output = c.run();
    assert!(
        output.code == 1 || output.stdout == "of the host\n",
        "{output:?}"
    );
    assert!(!fs::exists("/volume").unwrap());
}

#[test]
fn a_missing_bind_source_is_named() {
    let mut c = Container::new("true");
    mount(
        &mut c,
        "/volume",
        "bind",
        "/nonesuch-source",
        json!(["bind"]),
    );
    c.run().fails_with(1, "/nonesuch-source");
    c.assert_nothing_left();
}

#[test]
fn many_mounts_apply_in_order() {
    let mut c = Container::new("cat /a/b/file; ls /a");
    let dir = volume(&c);
    mount(&mut c, "/a", "tmpfs", "tmpfs", json!([]));
    mount(
        &mut c,
        "/a/b",
        "bind",
        &dir.to_string_lossy(),
        json!(["bind"]),
    );
    assert_eq!(c.run().ok(), "of the host\nb\n");
}

fn tempfile_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    dir
}
