//! `list`: the containers below one state directory.

use runtime::ListEntry;

use super::{Invocation, answer};
use crate::columns::columns;
#[cfg(feature = "image")]
use crate::containers;
use crate::{Failure, Outcome};

pub(crate) fn list(invocation: &Invocation<'_>) -> Outcome {
    let settings = invocation.settings()?;
    #[cfg(feature = "image")]
    if let Some(outcome) = with_images(invocation, &settings)? {
        return Ok(outcome);
    }
    let containers = runtime::list(&settings)?;
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

/// The list as people know it from Docker, when there are containers of images below this state root; those of bundles stand in it too.
/// Without any, and so for every engine, it is runc's.
#[cfg(feature = "image")]
fn with_images(
    invocation: &Invocation<'_>,
    settings: &runtime::Settings,
) -> Result<Option<i32>, Failure> {
    let Ok(ours) = invocation.containers() else {
        // Who has no home has no images.
        return Ok(None);
    };
    let ours = containers::listed(settings, &ours)?;
    match ours.is_empty() {
        true => Ok(None),
        false => crate::sys::with_all(|| people_list(invocation, settings, &ours)).map(Some),
    }
}

/// That list, of one container at least.
#[cfg(feature = "image")]
fn people_list(
    invocation: &Invocation<'_>,
    settings: &runtime::Settings,
    ours: &[(containers::Container, containers::Status)],
) -> Outcome {
    let is_ours = |id: &str| ours.iter().any(|(container, _)| container.record.id == id);
    let mut others = runtime::list(settings)?;
    others.retain(|state| !is_ours(&state.id));
    let now = std::time::SystemTime::now();
    let entries = ours
        .iter()
        .map(|(container, status)| Entry::new(container, status, now));
    let entries: Vec<Entry> = entries.chain(others.iter().map(Entry::of_bundle)).collect();
    let text = match invocation.flags.text("format") {
        _ if invocation.flags.is_set("quiet") => entries
            .iter()
            .map(|entry| format!("{}\n", entry.id))
            .collect(),
        Some("table") => columns(
            ["ID", "NAME", "IMAGE", "STATUS", "PORTS", "PID"],
            entries.iter().map(Entry::row).collect(),
            12,
        ),
        Some("json") => format!("{}\n", serde_json::to_string(&entries).unwrap_or_default()),
        _ => return Err(Failure::new("invalid format option")),
    };
    answer(&text)
}

/// One container in that list. What runc's has is there under the same names.
#[cfg(feature = "image")]
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    id: String,
    pid: i32,
    status: String,
    bundle: std::path::PathBuf,
    created: String,
    owner: String,
    name: String,
    image: String,
    ports: String,
    summary: String,
}

#[cfg(feature = "image")]
impl Entry {
    fn new(
        container: &containers::Container,
        status: &containers::Status,
        now: std::time::SystemTime,
    ) -> Self {
        let record = &container.record;
        let paused = status.pid != 0 && containers::is_paused(container);
        Entry {
            id: record.id.clone(),
            pid: status.pid,
            status: match (status.pid, paused) {
                (0, _) => runtime::Status::Stopped,
                (_, true) => runtime::Status::Paused,
                (_, false) => runtime::Status::Running,
            }
            .to_string(),
            bundle: container.path.clone(),
            created: record.created.clone(),
            owner: "root".into(),
            name: record.name.clone(),
            image: record.origin(),
            ports: match status.pid {
                0 => String::new(),
                _ => containers::published(container),
            },
            summary: status.summary(now, paused),
        }
    }

    fn of_bundle(state: &ListEntry) -> Self {
        Entry {
            id: state.id.clone(),
            pid: state.pid,
            status: state.status.to_string(),
            bundle: state.bundle.clone(),
            created: state.created.clone(),
            owner: state.owner.clone(),
            name: state.id.clone(),
            image: state.bundle.display().to_string(),
            ports: String::new(),
            summary: state.status.to_string(),
        }
    }

    fn row(&self) -> [String; 6] {
        let id = self.id.get(..12).unwrap_or(&self.id);
        [
            id,
            &self.name,
            &self.image,
            &self.summary,
            &self.ports,
            &self.pid.to_string(),
        ]
        .map(str::to_owned)
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
