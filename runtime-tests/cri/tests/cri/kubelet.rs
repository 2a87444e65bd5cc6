//! What a kubelet is to containerd: a client of its CRI, who makes pods of the runtime class `coracle`.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::*;
use runtime_tests::{
    Containerd, Engine, Shim, blocks, by_systemd, containerd_version, document, eventually,
    read_text, runtime,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

pub(crate) const IMAGE: &str = "localhost/busybox:latest";
const PAUSE: &str = "localhost/pause:latest";

type Answer<T> = Result<Response<T>, Status>;

pub(crate) struct Kubelet {
    pub(crate) containerd: Containerd,
    tokio: tokio::runtime::Runtime,
    channel: Channel,
}

impl Kubelet {
    /// With the configuration that the documentation gives for this version of containerd.
    pub(crate) fn new() -> Self {
        let version = if containerd_version().0 < 2 { 2 } else { 3 };
        let blocks = blocks(&document("docs/kubernetes.md"), "toml");
        let head = format!("version = {version}\n");
        let block = blocks.iter().find(|block| block.starts_with(&head));
        Self::configured(block.expect("the document has it"))
    }

    /// With a block of the documentation, in which nothing but places and this machine's properties are replaced.
    pub(crate) fn configured(block: &str) -> Self {
        let engine = Engine::new();
        let options = engine.path("coracle.toml").display().to_string();
        let shim = Shim::under_test();
        let systemd = format!("SystemdCgroup = {}", by_systemd());
        let runtime = format!(
            "{systemd}\nBinaryName = {:?}\n",
            runtime().display().to_string()
        );
        fs::write(&options, &runtime).expect("a file");
        let mut config = block
            .replace("/etc/containerd/coracle.toml", &options)
            .replace("io.containerd.coracle.v2", &shim.runtime_type())
            .replace(
                "/usr/local/bin/containerd-shim-coracle-v2",
                &shim.program().to_string_lossy(),
            )
            .replace("SystemdCgroup = true\n", &runtime);
        if shim.is_runc() {
            let line = format!("ConfigPath = {options:?}\n");
            config = config.replace(&line, &runtime);
        }
        config += &machine(&engine);
        fs::create_dir(engine.path("cni")).expect("a directory");
        fs::write(engine.path("cni/10-test.conflist"), NETWORK).expect("a file");
        pause_image(&engine);
        Self::on(Containerd::start(engine, shim, "k8s.io", &config))
    }

    fn on(containerd: Containerd) -> Self {
        containerd.import(PAUSE);
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a loop");
        let address = format!("unix://{}", containerd.socket().display());
        let endpoint = Endpoint::from_shared(address).expect("an address");
        let _inside = tokio.enter();
        let channel = endpoint.connect_lazy();
        drop(_inside);
        let kubelet = Self {
            containerd,
            tokio,
            channel,
        };
        // Without its plugin containerd serves on, and would be asked in vain.
        eventually("the runtime is ready", || {
            let log = kubelet.containerd.engine.path("containerd.log");
            let log = read_text(&log);
            let refusal = log
                .lines()
                .find(|line| line.contains("invalid plugin config"));
            assert_eq!(refusal, None);
            let answer =
                kubelet.try_ask(async |mut pods| pods.status(StatusRequest::default()).await);
            let conditions = answer.ok()?.status?.conditions;
            // Others, such as advice about the configuration, keep no kubelet from its work.
            let is_met = |kind: &str| {
                conditions
                    .iter()
                    .any(|one| one.r#type == kind && one.status)
            };
            (is_met("RuntimeReady") && is_met("NetworkReady")).then_some(())
        });
        eventually("the images are known", || {
            let list = kubelet
                .images(async |mut images| images.list_images(ListImagesRequest::default()).await);
            let tags: Vec<_> = list
                .images
                .iter()
                .flat_map(|image| &image.repo_tags)
                .cloned()
                .collect();
            (tags.contains(&IMAGE.into()) && tags.contains(&PAUSE.into())).then_some(())
        });
        kubelet
    }

    /// Asks the runtime service.
    pub(crate) fn try_ask<T>(
        &self,
        question: impl AsyncFnOnce(RuntimeServiceClient<Channel>) -> Answer<T>,
    ) -> Result<T, Status> {
        let client = RuntimeServiceClient::new(self.channel.clone());
        let answer = self.tokio.block_on(question(client));
        answer.map(Response::into_inner)
    }

    /// Asks it what it can answer.
    #[track_caller]
    pub(crate) fn ask<T>(
        &self,
        question: impl AsyncFnOnce(RuntimeServiceClient<Channel>) -> Answer<T>,
    ) -> T {
        self.try_ask(question)
            .unwrap_or_else(|status| panic!("{status:?}"))
    }

    /// Asks the image service.
    #[track_caller]
    pub(crate) fn images<T>(
        &self,
        question: impl AsyncFnOnce(ImageServiceClient<Channel>) -> Answer<T>,
    ) -> T {
        let client = ImageServiceClient::new(self.channel.clone());
        let answer = self.tokio.block_on(question(client));
        answer
            .unwrap_or_else(|status| panic!("{status:?}"))
            .into_inner()
    }

    /// A pod in the host's network, as `hostNetwork: true` has it.
    pub(crate) fn pod_config(&self, name: &str) -> PodSandboxConfig {
        let parent = &self.containerd.engine.name;
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            log_directory: self.logs(name).display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: if by_systemd() {
                    format!("{parent}.slice")
                } else {
                    format!("/{parent}/pods")
                },
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces(NamespaceMode::Node)),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn logs(&self, pod: &str) -> PathBuf {
        self.containerd.engine.path("logs").join(pod)
    }

    /// Starts a pod: the handler is the one that a RuntimeClass names.
    pub(crate) fn try_pod(&self, config: &PodSandboxConfig) -> Result<Pod<'_>, Status> {
        let log_directory = &config.log_directory;
        fs::create_dir_all(log_directory).expect("a directory");
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: "coracle".into(),
        };
        let answer = self.try_ask(async |mut pods| pods.run_pod_sandbox(request).await)?;
        Ok(Pod {
            kubelet: self,
            id: answer.pod_sandbox_id,
            config: config.clone(),
        })
    }

    #[track_caller]
    pub(crate) fn pod(&self, config: &PodSandboxConfig) -> Pod<'_> {
        self.try_pod(config)
            .unwrap_or_else(|status| panic!("{status:?}"))
    }

    /// Runs a program in a container, as a probe does.
    pub(crate) fn try_exec(
        &self,
        id: &str,
        args: &[&str],
        timeout: i64,
    ) -> Result<ExecSyncResponse, Status> {
        let request = ExecSyncRequest {
            container_id: id.into(),
            cmd: args.iter().map(|&arg| arg.into()).collect(),
            timeout,
        };
        self.try_ask(async |mut pods| pods.exec_sync(request).await)
    }

    /// The same; the exit status and what it wrote to stdout.
    #[track_caller]
    pub(crate) fn exec(&self, id: &str, args: &[&str]) -> (i32, String) {
        let answer = self
            .try_exec(id, args, 60)
            .unwrap_or_else(|status| panic!("{status:?}"));
        (
            answer.exit_code,
            String::from_utf8_lossy(&answer.stdout).into_owned(),
        )
    }

    #[track_caller]
    pub(crate) fn status(&self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest {
            container_id: id.into(),
            verbose: false,
        };
        let answer = self.ask(async |mut pods| pods.container_status(request).await);
        answer.status.expect("a status")
    }

    /// Waits for the end of a container.
    #[track_caller]
    pub(crate) fn wait(&self, id: &str) -> ContainerStatus {
        eventually("the container has ended", || {
            let status = self.status(id);
            (status.state == ContainerState::ContainerExited as i32).then_some(status)
        })
    }

    /// Stops it, with so many seconds of grace.
    #[track_caller]
    pub(crate) fn stop(&self, id: &str, timeout: i64) {
        let request = StopContainerRequest {
            container_id: id.into(),
            timeout,
        };
        self.ask(async |mut pods| pods.stop_container(request).await);
    }

    #[track_caller]
    pub(crate) fn remove(&self, id: &str) {
        let container_id = id.to_owned();
        self.ask(async |mut pods| {
            pods.remove_container(RemoveContainerRequest { container_id })
                .await
        });
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        let list = self.try_ask(async |mut pods| {
            pods.list_pod_sandbox(ListPodSandboxRequest::default())
                .await
        });
        for pod in list.map(|list| list.items).unwrap_or_default() {
            let _ = self.try_ask(async |mut pods| {
                pods.stop_pod_sandbox(StopPodSandboxRequest {
                    pod_sandbox_id: pod.id,
                })
                .await
            });
        }
    }
}

/// A pod, which is removed at the end.
pub(crate) struct Pod<'a> {
    kubelet: &'a Kubelet,
    pub(crate) id: String,
    pub(crate) config: PodSandboxConfig,
}

impl Pod<'_> {
    /// Makes and starts a container.
    pub(crate) fn try_start(&self, config: ContainerConfig) -> Result<String, Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let created = self
            .kubelet
            .try_ask(async |mut pods| pods.create_container(request).await)?;
        let container_id = created.container_id.clone();
        self.kubelet.try_ask(async |mut pods| {
            pods.start_container(StartContainerRequest { container_id })
                .await
        })?;
        Ok(created.container_id)
    }

    #[track_caller]
    pub(crate) fn start(&self, config: ContainerConfig) -> String {
        self.try_start(config)
            .unwrap_or_else(|status| panic!("{status:?}"))
    }

    /// What a container has written, line by line, without the times: `stdout F word`.
    pub(crate) fn log(&self, name: &str) -> Vec<String> {
        let path = PathBuf::from(&self.config.log_directory).join(format!("{name}.log"));
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| Some(line.split_once(' ')?.1.to_owned()));
        lines.collect()
    }

    pub(crate) fn status(&self) -> PodSandboxStatus {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: false,
        };
        let answer = self
            .kubelet
            .ask(async |mut pods| pods.pod_sandbox_status(request).await);
        answer.status.expect("a status")
    }

    /// Ends it, with all containers, and removes it.
    #[track_caller]
    pub(crate) fn remove(self) {
        let pod_sandbox_id = self.id.clone();
        self.kubelet.ask(async |mut pods| {
            pods.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id })
                .await
        });
        let pod_sandbox_id = self.id;
        self.kubelet.ask(async |mut pods| {
            pods.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id })
                .await
        });
    }
}

/// A container of the engine's image.
pub(crate) fn container(name: &str, args: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: name.into(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: IMAGE.into(),
            ..Default::default()
        }),
        command: args.iter().map(|&arg| arg.into()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces(NamespaceMode::Node)),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The same with a change of what it may do.
pub(crate) fn secured(
    mut config: ContainerConfig,
    change: impl FnOnce(&mut LinuxContainerSecurityContext),
) -> ContainerConfig {
    let linux = config.linux.as_mut().expect("it is there");
    change(linux.security_context.as_mut().expect("it is there"));
    config
}

/// A pod with a change of what it may do.
pub(crate) fn secured_pod(
    mut config: PodSandboxConfig,
    change: impl FnOnce(&mut LinuxSandboxSecurityContext),
) -> PodSandboxConfig {
    let linux = config.linux.as_mut().expect("it is there");
    change(linux.security_context.as_mut().expect("it is there"));
    config
}

/// A container with limits.
pub(crate) fn limited(
    mut config: ContainerConfig,
    resources: LinuxContainerResources,
) -> ContainerConfig {
    config.linux.as_mut().expect("it is there").resources = Some(resources);
    config
}

/// The host's network or the pod's; other namespaces are the container's, or the pod's.
pub(crate) fn namespaces(network: NamespaceMode) -> NamespaceOption {
    NamespaceOption {
        network: network as i32,
        pid: NamespaceMode::Container as i32,
        ..Default::default()
    }
}

pub(crate) fn words(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let pairs = pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()));
    pairs.collect()
}

const NETWORK: &str = r#"{ "cniVersion": "0.4.0", "name": "test", "plugins": [{
    "type": "bridge", "bridge": "cni0", "isGateway": true,
    "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.88.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }] } }] }"#;

/// What this machine needs besides: places, our own pause image, and scores that this user may set.
fn machine(engine: &Engine) -> String {
    let (images, services) = if containerd_version().0 < 2 {
        ("io.containerd.grpc.v1.cri", "io.containerd.grpc.v1.cri")
    } else {
        (
            "io.containerd.cri.v1.images",
            "io.containerd.cri.v1.runtime",
        )
    };
    let pause = if images == services {
        format!("\n[plugins.{services:?}]\nsandbox_image = {PAUSE:?}\n")
    } else {
        format!(
            "\n[plugins.{images:?}.pinned_images]\nsandbox = {PAUSE:?}\n[plugins.{services:?}]\n"
        )
    };
    format!(
        "{pause}restrict_oom_score_adj = true\ndisable_apparmor = true\n[plugins.{services:?}.cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = {:?}\n",
        engine.path("cni").display().to_string()
    )
}

/// A pod's first container does nothing.
fn pause_image(engine: &Engine) {
    let dir = engine.path("pause");
    fs::create_dir(&dir).expect("a directory");
    let text = format!("FROM {IMAGE}\nCMD [\"sleep\", \"1000000\"]\n");
    fs::write(dir.join("Containerfile"), text).expect("a file");
    let dir = dir.display().to_string();
    engine
        .buildah(&["bud", "--quiet", "--tag", PAUSE, &dir])
        .ok();
}
