//! Times each command of Coracle in turn with crun's and runc's (A B A B …), and prints medians and ratios.
//!
//! `cargo bench -p runtime-tests --bench peers -- [--rounds N] [--list N]`. The numbers of one run can be compared with each
//! other, never with another run's: machines differ, and so do their minutes. The ratio is the median of the ratios
//! pair by pair, so a slow minute hits both sides.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use runtime_tests::{
    Hierarchy, View, base_config, fill_rootfs, has_capability, has_program, hierarchy, need_root,
    number_of, runtime,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// CAP_SYS_RESOURCE: without it crun 1.8 cannot raise its limit of locked memory and loads no device program.
const SYS_RESOURCE: u32 = 24;

fn main() -> ExitCode {
    need_root();
    let args: Vec<String> = env::args().skip(1).collect();
    let (rounds, listed) = (number_of("--rounds", 30), number_of("--list", 50));
    match args.iter().find_map(|arg| arg.strip_prefix("--in-view=")) {
        Some(view) => compare(view, rounds, listed),
        None => in_each_view(&args),
    }
}

/// Runs this program again in each view of the cgroups that all peers can work in, with real-time priority where allowed.
fn in_each_view(args: &[String]) -> ExitCode {
    println!("{}", machine());
    let allowed = Command::new("chrt")
        .args(["-f", "1", "true"])
        .status()
        .is_ok_and(|status| status.success());
    for (wanted, name) in [(Hierarchy::V2, "v2"), (Hierarchy::V1, "v1")] {
        let Some(view) = View::of(wanted) else {
            println!("\ncgroup {name}: skipped, this machine's cgroups cannot be seen so");
            continue;
        };
        // A v1 cgroup without real-time runtime of its own takes no real-time process.
        let realtime = allowed
            && !(name == "v1" && Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists());
        println!(
            "\ncgroup {name}, {}",
            if realtime {
                "SCHED_FIFO 1"
            } else {
                "nice -20, real-time priority is not allowed"
            }
        );
        let own = env::current_exe().expect("the benchmark's own path");
        let mut command = view.command(Path::new(if realtime { "chrt" } else { "nice" }));
        command.args(if realtime { ["-f", "1"] } else { ["-n", "-20"] });
        let status = command
            .arg(own)
            .args(args)
            .arg(format!("--in-view={name}"))
            .status()
            .expect("nsenter starts");
        if !status.success() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn machine() -> String {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap_or("?")
            .trim_start_matches([' ', '\t', ':'])
            .trim()
            .to_owned()
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "machine: {cpus} CPUs, {}, kernel {}, cgroups {:?}",
        first("/proc/cpuinfo", "model name"),
        kernel.trim(),
        hierarchy()
    )
}

/// One runtime with its state root and bundle.
struct Peer {
    program: PathBuf,
    version: String,
    dir: TempDir,
}

impl Peer {
    fn new(program: PathBuf, config: &Value) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("bench-")
            // Where states are kept in real life, /run, is a tmpfs: a disk's fsync is not what is measured here.
            .tempdir_in("/dev/shm")
            .expect("/dev/shm is writable");
        for (bundle, args) in [
            ("true", json!(["/bin/true"])),
            ("idle", json!(["/bin/sleep", "1000000"])),
        ] {
            fill_rootfs(&dir.path().join(bundle).join("rootfs"));
            let mut config = config.clone();
            config["process"]["args"] = args;
            fs::write(
                dir.path().join(bundle).join("config.json"),
                config.to_string(),
            )
            .expect("a file");
        }
        let answer = Command::new(&program)
            .arg("--version")
            .output()
            .expect("the runtime starts");
        let version = String::from_utf8_lossy(&answer.stdout)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        Self {
            program,
            version,
            dir,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(self.dir.path().join("state"))
            .args(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Runs a command to its end: how long it took, or that it failed.
    fn time(&self, args: &[&str]) -> Result<Duration, String> {
        let mut command = self.command(args);
        let began = Instant::now();
        let status = command.status().map_err(|e| e.to_string())?;
        let took = began.elapsed();
        if status.success() {
            return Ok(took);
        }
        let again = command
            .stderr(Stdio::piped())
            .output()
            .map_err(|e| e.to_string())?;
        Err(format!(
            "{args:?}: {}",
            String::from_utf8_lossy(&again.stderr).trim()
        ))
    }

    fn bundle(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn id(&self, name: &str) -> String {
        format!(
            "{}-{name}",
            self.dir
                .path()
                .file_name()
                .expect("a name")
                .to_string_lossy()
        )
    }

    fn has_stopped(&self, id: &str) -> bool {
        let answer = self
            .command(&["state", id])
            .stdout(Stdio::piped())
            .output()
            .expect("the runtime starts");
        String::from_utf8_lossy(&answer.stdout).contains("\"stopped\"")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let ids = fs::read_dir(self.dir.path().join("state"))
            .into_iter()
            .flatten()
            .flatten();
        for id in ids.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            let _ = self.time(&["delete", "--force", &id]);
        }
    }
}

type Measure = fn(&Peer) -> Result<Duration, String>;

/// What is timed. Whatever else a command needs happens before and after the clock runs.
const COMMANDS: [(&str, Measure); 8] = [
    ("run", |peer| {
        peer.time(&["run", "--bundle", &peer.bundle("true"), &peer.id("run")])
    }),
    ("create", |peer| {
        let took = peer.time(&["create", "--bundle", &peer.bundle("true"), &peer.id("one")])?;
        peer.time(&["delete", "--force", &peer.id("one")])?;
        Ok(took)
    }),
    ("start", |peer| {
        peer.time(&["create", "--bundle", &peer.bundle("idle"), &peer.id("one")])?;
        let took = peer.time(&["start", &peer.id("one")])?;
        peer.time(&["delete", "--force", &peer.id("one")])?;
        Ok(took)
    }),
    ("exec", |peer| {
        peer.time(&["exec", &peer.id("idle"), "/bin/true"])
    }),
    ("state", |peer| peer.time(&["state", &peer.id("idle")])),
    ("delete, stopped", |peer| {
        peer.time(&["create", "--bundle", &peer.bundle("true"), &peer.id("one")])?;
        peer.time(&["start", &peer.id("one")])?;
        while !peer.has_stopped(&peer.id("one")) {}
        peer.time(&["delete", &peer.id("one")])
    }),
    ("delete --force, running", |peer| {
        peer.time(&[
            "run",
            "--detach",
            "--bundle",
            &peer.bundle("idle"),
            &peer.id("one"),
        ])?;
        peer.time(&["delete", "--force", &peer.id("one")])
    }),
    ("list", |peer| peer.time(&["list"])),
];

fn compare(view: &str, rounds: usize, listed: usize) -> ExitCode {
    let mut config = base_config();
    if view == "v2" && !has_capability(SYS_RESOURCE) {
        println!(
            "without CAP_SYS_RESOURCE crun loads no device program: no device rules for anybody on v2"
        );
        config["linux"]
            .as_object_mut()
            .expect("an object")
            .remove("resources");
    }
    let programs = [runtime().to_owned(), "crun".into(), "runc".into()];
    let peers: Vec<Peer> = programs
        .into_iter()
        .enumerate()
        .filter_map(|(n, program)| take_part(program, n == 0, &config))
        .collect();
    if peers.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("{rounds} rounds, {listed} containers in the list, medians in µs");
    for peer in &peers {
        println!("  {}: {}", peer.program.display(), peer.version);
    }
    let names: Vec<String> = peers
        .iter()
        .map(|peer| {
            peer.program
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    print!("\n{:<26}", "");
    names.iter().for_each(|name| print!("{name:>12}"));
    names[1..]
        .iter()
        .for_each(|name| print!("{:>14}", format!("{name}/{}", names[0])));
    println!();
    for (name, measure) in COMMANDS {
        match times(&peers, name, measure, rounds, listed) {
            Ok(times) => print_row(name, &times),
            Err(error) => {
                println!("{name:<26}  failed: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// A peer that runs one container here; others are named with their reason, and the first one may not refuse.
fn take_part(program: PathBuf, must: bool, config: &Value) -> Option<Peer> {
    if !must && !has_program(&program.to_string_lossy()) {
        println!("{}: skipped, not installed", program.display());
        return None;
    }
    let peer = Peer::new(program, config);
    let first = COMMANDS[0].1(&peer).and_then(|_| {
        peer.time(&[
            "run",
            "--detach",
            "--bundle",
            &peer.bundle("idle"),
            &peer.id("idle"),
        ])
    });
    match first {
        Ok(_) => Some(peer),
        Err(reason) if must => panic!(
            "{} runs no container here: {reason}",
            peer.program.display()
        ),
        Err(reason) => {
            println!(
                "{}: skipped, it runs no container here: {reason}",
                peer.program.display()
            );
            None
        }
    }
}

/// The times of each peer, taken in turn.
fn times(
    peers: &[Peer],
    name: &str,
    measure: Measure,
    rounds: usize,
    listed: usize,
) -> Result<Vec<Vec<Duration>>, String> {
    let many: Vec<String> = if name == "list" {
        (0..listed).map(|n| format!("many-{n}")).collect()
    } else {
        Vec::new()
    };
    for peer in peers {
        for id in &many {
            peer.time(&["create", "--bundle", &peer.bundle("idle"), &peer.id(id)])?;
        }
        measure(peer)?;
    }
    let mut times = vec![Vec::with_capacity(rounds); peers.len()];
    for _ in 0..rounds {
        for (peer, times) in peers.iter().zip(&mut times) {
            times.push(measure(peer)?);
        }
    }
    Ok(times)
}

fn print_row(name: &str, times: &[Vec<Duration>]) {
    print!("{name:<26}");
    for times in times {
        print!(
            "{:>12}",
            median(times.iter().map(|time| time.as_secs_f64() * 1e6).collect()).round()
        );
    }
    for other in &times[1..] {
        let ratios = other
            .iter()
            .zip(&times[0])
            .map(|(theirs, ours)| theirs.as_secs_f64() / ours.as_secs_f64());
        print!("{:>14}", format!("{:.2}", median(ratios.collect())));
    }
    println!();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
