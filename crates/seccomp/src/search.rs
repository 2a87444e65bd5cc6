//! Finding a number's range with few comparisons.

use crate::decision::{Graph, Id, Test, Word};

/// How many single numbers are compared one after the other before it pays to halve the search.
const EXCEPTIONS: usize = 3;

/// Adjacent system call numbers with the same outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) outcome: Id,
}

/// The nodes that lead from a system call's number to its outcome.
///
/// `ranges` are in order, without gaps or overlaps, and not empty.
pub(crate) fn search(graph: &mut Graph, ranges: &[Range]) -> Id {
    if let Some(usual) = usual_outcome(ranges) {
        return ranges
            .iter()
            .rev()
            .filter(|range| range.outcome != usual)
            .fold(usual, |otherwise, range| {
                graph.branch(
                    Word::NUMBER,
                    Test::Equal(range.first),
                    range.outcome,
                    otherwise,
                )
            });
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let otherwise = search(graph, left);
    let then = search(graph, right);
    graph.branch(Word::NUMBER, Test::AtLeast(right[0].first), then, otherwise)
}

/// The outcome of all the numbers but a few single ones.
fn usual_outcome(ranges: &[Range]) -> Option<Id> {
    ranges
        .iter()
        .take(2)
        .map(|range| range.outcome)
        .find(|&usual| {
            let mut exceptions = ranges.iter().filter(|range| range.outcome != usual);
            exceptions.clone().count() <= EXCEPTIONS
                && exceptions.all(|range| range.first == range.last)
        })
}
