//! What was measured, as it is kept in results.json.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs;

use serde::{Deserialize, Serialize};

use crate::Peer;

/// What Coracle is called.
pub(crate) const OURS: &str = "coracle";

#[derive(Serialize)]
pub(crate) struct Results {
    pub machine: Machine,
    pub rounds: usize,
    pub v2: Option<Section>,
    pub v1: Option<Section>,
}

impl Results {
    pub(crate) fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        [("v2", &self.v2), ("v1", &self.v1)]
            .into_iter()
            .filter_map(|(name, section)| Some((name, section.as_ref()?)))
    }
}

#[derive(Serialize)]
pub(crate) struct Machine {
    cpus: usize,
    model: String,
    kernel: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            model: model.map_or("unknown", |(_, model)| model).to_owned(),
            kernel: kernel.trim().to_owned(),
        }
    }
}

impl Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpus,
            model,
            kernel,
        } = self;
        write!(f, "{cpus} CPUs, {model}, Linux {kernel}")
    }
}

/// What was measured in one view of the cgroups.
#[derive(Serialize, Deserialize)]
pub(crate) struct Section {
    pub priority: String,
    pub peers: Vec<PeerFacts>,
    pub rows: Vec<Row>,
    pub growth: Vec<Axis>,
    /// What each step of the floor's `run` takes, in µs: those of the runtime's process, and those of the container's.
    pub steps: Vec<(String, f64)>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct PeerFacts {
    pub name: String,
    /// What it says of itself.
    pub version: String,
    /// What does not hold for it that holds for the others.
    pub remark: Option<String>,
}

/// One thing that was measured of each peer that can do it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Row {
    pub name: String,
    pub unit: String,
    pub values: BTreeMap<String, f64>,
    /// Coracle's value divided by the peer's: the median pair by pair where there are pairs.
    pub ratios: BTreeMap<String, f64>,
}

/// How a cost grows with something.
#[derive(Serialize, Deserialize)]
pub(crate) struct Axis {
    pub name: String,
    /// What there are more and more of.
    pub of: String,
    /// Of each peer: how many, and how many µs.
    pub lines: BTreeMap<String, Vec<(usize, f64)>>,
}

impl Section {
    pub(crate) fn new(peers: &[Peer]) -> Self {
        let facts = |peer: &Peer| PeerFacts {
            name: peer.name.clone(),
            version: peer.version.clone(),
            remark: peer.remark.clone(),
        };
        Self {
            priority: String::new(),
            peers: peers.iter().map(facts).collect(),
            rows: Vec::new(),
            growth: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// Adds a row of samples, and prints it.
    pub(crate) fn add_samples(&mut self, name: &str, unit: &str, samples: Samples) {
        let ours = samples.0.first().map(|(_, ours)| ours.clone());
        let ours = ours.unwrap_or_default();
        let values = samples
            .0
            .iter()
            .map(|(name, all)| (name.clone(), median(all)));
        let ratios = samples.0.iter().skip(1).map(|(name, all)| {
            let pairs = ours.iter().zip(all).map(|(ours, theirs)| ours / theirs);
            (name.clone(), median(&pairs.collect::<Vec<_>>()))
        });
        self.add(Row {
            name: name.into(),
            unit: unit.into(),
            values: values.collect(),
            ratios: ratios.collect(),
        });
    }

    /// Adds a row of what is not a matter of luck, and prints it.
    pub(crate) fn add_values(&mut self, name: &str, unit: &str, values: BTreeMap<String, f64>) {
        let ours = values.get(OURS).copied().unwrap_or(f64::NAN);
        let others = values.iter().filter(|(name, _)| *name != OURS);
        let ratios = others.map(|(name, theirs)| (name.clone(), ours / theirs));
        // Nothing can be compared with nothing.
        let ratios = ratios.filter(|(_, ratio)| ratio.is_finite());
        self.add(Row {
            name: name.into(),
            unit: unit.into(),
            ratios: ratios.collect(),
            values,
        });
    }

    fn add(&mut self, row: Row) {
        let Row { name, unit, .. } = &row;
        print!("{name:<30}");
        for peer in &self.peers {
            match row.values.get(&peer.name) {
                Some(value) => print!("{:>14}", readable(*value)),
                None => print!("{:>14}", "–"),
            }
        }
        println!(" {unit}");
        self.rows.push(row);
    }

    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The newest peer of a name: the first one that took part.
    pub(crate) fn newest(&self, program: &str) -> Option<&str> {
        let mut names = self.peers.iter().map(|peer| peer.name.as_str());
        names.find(|name| name.split(' ').next() == Some(program))
    }
}

/// Samples of each peer, Coracle's first.
#[derive(Default)]
pub(crate) struct Samples(pub Vec<(String, Vec<f64>)>);

/// Takes samples of each peer in turn. One that fails is left out, with the reason printed; Coracle may not fail.
pub(crate) fn in_turn(
    peers: &mut [Peer],
    rounds: usize,
    mut sample: impl FnMut(&mut Peer) -> Result<Option<f64>, String>,
) -> Samples {
    let mut all: Vec<Option<Vec<f64>>> = peers.iter().map(|_| Some(Vec::new())).collect();
    // Nobody's first is counted: caches are warm afterwards.
    for round in 0..=rounds {
        for (place, (peer, samples)) in peers.iter_mut().zip(&mut all).enumerate() {
            let Some(list) = samples else { continue };
            peer.enter();
            // Peers fail now and then when they clear up: once more, from the beginning.
            let taken = sample(peer).or_else(|reason| match place {
                0 => Err(reason),
                _ => {
                    let _ = peer.delete_force(&peer.one());
                    sample(peer)
                }
            });
            match taken {
                Ok(Some(value)) if round > 0 => list.push(value),
                Ok(Some(_)) => {}
                Ok(None) => *samples = None,
                Err(reason) => {
                    assert!(place > 0, "{}: {reason}", peer.name);
                    println!("  {} is left out here: {reason}", peer.name);
                    *samples = None;
                }
            }
        }
    }
    let named = peers.iter().zip(all);
    Samples(
        named
            .filter_map(|(peer, samples)| Some((peer.name.clone(), samples?)))
            .collect(),
    )
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Three digits that mean something, and thousands kept apart.
pub(crate) fn readable(value: f64) -> String {
    if value < 10.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
