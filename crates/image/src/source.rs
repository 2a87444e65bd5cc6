//! Where an image can come from.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::reference::Reference;

/// A place with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A registry.
    Registry(Reference),
    /// `oci:DIRECTORY[:TAG]`: an image layout.
    Layout {
        /// Its directory.
        directory: PathBuf,
        /// `org.opencontainers.image.ref.name` of the image, where there are several.
        tag: Option<String>,
    },
    /// `oci-archive:FILE`: an image layout in a tar archive; `-` is standard input.
    OciArchive(PathBuf),
    /// `docker-archive:FILE`: what `docker save` writes; `-` is standard input.
    DockerArchive(PathBuf),
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let not_empty = |path: &str| match path {
            "" => Err(Error::invalid(format!("source {text:?} names no file"))),
            path => Ok(PathBuf::from(path)),
        };
        match text.split_once(':') {
            Some(("oci", rest)) => {
                let (directory, tag) = match rest.rsplit_once(':') {
                    Some((directory, tag)) if !tag.contains('/') => {
                        (directory, Some(tag.to_owned()))
                    }
                    _ => (rest, None),
                };
                Ok(Source::Layout {
                    directory: not_empty(directory)?,
                    tag: tag.filter(|tag| !tag.is_empty()),
                })
            }
            Some(("oci-archive", file)) => Ok(Source::OciArchive(not_empty(file)?)),
            Some(("docker-archive", file)) => Ok(Source::DockerArchive(not_empty(file)?)),
            Some(("docker", rest)) if rest.starts_with("//") => {
                rest[2..].parse().map(Source::Registry)
            }
            _ => text.parse().map(Source::Registry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_tell_where_an_image_is() {
        let layout = |directory: &str, tag: Option<&str>| Source::Layout {
            directory: directory.into(),
            tag: tag.map(str::to_owned),
        };
        for (text, source) in [
            ("oci:/a/b", layout("/a/b", None)),
            ("oci:b:v1", layout("b", Some("v1"))),
            ("oci:/a:b/c", layout("/a:b/c", None)),
            ("oci:/a:b/c:v1", layout("/a:b/c", Some("v1"))),
            ("oci-archive:a.tar", Source::OciArchive("a.tar".into())),
            ("oci-archive:-", Source::OciArchive("-".into())),
            ("docker-archive:/x", Source::DockerArchive("/x".into())),
            (
                "docker://alpine:1",
                Source::Registry("alpine:1".parse().unwrap()),
            ),
            ("alpine", Source::Registry("alpine".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<Source>().unwrap(), source);
        }
        for text in ["oci:", "oci-archive:", "docker-archive:", "dir:/x", ""] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }
}
