//! An unpacker that somebody has taken over: what it can still do.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[("a_compromised_unpacker_reaches_nothing", reaches_nothing)];

/// The name under which this program is a compromised unpacker.
pub(crate) const NAME: &str = "compromised";

/// Killed by the filter, or told that it may not.
const ATTEMPTS: &[&str] = &[
    "socket", "connect", "exec", "fork", "ptrace", "open", "openat", "kill", "chroot", "mount",
    "setuid", "absolute", "parent", "handle", "thread",
];

/// Goes to jail with its standard output as the directory, and tries one thing. The exit status is 0 if that worked.
pub(crate) fn probe(attempt: &str) -> ! {
    // Descriptors that are there already are what an attacker would like to have: none is.
    let directory = std::io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .expect("a directory");
    image::unpack::jail::enter(directory.as_fd()).expect("a jail");
    let worked = match attempt {
        "nothing" => true,
        "file" => File::open("inside").is_ok(),
        "socket" => std::net::UdpSocket::bind("127.0.0.1:0").is_ok(),
        "connect" => std::os::unix::net::UnixStream::connect("/run/x").is_ok(),
        "exec" | "fork" => Command::new("/bin/true").status().is_ok(),
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
    use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, openat2};
    openat2(AT_FDCWD, path, OpenHow::new().flags(OFlag::O_RDONLY)).is_ok()
}

fn openat(directory: impl AsFd) -> bool {
    use nix::fcntl::{OFlag, openat};
    openat(
        directory,
        "inside",
        OFlag::O_RDONLY,
        nix::sys::stat::Mode::empty(),
    )
    .is_ok()
}

fn reaches_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("inside"), "").expect("a file");
    let attempt = |name: &str| {
        Command::new("/proc/self/exe")
            .arg0(NAME)
            .arg(name)
            .stdout(Stdio::from(File::open(dir.path()).expect("the directory")))
            .stderr(Stdio::null())
            .status()
            .expect("a process")
    };
    assert!(attempt("nothing").success());
    for name in ATTEMPTS {
        let status = attempt(name);
        let refused = status.code() == Some(1) || status.signal() == Some(libc::SIGSYS);
        assert!(refused, "{name}: {status}");
    }
}
