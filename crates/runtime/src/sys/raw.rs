//! System calls without libc, for threads and processes that share memory with others: libc keeps `errno` in the storage of a thread that it has
//! made itself.

use nix::errno::Errno;
use nix::unistd::Pid;

/// A system call: what it returns, or a negative errno. Needs neither relocated addresses nor storage of a thread.
///
/// # Safety
/// As the call's own.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub unsafe fn call(number: libc::c_long, args: [usize; 5]) -> isize {
    let answer;
    // SAFETY: as the caller has promised; the kernel changes no other registers.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number as isize => answer, in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") args[0] as isize => answer, in("x1") args[1], in("x2") args[2],
            in("x3") args[3], in("x4") args[4], options(nostack));
    }
    answer
}

/// Elsewhere by libc: nobody shares memory there.
///
/// # Safety
/// As the call's own.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub unsafe fn call(number: libc::c_long, args: [usize; 5]) -> isize {
    // SAFETY: as the caller has promised.
    let answer = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4]) };
    Errno::result(answer).map_or_else(|errno| -(errno as isize), |answer| answer as isize)
}

/// clone3(2) of a process or thread that shares the caller's memory, and whose whole life is `begin(work)`. Without a stack in `args` it goes on
/// below the caller's. `ENOSYS` where this is not written for the processor.
///
/// # Safety
/// Whatever the new one touches must be its own, or the caller must wait for it (`CLONE_VFORK`).
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) unsafe fn clone_calling(
    args: &libc::clone_args,
    begin: unsafe extern "C" fn(usize) -> !,
    work: usize,
) -> nix::Result<Pid> {
    let (args, size) = (&raw const *args, size_of::<libc::clone_args>());
    let answer: isize;
    // SAFETY: the new one never gets to what follows, for `begin` does not return; until then nothing is below the caller's stack pointer.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("syscall", "test rax, rax", "jnz 2f", "mov rdi, {work}", "and rsp, -16", "call {begin}", "ud2", "2:", work = in(reg) work,
            begin = in(reg) begin, inout("rax") libc::SYS_clone3 as isize => answer, in("rdi") args, in("rsi") size, out("rcx") _, out("r11") _);
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("svc 0", "cbnz x0, 2f", "mov x0, {work}", "blr {begin}", "brk 1", "2:", work = in(reg) work, begin = in(reg) begin,
            in("x8") libc::SYS_clone3, inout("x0") args => answer, in("x1") size, out("x30") _);
    }
    match answer {
        0.. => Ok(Pid::from_raw(answer as libc::pid_t)),
        _ => Err(Errno::from_raw(-answer as i32)),
    }
}

/// Elsewhere whoever wants that does without.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) unsafe fn clone_calling(
    _args: &libc::clone_args,
    _begin: unsafe extern "C" fn(usize) -> !,
    _work: usize,
) -> nix::Result<Pid> {
    Err(Errno::ENOSYS)
}
