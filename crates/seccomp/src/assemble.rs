//! Laying a graph out as instructions.
//!
//! Classic BPF only jumps forward, and a comparison only over 255 instructions. So the program is written from its end:
//! every node is placed after the nodes it leads to, and where one of them has got too far away, a stepping stone to it
//! is written first. For an answer the stone is a copy of the answer, which is as short as a jump.

use crate::Error;
use crate::decision::{Graph, Id, Node, Test, Word};
use crate::program::Instruction;

/// The kernel's `BPF_MAXINSNS`.
const MOST_INSTRUCTIONS: usize = 4096;

const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// What is in the accumulator when a node is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accumulator {
    NeverReached,
    Holds(Word),
    Unknown,
}

/// The instructions for the nodes that can be reached from `root`.
///
/// # Errors
///
/// If they are more than the kernel accepts.
pub(crate) fn assemble(graph: &Graph, root: Id) -> Result<Vec<Instruction>, Error> {
    let accumulators = accumulators(graph, root);
    let mut code = Backwards {
        code: Vec::with_capacity(512),
        places: vec![NOWHERE; graph.nodes().len()],
        graph,
    };
    for (index, node) in graph.nodes().iter().enumerate() {
        match (*node, accumulators[index]) {
            (_, Accumulator::NeverReached) | (Node::Return(_), _) => {}
            (
                Node::Branch {
                    word,
                    test,
                    then,
                    otherwise,
                },
                before,
            ) => {
                code.branch(test, then, otherwise);
                if before != Accumulator::Holds(word) {
                    code.push(LOAD_WORD, word.offset());
                }
                code.places[index] = code.code.len() as u32 - 1;
            }
        }
    }
    code.bring_near(root, 0);
    let Backwards {
        code: mut instructions,
        ..
    } = code;
    instructions.reverse();
    match instructions.len() {
        0..=MOST_INSTRUCTIONS => Ok(instructions),
        needed => {
            let reason = format!(
                "the profile needs {needed} instructions, more than the kernel's {MOST_INSTRUCTIONS}"
            );
            Err(Error::new("", reason))
        }
    }
}

/// The accumulator before each node, whichever way the node is reached.
fn accumulators(graph: &Graph, root: Id) -> Vec<Accumulator> {
    let mut before = vec![Accumulator::NeverReached; graph.nodes().len()];
    before[root.index()] = Accumulator::Unknown;
    for (index, node) in graph.nodes().iter().enumerate().rev() {
        let Node::Branch {
            word,
            test,
            then,
            otherwise,
        } = *node
        else {
            continue;
        };
        if before[index] == Accumulator::NeverReached {
            continue;
        }
        let after = match destructive(test) {
            true => Accumulator::Unknown,
            false => Accumulator::Holds(word),
        };
        for next in [then, otherwise] {
            let known = &mut before[next.index()];
            *known = match *known {
                Accumulator::NeverReached => after,
                same if same == after => same,
                _ => Accumulator::Unknown,
            };
        }
    }
    before
}

/// Whether the test needs the accumulator masked: a comparison with no bit or the only bit of the mask does not.
fn destructive(test: Test) -> bool {
    match test {
        Test::Masked { mask, value } => value != 0 && !(value == mask && mask.is_power_of_two()),
        _ => false,
    }
}

/// The place of a node that has not been written yet.
const NOWHERE: u32 = u32::MAX;

/// A program whose last instruction comes first.
struct Backwards<'a> {
    code: Vec<Instruction>,
    /// The nearest place at which each node begins, or [`NOWHERE`].
    places: Vec<u32>,
    graph: &'a Graph,
}

impl Backwards<'_> {
    fn push(&mut self, code: u16, k: u32) {
        self.code.push(Instruction {
            code,
            jt: 0,
            jf: 0,
            k,
        });
    }

    /// Writes a comparison of the accumulator.
    fn branch(&mut self, test: Test, then: Id, otherwise: Id) {
        let (code, k, then, otherwise) = match test {
            Test::Equal(value) => (JUMP_IF_EQUAL, value, then, otherwise),
            Test::Greater(value) => (JUMP_IF_GREATER, value, then, otherwise),
            Test::AtLeast(value) => (JUMP_IF_AT_LEAST, value, then, otherwise),
            Test::Masked { mask, value: 0 } => (JUMP_IF_ANY_BIT, mask, otherwise, then),
            Test::Masked { mask, .. } if !destructive(test) => {
                (JUMP_IF_ANY_BIT, mask, then, otherwise)
            }
            Test::Masked { value, .. } => (JUMP_IF_EQUAL, value, then, otherwise),
        };
        // A stone for the second may put the first out of reach.
        while self.bring_near(then, 255) || self.bring_near(otherwise, 255) {}
        let (jt, jf) = (self.distance(then) as u8, self.distance(otherwise) as u8);
        self.code.push(Instruction { code, jt, jf, k });
        if let Test::Masked { mask, .. } = test
            && destructive(test)
        {
            self.push(AND, mask);
        }
    }

    /// Makes the next instruction find `id` within `reach`; whether anything had to be written for it.
    fn bring_near(&mut self, id: Id, reach: usize) -> bool {
        if self.places[id.index()] != NOWHERE && self.distance(id) <= reach {
            return false;
        }
        match self.graph.nodes()[id.index()] {
            Node::Return(value) => self.push(RETURN, value),
            Node::Branch { .. } => self.push(JUMP, self.distance(id) as u32),
        }
        self.places[id.index()] = self.code.len() as u32 - 1;
        true
    }

    /// How many instructions the next one has to skip to get to `id`.
    fn distance(&self, id: Id) -> usize {
        self.code.len() - 1 - self.places[id.index()] as usize
    }
}
