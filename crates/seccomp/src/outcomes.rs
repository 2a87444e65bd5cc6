//! What each system call number of an ABI leads to.

use crate::Error;
use crate::abi::{Abi, Width};
use crate::condition::Condition;
use crate::decision::{Graph, Id};
use crate::rules::{Rule, Rules};
use crate::search::Range;
use crate::syscalls::{ARM_PRIVATE, X32_BIT};
use std::mem;
use std::num::NonZeroU8;

/// The outcomes of several ABIs; calls with the same conditions share their nodes.
pub(crate) struct Outcomes<'a> {
    rules: &'a Rules,
    graph: &'a mut Graph,
    chains: Vec<(Width, Vec<Clause>, Id)>,
    /// The calls of the ABI at hand.
    calls: Vec<Call>,
}

/// One rule for one number.
#[derive(Clone, Copy)]
struct Call {
    number: u32,
    /// Position among all the calls, which is the order of the profile.
    order: u32,
    rule: u32,
    /// The first argument that makes a multiplexing call this call.
    code: Option<NonZeroU8>,
}

/// Conditions that lead to an action when they all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    conditions: Vec<Condition>,
    action: u32,
    order: usize,
    rule: u32,
}

impl<'a> Outcomes<'a> {
    pub(crate) fn new(rules: &'a Rules, graph: &'a mut Graph) -> Self {
        Self {
            rules,
            graph,
            chains: Vec::new(),
            calls: Vec::with_capacity(rules.named.len()),
        }
    }

    /// Ranges over all the numbers that a call of this ABI can have.
    pub(crate) fn of(&mut self, abi: Abi) -> Result<Vec<Range>, Error> {
        let highest = self.collect(abi);
        let calls = mem::take(&mut self.calls);
        let default = self.graph.answer(self.rules.default);
        let newer = self.graph.answer(self.rules.newer);
        let (first, last) = match abi {
            Abi::X86_64 => (0, X32_BIT - 1),
            Abi::X32 => (X32_BIT, u32::MAX),
            _ => (0, u32::MAX),
        };
        // A profile that names no call of this ABI says nothing about what is newer than it.
        let known_up_to = highest.map_or(last, |highest| highest.max(first));

        let mut ranges = Ranges {
            next: Some(first),
            ranges: Vec::with_capacity(128),
        };
        for same in calls.chunk_by(|a, b| a.number == b.number) {
            if let Some(before) = same[0].number.checked_sub(1) {
                ranges.fill(before.min(known_up_to), default);
                ranges.fill(before, newer);
            }
            let outcome = self.outcome(abi, same)?;
            ranges.fill(same[0].number, outcome);
        }
        ranges.fill(known_up_to, default);
        ranges.fill(last, newer);
        self.calls = calls;
        Ok(ranges.ranges)
    }

    /// Sets `calls` to those whose outcome may differ from the default, by number and then in the profile's order, and
    /// returns the highest number that the profile names. arm's private calls do not tell how new a kernel is.
    fn collect(&mut self, abi: Abi) -> Option<u32> {
        self.calls.clear();
        let mut highest = None;
        for &(call, rule) in &self.rules.named {
            let multiplexed = call
                .multiplexed(abi)
                .map(|(number, code)| (number, Some(code)));
            let direct = call.number(abi).map(|number| (number, None));
            for (number, code) in multiplexed.into_iter().chain(direct) {
                if abi != Abi::Arm || number < ARM_PRIVATE {
                    highest = highest.max(Some(number));
                }
                if self.rules.rules[rule as usize].action != self.rules.default {
                    let order = self.calls.len() as u32;
                    self.calls.push(Call {
                        number,
                        order,
                        rule,
                        code,
                    });
                }
            }
        }
        self.calls
            .sort_unstable_by_key(|call| (u64::from(call.number) << 32) | u64::from(call.order));
        highest
    }

    /// What the rules for one number lead to.
    fn outcome(&mut self, abi: Abi, calls: &[Call]) -> Result<Id, Error> {
        let width = abi.width();
        let mut clauses = Vec::with_capacity(if calls.len() > 1 { calls.len() } else { 0 });
        for call in calls {
            let Rule {
                action,
                ref alternatives,
            } = self.rules.rules[call.rule as usize];
            for conditions in alternatives {
                let conditions = visible(conditions, width, call.code);
                if conditions.is_empty() {
                    return Ok(self.graph.answer(action));
                }
                clauses.push(Clause {
                    conditions,
                    action,
                    order: clauses.len(),
                    rule: call.rule,
                });
            }
        }
        let clauses = in_precedence(abi, clauses)?;
        if let Some((.., id)) = self
            .chains
            .iter()
            .find(|(known, same, _)| (*known, same) == (width, &clauses))
        {
            return Ok(*id);
        }
        let mut first = self.graph.answer(self.rules.default);
        for clause in clauses.iter().rev() {
            let mut matched = self.graph.answer(clause.action);
            for condition in clause.conditions.iter().rev() {
                matched = condition.decide(self.graph, width, matched, first);
            }
            first = matched;
        }
        self.chains.push((width, clauses, first));
        Ok(first)
    }
}

/// The conditions as an ABI of that width sees them; the code of a multiplexed call takes the place of a condition on
/// the first argument, since the call's own arguments are in memory, where a filter cannot look.
fn visible(conditions: &[Condition], width: Width, code: Option<NonZeroU8>) -> Vec<Condition> {
    let own = conditions
        .iter()
        .filter(|condition| code.is_none() || condition.argument() != 0);
    let code = code.map(Condition::multiplexed_call);
    let all = code.into_iter().chain(own.copied());
    // `collect` would take room for four.
    let mut visible = Vec::with_capacity(conditions.len() + usize::from(code.is_some()));
    visible.extend(all.filter_map(|condition| condition.narrowed(width)));
    visible
}

/// Sorts clauses so that the first one that holds decides, without those that never would.
///
/// The order is libseccomp's. If all conditions of one clause are also the first ones of another, the other one is not
/// needed; but if it has another action and came first, the profile contradicts itself, as libseccomp sees it.
fn in_precedence(abi: Abi, mut clauses: Vec<Clause>) -> Result<Vec<Clause>, Error> {
    clauses.sort_by(|a, b| a.conditions.cmp(&b.conditions));
    let mut kept: Vec<Clause> = Vec::with_capacity(clauses.len());
    for clause in clauses {
        match kept.last() {
            Some(wider) if clause.conditions.starts_with(&wider.conditions) => {
                let same = clause.conditions.len() == wider.conditions.len();
                if clause.action != wider.action && (same || wider.order > clause.order) {
                    let (earlier, later) =
                        (clause.rule.min(wider.rule), clause.rule.max(wider.rule));
                    let reason = format!(
                        "gives another action than syscalls[{earlier}] for the same {abi:?} arguments"
                    );
                    return Err(Error::new(format!(".syscalls[{later}]"), reason));
                }
            }
            _ => kept.push(clause),
        }
    }
    if kept.iter().any(|clause| clause.action != kept[0].action) {
        kept.sort_by_cached_key(|clause| {
            let conditions: Vec<_> = clause
                .conditions
                .iter()
                .map(|condition| condition.precedence())
                .collect();
            (conditions, clause.order)
        });
    }
    Ok(kept)
}

/// Ranges without gaps, from the lowest number upwards.
struct Ranges {
    /// The first number without an outcome; `None` after the very last number.
    next: Option<u32>,
    ranges: Vec<Range>,
}

impl Ranges {
    /// Gives `outcome` to the numbers up to and including `last` that have none yet.
    fn fill(&mut self, last: u32, outcome: Id) {
        let Some(first) = self.next.filter(|&next| next <= last) else {
            return;
        };
        self.next = last.checked_add(1);
        match self.ranges.last_mut() {
            Some(range) if range.outcome == outcome => range.last = last,
            _ => self.ranges.push(Range {
                first,
                last,
                outcome,
            }),
        }
    }
}
