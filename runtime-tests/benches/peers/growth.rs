//! How costs grow: containers that are alive, processes in the container, and what its configuration can have more and more of.

use std::collections::BTreeMap;
use std::fs;

use runtime_tests::{eventually, pids_in_cgroups_named};
use serde_json::{Value, json};

use crate::Options;
use crate::peer::Peer;
use crate::results::{Axis, Samples, Section, in_turn, median, readable};

/// The points of an axis: powers of ten up to the largest.
fn points(largest: usize) -> Vec<usize> {
    let powers = (0..).map(|power| 10_usize.pow(power));
    powers.take_while(|point| *point <= largest).collect()
}

/// How often each point is measured.
fn rounds(options: &Options) -> usize {
    (options.rounds / 3).max(1)
}

pub(crate) fn measure(peers: &mut Vec<Peer>, options: &Options, section: &mut Section) {
    // Coracle, the floor, and the newest of each peer.
    let newest = |peer: &Peer| {
        let program = peer.name.split(' ').next().unwrap_or_default();
        section.newest(program) == Some(&peer.name)
    };
    peers.retain(newest);
    let thousand = options.largest.min(1000);
    containers(peers, options, section);
    for kind in KINDS {
        configured(peers, options, section, kind);
    }
    processes(peers, options, section, thousand);
}

/// Something that a configuration has more and more of.
struct Kind {
    of: &'static str,
    /// The most of it, when as many containers are alive as is usual.
    largest: usize,
    add: fn(&Peer, &mut Value, usize),
    /// The floor can have so much of it too.
    in_floor: bool,
}

const KINDS: &[Kind] = &[
    Kind {
        of: "mounts",
        largest: 1000,
        add: mounts,
        in_floor: true,
    },
    Kind {
        of: "seccomp rules",
        largest: 2000,
        add: rules,
        in_floor: true,
    },
    Kind {
        of: "masked paths",
        largest: 500,
        add: masks,
        in_floor: true,
    },
    Kind {
        of: "hooks",
        largest: 50,
        add: hooks,
        in_floor: false,
    },
    // With the words themselves and where they are, just below the 2 MiB that execve(2) takes.
    Kind {
        of: "KiB of environment",
        largest: 2000,
        add: environment,
        in_floor: false,
    },
    // The kernel takes no more, and no longer text than a page.
    Kind {
        of: "id mappings",
        largest: 340,
        add: mappings,
        in_floor: false,
    },
];

/// An axis while its points are measured.
struct Growing(Axis);

impl Growing {
    fn new(command: &str, of: &str) -> Self {
        Self(Axis {
            name: format!("{command}, {of}"),
            of: of.into(),
            lines: BTreeMap::new(),
        })
    }

    fn add(&mut self, point: usize, samples: Samples) {
        print!("  {:<28}{point:>7}", self.0.name);
        for (name, all) in samples.0 {
            let value = median(&all);
            print!("  {name} {}", readable(value));
            self.0.lines.entry(name).or_default().push((point, value));
        }
        println!();
    }
}

/// `run` with more and more of something in the configuration.
fn configured(peers: &mut [Peer], options: &Options, section: &mut Section, kind: &Kind) {
    let of = kind.of;
    let mut axis = Growing::new("run", of);
    let largest = (kind.largest * options.largest.min(1000) / 1000).max(1);
    let mut at = points(largest);
    if at.last() != Some(&largest) {
        at.push(largest);
    }
    for point in at {
        let samples = in_turn(peers, rounds(options), |peer| {
            if peer.is_floor && !kind.in_floor {
                return Ok(None);
            }
            let bundle = peer.bundle(&format!("{of}-{point}"), |peer| {
                let mut config = peer.template();
                config["process"]["args"] = json!(["/bin/true"]);
                (kind.add)(peer, &mut config, point);
                config
            });
            Ok(Some(peer.begin(&["run"], &bundle, &peer.one())?))
        });
        axis.add(point, samples);
    }
    section.growth.push(axis.0);
}

/// So many directories of the host, each at a place of its own.
fn mounts(peer: &Peer, config: &mut Value, count: usize) {
    let source = peer.path("source");
    fs::create_dir_all(&source).expect("a directory");
    for n in 0..count {
        let place = format!("/mnt/{n}");
        fs::create_dir_all(peer.path("rootfs").join(&place[1..])).expect("a directory");
        let mounts = config["mounts"].as_array_mut().expect("a list");
        mounts.push(json!({ "destination": place, "type": "bind", "source": source, "options": ["bind", "ro"] }));
    }
}

/// So many values of one call's argument.
fn rules(_: &Peer, config: &mut Value, count: usize) {
    let rule = |n| {
        json!({ "names": ["ioctl"], "action": "SCMP_ACT_ERRNO",
                "args": [{ "index": 1, "value": n * 3 + 1_000_000, "op": "SCMP_CMP_EQ" }] })
    };
    let rules: Vec<Value> = (0..count).map(rule).collect();
    config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
}

/// So many files, each masked.
fn masks(peer: &Peer, config: &mut Value, count: usize) {
    let dir = peer.path("rootfs").join("srv");
    fs::create_dir_all(&dir).expect("a directory");
    for n in 0..count {
        fs::write(dir.join(n.to_string()), "").expect("a file");
        let masked = config["linux"]["maskedPaths"].as_array_mut();
        masked.expect("a list").push(json!(format!("/srv/{n}")));
    }
}

/// So many programs of the host, one after the other.
fn hooks(_: &Peer, config: &mut Value, count: usize) {
    config["hooks"] = json!({ "createRuntime": vec![json!({ "path": "/bin/true" }); count] });
}

/// Variables of a KiB.
fn environment(_: &Peer, config: &mut Value, count: usize) {
    let variable = |n| format!("{:x<1023}", format!("VARIABLE_{n}="));
    let variables = config["process"]["env"].as_array_mut();
    variables
        .expect("a list")
        .extend((0..count).map(|n| json!(variable(n))));
}

/// A user namespace, whose root is the host's: the others' files are not what is measured.
fn mappings(_: &Peer, config: &mut Value, count: usize) {
    let mapping = |n| match n {
        0 => json!({ "containerID": 0, "hostID": 0, "size": 1000 }),
        n => json!({ "containerID": 1000 + n, "hostID": 2000 + 2 * n, "size": 1 }),
    };
    let mappings: Vec<Value> = (0..count).map(mapping).collect();
    let namespaces = config["linux"]["namespaces"].as_array_mut();
    namespaces.expect("a list").push(json!({ "type": "user" }));
    config["linux"]["uidMappings"] = json!(mappings);
    config["linux"]["gidMappings"] = json!(mappings);
}

/// `create`, `state` and `list` beside more and more containers.
fn containers(peers: &mut [Peer], options: &Options, section: &mut Section) {
    let commands = ["create", "state", "list"];
    let mut axes = commands.map(|command| Growing::new(command, "containers alive"));
    let mut alive = 0;
    for point in points(options.largest) {
        for peer in &mut *peers {
            peer.enter();
            let bundle = idle(peer);
            for n in alive..point {
                let made = peer.begin(&["create"], &bundle, &peer.id(&format!("alive-{n}")));
                made.unwrap_or_else(|reason| panic!("{}: {reason}", peer.name));
            }
        }
        alive = point;
        for (command, axis) in commands.iter().zip(&mut axes) {
            let samples = in_turn(peers, rounds(options), |peer| {
                let (bundle, id) = (idle(peer), peer.one());
                Ok(Some(match *command {
                    "create" => {
                        let took = peer.begin(&["create"], &bundle, &id)?;
                        peer.delete_force(&id)?;
                        took
                    }
                    "state" => peer.time(&["state", &peer.id("alive-0")])?,
                    _ if peer.is_floor => return Ok(None),
                    _ => peer.time(&["list"])?,
                }))
            });
            axis.add(point, samples);
        }
    }
    for peer in &mut *peers {
        peer.enter();
        for n in 0..alive {
            let _ = peer.delete_force(&peer.id(&format!("alive-{n}")));
        }
    }
    section.growth.extend(axes.map(|axis| axis.0));
}

fn idle(peer: &mut Peer) -> String {
    peer.template_bundle("idle", &["/bin/sleep", "1000000"])
}

/// `exec` into a container of more and more processes, and its end.
fn processes(peers: &mut [Peer], options: &Options, section: &mut Section, largest: usize) {
    let mut axes = ["exec", "delete --force"].map(|command| Growing::new(command, "processes"));
    for point in points(largest) {
        let script = format!(
            "i=1; while [ $i -lt {point} ]; do sleep 1000000 & i=$((i + 1)); done; exec sleep 1000000"
        );
        let begin = |peer: &mut Peer| -> Result<String, String> {
            let bundle =
                peer.template_bundle(&format!("processes-{point}"), &["/bin/sh", "-c", &script]);
            let id = peer.one();
            peer.begin(&["run", "--detach"], &bundle, &id)?;
            eventually("all processes run", || {
                (pids_in_cgroups_named(&id).len() == point).then_some(())
            });
            Ok(id)
        };
        for peer in &mut *peers {
            peer.enter();
            begin(peer).unwrap_or_else(|reason| panic!("{}: {reason}", peer.name));
        }
        let execs = in_turn(peers, rounds(options), |peer| {
            Ok(Some(peer.time(&["exec", &peer.one(), "/bin/true"])?))
        });
        axes[0].add(point, execs);
        for peer in &mut *peers {
            peer.enter();
            let _ = peer.delete_force(&peer.one());
        }
        let deletes = in_turn(peers, rounds(options), |peer| {
            let id = begin(peer)?;
            Ok(Some(peer.delete_force(&id)?))
        });
        axes[1].add(point, deletes);
    }
    section.growth.extend(axes.map(|axis| axis.0));
}
