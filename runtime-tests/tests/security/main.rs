//! What a container, an image or a neighbour attacks a runtime with: the rows of `docs/SECURITY.md` that have their tests nowhere else.
//! The comment of each says what was taken out of Coracle once to see it fail.

mod covered;
mod races;
mod supervisors;
mod terminal;

use std::fs;
use std::path::PathBuf;

use runtime_tests::Container;
use serde_json::json;

/// The container's /dev is a directory that somebody else has too, and nothing but what they put there.
fn with_own_dev(c: &mut Container) -> PathBuf {
    let dev = c.dir().join("dev");
    fs::create_dir(&dev).unwrap();
    let mounts = c.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    mounts.push(
        json!({ "destination": "/dev", "type": "bind", "source": dev, "options": ["rbind"] }),
    );
    dev
}
