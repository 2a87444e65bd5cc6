//! Machines of a test's own: network, mount and pid namespaces, cables between them, and requests that start there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

use crate::cgroup::{cgroup_dirs_named, pids_in_cgroups_named};
use crate::command::{Output, finish, shell};
use crate::machine::{View, need_root};
use crate::runtime::runtime;

/// How long an answer may take. A lost one shall fail a test, not hang it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine with nothing on it but a copy of the one file.
#[derive(Debug)]
pub struct Host {
    /// Unique; the parent of all its cgroups.
    pub name: String,
    namespaces: View,
    dir: TempDir,
}

impl Host {
    /// New namespaces with an empty /run and nothing but `lo`.
    pub fn new() -> Self {
        need_root();
        let dir = tempfile::Builder::new()
            .prefix("host-")
            .tempdir()
            .expect("/tmp is writable");
        let name = dir.path().file_name().expect("a name");
        let flags = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let change = "mount -t tmpfs run /run; ip link set lo up";
        Self {
            name: name.to_string_lossy().into_owned(),
            namespaces: View::new(&flags, change),
            dir,
        }
    }

    /// A path below the host's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file that is its network namespace.
    pub fn network(&self) -> String {
        self.namespaces.namespace("net")
    }

    /// A command line on this host.
    pub fn command<S: AsRef<str>>(&self, program: &str, args: &[S]) -> Command {
        let mut command = self.namespaces.enter();
        command
            .arg(program)
            .args(args.iter().map(AsRef::as_ref))
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::null());
        command
    }

    /// Runs a line of shell on this host that must succeed, and gives its stdout.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        finish(self.command("sh", &["-ec", line]), self.dir.path()).ok()
    }

    /// The command line of the host's own copy of Coracle. Containers are below the host's cgroup.
    pub fn coracle_command(&self, args: &[&str]) -> Command {
        let program = self.path("coracle");
        if !program.exists() {
            fs::copy(runtime(), &program).expect("the one file is copied");
        }
        let store = self.path("store").display().to_string();
        let mut all = vec!["--store", &store, args[0]];
        if args[0] == "run" {
            all.extend(["--cgroup-parent", &self.name]);
        }
        all.extend(&args[1..]);
        self.command(&program.to_string_lossy(), &all)
    }

    /// Runs it to its end.
    pub fn coracle(&self, args: &[&str]) -> Output {
        finish(self.coracle_command(args), self.dir.path())
    }

    /// What an HTTP server says to a client on this host.
    pub fn get(&self, server: &str, path: &str) -> io::Result<String> {
        get_from(&self.network(), server, path)
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Everything else ends with the namespaces.
        for pid in pids_in_cgroups_named(&self.name) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        crate::eventually("the host's processes have ended", || {
            pids_in_cgroups_named(&self.name).is_empty().then_some(())
        });
        for dir in cgroup_dirs_named(&self.name) {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Joins two networks by a cable: each end is a network namespace's file and the name of the link there.
pub fn cable(one: (&str, &str), other: (&str, &str)) {
    shell(&format!(
        "nsenter --net={} ip link add {} type veth peer name {} netns {}",
        one.0, one.1, other.1, other.0
    ));
}

/// Runs something in a network namespace: sockets that it makes are there.
pub fn within<T: Send>(network: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(Path::new(network)).expect("the network is there");
    let enter_and_work = || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a network");
        work()
    };
    thread::scope(|scope| {
        let thread = scope.spawn(enter_and_work);
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What an HTTP server (`ADDRESS:PORT`) says to a client in a network: the body of a good answer.
pub fn get_from(network: &str, server: &str, path: &str) -> io::Result<String> {
    within(network, || get(server, path))
}

/// The same in the network that this thread is in.
pub fn get(server: &str, path: &str) -> io::Result<String> {
    let mut stream = connect(server)?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    body(stream)
}

/// A connection to `ADDRESS:PORT`.
pub fn connect(server: &str) -> io::Result<TcpStream> {
    let address: SocketAddr = server.parse().map_err(io::Error::other)?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The body of the good answer that comes to a request.
pub fn body(mut stream: TcpStream) -> io::Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("no good answer: {answer:?}"))),
    }
}
