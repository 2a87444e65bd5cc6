//! Containers that podman looks after: health, restarts, what Kubernetes' manifests describe, images built in stages.

use std::fs;

use runtime_tests::{eventually, has_program, requires};

use super::{IMAGE, engine, start_box};

#[test]
fn health_is_asked_inside() {
    let engine = engine!();
    start_box(
        &engine,
        &[
            "--health-cmd=test -e /healthy",
            "--health-interval=disable",
            "--health-retries=1",
        ],
    );
    let status = || {
        let format = "{{.State.Health.Status}}";
        engine.podman(&["inspect", "--format", format, "box"]).ok()
    };
    engine.podman(&["healthcheck", "run", "box"]).exits(1);
    assert_eq!(status(), "unhealthy\n");
    engine.podman(&["exec", "box", "touch", "/healthy"]).ok();
    engine.podman(&["healthcheck", "run", "box"]).ok();
    assert_eq!(status(), "healthy\n");
}

#[test]
fn a_failing_container_is_restarted() {
    let engine = engine!();
    let run = ["run", "-d", "--name", "box", "--restart=on-failure:2"];
    let script = "echo started; exit 3";
    engine
        .podman(&[&run[..], &[IMAGE, "sh", "-c", script]].concat())
        .ok();
    let format = "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}";
    eventually("two restarts", || {
        let seen = engine.podman(&["inspect", "--format", format, "box"]).ok();
        (seen == "2 exited 3\n").then_some(())
    });
    assert_eq!(engine.podman(&["logs", "box"]).ok(), "started\n".repeat(3));
}

const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: played
spec:
  hostname: stage
  securityContext: { runAsUser: 1000 }
  containers:
  - name: one
    image: localhost/busybox
    imagePullPolicy: Never
    command: [sh, -c, 'echo of one > /shared/file; exec sleep 1000000']
    volumeMounts: [{ name: shared, mountPath: /shared }]
    securityContext: { readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
  - name: two
    image: localhost/busybox
    imagePullPolicy: Never
    command: [sleep, '1000000']
    env: [{ name: GREETING, value: hello }]
    volumeMounts: [{ name: shared, mountPath: /shared, readOnly: true }]
  volumes: [{ name: shared, emptyDir: {} }]
"#;

#[test]
fn a_manifest_of_kubernetes() {
    let engine = engine!();
    requires!(has_program("catatonit"), "pods need catatonit");
    let file = engine.path("pod.yaml");
    fs::write(&file, MANIFEST).unwrap();
    let file = file.to_string_lossy();
    // No flag says below which cgroup: podman has one name for all pods, and this one's goes with it.
    engine
        .podman(&["kube", "play", "--network=none", &file])
        .ok();
    let inside = |name: &str, script: &str| engine.podman(&["exec", name, "sh", "-c", script]).ok();
    assert_eq!(
        inside(
            "played-one",
            "id -u; hostname; touch /x 2>/dev/null || echo read-only; grep CapEff /proc/self/status"
        ),
        "1000\nstage\nread-only\nCapEff:\t0000000000000000\n"
    );
    eventually("the file of the other container", || {
        let read = engine.podman(&["exec", "played-two", "cat", "/shared/file"]);
        (read.stdout == "of one\n").then_some(())
    });
    assert_eq!(
        inside(
            "played-two",
            "echo $GREETING; touch /shared/x 2>/dev/null || echo read-only"
        ),
        "hello\nread-only\n"
    );
    engine.podman(&["kube", "down", &file]).ok();
    assert_eq!(engine.podman(&["ps", "--all", "--quiet"]).ok(), "");
}

const STAGES: &str = r#"
FROM localhost/busybox AS build
WORKDIR /src
COPY text text
RUN tr a-z A-Z < text > /out && chown 1000:1000 /out

FROM localhost/busybox
COPY --from=build /out /out
RUN --mount=type=tmpfs,target=/scratch cp /out /scratch/ && stat -c %u /out > /owner
USER 1000
ENTRYPOINT ["cat"]
CMD ["/out", "/owner"]
"#;

#[test]
fn an_image_built_in_stages() {
    let engine = engine!();
    let context = engine.path("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Containerfile"), STAGES).unwrap();
    fs::write(context.join("text"), "made in stages\n").unwrap();
    let context = context.to_string_lossy();
    engine
        .podman(&["build", "--tag", "localhost/staged", &context])
        .ok();
    assert_eq!(
        engine.podman(&["run", "--rm", "localhost/staged"]).ok(),
        "MADE IN STAGES\n1000\n"
    );
}
