//! A bundle with a shim, and as much of ttrpc as it takes to say wrong things to it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use runtime_tests::{
    Host, Output, Shim, base_config, eventually, fill_rootfs, finish, pids_in_cgroups_named,
    runtime, shell,
};
use serde_json::json;

/// google.rpc.Code
pub(crate) const OK: u64 = 0;
pub(crate) const INVALID_ARGUMENT: u64 = 3;
pub(crate) const NOT_FOUND: u64 = 5;
pub(crate) const ALREADY_EXISTS: u64 = 6;
pub(crate) const FAILED_PRECONDITION: u64 = 9;
pub(crate) const UNIMPLEMENTED: u64 = 12;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// A shim on a machine of its own, for the container `box`.
pub(crate) struct Alone {
    pub(crate) host: Host,
    shim: Shim,
    address: String,
    _log: File,
}

impl Alone {
    /// With a bundle whose container runs a line of shell.
    pub(crate) fn new(script: &str) -> Self {
        let host = Host::new();
        let bundle = host.path("bundle");
        fill_rootfs(&bundle.join("rootfs"));
        let mut config = base_config();
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["linux"]["cgroupsPath"] = json!(format!("/{}/box", host.name));
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let bin = host.path("bin");
        fs::create_dir(&bin).unwrap();
        // By this name it is found if no other is given.
        for name in ["runc", "coracle"] {
            symlink(runtime(), bin.join(name)).unwrap();
        }
        // Where containerd reads what a shim has to say.
        shell(&format!("mkfifo {}", bundle.join("log").display()));
        let log = File::options()
            .read(true)
            .write(true)
            .open(bundle.join("log"));
        let events = UnixListener::bind(host.path("events")).unwrap();
        thread::spawn(move || {
            for stream in events.incoming().flatten() {
                thread::spawn(|| hear(stream));
            }
        });
        let mut alone = Self {
            host,
            shim: Shim::under_test(),
            address: String::new(),
            _log: log.unwrap(),
        };
        let answer = alone.call("start", &[]).ok();
        let address = answer.split('"').find(|word| word.starts_with("unix://"));
        let address = address.unwrap_or(answer.trim());
        alone.address = address.trim_start_matches("unix://").to_owned();
        alone
    }

    /// Runs the shim for one of its actions.
    pub(crate) fn call(&self, action: &str, flags: &[&str]) -> Output {
        let dir = self.host.path("bundle").display().to_string();
        let program = self.shim.program().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("PATH={}:{path}", self.host.path("bin").display());
        // A mount namespace is entered in its root, whatever directory the command was given. The shell stays: a shim's parent
        // is in its pid namespace.
        let line = "cd $0 || exit; env \"$@\"; exit $?";
        let events = format!("TTRPC_ADDRESS={}", self.host.path("events").display());
        let mut args = vec!["-c", line, &dir, &path, &events, &program];
        args.extend(["-namespace", "test", "-address", "/nobody", "-id", "box"]);
        args.extend(flags);
        args.push(action);
        let mut command = self.host.command("sh", &args);
        command.stdin(Stdio::null());
        finish(command, &self.host.path(""))
    }

    /// The root of the machine, seen from here.
    pub(crate) fn root(&self, path: &str) -> PathBuf {
        let root = self.host.network().replace("/ns/net", "/root");
        PathBuf::from(format!("{root}{path}"))
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.root(&self.address)).expect("the shim listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Client { stream, id: 1 }
    }

    /// The socket is there.
    pub(crate) fn has_socket(&self) -> bool {
        self.root(&self.address).exists()
    }

    /// Its own process, as `Connect` tells it.
    pub(crate) fn kill(&self) {
        let (_, answer) = self.connect().call("Connect", &text(1, "box"));
        // ConnectResponse.shim_pid = 1
        assert_eq!(answer.first(), Some(&8), "{answer:?}");
        let pid = varint_of(&answer[1..]);
        self.host.sh(&format!(
            "kill -KILL {pid}; while [ -e /proc/{pid}/exe ]; do :; done"
        ));
    }

    /// CreateTaskRequest with this file as stdout.
    pub(crate) fn create(&self, stdout: &str) -> Vec<u8> {
        let bundle = self.host.path("bundle").display().to_string();
        [text(1, "box"), text(2, &bundle), text(6, stdout)].concat()
    }

    pub(crate) fn wait_until_empty(&self) {
        eventually("no process is left", || {
            pids_in_cgroups_named(&self.host.name)
                .is_empty()
                .then_some(())
        });
    }
}

/// Takes every event, as containerd does; a shim without anybody to tell them may end.
fn hear(mut stream: UnixStream) -> io::Result<()> {
    loop {
        let mut head = [0; 10];
        stream.read_exact(&mut head)?;
        let [a, b, c, d, e, f, g, h, ..] = head;
        let mut event = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
        stream.read_exact(&mut event)?;
        let id = u32::from_be_bytes([e, f, g, h]);
        stream.write_all(&frame(0, id, RESPONSE, b""))?;
    }
}

/// One connection.
pub(crate) struct Client {
    stream: UnixStream,
    id: u32,
}

impl Client {
    /// Calls a method of the task service: status and payload.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, payload: &[u8]) -> (u64, Vec<u8>) {
        self.call_of("containerd.task.v2.Task", method, payload)
    }

    #[track_caller]
    pub(crate) fn call_of(
        &mut self,
        service: &str,
        method: &str,
        payload: &[u8],
    ) -> (u64, Vec<u8>) {
        let request = [text(1, service), text(2, method), bytes(3, payload)].concat();
        self.send(&frame(request.len() as u32, self.id, REQUEST, &request))
            .unwrap();
        self.id += 2;
        self.receive().expect("an answer")
    }

    pub(crate) fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.stream.write_all(data)
    }

    /// No more comes from here.
    pub(crate) fn end(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The next answer.
    pub(crate) fn receive(&mut self) -> io::Result<(u64, Vec<u8>)> {
        let mut head = [0; 10];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head[..4].try_into().unwrap());
        let mut data = vec![0; length as usize];
        self.stream.read_exact(&mut data)?;
        let status = field(&data, 1).unwrap_or_default();
        let code = match status.first() {
            Some(8) => varint_of(&status[1..]),
            _ => OK,
        };
        Ok((code, field(&data, 2).unwrap_or_default()))
    }
}

pub(crate) fn frame(length: u32, stream: u32, kind: u8, data: &[u8]) -> Vec<u8> {
    let head = [&length.to_be_bytes()[..], &stream.to_be_bytes(), &[kind, 0]].concat();
    [&head, data].concat()
}

pub(crate) fn text(number: u8, value: &str) -> Vec<u8> {
    bytes(number, value.as_bytes())
}

pub(crate) fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(value.len() as u64), value].concat()
}

pub(crate) fn number(number: u8, value: u64) -> Vec<u8> {
    [&[number << 3][..], &varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn varint_of(data: &[u8]) -> u64 {
    let end = data
        .iter()
        .position(|byte| byte & 0x80 == 0)
        .expect("an end");
    let bits = data[..=end].iter().rev();
    bits.fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

/// The first bytes of a field among fields that are all bytes.
fn field(mut data: &[u8], number: u8) -> Option<Vec<u8>> {
    while let [key, rest @ ..] = data {
        let length = varint_of(rest) as usize;
        let start = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
        if key >> 3 == number {
            return Some(rest[start..start + length].to_vec());
        }
        data = &rest[start + length..];
    }
    None
}
