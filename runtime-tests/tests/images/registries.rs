//! docker-registry, plain and with TLS and a password, between Coracle, skopeo, buildah and podman.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use runtime_tests::{Engine, Home, Registry, has_program, requires, shell};
use serde_json::Value;

use super::has_tools;

/// What skopeo says about the image's manifest.
fn digest_by_skopeo(home: &Home, image: &str, flags: &[&str]) -> String {
    let image = format!("docker://{image}");
    let text = home
        .run("skopeo", &[&["inspect"], flags, &[&image]].concat())
        .ok();
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["Digest"].as_str().unwrap().to_owned()
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    let (home, registry) = (Home::new(), Registry::plain());
    let image = registry.image("team/app:1");
    home.coracle(&["pull", &home.make_layout(3_000_000)]).ok();
    home.coracle(&["tag", "localhost/layout:v1", &image]).ok();
    let said = home.coracle(&["push", &image]).ok();
    let digest = home.digest(&image);
    assert!(
        said.starts_with(&format!("1: digest: {digest} size: ")),
        "{said}"
    );
    assert_eq!(
        digest_by_skopeo(&home, &image, &["--tls-verify=false"]),
        digest
    );

    let other = Home::new();
    let pulled = other.coracle(&["pull", &image]);
    let lines: Vec<_> = pulled.stdout.lines().collect();
    let status = format!("Status: Downloaded newer image for {image}");
    assert_eq!(lines, [&format!("Digest: {digest}"), &status, &image]);
    assert_eq!(
        pulled.stderr.matches(": complete, ").count(),
        2,
        "{pulled:?}"
    );
    let again = other.coracle(&["pull", &image]);
    assert!(
        again.stdout.contains("Status: Image is up to date for "),
        "{again:?}"
    );
    assert_eq!(
        again.stderr.matches(": already exists").count(),
        2,
        "{again:?}"
    );
    let quiet = other.coracle(&["pull", "-q", &registry.image(&format!("team/app@{digest}"))]);
    assert_eq!(
        (quiet.stdout.lines().count(), quiet.stderr.as_str()),
        (1, "")
    );

    // Into another repository the layers are mounted, or are there; nothing else changes.
    let mounted = registry.image("team/other:1");
    let said = other.coracle(&["push", &image, &mounted]).ok();
    assert!(said.contains(&digest), "{said}");
    assert_eq!(
        digest_by_skopeo(&home, &mounted, &["--tls-verify=false"]),
        digest
    );
    other
        .coracle(&["pull", &registry.image("team/none")])
        .fails_with(1, "404 Not Found");
}

#[test]
fn a_registry_with_tls_and_a_password() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    let (home, registry) = (Home::new(), Registry::secured("tester", "secret"));
    let image = registry.image("app:1");
    home.coracle(&["pull", &home.make_layout(1000)]).ok();
    home.coracle(&["tag", "localhost/layout:v1", &image]).ok();
    home.coracle(&["push", &image])
        .fails_with(1, "invalid peer certificate");
    home.coracle(&["push", "--tls-verify=false", &image])
        .fails_with(1, "log in with \"coracle login 127.0.0.1:");
    home.trust(&registry);
    home.coracle(&["push", &image])
        .fails_with(1, "refuses to answer without credentials");

    let login = |password: &str| {
        let mut command = home.coracle_command(&[
            "login",
            "-u",
            "tester",
            "--password-stdin",
            &registry.address,
        ]);
        let file = home.path("password");
        fs::write(&file, format!("{password}\n")).unwrap();
        command.stdin(fs::File::open(file).unwrap());
        home.finish(command)
    };
    login("wrong").fails_with(1, "refuses the credentials of \"tester\"");
    assert!(!home.auth_file().exists());
    assert_eq!(login("secret").ok(), "Login Succeeded\n");
    assert_eq!(
        fs::metadata(home.auth_file()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    home.coracle(&["push", &image]).ok();
    home.coracle(&["pull", &image]).ok();

    // skopeo reads the same file, and the same directory of certificates.
    assert_eq!(digest_by_skopeo(&home, &image, &[]), home.digest(&image));
    home.coracle(&["logout", &registry.address]).ok();
    home.coracle(&["pull", &image])
        .fails_with(1, "without credentials");
    home.coracle(&["logout", &registry.address])
        .fails_with(1, "not logged in");

    // The other way round: podman's and skopeo's login is ours.
    home.run(
        "skopeo",
        &["login", "-u", "tester", "-p", "secret", &registry.address],
    )
    .ok();
    home.coracle(&["pull", &image]).ok();
}

#[test]
fn a_credential_helper_is_asked() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    let (home, registry) = (Home::new(), Registry::secured("tester", "secret"));
    home.trust(&registry);
    let bin = home.path("bin");
    fs::create_dir_all(&bin).unwrap();
    let helper = bin.join("docker-credential-safe");
    let known = home.path("known");
    let script = format!(
        "#!/bin/sh\nread server\ncase $1 in\nstore) echo \"$server\" > {0} ;;\nget) [ -e {0} ] && cat {0} || {{ echo credentials not found in native keychain; exit 1; }} ;;\nerase) rm {0} ;;\nesac\n",
        known.display()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir_all(home.auth_file().parent().unwrap()).unwrap();
    let content = format!(r#"{{"credHelpers": {{"{}": "safe"}}}}"#, registry.address);
    fs::write(home.auth_file(), &content).unwrap();
    let coracle = |args: &[&str]| {
        let mut command = home.coracle_command(args);
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        home.finish(command)
    };
    let image = registry.image("app:1");
    coracle(&["pull", &image]).fails_with(1, "without credentials");
    coracle(&["login", "-u", "tester", "-p", "secret", &registry.address]).ok();
    assert!(
        fs::read_to_string(&known)
            .unwrap()
            .contains("\"Secret\":\"secret\"")
    );
    assert_eq!(
        fs::read_to_string(home.auth_file()).unwrap(),
        content,
        "the password is not in the file"
    );
    coracle(&["pull", &image]).fails_with(1, "404");
    coracle(&["logout", &registry.address]).ok();
    assert!(!known.exists());
}

#[test]
fn buildah_and_podman_push_and_pull_the_same_images() {
    requires!(
        has_tools() && has_program("podman"),
        "docker-registry or podman is not installed"
    );
    requires!(
        runtime_tests::rootless().is_none(),
        "the registry runs as root here"
    );
    let engine = Engine::new();
    let registry = Registry::beside(&engine);
    let coracle = |args: &[&str]| engine.coracle(args);
    for (format, name) in [("oci", "app:oci"), ("v2s2", "app:docker")] {
        let image = registry.image(name);
        let to = format!("docker://{image}");
        engine
            .buildah(&[
                "push",
                "--quiet",
                "--tls-verify=false",
                "--format",
                format,
                "localhost/busybox",
                &to,
            ])
            .ok();
        coracle(&["pull", "-q", &image]).ok();
        let text = coracle(&["inspect", &image]).ok();
        let inspected: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            inspected[0]["Config"]["Cmd"],
            serde_json::json!(["sh"]),
            "{text}"
        );

        let back = registry.image(&format!("back-{name}"));
        coracle(&["push", "-q", &image, &back]).ok();
        engine
            .podman(&["pull", "--quiet", "--tls-verify=false", &back])
            .ok();
        let of = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
        let digest = engine.run(
            "skopeo",
            &[&of[..], &[&format!("docker://{back}")]].concat(),
        );
        assert_eq!(digest.ok().trim(), inspected[0]["Digest"]);
        let said = engine
            .podman(&["run", "--rm", &back, "echo", "it runs"])
            .ok();
        assert_eq!(said, "it runs\n");
    }
}

#[test]
fn the_image_of_a_platform_is_chosen_from_a_list() {
    requires!(
        has_tools() && has_program("podman"),
        "docker-registry or podman is not installed"
    );
    requires!(
        runtime_tests::rootless().is_none(),
        "the registry runs as root here"
    );
    let engine = Engine::new();
    let registry = Registry::beside(&engine);
    let coracle = |args: &[&str]| engine.coracle(args);
    engine
        .buildah(&["manifest", "create", "localhost/list"])
        .ok();
    let context = engine.path("busybox").to_string_lossy().into_owned();
    for arch in ["amd64", "arm64", "s390x"] {
        let args = [
            "bud",
            "--quiet",
            "--platform",
            &format!("linux/{arch}"),
            "--manifest",
            "localhost/list",
            &context,
        ];
        engine.buildah(&args).ok();
    }
    let image = registry.image("list:1");
    let to = format!("docker://{image}");
    engine
        .buildah(&[
            "manifest",
            "push",
            "--quiet",
            "--all",
            "--tls-verify=false",
            "localhost/list",
            &to,
        ])
        .ok();
    for arch in ["arm64", "amd64"] {
        coracle(&["pull", "-q", "--platform", &format!("linux/{arch}"), &image]).ok();
        let inspected: Value = serde_json::from_str(&coracle(&["inspect", &image]).ok()).unwrap();
        assert_eq!(inspected[0]["Architecture"], arch);
    }
    let bundle = engine.path("bundle").display().to_string();
    let unpack = ["unpack", "-q", "--platform", "linux/s390x", &image, &bundle];
    coracle(&unpack).ok();
    let config = fs::read(engine.path("bundle/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let architecture = &config["annotations"]["org.opencontainers.image.architecture"];
    assert_eq!(
        architecture, "s390x",
        "the store had another one under this name"
    );
    let none = coracle(&["pull", "-q", "--platform", "linux/riscv64", &image]);
    none.fails_with(
        1,
        "there is no image for linux/riscv64, only for: linux/amd64, linux/arm64",
    );
}

/// Makes the layout `artifact` in the current directory: one file of a type that is no image's, which refers to `$SUBJECT`.
const ARTIFACT: &str = r#"
mkdir -p artifact/blobs/sha256 && cd artifact
put() {
    digest=$(sha256sum part | cut -c-64)
    descriptor="\"mediaType\":\"application/$1\",\"digest\":\"sha256:$digest\",\"size\":$(stat -c %s part)"
    mv part blobs/sha256/$digest
}
echo '{"name":"app","version":"1"}' > part; put vnd.cncf.helm.config.v1+json; config=$descriptor
echo a chart > part; put vnd.cncf.helm.chart.content.v1.tar+gzip
printf '{"schemaVersion":2,"config":{%s},"layers":[{%s}],"subject":%s}' "$config" "$descriptor" "$SUBJECT" > part
put vnd.oci.image.manifest.v1+json
printf '{"schemaVersion":2,"manifests":[{%s,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}' "$descriptor" > index.json
"#;

#[test]
fn an_artifact_is_kept_and_passed_on_but_never_run() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    let (home, registry) = (Home::new(), Registry::plain());
    let (image, chart) = (registry.image("app:1"), registry.image("app:chart"));
    home.coracle(&["pull", "-q", &home.make_layout(1000)]).ok();
    home.coracle(&["push", "-q", "layout:v1", &image]).ok();
    let digest = home.digest("layout:v1");
    let subject = format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":1}}"#
    );
    let dir = home.path("").display().to_string();
    shell(&format!(
        "cd {dir} && export SUBJECT='{subject}' && set -e\n{ARTIFACT}"
    ));
    let layout = format!("oci:{}:v1", home.path("artifact").display());
    home.coracle(&["pull", "-q", &layout]).ok();
    home.coracle(&["push", "-q", "localhost/artifact:v1", &chart])
        .ok();
    let pushed = home.digest("localhost/artifact:v1");
    let to = format!("docker://{chart}");
    let raw = ["inspect", "--raw", "--tls-verify=false", &to];
    let kind = "application/vnd.cncf.helm.config.v1+json";
    assert!(home.run("skopeo", &raw).ok().contains(kind));

    // This registry has no list of referrers, so the client keeps it.
    let text = home.coracle(&["inspect", "--referrers", &image]).ok();
    let referrers: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(referrers[0]["digest"], *pushed, "{text}");
    assert_eq!(referrers[0]["artifactType"], kind, "{text}");
    assert_eq!(
        home.coracle(&["inspect", "--referrers", &chart]).ok(),
        "[]\n"
    );

    let other = Home::new();
    other.coracle(&["pull", &chart]).ok();
    assert!(other.coracle(&["images"]).ok().contains("chart"));
    let text = other.coracle(&["inspect", &chart]).ok();
    let inspected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(inspected[0]["Config"], Value::Null);
    assert_eq!(inspected[0]["ConfigMediaType"], kind);
    let sentence =
        format!("image {chart}: it is no container image, but an artifact of type \"{kind}\"");
    for (args, code) in [
        (&["run", &chart][..], 125),
        (&["unpack", &chart, "bundle"], 1),
        (&["save", "-o", "archive", &chart], 1),
    ] {
        other.coracle(args).fails_with(code, &sentence);
    }
    assert!(!other.path("bundle").exists() && !other.path("archive").exists());
    let archive = ["save", "--format", "oci-archive", "-o", "archive", &chart];
    other.coracle(&archive).ok();
    other.coracle(&["rmi", &chart]).ok();
    other.coracle(&["load", "-i", "archive"]).ok();
    assert_eq!(other.digest(&chart), pushed);
    other.coracle(&["prune", "--all"]).ok();
}
