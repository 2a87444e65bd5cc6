//! System calls as they are. A function is one call, allocates nothing, and ends the program with a word about it where it fails; those
//! whose failure means something give their errno.

use core::arch::asm;
use core::ffi::{CStr, c_char, c_int};
use core::panic::PanicInfo;
use core::ptr::{null, null_mut};
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

// For where it starts, and for memcpy.
#[link(name = "c", kind = "static")]
unsafe extern "C" {}

/// Names of system calls and their numbers on both machines that the tests know.
macro_rules! numbers {
    ($($name:ident $x86_64:literal $aarch64:literal,)*) => {
        $(const $name: usize = if cfg!(target_arch = "x86_64") { $x86_64 } else { $aarch64 };)*
    };
}

numbers! {
    BPF 321 280, CAPSET 126 91, CHDIR 80 49, CLOCK_GETTIME 228 113, CLONE3 435 435, CLOSE 3 57, CLOSE_RANGE 436 436, EXECVE 59 221,
    EXIT_GROUP 231 94, FACCESSAT 269 48, FCHDIR 81 50, IOCTL 16 29, MKDIRAT 258 34, MKNODAT 259 33, MMAP 9 222, MOUNT 165 40,
    MOUNT_SETATTR 442 442, MOVE_MOUNT 429 429, OPENAT 257 56, OPEN_TREE 428 428, PIDFD_OPEN 434 434, PIDFD_SEND_SIGNAL 424 424,
    PIPE2 293 59, PIVOT_ROOT 155 41, PPOLL 271 73, PRCTL 157 167, PRLIMIT64 302 261, READ 0 63, SCHED_YIELD 24 124, SETGROUPS 116 159,
    SETHOSTNAME 170 161, SETNS 308 268, SETSID 112 157, SOCKET 41 198, STATX 332 291, SYMLINKAT 266 36, UMASK 95 166, UMOUNT2 166 39,
    UNLINKAT 263 35, UNSHARE 272 97, WAIT4 61 260, WRITE 1 64,
}

pub const O_WRONLY: usize = 1;
pub const O_RDWR: usize = 2;
pub const O_CREAT_EXCL: usize = 0o300;
pub const O_PATH: usize = 0o10_000_000;
const O_CLOEXEC: usize = 0o2_000_000;

pub const MS_BIND: usize = 1 << 12;
pub const MS_REC: usize = 1 << 14;
pub const MS_SLAVE: usize = 1 << 19;
pub const MS_RDONLY: usize = 1;
pub const ATTR_RDONLY: usize = 1;

pub const CLONE_NEWCGROUP: usize = 0x0200_0000;
pub const ALL_NAMESPACES: usize = 0x6e02_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;

pub const EBUSY: isize = 16;

pub const PR_SET_SECCOMP: usize = 22;
pub const PR_CAPBSET_DROP: usize = 24;
pub const PR_SET_NO_NEW_PRIVS: usize = 38;

const AT_FDCWD: usize = -100_isize as usize;
const AT_EMPTY_PATH: usize = 0x1000;
const AT_RECURSIVE: usize = 0x8000;
const AT_REMOVEDIR: usize = 0x200;

type Answer = Result<usize, isize>;

/// Private: what the functions below give an address of, they borrow or own during the call, and it is as long as the kernel expects.
#[inline(always)]
fn call(number: usize, args: [usize; 6]) -> Answer {
    let answer: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as said above; the kernel changes no other registers.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => answer, in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as said above; the kernel changes no other registers.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") args[0] as isize => answer, in("x1") args[1], in("x2") args[2],
            in("x3") args[3], in("x4") args[4], in("x5") args[5], options(nostack));
    }
    if answer < 0 { Err(-answer) } else { Ok(answer as usize) }
}

/// Ends the program where a call has failed.
fn must(name: &str, answer: Answer) -> usize {
    match answer {
        Ok(value) => value,
        Err(errno) => {
            let mut digits = [0; 20];
            for part in [b"floor: ", name.as_bytes(), b": errno ", crate::text::decimal(errno as u64, &mut digits), b"\n"] {
                write(2, part);
            }
            exit(1)
        }
    }
}

fn at(path: &CStr) -> usize {
    path.as_ptr() as usize
}

/// How `openat(2)` answers, always with `O_CLOEXEC`.
pub fn try_open(path: &CStr, flags: usize) -> Answer {
    call(OPENAT, [AT_FDCWD, at(path), flags | O_CLOEXEC, 0o600, 0, 0])
}

pub fn open(path: &CStr, flags: usize) -> usize {
    must("open", try_open(path, flags))
}

pub fn close(fd: usize) {
    must("close", call(CLOSE, [fd, 0, 0, 0, 0, 0]));
}

/// Every descriptor but the standard streams goes with the next execve(2).
pub fn close_others_on_exec() {
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    must("close_range", call(CLOSE_RANGE, [3, u32::MAX as usize, CLOSE_RANGE_CLOEXEC, 0, 0, 0]));
}

pub fn read(fd: usize, into: &mut [u8]) -> usize {
    must("read", call(READ, [fd, into.as_mut_ptr() as usize, into.len(), 0, 0, 0]))
}

pub fn write(fd: usize, from: &[u8]) {
    let answer = call(WRITE, [fd, from.as_ptr() as usize, from.len(), 0, 0, 0]);
    if fd != 2 {
        must("write", answer);
    }
}

pub fn pipe() -> [usize; 2] {
    let mut fds = [0_i32; 2];
    must("pipe2", call(PIPE2, [fds.as_mut_ptr() as usize, O_CLOEXEC, 0, 0, 0, 0]));
    fds.map(|fd| fd as usize)
}

/// Waits until a descriptor has one of these events.
pub fn poll(fd: usize, events: i16) {
    let mut polled = [fd as u64 | (events as u64) << 32];
    must("ppoll", call(PPOLL, [polled.as_mut_ptr() as usize, 1, 0, 0, 0, 0]));
}

pub fn mkdir(path: &CStr) {
    must("mkdir", call(MKDIRAT, [AT_FDCWD, at(path), 0o755, 0, 0, 0]));
}

pub fn rmdir(path: &CStr) -> Answer {
    call(UNLINKAT, [AT_FDCWD, at(path), AT_REMOVEDIR, 0, 0, 0])
}

pub fn unlink(path: &CStr) -> Answer {
    call(UNLINKAT, [AT_FDCWD, at(path), 0, 0, 0, 0])
}

pub fn symlink(target: &CStr, path: &CStr) {
    must("symlink", call(SYMLINKAT, [at(target), AT_FDCWD, at(path), 0, 0, 0]));
}

pub fn make_fifo(path: &CStr) {
    must("mknod", call(MKNODAT, [AT_FDCWD, at(path), 0o010_600, 0, 0, 0]));
}

pub fn make_device(path: &CStr, major: usize, minor: usize) {
    must("mknod", call(MKNODAT, [AT_FDCWD, at(path), 0o020_666, major << 8 | minor, 0, 0]));
}

pub fn exists(path: &CStr) -> bool {
    call(FACCESSAT, [AT_FDCWD, at(path), 0, 0, 0, 0]).is_ok()
}

/// Whether something is there, and a directory.
pub fn is_directory(path: &CStr) -> Option<bool> {
    const STATX_TYPE: usize = 1;
    let mut found = [0_u16; 128];
    call(STATX, [AT_FDCWD, at(path), 0, STATX_TYPE, found.as_mut_ptr() as usize, 0]).ok()?;
    Some(found[14] & 0o170_000 == 0o040_000)
}

pub fn chdir(path: &CStr) {
    must("chdir", call(CHDIR, [at(path), 0, 0, 0, 0, 0]));
}

pub fn fchdir(fd: usize) {
    must("fchdir", call(FCHDIR, [fd, 0, 0, 0, 0, 0]));
}

pub fn umask(mode: usize) {
    must("umask", call(UMASK, [mode, 0, 0, 0, 0, 0]));
}

pub fn setsid() {
    must("setsid", call(SETSID, [0; 6]));
}

pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: usize, data: &CStr) {
    must("mount", call(MOUNT, [at(source), at(target), at(kind), flags, at(data), 0]));
}

pub fn clone_tree(path: &CStr) -> usize {
    const OPEN_TREE_CLONE: usize = 1;
    must("open_tree", call(OPEN_TREE, [AT_FDCWD, at(path), OPEN_TREE_CLONE | O_CLOEXEC | AT_RECURSIVE, 0, 0, 0]))
}

pub fn attach_tree(tree: usize, path: &CStr) {
    const MOVE_MOUNT_F_EMPTY_PATH: usize = 4;
    must("move_mount", call(MOVE_MOUNT, [tree, at(c""), AT_FDCWD, at(path), MOVE_MOUNT_F_EMPTY_PATH, 0]));
}

/// Sets attributes of a mount, named by a descriptor or, without one, by a path.
pub fn set_attributes(tree: Option<usize>, path: &CStr, attributes: usize) {
    let attributes = [attributes as u64, 0, 0, 0];
    let flags = tree.map_or(0, |_| AT_EMPTY_PATH);
    let arguments = [tree.unwrap_or(AT_FDCWD), at(path), flags, attributes.as_ptr() as usize, size_of_val(&attributes), 0];
    must("mount_setattr", call(MOUNT_SETATTR, arguments));
}

/// The working directory becomes the root; the old root goes.
pub fn pivot_root() {
    const MNT_DETACH: usize = 2;
    must("pivot_root", call(PIVOT_ROOT, [at(c"."), at(c"."), 0, 0, 0, 0]));
    must("umount2", call(UMOUNT2, [at(c"."), MNT_DETACH, 0, 0, 0, 0]));
}

pub fn sethostname(name: &CStr) {
    must("sethostname", call(SETHOSTNAME, [at(name), name.count_bytes(), 0, 0, 0, 0]));
}

pub fn unshare(flags: usize) {
    must("unshare", call(UNSHARE, [flags, 0, 0, 0, 0, 0]));
}

/// Enters namespaces of a process.
pub fn setns(pidfd: usize, flags: usize) {
    must("setns", call(SETNS, [pidfd, flags, 0, 0, 0, 0]));
}

pub fn loopback_up() {
    const AF_INET: usize = 2;
    const SOCK_DGRAM: usize = 2;
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP: u8 = 1;
    let socket = must("socket", call(SOCKET, [AF_INET, SOCK_DGRAM | O_CLOEXEC, 0, 0, 0, 0]));
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16] = IFF_UP;
    must("ioctl", call(IOCTL, [socket, SIOCSIFFLAGS, request.as_ptr() as usize, 0, 0, 0]));
    close(socket);
}

pub fn prctl(option: usize, value: usize, more: usize) {
    must("prctl", call(PRCTL, [option, value, more, 0, 0, 0]));
}

pub fn install_filter(instructions: &[u8]) {
    const SECCOMP_MODE_FILTER: usize = 2;
    let program = [instructions.len() / 8, instructions.as_ptr() as usize];
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program.as_ptr() as usize);
}

/// The effective and permitted capabilities; there are no inheritable ones.
pub fn capset(capabilities: u64) {
    const VERSION_3: u64 = 0x2008_0522;
    let header = [VERSION_3];
    let (low, high) = (capabilities as u32, (capabilities >> 32) as u32);
    let data = [low, low, 0, high, high, 0];
    must("capset", call(CAPSET, [header.as_ptr() as usize, data.as_ptr() as usize, 0, 0, 0, 0]));
}

pub fn drop_groups() {
    must("setgroups", call(SETGROUPS, [0; 6]));
}

pub fn set_limit(resource: usize, soft: u64, hard: u64) {
    let limit = [soft, hard];
    must("prlimit64", call(PRLIMIT64, [0, resource, limit.as_ptr() as usize, 0, 0, 0]));
}

/// Loads a program of device rules and puts it upon a cgroup.
pub fn attach_devices(cgroup: usize, instructions: &[u8]) {
    const PROG_LOAD: usize = 5;
    const PROG_ATTACH: usize = 8;
    const PROG_TYPE_CGROUP_DEVICE: u64 = 15;
    const CGROUP_DEVICE: u64 = 6;
    const ALLOW_MULTI: u64 = 2;
    let count = (instructions.len() / 8) as u64;
    let attributes = [PROG_TYPE_CGROUP_DEVICE | count << 32, instructions.as_ptr() as u64, c"GPL".as_ptr() as u64, 0, 0, 0];
    let program = must("bpf", call(BPF, [PROG_LOAD, attributes.as_ptr() as usize, size_of_val(&attributes), 0, 0, 0]));
    let attributes = [cgroup as u64 | (program as u64) << 32, CGROUP_DEVICE | ALLOW_MULTI << 32];
    must("bpf", call(BPF, [PROG_ATTACH, attributes.as_ptr() as usize, size_of_val(&attributes), 0, 0, 0]));
    close(program);
}

/// What a fork has become.
pub enum Fork {
    Parent(usize),
    Child,
}

/// A new process in new namespaces, and in a cgroup from the beginning.
pub fn fork(namespaces: usize, cgroup: Option<usize>) -> Fork {
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let arguments = [namespaces as u64 | into, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, cgroup.unwrap_or(0) as u64];
    match must("clone3", call(CLONE3, [arguments.as_ptr() as usize, size_of_val(&arguments), 0, 0, 0, 0])) {
        0 => Fork::Child,
        pid => Fork::Parent(pid),
    }
}

pub fn pidfd_open(pid: usize) -> Answer {
    call(PIDFD_OPEN, [pid, 0, 0, 0, 0, 0])
}

pub fn kill(pidfd: usize) {
    const SIGKILL: usize = 9;
    must("pidfd_send_signal", call(PIDFD_SEND_SIGNAL, [pidfd, SIGKILL, 0, 0, 0, 0]));
}

/// The exit status of a child, as a shell sees it.
pub fn wait(pid: usize) -> usize {
    wait_and_measure(pid).0
}

/// The exit status, and the most resident memory in KiB.
pub fn wait_and_measure(pid: usize) -> (usize, u64) {
    let (mut status, mut usage) = (0_u32, [0_u64; 18]);
    must("wait4", call(WAIT4, [pid, (&raw mut status) as usize, 0, usage.as_mut_ptr() as usize, 0, 0]));
    let status = match status & 0x7f {
        0 => (status >> 8 & 0xff) as usize,
        signal => 128 + signal as usize,
    };
    (status, usage[4])
}

pub fn yield_now() {
    must("sched_yield", call(SCHED_YIELD, [0; 6]));
}

/// Both lists end with null.
pub fn execve(arguments: &[*const c_char], environment: &[*const c_char]) -> ! {
    must("execve", call(EXECVE, [arguments[0] as usize, arguments.as_ptr() as usize, environment.as_ptr() as usize, 0, 0, 0]));
    exit(1)
}

pub fn exit(status: usize) -> ! {
    loop {
        let _ = call(EXIT_GROUP, [status, 0, 0, 0, 0, 0]);
    }
}

/// A monotonic clock, in nanoseconds.
pub fn now() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    let mut time = [0_u64; 2];
    must("clock_gettime", call(CLOCK_GETTIME, [CLOCK_MONOTONIC, time.as_mut_ptr() as usize, 0, 0, 0, 0]));
    time[0] * 1_000_000_000 + time[1]
}

fn map(length: usize, flags: usize) -> usize {
    const READ_WRITE: usize = 3;
    const ANONYMOUS: usize = 0x20;
    must("mmap", call(MMAP, [0, length, READ_WRITE, ANONYMOUS | flags, usize::MAX, 0]))
}

/// Memory that costs nothing until it is used.
pub fn buffer(length: usize) -> &'static mut [u8] {
    const PRIVATE: usize = 2;
    let memory = map(length, PRIVATE);
    // SAFETY: zeroes of that length, nobody else's, mapped until the program ends.
    unsafe { slice::from_raw_parts_mut(memory as *mut u8, length) }
}

/// Numbers that a fork shares.
pub type Page = [AtomicU64; 512];

static PAGE: AtomicPtr<Page> = AtomicPtr::new(null_mut());

pub fn make_shared_page() {
    const SHARED: usize = 1;
    PAGE.store(map(size_of::<Page>(), SHARED) as *mut Page, Relaxed);
}

/// The page, once it is made.
pub fn shared_page() -> Option<&'static Page> {
    // SAFETY: null, or zeroes that stay mapped until the program ends.
    unsafe { PAGE.load(Relaxed).as_ref() }
}

/// Where the C library's start goes on.
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, words: *const *const c_char) -> ! {
    exit(crate::main(Arguments { next: words }))
}

/// Only a mistake in this program gets here.
#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    write(2, b"floor: panic\n");
    exit(101)
}

/// The words of the command line, which live as long as the program, and behind which is null.
pub struct Arguments {
    next: *const *const c_char,
}

impl Arguments {
    /// What is left of them, ended by null, for execve(2).
    pub fn rest(&self) -> &'static [*const c_char] {
        let mut count = 0;
        // SAFETY: the list goes on until null.
        while unsafe { *self.next.add(count) } != null() {
            count += 1;
        }
        // SAFETY: so many, and null, have been seen.
        unsafe { slice::from_raw_parts(self.next, count + 1) }
    }
}

impl Iterator for Arguments {
    type Item = &'static CStr;

    fn next(&mut self) -> Option<&'static CStr> {
        // SAFETY: null, which ends the list, is not gone past.
        let word = unsafe { *self.next };
        if word.is_null() {
            return None;
        }
        // SAFETY: as above.
        self.next = unsafe { self.next.add(1) };
        // SAFETY: the kernel has put a text there.
        Some(unsafe { CStr::from_ptr(word) })
    }
}
