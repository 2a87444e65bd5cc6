//! What names a piece of content in a manifest: its type, its digest and its size.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::platform::Platform;

/// The media types of images: the image specification's, and Docker's of schema 2 which mean the same.
pub mod media_type {
    /// A choice of manifests, mostly one for each platform.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// The same as Docker writes it.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A configuration and layers.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// The same as Docker writes it.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// The configuration of an image.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// The same as Docker writes it.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// A layer; `+gzip` or `+zstd` follow when it is compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker's layer, always compressed with gzip.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

    /// A document of this type lists manifests.
    pub fn is_index(text: &str) -> bool {
        matches!(text, INDEX | DOCKER_LIST)
    }

    /// A document of this type is one image.
    pub fn is_manifest(text: &str) -> bool {
        matches!(text, MANIFEST | DOCKER_MANIFEST)
    }

    /// A document of this type configures a container.
    pub fn is_config(text: &str) -> bool {
        matches!(text, CONFIG | DOCKER_CONFIG)
    }
}

/// The annotation by which an image layout names an image.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A descriptor of the image specification. `urls` and `data` are not read: content comes from where the descriptor came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// One of [`media_type`], or something else.
    #[serde(default)]
    pub media_type: String,
    /// The name of the content.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// What an artifact is, where an index lists it as a referrer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What a manifest in an index is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Anything.
    #[serde(
        default,
        deserialize_with = "or_null",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor without platform and annotations.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            artifact_type: None,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// What Go writes for an empty list or map is `null`.
pub(crate) fn or_null<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
