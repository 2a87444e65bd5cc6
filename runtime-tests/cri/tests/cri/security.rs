//! What a pod may: users, privileges, namespaces, filters.

use k8s_cri::v1::*;
use runtime_tests::{blocks, containerd_version, document, requires};

use crate::kubelet::{Kubelet, container, namespaces, secured, secured_pod, words};
use crate::{can_have_one, kubelet};

#[test]
fn privileges() {
    let Some(kubelet) = kubelet() else { return };
    let config = secured_pod(kubelet.pod_config("pod"), |context| {
        context.privileged = true;
    });
    let pod = kubelet.pod(&config);
    let sleep = |name| container(name, &["sleep", "1000000"]);
    let field = |id: &str, name: &str| {
        let (_, text) = kubelet.exec(id, &["grep", name, "/proc/1/status"]);
        text.split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    };

    let plain = pod.start(sleep("plain"));
    assert_eq!(field(&plain, "Seccomp:"), "0", "no profile is asked for");
    assert_ne!(
        kubelet
            .exec(&plain, &["mount", "-t", "tmpfs", "x", "/tmp"])
            .0,
        0
    );

    let confined = pod.start(secured(sleep("confined"), |context| {
        context.seccomp = Some(SecurityProfile {
            profile_type: security_profile::ProfileType::RuntimeDefault as i32,
            ..Default::default()
        });
        context.readonly_rootfs = true;
        context.no_new_privs = true;
        context.run_as_user = Some(Int64Value { value: 1000 });
        context.supplemental_groups = vec![4242];
        context.capabilities = Some(Capability {
            drop_capabilities: vec!["ALL".into()],
            ..Default::default()
        });
    }));
    assert_eq!(field(&confined, "Seccomp:"), "2");
    assert_eq!(field(&confined, "NoNewPrivs:"), "1");
    assert_eq!(field(&confined, "CapBnd:"), "0000000000000000");
    assert!(kubelet.exec(&confined, &["id"]).1.contains("uid=1000"));
    assert!(kubelet.exec(&confined, &["id", "-G"]).1.contains("4242"));
    assert_ne!(kubelet.exec(&confined, &["touch", "/tmp/x"]).0, 0);

    let privileged = pod.start(secured(sleep("privileged"), |context| {
        context.privileged = true
    }));
    assert_eq!(
        kubelet
            .exec(&privileged, &["mount", "-t", "tmpfs", "x", "/tmp"])
            .0,
        0
    );
    assert_eq!(kubelet.exec(&privileged, &["test", "-c", "/dev/kmsg"]).0, 0);
    pod.remove();
}

#[test]
fn namespaces_of_the_pod_and_of_the_host() {
    let Some(kubelet) = kubelet() else { return };
    let mut shared = namespaces(NamespaceMode::Node);
    shared.pid = NamespaceMode::Pod as i32;
    let mut config = kubelet.pod_config("pod");
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().namespace_options = Some(shared.clone());
    linux.sysctls = words(&[("kernel.shm_rmid_forced", "1")]);
    let pod = kubelet.pod(&config);
    let sleep = |name| container(name, &["sleep", "1000001"]);
    let with = |config, options: NamespaceOption| {
        secured(config, |context| context.namespace_options = Some(options))
    };
    let one = pod.start(with(sleep("one"), shared.clone()));
    let two = pod.start(with(sleep("two"), shared));
    let processes = kubelet.exec(&two, &["ps"]).1;
    assert_eq!(processes.matches("sleep 1000001").count(), 2, "{processes}");
    assert_eq!(
        kubelet
            .exec(&one, &["cat", "/proc/sys/kernel/shm_rmid_forced"])
            .1,
        "1\n"
    );
    kubelet.stop(&two, 0);
    assert_eq!(kubelet.wait(&two).exit_code, 137);
    assert_eq!(
        kubelet.exec(&one, &["true"]).0,
        0,
        "only its own processes ended"
    );
    pod.remove();

    let mut host = namespaces(NamespaceMode::Node);
    host.pid = NamespaceMode::Node as i32;
    host.ipc = NamespaceMode::Node as i32;
    let mut config = kubelet.pod_config("host");
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().namespace_options = Some(host.clone());
    let pod = kubelet.pod(&config);
    let id = pod.start(with(sleep("one"), host));
    let engine = &kubelet.containerd.engine;
    for kind in ["net", "ipc", "pid"] {
        let path = format!("/proc/self/ns/{kind}");
        let here = engine.run("readlink", &[&path]).ok();
        assert_eq!(kubelet.exec(&id, &["readlink", &path]).1, here);
    }
    pod.remove();
}

/// As the document tells: the shim by its path, under the name of runc's.
#[test]
fn a_pod_with_a_user_namespace() {
    requires!(
        containerd_version().0 >= 2,
        "this containerd knows no user namespaces as Kubernetes asks for them"
    );
    if !can_have_one() {
        return;
    }
    let blocks = blocks(&document("docs/kubernetes.md"), "toml");
    let kubelet = Kubelet::configured(
        blocks
            .iter()
            .find(|block| block.contains("runtime_path"))
            .unwrap(),
    );
    let mapping = vec![IdMapping {
        host_id: 300_000,
        container_id: 0,
        length: 65_536,
    }];
    let mut options = namespaces(NamespaceMode::Pod);
    options.userns_options = Some(UserNamespace {
        mode: NamespaceMode::Pod as i32,
        uids: mapping.clone(),
        gids: mapping,
    });
    let config = secured_pod(kubelet.pod_config("pod"), |context| {
        context.namespace_options = Some(options.clone());
    });
    let pod = kubelet.pod(&config);
    let id = pod.start(secured(
        container("one", &["sleep", "1000000"]),
        |context| {
            context.namespace_options = Some(options);
        },
    ));
    let map = kubelet.exec(&id, &["cat", "/proc/self/uid_map"]).1;
    assert_eq!(
        map.split_whitespace().collect::<Vec<_>>(),
        ["0", "300000", "65536"]
    );
    assert_eq!(
        kubelet.exec(&id, &["stat", "-c", "%u", "/bin/busybox"]).1,
        "0\n"
    );
    assert_eq!(kubelet.exec(&id, &["touch", "/file"]).0, 0);
    pod.remove();
}
