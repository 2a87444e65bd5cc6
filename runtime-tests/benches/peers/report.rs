//! The results for people: targets, tables, pictures.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::plot;
use crate::results::{OURS, Results, Row, Section, readable};

/// What a target compares.
enum Target {
    /// Coracle's value divided by that of the newest of these is at most so much.
    Ratio(&'static str, f64),
    /// The same, at least.
    RatioAbove(&'static str, f64),
    /// Coracle's value itself is at most so much.
    Value(f64),
}
use Target::{Ratio, RatioAbove, Value};

const TARGETS: [(&str, &str, &[Target]); 19] = [
    ("v2", "run", &[Ratio("crun", 0.40), Ratio("floor", 1.20)]),
    (
        "v2",
        "run, Docker-like",
        &[Ratio("crun", 0.35), Ratio("floor", 1.25)],
    ),
    ("v1", "run", &[Ratio("crun", 0.50), Ratio("floor", 1.25)]),
    ("v2", "create", &[Ratio("crun", 0.40), Ratio("floor", 1.25)]),
    ("v2", "exec", &[Ratio("crun", 0.30), Ratio("floor", 1.35)]),
    ("v2", "start", &[Ratio("crun", 0.20), Ratio("floor", 1.5)]),
    ("v2", "state", &[Ratio("crun", 0.20), Ratio("floor", 1.5)]),
    (
        "v2",
        "delete, stopped",
        &[Ratio("crun", 0.20), Ratio("floor", 1.5)],
    ),
    (
        "v2",
        "delete --force, running",
        &[Ratio("crun", 0.10), Ratio("floor", 1.4)],
    ),
    ("v2", "list, 100 containers", &[Ratio("crun", 0.30)]),
    (
        "v2",
        "4 loops",
        &[RatioAbove("crun", 2.2), RatioAbove("floor", 0.8)],
    ),
    ("v2", "peak RSS of run", &[Ratio("crun", 0.5)]),
    ("v1", "smallest memory limit", &[Value(256.0)]),
    ("v2", "system calls of run", &[Value(220.0)]),
    ("v2", "system calls of exec", &[Value(120.0)]),
    ("v2", "system calls of state", &[Value(25.0)]),
    ("v2", "program", &[Value(4.5e6)]),
    ("v2", "program without images and network", &[Value(2.5e6)]),
    ("v2", "shared libraries", &[Value(0.0)]),
];

impl Target {
    /// What was measured, what was wanted, and whether it is met; nothing where it was not measured.
    fn judge(&self, section: &Section, row: &Row) -> Option<(String, String, bool)> {
        let ratio = |peer| {
            let peer = section.newest(peer)?;
            Some((peer, *row.ratios.get(peer)?))
        };
        Some(match self {
            Ratio(peer, limit) => {
                let (peer, ratio) = ratio(peer)?;
                (
                    format!("{ratio:.2}× {peer}"),
                    format!("≤ {limit:.2}×"),
                    ratio <= *limit,
                )
            }
            RatioAbove(peer, limit) => {
                let (peer, ratio) = ratio(peer)?;
                (
                    format!("{ratio:.2}× {peer}"),
                    format!("≥ {limit:.2}×"),
                    ratio >= *limit,
                )
            }
            Value(limit) => {
                let value = *row.values.get(OURS)?;
                let unit = &row.unit;
                (
                    format!("{} {unit}", readable(value)),
                    format!("≤ {}", readable(*limit)),
                    value <= *limit,
                )
            }
        })
    }
}

/// Each target with what it came to.
fn judged(results: &Results) -> Vec<[String; 4]> {
    let mut lines = Vec::new();
    for (view, name, targets) in TARGETS {
        let section = results.sections().find(|(one, _)| *one == view);
        let Some((_, section)) = section else {
            continue;
        };
        let Some(row) = section.row(name) else {
            continue;
        };
        for target in targets {
            if let Some((is, wanted, met)) = target.judge(section, row) {
                let met = if met { "met" } else { "**not met**" };
                lines.push([format!("{name}, {view}"), is, wanted, met.into()]);
            }
        }
    }
    lines
}

pub(crate) fn print_targets(results: &Results) {
    println!("\ntargets");
    for [what, is, wanted, met] in judged(results) {
        println!("{what:<40}{is:>24}{wanted:>12}  {}", met.trim_matches('*'));
    }
}

/// Writes results.json, README.md and the pictures.
pub(crate) fn write(results: &Results, dir: &Path) {
    let put = |name: &str, text: String| {
        fs::write(dir.join(name), text).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    };
    fs::create_dir_all(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let json = serde_json::to_string_pretty(results).expect("JSON");
    put("results.json", json + "\n");
    for (view, section) in results.sections() {
        put(&format!("latency-{view}.svg"), latency(view, section));
        for axis in &section.growth {
            let lines: Vec<_> = axis.lines.clone().into_iter().collect();
            let title = format!("{}: µs (cgroup {view})", axis.name);
            put(&picture(&axis.name), plot::lines(&title, &axis.of, &lines));
        }
    }
    put("README.md", page(results));
}

/// The file of an axis' picture.
fn picture(axis: &str) -> String {
    let words: Vec<&str> = axis
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    format!("{}.svg", words.join("-"))
}

fn latency(view: &str, section: &Section) -> String {
    let newest = |name: &str| section.newest(name.split(' ').next().unwrap_or_default());
    let rows = section
        .rows
        .iter()
        .filter(|row| row.unit == "µs" && row.values.len() > 1);
    let groups: Vec<_> = rows
        .map(|row| {
            let peers = section.peers.iter().map(|peer| &peer.name);
            let peers = peers.filter(|name| newest(name) == Some(name.as_str()));
            let values = peers.filter_map(|name| Some((name.clone(), *row.values.get(name)?)));
            (row.name.clone(), values.collect())
        })
        .collect();
    plot::bars(
        &format!("Time of each command, µs (cgroup {view})"),
        &groups,
    )
}

fn page(results: &Results) -> String {
    let mut page = format!(
        "# Benchmarks\n\n\
         `make bench` measures this anew and writes this page, [results.json](results.json) and the pictures. {}; medians of {} rounds in \
         which the runtimes take turns. A ratio is Coracle's value divided by the other's, the median pair by pair. The numbers of one run can be \
         compared with each other, never with another run's.\n\n\
         `floor` (`runtime-tests/floor`) makes only the system calls that no runtime can avoid for the same container, checks nothing and \
         protects nothing; a test compares its containers with Coracle's from inside.\n",
        results.machine, results.rounds
    );
    let targets = judged(results);
    let met = targets.iter().filter(|line| line[3] == "met").count();
    let _ = writeln!(page, "\n## Targets: {met} of {} are met\n", targets.len());
    page.push_str("| | measured | target | |\n|---|---|---|---|\n");
    for line in targets {
        let _ = writeln!(page, "| {} |", line.join(" | "));
    }
    for (view, section) in results.sections() {
        let _ = writeln!(page, "\n## cgroup {view}, {}\n", section.priority);
        for peer in section.peers.iter().filter(|peer| !peer.version.is_empty()) {
            let remark = peer.remark.as_ref().map(|remark| format!(", {remark}"));
            let _ = writeln!(page, "- {}{}", peer.version, remark.unwrap_or_default());
        }
        page.push_str(&table(section));
        let _ = writeln!(page, "\n![Time of each command](latency-{view}.svg)");
        for axis in &section.growth {
            let _ = writeln!(page, "\n![{}]({})", axis.name, picture(&axis.name));
        }
        page.push_str("\nWhere the floor's `run` spends its time:\n\n| step | µs |\n|---|---:|\n");
        for (step, took) in &section.steps {
            let _ = writeln!(page, "| {step} | {took:.0} |");
        }
    }
    page
}

fn table(section: &Section) -> String {
    let others: Vec<&str> = ["crun", "runc", "floor"]
        .into_iter()
        .filter_map(|program| section.newest(program))
        .collect();
    let peers = section.peers.iter().map(|peer| peer.name.clone());
    let ratios = others.iter().map(|other| format!("× {other}"));
    let heads: Vec<String> = peers.chain(ratios).collect();
    let mut text = format!(
        "\n| | {} |\n|---|{}\n",
        heads.join(" | "),
        "---:|".repeat(heads.len())
    );
    for row in &section.rows {
        let cell = |value: Option<&f64>| value.map_or("–".into(), |value| readable(*value));
        let values = section
            .peers
            .iter()
            .map(|peer| cell(row.values.get(&peer.name)));
        let ratio = |other: &&str| {
            row.ratios
                .get(*other)
                .map_or("–".into(), |r| format!("{r:.2}"))
        };
        let cells: Vec<String> = values.chain(others.iter().map(ratio)).collect();
        let _ = writeln!(
            text,
            "| {}, {} | {} |",
            row.name,
            row.unit,
            cells.join(" | ")
        );
    }
    text
}
