//! `spec` and `features`: what the runtime says about itself and about a container to start from.

use std::fs;

use runtime_tests::{Container, is_coracle, requires, rootless, shell};
use serde_json::{Value, json};

fn spec(c: &Container, flags: &[&str]) -> Value {
    let bundle = c.bundle().to_string_lossy().into_owned();
    let mut args = vec!["spec", "--bundle", &bundle];
    args.extend(flags);
    assert_eq!(c.runtime(&args).ok(), "");
    serde_json::from_str(&fs::read_to_string(c.bundle().join("config.json")).unwrap()).unwrap()
}

#[test]
fn spec_writes_a_configuration_that_runs() {
    requires!(rootless().is_none(), "a container of root's");
    let mut c = Container::new("true");
    let mut config = spec(&c, &[]);
    assert_eq!(config["process"]["terminal"], true);
    assert_eq!(config["process"]["args"], json!(["sh"]));
    assert_eq!(
        config["root"],
        json!({ "path": "rootfs", "readonly": true })
    );
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "echo $$; touch /x"]);
    c.config = config;
    let output = c.run();
    assert!(
        output.stdout == "1\n" && output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
}

#[test]
fn spec_is_runcs() {
    let mine = Container::new("true");
    let mut ours = spec(&mine, &[]);
    let bundle = mine.dir().join("runc");
    fs::create_dir(&bundle).unwrap();
    shell(&format!("runc spec --bundle {}", bundle.display()));
    let mut theirs: Value =
        serde_json::from_str(&fs::read_to_string(bundle.join("config.json")).unwrap()).unwrap();
    for config in [&mut ours, &mut theirs] {
        config["ociVersion"] = json!("any");
        config["hostname"] = json!("any");
        // Later versions of runc have a cgroup namespace on v2, no ambient capabilities, and other paths to mask.
        let linux = config["linux"].as_object_mut().unwrap();
        for name in ["maskedPaths", "readonlyPaths"] {
            linux.remove(name);
        }
        config["process"]["capabilities"]
            .as_object_mut()
            .unwrap()
            .remove("ambient");
    }
    assert_eq!(ours, theirs);
}

#[test]
fn spec_for_a_user_without_root() {
    requires!(rootless().is_none(), "the ids are root's");
    let c = Container::new("true");
    let config = spec(&c, &["--rootless"]);
    assert_eq!(
        config["linux"]["uidMappings"],
        json!([{ "containerID": 0, "hostID": 0, "size": 1 }])
    );
    assert_eq!(
        config["linux"]["gidMappings"],
        json!([{ "containerID": 0, "hostID": 0, "size": 1 }])
    );
    let kinds: Vec<&str> = config["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ns| ns["type"].as_str().unwrap())
        .collect();
    assert!(
        kinds.contains(&"user") && !kinds.contains(&"network"),
        "{kinds:?}"
    );
    assert!(config["linux"].get("resources").is_none());
    let sys = config["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|mount| mount["destination"] == "/sys")
        .unwrap();
    assert_eq!(
        (&sys["type"], &sys["source"]),
        (&json!("none"), &json!("/sys")),
        "the host's, bound"
    );
}

#[test]
fn spec_overwrites_nothing() {
    let c = Container::new("true");
    spec(&c, &[]);
    let bundle = c.bundle().to_string_lossy().into_owned();
    c.runtime(&["spec", "-b", &bundle])
        .fails_with(1, "config.json");
}

#[test]
fn features_are_json_and_complete() {
    let c = Container::new("true");
    let output = c.runtime(&["features"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let features: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert!(
        features["ociVersionMax"]
            .as_str()
            .unwrap()
            .starts_with("1.")
    );
    let list = |pointer: &str| -> Vec<String> {
        let list = features
            .pointer(pointer)
            .and_then(Value::as_array)
            .unwrap_or_else(|| panic!("{pointer} in {features}"));
        list.iter()
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        list("/hooks"),
        [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop"
        ]
    );
    let options = list("/mountOptions");
    for option in [
        "rbind",
        "ro",
        "rro",
        "nosuid",
        "tmpcopyup",
        "rslave",
        "nosymfollow",
    ] {
        assert!(options.iter().any(|known| known == option), "{option}");
    }
    let namespaces = list("/linux/namespaces");
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        assert!(namespaces.iter().any(|known| known == kind), "{kind}");
    }
    assert!(list("/linux/capabilities").contains(&"CAP_CHOWN".to_owned()));
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    assert!(list("/linux/seccomp/actions").contains(&"SCMP_ACT_ERRNO".to_owned()));
    assert!(list("/linux/seccomp/archs").contains(&"SCMP_ARCH_X86_64".to_owned()));
    assert_eq!(
        (
            &features["linux"]["cgroup"]["v1"],
            &features["linux"]["cgroup"]["v2"]
        ),
        (&json!(true), &json!(true))
    );
    if is_coracle() {
        assert!(features["linux"]["mountExtensions"]["idmap"]["enabled"].is_boolean());
        assert!(namespaces.iter().any(|known| known == "time"));
        assert!(
            features["linux"]["apparmor"].is_object()
                && features["linux"]["selinux"].is_object()
                && features["linux"]["intelRdt"].is_object()
        );
    }
}
