//! The way up: registries that refuse, forget and break off, and those without the referrers API.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex};

use image::{Digest, Image, PushOptions, Reference, Source, media_type};
use serde_json::{Value, json};

use crate::Client;
use crate::server::{Answer, Request, Server};

/// Larger than two of the pieces that uploads are cut into.
const LARGE: usize = 20_000_000;
const PIECE: usize = 8 << 20;

/// A registry that takes uploads.
#[derive(Default)]
struct State {
    sessions: Vec<Vec<u8>>,
    /// Blobs by digest, manifests by tag.
    content: BTreeMap<String, Vec<u8>>,
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let name = path.rsplit('/').next().unwrap_or_default();
        if path == "/v2/" {
            return Answer::new(200, "{}");
        }
        if !path.contains("/uploads/") {
            return match (request.method.as_str(), self.content.get(name)) {
                ("PUT", _) => {
                    self.content.insert(name.to_owned(), request.body.clone());
                    Answer::new(201, "")
                }
                (_, Some(content)) => Answer::new(200, content.as_slice()),
                (_, None) => Answer::new(404, ""),
            };
        }
        let Ok(number) = name.parse::<usize>() else {
            self.sessions.push(Vec::new());
            let location = format!("/v2/app/blobs/uploads/{}?n=0", self.sessions.len() - 1);
            return Answer::new(202, "").header("Location", location);
        };
        let session = &mut self.sessions[number];
        let range = request.headers.get("content-range");
        if range.is_some_and(|range| !range.starts_with(&format!("{}-", session.len()))) {
            return Answer::new(416, "");
        }
        session.extend(&request.body);
        let location = format!("{path}?n={}", session.len());
        match request.method.as_str() {
            _ if request.is_cut() => Answer::gone(),
            "PUT" => {
                let digest = Digest::of(session).to_string();
                assert!(query.ends_with(&format!("&digest={digest}")), "{query}");
                self.content.insert(digest, session.clone());
                Answer::new(201, "")
            }
            "PATCH" => Answer::new(202, "").header("Location", location),
            _ => {
                let last = session.len().saturating_sub(1);
                let answer = Answer::new(204, "").header("Location", location);
                answer.header("Range", format!("0-{last}"))
            }
        }
    }
}

/// The registry, which takes `most` bytes of a body, and is itself except where the test says something else.
fn registry(
    most: usize,
    other: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
) -> (Server, Arc<Mutex<State>>) {
    let state = Arc::new(Mutex::new(State::default()));
    let own = Arc::clone(&state);
    let server = Server::taking(most, "127.0.0.1", move |request| {
        other(request).unwrap_or_else(|| own.lock().unwrap().answer(request))
    });
    (server, state)
}

/// Brings an image with one layer into the store; its manifest has these fields as well.
fn image(client: &Client, layer: &[u8], fields: &Value) -> Image {
    let layout = client.directory.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let put = |media_type: &str, content: &[u8]| {
        let digest = Digest::of(content);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), content).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
    };
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(layer)] }
    });
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST,
        "config": put(media_type::CONFIG, config.to_string().as_bytes()),
        "layers": [put(media_type::LAYER, layer)]
    });
    for (field, value) in fields.as_object().into_iter().flatten() {
        manifest[field] = value.clone();
    }
    let entry = put(media_type::MANIFEST, manifest.to_string().as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let source = Source::Layout {
        directory: layout,
        tag: None,
    };
    image::pull(&client.store, &source, &client.options, &()).unwrap()
}

fn name(server: &Server) -> Reference {
    format!("{}/app:1", server.address).parse().unwrap()
}

fn push(client: &Client, image: &Image, server: &Server) -> image::Result<()> {
    let options = PushOptions {
        connection: client.options.connection.clone(),
    };
    image::push(&client.store, image, &name(server), &options, &())
}

fn large() -> Vec<u8> {
    (0..LARGE).map(|n| (n / 7 % 251) as u8).collect()
}

/// Pushes a large layer, which arrives; gives the requests with parts of it: method, range, length.
fn arrives(
    most: usize,
    other: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
) -> Vec<(String, String, usize)> {
    let (client, (server, state)) = (Client::new(), registry(most, other));
    let image = image(&client, &large(), &Value::Null);
    push(&client, &image, &server).unwrap();
    let state = state.lock().unwrap();
    assert!(state.content[image.layers[0].digest.as_str()] == large());
    assert!(state.content.contains_key("1"));
    let parts = server.asked("/uploads/").into_iter().filter_map(|request| {
        let range = request.headers.get("content-range").cloned();
        let length = request.length();
        (length > 1000).then(|| (request.method, range.unwrap_or_default(), length))
    });
    parts.collect()
}

fn whole() -> (String, String, usize) {
    ("PUT".into(), String::new(), LARGE)
}

fn piece(from: usize, to: usize) -> (String, String, usize) {
    ("PATCH".into(), format!("{from}-{}", to - 1), to - from)
}

fn pieces() -> Vec<(String, String, usize)> {
    vec![
        piece(0, PIECE),
        piece(PIECE, 2 * PIECE),
        piece(2 * PIECE, LARGE),
    ]
}

#[test]
fn a_layer_goes_up_in_one_request() {
    assert_eq!(arrives(usize::MAX, |_| None), [whole()]);
}

#[test]
fn what_is_too_large_for_one_request_goes_up_in_pieces() {
    let parts = arrives(usize::MAX, |request| {
        (request.length() > PIECE).then(|| Answer::new(413, ""))
    });
    assert_eq!(parts, [vec![whole()], pieces()].concat());
}

#[test]
fn an_upload_that_breaks_off_goes_on_where_it_stopped() {
    let step = 3_000_000;
    // More interruptions than tries: each one that brought something on is forgiven.
    let parts = arrives(step, |_| None);
    assert_eq!(parts[0], whole());
    let wanted = (1..=LARGE / step).map(|n| piece(n * step, (n * step + PIECE).min(LARGE)));
    assert_eq!(parts[1..], Vec::from_iter(wanted));
}

/// Fails the first time that a blob comes as a whole.
fn fails_first(status: u16) -> impl Fn(&Request) -> Option<Answer> {
    let failed = Mutex::new(BTreeSet::new());
    move |request| {
        let (_, digest) = request.path.split_once("&digest=")?;
        let first = failed.lock().unwrap().insert(digest.to_owned());
        first.then(|| Answer::new(status, ""))
    }
}

#[test]
fn what_a_registry_has_forgotten_goes_up_again() {
    let first = fails_first(500);
    let parts = arrives(usize::MAX, move |request| {
        let asks = request.method == "GET" && request.path.contains("/uploads/");
        asks.then(|| Answer::new(404, ""))
            .or_else(|| first(request))
    });
    assert_eq!(parts, [vec![whole()], pieces()].concat());
}

#[test]
fn a_registry_that_takes_no_pieces_gets_the_whole_again() {
    let first = fails_first(503);
    let parts = arrives(usize::MAX, move |request| {
        let patches = request.method == "PATCH";
        patches
            .then(|| Answer::new(405, ""))
            .or_else(|| first(request))
    });
    assert_eq!(parts, [whole(), piece(0, PIECE), whole()]);
}

#[test]
fn a_push_is_patient_but_not_for_ever() {
    for (status, words) in [(429, "429"), (500, "500"), (403, "refuses"), (0, "timeout")] {
        let (server, state) = registry(usize::MAX, move |request| match request.method.as_str() {
            "POST" if status == 0 => Some(Answer::hang()),
            "POST" => Some(Answer::new(status, "")),
            _ => None,
        });
        let mut client = Client::new();
        client.options.connection.patience.read = std::time::Duration::from_millis(300);
        let error = push(&client, &image(&client, b"x", &Value::Null), &server).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(state.lock().unwrap().content.is_empty(), "{status}");
    }
}

/// An artifact that refers to a digest.
fn signature(client: &Client, subject: &Digest) -> Image {
    let fields = json!({
        "artifactType": "application/x-signature", "annotations": { "by": "me" },
        "subject": { "mediaType": media_type::MANIFEST, "digest": subject, "size": 1 },
    });
    image(client, b"signature", &fields)
}

#[test]
fn referrers_are_listed_under_a_tag_where_the_registry_does_not_list_them() {
    let (client, (server, state)) = (Client::new(), registry(usize::MAX, |_| None));
    let subject = image(&client, b"x", &Value::Null);
    push(&client, &subject, &server).unwrap();
    let referrers = || image::referrers(&name(&server), &client.options.connection).unwrap();
    assert!(referrers().is_empty());

    let digest = subject.manifest.digest;
    let signature = signature(&client, &digest);
    let options = PushOptions {
        connection: client.options.connection.clone(),
    };
    let to = name(&server).with_digest(signature.manifest.digest.clone());
    for _ in 0..2 {
        image::push(&client.store, &signature, &to, &options, &()).unwrap();
        let found = referrers();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].digest, signature.manifest.digest);
        let kind = found[0].artifact_type.as_deref();
        assert_eq!(kind, Some("application/x-signature"));
        assert_eq!(found[0].annotations["by"], "me");
    }
    let tag = format!("sha256-{}", digest.hex());
    let index: Value = serde_json::from_slice(&state.lock().unwrap().content[&tag]).unwrap();
    assert_eq!(index["mediaType"], media_type::INDEX);
}

#[test]
fn a_registry_that_lists_referrers_is_asked_for_all_of_them() {
    let page = |number: usize| {
        let digest = Digest::of(&[number as u8]);
        let entry = json!({ "mediaType": media_type::MANIFEST, "digest": digest, "size": 1 });
        let index =
            json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [entry] });
        Answer::new(200, index.to_string())
    };
    let (server, state) = registry(usize::MAX, move |request| {
        if request.method == "PUT" && request.path.contains("/manifests/") {
            return Some(Answer::new(201, "").header("OCI-Subject", "sha256:x"));
        }
        let (_, query) = request.path.split_once("/referrers/")?;
        Some(match query.split_once("?page=") {
            None => page(1).header("Link", "<?page=2>; rel=\"next\""),
            Some((_, "2")) => page(2),
            Some(_) => Answer::new(404, ""),
        })
    });
    let client = Client::new();
    let subject = Digest::of(b"subject");
    push(&client, &signature(&client, &subject), &server).unwrap();
    assert!(
        server.asked("/manifests/sha256-").is_empty(),
        "it keeps the list itself"
    );
    state.lock().unwrap().content.insert("1".into(), manifest());
    let found = image::referrers(&name(&server), &client.options.connection).unwrap();
    let found: Vec<_> = found.into_iter().map(|found| found.digest).collect();
    assert_eq!(found, [Digest::of(&[1]), Digest::of(&[2])]);
}

fn manifest() -> Vec<u8> {
    crate::content().manifest.to_string().into_bytes()
}
