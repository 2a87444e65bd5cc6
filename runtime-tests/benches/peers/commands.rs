//! How long each command takes.

use std::path::Path;

use runtime_tests::{Hierarchy, runtime};
use serde_json::{Value, json};

use crate::Options;
use crate::peer::Peer;
use crate::results::{OURS, Section, in_turn, median};

/// How many containers `list` shows.
const LISTED: usize = 100;

type Measure = fn(&mut Peer) -> Result<Option<f64>, String>;

/// What is timed. Whatever else a command needs happens before and after the clock runs.
const COMMANDS: [(&str, Measure); 9] = [
    ("run", |peer| run(peer, "true")),
    ("run, Docker-like", |peer| run(peer, "docker")),
    ("create", |peer| {
        let took = create(peer, "true")?;
        peer.delete_force(&peer.one())?;
        Ok(Some(took))
    }),
    ("start", |peer| {
        create(peer, "idle")?;
        let took = peer.time(&["start", &peer.one()])?;
        peer.delete_force(&peer.one())?;
        Ok(Some(took))
    }),
    ("state", |peer| {
        Ok(Some(peer.time(&["state", &peer.id("idle")])?))
    }),
    ("exec", |peer| {
        Ok(Some(peer.time(&["exec", &peer.id("idle"), "/bin/true"])?))
    }),
    ("delete, stopped", |peer| {
        create(peer, "true")?;
        let id = peer.one();
        peer.time(&["start", &id])?;
        while !peer.has_stopped(&id) {}
        Ok(Some(peer.time(&["delete", &id])?))
    }),
    ("delete --force, running", |peer| {
        let bundle = bundle(peer, "idle");
        peer.begin(&["run", "--detach"], &bundle, &peer.one())?;
        Ok(Some(peer.delete_force(&peer.one())?))
    }),
    ("list, 100 containers", |peer| match peer.is_floor {
        true => Ok(None),
        false => Ok(Some(peer.time(&["list"])?)),
    }),
];

/// The bundles: a program that ends at once, in two configurations, and one that stays.
fn bundle(peer: &mut Peer, name: &str) -> String {
    match name {
        "idle" => peer.template_bundle(name, &["/bin/sleep", "1000000"]),
        "docker" => peer.bundle(name, |peer| {
            let mut config = without_devices(peer, peer.docker());
            config["process"]["args"] = json!(["/bin/true"]);
            config
        }),
        _ => peer.template_bundle(name, &["/bin/true"]),
    }
}

/// Who runs without device rules has none here either.
fn without_devices(peer: &Peer, mut config: Value) -> Value {
    if peer.remark.is_some() {
        let linux = config["linux"].as_object_mut();
        linux.expect("an object").remove("resources");
    }
    config
}

fn run(peer: &mut Peer, name: &str) -> Result<Option<f64>, String> {
    let bundle = bundle(peer, name);
    Ok(Some(peer.begin(&["run"], &bundle, &peer.one())?))
}

fn create(peer: &mut Peer, name: &str) -> Result<f64, String> {
    let bundle = bundle(peer, name);
    peer.begin(&["create"], &bundle, &peer.one())
}

/// A container that stays, for commands that ask for one.
fn begin_idle(peer: &mut Peer) {
    peer.enter();
    let bundle = bundle(peer, "idle");
    let begun = peer.begin(&["run", "--detach"], &bundle, &peer.id("idle"));
    begun.unwrap_or_else(|reason| panic!("{}: {reason}", peer.name));
}

pub(crate) fn measure(peers: &mut [Peer], rounds: usize, section: &mut Section) {
    peers.iter_mut().for_each(begin_idle);
    for (name, measure) in COMMANDS {
        let listed = name.starts_with("list");
        if listed {
            create_listed(peers);
        }
        section.add_samples(name, "µs", in_turn(peers, rounds, measure));
        if listed {
            delete_listed(peers);
        }
    }
}

fn create_listed(peers: &mut [Peer]) {
    for peer in peers.iter_mut().filter(|peer| !peer.is_floor) {
        peer.enter();
        let bundle = bundle(peer, "idle");
        for n in 0..LISTED {
            let made = peer.begin(&["create"], &bundle, &peer.id(&format!("many-{n}")));
            made.unwrap_or_else(|reason| panic!("{}: {reason}", peer.name));
        }
    }
}

/// What does not go now goes at the end.
fn delete_listed(peers: &mut [Peer]) {
    for peer in peers.iter_mut().filter(|peer| !peer.is_floor) {
        peer.enter();
        for n in 0..LISTED {
            let _ = peer.delete_force(&peer.id(&format!("many-{n}")));
        }
    }
}

/// What it costs that the runtime's binary is out of a container's reach: from a mount that is read-only anyway it need not be copied.
pub(crate) fn measure_protection(options: &Options, hierarchy: Hierarchy, section: &mut Section) {
    let dir = runtime().parent().unwrap_or(Path::new("/")).display();
    let readonly = format!("mount --bind {dir} {dir}; mount -o remount,bind,ro {dir}");
    let mut peers = [
        Peer::new(runtime(), "true", hierarchy),
        Peer::new(runtime(), &readonly, hierarchy),
    ];
    peers[1].name = "coracle, unprotected".into();
    peers.iter_mut().for_each(begin_idle);
    for name in ["run", "exec"] {
        let measure = COMMANDS.iter().find(|(one, _)| *one == name);
        let (_, measure) = measure.expect("a command");
        let samples = in_turn(&mut peers, options.rounds, measure).0;
        let pairs = samples[0].1.iter().zip(&samples[1].1);
        let more: Vec<f64> = pairs.map(|(with, without)| with - without).collect();
        let cost = [(OURS.to_owned(), median(&more))];
        let row = format!("{name}: protection of the binary");
        section.add_values(&row, "µs", cost.into());
    }
}
