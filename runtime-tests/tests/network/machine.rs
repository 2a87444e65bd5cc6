//! The machines of these tests.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use runtime_tests::{Output, need_root, runtime};
use serde_json::Value;
use tempfile::TempDir;

/// The program that does what a container's monitor does.
const ATTACH: &str = env!("CARGO_BIN_EXE_attach");

/// Runs a command to its end, and what it has written.
pub(crate) fn finish(command: &mut Command) -> Output {
    let output = command.output().expect("the command starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output {
        command: format!("{command:?}"),
        code: output.status.code().unwrap_or(255),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// A process that says a line when it is ready, and ends with its standard input or with this.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) line: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = child.stdout.take().expect("stdout is a pipe");
        let input = child.stdin.take();
        let mut running = Running {
            child,
            input,
            output: BufReader::new(output),
            line: String::new(),
        };
        running.line = running.next_line();
        running
    }

    /// Gives it a line to read.
    pub(crate) fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        writeln!(input, "{line}").expect("it reads");
    }

    /// What it says next.
    pub(crate) fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line is text");
        line
    }

    /// What is attached, as the program has told.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.line).expect("an attachment was told")
    }

    /// How many files it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let directory = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(directory).expect("it runs").count()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.input.take());
        self.kill();
    }
}

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    holder: Running,
}

impl Namespace {
    pub(crate) fn new() -> Namespace {
        need_root();
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo ready; exec sleep infinity"]);
        let holder = Running::start(command);
        assert_eq!(
            holder.line, "ready\n",
            "a network namespace could not be made"
        );
        Namespace { holder }
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.child.id())
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path()))
            .args(["--", program]);
        command
    }

    /// Runs a line of shell that has to succeed; what it prints.
    pub(crate) fn sh(&self, line: &str) -> String {
        let output = finish(self.command("sh").args(["-e", "-c", line]));
        assert!(output.code == 0, "{line}: {output:?}");
        output.stdout
    }

    /// A server on TCP and UDP ports.
    pub(crate) fn serve(&self, name: &str, ports: &[&str]) -> Running {
        let mut command = self.command(ATTACH);
        command.args(["-", "serve", name]).args(ports);
        let running = Running::start(command);
        assert_eq!(running.line, "ready\n");
        running
    }

    /// What a server says to a client here: its name and the client's address, `refused` or `nothing`.
    pub(crate) fn ask(&self, protocol: &str, address: &str) -> String {
        let mut command = self.command(ATTACH);
        command
            .args(["-", "ask", protocol, address])
            .stdin(Stdio::null());
        finish(&mut command).stdout.trim_end().to_owned()
    }
}

/// A machine with a neighbour: 192.0.2.1 and .9, 2001:db8::1 here, 192.0.2.2 and 2001:db8::2 there. Forwarding is off, as on a fresh machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) host: Namespace,
    pub(crate) neighbour: Namespace,
    directory: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        let (host, neighbour) = (Namespace::new(), Namespace::new());
        host.sh(&format!(
            "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding
             ip link set lo up; ip link add uplink type veth peer name uplink netns {}
             echo 0 > /proc/sys/net/ipv6/conf/uplink/accept_dad
             ip address add 192.0.2.1/24 dev uplink; ip address add 192.0.2.9/24 dev uplink
             ip address add 2001:db8::1/64 dev uplink nodad; ip link set uplink up",
            neighbour.holder.child.id()
        ));
        neighbour.sh("ip link set lo up; ip address add 192.0.2.2/24 dev uplink
             ip address add 2001:db8::2/64 dev uplink nodad; ip link set uplink up
             ip route add 10.89.0.0/16 via 192.0.2.1");
        Machine {
            host,
            neighbour,
            directory: TempDir::new().expect("a directory can be made"),
        }
    }

    pub(crate) fn store(&self) -> &Path {
        self.directory.path()
    }

    /// The command of the program for this machine.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.host.command(ATTACH);
        command.arg(self.store().join("network")).args(args);
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        finish(self.command(args).stdin(Stdio::null()))
    }

    /// Attaches, and keeps what its monitor would keep.
    pub(crate) fn attach(&self, id: &str, container: &Namespace, options: &[&str]) -> Running {
        let mut command = self.command(&["attach", id, &container.path()]);
        command.args(options);
        let running = Running::start(command);
        assert!(running.line.starts_with('{'), "{id} is not attached");
        running
    }

    pub(crate) fn detach(&self, id: &str) {
        let output = self.run(&["detach", id]);
        assert!(output.code == 0, "{output:?}");
    }

    /// The runtime under test on this machine.
    pub(crate) fn coracle(&self, args: &[&str]) -> Output {
        let program = runtime();
        let mut command = self.host.command(program.to_str().expect("a path of text"));
        finish(command.arg("--store").arg(self.store()).args(args))
    }

    /// Nothing of any network is left.
    pub(crate) fn assert_clean(&self) {
        let left = self
            .host
            .sh("nft list ruleset; ip -o link show | grep -E ': cor' || true");
        assert_eq!(left, "", "something is left");
        let forwarding = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding";
        assert_eq!(self.host.sh(forwarding), "0\n0\n", "forwarding is left on");
    }
}
