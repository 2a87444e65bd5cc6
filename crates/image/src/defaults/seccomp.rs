//! The default seccomp profile: what Docker's allows, which decides by the container's capabilities and the machine's architecture.

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall,
    LinuxSyscallBuilder,
};

/// Calls that every container may make.
const ALWAYS: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 \
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl \
    epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat \
    faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl \
    fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync \
    ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list \
    get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 \
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch \
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup \
    io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown \
    lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 \
    madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap \
    mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
    mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat \
    open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 \
    prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace \
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg \
    remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending \
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo \
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler \
    sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto \
    set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
    setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid \
    setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack \
    signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink \
    symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime \
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat \
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Calls that exist on some architectures only.
#[cfg(target_arch = "x86_64")]
const OF_ARCHITECTURE: &str = "arch_prctl modify_ldt";
#[cfg(target_arch = "aarch64")]
const OF_ARCHITECTURE: &str =
    "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";

/// The machine's architecture, and the older ones that its kernel runs as well.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [Arch; 3] = [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [Arch; 2] = [Arch::ScmpArchAarch64, Arch::ScmpArchArm];

/// Calls that come with a capability: the kernel would allow some of them without it, in a user namespace for example.
const BY_CAPABILITY: &[(Capability, &str)] = &[
    (Capability::Bpf, "bpf"),
    (Capability::DacReadSearch, "open_by_handle_at"),
    (Capability::Perfmon, "perf_event_open"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree \
         perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (
        Capability::SysModule,
        "delete_module finit_module init_module",
    ),
    (
        Capability::SysNice,
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (Capability::SysPacct, "acct"),
    (
        Capability::SysPtrace,
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (Capability::SysRawio, "ioperm iopl"),
    (
        Capability::SysTime,
        "clock_settime clock_settime64 settimeofday stime",
    ),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::Syslog, "syslog"),
];

/// The personalities that change nothing about security: PER_LINUX, PER_LINUX32, UNAME26 with either, and asking for the current one.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Namespaces that clone(2) must not make: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// The kernel's cryptography and connections to hypervisors (AF_ALG, AF_VSOCK), which no namespace keeps apart.
const SHARED_FAMILIES: [u64; 2] = [libc::AF_ALG as u64, libc::AF_VSOCK as u64];

/// The profile for a container with these capabilities.
pub fn seccomp(capabilities: &Capabilities) -> LinuxSeccomp {
    let mut names: Vec<_> = words(ALWAYS).chain(words(OF_ARCHITECTURE)).collect();
    for (capability, calls) in BY_CAPABILITY {
        if capabilities.contains(capability) {
            names.extend(words(calls));
        }
    }
    let mut rules = vec![allow(names, None)];
    for value in PERSONALITIES {
        let argument = argument(value, LinuxSeccompOperator::ScmpCmpEq, None);
        rules.push(allow(vec!["personality".to_owned()], Some(argument)));
    }
    let [alg, vsock] = SHARED_FAMILIES;
    for (value, operator) in [
        (alg, LinuxSeccompOperator::ScmpCmpLt),
        (alg + 1, LinuxSeccompOperator::ScmpCmpEq),
        (vsock, LinuxSeccompOperator::ScmpCmpGt),
    ] {
        let argument = argument(value, operator, None);
        rules.push(allow(vec!["socket".to_owned()], Some(argument)));
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        let masked = LinuxSeccompOperator::ScmpCmpMaskedEq;
        let argument = argument(NEW_NAMESPACES, masked, Some(0));
        rules.push(allow(vec!["clone".to_owned()], Some(argument)));
        // Its flags lie in memory, where no filter can look: C libraries fall back to clone when it does not exist.
        let mut missing = allow(vec!["clone3".to_owned()], None);
        missing.set_action(LinuxSeccompAction::ScmpActErrno);
        missing.set_errno_ret(Some(libc::ENOSYS as u32));
        rules.push(missing);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(ARCHITECTURES)
        .syscalls(rules)
        .build()
        .expect("every field has a value")
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(str::to_owned)
}

fn allow(names: Vec<String>, argument: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let rule = LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActAllow);
    match argument {
        Some(argument) => rule.args(vec![argument]),
        None => rule,
    }
    .build()
    .expect("every field has a value")
}

/// A condition on the first argument.
fn argument(value: u64, operator: LinuxSeccompOperator, second: Option<u64>) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .value(value)
        .op(operator);
    match second {
        Some(second) => argument.value_two(second),
        None => argument,
    }
    .build()
    .expect("every field has a value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn allowed(capabilities: &[Capability]) -> BTreeSet<String> {
        let profile = seccomp(&capabilities.iter().copied().collect());
        let rules = profile.syscalls().clone().unwrap();
        rules
            .into_iter()
            .filter(|rule| rule.args().is_none())
            .filter(|rule| rule.action() == LinuxSeccompAction::ScmpActAllow)
            .flat_map(|rule| rule.names().clone())
            .collect()
    }

    #[test]
    fn capabilities_bring_their_calls() {
        let none = allowed(&[]);
        for call in [
            "mount", "clone3", "reboot", "bpf", "chroot", "unshare", "keyctl",
        ] {
            assert!(!none.contains(call), "{call}");
        }
        for call in ["read", "execve", "openat2", "futex_wait"] {
            assert!(none.contains(call), "{call}");
        }
        let admin = allowed(&[Capability::SysAdmin]);
        assert!(
            ["mount", "clone3", "clone", "bpf"]
                .iter()
                .all(|call| admin.contains(*call))
        );
        assert!(!admin.contains("chroot") && allowed(&[Capability::SysChroot]).contains("chroot"));
        for call in ["kexec_load", "add_key", "io_uring_setup", "swapon"] {
            let all: Vec<_> = BY_CAPABILITY
                .iter()
                .map(|(capability, _)| *capability)
                .collect();
            assert!(!allowed(&all).contains(call), "{call}");
        }
    }

    #[test]
    fn no_call_stands_twice() {
        let names: Vec<_> = words(ALWAYS).collect();
        let once: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), once.len());
    }
}
