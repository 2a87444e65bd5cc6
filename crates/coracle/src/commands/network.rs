//! `network`: what containers are attached to.

use ::network::{Network, Networks};

use super::{Invocation, answer, json};
use crate::columns::columns;
use crate::{Failure, Outcome};

pub(crate) fn network(invocation: &Invocation<'_>) -> Outcome {
    let (what, names) = invocation
        .flags
        .args
        .split_first()
        .map_or(("", &[][..]), |(what, names)| (what.as_str(), names));
    match (what, names) {
        ("ls", []) => list(invocation),
        ("inspect", names) => inspect(&invocation.networks()?, names),
        ("reload", []) => {
            let mut networks = invocation.networks()?;
            networks.reload()?;
            for obstacle in networks.obstacles()? {
                log::warn!("{obstacle}");
            }
            Ok(0)
        }
        ("ls" | "reload", _) => Err(Failure::new(format!("network {what} takes no arguments"))),
        _ => Err(Failure::new(format!(
            "unknown operation {what:?} of network: ls, inspect and reload are known"
        ))),
    }
}

fn list(invocation: &Invocation<'_>) -> Outcome {
    let networks = invocation.networks()?.list()?;
    match invocation.flags.text("format") {
        Some("table") => {
            let head = ["NAME", "INTERFACE", "SUBNETS", "CONTAINERS"];
            answer(&columns(head, networks.iter().map(row).collect(), 12))
        }
        Some("json") => answer(&(json(&networks, "  ") + "\n")),
        _ => Err(Failure::new("invalid format option")),
    }
}

fn row(network: &Network) -> [String; 4] {
    let subnets: Vec<_> = network.subnets.iter().map(ToString::to_string).collect();
    [
        network.name.clone(),
        network.interface.clone(),
        subnets.join(","),
        network.attached.len().to_string(),
    ]
}

/// All of them when none is named.
fn inspect(networks: &Networks, names: &[String]) -> Outcome {
    let found = match names {
        [] => networks.list()?,
        names => names
            .iter()
            .map(|name| networks.inspect(name))
            .collect::<::network::Result<_>>()?,
    };
    answer(&(json(&found, "  ") + "\n"))
}
