//! The way up: what a registry lacks, then the manifest.

use std::fs::File;

use ureq::http::Method;
use ureq::http::header::CONTENT_TYPE;

use super::client::{Body, Request, header};
use super::retry::Failure;
use super::{Repository, Response};
use crate::descriptor::Descriptor;
use crate::error::{Error, Kind, Result};
use crate::parallel::Cancel;
use crate::progress::Event;

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
        // A session that broke off is not taken up again: what the registry has of it is not worth the questions.
        while let Err(failure) = self.upload(blob, file, mount) {
            let (pause, why) = retry.after(failure)?;
            tell(Event::Retrying(pause, &why.to_string()));
            cancel.wait(pause)?;
        }
        tell(Event::Complete);
        Ok(())
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

    /// One session: opened, and filled in one request.
    fn upload(&self, blob: &Descriptor, file: &File, mount: Option<&str>) -> Result<(), Failure> {
        let query = match mount {
            Some(from) => format!("?mount={}&from={from}", blob.digest),
            None => String::new(),
        };
        let request = Request::get(self.url(&format!("blobs/uploads/{query}")))
            .method(Method::POST)
            .body(Body::Bytes(&[]));
        let response = self.client.once(&request)?;
        match response.status().as_u16() {
            201 if mount.is_some() => return Ok(()),
            202 => {}
            status => return Err(unexpected(status, "to the start of an upload")),
        }
        let mut to = self.client.location(&response, &request.url)?;
        to.path += if to.path.contains('?') { "&" } else { "?" };
        to.path += &format!("digest={}", blob.digest);
        let request = Request::get(to)
            .method(Method::PUT)
            .header(CONTENT_TYPE.as_str(), "application/octet-stream")
            .body(Body::File(file, blob.size));
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
            201 => check_digest(&response, manifest),
            status => Err(Error::new(
                Kind::Failed,
                format!("the registry answers {status} to the manifest"),
            )),
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
