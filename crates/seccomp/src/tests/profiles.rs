//! The engines' default profiles.

use super::interpreter::check;
use super::*;
use crate::abi::Abi::{Aarch64, Arm, X32, X86, X86_64};

const CLONE_NEWNS: u64 = 0x2_0000;
const AF_VSOCK: u64 = 40;

#[test]
fn calls_get_what_dockers_profile_says() {
    let program = program(&profile(DOCKER_29));
    check(&program.instructions);
    for abi in [X86_64, X86, X32] {
        assert_eq!(answer(&program, abi, "read", &[]), ALLOW);
        assert_eq!(answer(&program, abi, "execve", &[]), ALLOW);
        assert_eq!(answer(&program, abi, "mseal", &[]), ALLOW);
        assert_eq!(answer(&program, abi, "mount", &[]), EPERM);
        assert_eq!(answer(&program, abi, "open_tree", &[]), EPERM);
        assert_eq!(answer(&program, abi, "clone3", &[]), ENOSYS);
        assert_eq!(answer(&program, abi, "clone", &[0x11]), ALLOW);
        assert_eq!(answer(&program, abi, "clone", &[0x11 | CLONE_NEWNS]), EPERM);
        for persona in [0, 8, 0x20000, 0x20008, 0xffff_ffff] {
            assert_eq!(answer(&program, abi, "personality", &[persona]), ALLOW);
        }
        assert_eq!(answer(&program, abi, "personality", &[1]), EPERM);
        assert_eq!(answer(&program, abi, "personality", &[0x40000]), EPERM);
        for family in 0..60 {
            let wanted = match family {
                0..=11 | 13..=18 | 21 | 22 | 24 | 26..=33 | 35 | 36 | 39 | 41..=45 => ALLOW,
                _ => EPERM,
            };
            assert_eq!(
                answer(&program, abi, "socket", &[family]),
                wanted,
                "{abi:?} {family}"
            );
        }
    }
    assert_eq!(answer(&program, X86, "socketcall", &[1]), ALLOW);
    assert_eq!(answer(&program, X86, "waitpid", &[]), ALLOW);
}

#[test]
fn only_64_bit_abis_see_the_upper_half_of_an_argument() {
    let program = program(&profile(DOCKER_26));
    for (abi, wanted) in [(X86_64, EPERM), (X86, ALLOW), (X32, ALLOW)] {
        assert_eq!(
            answer(&program, abi, "personality", &[8 | 1 << 32]),
            wanted,
            "{abi:?}"
        );
    }
    assert_eq!(answer(&program, X86_64, "socket", &[AF_VSOCK]), EPERM);
    assert_eq!(
        answer(&program, X86_64, "socket", &[AF_VSOCK | 1 << 32]),
        ALLOW
    );
    assert_eq!(answer(&program, X86_64, "clone", &[1 << 32]), ALLOW);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let program = program(&profile(DOCKER_26));
    for (abi, base) in [(X86_64, 0), (X86, 0), (X32, 0x4000_0000)] {
        // Its newest name is futex_requeue, 456.
        assert_eq!(numbered(&program, abi, base + 456, &[]), ALLOW);
        assert_eq!(answer(&program, abi, "cachestat", &[]), ALLOW);
        assert_eq!(answer(&program, abi, "set_mempolicy_home_node", &[]), EPERM);
        // x32 has older calls of its own above these, up to 547.
        let newer = if abi == X32 { EPERM } else { ENOSYS };
        assert_eq!(answer(&program, abi, "statmount", &[]), newer);
        assert_eq!(numbered(&program, abi, base + 457, &[]), newer);
        assert_eq!(numbered(&program, abi, base + 548, &[]), ENOSYS);
        assert_eq!(numbered(&program, abi, base + 100_000, &[]), ENOSYS);
    }
    assert_eq!(numbered(&program, X86_64, u32::MAX, &[]), ENOSYS);
}

#[test]
fn an_abi_that_is_not_listed_is_killed() {
    let program = program(&section(
        json!({ "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }] }),
    ));
    assert_eq!(answer(&program, X86_64, "read", &[]), ALLOW);
    assert_eq!(answer(&program, X86_64, "write", &[]), ENOSYS);
    assert_eq!(answer(&program, X32, "read", &[]), KILL);
    assert_eq!(answer(&program, X86, "read", &[]), KILL);
    assert_eq!(answer(&program, Aarch64, "read", &[]), KILL);
    // A tracer's way of skipping a call.
    assert_eq!(numbered(&program, X86_64, u32::MAX, &[]), EPERM);
}

#[test]
fn calls_newer_than_a_permissive_profile_pass() {
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        let rule = json!({ "names": ["reboot"], "action": "SCMP_ACT_KILL_PROCESS" });
        let program = program(&section(
            json!({ "defaultAction": action, "syscalls": [rule] }),
        ));
        assert_eq!(answer(&program, X86_64, "reboot", &[]), 0x8000_0000);
        assert_eq!(
            numbered(&program, X86_64, 5000, &[]),
            answer(&program, X86_64, "read", &[])
        );
    }
    for action in [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_ERRNO",
    ] {
        let rule = json!({ "names": ["reboot"], "action": "SCMP_ACT_ALLOW" });
        let program = program(&section(
            json!({ "defaultAction": action, "syscalls": [rule] }),
        ));
        assert_eq!(numbered(&program, X86_64, 5000, &[]), ENOSYS);
        assert_ne!(answer(&program, X86_64, "read", &[]), ENOSYS);
    }
}

#[test]
fn podmans_profile_tells_forbidden_from_unknown() {
    let program = program(&profile(PODMAN));
    check(&program.instructions);
    for abi in [X86_64, X86, X32] {
        assert_eq!(answer(&program, abi, "read", &[]), ALLOW);
        assert_eq!(answer(&program, abi, "bpf", &[]), EPERM);
        assert_eq!(answer(&program, abi, "statmount", &[]), ENOSYS);
        // AF_NETLINK, NETLINK_AUDIT
        assert_eq!(answer(&program, abi, "socket", &[16, 3, 9]), EINVAL);
        assert_eq!(answer(&program, abi, "socket", &[16, 3, 8]), ALLOW);
        assert_eq!(answer(&program, abi, "socket", &[2, 3, 9]), ALLOW);
    }
}

#[test]
fn arm_is_compiled_on_any_machine() {
    let program = compile_for(Aarch64, &profile(DOCKER_29_ARM)).unwrap();
    check(&program.instructions);
    for abi in [Aarch64, Arm] {
        assert_eq!(answer(&program, abi, "read", &[]), ALLOW);
        assert_eq!(answer(&program, abi, "mount", &[]), EPERM);
        assert_eq!(answer(&program, abi, "clone", &[CLONE_NEWNS]), EPERM);
        assert_eq!(answer(&program, abi, "socket", &[AF_VSOCK]), EPERM);
        assert_eq!(numbered(&program, abi, 471, &[]), ENOSYS);
    }
    assert_eq!(answer(&program, Arm, "cacheflush", &[]), ALLOW);
    assert_eq!(numbered(&program, Arm, 0xf_0002, &[]), ALLOW);
    assert_eq!(answer(&program, X86_64, "read", &[]), KILL);
}

#[test]
fn socket_calls_are_also_reached_through_socketcall() {
    let rules = json!([
        { "names": ["connect"], "action": "SCMP_ACT_ALLOW" },
        { "names": ["sendto"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 3, "value": 0, "op": "SCMP_CMP_EQ" }] },
        { "names": ["shmat"], "action": "SCMP_ACT_ALLOW" },
    ]);
    let program = program(&section(
        json!({ "architectures": ["SCMP_ARCH_X86"], "syscalls": rules }),
    ));
    assert_eq!(answer(&program, X86, "connect", &[]), ALLOW);
    assert_eq!(answer(&program, X86, "socketcall", &[3]), ALLOW);
    assert_eq!(answer(&program, X86, "socketcall", &[4]), EPERM);
    assert_eq!(answer(&program, X86, "socketcall", &[11, 0, 0, 0]), ALLOW);
    assert_eq!(answer(&program, X86, "socketcall", &[11, 0, 0, 1]), EPERM);
    assert_eq!(answer(&program, X86, "ipc", &[21]), ALLOW);
    assert_eq!(answer(&program, X86, "ipc", &[22]), EPERM);
}

#[test]
fn programs_are_small_and_quick() {
    // Docker 29's longest way is through the 26 families that socket() may have.
    for (native, text, most, deepest) in [
        (X86_64, DOCKER_26, 280, 20),
        (X86_64, DOCKER_29, 350, 40),
        (X86_64, PODMAN, 350, 40),
        (Aarch64, DOCKER_29_ARM, 270, 40),
    ] {
        let program = compile_for(native, &profile(text)).unwrap();
        let depth = |number| {
            let data = Data {
                number,
                audit_arch: native.audit_arch(),
                args: [0; 6],
            };
            run(&program.instructions, &data).1
        };
        let (longest, sum) = (0..470)
            .map(depth)
            .fold((0, 0), |(longest, sum), n| (n.max(longest), sum + n));
        println!(
            "{} instructions, on average {} run, at most {longest}",
            program.instructions.len(),
            sum / 470
        );
        assert!(program.instructions.len() <= most);
        assert!(longest <= deepest);
    }
}

#[test]
#[ignore = "prints how long a compilation takes; run with --release --nocapture"]
fn compile_time() {
    for (name, text) in [("docker", DOCKER_29), ("podman", PODMAN)] {
        let section = profile(text);
        let mut times: Vec<_> = (0..2000)
            .map(|_| {
                let start = std::time::Instant::now();
                std::hint::black_box(program(std::hint::black_box(&section)));
                start.elapsed()
            })
            .collect();
        println!("{name}: first {:?}", times[0]);
        times.sort();
        println!("{name}: median {:?}, fastest {:?}", times[1000], times[0]);
    }
}
