//! The directories of a checkpoint, and the file in them that is not criu's.

use std::fs::{self, DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::rpc::{Opts, Response};
use super::stdio::Stream;
use super::{CriuOptions, log};
use crate::{Context, Error, Result, json};

/// The standard streams that the container was started with, under runc's name.
const DESCRIPTORS: &str = "descriptors.json";

/// A directory of images, and one for the log.
pub(super) struct Images {
    directory: Directory,
    work: Option<Directory>,
    /// Where criu's log will be.
    log: PathBuf,
}

struct Directory {
    file: File,
    /// Absolute and resolved.
    path: PathBuf,
}

impl Directory {
    fn open(path: &Path, flag: &str) -> Result<Self> {
        let opening = || format!("{flag}: open {}", path.display());
        let path = path.canonicalize().with_context(opening)?;
        let file = File::open(&path).with_context(opening)?;
        match file.metadata().with_context(opening)?.is_dir() {
            true => Ok(Directory { file, path }),
            false => Err(Error::invalid(format!("{}: not a directory", opening()))),
        }
    }
}

impl Images {
    /// For a checkpoint: what is missing is made.
    pub(super) fn create(options: &CriuOptions, log: &str) -> Result<Self> {
        make(&options.image_path)?;
        if let Some(parent) = &options.parent_path {
            check_parent(&options.image_path, parent)?;
        }
        Self::open(options, log)
    }

    /// For a restore: the images have to be there.
    pub(super) fn open(options: &CriuOptions, log: &str) -> Result<Self> {
        let directory = Directory::open(&options.image_path, "--image-path")?;
        let work = options.work_path.as_deref().map(|path| {
            make(path)?;
            Directory::open(path, "--work-path")
        });
        let work = work.transpose()?;
        Ok(Images {
            log: work.as_ref().unwrap_or(&directory).path.join(log),
            directory,
            work,
        })
    }

    /// Opens the directories once more, in the mount namespace of a process with the same root: criu mounts something in them.
    pub(super) fn open_inside(&mut self, process: Pid) -> Result<()> {
        for directory in [Some(&mut self.directory), self.work.as_mut()] {
            let Some(directory) = directory else { continue };
            let path = format!("/proc/{process}/root{}", directory.path.display());
            directory.file = File::open(&path).with_context(|| format!("open {path}"))?;
        }
        Ok(())
    }

    /// Tells criu of them. It opens our descriptors by way of /proc.
    pub(super) fn name(&self, opts: &mut Opts) {
        opts.images_dir_fd = self.directory.file.as_raw_fd();
        opts.work_dir_fd = self.work.as_ref().map(|work| work.file.as_raw_fd());
        let name = self.log.file_name().unwrap_or_default();
        opts.log_file = name.to_string_lossy().into_owned();
    }

    /// An error for an answer that is a refusal, with what criu's log says about it.
    pub(super) fn check(&self, answer: &Response, what: &str) -> Result<()> {
        if answer.success {
            return Ok(());
        }
        let cause = log::cause(&self.log)
            .or_else(|| Some(answer.cr_errmsg.trim().to_owned()).filter(|text| !text.is_empty()))
            .unwrap_or_else(|| format!("error {}", answer.cr_errno));
        Err(Error::failed(format!(
            "criu cannot {what}: {cause} (its log is {})",
            self.log.display()
        )))
    }

    /// Keeps what the container's standard streams were.
    pub(super) fn write_streams(&self, streams: &[Stream]) -> Result<()> {
        let path = self.directory.path.join(DESCRIPTORS);
        let names: Vec<String> = streams.iter().map(Stream::encode).collect();
        let json = serde_json::to_vec(&names)
            .map_err(|error| Error::failed(format!("encode {DESCRIPTORS}: {error}")))?;
        fs::write(&path, json).with_context(|| format!("write {}", path.display()))
    }

    /// What the container's standard streams were.
    pub(super) fn read_streams(&self) -> Result<Vec<Stream>> {
        let path = self.directory.path.join(DESCRIPTORS);
        let json = fs::read(&path)
            .with_context(|| format!("--image-path: no checkpoint: read {}", path.display()))?;
        let names: Vec<String> = json::parse(&json)
            .map_err(|error| Error::failed(format!("{} is damaged: {error}", path.display())))?;
        // Only standard streams are ours to give.
        Ok(names
            .iter()
            .take(3)
            .map(|name| Stream::decode(name))
            .collect())
    }
}

fn make(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("create {}", path.display()))
}

/// criu itself would only warn, and write everything.
fn check_parent(images: &Path, parent: &Path) -> Result<()> {
    if parent.is_absolute() {
        return Err(Error::invalid("--parent-path must be relative"));
    }
    let path = images.join(parent);
    let metadata = fs::metadata(&path)
        .with_context(|| format!("invalid --parent-path: look at {}", path.display()))?;
    match metadata.is_dir() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "invalid --parent-path: {} is not a directory",
            path.display()
        ))),
    }
}
