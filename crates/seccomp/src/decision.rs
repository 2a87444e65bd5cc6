//! The program as a graph: comparisons of one word each, ending in what the filter returns.
//!
//! A node is made after the nodes it leads to, so a larger [`Id`] always stands before a smaller one on every path.

/// A node of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(u32);

impl Id {
    /// Position in [`Graph::nodes`].
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a word stands in the kernel's `struct seccomp_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u8);

impl Word {
    pub(crate) const NUMBER: Self = Self(0);
    pub(crate) const AUDIT_ARCH: Self = Self(4);

    /// The lower half of a system call's argument.
    pub(crate) fn low(argument: u8) -> Self {
        Self(16 + 8 * argument)
    }

    /// The upper half of a system call's argument.
    pub(crate) fn high(argument: u8) -> Self {
        Self(20 + 8 * argument)
    }

    /// In bytes from the beginning of the structure.
    pub(crate) fn offset(self) -> u32 {
        u32::from(self.0)
    }
}

/// A comparison of a word, as the processor of classic BPF can make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Equal(u32),
    Greater(u32),
    AtLeast(u32),
    Masked { mask: u32, value: u32 },
}

impl Test {
    fn holds(self, word: u32) -> bool {
        match self {
            Self::Equal(value) => word == value,
            Self::Greater(value) => word > value,
            Self::AtLeast(value) => word >= value,
            Self::Masked { mask, value } => word & mask == value,
        }
    }

    /// The outcome, where it is the same for every word.
    fn foregone(self) -> Option<bool> {
        match self {
            Self::AtLeast(0) | Self::Masked { mask: 0, value: 0 } => Some(true),
            Self::Greater(u32::MAX) => Some(false),
            Self::Masked { mask, value } if value & !mask != 0 => Some(false),
            _ => None,
        }
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Return(u32),
    Branch {
        word: Word,
        test: Test,
        then: Id,
        otherwise: Id,
    },
}

/// Nodes in the order in which they were made. Some may have become unreachable.
#[derive(Debug)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    /// The `Return` nodes: one for each value.
    answers: Vec<(u32, Id)>,
}

impl Graph {
    pub(crate) fn new() -> Self {
        Self {
            nodes: Vec::with_capacity(512),
            answers: Vec::with_capacity(8),
        }
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that ends the program with `value`.
    pub(crate) fn answer(&mut self, value: u32) -> Id {
        if let Some(&(_, id)) = self.answers.iter().find(|&&(known, _)| known == value) {
            return id;
        }
        let id = self.push(Node::Return(value));
        self.answers.push((value, id));
        id
    }

    /// A node that compares `word`, or the one of the two that it would always lead to.
    pub(crate) fn branch(&mut self, word: Word, test: Test, then: Id, otherwise: Id) -> Id {
        match test.foregone() {
            _ if then == otherwise => then,
            Some(true) => then,
            Some(false) => otherwise,
            None => self.push(Node::Branch {
                word,
                test,
                then,
                otherwise,
            }),
        }
    }

    /// A comparison of a word for equality, which neither way leads to a second comparison with the same outcome.
    pub(crate) fn equal(&mut self, word: Word, value: u32, then: Id, otherwise: Id) -> Id {
        let then = self.given_equal(then, word, value);
        let otherwise = self.given_unequal(otherwise, word, value);
        self.branch(word, Test::Equal(value), then, otherwise)
    }

    /// Where one gets to from `id` if `word` is known to be `value`.
    pub(crate) fn given_equal(&self, mut id: Id, word: Word, value: u32) -> Id {
        while let Node::Branch {
            word: compared,
            test,
            then,
            otherwise,
        } = self.nodes[id.index()]
            && compared == word
        {
            id = if test.holds(value) { then } else { otherwise };
        }
        id
    }

    /// Where one gets to from `id` if `word` is known not to be `value`.
    fn given_unequal(&self, mut id: Id, word: Word, value: u32) -> Id {
        while let Node::Branch {
            word: compared,
            test: Test::Equal(wanted),
            otherwise,
            ..
        } = self.nodes[id.index()]
            && (compared, wanted) == (word, value)
        {
            id = otherwise;
        }
        id
    }

    fn push(&mut self, node: Node) -> Id {
        let id = Id(self.nodes.len() as u32);
        self.nodes.push(node);
        id
    }
}
