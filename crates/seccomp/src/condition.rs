//! Conditions on the arguments of a system call.

use crate::Error;
use crate::abi::Width;
use crate::decision::{Graph, Id, Test, Word};
use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator as Operator};
use std::cmp::Reverse;
use std::num::NonZeroU8;

/// Names of the operators that [`Condition::from_profile`] knows.
pub(crate) static OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

const ARGUMENTS: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A comparison of one argument, without sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Condition {
    argument: u8,
    comparison: Comparison,
    value: u64,
    /// The bits that are compared: all of them, but for masked equality.
    mask: u64,
}

impl Condition {
    /// `field` is the path of the condition in the profile.
    pub(crate) fn from_profile(
        arg: &LinuxSeccompArg,
        field: impl Fn() -> String,
    ) -> Result<Self, Error> {
        if arg.index() >= ARGUMENTS {
            let reason = format!(
                "{} is not an argument of a system call (0 to {})",
                arg.index(),
                ARGUMENTS - 1
            );
            return Err(Error::new(field() + ".index", reason));
        }
        let (comparison, value, mask) = match arg.op() {
            Operator::ScmpCmpEq => (Comparison::Equal, arg.value(), u64::MAX),
            Operator::ScmpCmpNe => (Comparison::NotEqual, arg.value(), u64::MAX),
            Operator::ScmpCmpLt => (Comparison::Less, arg.value(), u64::MAX),
            Operator::ScmpCmpLe => (Comparison::LessOrEqual, arg.value(), u64::MAX),
            Operator::ScmpCmpGt => (Comparison::Greater, arg.value(), u64::MAX),
            Operator::ScmpCmpGe => (Comparison::GreaterOrEqual, arg.value(), u64::MAX),
            // Bits of valueTwo outside of the mask are not compared, as with libseccomp.
            Operator::ScmpCmpMaskedEq => (
                Comparison::Equal,
                arg.value_two().unwrap_or(0) & arg.value(),
                arg.value(),
            ),
        };
        Ok(Self {
            argument: arg.index() as u8,
            comparison,
            value,
            mask,
        })
    }

    /// The condition that socketcall(2) or ipc(2) is asked for the call with this code.
    pub(crate) fn multiplexed_call(code: NonZeroU8) -> Self {
        Self {
            argument: 0,
            comparison: Comparison::Equal,
            value: code.get().into(),
            mask: u64::MAX,
        }
    }

    pub(crate) fn argument(self) -> u8 {
        self.argument
    }

    /// The condition as an ABI of that width can see it; `None` if nothing is left to compare.
    pub(crate) fn narrowed(self, width: Width) -> Option<Self> {
        let visible = match width {
            Width::Bits32 => u64::from(u32::MAX),
            Width::Bits64 => u64::MAX,
        };
        let mask = self.mask & visible;
        (mask != 0).then_some(Self {
            value: self.value & visible,
            mask,
            ..self
        })
    }

    /// Sorts conditions as libseccomp tries them: later arguments first, then equality before upper before lower
    /// bounds, then the narrower bound or the larger value.
    pub(crate) fn precedence(self) -> impl Ord + use<> {
        let (class, value) = match self.comparison {
            Comparison::Equal | Comparison::NotEqual => (0, !self.value),
            Comparison::Less | Comparison::LessOrEqual => (1, self.value),
            Comparison::Greater | Comparison::GreaterOrEqual => (2, !self.value),
        };
        (Reverse(self.argument), class, value)
    }

    /// The nodes that lead to `matched` where the condition holds and to `unmatched` where it does not.
    pub(crate) fn decide(self, graph: &mut Graph, width: Width, matched: Id, unmatched: Id) -> Id {
        let low = self.value as u32;
        let (test, then, otherwise) = match self.comparison {
            Comparison::Equal => return self.decide_equal(graph, width, matched, unmatched),
            Comparison::NotEqual => return self.decide_equal(graph, width, unmatched, matched),
            Comparison::Greater => (Test::Greater(low), matched, unmatched),
            Comparison::GreaterOrEqual => (Test::AtLeast(low), matched, unmatched),
            Comparison::Less => (Test::AtLeast(low), unmatched, matched),
            Comparison::LessOrEqual => (Test::Greater(low), unmatched, matched),
        };
        match width {
            Width::Bits32 => graph.branch(Word::low(self.argument), test, then, otherwise),
            Width::Bits64 => self.decide_bound(graph, test, then, otherwise),
        }
    }

    /// `then` where the argument's lower half passes `test` or its upper half is larger than the value's.
    fn decide_bound(self, graph: &mut Graph, test: Test, then: Id, otherwise: Id) -> Id {
        let (high_word, high) = (Word::high(self.argument), (self.value >> 32) as u32);
        let then_if_high_equal = graph.given_equal(then, high_word, high);
        let otherwise_if_high_equal = graph.given_equal(otherwise, high_word, high);
        let low = graph.branch(
            Word::low(self.argument),
            test,
            then_if_high_equal,
            otherwise_if_high_equal,
        );
        if high == 0 {
            return graph.equal(high_word, high, low, then);
        }
        let not_greater = graph.equal(high_word, high, low, otherwise);
        graph.branch(high_word, Test::Greater(high), then, not_greater)
    }

    fn decide_equal(self, graph: &mut Graph, width: Width, then: Id, otherwise: Id) -> Id {
        let (low_word, high_word) = (Word::low(self.argument), Word::high(self.argument));
        let (low, high) = (self.value as u32, (self.value >> 32) as u32);
        let (low_mask, high_mask) = (self.mask as u32, (self.mask >> 32) as u32);
        match (width, high_mask) {
            (Width::Bits32, _) | (_, 0) => compare(graph, low_word, low_mask, low, then, otherwise),
            (_, u32::MAX) => {
                let then = graph.given_equal(then, high_word, high);
                let otherwise_if_high_equal = graph.given_equal(otherwise, high_word, high);
                let low = compare(
                    graph,
                    low_word,
                    low_mask,
                    low,
                    then,
                    otherwise_if_high_equal,
                );
                graph.equal(high_word, high, low, otherwise)
            }
            _ => {
                let low = compare(graph, low_word, low_mask, low, then, otherwise);
                compare(graph, high_word, high_mask, high, low, otherwise)
            }
        }
    }
}

fn compare(graph: &mut Graph, word: Word, mask: u32, value: u32, then: Id, otherwise: Id) -> Id {
    match mask {
        u32::MAX => graph.equal(word, value, then, otherwise),
        _ => graph.branch(word, Test::Masked { mask, value }, then, otherwise),
    }
}
