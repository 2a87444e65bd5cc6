//! What is refused, with which words; and what goes with the instructions.

use super::*;
use crate::{actions, architectures, flags, operators};
use oci_spec::runtime::{Arch, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator};
use std::str::FromStr;

fn refusal(members: Value) -> String {
    compile_for(Abi::X86_64, &section(members))
        .unwrap_err()
        .to_string()
}

fn rule_refusal(rule: Value) -> String {
    refusal(json!({ "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }, rule] }))
}

#[test]
fn errors_name_the_field() {
    let arg = json!({ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" });
    assert_eq!(
        rule_refusal(json!({ "names": ["open"], "action": "SCMP_ACT_ALLOW", "args": [arg] })),
        "linux.seccomp.syscalls[1].args[0].index: 6 is not an argument of a system call (0 to 5)"
    );
    assert_eq!(
        rule_refusal(json!({ "names": [""], "action": "SCMP_ACT_ALLOW" })),
        "linux.seccomp.syscalls[1].names: an empty string is not a valid syscall"
    );
    assert_eq!(
        rule_refusal(json!({ "names": ["open"], "action": "SCMP_ACT_ERRNO", "errnoRet": 70000 })),
        "linux.seccomp.syscalls[1].errnoRet: 70000 is too large for an errno"
    );
    assert_eq!(
        rule_refusal(json!({ "names": ["open"], "action": "SCMP_ACT_ALLOW", "errnoRet": 2 })),
        "linux.seccomp.syscalls[1].errnoRet: SCMP_ACT_ALLOW does not take an errno"
    );
    assert_eq!(
        refusal(json!({ "defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 2 })),
        "linux.seccomp.defaultErrnoRet: SCMP_ACT_KILL does not take an errno"
    );
    assert_eq!(
        refusal(json!({ "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_S390X"] })),
        "linux.seccomp.architectures[1]: SCMP_ARCH_S390X is not supported (supported: SCMP_ARCH_AARCH64, SCMP_ARCH_ARM, \
         SCMP_ARCH_RISCV64, SCMP_ARCH_X32, SCMP_ARCH_X86, SCMP_ARCH_X86_64)"
    );
}

#[test]
fn a_listener_is_not_asked_about_everything() {
    assert_eq!(
        refusal(json!({ "defaultAction": "SCMP_ACT_NOTIFY" })),
        "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action"
    );
    assert_eq!(
        rule_refusal(json!({ "names": ["open", "write"], "action": "SCMP_ACT_NOTIFY" })),
        "linux.seccomp.syscalls[1].names: SCMP_ACT_NOTIFY cannot be used for the write syscall"
    );
}

#[test]
fn contradictions_are_refused() {
    let rule = |action, args: &[(usize, u64)]| {
        let args: Vec<_> = args
            .iter()
            .map(|(index, value)| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" }))
            .collect();
        json!({ "names": ["socket"], "action": action, "args": args })
    };
    let (allow, log) = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG");
    let of = |rules: &[Value]| compile_for(Abi::X86_64, &section(json!({ "syscalls": rules })));
    let same = [
        rule(allow, &[(0, 2)]),
        rule(allow, &[(1, 1)]),
        rule(log, &[(0, 2)]),
    ];
    assert_eq!(
        of(&same).unwrap_err().to_string(),
        "linux.seccomp.syscalls[2]: gives another action than syscalls[0] for the same X86_64 arguments"
    );
    of(&[rule(allow, &[(0, 2), (1, 1)]), rule(log, &[(0, 2)])]).unwrap_err();
    of(&[rule(log, &[(0, 2)]), rule(allow, &[(0, 2), (1, 1)])]).unwrap();
    of(&[rule(allow, &[(0, 2), (1, 1)]), rule(allow, &[(0, 2)])]).unwrap();
    // What socketcall is asked for cannot be told apart any further.
    let members = |architectures: &[&str]| json!({ "architectures": architectures, "syscalls": [rule(allow, &[(0, 2)]), rule(log, &[(0, 3)])] });
    compile_for(Abi::X86_64, &section(members(&["SCMP_ARCH_X32"]))).unwrap();
    assert!(refusal(members(&["SCMP_ARCH_X86"])).ends_with("for the same X86 arguments"));
}

#[test]
fn a_program_too_large_for_the_kernel_is_refused() {
    let rules: Vec<_> = (0..3000)
        .map(|value| {
            let args = json!([{ "index": 0, "value": value * 3, "op": "SCMP_CMP_EQ" },
                              { "index": 1, "value": value, "op": "SCMP_CMP_EQ" }]);
            json!({ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": args })
        })
        .collect();
    let words = refusal(json!({ "syscalls": rules }));
    assert!(
        words.starts_with("linux.seccomp: the profile needs "),
        "{words}"
    );
    assert!(
        words.ends_with(" instructions, more than the kernel's 4096"),
        "{words}"
    );
}

#[test]
fn flags_are_those_of_the_section() {
    let flags = |members| program(&section(members)).flags;
    assert_eq!(flags(json!({})), 1 << 2);
    assert_eq!(flags(json!({ "flags": [] })), 0);
    assert_eq!(
        flags(json!({ "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"] })),
        1 << 1
    );
    let notify = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]);
    let members =
        json!({ "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], "syscalls": notify });
    let program = program(&section(members));
    assert_eq!((program.flags, program.notify), (1 << 5 | 1 << 3, true));
    assert_eq!(answer(&program, Abi::X86_64, "mkdir", &[]), 0x7fc0_0000);
}

#[test]
fn unknown_names_are_told() {
    let names = ["read", "no_such_call", "socketcall", "kcall"];
    let program = program(&section(
        json!({ "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }] }),
    ));
    assert_eq!(program.skipped, ["no_such_call", "kcall"]);
}

#[test]
fn what_is_reported_is_what_is_known() {
    for name in actions() {
        let action = LinuxSeccompAction::from_str(name).unwrap();
        assert_eq!(action.to_string(), *name);
    }
    for name in operators() {
        LinuxSeccompOperator::from_str(name).unwrap();
    }
    for name in flags() {
        LinuxSeccompFilterFlag::from_str(name).unwrap();
    }
    for name in architectures() {
        Arch::from_str(name).unwrap();
        program(&section(json!({ "architectures": [name] })));
    }
    for list in [actions(), operators(), architectures()] {
        assert!(list.is_sorted());
    }
}
