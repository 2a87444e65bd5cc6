//! Times a cold start: from the command that runs an image which is already there to the first byte that its server answers at a published
//! port. Coracle, podman and Docker in turn (A B C A B C …), medians and ratios.
//!
//! `cargo bench -p runtime-tests --bench cold_start -- [--rounds N]`. Coracle is the engines' runtime too, which is
//! to their advantage: what differs is what they do around it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use runtime_tests::{Docker, Engine, has_program, need_root, number_of, within};

const IMAGE: &str = "localhost/busybox:latest";
const SERVER: [&str; 5] = ["httpd", "-f", "-p", "80", "-v"];

/// No start takes longer.
const LIMIT: Duration = Duration::from_secs(30);

/// How often a client asks whose answer is not there yet.
const PACE: Duration = Duration::from_micros(200);

fn main() -> ExitCode {
    need_root();
    let missing = ["buildah", "podman", "docker", "dockerd"]
        .into_iter()
        .find(|program| !has_program(program));
    if let Some(program) = missing {
        println!("cold start: skipped, {program} is not installed");
        return ExitCode::SUCCESS;
    }
    let rounds = number_of("--rounds", 15);
    let docker = Docker::new();
    let engine = &docker.engine;
    let archive = engine.path("cold.tar").display().to_string();
    let to = format!("oci-archive:{archive}:{IMAGE}");
    engine.buildah(&["push", "--quiet", IMAGE, &to]).ok();
    engine.coracle(&["load", "-q", "-i", &archive]).ok();
    for state in ["state", "run", "tmp"] {
        in_memory(&engine.path(state), engine);
    }
    let took = within(&engine.network(), || measure(&docker, rounds));
    println!("cold start, {rounds} rounds, medians in ms");
    for (name, times) in NAMES.iter().zip(&took) {
        let ratios = took[0]
            .iter()
            .zip(times)
            .map(|(ours, theirs)| ours / theirs);
        println!(
            "{name:<10}{:>8.1}  coracle/{name} {:.2}",
            median(times.clone()),
            median(ratios.collect())
        );
    }
    ExitCode::SUCCESS
}

const NAMES: [&str; 3] = ["coracle", "podman", "docker"];

/// What an engine knows of running containers is below /run, and that is in memory.
fn in_memory(path: &Path, engine: &Engine) {
    let path = path.display().to_string();
    fs::create_dir_all(&path).expect("a directory");
    engine.run("mount", &["-t", "tmpfs", "tmpfs", &path]).ok();
}

/// The times of each peer in milliseconds.
fn measure(docker: &Docker, rounds: usize) -> [Vec<f64>; 3] {
    let mut took = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        for (peer, times) in NAMES.iter().zip(&mut took) {
            let time = start(docker, peer);
            // Nobody's first is counted: caches are warm afterwards.
            if round > 0 {
                times.push(time.as_secs_f64() * 1e3);
            }
        }
    }
    took
}

fn start(docker: &Docker, peer: &str) -> Duration {
    let run = ["run", "-d", "--name", "cold", "-p", "8080:80"];
    let mut run = command(docker, peer, &[&run[..], &[IMAGE], &SERVER].concat());
    run.stdout(Stdio::null());
    let began = Instant::now();
    let mut child = run.spawn().expect("nsenter is installed");
    while !answers() {
        assert!(began.elapsed() < LIMIT, "{peer}'s server does not answer");
        thread::sleep(PACE);
    }
    let took = began.elapsed();
    assert!(child.wait().is_ok_and(|status| status.success()), "{peer}");
    let at_once: &[_] = if peer == "podman" { &["-t", "0"] } else { &[] };
    let mut remove = command(docker, peer, &[&["rm", "-f", "cold"], at_once].concat());
    let removed = remove.stdout(Stdio::null()).status();
    assert!(removed.is_ok_and(|status| status.success()), "{peer}");
    took
}

fn command(docker: &Docker, peer: &str, args: &[&str]) -> Command {
    match peer {
        "coracle" => docker.engine.coracle_command(args),
        "podman" => docker.engine.podman_command(args),
        _ => docker.command(args),
    }
}

/// A byte has come, whatever it is.
fn answers() -> bool {
    let ask = || -> std::io::Result<usize> {
        let mut stream = TcpStream::connect("127.0.0.1:8080")?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        stream.read(&mut [0])
    };
    ask().is_ok_and(|count| count == 1)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
