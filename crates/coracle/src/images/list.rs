//! `images` and `tag`.

use std::time::{Duration, SystemTime};

use image::{Image, ImageConfiguration, Reference, Store};
use serde::Serialize;

use crate::columns::columns;
use crate::commands::{Invocation, answer};
use crate::{Failure, Outcome};

/// An image as `--format json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    id: String,
    names: Vec<String>,
    digest: String,
    created_at: Option<String>,
    size: u64,
    os: Option<String>,
    architecture: Option<String>,
}

pub(super) fn images(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let store = invocation.store()?;
    let mut images = store.images()?;
    if let Some(wanted) = flags.args.first() {
        images = matching(images, wanted);
    }
    let id = |image: &Image| match flags.is_set("no-trunc") {
        true => image.id().to_string(),
        false => image.id().short().to_owned(),
    };
    if flags.is_set("quiet") {
        return answer(
            &images
                .iter()
                .map(|image| id(image) + "\n")
                .collect::<String>(),
        );
    }
    let entries = images
        .iter()
        .map(|image| entry(&store, image))
        .collect::<image::Result<Vec<_>>>()?;
    match flags.text("format") {
        Some("table") => {}
        Some("json") => {
            return answer(&format!(
                "{}\n",
                serde_json::to_string(&entries).unwrap_or_default()
            ));
        }
        _ => return Err(Failure::new("invalid format option")),
    }
    let rows = images
        .iter()
        .zip(&entries)
        .flat_map(|(image, entry)| rows(image, entry, &id(image)))
        .collect();
    let head = ["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"];
    if flags.is_set("digests") {
        return answer(&columns(head, rows, 10));
    }
    let without =
        |[repository, tag, _, id, created, size]: [String; 6]| [repository, tag, id, created, size];
    let rows = rows.into_iter().map(without).collect();
    answer(&columns(
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"],
        rows,
        10,
    ))
}

/// Images of a repository, or with exactly this name.
fn matching(images: Vec<Image>, wanted: &str) -> Vec<Image> {
    let meant = |name: &String| {
        name.parse::<Reference>().is_ok_and(|name| {
            let forms = [
                name.to_string(),
                name.familiar(),
                name.name(),
                name.familiar_name(),
            ];
            forms
                .iter()
                .any(|form| form == wanted || form.strip_prefix("localhost/") == Some(wanted))
        })
    };
    let keep = |mut image: Image| {
        image.names.retain(meant);
        (!image.names.is_empty()).then_some(image)
    };
    images.into_iter().filter_map(keep).collect()
}

fn entry(store: &Store, image: &Image) -> image::Result<Entry> {
    let configuration = match image.is_artifact() {
        true => None,
        false => Some(image.configuration(store)?),
    };
    let of = |part: fn(&ImageConfiguration) -> String| configuration.as_ref().map(part);
    Ok(Entry {
        id: image.id().to_string(),
        names: image.names.clone(),
        digest: image.manifest.digest.to_string(),
        created_at: configuration
            .as_ref()
            .and_then(|image| image.created().clone()),
        size: image.size(),
        os: of(|image| image.os().to_string()),
        architecture: of(|image| image.architecture().to_string()),
    })
}

/// One line for each name.
fn rows(image: &Image, entry: &Entry, id: &str) -> Vec<[String; 6]> {
    let none = || "<none>".to_owned();
    let created = entry
        .created_at
        .as_deref()
        .map_or(String::new(), |time| ago(time, SystemTime::now()));
    let row = |repository: String, tag: String| {
        let digest = entry.digest.clone();
        [
            repository,
            tag,
            digest,
            id.to_owned(),
            created.clone(),
            decimal(entry.size),
        ]
    };
    let named = |name: &String| {
        let reference: Reference = name.parse().ok()?;
        Some(row(
            reference.familiar_name(),
            reference.tag().map_or_else(none, str::to_owned),
        ))
    };
    match image.names.is_empty() {
        true => vec![row(none(), none())],
        false => image.names.iter().filter_map(named).collect(),
    }
}

/// How long ago it was, in Docker's words; nothing for a time that cannot be read.
fn ago(time: &str, now: SystemTime) -> String {
    let Ok(time) = humantime::parse_rfc3339(time) else {
        return String::new();
    };
    format!(
        "{} ago",
        in_words(now.duration_since(time).unwrap_or_default())
    )
}

fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (seconds, minutes, hours, days) {
        (0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (_, 0, ..) => format!("{seconds} seconds"),
        (_, 1, ..) => "About a minute".into(),
        (_, _, 0, _) => format!("{minutes} minutes"),
        (_, _, 1, _) => "About an hour".into(),
        (_, _, ..48, _) => format!("{hours} hours"),
        (.., ..14) => format!("{days} days"),
        (.., ..60) => format!("{} weeks", days / 7),
        (.., ..730) => format!("{} months", days / 30),
        _ => format!("{} years", days / 365),
    }
}

/// A size with three digits and a decimal unit, as Docker writes it.
pub(super) fn decimal(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{}", units[unit])
}

pub(super) fn tag(invocation: &Invocation<'_>) -> Outcome {
    let (image, names) = invocation
        .flags
        .args
        .split_first()
        .expect("the table asks for two");
    let names = names
        .iter()
        .map(|name| name.parse())
        .collect::<image::Result<Vec<Reference>>>()?;
    if let Some(name) = names.iter().find(|name| name.digest().is_some()) {
        return Err(Failure::new(format!(
            "tag {name}: a name with a digest cannot be given"
        )));
    }
    let store = invocation.store()?;
    let _hold = store.hold()?;
    let image = store.find(image)?;
    for name in &names {
        store.tag(&image, name)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_261_550, "4.26MB"),
            (72_800_000, "72.8MB"),
            (187_000_000, "187MB"),
            (1_500_000_000, "1.5GB"),
        ] {
            assert_eq!(decimal(bytes), text);
        }
    }

    #[test]
    fn ages_are_dockers() {
        let day = 86400;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (2 * day, "2 days"),
            (14 * day, "2 weeks"),
            (90 * day, "3 months"),
            (800 * day, "2 years"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), text);
        }
        let now = humantime::parse_rfc3339("2026-01-03T00:00:00Z").unwrap();
        assert_eq!(ago("2026-01-01T00:00:00.5Z", now), "47 hours ago");
        assert_eq!(ago("2027-01-01T00:00:00Z", now), "Less than a second ago");
        assert_eq!(ago("yesterday", now), "");
    }
}
