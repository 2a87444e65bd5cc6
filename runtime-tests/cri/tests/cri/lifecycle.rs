//! Pods, containers, probes, logs, limits and images.

use std::fs;
use std::time::Instant;

use k8s_cri::v1::*;
use runtime_tests::{
    Registry, cgroup_dirs_named, eventually, has_controller, has_program, read_text, requires,
};

use crate::kubelet;
use crate::kubelet::{IMAGE, container, limited, namespaces, secured};

#[test]
fn two_containers_share_a_pod_and_its_shim() {
    let Some(kubelet) = kubelet() else { return };
    let first = kubelet.pod(&kubelet.pod_config("first"));
    first.start(container("one", &["true"]));
    first.remove();
    let before = kubelet.containerd.inventory();
    let pod = kubelet.pod(&kubelet.pod_config("pod"));
    let one = pod.start(container(
        "one",
        &["sh", "-c", "echo out; echo err >&2; exec sleep 1000000"],
    ));
    let two = pod.start(container("two", &["sleep", "1000000"]));
    assert_eq!(kubelet.containerd.shims().len(), 1, "one for the pod");
    for namespace in ["ipc", "uts", "net"] {
        let path = format!("/proc/self/ns/{namespace}");
        let link = |id: &str| kubelet.exec(id, &["readlink", &path]);
        assert_eq!(link(&one), link(&two), "{namespace}");
    }
    eventually("the log is written", || {
        (pod.log("one").len() >= 2).then_some(())
    });
    let mut log = pod.log("one");
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out"]);
    assert_eq!(
        kubelet.exec(&one, &["sh", "-c", "echo probe; exit 3"]),
        (3, "probe\n".into())
    );
    kubelet.stop(&two, 0);
    let status = kubelet.wait(&two);
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    kubelet.remove(&two);
    assert_eq!(kubelet.exec(&one, &["true"]).0, 0, "the other runs on");
    assert_eq!(pod.status().state, PodSandboxState::SandboxReady as i32);
    pod.remove();
    kubelet.containerd.wait_for_nothing_but(&before);
}

#[test]
fn a_probe_has_a_time_limit() {
    let Some(kubelet) = kubelet() else { return };
    let pod = kubelet.pod(&kubelet.pod_config("pod"));
    let id = pod.start(container("one", &["sleep", "1000000"]));
    let error = kubelet.try_exec(&id, &["sleep", "1000001"], 1).unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{error:?}");
    eventually("its process has ended", || {
        let (_, processes) = kubelet.exec(&id, &["ps"]);
        (!processes.contains("1000001")).then_some(())
    });
    let error = kubelet.try_exec(&id, &["/none"], 10).unwrap_err();
    assert!(error.message().contains("/none"), "{error:?}");
    pod.remove();
}

#[test]
fn an_end_comes_with_grace() {
    let Some(kubelet) = kubelet() else { return };
    let pod = kubelet.pod(&kubelet.pod_config("pod"));
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let polite = pod.start(container("polite", &["sh", "-c", script]));
    eventually("the trap is set", || pod.log("polite").first().cloned());
    kubelet.stop(&polite, 60);
    assert_eq!(kubelet.wait(&polite).exit_code, 5);
    let deaf = pod.start(container(
        "deaf",
        &[
            "sh",
            "-c",
            "trap '' TERM; echo ready; while :; do sleep 0.05; done",
        ],
    ));
    eventually("the trap is set", || pod.log("deaf").first().cloned());
    let began = Instant::now();
    kubelet.stop(&deaf, 1);
    assert_eq!(kubelet.wait(&deaf).exit_code, 137);
    assert!(began.elapsed().as_secs_f64() >= 1.0);
    let done = pod.start(container("done", &["true"]));
    let status = kubelet.wait(&done);
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    let error = pod.try_start(container("none", &["/none"])).unwrap_err();
    assert!(error.message().contains("/none"), "{error:?}");
    pod.remove();
}

#[test]
fn limits_are_set_changed_measured_and_told_of() {
    requires!(
        has_controller("memory") && has_controller("cpu"),
        "a controller is missing"
    );
    let Some(kubelet) = kubelet() else { return };
    let pod = kubelet.pod(&kubelet.pod_config("pod"));
    let resources = LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 32 << 20,
        ..Default::default()
    };
    let id = pod.start(limited(
        container("one", &["sleep", "1000000"]),
        resources.clone(),
    ));
    let read = |v1: &str, v2: &str| {
        let dirs = cgroup_dirs_named(&id);
        let files = dirs.iter().flat_map(|dir| [dir.join(v1), dir.join(v2)]);
        files.map(|file| read_text(&file)).collect::<String>()
    };
    assert!(read("memory.limit_in_bytes", "memory.max").contains("33554432"));
    assert!(read("cpu.cfs_quota_us", "cpu.max").contains("50000"));
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(LinuxContainerResources {
            cpu_quota: 20_000,
            memory_limit_in_bytes: 48 << 20,
            ..resources.clone()
        }),
        ..Default::default()
    };
    kubelet.ask(async |mut pods| pods.update_container_resources(request).await);
    assert!(read("memory.limit_in_bytes", "memory.max").contains("50331648"));
    assert!(read("cpu.cfs_quota_us", "cpu.max").contains("20000"));
    let request = ContainerStatsRequest {
        container_id: id.clone(),
    };
    let stats = kubelet
        .ask(async |mut pods| pods.container_stats(request).await)
        .stats
        .unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    let list = kubelet.ask(async |mut pods| {
        pods.list_container_stats(ListContainerStatsRequest::default())
            .await
    });
    assert_eq!(list.stats.len(), 1);
    let greedy = pod.start(limited(
        container("greedy", &["tail", "/dev/zero"]),
        resources,
    ));
    assert_eq!(kubelet.wait(&greedy).exit_code, 137);
    // containerd learns of the end from an answer and of its reason from an event, which it may look at later.
    eventually("the reason is told", || {
        (kubelet.status(&greedy).reason == "OOMKilled").then_some(())
    });
    pod.remove();
}

#[test]
fn a_pod_has_a_network_of_its_own() {
    requires!(
        std::path::Path::new("/usr/lib/cni/bridge").exists(),
        "containernetworking-plugins is not installed"
    );
    let Some(kubelet) = kubelet() else { return };
    let mut config = kubelet.pod_config("pod");
    config.hostname = "inside".into();
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().namespace_options =
        Some(namespaces(NamespaceMode::Pod));
    linux
        .sysctls
        .insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
    let pod = kubelet.pod(&config);
    let ip = pod.status().network.unwrap().ip;
    assert!(ip.starts_with("10.88."), "{ip}");
    let server = container(
        "server",
        &[
            "sh",
            "-c",
            "mkdir /www && hostname > /www/index.html && exec httpd -f -p 80 -h /www",
        ],
    );
    let id = pod.start(secured(server, |context| {
        context.namespace_options = Some(namespaces(NamespaceMode::Pod));
    }));
    assert_eq!(
        runtime_tests::http_get(&kubelet.containerd.engine, None, &ip, 80),
        "inside\n"
    );
    let sysctl = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    assert_eq!(kubelet.exec(&id, &["cat", sysctl]), (0, "80\n".into()));
    pod.remove();
    let left = kubelet.containerd.engine.run("ls", &["/run/netns"]);
    assert_eq!(left.stdout, "");
}

/// A registry's image by tag and by digest; then, as `kubectl set image` has it, another digest in the same pod.
#[test]
fn an_image_comes_from_a_registry_and_is_replaced() {
    requires!(
        has_program("docker-registry"),
        "docker-registry is not installed"
    );
    let Some(kubelet) = kubelet() else { return };
    let engine = &kubelet.containerd.engine;
    let registry = Registry::beside(engine);
    let pod = kubelet.pod(&kubelet.pod_config("pod"));
    let mut digests = Vec::new();
    for (attempt, version) in ["one", "two"].into_iter().enumerate() {
        let dir = engine.path(version);
        fs::create_dir(&dir).unwrap();
        let text = format!(
            "FROM {IMAGE}\nENV VERSION={version}\nCMD [\"sh\", \"-c\", \"echo $VERSION; exec sleep 1000000\"]\n"
        );
        fs::write(dir.join("Containerfile"), text).unwrap();
        let name = registry.image("app:latest");
        engine
            .buildah(&["bud", "--quiet", "--tag", &name, &dir.display().to_string()])
            .ok();
        engine
            .buildah(&["push", "--quiet", "--tls-verify=false", &name])
            .ok();
        let request = PullImageRequest {
            image: Some(ImageSpec {
                image: name,
                ..Default::default()
            }),
            ..Default::default()
        };
        let image = kubelet
            .images(async |mut images| images.pull_image(request).await)
            .image_ref;
        let mut config = container("app", &[]);
        config.metadata.as_mut().unwrap().attempt = attempt as u32;
        config.log_path = format!("{version}.log");
        config.image.as_mut().unwrap().image = image.clone();
        let id = pod.start(config);
        eventually("it says its version", || {
            (pod.log(version) == [format!("stdout F {version}")]).then_some(())
        });
        kubelet.stop(&id, 0);
        kubelet.remove(&id);
        digests.push(image);
    }
    assert_ne!(digests[0], digests[1]);
    assert_eq!(kubelet.containerd.shims().len(), 1);
    pod.remove();
}
