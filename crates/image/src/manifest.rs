//! Manifests and indexes: what a document says that names an image's parts, and whether it may be believed.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::descriptor::{Descriptor, media_type};
use crate::error::{Context, Error, Result};

/// No manifest, index or configuration is larger, in bytes.
pub const DOCUMENT_LIMIT: u64 = 4 << 20;

/// One image: how it is configured, and its layers from the lowest up.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The configuration's blob.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// It is something else than a container image, such as a Helm chart or a signature.
    pub(crate) fn is_artifact(&self) -> bool {
        !media_type::is_config(&self.config.media_type)
    }
}

/// What a document is.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    /// A choice of images.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Manifest),
}

/// Every field by which a document shows what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<IgnoredAny>,
}

/// A document, and its media type.
///
/// `expected` is what the descriptor or the registry called it: the document has to say the same of itself, and to have the
/// fields that go with it and no others, or two readers could take it for two different images (CVE-2021-41190).
pub(crate) fn parse(bytes: &[u8], expected: Option<&str>) -> Result<(Document, String)> {
    if expected.is_some_and(is_schema_1) {
        return Err(schema_1());
    }
    let fields: Fields = serde_json::from_slice(bytes).context(|| "manifest")?;
    if fields.schema_version == 1 || fields.fs_layers.is_some() {
        return Err(schema_1());
    }
    if fields.schema_version != 2 {
        let version = fields.schema_version;
        return Err(Error::invalid(format!(
            "manifest: schemaVersion {version} is not known"
        )));
    }
    let media_type = match (expected, &fields.media_type) {
        (Some(expected), Some(own)) if expected != own => {
            return Err(Error::invalid(format!(
                "manifest: its mediaType is {own:?}, but it was called {expected:?}"
            )));
        }
        (Some(known), _) => known.to_owned(),
        (None, Some(own)) => own.clone(),
        // The image specification's documents need not say it.
        (None, None) if fields.manifests.is_some() => media_type::INDEX.to_owned(),
        (None, None) => media_type::MANIFEST.to_owned(),
    };
    let document = match (fields.manifests, fields.config, fields.layers) {
        (Some(manifests), None, None) if media_type::is_index(&media_type) => {
            Document::Index(manifests)
        }
        (None, Some(config), Some(layers)) if media_type::is_manifest(&media_type) => {
            Document::Manifest(Manifest { config, layers })
        }
        (Some(_), None, None) | (None, Some(_), Some(_)) => {
            return Err(Error::invalid(format!(
                "manifest: its fields are not those of a document of type {media_type:?}"
            )));
        }
        (Some(_), _, _) => {
            return Err(Error::invalid(
                "manifest: it has the fields of an index and of a manifest at once",
            ));
        }
        (None, _, _) => {
            return Err(Error::invalid(
                "manifest: it has neither \"manifests\" nor \"config\" and \"layers\"",
            ));
        }
    };
    Ok((document, media_type))
}

fn is_schema_1(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

fn schema_1() -> Error {
    Error::invalid(
        "the image has a manifest of Docker's schema 1, which is not supported: push it again with a current tool",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn descriptor(media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", "0".repeat(64)), "size": 1 })
    }

    fn manifest() -> Value {
        json!({
            "schemaVersion": 2, "mediaType": media_type::MANIFEST,
            "config": descriptor(media_type::CONFIG), "layers": [descriptor(media_type::LAYER)]
        })
    }

    fn index() -> Value {
        json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [descriptor(media_type::MANIFEST)] })
    }

    fn with(mut base: Value, field: &str, value: Value) -> Value {
        base[field] = value;
        base
    }

    fn error(document: &Value, expected: Option<&str>) -> String {
        parse(document.to_string().as_bytes(), expected)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn all_four_kinds_are_read() {
        for (document, media_type) in [
            (manifest(), media_type::MANIFEST),
            (
                with(manifest(), "mediaType", json!(media_type::DOCKER_MANIFEST)),
                media_type::DOCKER_MANIFEST,
            ),
            (index(), media_type::INDEX),
            (
                with(index(), "mediaType", json!(media_type::DOCKER_LIST)),
                media_type::DOCKER_LIST,
            ),
            (
                with(manifest(), "mediaType", Value::Null),
                media_type::MANIFEST,
            ),
            (with(index(), "mediaType", Value::Null), media_type::INDEX),
        ] {
            for expected in [None, Some(media_type)] {
                let (read, own) = parse(document.to_string().as_bytes(), expected).unwrap();
                assert_eq!(own, media_type);
                assert_eq!(
                    matches!(read, Document::Index(_)),
                    media_type::is_index(media_type)
                );
            }
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let both = with(manifest(), "manifests", json!([]));
        assert!(error(&both, None).contains("at once"));
        assert!(error(&with(index(), "layers", json!([])), None).contains("at once"));
        assert!(error(&manifest(), Some(media_type::INDEX)).contains("but it was called"));
        assert!(
            error(
                &with(index(), "mediaType", Value::Null),
                Some(media_type::MANIFEST)
            )
            .contains("are not those")
        );
        assert!(
            error(
                &with(manifest(), "mediaType", json!(media_type::INDEX)),
                None
            )
            .contains("are not those")
        );
        assert!(
            error(&with(manifest(), "mediaType", json!("text/plain")), None)
                .contains("are not those")
        );
        let twice = r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#;
        assert!(parse(twice.as_bytes(), None).is_err());
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let schema_1 = json!({ "schemaVersion": 1, "fsLayers": [] });
        assert!(error(&schema_1, None).contains("schema 1"));
        let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(error(&manifest(), Some(signed)).contains("schema 1"));
        assert!(
            error(&with(manifest(), "schemaVersion", json!(3)), None).contains("schemaVersion 3")
        );
        assert!(error(&json!({ "schemaVersion": 2 }), None).contains("neither"));
        let mut bad = manifest();
        bad["layers"][0]["digest"] = json!("sha256:../../etc/passwd");
        assert!(error(&bad, None).contains("digest"));
        bad["layers"][0] = with(descriptor(""), "size", json!(-1));
        assert!(error(&bad, None).starts_with("manifest: "));
    }
}
