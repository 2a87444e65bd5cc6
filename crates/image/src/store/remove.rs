//! Removing images, and everything that only they needed.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{Image, Store, index, is_called};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::layers;
use crate::reference::Reference;
use crate::unpack;

/// What became of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The names that are gone.
    pub untagged: Vec<String>,
    /// The image's id, when the image itself is gone.
    pub deleted: Option<Digest>,
}

/// What pruning has removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The images.
    pub images: Vec<Removed>,
    /// What blobs and unfinished downloads occupied, in bytes; unpacked layers are not counted.
    pub reclaimed: u64,
}

impl Store {
    /// Takes a name away from an image, and removes the image when that was its last one. By its id an image goes with all its
    /// names, if it has more than one only by `force`.
    ///
    /// `in_use` are the manifests of images that containers need: those stay, and only lose their name by `force`.
    pub fn remove(&self, name: &str, force: bool, in_use: &[Digest]) -> Result<Removed> {
        let _alone = self.lock(File::lock)?;
        let image = self.find(name)?;
        let untagged = self.names_meant(&image, name);
        let is_last = untagged.len() == image.names.len();
        let is_used = in_use.contains(&image.manifest.digest);
        if untagged.len() > 1 && !force {
            return Err(Error::new(
                Kind::InUse,
                format!(
                    "{name}: the image has {} names: force its removal, or remove it by name",
                    untagged.len()
                ),
            ));
        }
        if is_last && is_used && !force {
            return Err(Error::new(
                Kind::InUse,
                format!("{name}: a container uses the image"),
            ));
        }
        self.change_index(|entries| {
            for name in &untagged {
                index::take_name(entries, name);
            }
            if is_last && !is_used {
                entries.retain(|entry| entry.digest != image.manifest.digest);
            }
            Ok(())
        })?;
        self.sweep(in_use)?;
        Ok(Removed {
            untagged,
            deleted: (is_last && !is_used).then(|| image.id().clone()),
        })
    }

    /// One name when the image was named by it, all when by its id.
    fn names_meant(&self, image: &Image, name: &str) -> Vec<String> {
        let candidates = [name.to_owned(), format!("localhost/{name}")];
        let references = candidates
            .iter()
            .filter_map(|name| name.parse::<Reference>().ok());
        for reference in references {
            if image.names.contains(&reference.to_string()) {
                return vec![reference.to_string()];
            }
            if is_called(image, &reference) {
                break;
            }
        }
        image.names.clone()
    }

    /// Removes images that have no name, or all (`all`), except those of containers (`in_use`); then everything that no image
    /// needs, and unfinished downloads.
    pub fn prune(&self, all: bool, in_use: &[Digest]) -> Result<Pruned> {
        let _alone = self.lock(File::lock)?;
        let mut pruned = Pruned::default();
        for image in self.images()? {
            if (all || image.names.is_empty()) && !in_use.contains(&image.manifest.digest) {
                pruned.images.push(Removed {
                    deleted: Some(image.id().clone()),
                    untagged: image.names,
                });
                self.change_index(|entries| {
                    entries.retain(|entry| entry.digest != image.manifest.digest);
                    Ok(())
                })?;
            }
        }
        pruned.reclaimed = self.sweep(in_use)? + self.empty("images/partial", |_| false)?;
        Ok(pruned)
    }

    /// Removes blobs and layers that no image needs. The store is locked.
    fn sweep(&self, in_use: &[Digest]) -> Result<u64> {
        let mut blobs: BTreeSet<String> = in_use
            .iter()
            .map(|digest| digest.hex().to_owned())
            .collect();
        let mut layers = BTreeSet::new();
        for image in self.images()? {
            let parts = [&image.manifest, &image.config]
                .into_iter()
                .chain(&image.layers);
            blobs.extend(parts.map(|part| part.digest.hex().to_owned()));
            if !image.is_artifact() {
                layers.extend(unpack::diff_ids(self, &image.config, &image.layers)?);
            }
        }
        layers::remove_unused(&self.path, &layers)?;
        self.empty("images/blobs/sha256", |name| blobs.contains(name))
    }

    /// Removes the files of a directory of the store that are not to be kept; gives the bytes that they occupied.
    fn empty(&self, path: &str, keep: impl Fn(&str) -> bool) -> Result<u64> {
        let context = || format!("clean {path} of the image store");
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = Dir::openat(&self.root, path, flags, Mode::empty()).context(context)?;
        let mut reclaimed = 0;
        for name in self.names_in(path)?.iter().filter(|name| !keep(name)) {
            let stat = fstatat(
                directory.as_fd(),
                name.as_str(),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            );
            match unlinkat(directory.as_fd(), name.as_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) => reclaimed += stat.map_or(0, |stat| stat.st_size as u64),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).context(context),
            }
        }
        Ok(reclaimed)
    }

    fn names_in(&self, path: &str) -> Result<Vec<String>> {
        let context = || format!("list {path} of the image store");
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::openat(&self.root, path, flags, Mode::empty()).context(context)?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry.context(context)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }
}
