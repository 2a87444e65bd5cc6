//! A bundle with a shim, and as much of ttrpc as it takes to say wrong things to it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::bundle::{base_config, fill_rootfs};
use crate::cgroup::pids_in_cgroups_named;
use crate::command::{Output, eventually, finish, shell};
use crate::host::Host;
use crate::runtime::runtime;
use crate::shim::Shim;

/// google.rpc.Code: success, and the errors below.
pub const OK: u64 = 0;
/// What nobody may ask for.
pub const INVALID_ARGUMENT: u64 = 3;
/// There is no such thing.
pub const NOT_FOUND: u64 = 5;
/// There is one already.
pub const ALREADY_EXISTS: u64 = 6;
/// Not in this state.
pub const FAILED_PRECONDITION: u64 = 9;
/// There is no such service or method.
pub const UNIMPLEMENTED: u64 = 12;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// A shim on a machine of its own, for the container `box`.
#[derive(Debug)]
pub struct Alone {
    /// The machine, with the bundle in its directory.
    pub host: Host,
    shim: Shim,
    service: &'static str,
    address: String,
    _log: File,
}

impl Alone {
    /// The shim and the runtime under test, with a bundle whose container runs a line of shell.
    pub fn new(script: &str) -> Self {
        Self::of(Shim::under_test(), runtime(), script)
    }

    /// The same of another shim and another runtime.
    pub fn of(shim: Shim, runtime: &Path, script: &str) -> Self {
        let host = Host::new();
        // containerd names it after the container, and its own shim relies on that.
        let bundle = host.path("box");
        fill_rootfs(&bundle.join("rootfs"));
        let mut config = base_config();
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["linux"]["cgroupsPath"] = json!(format!("/{}/box", host.name));
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let bin = host.path("bin");
        fs::create_dir(&bin).unwrap();
        // By this name it is found if no other is given.
        for name in ["runc", "coracle"] {
            symlink(runtime, bin.join(name)).unwrap();
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
            shim,
            service: "containerd.task.v2.Task",
            address: String::new(),
            _log: log.unwrap(),
        };
        let answer = alone.call("start", &[]).ok();
        if answer.contains("\"version\":3") {
            alone.service = "containerd.task.v3.Task";
        }
        let address = answer.split('"').find(|word| word.starts_with("unix://"));
        let address = address.unwrap_or(answer.trim());
        alone.address = address.trim_start_matches("unix://").to_owned();
        alone
    }

    /// Runs the shim for one of its actions.
    pub fn call(&self, action: &str, flags: &[&str]) -> Output {
        let dir = self.host.path("box").display().to_string();
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
    pub fn root(&self, path: &str) -> PathBuf {
        let root = self.host.network().replace("/ns/net", "/root");
        PathBuf::from(format!("{root}{path}"))
    }

    /// A connection, as containerd has one for each container.
    pub fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.root(&self.address)).expect("the shim listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Client {
            stream,
            service: self.service,
            id: 1,
        }
    }

    /// The socket is there.
    pub fn has_socket(&self) -> bool {
        self.root(&self.address).exists()
    }

    /// Its own process, as `Connect` tells it.
    pub fn kill(&self) {
        let (_, answer) = self.connect().call("Connect", &text(1, "box"));
        // ConnectResponse.shim_pid = 1
        assert_eq!(answer.first(), Some(&8), "{answer:?}");
        let pid = varint_of(&answer[1..]);
        self.host.sh(&format!(
            "kill -KILL {pid}; while [ -e /proc/{pid}/exe ]; do :; done"
        ));
    }

    /// CreateTaskRequest with this file as stdout.
    pub fn create(&self, stdout: &str) -> Vec<u8> {
        let bundle = self.host.path("box").display().to_string();
        [text(1, "box"), text(2, &bundle), text(6, stdout)].concat()
    }

    /// ExecProcessRequest of this program.
    pub fn exec(&self, id: &str, program: &str) -> Vec<u8> {
        let user = json!({ "uid": 0, "gid": 0 });
        let spec = json!({ "args": [program], "cwd": "/", "env": ["PATH=/bin"], "user": user });
        let kind = "types.containerd.io/opencontainers/runtime-spec/1/Process";
        let any = [text(1, kind), bytes(2, spec.to_string().as_bytes())].concat();
        [text(1, "box"), text(2, id), bytes(7, &any)].concat()
    }

    /// Waits until no process of a container is left.
    pub fn wait_until_empty(&self) {
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
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    service: &'static str,
    id: u32,
}

impl Client {
    /// Calls a method of the task service: status and payload.
    #[track_caller]
    pub fn call(&mut self, method: &str, payload: &[u8]) -> (u64, Vec<u8>) {
        self.call_of(self.service, method, payload)
    }

    /// The same of another service.
    #[track_caller]
    pub fn call_of(&mut self, service: &str, method: &str, payload: &[u8]) -> (u64, Vec<u8>) {
        let request = [text(1, service), text(2, method), bytes(3, payload)].concat();
        self.send(&frame(request.len() as u32, self.id, REQUEST, &request))
            .unwrap();
        self.id += 2;
        self.receive().expect("an answer")
    }

    /// Sends bytes.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.stream.write_all(data)
    }

    /// No more comes from here.
    pub fn end(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The next answer.
    pub fn receive(&mut self) -> io::Result<(u64, Vec<u8>)> {
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

/// A ttrpc message: length, stream and kind in front of the data.
pub fn frame(length: u32, stream: u32, kind: u8, data: &[u8]) -> Vec<u8> {
    let head = [&length.to_be_bytes()[..], &stream.to_be_bytes(), &[kind, 0]].concat();
    [&head, data].concat()
}

/// A field of protobuf with text in it.
pub fn text(number: u8, value: &str) -> Vec<u8> {
    bytes(number, value.as_bytes())
}

/// A field with bytes.
pub fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(value.len() as u64), value].concat()
}

/// A field with a number.
pub fn number(number: u8, value: u64) -> Vec<u8> {
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
