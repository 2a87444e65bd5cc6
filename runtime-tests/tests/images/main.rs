//! Images: to and from real registries and archives, by Coracle and by the tools that people have.

mod archives;
mod commands;
mod disk_full;
mod interrupted;
mod registries;
mod unpack;

use runtime_tests::has_program;

/// What nearly every test here needs.
fn has_tools() -> bool {
    ["docker-registry", "htpasswd", "openssl", "skopeo", "umoci"]
        .into_iter()
        .all(has_program)
}
