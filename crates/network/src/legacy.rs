//! The old tables of iptables-legacy, which stand beside those of nftables and can be read by getsockopt(2) alone. Nothing is written
//! there: its only operation is to replace a whole table, whoever else is at it.

use std::fs;

use libc::NF_INET_FORWARD;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::error::{Context, Error, Result};
use crate::sys;

/// The table `filter` of one IP version, and where things are in `struct ipt_entry` or `struct ip6t_entry`.
pub(crate) struct Legacy {
    /// The program that is asked to change it.
    pub(crate) program: &'static str,
    /// Names the tables that are there, in the network namespace of who reads it.
    names: &'static str,
    family: AddressFamily,
    level: i32,
    /// Of `target_offset`.
    target_offset: usize,
}

pub(crate) const LEGACY: &[Legacy] = &[
    Legacy {
        program: "iptables-legacy",
        names: "/proc/thread-self/net/ip_tables_names",
        family: AddressFamily::Inet,
        level: libc::IPPROTO_IP,
        target_offset: 88,
    },
    Legacy {
        program: "ip6tables-legacy",
        names: "/proc/thread-self/net/ip6_tables_names",
        family: AddressFamily::Inet6,
        level: libc::IPPROTO_IPV6,
        target_offset: 140,
    },
];

const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `struct ipt_getinfo`: name, hooks, five beginnings of chains, five policies, number and size of the entries.
const INFO: usize = 84;
const POLICIES: usize = 56;
const SIZE: usize = 80;
/// `struct ipt_get_entries` before the entries.
const HEADER: usize = 40;
/// In `struct xt_standard_target`.
const VERDICT: usize = 32;
/// As the old tables write it.
const DROP: i32 = -1;

impl Legacy {
    /// Whether it drops what is forwarded and no rule says otherwise, and no rule is about the bridge.
    pub(crate) fn drops(&self, bridge: &str) -> Result<bool> {
        let names = fs::read_to_string(self.names).unwrap_or_default();
        if !names.lines().any(|name| name == "filter") {
            return Ok(false);
        }
        let (policy, entries) = self
            .read()
            .context(|| format!("read the table filter of {}", self.program))?;
        let drops = policy_at(&entries, policy, self.target_offset)
            .ok_or_else(|| Error::failed(format!("the table filter of {} is cut", self.program)))?
            == DROP;
        let name = [bridge.as_bytes(), &[0]].concat();
        Ok(drops && !entries.windows(name.len()).any(|bytes| bytes == name))
    }

    /// Where the policy of FORWARD is among the entries, and these.
    fn read(&self) -> nix::Result<(usize, Vec<u8>)> {
        let raw = Some(SockProtocol::Raw);
        let socket = socket(self.family, SockType::Raw, SockFlag::SOCK_CLOEXEC, raw)?;
        loop {
            let mut info = [0; INFO];
            info[..6].copy_from_slice(b"filter");
            sys::socket_option(&socket, self.level, GET_INFO, &mut info)?;
            let number =
                |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"));
            let mut entries = vec![0; HEADER + number(SIZE) as usize];
            entries[..NAME].copy_from_slice(&info[..NAME]);
            entries[NAME..NAME + 4].copy_from_slice(&info[SIZE..]);
            match sys::socket_option(&socket, self.level, GET_ENTRIES, &mut entries) {
                // It has changed in between.
                Err(Errno::EAGAIN) => {}
                read => {
                    let policy = number(POLICIES + 4 * NF_INET_FORWARD as usize);
                    return read.map(|()| (policy as usize, entries.split_off(HEADER)));
                }
            }
        }
    }
}

/// The verdict of the entry at `at`.
fn policy_at(entries: &[u8], at: usize, target_offset: usize) -> Option<i32> {
    let target = entries.get(at + target_offset..)?.first_chunk()?;
    let verdict = at + usize::from(u16::from_ne_bytes(*target)) + VERDICT;
    let verdict = entries.get(verdict..)?.first_chunk()?;
    Some(i32::from_ne_bytes(*verdict))
}
