//! Several rules for one system call, and comparisons.

use super::*;
use crate::abi::Abi::X86_64;

const TRACE: u32 = 0x7ff0_0007;

fn rule(action: &str, args: &[(usize, &str, u64)]) -> Value {
    let args: Vec<_> = args
        .iter()
        .map(|(index, op, value)| json!({ "index": index, "op": format!("SCMP_CMP_{op}"), "value": value }))
        .collect();
    let errno = if action == "TRACE" {
        json!(7)
    } else {
        Value::Null
    };
    json!({ "names": ["ioctl"], "action": format!("SCMP_ACT_{action}"), "errnoRet": errno, "args": args })
}

fn ioctl(rules: &[Value], args: &[u64]) -> u32 {
    answer(
        &program(&section(json!({ "syscalls": rules }))),
        X86_64,
        "ioctl",
        args,
    )
}

#[test]
fn comparisons_are_of_64_bits_without_sign() {
    const VALUES: [u64; 12] = [
        0,
        1,
        41,
        42,
        43,
        0xffff_ffff,
        1 << 32,
        (1 << 32) + 42,
        (41 << 32) + 43,
        (42 << 32) + 42,
        u64::MAX - 1,
        u64::MAX,
    ];
    for value in VALUES {
        for argument in VALUES {
            let holds = [
                ("EQ", argument == value),
                ("NE", argument != value),
                ("LT", argument < value),
                ("LE", argument <= value),
                ("GT", argument > value),
                ("GE", argument >= value),
            ];
            for (op, holds) in holds {
                let wanted = if holds { ALLOW } else { EPERM };
                let got = ioctl(
                    &[rule("ALLOW", &[(5, op, value)])],
                    &[0, 0, 0, 0, 0, argument],
                );
                assert_eq!(got, wanted, "{argument:#x} {op} {value:#x}");
            }
            for mask in VALUES {
                let mut masked = rule("ALLOW", &[(5, "MASKED_EQ", mask)]);
                masked["args"][0]["valueTwo"] = json!(value);
                let wanted = if argument & mask == value & mask {
                    ALLOW
                } else {
                    EPERM
                };
                assert_eq!(
                    ioctl(&[masked], &[0, 0, 0, 0, 0, argument]),
                    wanted,
                    "{argument:#x} & {mask:#x} {value:#x}"
                );
            }
        }
    }
}

#[test]
fn conditions_on_different_arguments_must_all_hold() {
    let rules = [rule("ALLOW", &[(1, "EQ", 7), (0, "GE", 3)])];
    assert_eq!(ioctl(&rules, &[3, 7]), ALLOW);
    assert_eq!(ioctl(&rules, &[2, 7]), EPERM);
    assert_eq!(ioctl(&rules, &[3, 8]), EPERM);
}

#[test]
fn of_conditions_on_one_argument_one_is_enough() {
    let rules = [rule("ALLOW", &[(0, "EQ", 3), (0, "EQ", 4), (1, "EQ", 9)])];
    assert_eq!(ioctl(&rules, &[3, 0]), ALLOW);
    assert_eq!(ioctl(&rules, &[4, 0]), ALLOW);
    assert_eq!(ioctl(&rules, &[5, 9]), ALLOW);
    assert_eq!(ioctl(&rules, &[5, 0]), EPERM);
}

#[test]
fn the_first_rule_without_conditions_decides() {
    let rules = [
        rule("LOG", &[(0, "EQ", 3)]),
        rule("ALLOW", &[]),
        rule("TRACE", &[]),
        rule("KILL", &[(0, "EQ", 4)]),
    ];
    for value in 0..6 {
        assert_eq!(ioctl(&rules, &[value]), ALLOW);
    }
}

#[test]
fn a_mask_without_bits_is_no_condition() {
    let rules = [
        rule("TRACE", &[(0, "EQ", 3)]),
        rule("ALLOW", &[(1, "MASKED_EQ", 0)]),
    ];
    assert_eq!(ioctl(&rules, &[3]), ALLOW);
    assert_eq!(ioctl(&rules, &[4]), ALLOW);
}

#[test]
fn the_more_particular_condition_decides() {
    let rules = [
        rule("ALLOW", &[(0, "GE", 10)]),
        rule("TRACE", &[(0, "EQ", 20)]),
        rule("LOG", &[(0, "GE", 30)]),
    ];
    assert_eq!(ioctl(&rules, &[9]), EPERM);
    assert_eq!(ioctl(&rules, &[10]), ALLOW);
    assert_eq!(ioctl(&rules, &[20]), TRACE);
    assert_eq!(ioctl(&rules, &[30]), 0x7ffc_0000);
}

#[test]
fn rules_that_repeat_the_default_are_skipped() {
    let rules = [rule("ERRNO", &[]), rule("ALLOW", &[(0, "EQ", 1)])];
    assert_eq!(ioctl(&rules, &[1]), ALLOW);
    assert_eq!(ioctl(&rules, &[2]), EPERM);
}

#[test]
fn far_targets_are_reached() {
    let calls = ["read", "openat", "ioctl", "futex", "execve", "mseal"];
    let mut rules = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        for value in 0..100 {
            let mut one = rule(
                "ALLOW",
                &[
                    (index % 6, "EQ", value * 7),
                    (5 - index % 6, "MASKED_EQ", value + 3),
                ],
            );
            one["names"] = json!([call]);
            rules.push(one);
        }
    }
    let program = program(&section(json!({ "syscalls": rules })));
    interpreter::check(&program.instructions);
    assert!(program.instructions.len() > 1000);
    for (index, call) in calls.iter().enumerate() {
        for value in 0..750 {
            let mut args = [0; 6];
            args[index % 6] = value;
            let wanted = if value % 7 == 0 && value < 700 {
                ALLOW
            } else {
                EPERM
            };
            assert_eq!(
                answer(&program, X86_64, call, &args),
                wanted,
                "{call} {value}"
            );
            args[5 - index % 6] = u64::MAX;
            assert_eq!(
                answer(&program, X86_64, call, &args),
                EPERM,
                "{call} {value}"
            );
        }
    }
    assert_eq!(answer(&program, X86_64, "write", &[]), EPERM);
}
