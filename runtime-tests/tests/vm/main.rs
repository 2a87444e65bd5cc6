//! The tests of this crate in virtual machines: kernels, cgroups, drivers and users are axes, and a cell of the matrix is
//! one guest. A bounded part by default; with `VM_TESTS=all` everything, and docs/PORTABILITY.md is written from the last
//! outcome of each cell. Arguments choose cells by their names or parts of them.

mod matrix;
mod page;

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use matrix::{Cell, bounded, everything};
use serde_json::{Value, json};

/// `vm` says so when something has to be built and Debian's archive does not answer.
const NO_ARCHIVE: i32 = 75;

/// What a test program says so by.
const TESTS_FAILED: i32 = 101;

/// What came of a cell.
struct Outcome {
    cell: Cell,
    ok: usize,
    failed: Vec<String>,
    /// Test and reason.
    skipped: Vec<(String, String)>,
    /// The guest gave an account of its tests.
    complete: bool,
    output: String,
}

impl Outcome {
    fn of(cell: Cell, output: String, status: Option<i32>) -> Self {
        let lines = |prefix: &'static str| {
            output
                .lines()
                .filter_map(move |line| line.strip_prefix(prefix))
        };
        let mut failed: Vec<_> = lines("test ")
            .filter_map(|line| line.strip_suffix(" ... FAILED").map(str::to_owned))
            .collect();
        if status == Some(TESTS_FAILED) && failed.is_empty() {
            failed.push("one whose line was lost".to_owned());
        }
        // Parallel tests may write before and after these on the same line.
        let skipped: Vec<_> = output
            .split("[skipped: ")
            .skip(1)
            .filter_map(|rest| rest.split_once(']')?.0.split_once(": "))
            .map(|(test, reason)| (test.to_owned(), reason.to_owned()))
            .collect();
        // A machine that is started twice has two: the second is about what the first has made.
        let mut passed = lines("test result: ").filter_map(|line| {
            let (head, _) = line.split_once(" passed")?;
            head.rsplit(' ').next()?.parse::<usize>().ok()
        });
        let passed = passed.next_back().unwrap_or(0);
        Self {
            cell,
            ok: passed.saturating_sub(skipped.len()),
            failed,
            skipped,
            complete: matches!(status, Some(0 | TESTS_FAILED)),
            output,
        }
    }

    /// Nothing failed, or it is another runtime, which is there for comparison.
    fn is_good(&self) -> bool {
        self.complete && (self.failed.is_empty() || !self.cell.runtime.is_empty())
    }

    fn summary(&self) -> String {
        let mut text = format!("{} ok", self.ok);
        for (count, word) in [
            (self.failed.len(), "failed"),
            (self.skipped.len(), "skipped"),
        ] {
            if count > 0 {
                text += &format!(", {count} {word}");
            }
        }
        if self.complete {
            text
        } else {
            "did not end".to_owned()
        }
    }
}

fn vm() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/vm"))
}

/// What a command of `vm` says on stdout.
fn ask(args: &[&str]) -> String {
    let output = vm()
        .args(args)
        .env("CORACLE_VM_QUIET", "yes")
        .output()
        .expect("bash");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs a cell's guest to its end.
fn run(cell: Cell) -> Outcome {
    let output = vm().args(cell.command_line()).output().expect("bash");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Outcome::of(cell, text, output.status.code())
}

/// Where the outcomes of whole cells are kept, a line each: the last one of a cell counts.
fn records() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm-tests.jsonl")
}

fn record(outcome: &Outcome, seconds: u64) {
    let line = json!({
        "cell": outcome.cell.name(), "ok": outcome.ok, "failed": outcome.failed, "skipped": outcome.skipped,
        "complete": outcome.complete, "seconds": seconds,
    });
    let file = OpenOptions::new().create(true).append(true).open(records());
    file.and_then(|mut file| writeln!(file, "{line}"))
        .expect("the target directory is writable");
}

/// The last outcome of each cell, from this run or an earlier one.
fn recorded() -> Vec<Outcome> {
    let text = fs::read_to_string(records()).unwrap_or_default();
    let lines: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let last = |cell: Cell| {
        let name = cell.name();
        let line = lines.iter().rfind(|line| line["cell"] == *name)?;
        Some(Outcome {
            cell,
            ok: line["ok"].as_u64()? as usize,
            failed: serde_json::from_value(line["failed"].clone()).ok()?,
            skipped: serde_json::from_value(line["skipped"].clone()).ok()?,
            complete: line["complete"].as_bool()?,
            output: String::new(),
        })
    };
    everything().into_iter().filter_map(last).collect()
}

/// Runs the cells, a guest on each CPU, telling of each as it ends.
fn run_all(cells: Vec<Cell>, keep: bool) -> Vec<Outcome> {
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(cells.len());
    let queue = Mutex::new(cells.into_iter());
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(cell) = queue.lock().unwrap().next() else {
                        break;
                    };
                    let begun = Instant::now();
                    let outcome = run(cell);
                    let seconds = begun.elapsed().as_secs();
                    let mut outcomes = outcomes.lock().unwrap();
                    tell(&outcome, seconds);
                    if keep {
                        record(&outcome, seconds);
                    }
                    outcomes.push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

/// Its line, and if it is not good what the guest has said: a whole run takes hours.
fn tell(outcome: &Outcome, seconds: u64) {
    let (name, summary) = (outcome.cell.name(), outcome.summary());
    let word = if outcome.is_good() { "ok" } else { "FAILED" };
    println!("test {name} ... {word} ({summary} in {seconds} s)");
    if !outcome.is_good() {
        println!("\n---- {name} ----\n{}", outcome.output);
    }
}

fn main() -> ExitCode {
    let filters: Vec<_> = env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let all = env::var_os("VM_TESTS").is_some_and(|value| value == "all");
    let mut cells = if all { everything() } else { bounded() };
    let names: Vec<_> = cells.iter().map(Cell::name).collect();
    // A whole name stands for itself, even where it is the beginning of another.
    let wanted = |name: &str, filter: &String| match names.contains(filter) {
        true => name == filter,
        false => name.contains(filter),
    };
    cells.retain(|cell| {
        filters.is_empty() || filters.iter().any(|filter| wanted(&cell.name(), filter))
    });
    if cells.is_empty() {
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("the VM tests need root to make the guest's image: run `sudo make test`");
        return ExitCode::FAILURE;
    }
    let mut build = vm();
    build.arg("build");
    for cell in &cells {
        build.args(["--kernel", cell.kernel]);
    }
    let status = build.status().expect("bash");
    if status.code() == Some(NO_ARCHIVE) {
        println!(
            "skipped: {} tests in virtual machines: Debian's archive does not answer",
            cells.len()
        );
        return ExitCode::SUCCESS;
    }
    if !status.success() {
        println!("the virtual machines could not be built");
        return ExitCode::FAILURE;
    }

    println!("\nrunning {} virtual machines", cells.len());
    let outcomes = run_all(cells, all);
    let bad: Vec<_> = outcomes
        .iter()
        .filter(|outcome| !outcome.is_good())
        .collect();
    println!("\nfailures: {}", bad.len());
    for outcome in &bad {
        println!("    {}: {}", outcome.cell.name(), outcome.failed.join(" "));
    }
    if all {
        page::write(&recorded(), everything().len());
    } else {
        println!(
            "left out, in {} virtual machines: {}",
            everything().len(),
            matrix::LEFT_OUT
        );
    }
    let word = if bad.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
        outcomes.len() - bad.len(),
        bad.len()
    );
    if bad.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
