//! Idmapped mounts: the same files with other owners, inside and out.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use runtime_tests::{
    Container, Without, is_coracle, is_runc_since, kernel_lacks, kernel_since, requires, rootless,
    shell,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A volume with a file of each owner, on a disk: the guest's /tmp is a tmpfs, whose ids not every kernel can map.
pub(crate) struct Volume(TempDir);

impl Volume {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ct-volume-")
            .tempdir_in("/var/tmp")
            .unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        for owner in [0, 7] {
            let file = dir.path().join(owner.to_string());
            fs::write(&file, "").unwrap();
            chown(&file, Some(owner), Some(owner)).unwrap();
        }
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn owner_of(&self, name: &str) -> (u32, u32) {
        let file = fs::metadata(self.path().join(name)).unwrap();
        (file.uid(), file.gid())
    }
}

/// Those of uids and gids.
pub(crate) type Mappings = Option<(Value, Value)>;

pub(crate) fn lines(container: u32, host: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": 10 }])
}

pub(crate) fn bind(c: &mut Container, source: &Path, options: Value, mappings: Mappings) {
    let mut mount =
        json!({ "destination": "/volume", "type": "bind", "source": source, "options": options });
    if let Some((uids, gids)) = mappings {
        mount["uidMappings"] = uids;
        mount["gidMappings"] = gids;
    }
    c.push("/mounts", mount);
}

fn with_user_namespace(mut c: Container) -> Container {
    c.push("/linux/namespaces", json!({ "type": "user" }));
    c.set(
        "/linux/uidMappings",
        json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]),
    );
    c.set(
        "/linux/gidMappings",
        json!([{ "containerID": 0, "hostID": 200_000, "size": 1000 }]),
    );
    shell(&format!("chown -hR 100000:200000 {}", c.rootfs().display()));
    c
}

macro_rules! requires_idmapped_mounts {
    () => {
        requires!(
            is_coracle() || is_runc_since(1, 3),
            "runc 1.1 has no idmapped mounts"
        );
        requires!(
            !kernel_lacks("mount_setattr"),
            "Linux has idmapped mounts since 5.12"
        );
    };
}

#[test]
fn without_a_user_namespace_by_mappings_of_their_own() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires_idmapped_mounts!();
    // Mappings alone will do; an option without recursion is what they mean.
    for options in [
        json!(["bind", "idmap"]),
        json!(["rbind"]),
        json!(["rbind", "ridmap", "ro"]),
    ] {
        let mut c = Container::new("stat -c %u:%g /volume/0 /volume/7");
        let volume = Volume::new();
        bind(
            &mut c,
            volume.path(),
            options,
            Some((lines(0, 5000), lines(0, 6000))),
        );
        assert_eq!(c.run().ok(), "5000:6000\n5007:6007\n");
        assert_eq!(volume.owner_of("7"), (7, 7), "the host sees what it saw");
    }
}

#[test]
fn what_is_written_belongs_to_the_owner_behind_the_mapping() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires_idmapped_mounts!();
    let mut c = Container::new("touch /volume/new && stat -c %u:%g /volume/new; id -u");
    let volume = Volume::new();
    bind(
        &mut c,
        volume.path(),
        json!(["bind", "idmap"]),
        Some((lines(0, 5000), lines(0, 6000))),
    );
    c.set("/process/user", json!({ "uid": 5003, "gid": 6004 }));
    assert_eq!(c.run().ok(), "5003:6004\n5003\n");
    assert_eq!(volume.owner_of("new"), (3, 4));
}

#[test]
fn an_owner_without_a_mapping_cannot_write_there() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires_idmapped_mounts!();
    let mut c = Container::new("stat -c %u:%g /volume/0; touch /volume/new");
    let volume = Volume::new();
    bind(
        &mut c,
        volume.path(),
        json!(["bind", "idmap"]),
        Some((lines(7, 5000), lines(7, 5000))),
    );
    let output = c.run();
    assert_eq!(output.stdout, "65534:65534\n", "{output:?}");
    assert!(
        output.code != 0 && output.stderr.contains("Value too large"),
        "{output:?}"
    );
}

#[test]
fn in_a_user_namespace_by_that_of_the_container() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires_idmapped_mounts!();
    for options in [json!(["bind", "idmap"]), json!(["rbind", "ridmap"])] {
        let mut c = with_user_namespace(Container::new(
            "stat -c %u:%g /volume/0 /volume/7; touch /volume/new",
        ));
        let volume = Volume::new();
        bind(&mut c, volume.path(), options, None);
        assert_eq!(c.run().ok(), "0:0\n7:7\n");
        assert_eq!(volume.owner_of("new"), (0, 0));
    }
}

#[test]
fn in_a_user_namespace_by_mappings_of_their_own() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires_idmapped_mounts!();
    let mut c = with_user_namespace(Container::new("stat -c %u:%g /volume/7"));
    let volume = Volume::new();
    bind(
        &mut c,
        volume.path(),
        json!(["bind", "idmap"]),
        Some((lines(7, 100_003), lines(7, 200_004))),
    );
    assert_eq!(c.run().ok(), "3:4\n");
}

#[test]
fn in_a_user_namespace_that_is_joined() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires_idmapped_mounts!();
    let holder = with_user_namespace(Container::idle());
    holder.run_detached();
    let mut c = with_user_namespace(Container::new("stat -c %u:%g /volume/0 /volume/7"));
    let namespaces = c.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "user");
    namespaces.push(json!({ "type": "user", "path": format!("/proc/{}/ns/user", holder.pid()) }));
    c.unset("/linux/uidMappings").unset("/linux/gidMappings");
    let volume = Volume::new();
    bind(&mut c, volume.path(), json!(["bind", "idmap"]), None);
    assert_eq!(c.run().ok(), "0:0\n7:7\n");
}

#[test]
fn recursion_is_for_ridmap() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires_idmapped_mounts!();
    let volume = Volume::new();
    let sub = volume.path().join("sub");
    fs::create_dir(&sub).unwrap();
    // The same file system, since not every kernel can map ids of a tmpfs.
    shell(&format!(
        "mount --bind {0} {0}/sub",
        volume.path().display()
    ));
    let mut seen = Vec::new();
    for options in [json!(["rbind", "idmap"]), json!(["rbind", "ridmap"])] {
        let mut c = Container::new("stat -c %u:%g /volume/7 /volume/sub/7");
        bind(
            &mut c,
            volume.path(),
            options,
            Some((lines(0, 5000), lines(0, 6000))),
        );
        seen.push(c.run());
    }
    shell(&format!("umount {}", sub.display()));
    let seen: Vec<_> = seen.into_iter().map(runtime_tests::Output::ok).collect();
    assert_eq!(seen, ["5007:6007\n7:7\n", "5007:6007\n5007:6007\n"]);
}

#[test]
fn a_file_system_that_cannot_is_named() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires!(is_coracle(), "runc does not name it");
    requires_idmapped_mounts!();
    let mut c = Container::new("true");
    bind(
        &mut c,
        Path::new("/sys/kernel"),
        json!(["bind", "idmap"]),
        Some((lines(0, 5000), lines(0, 6000))),
    );
    c.run().fails_with(
        1,
        "mounts[7]: map the ids of /sys/kernel: the file system (sysfs) cannot have id-mapped mounts on this kernel",
    );
    c.assert_nothing_left();
}

#[test]
fn a_tmpfs_where_the_kernel_can() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires_idmapped_mounts!();
    let mut c = Container::new("stat -c %u:%g /volume/7");
    let volume = Volume::new();
    shell(&format!(
        "mount -t tmpfs tmpfs {0} && touch {0}/7 && chown 7:7 {0}/7",
        volume.path().display()
    ));
    bind(
        &mut c,
        volume.path(),
        json!(["bind", "idmap"]),
        Some((lines(0, 5000), lines(0, 6000))),
    );
    let output = c.run();
    shell(&format!("umount {}", volume.path().display()));
    requires!(
        !output.stderr.contains("the file system (tmpfs) cannot"),
        "Linux maps the ids of tmpfs since 6.3"
    );
    assert_eq!(output.ok(), "5007:6007\n");
}

#[test]
fn mapped_ids_are_not_mapped_again() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires_idmapped_mounts!();
    let mut c = Container::new("true");
    let volume = Volume::new();
    let mapped = c.dir().join("mapped");
    fs::create_dir(&mapped).unwrap();
    let mount = Command::new("mount")
        .args(["--bind", "-o", "X-mount.idmap=0:5000:10"])
        .args([volume.path(), &mapped])
        .status();
    assert!(mount.unwrap().success());
    if fs::metadata(mapped.join("0")).unwrap().uid() != 5000 {
        shell(&format!("umount {}", mapped.display()));
        return runtime_tests::skip("this mount(8) cannot map ids");
    }
    bind(
        &mut c,
        &mapped,
        json!(["bind", "idmap"]),
        Some((lines(0, 5000), lines(0, 6000))),
    );
    let output = c.run();
    shell(&format!("umount {}", mapped.display()));
    output.fails_with(1, "the ids of the mount are mapped already");
    c.assert_nothing_left();
}

#[test]
fn wrong_configurations() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires!(is_coracle(), "runc has other words");
    let empty = || json!([{ "containerID": 0, "hostID": 5000, "size": 0 }]);
    let cases: [(Value, Mappings, &str); 5] = [
        (
            json!(["bind", "idmap"]),
            None,
            "mounts[7].options: an id-mapped mount of a container without a user namespace must have uidMappings and gidMappings",
        ),
        (
            json!(["bind", "idmap"]),
            Some((lines(0, 5000), json!([]))),
            "mounts[7].gidMappings: id-mapped mounts must have both uid and gid mappings specified",
        ),
        (
            json!(["bind"]),
            Some((json!([]), lines(0, 5000))),
            "mounts[7].uidMappings: id-mapped mounts must have both uid and gid mappings specified",
        ),
        (
            json!(["bind", "idmap"]),
            Some((lines(0, 5000), empty())),
            "mounts[7].gidMappings: size of a mapping is 0",
        ),
        (
            json!(["idmap"]),
            None,
            "mounts[7].options: an id-mapped mount of a container without a user namespace must have uidMappings and gidMappings",
        ),
    ];
    for (options, mappings, sentence) in cases {
        let mut c = Container::new("true");
        let volume = Volume::new();
        let is_bind = options.as_array().unwrap().contains(&json!("bind"));
        bind(&mut c, volume.path(), options, mappings);
        if !is_bind {
            c.set("/mounts/7/type", json!("tmpfs"));
        }
        c.run().fails_with(1, sentence);
        c.assert_nothing_left();
    }
}

#[test]
fn overlapping_mappings_are_the_kernels_to_refuse() {
    requires!(is_coracle(), "runc fails in a helper");
    requires_idmapped_mounts!();
    let mut c = Container::new("true");
    let volume = Volume::new();
    let twice = json!([{ "containerID": 0, "hostID": 5000, "size": 10 }, { "containerID": 5, "hostID": 9000, "size": 10 }]);
    bind(
        &mut c,
        volume.path(),
        json!(["bind", "idmap"]),
        Some((twice, lines(0, 6000))),
    );
    c.run().fails_with(1, "mounts[7]: map the ids of ");
    c.assert_nothing_left();
}

#[test]
fn a_kernel_without_them_says_so() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires!(is_coracle(), "runc tells the number of the error");
    let mut c = Container::new("true").without(Without::calls(&["mount_setattr"]));
    let volume = Volume::new();
    bind(
        &mut c,
        volume.path(),
        json!(["bind", "idmap"]),
        Some((lines(0, 5000), lines(0, 6000))),
    );
    c.run().fails_with(
        1,
        &format!(
            "mounts[7]: map the ids of {}: id-mapped mounts need Linux 5.12",
            volume.path().display()
        ),
    );
    c.assert_nothing_left();
}

#[test]
fn an_ordinary_user_is_told_that_only_root_can() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires!(is_coracle(), "runc has other words");
    let mut c = Container::new("true");
    let volume = Volume::new();
    for (kind, id) in [("uid", 4242), ("gid", 4242)] {
        c.set(
            &format!("/linux/{kind}Mappings"),
            json!([{ "containerID": 0, "hostID": id, "size": 1 }]),
        );
    }
    c.push("/linux/namespaces", json!({ "type": "user" }));
    bind(&mut c, volume.path(), json!(["bind", "idmap"]), None);
    c.write_config();
    let state = c.dir().join("users");
    shell(&format!(
        "mkdir {0} && chown -hR 4242:4242 {0} {1}",
        state.display(),
        c.bundle().display()
    ));
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=4242", "--regid=4242", "--clear-groups"])
        .arg(runtime_tests::runtime())
        .args(["--root".as_ref(), state.as_os_str()])
        .args(["run", "--bundle"])
        .arg(c.bundle())
        .arg(&c.id);
    c.finish(command).fails_with(
        1,
        &format!(
            "mounts[7]: map the ids of {}: id-mapped mounts are not supported for rootless containers",
            volume.path().display()
        ),
    );
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
}

#[test]
fn a_new_file_system_with_mapped_ids() {
    requires!(rootless().is_none(), "root alone maps the ids of mounts");
    requires!(is_coracle(), "runc maps the ids of binds only");
    requires!(kernel_since(6, 3), "tmpfs has mapped ids since Linux 6.3");
    let mut c = Container::new("stat -c '%u:%g' /etc /etc/mark; ! touch /etc/new");
    fs::write(c.rootfs().join("etc/mark"), "").unwrap();
    let mount = json!({ "destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"],
        "uidMappings": lines(0, 5000), "gidMappings": lines(0, 6000) });
    c.push("/mounts", mount);
    assert_eq!(c.run().ok(), "5000:6000\n5000:6000\n");
    // What the kernel cannot map is an error.
    c.set(
        "/mounts/7",
        json!({ "destination": "/other", "type": "mqueue", "source": "mqueue",
        "uidMappings": lines(0, 5000), "gidMappings": lines(0, 6000) }),
    );
    c.run()
        .fails_with(1, "cannot have id-mapped mounts on this kernel");
    c.assert_nothing_left();
}
