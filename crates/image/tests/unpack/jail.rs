//! An unpacker that somebody has taken over: what it can still do.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, openat2};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[("a_compromised_unpacker_reaches_nothing", reaches_nothing)];

/// The name under which this program is a compromised unpacker.
pub(crate) const NAME: &str = "compromised";

/// What whoever has taken it over may try. All of it works where there is no jail.
const ATTEMPTS: &[&str] = &[
    "socket", "connect", "exec", "fork", "ptrace", "open", "openat", "kill", "chroot", "setuid",
    "absolute", "parent", "thread",
];

/// What works nowhere, or would harm the machine.
const MORE: &[&str] = &["mount", "handle"];

/// Goes to jail with its standard output as the directory, unless it is to stay `free`, and tries one thing. The exit status is 0 if that
/// worked.
pub(crate) fn probe(attempt: &str, free: bool) -> ! {
    // Descriptors that are there already are what an attacker would like to have: one is, for whoever may use it.
    let socket = UnixDatagram::unbound().expect("a socket");
    let directory = std::io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .expect("a directory");
    match free {
        true => nix::unistd::fchdir(&directory).expect("the directory"),
        false => image::unpack::jail::enter(directory.as_fd()).expect("a jail"),
    }
    let worked = match attempt {
        "nothing" => true,
        "file" => openat2(AT_FDCWD, "inside", OpenHow::new().flags(OFlag::O_RDONLY)).is_ok(),
        "socket" => std::net::UdpSocket::bind("127.0.0.1:0").is_ok(),
        "connect" => socket.connect("listener").is_ok(),
        "exec" => {
            let _failed = Command::new("/bin/true").exec();
            false
        }
        "fork" => Command::new("/bin/true").status().is_ok(),
        "ptrace" => nix::sys::ptrace::traceme().is_ok(),
        "open" => File::open("/etc/passwd").is_ok(),
        "kill" => nix::sys::signal::kill(nix::unistd::getppid(), None).is_ok(),
        "thread" => std::thread::Builder::new().spawn(|| ()).is_ok(),
        "absolute" => outside("/etc/passwd"),
        "parent" => outside("../../../../../../etc/passwd"),
        "openat" => openat(&directory),
        "chroot" => nix::unistd::chroot("/").is_ok(),
        "mount" => nix::mount::umount("/").is_ok(),
        "setuid" => nix::unistd::setuid(nix::unistd::Uid::from_raw(7)).is_ok(),
        "handle" => nix::fcntl::posix_fallocate(&directory, 0, 1).is_ok(),
        other => panic!("{other}"),
    };
    std::process::exit(i32::from(!worked))
}

/// Without any of the flags that keep a path inside.
fn outside(path: &str) -> bool {
    openat2(AT_FDCWD, path, OpenHow::new().flags(OFlag::O_RDONLY)).is_ok()
}

fn openat(directory: impl AsFd) -> bool {
    nix::fcntl::openat(
        directory,
        "inside",
        OFlag::O_RDONLY,
        nix::sys::stat::Mode::empty(),
    )
    .is_ok()
}

/// Proved without the filter, and without both chroot(2) and Landlock, each of which is enough.
fn reaches_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("inside"), "").expect("a file");
    let _listener = UnixDatagram::bind(dir.path().join("listener")).expect("a socket");
    let attempt = |name: &str, place: &str| {
        Command::new("/proc/self/exe")
            .arg0(NAME)
            .args([name, place])
            .stdout(Stdio::from(File::open(dir.path()).expect("the directory")))
            .stderr(Stdio::null())
            .status()
            .expect("a process")
    };
    for name in ["nothing", "file"] {
        assert!(attempt(name, "jailed").success(), "{name}");
    }
    for name in ATTEMPTS {
        let status = attempt(name, "free");
        assert!(status.success(), "{name} without a jail: {status}");
    }
    for name in ATTEMPTS.iter().chain(MORE) {
        let status = attempt(name, "jailed");
        // Killed by the filter, or told that it may not.
        let refused = status.code() == Some(1) || status.signal() == Some(libc::SIGSYS);
        assert!(refused, "{name}: {status}");
    }
}
