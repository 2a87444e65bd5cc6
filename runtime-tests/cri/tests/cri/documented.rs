//! What docs/kubernetes.md says besides the configuration, which all tests here run with.

use std::fs;

use k8s_cri::v1::Mount;
use runtime_tests::{Shim, blocks, containerd_version, document, eventually, requires, runtime};

use crate::can_have_one;
use crate::kubelet;
use crate::kubelet::{IMAGE, Kubelet, container};

/// The DaemonSet's container, in a pod on a node whose directory is empty.
#[test]
fn the_daemon_set_installs_the_files() {
    let Some(kubelet) = kubelet() else { return };
    let text = document("docs/kubernetes.md");
    let engine = &kubelet.containerd.engine;
    let dir = engine.path("installer");
    fs::create_dir(&dir).unwrap();
    let recipe = blocks(&text, "dockerfile").concat();
    let recipe = recipe.replace("docker.io/library/busybox:latest", IMAGE);
    fs::write(dir.join("Containerfile"), recipe).unwrap();
    fs::copy(runtime(), dir.join("coracle")).unwrap();
    let shim = Shim::under_test();
    fs::copy(shim.program(), dir.join("containerd-shim-coracle-v2")).unwrap();
    let name = "localhost/installer:latest";
    engine
        .buildah(&["bud", "--quiet", "--tag", name, &dir.display().to_string()])
        .ok();
    kubelet.containerd.import(name);

    let manifest = blocks(&text, "yaml").pop().unwrap();
    let (_, script) = manifest.split_once("- |\n").unwrap();
    let (script, _) = script.split_once("        volumeMounts:").unwrap();
    let bin = engine.path("node-bin");
    fs::create_dir(&bin).unwrap();
    let pod = kubelet.pod(&kubelet.pod_config("coracle"));
    let mut config = container("install", &["sh", "-ec", script]);
    config.image.as_mut().unwrap().image = name.into();
    config.mounts = vec![Mount {
        container_path: "/host".into(),
        host_path: bin.display().to_string(),
        ..Default::default()
    }];
    let image = eventually("the image is known", || pod.try_start(config.clone()).ok());
    let installed = |name: &str| fs::read(bin.join(name)).ok();
    eventually("the files are installed", || {
        let same = installed("coracle") == fs::read(runtime()).ok()
            && installed("containerd-shim-coracle-v2") == fs::read(shim.program()).ok();
        same.then_some(())
    });
    assert_eq!(fs::read_dir(&bin).unwrap().count(), 2);
    kubelet.stop(&image, 0);
    pod.remove();
}

/// Every block of configuration of this containerd's version makes pods.
#[test]
fn each_configuration_makes_pods() {
    requires!(
        containerd_version().0 >= 2,
        "there is one block for this containerd, which every test uses"
    );
    if !can_have_one() {
        return;
    }
    for block in blocks(&document("docs/kubernetes.md"), "toml") {
        if !block.starts_with("version = 3\n") {
            continue;
        }
        let kubelet = Kubelet::configured(&block);
        let pod = kubelet.pod(&kubelet.pod_config("pod"));
        let id = pod.start(container("one", &["sleep", "1000000"]));
        assert_eq!(kubelet.exec(&id, &["echo", "hi"]), (0, "hi\n".into()));
        pod.remove();
    }
}
