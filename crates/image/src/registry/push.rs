//! The way up: what a registry lacks, then the manifest.

use std::fs::File;

use ureq::http::Method;
use ureq::http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};

use super::client::{Body, Request, header};
use super::retry::Failure;
use super::url::Url;
use super::{Repository, Response};
use crate::descriptor::Descriptor;
use crate::error::{Error, Kind, Result};
use crate::parallel::Cancel;
use crate::progress::Event;

/// Where all at once does not go, so many bytes do: what proxies let through and registries keep for themselves.
const PIECE: u64 = 8 << 20;

/// How far a blob has got.
#[derive(Default)]
struct Upload {
    session: Option<Session>,
    in_pieces: bool,
}

impl Upload {
    fn arrived(&self) -> u64 {
        self.session.as_ref().map_or(0, |session| session.offset)
    }
}

/// An upload that a registry has begun.
struct Session {
    /// Where the next bytes go.
    url: Url,
    /// So many are there.
    offset: u64,
    /// So many go with one request.
    piece: u64,
}

impl Repository {
    /// Brings a blob into the repository, unless it is there: from another repository (`mount`) of the same registry where that
    /// has it, otherwise from the file.
    pub(crate) fn push_blob(
        &self,
        blob: &Descriptor,
        file: &File,
        mount: Option<&str>,
        cancel: &Cancel,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<()> {
        if self.has_blob(blob, cancel)? {
            tell(Event::Exists);
            return Ok(());
        }
        let mut retry = self.client.retry();
        let mut upload = Upload::default();
        loop {
            let before = upload.arrived();
            let Err(failure) = self.upload(blob, file, mount, &mut upload, tell) else {
                tell(Event::Complete);
                return Ok(());
            };
            if upload.arrived() > before {
                retry.progress();
            }
            let (pause, why) = retry.after(failure)?;
            tell(Event::Retrying(pause, &why.to_string()));
            cancel.wait(pause)?;
        }
    }

    fn has_blob(&self, blob: &Descriptor, cancel: &Cancel) -> Result<bool> {
        let url = self.url(&format!("blobs/{}", blob.digest));
        let request = Request::get(url).method(Method::HEAD);
        match self.client.send_until(&request, cancel) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Fills the session that broke off if the registry still has it, otherwise a new one: all at once, which any registry understands,
    /// and when that has failed in pieces.
    fn upload(
        &self,
        blob: &Descriptor,
        file: &File,
        mount: Option<&str>,
        upload: &mut Upload,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<(), Failure> {
        let left = upload.session.take();
        let session = match left.and_then(|left| self.resume_upload(blob, left)) {
            Some(left) => left,
            None => match self.open_upload(blob, mount)? {
                Some(new) => new,
                None => return Ok(()),
            },
        };
        let session = upload.session.insert(session);
        if !std::mem::replace(&mut upload.in_pieces, true) {
            let told = |bytes| tell(Event::Moved(bytes));
            let whole = Body::File(file, 0..blob.size, &told);
            return self.finish_upload(blob, session.url.clone(), whole);
        }
        self.send_pieces(blob, file, session, tell)
            .map_err(|failure| match failure {
                // It takes no pieces: all at once again.
                Failure::Final(error) => {
                    *upload = Upload::default();
                    Failure::Transient(error, None)
                }
                transient => transient,
            })
    }

    /// A new session; none when the blob could be mounted from another repository.
    fn open_upload(
        &self,
        blob: &Descriptor,
        mount: Option<&str>,
    ) -> Result<Option<Session>, Failure> {
        let query = match mount {
            Some(from) => format!("?mount={}&from={from}", blob.digest),
            None => String::new(),
        };
        let request = Request::get(self.url(&format!("blobs/uploads/{query}")))
            .method(Method::POST)
            .body(Body::Bytes(&[]));
        let response = self.client.once(&request)?;
        match response.status().as_u16() {
            201 if mount.is_some() => return Ok(None),
            202 => {}
            status => return Err(unexpected(status, "to the start of an upload")),
        }
        let least = header(response.headers(), "OCI-Chunk-Min-Length");
        let least = least.and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Some(Session {
            url: self.client.location(&response, &request.url)?,
            offset: 0,
            piece: PIECE.max(least),
        }))
    }

    /// Asks how much of a blob has arrived; none when the registry does not know the session any more, or what to make of that.
    fn resume_upload(&self, blob: &Descriptor, session: Session) -> Option<Session> {
        let request = Request::get(session.url.clone());
        let response = self.client.once(&request).ok()?;
        let range = header(response.headers(), RANGE.as_str())?;
        let last: u64 = range
            .trim_start_matches("bytes=")
            .strip_prefix("0-")?
            .parse()
            .ok()?;
        // There is no other way to say that nothing is there.
        let offset = if last == 0 { 0 } else { last + 1 };
        let url = match response.headers().contains_key(LOCATION) {
            true => self.client.location(&response, &request.url).ok()?,
            false => session.url,
        };
        (offset <= blob.size).then_some(Session {
            url,
            offset,
            ..session
        })
    }

    /// The rest of a blob, one piece after the other.
    fn send_pieces(
        &self,
        blob: &Descriptor,
        file: &File,
        session: &mut Session,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<(), Failure> {
        let told = |bytes| tell(Event::Moved(bytes));
        while session.offset < blob.size {
            let end = session.offset.saturating_add(session.piece).min(blob.size);
            let request = Request::get(session.url.clone())
                .method(Method::PATCH)
                .header(CONTENT_TYPE.as_str(), "application/octet-stream")
                .header(
                    CONTENT_RANGE.as_str(),
                    format!("{}-{}", session.offset, end - 1),
                )
                .body(Body::File(file, session.offset..end, &told));
            let response = self.client.once(&request)?;
            match response.status().as_u16() {
                202 => {}
                status => return Err(unexpected(status, "to a piece of an upload")),
            }
            session.url = self.client.location(&response, &request.url)?;
            session.offset = end;
        }
        self.finish_upload(blob, session.url.clone(), Body::Bytes(&[]))
    }

    /// The last request of a session, with what is missing.
    fn finish_upload(&self, blob: &Descriptor, mut to: Url, rest: Body<'_>) -> Result<(), Failure> {
        to.path += if to.path.contains('?') { "&" } else { "?" };
        to.path += &format!("digest={}", blob.digest);
        let request = Request::get(to)
            .method(Method::PUT)
            .header(CONTENT_TYPE.as_str(), "application/octet-stream")
            .body(rest);
        let response = self.client.once(&request)?;
        match response.status().as_u16() {
            201 => Ok(()),
            status => Err(unexpected(status, "to an upload")),
        }
    }

    /// Gives the repository its manifest, under a tag or under its digest.
    pub(crate) fn push_manifest(
        &self,
        manifest: &Descriptor,
        bytes: &[u8],
        name: &str,
    ) -> Result<()> {
        let request = Request::get(self.url(&format!("manifests/{name}")))
            .method(Method::PUT)
            .header(CONTENT_TYPE.as_str(), manifest.media_type.as_str())
            .body(Body::Bytes(bytes));
        let response = self.client.send(&request)?;
        match response.status().as_u16() {
            201 => check_digest(&response, manifest)?,
            status => {
                return Err(Error::new(
                    Kind::Failed,
                    format!("the registry answers {status} to the manifest"),
                ));
            }
        }
        // A registry with the referrers API says so here.
        match response.headers().contains_key("OCI-Subject") {
            true => Ok(()),
            false => self.tag_referrer(manifest, bytes),
        }
    }
}

/// What the registry has made of the manifest is the manifest.
fn check_digest(response: &Response, manifest: &Descriptor) -> Result<()> {
    match header(response.headers(), "Docker-Content-Digest") {
        Some(digest) if digest != manifest.digest.as_str() => Err(Error::invalid(format!(
            "the registry keeps the manifest as {digest}, not as {}",
            manifest.digest
        ))),
        _ => Ok(()),
    }
}

fn unexpected(status: u16, to: &str) -> Failure {
    Failure::Final(Error::new(
        Kind::Failed,
        format!("the registry answers {status} {to}"),
    ))
}
