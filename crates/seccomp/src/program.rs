//! From the section to the program: one search through the numbers for each ABI.

use crate::Error;
use crate::abi::{self, Abi};
use crate::action::{KILL_THREAD, NEW_LISTENER, WAIT_KILLABLE_RECV, filter_flags};
use crate::assemble::assemble;
use crate::decision::{Graph, Id, Test, Word};
use crate::outcomes::Outcomes;
use crate::rules::Rules;
use crate::search::{Range, search};
use crate::syscalls::X32_BIT;
use oci_spec::runtime::LinuxSeccomp;

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do: `BPF_LD`, `BPF_JMP` and so on with their modifiers.
    pub code: u16,
    /// How many instructions to skip if a comparison holds.
    pub jt: u8,
    /// How many instructions to skip if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A compiled profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// At most 4096, and at least one.
    pub instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2). TSYNC is left out: it does nothing for a process with one thread.
    pub flags: u32,
    /// Whether a rule notifies a listener: then the flags ask for one, and seccomp(2) returns it.
    pub notify: bool,
    /// Names in the profile that no ABI has, in the profile's order.
    pub skipped: Vec<String>,
}

/// Compiles `linux.seccomp` for this machine's architecture and those that the section lists.
///
/// # Errors
///
/// Names the field: an architecture without a table, an argument that no system call has, an errno that does not fit or
/// that the action does not take, NOTIFY where it cannot be, rules that contradict each other, too large a program.
pub fn compile(section: &LinuxSeccomp) -> Result<Program, Error> {
    compile_for(Abi::NATIVE, section)
}

pub(crate) fn compile_for(native: Abi, section: &LinuxSeccomp) -> Result<Program, Error> {
    let rules = Rules::from_profile(section)?;
    let abis = abi::listed(section, native)?;
    let mut graph = Graph::new();
    let root = decide(&rules, &abis, &mut graph)?;
    let flags = match rules.notify {
        true => filter_flags(section) | NEW_LISTENER,
        // Of no meaning without a listener, and refused by the kernel.
        false => filter_flags(section) & !WAIT_KILLABLE_RECV,
    };
    Ok(Program {
        instructions: assemble(&graph, root)?,
        flags,
        notify: rules.notify,
        skipped: rules.skipped,
    })
}

/// The node that every call starts from. The native ABI is asked for first.
fn decide(rules: &Rules, abis: &[Abi], graph: &mut Graph) -> Result<Id, Error> {
    let default = graph.answer(rules.default);
    let not_listed = graph.answer(KILL_THREAD);
    let mut outcomes = Outcomes::new(rules, graph);
    let mut searches = Vec::with_capacity(abis.len());
    for &abi in abis {
        let ranges = match abi {
            // These two have the same AUDIT_ARCH and are told apart by a bit of the number.
            Abi::X32 if abis.contains(&Abi::X86_64) => continue,
            Abi::X86_64 | Abi::X32 => {
                let mut both = match abis.contains(&Abi::X86_64) {
                    true => outcomes.of(Abi::X86_64)?,
                    false => vec![Range {
                        first: 0,
                        last: X32_BIT - 1,
                        outcome: not_listed,
                    }],
                };
                match abis.contains(&Abi::X32) {
                    true => both.extend(outcomes.of(Abi::X32)?),
                    // -1 is not a call of x32: it is what a tracer writes to have a call skipped.
                    false => both.extend([
                        Range {
                            first: X32_BIT,
                            last: u32::MAX - 1,
                            outcome: not_listed,
                        },
                        Range {
                            first: u32::MAX,
                            last: u32::MAX,
                            outcome: default,
                        },
                    ]),
                }
                both
            }
            _ => outcomes.of(abi)?,
        };
        searches.push((abi.audit_arch(), ranges));
    }
    Ok(searches
        .iter()
        .rev()
        .fold(not_listed, |otherwise, (audit_arch, ranges)| {
            let then = search(graph, ranges);
            graph.branch(Word::AUDIT_ARCH, Test::Equal(*audit_arch), then, otherwise)
        }))
}
