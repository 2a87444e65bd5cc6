//! Device rules as an eBPF program (`BPF_PROG_TYPE_CGROUP_DEVICE`). Kernel: `bpf/standardization/instruction-set.rst`.

use super::rules::{ALL, Rule};

// Instruction classes, sizes, sources and operations; only what is used here.
const LDX_MEM_W: u8 = 0x61;
const ALU_AND_K: u8 = 0x54;
const ALU_RSH_K: u8 = 0x74;
const ALU64_MOV_K: u8 = 0xb7;
const ALU64_MOV_X: u8 = 0xbf;
const JMP_JA: u8 = 0x05;
const JMP_EXIT: u8 = 0x95;
// 32 bits wide, so that a large device number is not compared with its sign extension (Linux 5.1).
const JMP32_JEQ_K: u8 = 0x16;
const JMP32_JNE_K: u8 = 0x56;
const JMP32_JSET_K: u8 = 0x46;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// The requested accesses that no rule has allowed yet.
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Encodes one instruction as the kernel lays it out: opcode, registers, offset, immediate.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> u64 {
    let [offset_low, offset_high] = offset.to_ne_bytes();
    let [a, b, c, d] = immediate.to_ne_bytes();
    // The two registers share a byte as bit fields, whose order follows the byte order.
    let registers = if cfg!(target_endian = "little") {
        source << 4 | destination
    } else {
        destination << 4 | source
    };
    u64::from_ne_bytes([code, registers, offset_low, offset_high, a, b, c, d])
}

/// A step of a program whose length is not known yet.
#[derive(Clone, Copy)]
enum Step {
    Plain(u64),
    /// A jump to the verdict, if the register and the value meet its condition.
    Decide {
        allow: bool,
        code: u8,
        register: u8,
        value: u32,
    },
}

/// A jump to the verdict.
fn decide(allow: bool, code: u8, register: u8, value: u32) -> Step {
    Step::Decide {
        allow,
        code,
        register,
        value,
    }
}

/// Whatever was asked for.
fn always(allow: bool) -> Step {
    decide(allow, JMP_JA, 0, 0)
}

/// What a rule may name of a device, and where the program has it.
type Test = (u8, fn(&Rule) -> Option<u32>);

const TESTS: [Test; 3] = [
    (KIND, |rule| rule.set.kind.map(|kind| kind as u32)),
    (MAJOR, |rule| rule.set.major),
    (MINOR, |rule| rule.set.minor),
];

/// Compiles the rules. The last rule that names a device and an access decides about it, which is why the program asks them
/// from the last to the first: a denied access ends it, an allowed one is ticked off. What is never ticked off is denied.
///
/// Whoever loads it waits for the verifier, which goes every way through it: rules side by side share what they test, and all of them two ends.
pub(super) fn compile(rules: &[Rule]) -> Vec<u64> {
    let rules: Vec<_> = rules.iter().rev().collect();
    let mut steps = Vec::new();
    if !add(&mut steps, &rules, &TESTS) {
        steps.push(always(false));
    }
    // Its last step is where it goes on, so that end comes first; the other one only if somebody goes there: the verifier refuses code that
    // is never reached.
    let last = steps.pop();
    let allows = |step: &Step| matches!(step, Step::Decide { allow: true, .. });
    let denies = |step: &Step| matches!(step, Step::Decide { allow: false, .. });
    let first = last.as_ref().is_some_and(allows);
    let has_other = match first {
        true => steps.iter().any(denies),
        false => steps.iter().any(allows),
    };
    // struct bpf_cgroup_dev_ctx { u32 access_type (access << 16 | type), major, minor }
    let mut program = vec![
        instruction(LDX_MEM_W, KIND, CONTEXT, 0, 0),
        instruction(ALU64_MOV_X, OPEN, KIND, 0, 0),
        instruction(ALU_AND_K, KIND, 0, 0, 0xffff),
        instruction(ALU_RSH_K, OPEN, 0, 0, 16),
        instruction(LDX_MEM_W, MAJOR, CONTEXT, 4, 0),
        instruction(LDX_MEM_W, MINOR, CONTEXT, 8, 0),
    ];
    for (index, step) in steps.iter().enumerate() {
        program.push(match *step {
            Step::Plain(instruction) => instruction,
            Step::Decide {
                allow,
                code,
                register,
                value,
            } => {
                let behind = if allow == first { 0 } else { end(first).len() };
                let over = steps.len() - index - 1 + behind;
                instruction(code, register, 0, over as i16, value)
            }
        });
    }
    program.extend(end(first));
    if has_other {
        program.extend(end(!first));
    }
    program
}

/// Adds rules that need no more than these tests. Whether nothing gets past them.
fn add(steps: &mut Vec<Step>, rules: &[&Rule], tests: &[Test]) -> bool {
    let Some(((register, named), tests)) = tests.split_first() else {
        return add_matching(steps, rules);
    };
    for group in rules.chunk_by(|one, next| named(one) == named(next)) {
        let Some(value) = named(group[0]) else {
            if add(steps, group, tests) {
                return true;
            }
            continue;
        };
        let mut inner = Vec::new();
        add(&mut inner, group, tests);
        if let [
            Step::Decide {
                allow,
                code: JMP_JA,
                ..
            },
        ] = inner[..]
        {
            steps.push(decide(allow, JMP32_JEQ_K, *register, value));
        } else {
            let over = inner.len() as i16;
            steps.push(Step::Plain(instruction(
                JMP32_JNE_K,
                *register,
                0,
                over,
                value,
            )));
            steps.extend(inner);
        }
    }
    false
}

/// Adds rules that name the device. Whether nothing gets past them.
fn add_matching(steps: &mut Vec<Step>, rules: &[&Rule]) -> bool {
    for rule in rules {
        match (rule.allow, rule.access) {
            (allow, ALL) => {
                steps.push(always(allow));
                return true;
            }
            (false, access) => steps.push(decide(false, JMP32_JSET_K, OPEN, access)),
            (true, access) => {
                let others = ALL & !access;
                steps.push(Step::Plain(instruction(ALU_AND_K, OPEN, 0, 0, others)));
                steps.push(decide(true, JMP32_JEQ_K, OPEN, 0));
            }
        }
    }
    false
}

fn end(allow: bool) -> [u64; 2] {
    [
        instruction(ALU64_MOV_K, RESULT, 0, 0, allow.into()),
        instruction(JMP_EXIT, 0, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::rules::tests::rule;
    use super::super::rules::{MKNOD, READ, WRITE};
    use super::*;

    /// Runs a program as the kernel would; panics on what the verifier would refuse.
    fn run(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u64; 11];
        let mut at = 0_usize;
        loop {
            let [code, regs, o0, o1, i0, i1, i2, i3] = program[at].to_ne_bytes();
            let (destination, source) = (usize::from(regs & 15), usize::from(regs >> 4));
            let offset = i16::from_ne_bytes([o0, o1]);
            let immediate = u32::from_ne_bytes([i0, i1, i2, i3]);
            let value = registers[destination] as u32;
            let mut jump = |condition: bool| {
                assert!(offset >= 0, "the program jumps backwards");
                at += if condition { offset as usize } else { 0 };
            };
            match code {
                LDX_MEM_W => registers[destination] = u64::from(context[offset as usize / 4]),
                ALU64_MOV_X => registers[destination] = registers[source],
                ALU64_MOV_K => registers[destination] = immediate.into(),
                ALU_AND_K => registers[destination] = (value & immediate).into(),
                ALU_RSH_K => registers[destination] = (value >> immediate).into(),
                JMP_JA => jump(true),
                JMP32_JEQ_K => jump(value == immediate),
                JMP32_JNE_K => jump(value != immediate),
                JMP32_JSET_K => jump(value & immediate != 0),
                JMP_EXIT => return registers[0] != 0,
                _ => panic!("unknown instruction {code:#x}"),
            }
            at += 1;
        }
    }

    /// Some way goes to each instruction.
    fn is_reached(program: &[u64]) -> bool {
        let mut reached = vec![false; program.len()];
        reached[0] = true;
        for (at, instruction) in program.iter().enumerate() {
            let [code, _, o0, o1, ..] = instruction.to_ne_bytes();
            let target = at + 1 + i16::from_ne_bytes([o0, o1]).unsigned_abs() as usize;
            if reached[at] && matches!(code, JMP_JA | JMP32_JEQ_K | JMP32_JNE_K | JMP32_JSET_K) {
                reached[target] = true;
            }
            if reached[at] && !matches!(code, JMP_JA | JMP_EXIT) {
                reached[at + 1] = true;
            }
        }
        reached.iter().all(|&reached| reached)
    }

    /// The meaning of a list, bit by bit: the last rule that names it decides, nothing means no.
    fn expected(rules: &[Rule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        [MKNOD, READ, WRITE]
            .iter()
            .filter(|&bit| access & bit != 0)
            .all(|bit| {
                let names = |rule: &&Rule| {
                    rule.access & bit != 0
                        && rule.set.kind.is_none_or(|own| own as u32 == kind)
                        && rule.set.major.is_none_or(|own| own == major)
                        && rule.set.minor.is_none_or(|own| own == minor)
                };
                rules
                    .iter()
                    .rev()
                    .find(names)
                    .is_some_and(|rule| rule.allow)
            })
    }

    #[test]
    fn programs_mean_what_the_rules_say() {
        let lists: [&[&str]; 12] = [
            &[],
            &["+a *:* rwm"],
            &["+a *:* rwm", "-c 1:* w", "-c 1:3 rwm", "-b *:* rwm"],
            &["+c 1:3 r", "+c *:* rwm", "-c 1:5 rw", "+c 1:* r"],
            &[
                "-a *:* rwm",
                "+c 1:3 rwm",
                "+c 1:5 rwm",
                "+c 5:0 rwm",
                "+b 1:5 rwm",
            ],
            &["-a *:* rwm"],
            &["+a *:* rwm", "-c 1:3 w"],
            &[
                "-a *:* rwm",
                "+c *:* m",
                "+b *:* m",
                "+c 1:3 rwm",
                "+c 1:5 rw",
                "+c 136:* rwm",
            ],
            &["+c 1:3 r", "+c 1:3 w", "-c 1:* m"],
            &["+c 1:3 rwm", "-a *:* rwm", "+b 8:0 r"],
            &["+a 1:3 rwm", "-b *:* w"],
            &["+c 4294967295:4294967295 rwm"],
        ];
        for list in lists {
            let rules: Vec<_> = list.iter().map(|text| rule(text)).collect();
            let program = compile(&rules);
            assert!(is_reached(&program), "{list:?}");
            for kind in 1..=2 {
                for access in 1..=ALL {
                    for (major, minor) in [
                        (1, 3),
                        (1, 5),
                        (8, 0),
                        (136, 7),
                        (0, 0),
                        (u32::MAX, u32::MAX),
                    ] {
                        assert_eq!(
                            run(&program, kind, access, major, minor),
                            expected(&rules, kind, access, major, minor),
                            "{list:?}: type {kind}, access {access}, {major}:{minor}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn code_behind_a_catch_all_is_left_out() {
        assert_eq!(compile(&[rule("+c 1:3 r"), rule("-a *:* rwm")]).len(), 8);
    }

    #[test]
    fn encoding_is_the_kernels() {
        let bytes = instruction(JMP32_JNE_K, MAJOR, 0, 2, 0x01020304).to_ne_bytes();
        #[cfg(target_endian = "little")]
        assert_eq!(bytes, [0x56, 0x04, 2, 0, 4, 3, 2, 1]);
        #[cfg(target_endian = "big")]
        assert_eq!(bytes, [0x56, 0x40, 0, 2, 1, 2, 3, 4]);
    }
}
