//! A repository of a registry, as the distribution specification describes it.

mod challenge;
mod client;
mod push;
mod referrers;
mod resolver;
mod retry;
mod tls;
mod token;
mod url;

use std::io::Read;

use ureq::http::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use ureq::http::{HeaderMap, Method};

use crate::auth::Credentials;
use crate::descriptor::{Descriptor, media_type};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::manifest::DOCUMENT_LIMIT;
use crate::parallel::Cancel;
use crate::progress::Event;
use crate::reference::Reference;
use crate::store::{Partial, verify};
use crate::transfer::Origin;

use client::{Client, Request, Response, body_of, header};
pub use referrers::referrers;
use retry::Failure;
pub use retry::Patience;

/// What the header `WWW-Authenticate` asks for, one challenge a line, and whether the server that gives tokens may see credentials.
#[cfg(fuzzing)]
pub(crate) fn parse_challenge(text: &str) {
    let parsed = challenge::Challenge::from_headers(text.lines());
    if let (Ok(challenge::Challenge::Bearer { realm, .. }), Ok(registry)) =
        (parsed, url::Url::parse("https://registry.example.com/v2/"))
        && let Ok(realm) = url::Url::parse(&realm)
        && challenge::may_have_credentials(&registry, &realm)
    {
        assert!(
            realm.is_https && realm.host().ends_with("example.com"),
            "{realm:?}"
        );
    }
}

/// How to speak with registries.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Certificates are verified, and only loopback may be spoken to without TLS.
    pub tls_verify: bool,
    /// These instead of the ones that are stored.
    pub credentials: Option<Credentials>,
    /// Time limits and tries.
    pub patience: Patience,
}

impl Default for Connection {
    fn default() -> Self {
        Connection {
            tls_verify: true,
            credentials: None,
            patience: Patience::default(),
        }
    }
}

/// One repository.
#[derive(Debug)]
pub(crate) struct Repository {
    client: Client,
    path: String,
}

/// A manifest or index as a registry gave it.
pub(crate) struct Document {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
}

impl Repository {
    /// The repository of a reference. The registry is only spoken to where it has to be found out whether it knows TLS.
    pub(crate) fn open(reference: &Reference, connection: &Connection) -> Result<Self> {
        Ok(Repository {
            client: Client::open(reference.domain(), reference.path(), connection)?,
            path: reference.path().to_owned(),
        })
    }

    /// What the tag or the digest of a reference stands for.
    pub(crate) fn manifest(&self, reference: &Reference) -> Result<Document> {
        let digest = reference.digest();
        let name = match (digest, reference.tag()) {
            (Some(digest), _) => digest.as_str(),
            (None, tag) => tag.unwrap_or_default(),
        };
        let url = self.url(&format!("manifests/{name}"));
        let (headers, bytes) = self.fetch(&url, DOCUMENT_LIMIT)?;
        let media_type = content_type(&headers);
        let found = Digest::of(&bytes);
        if digest.is_some_and(|digest| *digest != found) {
            return Err(Error::invalid(format!(
                "the registry sends another manifest for {name}"
            )));
        }
        let descriptor = Descriptor::new(media_type, found, bytes.len() as u64);
        Ok(Document { descriptor, bytes })
    }

    /// A whole small document.
    fn fetch(&self, url: &url::Url, limit: u64) -> Result<(HeaderMap, Vec<u8>)> {
        let accept = [
            media_type::MANIFEST,
            media_type::INDEX,
            media_type::DOCKER_MANIFEST,
            media_type::DOCKER_LIST,
        ];
        let request = Request::get(url.clone()).header(ACCEPT.as_str(), accept.join(", "));
        let mut retry = self.client.retry();
        loop {
            let answer = self.client.once(&request).and_then(|response| {
                let headers = response.headers().clone();
                Ok((headers, body_of(response, limit)?))
            });
            match answer {
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    let (pause, why) = retry.after(failure)?;
                    log::debug!("{url}: {why}: again in {pause:?}");
                    Cancel::default().wait(pause)?;
                }
            }
        }
    }

    fn url(&self, path: &str) -> url::Url {
        self.client.url(format!("/v2/{}/{path}", self.path))
    }

    /// Goes on with a blob where it broke off. What is there afterwards is all that came without an error; whether it is what was
    /// wanted is the caller's to check.
    fn resume(
        &self,
        blob: &Descriptor,
        into: &mut Partial<'_>,
        cancel: &Cancel,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<(), Failure> {
        let start = into.written();
        let mut request = Request::get(self.url(&format!("blobs/{}", blob.digest)));
        if start > 0 {
            request = request.header(RANGE.as_str(), format!("bytes={start}-"));
        }
        let response = self.client.once(&request)?;
        let continues = response.status().as_u16() == 206
            && header(response.headers(), CONTENT_RANGE.as_str())
                .is_some_and(|range| range.starts_with(&format!("bytes {start}-")));
        if start > 0 && !continues {
            into.restart()?;
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 128 << 10];
        while into.written() < blob.size {
            cancel.check()?;
            let count = body
                .read(&mut buffer)
                .map_err(|error| lost(&error.to_string()))?;
            if count == 0 {
                return Err(lost("it ends too early"));
            }
            let room = usize::try_from(blob.size - into.written()).unwrap_or(usize::MAX);
            into.write(&buffer[..count.min(room)])?;
            tell(Event::Moved(into.written()));
            if count > room {
                return Err(too_long(blob));
            }
        }
        // The connection can be used again only when the end has been seen.
        match body.read(&mut buffer) {
            Ok(count) if count > 0 => Err(too_long(blob)),
            _ => Ok(()),
        }
    }
}

fn lost(why: &str) -> Failure {
    Failure::Transient(
        Error::new(Kind::Failed, format!("the connection was lost: {why}")),
        None,
    )
}

fn too_long(blob: &Descriptor) -> Failure {
    let Descriptor { digest, size, .. } = blob;
    Failure::Final(Error::invalid(format!(
        "the registry sends more than the {size} bytes of {digest}"
    )))
}

/// What a registry calls a document, without parameters; empty for types that any file has.
fn content_type(headers: &HeaderMap) -> String {
    let text = header(headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    let text = text.split(';').next().unwrap_or_default().trim();
    match text {
        "application/json" | "application/octet-stream" | "text/plain" => String::new(),
        text => text.to_owned(),
    }
}

impl Origin for Repository {
    fn document(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        if blob.size > DOCUMENT_LIMIT {
            return Err(Error::invalid(format!(
                "{}: a manifest of {} bytes is too large",
                blob.digest, blob.size
            )));
        }
        let url = self.url(&format!("manifests/{}", blob.digest));
        let (headers, bytes) = self.fetch(&url, blob.size)?;
        verify(&bytes, blob)?;
        let media_type = content_type(&headers);
        if !media_type.is_empty() && media_type != blob.media_type {
            return Err(Error::invalid(format!(
                "{}: the registry calls it {media_type:?}, the index {:?}",
                blob.digest, blob.media_type
            )));
        }
        Ok(bytes)
    }

    fn blob(
        &self,
        blob: &Descriptor,
        into: &mut Partial<'_>,
        cancel: &Cancel,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<()> {
        let mut retry = self.client.retry();
        loop {
            let before = into.written();
            let Err(failure) = self.resume(blob, into, cancel, tell) else {
                return Ok(());
            };
            if into.written() > before {
                retry.progress();
            }
            let (pause, why) = retry.after(failure)?;
            tell(Event::Retrying(pause, &why.to_string()));
            cancel.wait(pause)?;
        }
    }
}

/// Asks a registry whether it accepts credentials.
pub fn check_credentials(registry: &str, connection: &Connection) -> Result<()> {
    let client = Client::open(registry, "", connection)?;
    let request = Request::get(client.url("/v2/".into())).method(Method::GET);
    client.send(&request).map(drop)
}
