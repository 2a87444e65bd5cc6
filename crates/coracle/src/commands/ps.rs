//! `ps`: the processes of a container, by number or as the host's ps(1) shows them.

use std::process::Command;

use runtime::Context;

use super::{Invocation, answer};
use crate::{Failure, Outcome};

pub(crate) fn ps(invocation: &Invocation<'_>) -> Outcome {
    let format = invocation.flags.text("format");
    if !matches!(format, Some("table" | "json")) {
        return Err(Failure::new("invalid format option"));
    }
    let settings = invocation.settings()?;
    let pids = runtime::processes(&settings, &invocation.container_id(&settings)?)?;
    if format == Some("json") {
        return answer(&format!(
            "{}\n",
            serde_json::to_string(&pids).unwrap_or_default()
        ));
    }
    let options = invocation.rest;
    let mut ps = Command::new("ps");
    if options.is_empty() {
        ps.arg("-ef")
    } else {
        ps.args(options)
    };
    let output = ps.output().context("run ps")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!(
            "ps ended with {}: {}",
            output.status,
            message.trim_end()
        )));
    }
    answer(&lines_of(&String::from_utf8_lossy(&output.stdout), &pids).map_err(Failure::new)?)
}

/// The head of a table that ps(1) printed, and the lines of the given processes.
fn lines_of(table: &str, pids: &[i32]) -> Result<String, String> {
    let (head, rows) = table.split_once('\n').unwrap_or((table, ""));
    let column = head
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or("couldn't find PID field in ps output")?;
    let mut text = format!("{head}\n");
    for row in rows.lines().filter(|row| !row.is_empty()) {
        let pid = row.split_whitespace().nth(column).unwrap_or_default();
        let pid = pid
            .parse()
            .map_err(|_| format!("unable to parse pid {pid:?} in ps output"))?;
        if pids.contains(&pid) {
            text.push_str(row);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes_are_shown() {
        let table = "UID          PID    PPID  C CMD\nroot           1       0  0 init\nroot          42       1  0 sleep 1\n\n";
        assert_eq!(
            lines_of(table, &[42, 43]).unwrap(),
            "UID          PID    PPID  C CMD\nroot          42       1  0 sleep 1\n"
        );
    }

    #[test]
    fn a_table_without_pids_is_an_error() {
        assert_eq!(
            lines_of("CMD\ninit\n", &[1]).unwrap_err(),
            "couldn't find PID field in ps output"
        );
        assert_eq!(
            lines_of("PID\nx\n", &[1]).unwrap_err(),
            "unable to parse pid \"x\" in ps output"
        );
    }
}
