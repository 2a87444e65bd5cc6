//! `linux.memoryPolicy`: on which NUMA nodes the container's processes get their memory (set_mempolicy(2)).

use oci_spec::runtime::{
    LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode,
};

use crate::{Context, Error, Result, sys};

/// The arguments of set_mempolicy(2).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MemoryPolicy {
    mode: u32,
    nodes: Vec<u8>,
}

impl MemoryPolicy {
    /// Checks the section, in runc's words.
    pub(crate) fn new(configured: &LinuxMemoryPolicy) -> Result<Self> {
        let invalid = |field: &str, text: String| {
            Err(Error::invalid(format!(
                "linux.memoryPolicy.{field}: {text}"
            )))
        };
        let mode = configured.mode();
        let list = configured.nodes().as_deref().unwrap_or_default();
        let nodes = match list.trim() {
            "" => Vec::new(),
            list => match cgroups::bits(list) {
                Some(nodes) => nodes,
                None => return invalid("nodes", format!("invalid memory policy nodes {list:?}")),
            },
        };
        let count: u32 = nodes.iter().map(|byte| byte.count_ones()).sum();
        match mode {
            Mode::MpolDefault | Mode::MpolLocal if count > 0 => {
                return invalid(
                    "nodes",
                    format!("{mode}: mode requires 0 nodes but got {count}"),
                );
            }
            Mode::MpolDefault | Mode::MpolLocal | Mode::MpolPreferred => {}
            _ if count == 0 => return invalid("nodes", format!("{mode}: mode requires nodes")),
            _ => {}
        }
        let flags = configured.flags().iter().flatten();
        Ok(MemoryPolicy {
            mode: flags.fold(number(mode), |mode, flag| mode | bit(*flag)),
            nodes,
        })
    }

    /// Applies to the calling process, and what becomes of it.
    pub(crate) fn apply(&self) -> Result<()> {
        sys::process::set_memory_policy(self.mode, &self.nodes)
            .context("linux.memoryPolicy: set it")
    }
}

fn number(mode: Mode) -> u32 {
    match mode {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    }
}

fn bit(flag: Flag) -> u32 {
    match flag {
        Flag::MpolFNumaBalancing => 1 << 13,
        Flag::MpolFRelativeNodes => 1 << 14,
        Flag::MpolFStaticNodes => 1 << 15,
    }
}

/// The modes, as `features` tells them.
pub(crate) const MODES: [Mode; 7] = [
    Mode::MpolDefault,
    Mode::MpolBind,
    Mode::MpolInterleave,
    Mode::MpolWeightedInterleave,
    Mode::MpolPreferred,
    Mode::MpolPreferredMany,
    Mode::MpolLocal,
];

/// The flags, as `features` tells them.
pub(crate) const FLAGS: [Flag; 3] = [
    Flag::MpolFNumaBalancing,
    Flag::MpolFRelativeNodes,
    Flag::MpolFStaticNodes,
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn policy(section: Value) -> Result<MemoryPolicy> {
        let config = json!({ "ociVersion": "1.3.0", "linux": { "memoryPolicy": section } });
        let spec = crate::config::parse_spec(config.to_string().as_bytes())?;
        let linux = spec.linux().clone().unwrap();
        MemoryPolicy::new(linux.memory_policy().as_ref().unwrap())
    }

    #[test]
    fn modes_flags_and_nodes() {
        let static_bind =
            json!({ "mode": "MPOL_BIND", "nodes": "0-1,3", "flags": ["MPOL_F_STATIC_NODES"] });
        let expected = MemoryPolicy {
            mode: 2 | 1 << 15,
            nodes: vec![0b1011],
        };
        assert_eq!(policy(static_bind).unwrap(), expected);
        let local = policy(json!({ "mode": "MPOL_LOCAL" })).unwrap();
        assert_eq!((local.mode, local.nodes), (4, vec![]));
    }

    #[test]
    fn refused_in_runcs_words() {
        let refused = [
            (json!({ "nodes": "0-7" }), "invalid memory policy mode"),
            (json!({ "mode": "bind" }), "invalid memory policy mode"),
            (
                json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["x"] }),
                "invalid memory policy flag",
            ),
            (
                json!({ "mode": "MPOL_BIND", "nodes": "0-9876543210" }),
                "invalid memory policy node",
            ),
            (
                json!({ "mode": "MPOL_DEFAULT", "nodes": "0-7" }),
                "mode requires 0 nodes but got 8",
            ),
            (json!({ "mode": "MPOL_INTERLEAVE" }), "mode requires nodes"),
        ];
        for (section, words) in refused {
            let error = policy(section).unwrap_err().to_string();
            assert!(
                error.starts_with("linux.memoryPolicy") && error.contains(words),
                "{error}"
            );
        }
    }
}
