//! What containers cost besides the time of one command: how many can be made a second, memory, system calls, the size of the program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use runtime_tests::{Hierarchy, count_calls, floor, has_program, traced};
use serde_json::json;

use crate::Options;
use crate::peer::{self, Peer};
use crate::results::{OURS, Section, in_turn, median};

const LOOPS: [usize; 4] = [1, 2, 4, 8];
/// Rates are measured over many containers, so fewer times.
const RATES: usize = 3;
const LARGEST_LIMIT: usize = 16 * 1024;
const LIMIT_STEP: usize = 32;

pub(crate) fn measure(
    peers: &mut [Peer],
    options: &Options,
    hierarchy: Hierarchy,
    section: &mut Section,
) {
    for loops in LOOPS {
        let each = (2 * options.rounds / loops).max(2);
        let samples = in_turn(peers, RATES, |peer| rate(peer, loops, each));
        section.add_samples(&format!("{loops} loops"), "containers/s", samples);
    }
    let samples = in_turn(peers, RATES, |peer| peak_memory(peer).map(Some));
    section.add_samples("peak RSS of run", "KiB", samples);
    steps(peers, options.rounds, section);
    if hierarchy == Hierarchy::V1 {
        add_values(
            peers,
            section,
            "smallest memory limit",
            "KiB",
            smallest_limit,
        );
        return;
    }
    if has_program("strace") {
        for command in ["run", "exec", "state"] {
            let name = format!("system calls of {command}");
            add_values(peers, section, &name, "calls", |peer| calls(peer, command));
        }
    } else {
        println!("system calls: skipped, strace is not installed");
    }
    let size = |path: &Path| fs::metadata(path).map(|file| file.len() as f64).ok();
    add_values(peers, section, "program", "bytes", |peer| {
        size(&in_path(&peer.program))
    });
    add_values(peers, section, "shared libraries", "files", libraries);
    if let Some(small) = options.small.as_deref().and_then(size) {
        let values = [(OURS.to_owned(), small)];
        section.add_values("program without images and network", "bytes", values.into());
    }
}

fn add_values(
    peers: &mut [Peer],
    section: &mut Section,
    name: &str,
    unit: &str,
    mut value: impl FnMut(&mut Peer) -> Option<f64>,
) {
    let values: BTreeMap<String, f64> = peers
        .iter_mut()
        .filter_map(|peer| {
            peer.enter();
            Some((peer.name.clone(), value(peer)?))
        })
        .collect();
    section.add_values(name, unit, values);
}

fn run_true(peer: &mut Peer) -> String {
    peer.template_bundle("true", &["/bin/true"])
}

/// Containers a second, made one after the other in each of some loops.
fn rate(peer: &mut Peer, loops: usize, each: usize) -> Result<Option<f64>, String> {
    let bundle = run_true(peer);
    let peer = &*peer;
    let began = Instant::now();
    let done: Result<Vec<()>, String> = thread::scope(|scope| {
        let bundle = &bundle;
        let one = |number| {
            scope.spawn(move || {
                let id = peer.id(&format!("loop-{number}"));
                (0..each).try_for_each(|_| peer.begin(&["run"], bundle, &id).map(drop))
            })
        };
        let all: Vec<_> = (0..loops).map(one).collect();
        all.into_iter()
            .map(|thread| thread.join().expect("a loop does not panic"))
            .collect()
    });
    done?;
    Ok(Some((loops * each) as f64 / began.elapsed().as_secs_f64()))
}

/// Of the runtime's processes and the container's. A small program waits for it: what its caller has counts as well.
fn peak_memory(peer: &mut Peer) -> Result<f64, String> {
    let (bundle, id) = (run_true(peer), peer.one());
    let run = peer.command(&["run", "--bundle", &bundle, &id]);
    let output = Command::new(floor())
        .arg("rss")
        .arg(in_path(&peer.program))
        .args(run.get_args())
        .stdin(Stdio::null())
        .output()
        .expect("the floor starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let number = said.lines().last().and_then(|line| line.parse().ok());
    number.ok_or_else(|| format!("its memory is not known: {said}"))
}

/// Where the floor's time goes.
fn steps(peers: &mut [Peer], rounds: usize, section: &mut Section) {
    let Some(peer) = peers.iter_mut().find(|peer| peer.is_floor) else {
        return;
    };
    peer.enter();
    let (bundle, id) = (run_true(peer), peer.one());
    let mut all: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        let ran = peer.begin(&["--steps", "run"], &bundle, &id);
        ran.unwrap_or_else(|reason| panic!("{}: {reason}", peer.name));
        for line in peer.said().lines() {
            let mut words = line.split_whitespace();
            let (whose, took) = (words.next(), words.next());
            let step = words.collect::<Vec<_>>().join(" ");
            let name = format!("{}: {step}", whose.expect("whose step it is"));
            let took = took.and_then(|took| took.parse().ok()).expect("a number");
            match all.iter_mut().find(|(one, _)| *one == name) {
                Some((_, times)) => times.push(took),
                None => all.push((name, vec![took])),
            }
        }
    }
    let medians = all.into_iter().map(|(name, times)| (name, median(&times)));
    section.steps = medians.collect();
}

/// The smallest limit of memory, in KiB, in which a container runs.
fn smallest_limit(peer: &mut Peer) -> Option<f64> {
    let mut runs = |kib: usize| {
        let bundle = peer.bundle(&format!("memory-{kib}"), |peer| {
            let mut config = peer.template();
            config["process"]["args"] = json!(["/bin/true"]);
            config["linux"]["resources"]["memory"] = json!({ "limit": kib * 1024 });
            config
        });
        let id = peer.one();
        (0..3).all(|_| {
            let ran = peer.begin(&["run"], &bundle, &id).is_ok();
            if !ran {
                let _ = peer.delete_force(&id);
            }
            ran
        })
    };
    let (mut fails, mut enough) = (0, LARGEST_LIMIT / LIMIT_STEP);
    while enough - fails > 1 {
        let middle = (fails + enough) / 2;
        match runs(middle * LIMIT_STEP) {
            true => enough = middle,
            false => fails = middle,
        }
    }
    Some((enough * LIMIT_STEP) as f64)
}

/// The system calls of a command until the user's program, and after it: the least of three.
fn calls(peer: &mut Peer, command: &str) -> Option<f64> {
    let (bundle, id, idle) = (run_true(peer), peer.one(), peer.id("idle"));
    let args: &[&str] = match command {
        "run" => &["run", "--bundle", &bundle, &id],
        "exec" => &["exec", &idle, "/bin/true"],
        _ => &["state", &idle],
    };
    // strace with its own libraries: the peer's are found behind nsenter, whose calls are not counted.
    let own = peer.command(args);
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount={}", peer.mounts())).arg("--");
    command.arg(own.get_program()).args(own.get_args());
    let program = in_path(&peer.program).display().to_string();
    let log = peer.path("strace");
    peer::go_home();
    let counts = (0..3).filter_map(|_| {
        let mut traced = traced(&command, Path::new("nsenter"), &log);
        traced
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let ran = traced.status().is_ok_and(|status| status.success());
        let text = fs::read_to_string(&log).unwrap_or_default();
        let begin = text.find(&format!("execve(\"{program}\""))?;
        let begin = text[..begin].rfind('\n').map_or(0, |end| end + 1);
        ran.then(|| count_calls(&text[begin..]))
    });
    counts.min().map(|count| count as f64)
}

/// As the loader lists them; a static program has no loader, and tells its version.
fn libraries(peer: &mut Peer) -> Option<f64> {
    let listed = Command::new(&peer.program)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .arg("--version")
        .output();
    let text = listed.ok()?.stdout;
    let text = String::from_utf8_lossy(&text);
    Some(text.matches(" => ").count() as f64)
}

/// Where a program is that was named without a directory.
fn in_path(program: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| program.to_owned())
}
