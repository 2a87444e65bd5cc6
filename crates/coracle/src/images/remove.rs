//! `rmi` and `prune`.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use image::{Digest, Reference, Removed, Store};
use serde::Deserialize;

use super::list::decimal;
use crate::commands::{Invocation, answer, failure};
use crate::{Failure, Outcome};

/// The largest record of a container, in bytes.
const RECORD: u64 = 4 << 20;

/// Removes all that can be removed, and tells of the others.
pub(super) fn rmi(invocation: &Invocation<'_>) -> Outcome {
    let store = invocation.store()?;
    let force = invocation.flags.is_set("force");
    let mut failures = Vec::new();
    for name in &invocation.flags.args {
        match store.remove(name, force, &in_use(&store)?) {
            Ok(removed) => {
                answer(&told(&removed))?;
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    match failures.is_empty() {
        true => Ok(0),
        false => Err(Failure::new(failures.join("; "))),
    }
}

pub(super) fn prune(invocation: &Invocation<'_>) -> Outcome {
    let store = invocation.store()?;
    let pruned = store.prune(invocation.flags.is_set("all"), &in_use(&store)?)?;
    let images: String = pruned.images.iter().map(told).collect();
    answer(&format!(
        "{images}Total reclaimed space: {}\n",
        decimal(pruned.reclaimed)
    ))
}

fn told(removed: &Removed) -> String {
    let familiar = |name: &String| {
        name.parse()
            .map_or(name.clone(), |name: Reference| name.familiar())
    };
    let untagged = removed
        .untagged
        .iter()
        .map(|name| format!("Untagged: {}\n", familiar(name)));
    let deleted = removed.deleted.iter().map(|id| format!("Deleted: {id}\n"));
    untagged.chain(deleted).collect()
}

/// The manifests of the images that containers in this store need. A record that cannot be read could name any of them.
fn in_use(store: &Store) -> Result<Vec<Digest>, Failure> {
    #[derive(Deserialize)]
    struct Record {
        image: Option<Digest>,
    }
    let containers = PathBuf::from(format!(
        "/proc/self/fd/{}/containers",
        store.directory().as_raw_fd()
    ));
    let entries = match std::fs::read_dir(&containers) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failure("list the containers of the store", error)),
    };
    let mut digests = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failure("list the containers of the store", error))?;
        let unreadable = |error: &dyn std::fmt::Display| {
            failure(
                format!("container {}: container.json", entry.file_name().display()),
                error,
            )
        };
        let file = match File::open(entry.path().join("container.json")) {
            Ok(file) => file,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                continue;
            }
            Err(error) => return Err(unreadable(&error)),
        };
        let record: Record = serde_json::from_reader(BufReader::new(file).take(RECORD))
            .map_err(|error| unreadable(&error))?;
        digests.extend(record.image);
    }
    Ok(digests)
}
