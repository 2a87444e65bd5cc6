//! Labels of AppArmor and SELinux, where they are in force: the guests have AppArmor, and SELinux with `vm test --append security=selinux`,
//! with the policy of `vm/guest/selinux.cil`. Against runc all of it passes but where a test says so.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use runtime_tests::{
    Container, Hierarchy, Profile, has_apparmor, hierarchy, is_coracle, is_runc, requires,
    rootless, runs_apparmor, shell,
};
use serde_json::{Value, json};

macro_rules! needs_apparmor {
    () => {
        requires!(
            has_apparmor(),
            "it takes AppArmor in the kernel, and root to load profiles"
        );
    };
}

/// A profile of the test's own.
fn profile(c: &Container) -> Profile {
    static LOADED: AtomicU32 = AtomicU32::new(0);
    let number = LOADED.fetch_add(1, Ordering::Relaxed);
    let name = format!("coracle-test-{}-{number}", std::process::id());
    Profile::load(&name, c.dir())
}

const CURRENT: &str = "cat /proc/self/attr/current";

#[test]
fn an_apparmor_profile_holds_for_the_process() {
    needs_apparmor!();
    let mut c = Container::new("cat /proc/self/attr/current /open /secret");
    for name in ["open", "secret"] {
        fs::write(c.rootfs().join(name), format!("{name}\n")).unwrap();
    }
    assert_eq!(c.run().ok(), "unconfined\nopen\nsecret\n");
    let profile = profile(&c);
    c.set("/process/apparmorProfile", json!(profile.name));
    let output = c.run();
    assert_eq!(output.stdout, profile.enforced() + "open\n");
    assert!(
        output.stderr.contains("/secret': Permission denied"),
        "{output:?}"
    );
    c.set("/process/apparmorProfile", json!("unconfined"));
    assert_eq!(c.run().ok(), "unconfined\nopen\nsecret\n");
    c.assert_nothing_left();
}

#[test]
fn exec_takes_the_containers_apparmor_profile_or_another() {
    needs_apparmor!();
    let mut c = Container::idle();
    let (own, other) = (profile(&c), profile(&c));
    c.set("/process/apparmorProfile", json!(own.name));
    c.run_detached();
    assert_eq!(c.exec(CURRENT).ok(), own.enforced());
    let with = |profile: &str| c.exec_with(&["--apparmor", profile], &["sh", "-c", CURRENT]);
    assert_eq!(with(&other.name).ok(), other.enforced());
    assert_eq!(with("unconfined").ok(), "unconfined\n");
    let refused = with("no-such-profile");
    assert!(refused.code != 0, "{refused:?}");
    assert!(
        refused.stderr.contains("unable to apply apparmor profile"),
        "{refused:?}"
    );
    assert_eq!(exec_file(&c, &[]), own.enforced());
    assert_eq!(
        exec_file(&c, &[("apparmorProfile", other.name.as_str())]),
        other.enforced()
    );
    assert_eq!(c.status(), "running");
}

/// `exec --process` of one that tells its label, with these fields.
fn exec_file(c: &Container, fields: &[(&str, &str)]) -> String {
    let mut process =
        json!({ "args": ["cat", "/proc/self/attr/current"], "env": ["PATH=/bin"], "cwd": "/" });
    process["user"] = json!({ "uid": 0, "gid": 0 });
    for (field, value) in fields {
        process[field] = json!(value);
    }
    let file = c.dir().join("process.json");
    fs::write(&file, process.to_string()).unwrap();
    c.exec_with(&["--process", &file.to_string_lossy()], &[])
        .ok()
}

#[test]
fn an_apparmor_profile_that_is_not_loaded_is_an_error() {
    needs_apparmor!();
    let mut c = Container::new("true");
    c.set("/process/apparmorProfile", json!("no-such-profile"));
    // runc does not say which.
    let words = match is_coracle() {
        true => {
            "process.apparmorProfile: unable to apply apparmor profile \"no-such-profile\": no profile of this name is loaded"
        }
        false => "unable to apply apparmor profile",
    };
    c.create().fails_with(1, words);
    c.assert_nothing_left();
}

const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const OTHER: &str = "system_u:system_r:container_t:s0:c3";
const FILES: &str = "system_u:object_r:container_file_t:s0:c1,c2";

macro_rules! needs_selinux {
    () => {
        requires!(
            fs::exists("/sys/fs/selinux/enforce").unwrap_or(false),
            "the kernel does not run SELinux"
        );
        requires!(
            fs::read("/sys/fs/selinux/enforce").is_ok_and(|mode| mode == b"0"),
            "SELinux is enforcing, and the test's files have no label for it"
        );
        requires!(rootless().is_none(), "only root may set these labels");
    };
}

fn labelled(mut c: Container) -> Container {
    c.set("/process/selinuxLabel", json!(PROCESS));
    c.set("/linux/mountLabel", json!(FILES));
    c
}

/// The options of the file system at a place in the container.
#[track_caller]
fn options_at<'a>(mountinfo: &'a str, place: &str) -> &'a str {
    let mut lines = mountinfo.lines();
    let line = lines.find(|line| line.split(' ').nth(4) == Some(place));
    let line = line.unwrap_or_else(|| panic!("{place} in {mountinfo}"));
    line.rsplit(' ').next().unwrap()
}

/// The label of a file in a running container.
fn label_of(c: &Container, path: &str) -> String {
    let file = format!("/proc/{}/root{path}", c.pid());
    let label = shell(&format!(
        "getfattr --absolute-names --only-values -n security.selinux {file}"
    ));
    label.trim_end_matches('\0').to_owned()
}

#[test]
fn selinux_labels_the_process_and_the_containers_file_systems() {
    needs_selinux!();
    let mut c = labelled(Container::idle());
    for name in ["copied", "hidden", "bound"] {
        fs::create_dir(c.rootfs().join(name)).unwrap();
    }
    fs::write(c.rootfs().join("copied/file"), "").unwrap();
    c.set("/linux/maskedPaths", json!(["/hidden"]));
    c.push(
        "/mounts",
        json!({ "destination": "/copied", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }),
    );
    let bound = c.dir().join("source");
    fs::create_dir(&bound).unwrap();
    c.push(
        "/mounts",
        json!({ "destination": "/bound", "type": "bind", "source": bound, "options": ["bind"] }),
    );
    c.run_detached();
    assert_eq!(c.exec(CURRENT).ok(), format!("{PROCESS}\0"));
    let mountinfo = c.exec("cat /proc/self/mountinfo").ok();
    let context = format!("context=\"{FILES}\"");
    let mut own = vec!["/dev", "/dev/pts", "/dev/shm", "/copied", "/hidden"];
    if hierarchy() != Hierarchy::V2 {
        own.push("/sys/fs/cgroup");
    }
    for place in own {
        assert!(
            options_at(&mountinfo, place).contains(&context),
            "{place}: {mountinfo}"
        );
    }
    for place in ["/proc", "/sys", "/dev/mqueue", "/bound"] {
        assert!(
            !options_at(&mountinfo, place).contains("context="),
            "{place}: {mountinfo}"
        );
    }
    for path in ["/dev/mqueue", "/dev/null", "/copied/file", "/dev/pts/ptmx"] {
        assert_eq!(label_of(&c, path), FILES, "{path}");
    }
    assert_ne!(
        label_of(&c, "/bound"),
        FILES,
        "what is the host's keeps its label"
    );
}

#[test]
fn the_session_keyring_has_the_label_of_the_process() {
    needs_selinux!();
    let mut c = labelled(Container::inside(&["keyring-label"]));
    assert_eq!(c.run().ok(), format!("{PROCESS}\n"));
    c.unset("/process/selinuxLabel");
    assert_ne!(c.run().ok(), format!("{PROCESS}\n"));
}

#[test]
fn exec_takes_the_containers_selinux_label_or_another() {
    needs_selinux!();
    let c = labelled(Container::idle());
    c.run_detached();
    assert_eq!(c.exec(CURRENT).ok(), format!("{PROCESS}\0"));
    let other = c.exec_with(&["--process-label", OTHER], &["sh", "-c", CURRENT]);
    assert_eq!(other.ok(), format!("{OTHER}\0"));
    assert_eq!(exec_file(&c, &[]), format!("{PROCESS}\0"));
    assert_eq!(
        exec_file(&c, &[("selinuxLabel", OTHER)]),
        format!("{OTHER}\0")
    );
}

#[test]
fn a_label_that_the_policy_does_not_know_is_an_error() {
    needs_selinux!();
    let nonsense = json!("system_u:object_r:nonsense_t:s0");
    for (field, named) in [
        ("/process/selinuxLabel", "process.selinuxLabel"),
        ("/linux/mountLabel", "linux.mountLabel"),
    ] {
        let mut c = Container::new("true");
        c.set(field, nonsense.clone());
        let words = match is_coracle() {
            true => format!("{named}: SELinux's policy does not know the label \"system_u:"),
            false => "invalid argument".to_owned(),
        };
        c.create().fails_with(1, &words);
        c.assert_nothing_left();
    }
}

/// The options of a tmpfs with options of its own, in a container with an annotation.
fn options_of_a_tmpfs(options: Value, context_type: Option<&str>) -> String {
    let mut c = labelled(Container::new("cat /proc/self/mountinfo"));
    c.push(
        "/mounts",
        json!({ "destination": "/own", "type": "tmpfs", "source": "tmpfs", "options": options }),
    );
    if let Some(context_type) = context_type {
        c.set(
            "/annotations",
            json!({ "run.oci.mount_context_type": context_type }),
        );
    }
    options_at(&c.run().ok(), "/own").to_owned()
}

#[test]
fn crun_has_an_annotation_for_the_kind_of_label() {
    needs_selinux!();
    requires!(!is_runc(), "crun's annotation");
    // The kernel has defcontext for no file system of a container's own.
    for kind in ["context", "rootcontext", "fscontext"] {
        let options = options_of_a_tmpfs(json!([]), Some(kind));
        assert!(
            options.contains(&format!(",{kind}=\"{FILES}\"")),
            "{kind}: {options}"
        );
    }
    requires!(is_coracle(), "crun hands on what it does not know");
    let mut c = labelled(Container::new("true"));
    c.set(
        "/annotations",
        json!({ "run.oci.mount_context_type": "sideways" }),
    );
    c.run()
        .fails_with(1, "annotations.run.oci.mount_context_type: ");
    c.assert_nothing_left();
}

#[test]
fn a_mount_may_have_a_label_of_its_own() {
    needs_selinux!();
    requires!(
        is_coracle(),
        "others add the container's to it, which the kernel refuses"
    );
    for label in [
        "system_u:object_r:tmpfs_t:s0",
        "system_u:object_r:tmpfs_t:s0:c0,c3",
    ] {
        for option in [
            format!("context=\"{label}\""),
            format!("rootcontext=\"{label}\""),
        ] {
            let options = options_of_a_tmpfs(json!(["size=1m", option]), None);
            let shown = option.replace('"', "");
            assert!(
                options.replace('"', "").contains(&shown),
                "{option}: {options}"
            );
            assert!(!options.contains(FILES), "{option}: {options}");
        }
    }
}

#[test]
fn the_command_line_tells_what_there_is() {
    requires!(is_coracle(), "commands of our own");
    let c = Container::new("true");
    // What this program can do, wherever it runs.
    let features: Value = serde_json::from_str(&c.runtime(&["features"]).ok()).unwrap();
    for module in ["apparmor", "selinux"] {
        assert_eq!(
            features["linux"][module]["enabled"],
            json!(true),
            "{module}"
        );
    }
    // What this machine has.
    let report = c.runtime(&["check", "--format", "json"]).stdout;
    let report: Value = serde_json::from_str(&report).unwrap();
    let mut checks = report["checks"].as_array().unwrap().iter();
    let found = checks.find(|check| check["name"] == "lsm").unwrap();
    let has = |module: &str| {
        found["value"]
            .as_str()
            .unwrap()
            .split(',')
            .any(|name| name == module)
    };
    assert_eq!(has("apparmor"), runs_apparmor(), "{found}");
    let selinux = fs::exists("/sys/fs/selinux/enforce").unwrap();
    assert_eq!(has("selinux"), selinux, "{found}");
}
