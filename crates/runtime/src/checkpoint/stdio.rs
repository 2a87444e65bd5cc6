//! The standard streams that a container was started with. They lead out of it, so criu does not know what to do about them: a restored
//! container gets those of whoever restores it in their place, wherever in it they were.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::fcntl::readlink;
use nix::sys::stat::makedev;

use crate::process::Streams;
use crate::{Context, Result};

/// The standard streams of this process as criu names pipes; empty for whatever is none, and when none is one.
///
/// They are looked at when a container is made: later its first process may have another pipe there.
pub(crate) fn pipes_among(streams: &Streams) -> Vec<String> {
    let name = |fd| {
        if !streams.is_pipe(fd) {
            return None;
        }
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

/// What a restored container gets in the place of one of its standard streams.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stream {
    /// Nothing: it was the container's own.
    Own,
    /// The stream of whoever restores it; by criu's name.
    Outer(String),
    /// /dev/null, which needs nobody. It may be several streams, open for reading and for writing, that have one name for criu.
    Null(String),
}

impl Stream {
    /// As it is kept in a file: a pipe in the same way as runc keeps it.
    pub(super) fn encode(&self) -> String {
        match self {
            Stream::Own => String::new(),
            Stream::Outer(name) => name.clone(),
            Stream::Null(name) => format!("/dev/null {name}"),
        }
    }

    pub(super) fn decode(text: &str) -> Self {
        let is_name = |text: &str| text.starts_with("pipe:[") || text.starts_with("file[");
        match text.strip_prefix("/dev/null ") {
            Some(name) if is_name(name) => Stream::Null(name.to_owned()),
            None if is_name(text) => Stream::Outer(text.to_owned()),
            _ => Stream::Own,
        }
    }

    /// criu's name of a file that it has to be told of at a checkpoint.
    pub(super) fn outer_file(&self) -> Option<&str> {
        match self {
            Stream::Outer(name) | Stream::Null(name) => Some(name.as_str()),
            Stream::Own => None,
        }
        .filter(|name| name.starts_with("file["))
    }
}

/// The standard streams of a container, with the pipes that it was started with.
pub(super) fn streams(init: i32, pipes: &[String]) -> Result<Vec<Stream>> {
    let path = format!("/proc/{init}/mountinfo");
    let mounts = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let stream = |fd: usize| match pipes.get(fd).filter(|name| !name.is_empty()) {
        Some(pipe) => Stream::Outer(pipe.clone()),
        None => outer_file(init, fd, &mounts).unwrap_or(Stream::Own),
    };
    Ok((0..=2).map(stream).collect())
}

/// A descriptor that is a file on none of the container's mounts.
fn outer_file(init: i32, fd: usize, mounts: &str) -> Option<Stream> {
    let metadata = fs::metadata(format!("/proc/{init}/fd/{fd}")).ok()?;
    let info = fs::read_to_string(format!("/proc/{init}/fdinfo/{fd}")).ok()?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    let mount = mount.trim();
    let is_inside = |line: &str| line.split(' ').next() == Some(mount);
    if mounts.lines().any(is_inside) {
        return None;
    }
    let number: u32 = mount.parse().ok()?;
    let name = format!("file[{number:x}:{:x}]", metadata.ino());
    let is_file = metadata.is_file();
    match is_null(&metadata) {
        true => Some(Stream::Null(name)),
        false => is_file.then_some(Stream::Outer(name)),
    }
}

fn is_null(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == makedev(1, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_kept_and_nothing_else_is_believed() {
        for stream in [
            Stream::Own,
            Stream::Outer("pipe:[7]".into()),
            Stream::Outer("file[1b:a7]".into()),
            Stream::Null("file[18:3]".into()),
        ] {
            assert_eq!(Stream::decode(&stream.encode()), stream);
        }
        // runc's way to keep what is no pipe, and nobody's.
        for other in ["/dev/null", "/dev/null extRootNetNS", "extRootNetNS"] {
            assert_eq!(Stream::decode(other), Stream::Own);
        }
    }

    #[test]
    fn files_outside_are_told_from_those_inside() {
        let own = std::process::id() as i32;
        let file = fs::File::open("/dev/null").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file) as usize;
        assert!(matches!(outer_file(own, fd, ""), Some(Stream::Null(_))));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(outer_file(own, fd, &mounts), None);
    }
}
