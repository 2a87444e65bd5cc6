//! What refers to an image: signatures, attestations, lists of what is in it (distribution specification, "Listing Referrers").
//!
//! A registry keeps the list itself, or does not know of such a thing: then it is an index under a tag that is made of the digest, which
//! whoever pushes a manifest with a `subject` has to keep.

use serde::Deserialize;
use ureq::http::HeaderMap;
use ureq::http::header::LINK;

use super::client::header;
use super::{Connection, Repository};
use crate::descriptor::{Descriptor, media_type, or_null};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::DOCUMENT_LIMIT;
use crate::reference::Reference;
use crate::store::Index;

/// A list has no more parts.
const PARTS: usize = 100;

/// What a manifest says of itself to who looks for its subject's referrers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_null")]
    annotations: std::collections::BTreeMap<String, String>,
}

/// The manifests in the registry that have what this reference stands for as their subject.
pub fn referrers(reference: &Reference, connection: &Connection) -> Result<Vec<Descriptor>> {
    let context = || format!("referrers of {}", reference.familiar());
    let repository = Repository::open(reference, connection).context(context)?;
    let subject = repository.manifest(reference).context(context)?.descriptor;
    repository.referrers(&subject.digest).context(context)
}

impl Repository {
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut url = self.url(&format!("referrers/{subject}"));
        let mut found = Vec::new();
        for _ in 0..PARTS {
            let (headers, bytes) = match self.fetch(&url, DOCUMENT_LIMIT) {
                Err(error) if error.kind() == Kind::NotFound => return self.tagged(subject),
                answer => answer?,
            };
            found.extend(Index::read(bytes.as_slice(), DOCUMENT_LIMIT)?.manifests);
            match next(&headers) {
                Some(location) => url = url.join(location)?,
                None => return Ok(found),
            }
        }
        Err(Error::invalid("the registry's list does not end"))
    }

    /// The list under the tag; an empty one where nobody has made it.
    fn tagged(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let url = self.url(&format!("manifests/{}", tag(subject)));
        match self.fetch(&url, DOCUMENT_LIMIT) {
            Err(error) if error.kind() == Kind::NotFound => Ok(Vec::new()),
            answer => Ok(Index::read(answer?.1.as_slice(), DOCUMENT_LIMIT)?.manifests),
        }
    }

    /// Puts a manifest that has just been pushed into the list under its subject's tag, if it has a subject.
    pub(super) fn tag_referrer(&self, manifest: &Descriptor, bytes: &[u8]) -> Result<()> {
        let referrer: Referrer = serde_json::from_slice(bytes).context(|| "manifest")?;
        let Some(subject) = referrer.subject else {
            return Ok(());
        };
        let mut entries = self.tagged(&subject.digest)?;
        if entries.iter().any(|entry| entry.digest == manifest.digest) {
            return Ok(());
        }
        let config = referrer.config.map(|config| config.media_type);
        entries.push(Descriptor {
            artifact_type: referrer.artifact_type.or(config),
            annotations: referrer.annotations,
            ..Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.size)
        });
        let index = Index::new(entries).to_json();
        let descriptor = Descriptor::new(media_type::INDEX, Digest::of(&index), index.len() as u64);
        self.push_manifest(&descriptor, &index, &tag(&subject.digest))
    }
}

/// The tag schema: the digest, as far as a tag can have its characters.
fn tag(subject: &Digest) -> String {
    subject.as_str().replace(':', "-")
}

/// Where the next part of a list is (RFC 8288).
fn next(headers: &HeaderMap) -> Option<&str> {
    let (target, relation) = header(headers, LINK.as_str())?.split_once('>')?;
    let is_next = relation.contains("rel=\"next\"") || relation.contains("rel=next");
    target.strip_prefix('<').filter(|_| is_next)
}
