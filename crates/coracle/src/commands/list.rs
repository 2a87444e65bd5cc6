//! `list`: the containers below one state directory.

use runtime::ListEntry;

use super::{Invocation, answer};
use crate::columns::columns;
use crate::{Failure, Outcome};

pub(crate) fn list(invocation: &Invocation<'_>) -> Outcome {
    let containers = runtime::list(&invocation.settings()?)?;
    if invocation.flags.is_set("quiet") {
        return answer(
            &containers
                .iter()
                .map(|container| format!("{}\n", container.id))
                .collect::<String>(),
        );
    }
    match invocation.flags.text("format") {
        Some("table") => answer(&table(containers.iter().map(row).collect())),
        // What Go makes of an empty list, and scripts have got used to.
        Some("json") if containers.is_empty() => answer("null\n"),
        Some("json") => answer(&format!(
            "{}\n",
            serde_json::to_string(&containers).unwrap_or_default()
        )),
        _ => Err(Failure::new("invalid format option")),
    }
}

fn row(container: &ListEntry) -> [String; 6] {
    [
        container.id.clone(),
        container.pid.to_string(),
        container.status.to_string(),
        container.bundle.display().to_string(),
        container.created.clone(),
        container.owner.clone(),
    ]
}

/// At least 12 wide, as runc's.
fn table(rows: Vec<[String; 6]>) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    columns(head, rows, 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_runcs() {
        assert_eq!(
            table(vec![]),
            "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
        );
        let row = ["web", "4242", "running", "/a/long/bundle", "now", "root"].map(str::to_owned);
        assert_eq!(
            table(vec![row]),
            "ID          PID         STATUS      BUNDLE           CREATED     OWNER\n\
             web         4242        running     /a/long/bundle   now         root\n"
        );
    }
}
