//! The network namespace of the calling thread: netdevice(7), and a new one that another thread makes.

use std::cell::UnsafeCell;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

use super::raw::{call, clone_calling};

/// `SIOCGSKNS` of linux/sockios.h, which libc does not have: a socket's network namespace.
const SIOCGSKNS: usize = 0x894c;

/// Brings its loopback device up (`SIOCSIFFLAGS`). The answer is the socket that this took.
pub(crate) fn loopback_up() -> nix::Result<OwnedFd> {
    match raise_loopback() {
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        socket @ 0.. => Ok(unsafe { OwnedFd::from_raw_fd(socket as RawFd) }),
        errno => Err(Errno::from_raw(-errno as i32)),
    }
}

/// The same for any thread: a socket, or a negative errno.
fn raise_loopback() -> isize {
    // SAFETY: ifreq is plain data for which all-zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: only integers are passed; SIOCSIFFLAGS reads a struct ifreq.
    unsafe {
        let socket = call(
            libc::SYS_socket,
            [libc::AF_INET as usize, kind as usize, 0, 0, 0],
        );
        if socket < 0 {
            return socket;
        }
        let request = &raw const request as usize;
        let raised = call(
            libc::SYS_ioctl,
            [socket as usize, libc::SIOCSIFFLAGS as usize, request, 0, 0],
        );
        if raised < 0 {
            call(libc::SYS_close, [socket as usize, 0, 0, 0, 0]);
            return raised;
        }
        socket
    }
}

/// The thread that is [`beside`]: one at a time.
struct Beside {
    /// It needs some hundred bytes, aligned as these are.
    stack: UnsafeCell<[u128; 512]>,
    /// Whether there is one: the kernel clears it at its end (`CLONE_CHILD_CLEARTID`).
    runs: AtomicU32,
}

#[unsafe(link_section = ".bss.large")]
static BESIDE: Beside = Beside {
    stack: UnsafeCell::new([0; 512]),
    runs: AtomicU32::new(0),
};

// SAFETY: `runs` sees to it that only one thread has the stack, and nobody else reads it.
unsafe impl Sync for Beside {}

/// Has a thread make a network namespace, bring its loopback device up and send it (unix(7) `SCM_RIGHTS`) to the other end of `socket`. Its copy
/// of `socket` goes with it, whether it has sent something or not. `ENOSYS` where clone3(2) is not to be had, `EAGAIN` while another one is made.
pub(crate) fn make_beside(socket: &OwnedFd) -> nix::Result<()> {
    let (stack, runs) = (&BESIDE.stack, &BESIDE.runs);
    let free = runs.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
    free.map_err(|_| Errno::EAGAIN)?;
    // SAFETY: clone_args is plain data for which all-zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    // Its descriptors are its own: here nothing comes or goes while it is at work.
    let thread = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
    args.flags = (thread | libc::CLONE_CHILD_CLEARTID) as u64;
    args.child_tid = runs.as_ptr() as u64;
    args.stack = stack.get() as u64;
    args.stack_size = size_of_val(stack) as u64;
    // SAFETY: the stack is the thread's alone until its end; what else it touches is told there.
    let cloned = unsafe { clone_calling(&args, beside, socket.as_raw_fd() as usize) };
    if cloned.is_err() {
        runs.store(0, Ordering::Relaxed);
    }
    cloned.map(drop)
}

/// The life of a thread that libc does not know of: there is no storage of its own, so it must not touch an `errno`, and no lock that it ever
/// holds, so this process may be copied at any moment. It changes no memory but its stack.
unsafe extern "C" fn beside(socket: usize) -> ! {
    // SAFETY: only integers are passed.
    unsafe {
        if call(libc::SYS_unshare, [libc::CLONE_NEWNET as usize, 0, 0, 0, 0]) == 0
            && let loopback @ 0.. = raise_loopback()
            && let namespace @ 0.. = call(libc::SYS_ioctl, [loopback as usize, SIOCGSKNS, 0, 0, 0])
        {
            send(socket, namespace as RawFd);
        }
        loop {
            call(libc::SYS_exit, [0; 5]);
        }
    }
}

/// For any thread: sends a descriptor with one byte. That nobody is there to receive it is fine.
fn send(socket: usize, fd: RawFd) {
    /// A `struct cmsghdr` and its data, aligned as the next one would be.
    #[repr(C)]
    struct Rights {
        header: libc::cmsghdr,
        fd: RawFd,
    }
    let mut payload = [0u8];
    let mut payload = libc::iovec {
        iov_base: payload.as_mut_ptr().cast(),
        iov_len: payload.len(),
    };
    // SAFETY: both are plain data for which all-zero is valid.
    let (mut rights, mut message): (Rights, libc::msghdr) = unsafe { std::mem::zeroed() };
    rights.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<RawFd>()) as _;
    rights.header.cmsg_level = libc::SOL_SOCKET;
    rights.header.cmsg_type = libc::SCM_RIGHTS;
    rights.fd = fd;
    message.msg_iov = &raw mut payload;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut rights).cast();
    message.msg_controllen = size_of::<Rights>() as _;
    let flags = libc::MSG_NOSIGNAL as usize;
    // SAFETY: the message and what it points to live until the call returns.
    unsafe {
        call(
            libc::SYS_sendmsg,
            [socket, &raw const message as usize, flags, 0, 0],
        )
    };
}
