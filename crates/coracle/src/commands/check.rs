//! `check`: the report as a table for people, or as JSON.

use std::fmt::Write;
use std::io::{IsTerminal, stdout};

use runtime::{Availability, Check, Report};

use super::{Invocation, answer, json};
use crate::{Failure, Outcome};

pub(crate) fn check(invocation: &Invocation<'_>) -> Outcome {
    let root = invocation.settings().map(|settings| settings.root);
    let report = runtime::check(root.map_err(|failure| failure.message));
    let text = match invocation.flags.text("format") {
        Some("table") => table(&report, wants_colour()),
        Some("json") => json(&report, "  ") + "\n",
        _ => return Err(Failure::new("invalid format option")),
    };
    answer(&text)?;
    Ok(i32::from(!report.usable))
}

/// By <https://no-color.org>: not when NO_COLOR is set to anything.
fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stdout().is_terminal() && !refused
}

/// One line each, and what to do in a line of its own below.
fn table(report: &Report, colour: bool) -> String {
    let width = report.checks.iter().map(|check| check.name.len()).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    for check in &report.checks {
        let (on, off) = match colour {
            true => (shade(check), "\x1b[0m"),
            false => ("", ""),
        };
        let status = word(check.status);
        let _ = writeln!(
            text,
            "{:width$}  {on}{status:7}{off}  {}",
            check.name, check.value
        );
        if let Some(advice) = &check.advice {
            let _ = writeln!(text, "{:width$}           {advice}", "");
        }
    }
    let conclusion = match report.usable {
        true => "containers can run here",
        false => "containers cannot run here: what is essential is missing",
    };
    let _ = writeln!(text, "\n{conclusion}");
    text
}

fn word(status: Availability) -> &'static str {
    match status {
        Availability::Ok => "ok",
        Availability::Limited => "limited",
        Availability::Missing => "missing",
    }
}

fn shade(check: &Check) -> &'static str {
    match check.status {
        Availability::Ok => "\x1b[32m",
        Availability::Limited => "\x1b[33m",
        Availability::Missing => "\x1b[31m",
    }
}
