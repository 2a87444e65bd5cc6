//! Registries that hang, fail, lie, and want credentials that are not for them.

mod push;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use image::{
    Connection, Credentials, Digest, Image, Kind, Patience, PullOptions, Source, Store, media_type,
};
use serde_json::{Value, json};
use server::{Answer, Request, Server};
use tempfile::TempDir;

const LAYER: usize = 300_000;

/// What a registry has: one image with one layer.
#[derive(Clone)]
struct Content {
    manifest: Value,
    config: Vec<u8>,
    layer: Vec<u8>,
}

fn content() -> Content {
    let layer: Vec<u8> = (0..LAYER).map(|n| (n * 31 % 251) as u8).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] }
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST,
        "config": { "mediaType": media_type::CONFIG, "digest": Digest::of(&config), "size": config.len() },
        "layers": [{ "mediaType": media_type::LAYER, "digest": Digest::of(&layer), "size": layer.len() }]
    });
    Content {
        manifest,
        config,
        layer,
    }
}

impl Content {
    /// As a good registry answers.
    fn answer(&self, request: &Request) -> Answer {
        if request.path == "/v2/" {
            return Answer::new(200, "{}");
        }
        if request.path == "/v2/app/manifests/latest" {
            return manifest(&self.manifest);
        }
        let blobs = [&self.config, &self.layer];
        let named =
            |blob: &&&Vec<u8>| request.path == format!("/v2/app/blobs/{}", Digest::of(blob));
        let Some(blob) = blobs.iter().find(named) else {
            return Answer::new(
                404,
                r#"{"errors":[{"code":"X_UNKNOWN","message":"not \u001b[31mhere"}]}"#,
            );
        };
        let range = request.headers.get("range");
        match range.and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        }) {
            Some(from) => Answer::new(206, &blob[from..]).header(
                "Content-Range",
                format!("bytes {from}-{}/{}", blob.len() - 1, blob.len()),
            ),
            None => Answer::new(200, blob.as_slice()),
        }
    }

    fn is_layer(&self, request: &Request) -> bool {
        request.path.ends_with(Digest::of(&self.layer).as_str())
    }
}

fn manifest(document: &Value) -> Answer {
    let media_type = document["mediaType"]
        .as_str()
        .unwrap_or(media_type::MANIFEST);
    Answer::new(200, document.to_string()).header("Content-Type", media_type)
}

/// A store, and the impatience of a test.
struct Client {
    store: Store,
    directory: TempDir,
    options: PullOptions,
}

impl Client {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let patience = Patience {
            connect: Duration::from_secs(20),
            read: Duration::from_secs(20),
            tries: 4,
            pause: Duration::from_millis(1),
            total: Duration::from_secs(20),
        };
        let connection = Connection {
            patience,
            ..Connection::default()
        };
        Client {
            store: Store::open(directory.path()).unwrap(),
            directory,
            options: PullOptions {
                connection,
                ..PullOptions::default()
            },
        }
    }

    fn with_password() -> Self {
        let mut client = Self::new();
        client.options.connection.credentials = Some(Credentials::Password {
            user: "user".into(),
            password: "secret".into(),
        });
        client
    }

    fn pull(&self, server: &Server) -> image::Result<Image> {
        self.pull_name(server, "app")
    }

    fn pull_name(&self, server: &Server, name: &str) -> image::Result<Image> {
        let source = Source::Registry(format!("{}/{name}", server.address).parse()?);
        image::pull(&self.store, &source, &self.options, &())
    }

    /// The pull fails, and nothing of the image can be seen.
    #[track_caller]
    fn fails(&self, server: &Server, kind: Kind, words: &str) {
        let error = self.pull(server).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(self.store.images().unwrap().is_empty());
    }

    fn files(&self, directory: &str) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.directory.path().join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// A server that answers well, except where the test says something else.
fn server(
    other: impl Fn(&Content, &Request, usize) -> Option<Answer> + Send + Sync + 'static,
) -> Server {
    let (content, count) = (content(), AtomicUsize::new(0));
    Server::new(move |request| {
        if request.path == "/v2/" {
            return content.answer(request);
        }
        let number = count.fetch_add(1, Ordering::SeqCst);
        other(&content, request, number).unwrap_or_else(|| content.answer(request))
    })
}

fn assert_is_content(client: &Client, image: &Image) {
    let digest = Digest::of(&content().layer);
    assert_eq!(image.layers[0].digest, digest);
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut client.store.blob(&digest).unwrap(), &mut bytes).unwrap();
    assert_eq!(bytes, content().layer);
    assert!(client.files("images/partial").is_empty());
}

#[test]
fn a_good_registry_is_asked_for_everything_once() {
    let (client, server) = (Client::new(), server(|_, _, _| None));
    let image = client.pull(&server).unwrap();
    assert_is_content(&client, &image);
    assert_eq!(image.names, [format!("{}/app:latest", server.address)]);
    assert_eq!(server.asked("/app/").len(), 3);
    client.pull(&server).unwrap();
    assert_eq!(
        server.asked("/blobs/").len(),
        2,
        "what is there is not fetched again"
    );
}

// Proved without limits of time: it does not end.
#[test]
fn a_registry_that_hangs_is_left() {
    let mut client = Client::new();
    client.options.connection.patience.read = Duration::from_millis(100);
    let begun = Instant::now();
    client.fails(&Server::new(|_| Answer::hang()), Kind::Failed, "timeout");
    let hangs_later = server(|content, request, _| content.is_layer(request).then(Answer::hang));
    client.fails(&hangs_later, Kind::Failed, "timeout");
    assert_eq!(
        hangs_later
            .asked("/blobs/")
            .iter()
            .filter(|request| content().is_layer(request))
            .count(),
        4
    );
    let stops_midway = server(|content, request, _| {
        content
            .is_layer(request)
            .then(|| Answer::new(200, "begin").claiming(LAYER))
    });
    client.fails(&stops_midway, Kind::Failed, "the connection was lost");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_busy_or_broken_registry_is_asked_again() {
    for (status, after) in [
        (429, "0"),
        (500, "soon"),
        (502, "-1"),
        (503, "Fri, 31 Dec 1999 23:59:59 GMT"),
    ] {
        let client = Client::new();
        let server = server(move |_, _, number| {
            (number < 3).then(|| Answer::new(status, "").header("Retry-After", after))
        });
        assert_is_content(&client, &client.pull(&server).unwrap());
        assert_eq!(server.asked("/manifests/").len(), 4, "{status}");
    }
}

#[test]
fn patience_ends() {
    let broken = server(|_, _, _| Some(Answer::new(500, r#"{"errors":[{"message":"disk"}]}"#)));
    Client::new().fails(&broken, Kind::Failed, "500 Internal Server Error: disk");
    assert_eq!(broken.asked("/manifests/").len(), 4);
    for later in ["86400", "Tue, 31 Dec 2999 23:59:59 GMT"] {
        let later = server(move |_, _, _| Some(Answer::new(429, "").header("Retry-After", later)));
        Client::new().fails(&later, Kind::Failed, "429");
        assert_eq!(later.asked("/manifests/").len(), 1);
    }
}

#[test]
fn a_blob_that_breaks_off_goes_on_where_it_stopped() {
    let step = LAYER / 10;
    let server = server(move |content, request, _| {
        let answer = content.answer(request);
        content.is_layer(request).then(|| answer.cut(step))
    });
    let client = Client::new();
    // More interruptions than tries: each one that brought something on is forgiven.
    assert_is_content(&client, &client.pull(&server).unwrap());
    let ranges: Vec<_> = server
        .asked("/blobs/")
        .iter()
        .filter_map(|request| request.headers.get("range").cloned())
        .collect();
    let wanted: Vec<_> = (1..10).map(|n| format!("bytes={}-", n * step)).collect();
    assert_eq!(ranges, wanted);
}

#[test]
fn a_registry_without_ranges_begins_again() {
    let server = server(|content, request, _| {
        content
            .is_layer(request)
            .then(|| match request.headers.contains_key("range") {
                true => Answer::new(200, content.layer.as_slice()),
                false => Answer::new(200, content.layer.as_slice()).cut(1000),
            })
    });
    let client = Client::new();
    assert_is_content(&client, &client.pull(&server).unwrap());
}

#[test]
fn a_later_pull_takes_up_what_an_earlier_one_has_left() {
    let mut client = Client::new();
    client.options.connection.patience.tries = 1;
    let breaks = server(|content, request, _| {
        content
            .is_layer(request)
            .then(|| Answer::new(200, content.layer.as_slice()).cut(1000))
    });
    client.fails(&breaks, Kind::Failed, "the connection was lost");
    let good = server(|_, _, _| None);
    assert_is_content(&client, &client.pull(&good).unwrap());
    let ranges: Vec<_> = good
        .asked("/blobs/")
        .iter()
        .filter_map(|request| request.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, ["bytes=1000-"]);
}

#[test]
fn a_broken_rest_of_an_earlier_pull_does_no_harm() {
    let (client, server) = (Client::new(), server(|_, _, _| None));
    let partial = client
        .directory
        .path()
        .join("images/partial")
        .join(Digest::of(&content().layer).hex());
    std::fs::write(&partial, vec![7; 5000]).unwrap();
    assert_is_content(&client, &client.pull(&server).unwrap());
    let client = Client::new();
    let partial = client
        .directory
        .path()
        .join("images/partial")
        .join(Digest::of(&content().layer).hex());
    std::fs::write(&partial, vec![7; LAYER + 1]).unwrap();
    assert_is_content(&client, &client.pull(&server).unwrap());
}

// Proved without the comparison of digests.
#[test]
fn content_that_is_not_what_its_digest_says_is_thrown_away() {
    let client = Client::new();
    let lies = server(|content, request, _| {
        let mut other = content.layer.clone();
        other[LAYER / 2] ^= 1;
        content.is_layer(request).then(|| Answer::new(200, other))
    });
    client.fails(&lies, Kind::Invalid, "has another digest");
    assert!(client.files("images/partial").is_empty());
    let blobs = client.files("images/blobs/sha256");
    assert!(
        blobs
            .iter()
            .all(|path| !path.ends_with(Digest::of(&content().layer).hex()))
    );
}

// Proved without the descriptor's bound, and without the one of documents.
#[test]
fn no_more_is_read_than_the_descriptor_says() {
    let long = server(|content, request, _| {
        content
            .is_layer(request)
            .then(|| Answer::new(200, [content.layer.as_slice(), b"x"].concat()))
    });
    Client::new().fails(&long, Kind::Invalid, "more than the 300000 bytes");
    let short = server(|content, request, _| {
        content
            .is_layer(request)
            .then(|| match request.headers.contains_key("range") {
                true => Answer::new(416, ""),
                false => Answer::new(200, &content.layer[1..]),
            })
    });
    Client::new().fails(&short, Kind::Failed, "");
    let endless = server(|_, request, _| {
        request
            .path
            .contains("/manifests/")
            .then(|| Answer::new(200, vec![b' '; 5 << 20]))
    });
    Client::new().fails(&endless, Kind::Invalid, "more than 4194304 bytes");
}

/// The registry gives this document for the tag.
fn serving(document: Value, called: &'static str) -> Server {
    server(move |_, request, _| {
        let answer = Answer::new(200, document.to_string()).header("Content-Type", called);
        request.path.contains("/manifests/latest").then_some(answer)
    })
}

// CVE-2021-41190. Proved with an index whatever else is in it, and with a name that is not compared with the type.
#[test]
fn a_document_with_two_meanings_is_refused() {
    let mut both = content().manifest;
    both["manifests"] = json!([]);
    Client::new().fails(
        &serving(both, media_type::MANIFEST),
        Kind::Invalid,
        "at once",
    );
    let good = content().manifest;
    Client::new().fails(
        &serving(good.clone(), media_type::INDEX),
        Kind::Invalid,
        "but it was called",
    );
    let mut silent = good;
    silent["mediaType"] = Value::Null;
    Client::new().fails(
        &serving(silent, media_type::INDEX),
        Kind::Invalid,
        "are not those",
    );
    let schema_1 = json!({ "schemaVersion": 1, "fsLayers": [], "history": [] });
    let called = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    Client::new().fails(&serving(schema_1, called), Kind::Invalid, "schema 1");
}

#[test]
fn an_index_leads_to_the_image_that_it_describes() {
    let inner = content().manifest;
    let text = inner.to_string();
    let entry = |size: usize, digest: Digest| {
        json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [
            { "mediaType": media_type::MANIFEST, "digest": digest, "size": size,
              "platform": { "os": "linux", "architecture": "amd64" } },
        ]})
    };
    let with_index = |index: Value, called: &'static str| {
        let inner = inner.clone();
        server(move |_, request, _| {
            if request.path.contains("/manifests/latest") {
                return Some(manifest(&index));
            }
            let answer = Answer::new(200, inner.to_string()).header("Content-Type", called);
            request
                .path
                .contains("/manifests/sha256:")
                .then_some(answer)
        })
    };
    let mut client = Client::new();
    client.options.platform = Some("linux/amd64".parse().unwrap());
    let digest = Digest::of(text.as_bytes());
    let good = with_index(entry(text.len(), digest.clone()), media_type::MANIFEST);
    assert_eq!(client.pull(&good).unwrap().manifest.digest, digest);

    let mut client = Client::new();
    client.options.platform = Some("linux/amd64".parse().unwrap());
    let other_size = with_index(entry(text.len() - 1, digest.clone()), media_type::MANIFEST);
    client.fails(&other_size, Kind::Invalid, "more than");
    let other_digest = with_index(
        entry(text.len(), Digest::of(b"other")),
        media_type::MANIFEST,
    );
    client.fails(&other_digest, Kind::Invalid, "another digest");
    let other_type = with_index(
        entry(text.len(), digest.clone()),
        media_type::DOCKER_MANIFEST,
    );
    client.fails(&other_type, Kind::Invalid, "the registry calls it");
    let huge = with_index(entry(1 << 40, digest.clone()), media_type::MANIFEST);
    client.fails(&huge, Kind::Invalid, "too large");
    client.options.platform = Some("linux/s390x".parse().unwrap());
    let good = with_index(entry(text.len(), digest), media_type::MANIFEST);
    client.fails(&good, Kind::NotFound, "only for: linux/amd64");
}

#[test]
fn an_image_of_another_platform_is_no_substitute() {
    let mut client = Client::new();
    client.options.platform = Some("linux/arm64".parse().unwrap());
    client.fails(
        &server(|_, _, _| None),
        Kind::NotFound,
        "it is for linux/amd64, not for linux/arm64",
    );
}

#[test]
fn a_configuration_that_cannot_be_read_is_no_images() {
    for (config, words) in [
        ("{", "configuration"),
        (
            "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}",
            "1 layers",
        ),
        (
            "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"../x\"]}}",
            "digest",
        ),
    ] {
        let bad = server(move |content, request, _| {
            let mut document = content.manifest.clone();
            let digest = Digest::of(config.as_bytes());
            document["config"]["digest"] = json!(digest);
            document["config"]["size"] = json!(config.len());
            match request.path.ends_with(digest.as_str()) {
                true => Some(Answer::new(200, config)),
                false => request
                    .path
                    .contains("/manifests/")
                    .then(|| manifest(&document)),
            }
        });
        Client::new().fails(&bad, Kind::Invalid, words);
    }
}

#[test]
fn a_digest_is_what_is_pulled() {
    let (client, server) = (
        Client::new(),
        server(|content, request, _| {
            request
                .path
                .contains("/manifests/")
                .then(|| manifest(&content.manifest))
        }),
    );
    let digest = Digest::of(content().manifest.to_string().as_bytes());
    let image = client.pull_name(&server, &format!("app@{digest}")).unwrap();
    assert_eq!(image.manifest.digest, digest);
    let other = Digest::of(b"other");
    let error = client
        .pull_name(&server, &format!("app@{other}"))
        .unwrap_err();
    assert!(error.to_string().contains("another manifest"), "{error}");
}

#[test]
fn what_a_registry_says_is_told_without_its_colours() {
    let error = Client::new()
        .pull_name(&server(|_, _, _| None), "other")
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(
        error.to_string().ends_with("404 Not Found: not [31mhere"),
        "{error}"
    );
}

#[test]
fn a_password_is_shown_only_when_it_is_asked_for() {
    let asks =
        server(
            |_, request, _| match request.headers.get("authorization").map(String::as_str) {
                Some("Basic dXNlcjpzZWNyZXQ=") => None,
                _ => Some(Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")),
            },
        );
    let client = Client::with_password();
    assert_is_content(&client, &client.pull(&asks).unwrap());
    assert!(
        !asks.asked("/manifests/")[0]
            .headers
            .contains_key("authorization"),
        "anonymous first"
    );
    Client::new().fails(&asks, Kind::Denied, "without credentials");

    let refuses = server(|_, _, _| {
        Some(Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""))
    });
    Client::with_password().fails(
        &refuses,
        Kind::Denied,
        "refuses the credentials of \"user\"",
    );
    assert_eq!(refuses.asked("/manifests/").len(), 2);

    let open = server(|_, _, _| None);
    Client::with_password().pull(&open).unwrap();
    assert!(
        open.requests()
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
}

/// A registry that wants tokens, from a server at `host`; that server, and the registry.
fn with_tokens(host: &str) -> (Arc<Server>, Server) {
    let tokens = Arc::new(Server::at(host, |_| {
        Answer::new(200, r#"{"token":"t0ken"}"#)
    }));
    let realm = tokens.address;
    let registry = server(move |_, request, _| {
        match request.headers.get("authorization").map(String::as_str) {
            Some("Bearer t0ken") => None,
            _ => {
                let challenge = format!(
                    "Bearer realm=\"http://{realm}/token\",service=\"a b\",scope=\"repository:app:pull\""
                );
                Some(Answer::new(401, "").header("WWW-Authenticate", challenge))
            }
        }
    });
    (tokens, registry)
}

#[test]
fn tokens_come_from_the_registrys_own_server_for_the_password() {
    let (tokens, registry) = with_tokens("127.0.0.1");
    let client = Client::with_password();
    assert_is_content(&client, &client.pull(&registry).unwrap());
    let asked = tokens.asked("/token");
    assert_eq!(asked.len(), 1, "one token serves all requests");
    assert_eq!(
        asked[0].path,
        "/token?service=a%20b&scope=repository%3Aapp%3Apull"
    );
    assert_eq!(asked[0].headers["authorization"], "Basic dXNlcjpzZWNyZXQ=");
    // Without a password anybody gets a token.
    let client = Client::new();
    assert_is_content(&client, &client.pull(&registry).unwrap());
    assert!(
        !tokens.asked("/token")[1]
            .headers
            .contains_key("authorization")
    );
}

// CVE-2020-15157. Proved with credentials for every realm.
#[test]
fn a_stranger_who_gives_tokens_sees_no_password() {
    let (tokens, registry) = with_tokens("127.0.0.2");
    let client = Client::with_password();
    assert_is_content(&client, &client.pull(&registry).unwrap());
    assert!(!tokens.asked("/token").is_empty());
    assert!(
        tokens
            .requests()
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
}

#[test]
fn a_token_server_without_tls_elsewhere_is_not_asked() {
    let registry = server(|_, _, _| {
        Some(Answer::new(401, "").header(
            "WWW-Authenticate",
            "Bearer realm=\"http://192.0.2.1/token\"",
        ))
    });
    Client::with_password().fails(&registry, Kind::Denied, "not encrypted");
}

// CVE-2026-48978. Proved with the authorization sent wherever a redirect leads.
#[test]
fn a_redirect_takes_no_authorization_to_another_host() {
    let other = Arc::new(Server::at("127.0.0.2", |_| {
        Answer::new(200, content().layer)
    }));
    let to = other.address;
    let registry =
        server(
            move |content, request, _| match request.headers.contains_key("authorization") {
                false => Some(Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")),
                true => content
                    .is_layer(request)
                    .then(|| Answer::new(307, "").header("Location", format!("http://{to}/blob"))),
            },
        );
    let client = Client::with_password();
    assert_is_content(&client, &client.pull(&registry).unwrap());
    assert_eq!(other.requests().len(), 1);
    assert!(!other.requests()[0].headers.contains_key("authorization"));
}

/// Proved with its challenge answered and the answer sent there.
#[test]
fn the_target_of_a_redirect_cannot_ask_for_the_password() {
    let other = Arc::new(Server::at("127.0.0.2", |_| {
        Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")
    }));
    let to = other.address;
    let registry = server(move |content, request, _| {
        content
            .is_layer(request)
            .then(|| Answer::new(307, "").header("Location", format!("http://{to}/blob")))
    });
    Client::with_password().fails(&registry, Kind::Denied, "refuses");
    assert!(
        other
            .requests()
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
    let circle = server(|content, request, _| {
        content
            .is_layer(request)
            .then(|| Answer::new(302, "").header("Location", request.path.clone()))
    });
    Client::new().fails(&circle, Kind::Failed, "too many redirects");
}

// CVE-2024-3727. Proved with what is not found at the registry fetched from there.
#[test]
fn urls_of_a_descriptor_are_not_followed() {
    let other = Arc::new(Server::new(|_| Answer::new(200, content().layer)));
    let url = format!("http://{}/layer", other.address);
    let registry = server(move |content, request, _| {
        let mut document = content.manifest.clone();
        document["layers"][0]["urls"] = json!([url]);
        match content.is_layer(request) {
            true => Some(Answer::new(404, "")),
            false => request
                .path
                .contains("/manifests/")
                .then(|| manifest(&document)),
        }
    });
    Client::with_password().fails(&registry, Kind::NotFound, "404");
    assert!(other.requests().is_empty());
}

#[test]
fn a_registry_elsewhere_is_not_spoken_to_without_tls() {
    let client = Client::new();
    let source = Source::Registry("192.0.2.1:1/app".parse().unwrap());
    let mut options = client.options.clone();
    options.connection.patience = Patience {
        connect: Duration::from_millis(50),
        tries: 1,
        ..Patience::default()
    };
    let error = image::pull(&client.store, &source, &options, &()).unwrap_err();
    assert!(error.to_string().contains("https://192.0.2.1:1"), "{error}");
}

#[test]
fn two_pulls_at_once_fetch_everything_once() {
    let (client, server) = (Client::new(), server(|_, _, _| None));
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| client.pull(&server).unwrap()))
            .collect();
        for pull in pulls {
            pull.join().unwrap();
        }
    });
    assert_eq!(server.asked("/blobs/").len(), 2);
    assert_eq!(client.store.images().unwrap().len(), 1);
}
