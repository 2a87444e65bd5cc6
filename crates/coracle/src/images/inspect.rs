//! `inspect`: everything that is known of an image.

use image::{Image, Kind, Reference, Store};
use serde_json::{Value, json};

use super::connection;
use crate::commands::{self, Invocation, answer};
use crate::containers;
use crate::{Failure, Outcome};

/// Prints all that were found, and fails when one was not.
pub(super) fn inspect(invocation: &Invocation<'_>) -> Outcome {
    if invocation.flags.is_set("referrers") {
        return referrers(invocation);
    }
    let store = invocation.store()?;
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in &invocation.flags.args {
        // As Docker: a container of that name comes first.
        if let Some(container) = invocation.containers()?.find(name)? {
            found.push(containers::describe(&container)?);
            continue;
        }
        match store.find(name) {
            Ok(image) => found.push(describe(&store, &image)?),
            Err(error) if error.kind() == Kind::NotFound => missing.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    answer(&(commands::json(&found, "    ") + "\n"))?;
    match missing.is_empty() {
        true => Ok(0),
        false => Err(Failure::new(missing.join("; "))),
    }
}

/// The descriptors of what refers to images in their registries.
fn referrers(invocation: &Invocation<'_>) -> Outcome {
    let mut found = Vec::new();
    for name in &invocation.flags.args {
        let name: Reference = name.parse()?;
        found.extend(image::referrers(&name, &connection(invocation.flags))?);
    }
    answer(&(commands::json(&found, "    ") + "\n"))
}

/// The fields that Docker and podman show, with their names. An artifact has not all of them.
fn describe(store: &Store, image: &Image) -> image::Result<Value> {
    let configuration = match image.is_artifact() {
        true => Value::Null,
        false => json!(image.configuration(store)?),
    };
    let references = image
        .names
        .iter()
        .filter_map(|name| name.parse::<Reference>().ok());
    let mut digests: Vec<_> = references
        .clone()
        .map(|name| format!("{}@{}", name.familiar_name(), image.manifest.digest))
        .collect();
    digests.dedup();
    let tags: Vec<_> = references
        .filter(|name| name.digest().is_none())
        .map(|name| name.familiar())
        .collect();
    Ok(json!({
        "Id": image.id(),
        "Digest": image.manifest.digest,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": configuration["created"],
        "Author": configuration["author"],
        "Architecture": configuration["architecture"],
        "Os": configuration["os"],
        "Variant": configuration["variant"],
        "Size": image.size(),
        "Config": configuration["config"],
        "ConfigMediaType": image.config.media_type,
        "RootFS": { "Type": "layers", "Layers": configuration["rootfs"]["diff_ids"] },
        "Layers": image.layers,
        "History": configuration["history"],
    }))
}
