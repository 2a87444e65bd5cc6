//! One image under Coracle itself, podman, Docker and containerd: what its process sees, point by point. Where an engine's containers see
//! something else than Coracle's own, `docs/views.md` says why; any other difference is a failure.

use std::collections::{BTreeMap, BTreeSet};

use runtime_tests::{
    Containerd, Docker, Engine, by_systemd, has_controller, has_program, requires, rootless,
};

use crate::application;

const IMAGE: &str = "localhost/app:latest";
const SCRIPT: &str = include_str!("view.sh");
const EXPLAINED: &str = include_str!("../../../docs/views.md");

/// What a process sees: point → value. A point that is told more than once has all its values.
type View = BTreeMap<String, String>;

fn view_of(said: &str) -> View {
    let mut view = View::new();
    for (point, value) in said.lines().filter_map(|line| line.split_once('=')) {
        let value = value.trim();
        view.entry(point.to_owned())
            .and_modify(|all| *all = format!("{all}; {value}"))
            .or_insert_with(|| value.to_owned());
    }
    assert!(view.len() > 60, "the view is nearly empty: {said}");
    view
}

/// A row of the table in `docs/views.md`: engine, point (may end with `*`), reason.
struct Explanation {
    engine: &'static str,
    point: &'static str,
}

fn explanations() -> impl Iterator<Item = Explanation> {
    let rows = EXPLAINED.lines().filter(|line| line.starts_with("| "));
    rows.skip(1).map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, engine, point, reason, _] = cells[..] else {
            panic!("engine, point and reason make a row: {row}")
        };
        assert!(!reason.is_empty(), "a reason is missing: {row}");
        let point = point.trim_matches('`');
        Explanation { engine, point }
    })
}

impl Explanation {
    fn explains(&self, engine: &str, point: &str) -> bool {
        let matches = match self.point.strip_suffix('*') {
            Some(beginning) => point.starts_with(beginning),
            None => point == self.point,
        };
        matches && (self.engine == engine || self.engine == "all")
    }
}

fn compare(engine: &str, ours: &View, theirs: &View) {
    let points: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let mut unexplained = Vec::new();
    for point in points {
        let [ours, theirs] = [ours, theirs].map(|view| view.get(point).map_or("-", String::as_str));
        if ours == theirs {
            continue;
        }
        let line = format!("{point}: {ours:?} by Coracle, {theirs:?} by {engine}");
        println!("{line}");
        if !explanations().any(|one| one.explains(engine, point)) {
            unexplained.push(line);
        }
    }
    assert!(
        unexplained.is_empty(),
        "not explained in docs/views.md: {unexplained:#?}"
    );
}

/// The image in the engine's storage and in Coracle's, and what it sees when Coracle runs it.
fn ours(engine: &Engine) -> View {
    let context = engine.path("context");
    application::prepare(&context, "1");
    let build = ["bud", "--quiet", "--tag", IMAGE];
    engine
        .buildah(&[&build[..], &[&context.to_string_lossy()]].concat())
        .ok();
    let archive = engine.path("app.tar").display().to_string();
    let to = format!("oci-archive:{archive}:{IMAGE}");
    engine.buildah(&["push", "--quiet", IMAGE, &to]).ok();
    engine.coracle(&["load", "-q", "-i", &archive]).ok();
    let run = ["run", "--rm", "-m", "64m", "--cpus", "0.5"];
    let said = engine.coracle(&[&run[..], &[IMAGE, "sh", "-c", SCRIPT]].concat());
    view_of(&said.ok())
}

macro_rules! requires_engine {
    ($($program:literal),*) => {
        requires!(rootless().is_none() && !by_systemd(), "engines run as root here, without systemd");
        requires!(has_controller("memory") && has_controller("cpu"), "a controller is missing");
        for program in ["buildah", $($program),*] {
            requires!(has_program(program), "{program} is not installed");
        }
    };
}

#[test]
fn by_podman() {
    requires_engine!("podman");
    let engine = Engine::new();
    let ours = ours(&engine);
    let run = ["run", "--rm", "-m", "64m", "--cpus", "0.5"];
    let said = engine.podman(&[&run[..], &[IMAGE, "sh", "-c", SCRIPT]].concat());
    compare("podman", &ours, &view_of(&said.ok()));
}

#[test]
fn by_docker() {
    requires_engine!("docker", "dockerd");
    let docker = Docker::new();
    let ours = ours(&docker.engine);
    docker.import(IMAGE);
    let run = ["run", "--rm", "-m", "64m", "--cpus", "0.5"];
    let said = docker.run(&[&run[..], &[IMAGE, "sh", "-c", SCRIPT]].concat());
    compare("Docker", &ours, &view_of(&said.ok()));
}

#[test]
fn by_containerd() {
    requires_engine!("containerd", "ctr");
    let containerd = Containerd::new();
    let ours = ours(&containerd.engine);
    containerd.import(IMAGE);
    let flags = ["--rm", "--memory-limit", "67108864", "--cpus", "0.5"];
    let said = containerd.run_image(&flags, IMAGE, "view", &["sh", "-c", SCRIPT]);
    compare("containerd", &ours, &view_of(&said.ok()));
}
