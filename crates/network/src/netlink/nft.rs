//! nftables as netlink messages: tables, chains, maps, and rules made of the expressions that ours need.
//!
//! The numbers are those of the kernel's `linux/netfilter/nf_tables.h`; `libc` has only some of them. What a rule is here, `nft
//! --debug=netlink` prints for the same rule.

use std::net::IpAddr;

use libc::{NFNL_SUBSYS_NFTABLES, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};

use super::message::{Attributes, Message};
use super::route::octets;
use super::{Refusal, Socket};

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_ID: u16 = 10;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// The first of the four registers of 16 bytes.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// Elements that go into one message; a list of them is an attribute and below 64 KiB.
const ELEMENTS_AT_ONCE: usize = 256;

/// Whose packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Inet = 1,
    Ip = 2,
    Ip6 = 10,
}

/// A table, as every message names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table<'a> {
    pub(crate) family: Family,
    pub(crate) name: &'a str,
}

/// An end of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Head,
    Tail,
}

/// Where a base chain stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    /// `NF_INET_PRE_ROUTING`…
    pub(crate) number: i32,
    pub(crate) priority: i32,
}

/// The data types of nft(8) that our maps are made of, by the numbers with which it shows them again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Type {
    Ipv4Address = 7,
    Ipv6Address = 8,
    Protocol = 12,
    Port = 13,
}

impl Type {
    fn length(self) -> u32 {
        match self {
            Type::Ipv6Address => 16,
            // Everything takes whole registers of four bytes.
            _ => 4,
        }
    }
}

/// Several types in one key: six bits for each.
fn concatenated(types: &[Type]) -> (u32, u32) {
    types.iter().fold((0, 0), |(number, length), kind| {
        (number << 6 | *kind as u32, length + kind.length())
    })
}

fn message(kind: i32, flags: i32, family: Family, attributes: Attributes) -> Message {
    let kind = (NFNL_SUBSYS_NFTABLES << 8 | kind) as u16;
    Message::new(kind, flags, &[family as u8, 0, 0, 0], attributes)
}

impl Table<'_> {
    pub(crate) fn add(self) -> Message {
        let attributes = Attributes::new().text(TABLE_NAME, self.name);
        message(
            libc::NFT_MSG_NEWTABLE,
            NLM_F_CREATE,
            self.family,
            attributes,
        )
    }

    pub(crate) fn delete(self) -> Message {
        let attributes = Attributes::new().text(TABLE_NAME, self.name);
        message(libc::NFT_MSG_DELTABLE, 0, self.family, attributes)
    }

    /// A chain; packets come to it by its hook, or by a jump.
    pub(crate) fn add_chain(self, name: &str, hook: Option<Hook>) -> Message {
        let mut attributes = Attributes::new()
            .text(CHAIN_TABLE, self.name)
            .text(CHAIN_NAME, name);
        if let Some(hook) = hook {
            let place = Attributes::new()
                .be32(HOOK_NUMBER, hook.number as u32)
                .be32(HOOK_PRIORITY, hook.priority as u32);
            attributes = attributes
                .text(CHAIN_TYPE, hook.kind)
                .nest(CHAIN_HOOK, place);
        }
        message(
            libc::NFT_MSG_NEWCHAIN,
            NLM_F_CREATE,
            self.family,
            attributes,
        )
    }

    /// A rule at the end of a chain.
    pub(crate) fn add_rule(self, chain: &str, rule: Rule) -> Message {
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        message(
            libc::NFT_MSG_NEWRULE,
            flags,
            self.family,
            self.rule(chain, rule),
        )
    }

    /// A rule at the head or the end of a chain that belongs to somebody else, with a mark by which it is found again.
    pub(crate) fn add_marked_rule(self, chain: &str, at: End, rule: Rule, mark: &[u8]) -> Message {
        let attributes = self.rule(chain, rule).bytes(RULE_USERDATA, mark);
        let flags = match at {
            End::Head => NLM_F_CREATE,
            End::Tail => NLM_F_CREATE | NLM_F_APPEND,
        };
        message(libc::NFT_MSG_NEWRULE, flags, self.family, attributes)
    }

    fn rule(self, chain: &str, rule: Rule) -> Attributes {
        Attributes::new()
            .text(RULE_TABLE, self.name)
            .text(RULE_CHAIN, chain)
            .nest(RULE_EXPRESSIONS, rule.0)
    }

    pub(crate) fn delete_rule(self, chain: &str, handle: u64) -> Message {
        let attributes = Attributes::new()
            .text(RULE_TABLE, self.name)
            .text(RULE_CHAIN, chain)
            .bytes(RULE_HANDLE, &handle.to_be_bytes());
        message(libc::NFT_MSG_DELRULE, 0, self.family, attributes)
    }

    /// A map from concatenated values to concatenated values. The id tells the maps of one transaction apart.
    pub(crate) fn add_map(self, name: &str, id: u32, key: &[Type], data: &[Type]) -> Message {
        let (key_type, key_length) = concatenated(key);
        let (data_type, data_length) = concatenated(data);
        let attributes = Attributes::new()
            .text(SET_TABLE, self.name)
            .text(SET_NAME, name)
            .be32(SET_FLAGS, libc::NFT_SET_MAP as u32)
            .be32(SET_KEY_TYPE, key_type)
            .be32(SET_KEY_LENGTH, key_length)
            .be32(SET_DATA_TYPE, data_type)
            .be32(SET_DATA_LENGTH, data_length)
            .be32(SET_ID, id);
        message(libc::NFT_MSG_NEWSET, NLM_F_CREATE, self.family, attributes)
    }

    /// Elements of a map: keys and data as the registers hold them.
    pub(crate) fn add_elements(
        self,
        map: &str,
        elements: &[(Vec<u8>, Vec<u8>)],
    ) -> impl Iterator<Item = Message> {
        elements.chunks(ELEMENTS_AT_ONCE).map(move |elements| {
            let mut list = Attributes::new();
            for (key, data) in elements {
                let value = |bytes| Attributes::new().bytes(DATA_VALUE, bytes);
                let element = Attributes::new()
                    .nest(ELEMENT_KEY, value(key))
                    .nest(ELEMENT_DATA, value(data));
                list = list.nest(LIST_ELEMENT, element);
            }
            let attributes = Attributes::new()
                .text(ELEMENTS_TABLE, self.name)
                .text(ELEMENTS_SET, map)
                .nest(ELEMENTS, list);
            message(
                libc::NFT_MSG_NEWSETELEM,
                NLM_F_CREATE,
                self.family,
                attributes,
            )
        })
    }
}

/// The expressions of one rule, from left to right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule(Attributes);

impl Rule {
    pub(crate) fn new() -> Self {
        Rule::default()
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn expression(self, name: &str, data: Attributes) -> Self {
        let expression = Attributes::new()
            .text(EXPRESSION_NAME, name)
            .nest(EXPRESSION_DATA, data);
        Rule(self.0.nest(LIST_ELEMENT, expression))
    }

    fn meta(self, key: i32) -> Self {
        let data = Attributes::new().be32(2, key as u32).be32(1, REGISTER);
        self.expression("meta", data)
    }

    fn compare(self, equal: bool, value: &[u8]) -> Self {
        let value = Attributes::new().bytes(DATA_VALUE, value);
        let data = Attributes::new()
            .be32(1, REGISTER)
            .be32(2, u32::from(!equal))
            .nest(3, value);
        self.expression("cmp", data)
    }

    fn payload(self, header: u32, offset: u32, length: u32, register: u32) -> Self {
        let data = Attributes::new()
            .be32(1, register)
            .be32(2, header)
            .be32(3, offset)
            .be32(4, length);
        self.expression("payload", data)
    }

    /// `iifname "name"`, or `!=`.
    pub(crate) fn iifname(self, equal: bool, name: &str) -> Self {
        self.meta(libc::NFT_META_IIFNAME)
            .compare(equal, &link(name))
    }

    /// `oifname "name"`, or `!=`.
    pub(crate) fn oifname(self, equal: bool, name: &str) -> Self {
        self.meta(libc::NFT_META_OIFNAME)
            .compare(equal, &link(name))
    }

    /// `ip saddr network/prefix`; the prefix ends at a byte.
    pub(crate) fn source(self, network: IpAddr, prefix: u8) -> Self {
        self.address(network, prefix, false)
    }

    /// `ip daddr network/prefix`; the prefix ends at a byte.
    pub(crate) fn destination(self, network: IpAddr, prefix: u8) -> Self {
        self.address(network, prefix, true)
    }

    fn address(self, network: IpAddr, prefix: u8, destination: bool) -> Self {
        let bytes = prefix / 8;
        let offset = match (network, destination) {
            (IpAddr::V4(_), false) => 12,
            (IpAddr::V4(_), true) => 16,
            (IpAddr::V6(_), false) => 8,
            (IpAddr::V6(_), true) => 24,
        };
        self.protocol(network)
            .payload(NETWORK_HEADER, offset, bytes.into(), REGISTER)
            .compare(true, &octets(network)[..bytes.into()])
    }

    /// Only packets of an address's version.
    fn protocol(self, like: IpAddr) -> Self {
        self.meta(libc::NFT_META_NFPROTO)
            .compare(true, &[version(like)])
    }

    /// `fib daddr type local`: the packet is for this machine.
    pub(crate) fn local(self) -> Self {
        const DESTINATION: u32 = 1 << 1;
        const ADDRESS_TYPE: u32 = 3;
        let data = Attributes::new()
            .be32(3, DESTINATION)
            .be32(2, ADDRESS_TYPE)
            .be32(1, REGISTER);
        self.expression("fib", data)
            .compare(true, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    /// `ct state` or `ct status`: any of these bits.
    pub(crate) fn connection(self, key: i32, bits: u32) -> Self {
        let ct = Attributes::new().be32(2, key as u32).be32(1, REGISTER);
        let value = |number: u32| Attributes::new().bytes(DATA_VALUE, &number.to_ne_bytes());
        let mask = Attributes::new()
            .be32(1, REGISTER)
            .be32(2, REGISTER)
            .be32(3, 4)
            .nest(4, value(bits))
            .nest(5, value(0));
        self.expression("ct", ct)
            .expression("bitwise", mask)
            .compare(false, &[0; 4])
    }

    /// `dnat to meta l4proto [. ip daddr] . th dport map @map`.
    pub(crate) fn dnat_by_map(self, like: IpAddr, with_address: bool, map: &str) -> Self {
        let (address_length, address_offset, port_of_target) = match like {
            IpAddr::V4(_) => (4, 16, libc::NFT_REG32_01 as u32),
            IpAddr::V6(_) => (16, 24, 2),
        };
        let mut rule = self.protocol(like).meta(libc::NFT_META_L4PROTO);
        // The key lies in the quarter registers one behind the other.
        let mut next = libc::NFT_REG32_01 as u32;
        if with_address {
            rule = rule.payload(NETWORK_HEADER, address_offset, address_length, next);
            next += address_length / 4;
        }
        let lookup = Attributes::new()
            .be32(2, REGISTER)
            .be32(3, REGISTER)
            .text(1, map);
        let nat = Attributes::new()
            .be32(1, libc::NFT_NAT_DNAT as u32)
            .be32(2, version(like).into())
            .be32(3, REGISTER)
            .be32(5, port_of_target);
        rule.payload(TRANSPORT_HEADER, 2, 2, next)
            .expression("lookup", lookup)
            .expression("nat", nat)
    }

    pub(crate) fn masquerade(self) -> Self {
        self.expression("masq", Attributes::new())
    }

    pub(crate) fn accept(self) -> Self {
        self.verdict(libc::NF_ACCEPT, None)
    }

    pub(crate) fn drop(self) -> Self {
        self.verdict(libc::NF_DROP, None)
    }

    /// Back to the chain that jumped here.
    pub(crate) fn go_back(self) -> Self {
        const RETURN: i32 = -5;
        self.verdict(RETURN, None)
    }

    pub(crate) fn jump(self, chain: &str) -> Self {
        const JUMP: i32 = -3;
        self.verdict(JUMP, Some(chain))
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let mut verdict = Attributes::new().be32(VERDICT_CODE, code as u32);
        if let Some(chain) = chain {
            verdict = verdict.text(VERDICT_CHAIN, chain);
        }
        let value = Attributes::new().nest(DATA_VERDICT, verdict);
        let data = Attributes::new().be32(1, VERDICT_REGISTER).nest(2, value);
        self.expression("immediate", data)
    }
}

/// The name of a link as the registers hold it.
fn link(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

fn version(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::NFPROTO_IPV4 as u8,
        IpAddr::V6(_) => libc::NFPROTO_IPV6 as u8,
    }
}

impl Socket {
    /// Whether a chain exists, and if it does, whether it drops what none of its rules decides.
    pub(crate) fn chain_drops(
        &mut self,
        table: Table<'_>,
        chain: &str,
    ) -> Result<Option<bool>, Refusal> {
        let attributes = Attributes::new()
            .text(CHAIN_TABLE, table.name)
            .text(CHAIN_NAME, chain);
        let request = message(libc::NFT_MSG_GETCHAIN, 0, table.family, attributes);
        let mut drops = None;
        self.0
            .get(&request, |answer| {
                let policy = answer.attributes(4).be32(CHAIN_POLICY);
                drops = Some(policy == Some(libc::NF_DROP as u32));
            })
            .map(|()| drops)
    }

    /// Whether any rule in a table contains these bytes.
    pub(crate) fn has_rule_with(
        &mut self,
        table: Table<'_>,
        bytes: &[u8],
    ) -> Result<bool, Refusal> {
        let attributes = Attributes::new().text(RULE_TABLE, table.name);
        let request = message(libc::NFT_MSG_GETRULE, NLM_F_DUMP, table.family, attributes);
        let mut found = false;
        self.0
            .get(&request, |answer| {
                let here = answer.attributes(4).text(RULE_TABLE) == Some(table.name);
                found |= here && answer.body.windows(bytes.len()).any(|part| part == bytes);
            })
            .map(|()| found)
    }

    /// The handles of the rules of a chain that carry a mark.
    pub(crate) fn rules_with(
        &mut self,
        table: Table<'_>,
        chain: &str,
        mark: &[u8],
    ) -> Result<Vec<u64>, Refusal> {
        let attributes = Attributes::new()
            .text(RULE_TABLE, table.name)
            .text(RULE_CHAIN, chain);
        let request = message(libc::NFT_MSG_GETRULE, NLM_F_DUMP, table.family, attributes);
        let mut handles = Vec::new();
        self.0
            .get(&request, |answer| {
                let attributes = answer.attributes(4);
                // Old kernels list every chain.
                let here = attributes.text(RULE_CHAIN) == Some(chain);
                if here && attributes.get(RULE_USERDATA) == Some(mark) {
                    let handle = attributes
                        .get(RULE_HANDLE)
                        .and_then(|bytes| bytes.first_chunk());
                    handles.extend(handle.map(|bytes| u64::from_be_bytes(*bytes)));
                }
            })
            .map(|()| handles)
    }
}
