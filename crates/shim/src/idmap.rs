//! Layers with mapped ids: what a snapshotter asks for (`uidmap=`, `gidmap=`) so that a pod in a user namespace can share them.
//!
//! overlayfs takes its layers as paths, so each has to be mounted somewhere with its ids mapped, for as long as mount(2) takes. Afterwards
//! the overlay has them, and the places go.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use crate::error::{Context, Failure, Result};
use crate::sys;

/// The ids of a mount: a user namespace with these maps.
#[derive(Debug)]
pub(crate) struct Ids(OwnedFd);

impl Ids {
    /// Maps as options have them: `container:host:size`, with commas between several.
    pub(crate) fn new(uids: &str, gids: &str) -> Result<Ids> {
        let maps = (lines(uids)?, lines(gids)?);
        let failed = || format!("make a user namespace for uidmap={uids} and gidmap={gids}");
        let process = sys::Sleeper::in_new_user_namespace().context(failed)?;
        let place = |file: &str| format!("/proc/{}/{file}", process.pid());
        fs::write(place("uid_map"), maps.0).context(failed)?;
        fs::write(place("gid_map"), maps.1).context(failed)?;
        let namespace = File::open(place("ns/user")).context(failed)?;
        Ok(Ids(namespace.into()))
    }

    /// Mounts what is at `source` on `target` with its ids mapped; the two may be the same.
    pub(crate) fn mount(&self, source: &Path, target: &Path) -> Result<()> {
        let failed = || format!("map the ids of {}", source.display());
        let source = File::open(source).context(failed)?;
        let tree = sys::clone_tree(source.as_fd()).context(failed)?;
        sys::map_ids(tree.as_fd(), self.0.as_fd()).context(failed)?;
        let target = File::open(target).context(failed)?;
        sys::attach(tree.as_fd(), target.as_fd()).context(failed)
    }
}

/// The places of mapped layers. They go away with it.
#[derive(Debug)]
pub(crate) struct Layers {
    directory: PathBuf,
}

impl Layers {
    /// Mounts each layer with mapped ids below a directory that is made for it.
    pub(crate) fn mount(layers: &[&Path], ids: &Ids, directory: &Path) -> Result<Layers> {
        remove(directory);
        let places = Layers {
            directory: directory.to_owned(),
        };
        for (number, layer) in layers.iter().enumerate() {
            let place = places.place(number);
            fs::create_dir_all(&place).context(|| format!("make {}", place.display()))?;
            ids.mount(layer, &place)?;
        }
        Ok(places)
    }

    /// Where a layer is.
    pub(crate) fn place(&self, number: usize) -> PathBuf {
        self.directory.join(number.to_string())
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// Removes the places of layers, also what a killed shim has left of them.
pub(crate) fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let place = entry.path();
        let _ = umount2(&place, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&place);
    }
    let _ = fs::remove_dir(directory);
}

/// A map as /proc wants it.
fn lines(map: &str) -> Result<String> {
    let bad = || Failure::invalid(format!("rootfs: {map:?} is no map of ids"));
    let mut lines = String::new();
    for one in map.split(',') {
        let numbers: Vec<u32> = one
            .split(':')
            .map(|number| number.parse().map_err(|_| bad()))
            .collect::<Result<_>>()?;
        let [container, host, size] = numbers[..] else {
            return Err(bad());
        };
        lines += &format!("{container} {host} {size}\n");
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_become_lines() {
        assert_eq!(lines("0:100000:65536").unwrap(), "0 100000 65536\n");
        assert_eq!(lines("0:1:2,3:4:5").unwrap(), "0 1 2\n3 4 5\n");
        for bad in ["", "0:1", "0:1:2:3", "0:-1:2", "a:b:c", "0:1:2,"] {
            assert!(lines(bad).is_err(), "{bad}");
        }
    }
}
