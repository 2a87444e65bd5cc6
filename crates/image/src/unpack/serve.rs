//! The unpackers seen from inside: what `coracle` does when it is executed under [`NAME`](super::NAME).
//!
//! Standard input is the blob, standard output the only directory, standard error the connection to who started it; the arguments say
//! what to do.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::OFlag;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, mkdirat, umask};

use super::archive::Archive;
use super::extract::{Extraction, Form};
use super::identity::Identity;
use super::stream::Stream;
use super::{jail, marks, merge, tree};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::sys;

/// The exit status that stands for [`Kind::Invalid`].
pub(super) const INVALID: i32 = 2;

/// Below a directory of [`Task::Layer`] in plain form, and of [`Task::Merge`].
pub(super) const TREE: &str = "tree";
pub(super) const MARKS: &str = "marks";
pub(super) const ROOTFS: &str = "rootfs";

/// What an unpacker does, as it stands in its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Extracts a layer into the directory: as one of overlayfs, or as [`TREE`] and [`MARKS`].
    Layer { overlay: bool, diff_id: Digest },
    /// Moves the layer that was extracted into a directory of this name over [`ROOTFS`].
    Merge { layer: String },
    /// Removes everything in the directory.
    Clear,
}

impl Task {
    pub(super) fn to_args(&self) -> Vec<String> {
        match self {
            Task::Layer { overlay, diff_id } => {
                let form = if *overlay { "overlay" } else { "plain" };
                vec![form.to_owned(), diff_id.to_string()]
            }
            Task::Merge { layer } => vec!["merge".to_owned(), layer.clone()],
            Task::Clear => vec!["clear".to_owned()],
        }
    }

    fn from_args(args: &[String]) -> Result<Self> {
        let words: Vec<_> = args.iter().map(String::as_str).collect();
        Ok(match words[..] {
            [form @ ("overlay" | "plain"), diff_id] => Task::Layer {
                overlay: form == "overlay",
                diff_id: diff_id.parse()?,
            },
            ["merge", layer] => Task::Merge {
                layer: layer.to_owned(),
            },
            ["clear"] => Task::Clear,
            _ => return Err(Error::invalid("only coracle itself starts an unpacker")),
        })
    }
}

/// Does what the arguments say, the program's name left out. Main calls it when the program's name is [`NAME`](super::NAME).
pub fn serve(args: &[String]) -> ! {
    let status = match task(args) {
        Ok(()) => 0,
        Err(error) => {
            // Nobody there to be told: the exit status says enough.
            let _ = write!(std::io::stderr(), "{error}");
            if error.kind() == Kind::Invalid {
                INVALID
            } else {
                1
            }
        }
    };
    std::process::exit(status)
}

fn task(args: &[String]) -> Result<()> {
    let inherited = |number| sys::inherited(number).context(|| "take the descriptors");
    let (identity, args) = args
        .split_first()
        .and_then(|(name, args)| Some((Identity::from_name(name)?, args)))
        .ok_or_else(|| Error::invalid("only coracle itself starts an unpacker"))?;
    let task = Task::from_args(args)?;
    let blob = File::from(inherited(0)?);
    let directory = inherited(1)?;
    identity.assume(&mut UnixStream::from(inherited(2)?))?;
    set_pdeathsig(Signal::SIGKILL).context(|| "follow the parent")?;
    umask(Mode::empty());
    jail::enter(directory.as_fd())?;
    perform(&task, identity, blob, directory)
}

fn perform(task: &Task, identity: Identity, blob: File, directory: OwnedFd) -> Result<()> {
    match task {
        Task::Clear => tree::clear(directory.as_fd()).context(|| "remove old files"),
        Task::Layer { overlay, diff_id } => layer(*overlay, diff_id, identity, blob, directory),
        Task::Merge { layer } => {
            let open = |path: &str| {
                tree::open_directory(&directory, path.as_bytes()).context(|| format!("open {path}"))
            };
            let from = open(layer)?;
            let flags = OFlag::O_RDONLY;
            let list = tree::open(&from, MARKS.as_bytes(), flags, Mode::empty())
                .context(|| "open the list of whiteouts")?;
            let tree = open(&format!("{layer}/{TREE}"))?;
            let marks = marks::read(File::from(list))?;
            merge::merge(tree.as_fd(), marks, open(ROOTFS)?.as_fd())
        }
    }
}

/// Extracts a layer, and holds what was read against its digest.
fn layer(
    overlay: bool,
    diff_id: &Digest,
    identity: Identity,
    blob: File,
    directory: OwnedFd,
) -> Result<()> {
    let mut archive = Archive::new(Stream::new(blob)?);
    let (root, form) = if overlay {
        let userxattr = identity.userxattr();
        (directory, Form::Overlay { userxattr })
    } else {
        let making = || "make the layer's directory";
        mkdirat(&directory, TREE, Mode::from_bits_truncate(0o755)).context(making)?;
        let root = tree::open_child(&directory, TREE.as_bytes()).context(making)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let list = tree::open(&directory, MARKS.as_bytes(), flags, Mode::S_IRUSR)
            .context(|| "make the list of whiteouts")?;
        (root, Form::Plain(marks::Writer::new(File::from(list))))
    };
    Extraction::new(root, form, identity.rights())?.all(&mut archive)?;
    let found = archive.finish()?;
    if found != *diff_id {
        return Err(Error::invalid(format!(
            "the layer's content has digest {found}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_survives_its_arguments() {
        let diff_id = Digest::from_bytes(&[7; 32]);
        for task in [
            Task::Layer {
                overlay: true,
                diff_id: diff_id.clone(),
            },
            Task::Layer {
                overlay: false,
                diff_id,
            },
            Task::Merge {
                layer: "3".to_owned(),
            },
            Task::Clear,
        ] {
            assert_eq!(Task::from_args(&task.to_args()).unwrap(), task);
        }
        for bad in [
            &["overlay"][..],
            &["plain", "sha256:x"],
            &[],
            &["clear", "x"],
        ] {
            let args: Vec<_> = bad.iter().map(|word| (*word).to_owned()).collect();
            assert!(Task::from_args(&args).is_err(), "{bad:?}");
        }
    }
}
