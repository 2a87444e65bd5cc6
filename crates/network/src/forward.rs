//! Other firewalls on the machine. What we accept, they may still drop: Docker and ufw give `FORWARD` a policy of drop, firewalld ends its
//! chain with a reject.
//!
//! The accepting rules say nothing but the bridge's name, which iptables-nft can show, and which is enough: what may come into the bridge
//! our own table decides. They carry a comment by which they are found and removed again.

use nix::errno::Errno;

use crate::error::{Context, Result};
use crate::legacy::LEGACY;
use crate::netlink::nft::{End, Family, Rule, Table};
use crate::netlink::{Refusal, Socket};

/// A chain of somebody else that packets to a bridge pass.
struct Chain {
    table: Table<'static>,
    name: &'static str,
    /// Only its policy drops: an accept at the end is enough, and what somebody's own rules say still counts.
    by_policy: bool,
}

const CHAINS: &[Chain] = &[
    Chain::of(Family::Ip, "filter", "FORWARD", true),
    Chain::of(Family::Ip6, "filter", "FORWARD", true),
    Chain::of(Family::Inet, "firewalld", "filter_FORWARD", false),
];

impl Chain {
    const fn of(family: Family, table: &'static str, name: &'static str, by_policy: bool) -> Self {
        Chain {
            table: Table {
                family,
                name: table,
            },
            name,
            by_policy,
        }
    }

    fn describe(&self) -> String {
        format!("{} {}", self.table.name, self.name)
    }
}

/// Lets packets from and to a bridge through the chains that would drop them. A firewall that does not let anybody write to its table is
/// one of the [`obstacles`].
pub(crate) fn accept(socket: &mut Socket, bridge: &str) -> Result<()> {
    let mark = mark(bridge);
    for chain in CHAINS {
        if !drops(socket, chain)? || !marked(socket, chain, &mark)?.is_empty() {
            continue;
        }
        let end = if chain.by_policy {
            End::Tail
        } else {
            End::Head
        };
        let rules = [
            Rule::new().iifname(true, bridge).accept(),
            Rule::new().oifname(true, bridge).accept(),
        ];
        let messages = rules.map(|rule| chain.table.add_marked_rule(chain.name, end, rule, &mark));
        match socket.transaction(&messages) {
            Err(Refusal {
                errno: Errno::EPERM,
                ..
            }) => {}
            verdict => {
                verdict.context(|| format!("accept {bridge} in the chain {}", chain.describe()))?
            }
        }
    }
    Ok(())
}

/// What other firewalls still drop, and what can be done about it: the administrator has to decide. One whose rules name the bridge knows
/// of it.
pub(crate) fn obstacles(socket: &mut Socket, bridge: &str) -> Result<Vec<String>> {
    let mut obstacles = Vec::new();
    for chain in CHAINS {
        if drops(socket, chain)? && !names_bridge(socket, chain, bridge)? {
            obstacles.push(format!(
                "the firewall with the chain {} lets nobody add to it, so it may drop what {bridge} forwards: \
                 with firewalld, `firewall-cmd --permanent --zone=trusted --add-interface={bridge}` and a reload allow it",
                chain.describe()
            ));
        }
    }
    for table in LEGACY {
        if table.drops(bridge)? {
            let program = table.program;
            obstacles.push(format!(
                "the policy of FORWARD in {program} is DROP, so it drops what {bridge} forwards: \
                 `{program} -I FORWARD -i {bridge} -j ACCEPT` and `{program} -I FORWARD -o {bridge} -j ACCEPT` allow it"
            ));
        }
    }
    Ok(obstacles)
}

fn drops(socket: &mut Socket, chain: &Chain) -> Result<bool> {
    match socket.chain_drops(chain.table, chain.name) {
        Ok(policy) => Ok(policy.unwrap_or(false) || !chain.by_policy),
        Err(Refusal {
            errno: Errno::ENOENT,
            ..
        }) => Ok(false),
        Err(refusal) => Err(refusal).context(|| format!("look at the chain {}", chain.describe())),
    }
}

/// Whether any rule in the table of a chain is about the bridge, ours or somebody's.
fn names_bridge(socket: &mut Socket, chain: &Chain, bridge: &str) -> Result<bool> {
    let name = [bridge.as_bytes(), &[0]].concat();
    socket
        .has_rule_with(chain.table, &name)
        .context(|| format!("list the rules of the table {}", chain.table.name))
}

/// Takes the accepting rules away again.
pub(crate) fn withdraw(socket: &mut Socket, bridge: &str) -> Result<()> {
    for chain in CHAINS {
        let handles = marked(socket, chain, &mark(bridge))?;
        let messages: Vec<_> = handles
            .into_iter()
            .map(|handle| chain.table.delete_rule(chain.name, handle))
            .collect();
        match socket.transaction(&messages) {
            // Somebody was faster.
            Err(Refusal {
                errno: Errno::ENOENT,
                ..
            }) => {}
            verdict => verdict
                .context(|| format!("remove {bridge} from the chain {}", chain.describe()))?,
        }
    }
    Ok(())
}

fn marked(socket: &mut Socket, chain: &Chain, mark: &[u8]) -> Result<Vec<u64>> {
    match socket.rules_with(chain.table, chain.name, mark) {
        Err(Refusal {
            errno: Errno::ENOENT,
            ..
        }) => Ok(Vec::new()),
        found => found.context(|| format!("list the rules of the chain {}", chain.describe())),
    }
}

/// A comment as nft(8) keeps and shows it: type, length, text.
fn mark(bridge: &str) -> Vec<u8> {
    const COMMENT: u8 = 0;
    let text = format!("coracle {bridge}\0");
    let mut mark = vec![COMMENT, text.len() as u8];
    mark.extend(text.as_bytes());
    mark
}
