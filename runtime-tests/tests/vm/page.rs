//! docs/PORTABILITY.md, written from the outcomes of a whole run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use runtime_tests::shell;

use crate::matrix::KERNELS;
use crate::{Outcome, ask};

const HEAD: &str = "# Portability

Made by `make vm-test` from the last run of each machine: do not edit. Every line is a virtual machine (`runtime-tests/vm`) in which the tests of
`runtime-tests` ran unchanged. *behaviours* are the runtime's own commands; *engines* are podman, buildah and umoci above it, *containerd*
has the shim between, *cri* is containerd asked as by a kubelet, *shim* the shim without it; *containers* are run from images, *images* pulled, unpacked and pushed; *network* has published ports; *portability* is all of that, end to end;
for *reboot* the machine is started twice.
Users: *own* has nothing but its own ids, *delegated* has ranges in /etc/subuid and a cgroup; engines run as the same ordinary user in both.
";

const PACKAGES: &str = "systemd podman buildah containerd conmon crun runc passt netavark";

/// Writes the page, from the outcomes that there are of so many cells.
pub(crate) fn write(outcomes: &[Outcome], all: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .with_file_name("docs")
        .join("PORTABILITY.md");
    std::fs::write(&path, page(outcomes, all)).expect("docs/ is writable");
    println!("written: {}", path.display());
}

fn page(outcomes: &[Outcome], all: usize) -> String {
    let mut page = format!("{HEAD}\n## The machines\n\n");
    let qemu = ask(&["qemu"]);
    let _ = writeln!(
        page,
        "- {}, {}",
        shell("date +%F").trim(),
        qemu.lines().next().unwrap_or_default()
    );
    for kernel in KERNELS {
        let _ = writeln!(
            page,
            "- {kernel}: Linux {}",
            ask(&["run", "--no-snapshot", "--kernel", kernel, "uname", "-r"])
        );
    }
    let list = format!("dpkg-query -W -f '${{Package}} ${{Version}}, ' {PACKAGES}");
    let versions = ask(&["run", "--no-snapshot", "sh", "-c", &list]);
    let _ = writeln!(
        page,
        "- guest: Debian 13 with {}",
        versions.trim_end_matches(", ")
    );

    let _ = writeln!(page, "- {} of {all} machines have been run", outcomes.len());
    page += "\n## The matrix\n\n| kernel | cgroup | driver | user | tests | runtime | |\n|---|---|---|---|---|---|---|\n";
    let mut rows: Vec<_> = outcomes.iter().collect();
    rows.sort_by_key(|outcome| {
        let kernel = KERNELS
            .iter()
            .position(|kernel| *kernel == outcome.cell.kernel);
        (
            outcome.cell.runtime,
            kernel,
            outcome.cell.suite,
            outcome.cell.name(),
        )
    });
    for outcome in &rows {
        let cell = &outcome.cell;
        let runtime = cell
            .runtime
            .rsplit('/')
            .next()
            .filter(|name| !name.is_empty())
            .unwrap_or("coracle");
        let small = if cell.memory == "512" {
            ", 512 MiB"
        } else {
            ""
        };
        let summary = outcome.summary();
        let (kernel, cgroup, driver, user, suite) =
            (cell.kernel, cell.cgroup, cell.driver, cell.user, cell.suite);
        let _ = writeln!(
            page,
            "| {kernel} | {cgroup} | {driver} | {user} | {suite}{small} | {runtime} | {summary} |"
        );
    }
    skipped(&mut page, &rows);
    differences(&mut page, &rows);
    page
}

/// What Coracle's cells left out, by reason.
fn skipped(page: &mut String, rows: &[&Outcome]) {
    let mut reasons: BTreeMap<&str, (BTreeSet<&str>, BTreeSet<String>)> = BTreeMap::new();
    for outcome in rows
        .iter()
        .filter(|outcome| outcome.cell.runtime.is_empty())
    {
        for (test, reason) in &outcome.skipped {
            let (tests, cells) = reasons.entry(reason).or_default();
            tests.insert(test);
            cells.insert(outcome.cell.name());
        }
    }
    *page += "\n## Skipped, and why\n\n| reason | tests | machines |\n|---|---|---|\n";
    for (reason, (tests, cells)) in reasons {
        let tests = tests.into_iter().collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| {reason} | {tests} | {} |", cells.len());
    }
}

/// What other runtimes do otherwise, by group, and the hand-written explanation.
fn differences(page: &mut String, rows: &[&Outcome]) {
    *page += "\n## crun and runc\n\n";
    let others: Vec<_> = rows
        .iter()
        .filter(|outcome| !outcome.cell.runtime.is_empty())
        .collect();
    *page += match others.is_empty() {
        true => "Their machines have not been run.\n",
        false => "| machine | failed, by group |\n|---|---|\n",
    };
    for outcome in others {
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        for test in &outcome.failed {
            *groups
                .entry(test.split("::").next().unwrap_or(test))
                .or_default() += 1;
        }
        let groups: Vec<_> = groups
            .iter()
            .map(|(group, count)| format!("{group} {count}"))
            .collect();
        let _ = writeln!(page, "| {} | {} |", outcome.cell.name(), groups.join(", "));
    }
    *page += "\n";
    *page += include_str!("differences.md");
}
