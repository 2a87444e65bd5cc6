//! Tokens, and the server that gives them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::http::Method;

use super::challenge::may_have_credentials;
use super::client::{Body, Client, Request, body_of};
use super::retry::Failure;
use super::url::Url;
use crate::auth::Credentials;
use crate::error::{Error, Kind};

const ANSWER_LIMIT: u64 = 1 << 20;

/// What the registry wants a token for.
pub(super) struct Asked<'a> {
    pub(super) realm: &'a str,
    pub(super) service: Option<&'a str>,
    pub(super) scope: Option<&'a str>,
}

/// The header for user and password.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Fetches a token: with the credentials where the server may have them, otherwise as anybody. Redirects are not followed.
pub(super) fn fetch(
    client: &Client,
    asked: &Asked<'_>,
    credentials: Option<&Credentials>,
) -> Result<String, Failure> {
    let realm = Url::parse(asked.realm)?;
    let plain_is_fine =
        !client.base().is_https && realm.is_loopback() || realm.same_origin(client.base());
    if !realm.is_https && !plain_is_fine {
        return Err(Error::new(
            Kind::Denied,
            format!("the registry's tokens come from {realm}, which is not encrypted"),
        )
        .into());
    }
    let credentials = credentials.filter(|_| {
        let may = may_have_credentials(client.base(), &realm);
        if !may {
            log::warn!(
                "credentials are not shown to {}, which gives the tokens of {}",
                realm.host(),
                client.base().host()
            );
        }
        may
    });
    let parameters = parameters(asked);
    let (request, authorization) = match credentials {
        Some(Credentials::IdentityToken(token)) => {
            let body = format!(
                "grant_type=refresh_token&client_id=coracle&refresh_token={}&{parameters}",
                encoded(token)
            );
            return send(client, &realm, Some(body), None);
        }
        Some(Credentials::Password { user, password }) => (parameters, Some(basic(user, password))),
        None => (parameters, None),
    };
    let separator = if realm.path.contains('?') { '&' } else { '?' };
    let url = realm.at(format!("{}{separator}{request}", realm.path));
    send(client, &url, None, authorization.as_deref())
}

fn parameters(asked: &Asked<'_>) -> String {
    let service = asked
        .service
        .map(|service| format!("service={}", encoded(service)));
    // Several scopes come in one text, and go as several parameters.
    let scopes = asked.scope.into_iter().flat_map(str::split_whitespace);
    let scopes = scopes.map(|scope| format!("scope={}", encoded(scope)));
    service
        .into_iter()
        .chain(scopes)
        .collect::<Vec<_>>()
        .join("&")
}

fn encoded(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

/// Asks the server: by POST when there is a body.
fn send(
    client: &Client,
    url: &Url,
    form: Option<String>,
    authorization: Option<&str>,
) -> Result<String, Failure> {
    let mut request = Request::get(url.clone());
    if let Some(form) = &form {
        request = request
            .method(Method::POST)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(Body::Bytes(form.as_bytes()));
    }
    let response = client.exchange(&request, url, authorization)?;
    let status = response.status();
    let whose = format!("token server {}", url.authority);
    match status.as_u16() {
        200 => {}
        401 | 403 => {
            return Err(
                Error::new(Kind::Denied, format!("{whose} refuses the credentials")).into(),
            );
        }
        429 | 500..=599 => {
            return Err(Failure::Transient(
                Error::new(Kind::Failed, format!("{whose} answers {status}")),
                None,
            ));
        }
        _ => return Err(Error::new(Kind::Denied, format!("{whose} answers {status}")).into()),
    }
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let bad = |why: String| Failure::Final(Error::invalid(format!("{whose}: {why}")));
    let answer: Answer = serde_json::from_slice(&body_of(response, ANSWER_LIMIT)?)
        .map_err(|e| bad(e.to_string()))?;
    let token = answer.token.or(answer.access_token).unwrap_or_default();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad("its answer has no token".into()));
    }
    Ok(format!("Bearer {token}"))
}
