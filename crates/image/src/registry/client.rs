//! Requests to one registry: authorization, redirects, and another try when that may help.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use serde::Deserialize;
use ureq::http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use ureq::http::{self, HeaderMap, Method};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, SendBody};

use super::Connection;
use super::challenge::Challenge;
use super::resolver::InTime;
use super::retry::{Failure, Retry, retry_after};
use super::tls;
use super::token;
use super::url::{Url, is_loopback};
use crate::auth::{self, Credentials};
use crate::error::{Error, Kind, Result};
use crate::parallel::Cancel;

/// So many redirects lead somewhere.
const REDIRECTS: usize = 5;
/// No error message of a registry is longer, in bytes.
const MESSAGE_LIMIT: u64 = 64 << 10;

pub(super) type Response = http::Response<ureq::Body>;

/// One request, which can be sent again.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body<'a>,
}

/// What a request carries.
pub(super) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    /// These bytes of a file; the last field is told how far it has been read.
    File(&'a File, Range<u64>, &'a dyn Fn(u64)),
}

impl<'a> Request<'a> {
    pub(super) fn get(url: Url) -> Self {
        Request {
            method: Method::GET,
            url,
            headers: Vec::new(),
            body: Body::None,
        }
    }

    pub(super) fn method(self, method: Method) -> Self {
        Request { method, ..self }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(self, body: Body<'a>) -> Self {
        Request { body, ..self }
    }
}

/// A connection to one registry. Threads share it.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    /// The registry as people call it.
    registry: String,
    base: Url,
    connection: Connection,
    credentials: Option<Credentials>,
    /// The header that the registry has accepted last.
    authorization: Mutex<Option<String>>,
    /// It has answered once, so that it exists and speaks.
    reached: AtomicBool,
}

impl Client {
    /// Finds out how to speak with a registry: `name` is its host and port, `repository` helps to find the credentials.
    pub(super) fn open(name: &str, repository: &str, connection: &Connection) -> Result<Self> {
        let host = match name {
            "docker.io" => "registry-1.docker.io",
            name => name,
        };
        let credentials = match &connection.credentials {
            Some(credentials) => Some(credentials.clone()),
            None => auth::find(name, repository)?,
        };
        let patience = &connection.patience;
        let agent = Agent::config_builder()
            .tls_config(tls::config(name, connection.tls_verify)?)
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.read))
            .timeout_per_read(Some(patience.read))
            .timeout_per_write(Some(patience.read))
            .max_idle_connections_per_host(8)
            .build();
        let agent = Agent::with_parts(agent, DefaultConnector::default(), InTime);
        let mut client = Client {
            agent,
            registry: name.to_owned(),
            base: Url::root(true, host),
            connection: connection.clone(),
            credentials,
            authorization: Mutex::new(None),
            reached: AtomicBool::new(false),
        };
        client.choose_scheme()?;
        Ok(client)
    }

    /// Speaks plain http where that is allowed, and https is not understood. A certificate that is not believed stays an error.
    fn choose_scheme(&mut self) -> Result<()> {
        if self.connection.tls_verify && !is_loopback(&self.base.authority) {
            return Ok(());
        }
        let ping = Request::get(self.base.at("/v2/".into()));
        let Err(Failure::Transient(error, _) | Failure::Final(error)) =
            self.exchange(&ping, &ping.url, None)
        else {
            return Ok(());
        };
        let plain = Url {
            is_https: false,
            ..self.base.clone()
        };
        if error.kind() == Kind::Denied {
            return Err(error);
        }
        let ping = Request::get(plain.at("/v2/".into()));
        match self.exchange(&ping, &ping.url, None) {
            // What a server says that wants TLS after all.
            Ok(response) if response.status().as_u16() == 400 => return Err(error),
            Ok(_) => {}
            Err(Failure::Transient(error, _) | Failure::Final(error)) => return Err(error),
        }
        self.base = plain;
        Ok(())
    }

    /// The URL of a path of the registry.
    pub(super) fn url(&self, path: String) -> Url {
        self.base.at(path)
    }

    pub(super) fn retry(&self) -> Retry<'_> {
        Retry::new(&self.connection.patience)
    }

    /// Sends a request until it is answered: with success, or with a refusal that will stay one.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Response> {
        self.send_until(request, &Cancel::default())
    }

    pub(super) fn send_until(&self, request: &Request<'_>, cancel: &Cancel) -> Result<Response> {
        let mut retry = self.retry();
        loop {
            match self.once(request) {
                Ok(response) => return Ok(response),
                Err(failure) => {
                    let (pause, why) = retry.after(failure)?;
                    log::debug!(
                        "{} {}: {why}: again in {pause:?}",
                        request.method,
                        request.url
                    );
                    cancel.wait(pause)?;
                }
            }
        }
    }

    /// Sends a request once, and again with whatever authorization the registry asks for.
    pub(super) fn once(&self, request: &Request<'_>) -> Result<Response, Failure> {
        for attempt in 0.. {
            let authorization = self
                .authorization
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let (response, from) = self.follow(request, authorization.as_deref())?;
            if response.status().as_u16() != 401 {
                return self.checked(response);
            }
            // Another server's challenge is not answered: who redirects could collect credentials there (CVE-2020-15157).
            if attempt == 2 || !from.same_origin(&self.base) {
                return Err(Failure::Final(self.denied(response)));
            }
            let header = self.authorize(response, authorization.as_deref())?;
            *self
                .authorization
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(header);
        }
        unreachable!("the loop only ends by returning")
    }

    /// The header that answers the challenge of a response.
    fn authorize(&self, response: Response, sent: Option<&str>) -> Result<String, Failure> {
        let challenges = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge =
            Challenge::from_headers(challenges.iter().filter_map(|value| value.to_str().ok()))?;
        match (challenge, &self.credentials) {
            (Challenge::Basic, Some(Credentials::Password { user, password })) => {
                let header = token::basic(user, password);
                match sent {
                    Some(sent) if sent == header => Err(Failure::Final(self.denied(response))),
                    _ => Ok(header),
                }
            }
            (Challenge::Basic, _) => Err(Failure::Final(self.denied(response))),
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
                credentials,
            ) => {
                let asked = token::Asked {
                    realm: &realm,
                    service: service.as_deref(),
                    scope: scope.as_deref(),
                };
                token::fetch(self, &asked, credentials.as_ref())
            }
        }
    }

    fn denied(&self, response: Response) -> Error {
        let who = match &self.credentials {
            Some(Credentials::Password { user, .. }) => format!("the credentials of {user:?}"),
            Some(Credentials::IdentityToken(_)) => "the credentials that are stored".to_owned(),
            None => "to answer without credentials".to_owned(),
        };
        let registry = &self.registry;
        let why = message_of(response).map_or(String::new(), |message| format!(": {message}"));
        let hint = match self.credentials {
            None => format!(" (log in with \"coracle login {registry}\")"),
            Some(_) => String::new(),
        };
        Error::new(
            Kind::Denied,
            format!("registry {registry} refuses {who}{why}{hint}"),
        )
    }

    /// Sends a request, and follows redirects of requests that change nothing. The authorization goes to the registry alone.
    fn follow(
        &self,
        request: &Request<'_>,
        authorization: Option<&str>,
    ) -> Result<(Response, Url), Failure> {
        let mut url = request.url.clone();
        for _ in 0..=REDIRECTS {
            let authorization = authorization.filter(|_| url.same_origin(&self.base));
            let response = self.exchange(request, &url, authorization)?;
            let redirected = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirected || !matches!(request.method, Method::GET | Method::HEAD) {
                return Ok((response, url));
            }
            url = self.location(&response, &url)?;
        }
        Err(Error::new(Kind::Failed, format!("{}: too many redirects", request.url)).into())
    }

    /// Where a response points to: never from https to plain http.
    pub(super) fn location(&self, response: &Response, from: &Url) -> Result<Url> {
        let Some(location) = header(response.headers(), LOCATION.as_str()) else {
            return Err(Error::invalid(format!(
                "{from}: the answer lacks a Location"
            )));
        };
        let to = from.join(location)?;
        if from.is_https && !to.is_https {
            return Err(Error::new(
                Kind::Failed,
                format!("{from} leads to {to}, which is not encrypted"),
            ));
        }
        Ok(to)
    }

    /// One request, one response.
    pub(super) fn exchange(
        &self,
        request: &Request<'_>,
        url: &Url,
        authorization: Option<&str>,
    ) -> Result<Response, Failure> {
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(url.to_string());
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(authorization) = authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        let bad = |error: http::Error| Failure::Final(Error::invalid(format!("{url}: {error}")));
        let result = match request.body {
            Body::None => self.agent.run(builder.body(()).map_err(bad)?),
            Body::Bytes(bytes) => self.agent.run(builder.body(bytes).map_err(bad)?),
            Body::File(mut file, ref range, read) => {
                file.seek(SeekFrom::Start(range.start))
                    .map_err(|error| Error::new(Kind::Failed, format!("read a blob: {error}")))?;
                let length = range.end - range.start;
                let mut reader = Told {
                    file: file.take(length),
                    at: range.start,
                    read,
                };
                let body = SendBody::from_reader(&mut reader);
                self.agent.run(
                    builder
                        .header("Content-Length", length)
                        .body(body)
                        .map_err(bad)?,
                )
            }
        };
        let response = result.map_err(|error| self.transport(url, error))?;
        self.reached.store(true, Ordering::Relaxed);
        Ok(response)
    }

    /// A connection that could not be made or was lost.
    fn transport(&self, url: &Url, error: ureq::Error) -> Failure {
        let text = match &error {
            ureq::Error::Io(error) => match error.raw_os_error() {
                Some(number) => Errno::from_raw(number).desc().to_lowercase(),
                None => error.to_string(),
            },
            error => error.to_string(),
        };
        let context = |why: &str| {
            format!(
                "{}://{}: {why}",
                if url.is_https { "https" } else { "http" },
                url.authority
            )
        };
        if text.contains("invalid peer certificate") {
            let why = match text.contains("CaUsedAsEndEntity") {
                true => {
                    "the server's certificate is an authority's: it needs basicConstraints CA:FALSE"
                }
                false => &text,
            };
            return Failure::Final(Error::new(Kind::Denied, context(why)));
        }
        let refused = match &error {
            ureq::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            ureq::Error::HostNotFound => true,
            _ => false,
        };
        let error = Error::new(Kind::Failed, context(&text));
        // What has never answered is more likely a typing error than a server that starts anew.
        if refused && !self.reached.load(Ordering::Relaxed) {
            return Failure::Final(error);
        }
        Failure::Transient(error, None)
    }

    /// A response that is no success becomes an error, with what the registry says about it.
    fn checked(&self, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        // A redirect of an upload is its next address.
        if status.is_success() || status.is_redirection() {
            return Ok(response);
        }
        let kind = match status.as_u16() {
            404 => Kind::NotFound,
            403 => return Err(Failure::Final(self.denied(response))),
            _ => Kind::Failed,
        };
        let after = header(response.headers(), RETRY_AFTER.as_str()).and_then(retry_after);
        let registry = &self.registry;
        let said = message_of(response).map_or(String::new(), |message| format!(": {message}"));
        let error = Error::new(kind, format!("registry {registry} answers {status}{said}"));
        Err(match status.as_u16() {
            // In smaller pieces it may go.
            413 => Failure::Transient(error, Some(Duration::ZERO)),
            408 | 429 | 500..=599 => Failure::Transient(error, after),
            _ => Failure::Final(error),
        })
    }

    /// The registry's own root.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }
}

/// A file that tells how far it has been read.
struct Told<'a> {
    file: Take<&'a File>,
    at: u64,
    read: &'a dyn Fn(u64),
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.at += count as u64;
        (self.read)(self.at);
        Ok(count)
    }
}

/// The text of a header.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The whole body, which has at most `limit` bytes.
pub(super) fn body_of(response: Response, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut reader = response.into_body().into_reader().take(limit + 1);
    reader.read_to_end(&mut bytes).map_err(|error| {
        Failure::Transient(
            Error::new(Kind::Failed, format!("the connection was lost: {error}")),
            None,
        )
    })?;
    if bytes.len() as u64 > limit {
        return Err(Error::invalid(format!("the registry sends more than {limit} bytes")).into());
    }
    Ok(bytes)
}

/// What a registry says about an error, fit for a terminal.
fn message_of(response: Response) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Problem>,
    }
    #[derive(Deserialize)]
    struct Problem {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let bytes = body_of(response, MESSAGE_LIMIT).ok()?;
    let answer: Answer = serde_json::from_slice(&bytes).ok()?;
    let problem = answer.errors.into_iter().next()?;
    let text = match problem.message.is_empty() {
        true => problem.code,
        false => problem.message,
    };
    Some(text.chars().filter(|c| !c.is_control()).take(300).collect())
        .filter(|text: &String| !text.is_empty())
}
