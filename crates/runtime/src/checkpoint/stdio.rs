//! The pipes that a container was started with. They lead out of it, so criu does not know what to do about them: a restored container gets
//! the standard streams of whoever restores it in their place, wherever in it they were.

use nix::fcntl::readlink;

/// The standard streams of this process as criu names pipes; empty for whatever is none, and when none is one.
pub(crate) fn pipes_of_our_own() -> Vec<String> {
    let name = |fd| {
        let link = readlink(format!("/proc/self/fd/{fd}").as_str()).ok()?;
        let name = link.into_string().ok()?;
        name.starts_with("pipe:").then_some(name)
    };
    let pipes: [Option<String>; 3] = [0, 1, 2].map(name);
    match pipes.iter().all(Option::is_none) {
        true => Vec::new(),
        false => pipes.map(Option::unwrap_or_default).into(),
    }
}
