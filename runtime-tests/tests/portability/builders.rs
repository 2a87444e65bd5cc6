//! One application, built by buildah, `docker build` and umoci, pushed to two registries, pulled and run from each.

use std::fs;

use runtime_tests::{
    Docker, Engine, Host, Registry, by_systemd, cable, eventually, get_from, has_controller,
    has_program, requires, rootless, shell,
};
use serde_json::{Value, json};

use crate::application::{self, PORT, page};

const USER: (&str, &str) = ("tester", "secret");

macro_rules! requires_builders {
    ($($program:literal),*) => {
        requires!(rootless().is_none() && !by_systemd(), "builders run as root here, without systemd");
        for program in ["buildah", "docker-registry", "htpasswd", "openssl", $($program),*] {
            requires!(has_program(program), "{program} is not installed");
        }
    };
}

/// A registry for everybody, and one with TLS and a password that the engine's user has logged in to.
struct Registries {
    open: Registry,
    secured: Registry,
}

impl Registries {
    fn beside(engine: &Engine) -> Self {
        let program = || engine.command::<&str>("docker-registry", &[]);
        let registries = Registries {
            open: Registry::plain_at("127.0.0.1", program()),
            secured: Registry::secured_at("127.0.0.1", program(), USER.0, USER.1),
        };
        registries.secured.trusted_from(engine.dir());
        let refused = engine.coracle(&["pull", &registries.secured.image("app:1")]);
        refused.fails_with(1, "log in with");
        let login = ["login", "-u", USER.0, "-p", USER.1];
        let login = [&login[..], &[&registries.secured.address]].concat();
        assert_eq!(engine.coracle(&login).stdout, "Login Succeeded\n");
        registries
    }

    /// The image's names in both.
    fn images(&self) -> [String; 2] {
        [&self.open, &self.secured].map(|registry| registry.image("team/app:1"))
    }
}

/// An engine's machine with a neighbour: 192.0.2.1 here, 192.0.2.2 there.
fn neighbour_of(engine: &Engine) -> Host {
    let neighbour = Host::new();
    cable(
        (&engine.network(), "uplink"),
        (&neighbour.network(), "uplink"),
    );
    for (network, ip) in [(engine.network(), 1), (neighbour.network(), 2)] {
        shell(&format!(
            "nsenter --net={network} sh -ec 'ip address add 192.0.2.{ip}/24 dev uplink; ip link set uplink up'"
        ));
    }
    neighbour
}

/// Pulls the image from both registries and runs each of them: it is the same image, and it serves.
fn arrives(engine: &Engine, images: &[String; 2]) {
    let neighbour = neighbour_of(engine);
    let digests = images.each_ref().map(|image| {
        engine.coracle(&["pull", "-q", image]).ok();
        let mut found = inspect(engine, image);
        assert_eq!(found["Config"]["ExposedPorts"], json!({ "8000/tcp": {} }));
        engine.coracle(&["rmi", image]).ok();
        found["Digest"].take()
    });
    assert_eq!(digests[0], digests[1], "one image, one digest");
    for (image, host_port) in images.iter().zip([8080, 8081]) {
        let name = format!("web-{host_port}");
        let published = format!("{host_port}:{PORT}");
        let limits = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "20"];
        let run = ["run", "-d", "--name", &name, "-p", &published];
        engine
            .coracle(&[&run[..], &limits, &["--pull", "always", image]].concat())
            .ok();
        answers(engine, &neighbour, host_port);
        is_limited(engine, &name);
        says_what_it_was_built_with(engine, &name);
        engine.coracle(&["stop", "-t", "0", &name]).ok();
        engine.coracle(&["rm", &name]).ok();
        let gone = get_from(&engine.network(), &format!("127.0.0.1:{host_port}"), "/");
        assert!(gone.is_err(), "{gone:?}");
    }
    assert_eq!(engine.coracle(&["list", "-q"]).ok(), "");
}

/// From the host by its address and through localhost of both families, and from another machine.
fn answers(engine: &Engine, neighbour: &Host, port: u16) {
    let host = engine.network();
    let from = [
        (&host, format!("192.0.2.1:{port}")),
        (&host, format!("127.0.0.1:{port}")),
        (&host, format!("[::1]:{port}")),
        (&neighbour.network(), format!("192.0.2.1:{port}")),
    ];
    for (network, address) in from {
        let body = eventually(&format!("{address} answers"), || {
            get_from(network, &address, "/").ok()
        });
        assert_eq!(body, page("1"));
    }
}

fn is_limited(engine: &Engine, name: &str) {
    requires!(
        ["memory", "cpu", "pids"]
            .iter()
            .all(|name| has_controller(name)),
        "a controller is missing"
    );
    let script = "cd /sys/fs/cgroup; if [ -e cgroup.controllers ]; then cat memory.max cpu.max pids.max
        else cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids/pids.max; fi";
    let seen = engine.coracle(&["exec", name, "sh", "-c", script]).ok();
    let seen: Vec<_> = seen.split_whitespace().collect();
    assert_eq!(seen, ["67108864", "50000", "100000", "20"]);
}

fn says_what_it_was_built_with(engine: &Engine, name: &str) {
    let script = "id -un; pwd; echo $GREETING; tr '\\0' ' ' < /proc/1/cmdline";
    let seen = engine.coracle(&["exec", name, "sh", "-c", script]).ok();
    let expected = format!("user\n/www\ngood day\nhttpd -f -p {PORT} -h /www ");
    assert_eq!(seen, expected);
    let config = inspect(engine, name)["Config"].take();
    assert_eq!(
        config["Labels"]["org.opencontainers.image.title"], "application",
        "{config}"
    );
    assert_eq!(config["StopSignal"], "SIGINT", "{config}");
}

fn inspect(engine: &Engine, name: &str) -> Value {
    let text = engine.coracle(&["inspect", name]).ok();
    let mut all: Value = serde_json::from_str(&text).unwrap();
    all[0].take()
}

#[test]
fn an_image_of_buildah() {
    requires_builders!();
    let engine = Engine::new();
    let images = Registries::beside(&engine);
    let context = engine.path("context");
    application::prepare(&context, "1");
    let build = ["bud", "--quiet", "--tag", "localhost/app"];
    engine
        .buildah(&[&build[..], &[&context.to_string_lossy()]].concat())
        .ok();
    for image in images.images() {
        // It reads the file that Coracle's login has written.
        let push = ["push", "--quiet", "--tls-verify=false", "localhost/app"];
        engine
            .buildah(&[&push[..], &[&format!("docker://{image}")]].concat())
            .ok();
    }
    arrives(&engine, &images.images());
}

#[test]
fn an_image_of_docker() {
    requires_builders!("dockerd", "docker");
    let docker = Docker::new();
    let registries = Registries::beside(&docker.engine);
    let context = docker.engine.path("context");
    application::prepare(&context, "1");
    fs::rename(context.join("Containerfile"), context.join("Dockerfile")).unwrap();
    docker
        .run(&["build", "-q", "-t", "app", &context.to_string_lossy()])
        .ok();
    let login = ["login", "-u", USER.0, "-p", USER.1];
    docker
        .run(&[&login[..], &[&registries.secured.address]].concat())
        .ok();
    for image in &registries.images() {
        docker.run(&["tag", "app", image]).ok();
        docker.run(&["push", "-q", image]).ok();
    }
    arrives(&docker.engine, &registries.images());
}

#[test]
fn an_image_of_umoci() {
    requires_builders!("umoci", "skopeo");
    let engine = Engine::new();
    let registries = Registries::beside(&engine);
    let context = engine.path("context");
    let layout = application::by_umoci(&context, "1");
    for image in registries.images() {
        // umoci pushes nothing; the tool for that is skopeo.
        let (from, to) = (format!("oci:{layout}"), format!("docker://{image}"));
        let copy = ["copy", "--quiet", "--dest-tls-verify=false", &from, &to];
        engine.run("skopeo", &copy).ok();
    }
    arrives(&engine, &registries.images());
}
