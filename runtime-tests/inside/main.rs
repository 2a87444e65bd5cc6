//! The test init: a static program that does, inside a container, what busybox cannot.
//!
//! `inside wait`            sleeps until a signal ends it
//! `inside syscall NR [ARG…]`   makes one system call and prints its result, or the name of its errno
//! `inside syscall32 NR`    the same through the 32-bit entry (x86_64 only)
//! `inside keyring-label`   prints the security label of its session keyring
//! `inside hog MIB`         touches MIB mebibytes, says `touched`, waits
//! `inside signals`         prints each signal of TERM, HUP, INT, USR1, USR2 and WINCH it gets; QUIT ends it with status 3
//! `inside notify-and-wait` says `READY=1` at $NOTIFY_SOCKET, waits
//! `inside fds`             prints its open file descriptors, one line
//! `inside write N`         writes N lines of numbers to stdout and exits with status 5
//! `inside steal`           gets hold of the programs of other processes and says `held`; then, of each, `written` or `refused`
//! `inside serve`           answers HTTP requests at $PORT as serverless platforms want it; after SIGTERM those that it has begun with
//! `inside watch`           tries to read the open files of other processes; says `host file` when it could

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write, stdout};
use std::mem::ManuallyDrop;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::process::exit;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
    fn pause() -> i32;
    fn getuid() -> u32;
    fn shutdown(socket: i32, how: i32) -> i32;
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    act(&words);
}

fn act(words: &[&str]) {
    match words {
        ["wait"] => wait(),
        ["syscall", number, args @ ..] => make_syscall(int(number), args),
        ["syscall32", number] => say(&answer(syscall32(int(number) as u32))),
        ["keyring-label"] => keyring_label(),
        ["hog", mebibytes] => hog(int(mebibytes) as usize),
        ["signals"] => report_signals(),
        ["notify-and-wait"] => notify_and_wait(),
        ["fds"] => fds(),
        ["write", lines] => write_lines(int(lines)),
        ["serve"] => serve(),
        ["steal"] => steal(),
        ["watch"] => watch(),
        _ => {
            eprintln!("inside: no such command: {words:?}");
            exit(2);
        }
    }
}

fn int(word: &str) -> i64 {
    match word.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).expect("a number"),
        None => word.parse().expect("a number"),
    }
}

/// One write, so that lines of several processes never mix; without the lock of `stdout`, since a signal handler may interrupt it.
fn say(line: &str) {
    // SAFETY: nothing in this program closes its standard output.
    let stdout = ManuallyDrop::new(unsafe { File::from_raw_fd(1) });
    (&*stdout).write_all(format!("{line}\n").as_bytes()).expect("stdout takes a line");
}

fn wait() -> ! {
    loop {
        // SAFETY: pause takes no arguments and touches no memory.
        unsafe { pause() };
    }
}

fn make_syscall(number: i64, args: &[&str]) {
    let arg = |n: usize| args.get(n).map_or(0, |word| int(word));
    // SAFETY: the tests only pass integers; no call they make writes through an argument.
    let result = unsafe { syscall(number, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
    match result {
        -1 => say(errno_name(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))),
        result => say(&result.to_string()),
    }
}

fn keyring_label() {
    const SYS_KEYCTL: i64 = if cfg!(target_arch = "x86_64") { 250 } else { 219 };
    const KEYCTL_GET_SECURITY: i64 = 17;
    const KEY_SPEC_SESSION_KEYRING: i64 = -3;
    let mut label = [0_u8; 256];
    // SAFETY: address and length are those of the buffer.
    let length = unsafe {
        syscall(SYS_KEYCTL, KEYCTL_GET_SECURITY, KEY_SPEC_SESSION_KEYRING, label.as_mut_ptr(), label.len())
    };
    let label = label.get(..length as usize).expect("a label that fits");
    say(String::from_utf8_lossy(label).trim_end_matches('\0'));
}

/// A system call without arguments by `int 0x80`: the result, or minus errno.
#[cfg(target_arch = "x86_64")]
fn syscall32(number: u32) -> i64 {
    let result: i32;
    // SAFETY: the calls made (getpid and numbers that do not exist) touch no memory; rbx is kept.
    unsafe {
        std::arch::asm!(
            "push rbx", "xor ebx, ebx", "int 0x80", "pop rbx",
            inlateout("eax") number => result, in("ecx") 0, in("edx") 0, in("esi") 0, in("edi") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    i64::from(result)
}

#[cfg(not(target_arch = "x86_64"))]
fn syscall32(_: u32) -> i64 {
    -38
}

fn answer(result: i64) -> String {
    match result {
        -4095..=-1 => errno_name(-result as i32).to_owned(),
        result => result.to_string(),
    }
}

fn errno_name(errno: i32) -> &'static str {
    match errno {
        1 => "EPERM",
        2 => "ENOENT",
        9 => "EBADF",
        13 => "EACCES",
        14 => "EFAULT",
        22 => "EINVAL",
        38 => "ENOSYS",
        88 => "ENOTSOCK",
        95 => "EOPNOTSUPP",
        97 => "EAFNOSUPPORT",
        other => Box::leak(format!("errno {other}").into_boxed_str()),
    }
}

fn hog(mebibytes: usize) {
    let mut held = Vec::new();
    for _ in 0..mebibytes {
        held.push(vec![1u8; 1 << 20]);
    }
    say("touched");
    wait();
}

extern "C" fn on_signal(number: i32) {
    let name = match number {
        1 => "HUP",
        2 => "INT",
        3 => exit(3),
        10 => "USR1",
        12 => "USR2",
        15 => "TERM",
        28 => "WINCH",
        _ => "?",
    };
    say(name);
}

fn report_signals() {
    for number in [1, 2, 3, 10, 12, 15, 28] {
        // SAFETY: the program is single-threaded and sits in pause when a handler runs.
        unsafe { signal(number, on_signal) };
    }
    say("ready");
    wait();
}

fn notify_and_wait() -> ! {
    let path = std::env::var("NOTIFY_SOCKET").expect("a notify socket");
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    for message in ["STATUS=warming up", "READY=1"] {
        socket.send_to(message.as_bytes(), &path).expect("somebody listens");
    }
    wait();
}

fn fds() {
    let mut open: Vec<i32> = (0..1024).filter(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()).collect();
    open.sort_unstable();
    say(&open.iter().map(i32::to_string).collect::<Vec<_>>().join(" "));
}

fn write_lines(lines: i64) {
    let mut out = std::io::BufWriter::new(stdout());
    for n in 1..=lines {
        writeln!(out, "{n}").expect("stdout takes a line");
    }
    out.flush().expect("stdout takes the rest");
    drop(out);
    exit(5);
}

/// Looks at every other process until the file `/stop` is there, and says `done`.
fn look_at_others(mut look: impl FnMut(&[u32])) {
    say("looking");
    let own = std::process::id();
    while !std::path::Path::new("/stop").exists() {
        let others = std::fs::read_dir("/proc").expect("proc is mounted").flatten();
        let pids = others.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| *pid != own);
        look(&pids.collect::<Vec<_>>());
    }
    say("done");
}

/// A running program cannot be written to (ETXTBSY), so an attacker keeps a handle on it and reopens that one through
/// /proc/self/fd when the program has gone. What is written, where it can be, is what is there.
fn steal() {
    const ETXTBSY: i32 = 26;
    let mut handles: Vec<File> = Vec::new();
    let mut seen = Vec::new();
    look_at_others(|pids| {
        for pid in pids {
            let exe = format!("/proc/{pid}/exe");
            let foreign = std::fs::read_link(&exe).is_ok_and(|path| !path.starts_with("/bin"));
            if foreign && !seen.contains(pid) && let Ok(handle) = File::open(&exe) {
                say("held");
                seen.push(*pid);
                handles.push(handle);
            }
        }
        handles.retain(|handle| {
            let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
            // A sealed file can be opened for writing, and yet not be written. The byte is the one that is there.
            let written = OpenOptions::new().write(true).open(path).and_then(|file| file.write_at(b"\x7f", 0));
            match written {
                Err(error) if error.raw_os_error() == Some(ETXTBSY) => return true,
                written => say(if written.is_ok() { "written" } else { "refused" }),
            }
            false
        });
    });
}

/// Says `host file` when another process's open files can be read and are not the container's.
fn watch() {
    look_at_others(|pids| {
        for (pid, fd) in pids.iter().flat_map(|pid| (3..64).map(move |fd| (pid, fd))) {
            if let Ok(path) = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
                let path = path.to_string_lossy();
                if path.starts_with('/') && !["/stop", "/dev", "/etc", "/proc", "/bin"].iter().any(|own| path.starts_with(own)) && path != "/" {
                    say(&format!("host file {path}"));
                }
            }
        }
    });
}

static LISTENER: AtomicI32 = AtomicI32::new(-1);

extern "C" fn refuse_more(_: i32) {
    // SAFETY: a call that a handler may make; it touches no memory.
    unsafe { shutdown(LISTENER.load(Ordering::Relaxed), 2) };
}

/// Listens at `$PORT`, logs to stdout and stderr, and ends with 0 when it was asked to and has answered everybody.
fn serve() {
    let port: u16 = std::env::var("PORT").map_or(8080, |port| port.parse().expect("PORT is a number"));
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
    LISTENER.store(listener.as_raw_fd(), Ordering::Relaxed);
    // SAFETY: the handler makes one system call.
    unsafe { signal(15, refuse_more) };
    say(&format!("listening at {port}"));
    let mut answers = Vec::new();
    while let Ok((client, _)) = listener.accept() {
        say("asked");
        answers.push(thread::spawn(move || answer_request(client, port)));
    }
    eprintln!("ending");
    for answer in answers {
        let _ = answer.join();
    }
}

fn answer_request(client: TcpStream, port: u16) -> std::io::Result<()> {
    let head = BufReader::new(&client).lines();
    head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
    // SAFETY: it takes nothing and cannot fail.
    let uid = unsafe { getuid() };
    write!(&client, "HTTP/1.0 200 OK\r\n\r\nserved by {uid} at {port}\n")
}
