//! Seccomp: what a profile lets a process do, seen as the answers of system calls.

use runtime_tests::{Container, Ids, is_coracle, requires, rootless};
use serde_json::{Value, json};

// Numbers of x86_64; the 32-bit ones by name.
const GETPID: &str = "39";
const SOCKET: &str = "41";
const KILL: &str = "62";
const SYSINFO: &str = "99";
const PERSONALITY: &str = "135";
const ABOVE_ALL: &str = "1000";
const GETPID_32: &str = "20";

fn answer_of(profile: Value, call: &[&str]) -> String {
    let mut words = vec!["syscall"];
    words.extend(call);
    let mut c = Container::inside(&words);
    c.set("/linux/seccomp", profile);
    c.run().ok().trim().to_owned()
}

fn allow_but(names: &[&str], action: &str) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{ "names": names, "action": action }] })
}

#[test]
fn a_call_is_refused_with_eperm() {
    requires!(
        cfg!(target_arch = "x86_64"),
        "the numbers are those of x86_64"
    );
    let profile = allow_but(&["sysinfo"], "SCMP_ACT_ERRNO");
    assert_eq!(answer_of(profile.clone(), &[SYSINFO, "0"]), "EPERM");
    assert_ne!(answer_of(profile, &[GETPID]), "EPERM");
}

#[test]
fn a_call_is_refused_with_its_own_errno() {
    requires!(
        cfg!(target_arch = "x86_64"),
        "the numbers are those of x86_64"
    );
    let mut profile = allow_but(&["sysinfo"], "SCMP_ACT_ERRNO");
    profile["syscalls"][0]["errnoRet"] = json!(88);
    assert_eq!(answer_of(profile, &[SYSINFO, "0"]), "ENOTSOCK");
}

#[test]
fn arguments_decide() {
    requires!(
        cfg!(target_arch = "x86_64"),
        "the numbers are those of x86_64"
    );
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
        { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97, "args": [{ "index": 0, "value": 38, "op": "SCMP_CMP_GE" }] },
        { "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [{ "index": 1, "value": 0xff, "valueTwo": 0x10, "op": "SCMP_CMP_MASKED_EQ" }] }
    ] });
    assert_eq!(answer_of(profile.clone(), &[PERSONALITY, "8"]), "EPERM");
    assert_eq!(
        answer_of(profile.clone(), &[PERSONALITY, "0xffffffff"]),
        "0"
    );
    assert_eq!(
        answer_of(profile.clone(), &[SOCKET, "40", "1", "0"]),
        "EAFNOSUPPORT"
    );
    assert!(
        answer_of(profile.clone(), &[SOCKET, "1", "1", "0"])
            .parse::<u32>()
            .is_ok()
    );
    assert_eq!(
        answer_of(profile.clone(), &[KILL, "1", "0x110"]),
        "EOPNOTSUPP",
        "only the masked bits count"
    );
    assert_eq!(
        answer_of(profile, &[KILL, "1", "0x111"]),
        "EINVAL",
        "the kernel's own answer"
    );
}

#[test]
fn a_number_above_the_profiles_highest_does_not_exist() {
    requires!(
        cfg!(target_arch = "x86_64"),
        "the numbers are those of x86_64"
    );
    // An allow list as engines write it: what it does not know answers ENOSYS, so that libc falls back.
    assert_eq!(answer_of(allow_list(), &[ABOVE_ALL]), "ENOSYS");
    assert_eq!(
        answer_of(allow_list(), &[SYSINFO, "0"]),
        "EPERM",
        "below the highest it is the default action"
    );
}

/// What a small static program needs, up to a late system call (`openat2`, 437).
fn allow_list() -> Value {
    let names = [
        "read",
        "write",
        "close",
        "mmap",
        "munmap",
        "mprotect",
        "brk",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "execve",
        "exit",
        "exit_group",
        "arch_prctl",
        "set_tid_address",
        "poll",
        "ppoll",
        "sigaltstack",
        "futex",
        "writev",
        "fstat",
        "stat",
        "lseek",
        "ioctl",
        "getrandom",
        "prctl",
        "capget",
        "capset",
        "getpid",
        "fcntl",
        "getuid",
        "setuid",
        "setgid",
        "setgroups",
        "setresuid",
        "setresgid",
        "openat",
        "open",
        "chdir",
        "getcwd",
        "newfstatat",
        "fchdir",
        "fstatfs",
        "readlinkat",
        "close_range",
        "openat2",
        "faccessat",
        "faccessat2",
        "statx",
        "epoll_ctl",
        "epoll_pwait",
        "tgkill",
        "gettid",
        "sched_yield",
        "nanosleep",
        "clock_gettime",
        "madvise",
        "rseq",
        "set_robust_list",
        "prlimit64",
        "getdents64",
        "fchown",
        "umask",
        "dup3",
        "dup",
        "keyctl",
        "getppid",
        "setsid",
        "seccomp",
        "socket",
        "sendmsg",
        "recvmsg",
        "sendto",
        "recvfrom",
        "readlink",
        "access",
        "lstat",
        "fsopen",
        "unlinkat",
        "epoll_create1",
        "pipe2",
        "eventfd2",
        "restart_syscall",
        "kill",
        "clone",
        "clone3",
        "wait4",
        "uname",
    ];
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{ "names": names.as_slice(), "action": "SCMP_ACT_ALLOW" }] })
}

#[test]
fn the_32_bit_entry_is_filtered_by_its_own_numbers() {
    requires!(
        cfg!(target_arch = "x86_64"),
        "the numbers are those of x86_64"
    );
    let run = |number: &str, profile: Value| {
        let mut c = Container::inside(&["syscall32", number]);
        c.set("/linux/seccomp", profile);
        c.run()
    };
    let open = run(GETPID_32, allow_but(&["sysinfo"], "SCMP_ACT_ERRNO"));
    requires!(
        open.code == 0 && open.stdout == "1\n",
        "the kernel has no 32-bit entry"
    );
    assert_eq!(
        run(GETPID_32, allow_but(&["getpid"], "SCMP_ACT_ERRNO")).ok(),
        "EPERM\n"
    );
}

#[test]
fn an_architecture_that_is_not_listed_is_refused() {
    requires!(
        cfg!(target_arch = "x86_64"),
        "the numbers are those of x86_64"
    );
    let mut c = Container::inside(&["syscall32", GETPID_32]);
    c.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [{ "names": ["sysinfo"], "action": "SCMP_ACT_ERRNO" }] }));
    let output = c.run();
    assert!(output.code != 0 || output.stdout != "1\n", "{output:?}");
}

#[test]
fn a_call_can_end_the_process() {
    requires!(
        cfg!(target_arch = "x86_64"),
        "the numbers are those of x86_64"
    );
    for action in [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
    ] {
        let mut c = Container::inside(&["syscall", SYSINFO, "0"]);
        c.set("/linux/seccomp", allow_but(&["sysinfo"], action));
        assert_eq!(c.run().code, 128 + 31, "{action}: SIGSYS");
    }
    let mut c = Container::inside(&["syscall", SYSINFO, "0"]);
    c.set("/linux/seccomp", allow_but(&["sysinfo"], "SCMP_ACT_TRAP"));
    assert_eq!(c.run().code, 128 + 31, "SCMP_ACT_TRAP: SIGSYS");
}

#[test]
fn unknown_names_are_skipped() {
    requires!(
        cfg!(target_arch = "x86_64"),
        "the numbers are those of x86_64"
    );
    assert_eq!(
        answer_of(
            allow_but(&["no_such_call", "sysinfo"], "SCMP_ACT_ERRNO"),
            &[SYSINFO, "0"]
        ),
        "EPERM"
    );
}

#[test]
fn exec_is_filtered_too() {
    let mut c = Container::inside(&["wait"]);
    c.set("/linux/seccomp", allow_but(&["sysinfo"], "SCMP_ACT_ERRNO"));
    c.run_detached();
    assert_eq!(
        c.exec_with(&[], &["/bin/inside", "syscall", SYSINFO, "0"])
            .ok(),
        "EPERM\n"
    );
    assert_eq!(
        c.exec("grep ^Seccomp: /proc/self/status").ok(),
        "Seccomp:\t2\n"
    );
}

#[test]
fn a_filter_works_with_and_without_no_new_privs() {
    requires!(rootless() != Some(Ids::Own), "one id only is mapped");
    for no_new_privs in [false, true] {
        for uid in [0, 1000] {
            let mut c = Container::new("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status");
            c.set("/linux/seccomp", allow_but(&["sysinfo"], "SCMP_ACT_ERRNO"));
            c.set("/process/noNewPrivileges", json!(no_new_privs))
                .set("/process/user", json!({ "uid": uid, "gid": uid }));
            assert_eq!(
                c.run().ok(),
                format!("NoNewPrivs:\t{}\nSeccomp:\t2\n", u8::from(no_new_privs))
            );
        }
    }
}

#[test]
fn a_profile_that_makes_no_sense_is_refused() {
    let cases = [
        (
            json!({ "defaultAction": "SCMP_ACT_NONSENSE" }),
            "SCMP_ACT_NONSENSE",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ABACUS"] }),
            "SCMP_ARCH_ABACUS",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["socket"], "action": "SCMP_ACT_ERRNO",
            "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_NONSENSE" }] }] }),
            "SCMP_CMP_NONSENSE",
        ),
    ];
    for (profile, words) in cases {
        let mut c = Container::new("true");
        c.set("/linux/seccomp", profile);
        let output = c.run();
        assert_eq!(output.code, 1, "{output:?}");
        assert!(
            output.message().contains(words),
            "{words} is named: {output:?}"
        );
        c.assert_nothing_left();
    }
}

#[test]
fn notify_cannot_be_the_default_or_guard_write() {
    let cases = [
        (
            json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/nonesuch.sock" }),
            "SCMP_ACT_NOTIFY",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nonesuch.sock", "syscalls": [{ "names": ["write"], "action": "SCMP_ACT_NOTIFY" }] }),
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
    ];
    for (profile, words) in cases {
        let mut c = Container::new("true");
        c.set("/linux/seccomp", profile);
        let output = c.run();
        assert_eq!(output.code, 1, "{output:?}");
        assert!(
            output.message().contains(words) || !is_coracle(),
            "{words}: {output:?}"
        );
        c.assert_nothing_left();
    }
}

#[test]
fn every_flag_is_taken() {
    requires!(
        is_coracle(),
        "runc 1.3 knows fewer, and hands on what the kernel refuses without a listener"
    );
    let mut c = Container::new("grep Seccomp: /proc/self/status");
    c.set(
        "/linux/seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": [
            "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
        ], "syscalls": [{ "names": ["reboot"], "action": "SCMP_ACT_ERRNO" }] }),
    );
    assert_eq!(c.run().ok(), "Seccomp:\t2\n");
}
