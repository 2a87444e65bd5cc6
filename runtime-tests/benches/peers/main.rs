//! Measures Coracle beside its peers and beside `floor`, which does only what no runtime can avoid.
//!
//! `cargo bench -p runtime-tests --bench peers -- [--rounds N] [--largest N] [--newest SUITE] [--youki PATH] [--small PATH] [--write DIR]`
//!
//! Runtimes take turns (A B A B …) in one process, at real-time priority where that is allowed; what is told is medians, and the median of the
//! ratios pair by pair, so that a slow minute hits all. The numbers of one run can be compared with each other, never with another run's.
//!
//! `--rounds` is how often each is measured (30), `--largest` how far costs are followed as containers, mounts and the like grow (1000;
//! 10000 makes so many containers), `--newest` the Debian suite whose crun and runc take part beside the installed ones (sid; `none`),
//! `--small` a binary without images and network, `--write` where the results go: results.json, README.md and pictures.

mod commands;
mod costs;
mod growth;
mod peer;
mod plot;
mod report;
mod results;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use runtime_tests::{Hierarchy, View, need_root, number_of};

use peer::Peer;
use results::{Machine, Results, Section};

/// What the command line says.
struct Options {
    rounds: usize,
    largest: usize,
    newest: String,
    youki: Option<PathBuf>,
    small: Option<PathBuf>,
    write: Option<PathBuf>,
    /// This is the process that measures in one view, and where its part of the results goes.
    view: Option<(Hierarchy, PathBuf)>,
}

impl Options {
    fn parse() -> Self {
        let word = |flag: &str| env::args().skip_while(|arg| arg != flag).nth(1);
        let path = |flag: &str| word(flag).map(PathBuf::from);
        let view = |hierarchy, flag: &str| path(flag).map(|into| (hierarchy, into));
        Self {
            rounds: number_of("--rounds", 30).max(1),
            largest: number_of("--largest", 1000),
            newest: word("--newest").unwrap_or_else(|| "sid".into()),
            youki: path("--youki"),
            small: path("--small"),
            write: path("--write"),
            view: view(Hierarchy::V1, "--in-v1").or_else(|| view(Hierarchy::V2, "--in-v2")),
        }
    }
}

fn main() -> ExitCode {
    need_root();
    let options = Options::parse();
    match &options.view {
        Some((hierarchy, into)) => {
            let section = measure(&options, *hierarchy);
            let text = serde_json::to_vec(&section).expect("JSON");
            fs::write(into, text).expect("the parent's directory");
            ExitCode::SUCCESS
        }
        None => in_each_view(&options),
    }
}

/// Everything that is measured in one view of the cgroups.
fn measure(options: &Options, hierarchy: Hierarchy) -> Section {
    let mut peers = peer::who_takes_part(options, hierarchy);
    let mut section = Section::new(&peers);
    commands::measure(&mut peers, options.rounds, &mut section);
    costs::measure(&mut peers, options, hierarchy, &mut section);
    if hierarchy == Hierarchy::V2 {
        commands::measure_protection(options, hierarchy, &mut section);
        growth::measure(&mut peers, options, &mut section);
    }
    section
}

/// Runs this program again in each view that all peers can work in, with real-time priority where allowed.
fn in_each_view(options: &Options) -> ExitCode {
    let mut results = Results {
        machine: Machine::here(),
        rounds: options.rounds,
        v2: None,
        v1: None,
    };
    println!("{}", results.machine);
    let allowed = Command::new("chrt")
        .args(["-f", "1", "true"])
        .status()
        .is_ok_and(|status| status.success());
    let part = tempfile::NamedTempFile::new().expect("/tmp is writable");
    for (wanted, flag) in [(Hierarchy::V2, "--in-v2"), (Hierarchy::V1, "--in-v1")] {
        let Some(view) = View::of(wanted) else {
            println!("\ncgroup {wanted:?}: skipped, this machine's cgroups cannot be seen so");
            continue;
        };
        // A v1 cgroup without real-time runtime of its own takes no real-time process.
        let realtime = allowed
            && !(wanted == Hierarchy::V1
                && Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists());
        let priority = if realtime {
            "SCHED_FIFO 1"
        } else {
            "nice -20, real-time priority is not allowed"
        };
        println!("\ncgroup {wanted:?}, {priority}");
        let mut command = view.command(Path::new(if realtime { "chrt" } else { "nice" }));
        command.args(if realtime { ["-f", "1"] } else { ["-n", "-20"] });
        let status = command
            .arg(env::current_exe().expect("the benchmark's own path"))
            .args(env::args().skip(1))
            .arg(flag)
            .arg(part.path())
            .status()
            .expect("nsenter starts");
        if !status.success() {
            return ExitCode::FAILURE;
        }
        let text = fs::read(part.path()).expect("the part is written");
        let mut section: Section = serde_json::from_slice(&text).expect("JSON");
        section.priority = priority.into();
        match wanted {
            Hierarchy::V2 => results.v2 = Some(section),
            _ => results.v1 = Some(section),
        }
    }
    report::print_targets(&results);
    if let Some(dir) = &options.write {
        report::write(&results, dir);
    }
    ExitCode::SUCCESS
}
