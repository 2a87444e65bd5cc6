//! A connection to systemd: one socket, one thread, one call at a time.
//!
//! Like systemctl, it talks to the manager itself where that can be reached (`private` in its runtime directory), which needs no message
//! bus and half the context switches, and goes by way of the message bus elsewhere.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::message::{self, Kind, Message, Value};
use crate::{Error, Result};

/// How long systemd may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

const SYSTEM_MANAGER: &str = "/run/systemd/private";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

const MANAGER: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";

/// Which systemd, and how it is reached: kept, so that a later command finds the same one from another environment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Address {
    /// A path, or a name in the abstract namespace with `@` in front.
    socket: String,
    /// It is a message bus, and systemd a participant.
    bus: bool,
    /// It is a user's manager, not the system's.
    pub(super) user: bool,
}

impl Address {
    fn connect(&self) -> std::io::Result<UnixStream> {
        match self.socket.strip_prefix('@') {
            Some(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
            None => UnixStream::connect(&self.socket),
        }
    }
}

/// An open connection.
pub(crate) struct Bus {
    stream: UnixStream,
    pub(super) address: Address,
    serial: u32,
    /// Bytes that have come and were not looked at yet.
    received: Vec<u8>,
    /// Signals that came while an answer was waited for.
    signals: VecDeque<Message>,
}

impl Bus {
    /// Connects to the manager that runs as who we are: root's is the system's, anybody else's their own. It is told by the peer's
    /// credentials, so that a user who is root only in a user namespace finds the right one.
    pub(super) fn find() -> Result<Bus> {
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let session = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok();
        let uid = geteuid().as_raw();
        let mut tried = Vec::new();
        for address in candidates(uid, runtime_dir.as_deref(), session.as_deref()) {
            let why = match address.connect() {
                // The system's message bus belongs to a user of its own, and asks systemd or polkit about us.
                Ok(stream) if address.bus && !address.user => return Bus::open(stream, address),
                Ok(stream) => match getsockopt(&stream, sockopt::PeerCredentials) {
                    Ok(peer) if peer.uid() == uid => return Bus::open(stream, address),
                    Ok(peer) => format!("belongs to user {}", peer.uid()),
                    Err(errno) => errno.desc().to_owned(),
                },
                Err(error) => describe(&error),
            };
            tried.push(format!("{}: {why}", address.socket));
        }
        let remedy = if uid == 0 {
            "the systemd cgroup manager needs systemd as init; use the cgroupfs manager without it"
        } else {
            "the systemd cgroup manager needs the user's systemd, which a login or `loginctl enable-linger` starts; \
             XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS say where it is"
        };
        Err(failed(
            "connect to systemd",
            format!("{} ({remedy})", tried.join(", ")),
        ))
    }

    /// Connects to a known address.
    pub(super) fn connect(address: &Address) -> Result<Bus> {
        match address.connect() {
            Ok(stream) => Bus::open(stream, address.clone()),
            Err(error) => Err(failed(
                "connect to systemd",
                format!("{}: {}", address.socket, describe(&error)),
            )),
        }
    }

    fn open(stream: UnixStream, address: Address) -> Result<Bus> {
        let mut bus = Bus {
            stream,
            address,
            serial: 0,
            received: Vec::new(),
            signals: VecDeque::new(),
        };
        bus.authenticate()?;
        if bus.address.bus {
            bus.call_at(BUS, "/org/freedesktop/DBus", BUS, "Hello", Vec::new())?;
            let rule = format!("type='signal',interface='{MANAGER_INTERFACE}',member='JobRemoved'");
            let rule = vec![Value::String(rule)];
            bus.call_at(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", rule)?;
            // Directly it sends its signals to everybody.
            bus.call("Subscribe", Vec::new())?;
        }
        Ok(bus)
    }

    /// D-Bus specification, "Authentication Protocol": EXTERNAL with an empty identity, which is whom the kernel says we are; a number
    /// of ours may mean somebody else on the other side of a user namespace. All is said in one go: systemd, when it finds a message
    /// right behind `BEGIN`, does not look at it before the next one comes.
    fn authenticate(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let refused = |answer: &str| {
            let problem = format!("{:?} to the authentication", answer.trim_end());
            failed("connect to systemd", problem)
        };
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        // `DATA` asks for the identity, `OK guid` or `REJECTED …` is the verdict. The first signals may be right behind it.
        loop {
            match self.line(deadline)?.as_str() {
                "DATA" => {}
                verdict if verdict.starts_with("OK ") => return Ok(()),
                verdict => return Err(refused(verdict)),
            }
        }
    }

    /// Calls a method of the manager.
    pub(super) fn call(&mut self, method: &str, body: Vec<Value>) -> Result<Vec<Value>> {
        self.call_at(MANAGER, MANAGER_PATH, MANAGER_INTERFACE, method, body)
    }

    /// Reads a property of the manager that is a string.
    pub(super) fn property(&mut self, name: &str) -> Result<String> {
        let body = vec![Value::text(MANAGER_INTERFACE), Value::text(name)];
        let interface = "org.freedesktop.DBus.Properties";
        let answer = self.call_at(MANAGER, MANAGER_PATH, interface, "Get", body)?;
        match answer.first().and_then(Value::as_str) {
            Some(value) => Ok(value.to_owned()),
            None => Err(unexpected(name)),
        }
    }

    fn call_at(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        method: &str,
        body: Vec<Value>,
    ) -> Result<Vec<Value>> {
        self.serial += 1;
        let call = Message {
            kind: Kind::Call,
            serial: self.serial,
            reply_to: None,
            path: Some(path.into()),
            interface: Some(interface.into()),
            member: Some(method.into()),
            error: None,
            destination: Some(destination.into()),
            body,
        };
        self.send(&call.encode())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.message(deadline)?;
            match message.kind {
                Kind::Signal => self.signals.push_back(message),
                Kind::Return if message.reply_to == Some(self.serial) => return Ok(message.body),
                Kind::Error if message.reply_to == Some(self.serial) => {
                    let text = message.body.first().and_then(Value::as_str);
                    return Err(Error::Systemd {
                        action: method.to_owned(),
                        name: message.error.clone().unwrap_or_default(),
                        problem: text
                            .or(message.error.as_deref())
                            .unwrap_or("refused")
                            .into(),
                    });
                }
                _ => {}
            }
        }
    }

    /// Waits until a job has come to its end; returns its result, `done` when all is well.
    pub(super) fn wait_for_job(&mut self, job: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.message(deadline)?,
            };
            if message.kind == Kind::Signal && message.member.as_deref() == Some("JobRemoved") {
                // The job's number, its path, the unit, the result.
                let text = |at: usize| message.body.get(at).and_then(Value::as_str);
                if text(1) == Some(job) {
                    return text(3)
                        .map(str::to_owned)
                        .ok_or_else(|| unexpected("JobRemoved"));
                }
            }
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.receive(deadline)?;
        }
    }

    fn message(&mut self, deadline: Instant) -> Result<Message> {
        let malformed = |bad: message::Malformed| failed("talk to systemd", bad.to_string());
        loop {
            let length = match self.received.first_chunk() {
                Some(fixed) => message::length(fixed).map_err(malformed)?,
                None => usize::MAX,
            };
            if length <= self.received.len() {
                let bytes: Vec<u8> = self.received.drain(..length).collect();
                return Message::decode(&bytes).map_err(malformed);
            }
            self.receive(deadline)?;
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = self
            .stream
            .set_write_timeout(Some(PATIENCE))
            .and_then(|()| self.stream.write_all(bytes));
        sent.map_err(|error| failed("talk to systemd", describe(&error)))
    }

    /// Waits for more bytes.
    fn receive(&mut self, deadline: Instant) -> Result<()> {
        // Zero would mean no limit.
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        let mut chunk = [0; 4096];
        let timed = self.stream.set_read_timeout(Some(left));
        match timed.and_then(|()| self.stream.read(&mut chunk)) {
            Ok(0) => Err(failed("talk to systemd", "the connection was closed")),
            Ok(length) => {
                self.received.extend(&chunk[..length]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(failed("talk to systemd", describe(&error))),
        }
    }
}

/// Where systemd may be found, best first.
fn candidates(uid: u32, runtime_dir: Option<&Path>, session: Option<&str>) -> Vec<Address> {
    let default_dir = PathBuf::from(format!("/run/user/{uid}"));
    let runtime_dir = runtime_dir.unwrap_or(&default_dir);
    let at = |socket: String, bus, user| Address { socket, bus, user };
    let below = |name: &str| runtime_dir.join(name).to_string_lossy().into_owned();
    let mut found = Vec::new();
    if uid == 0 {
        found.push(at(SYSTEM_MANAGER.into(), false, false));
    }
    found.push(at(below("systemd/private"), false, true));
    let session = session.and_then(session_socket);
    found.push(at(session.unwrap_or_else(|| below("bus")), true, true));
    if uid == 0 {
        found.push(at(SYSTEM_BUS.into(), true, false));
    }
    found
}

/// The first unix socket of a D-Bus address (`unix:path=/run/user/1000/bus,guid=…;tcp:…`).
fn session_socket(address: &str) -> Option<String> {
    let mut sockets = address
        .split(';')
        .filter_map(|one| one.strip_prefix("unix:"));
    sockets.find_map(|one| {
        one.split(',').find_map(|pair| match pair.split_once('=') {
            Some(("path", path)) => Some(path.to_owned()),
            Some(("abstract", name)) => Some(format!("@{name}")),
            _ => None,
        })
    })
}

/// In the words of the C library's manual, not those of the one that is linked.
fn describe(error: &std::io::Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::WouldBlock | ErrorKind::TimedOut, _) => {
            format!("no answer within {} s", PATIENCE.as_secs())
        }
        (_, Some(number)) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        _ => error.to_string(),
    }
}

pub(super) fn failed(action: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Systemd {
        action: action.into(),
        name: String::new(),
        problem: problem.into(),
    }
}

fn unexpected(what: &str) -> Error {
    failed("talk to systemd", format!("{what} is not a string"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn where_systemd_is_looked_for() {
        let sockets = |uid, dir: Option<&str>, session| {
            candidates(uid, dir.map(Path::new), session)
                .into_iter()
                .map(|address| address.socket)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            sockets(1000, None, None),
            ["/run/user/1000/systemd/private", "/run/user/1000/bus"]
        );
        let session = Some("unix:abstract=/tmp/x,guid=7;unix:path=/y");
        assert_eq!(
            sockets(0, Some("/run/user/1000"), session),
            [
                "/run/systemd/private",
                "/run/user/1000/systemd/private",
                "@/tmp/x",
                "/run/dbus/system_bus_socket"
            ]
        );
        assert_eq!(session_socket("tcp:host=x;unix:path=/y"), Some("/y".into()));
        assert_eq!(session_socket("unix:tmpdir=/tmp"), None);
    }

    /// A manager that plays a fixed part: what it reads is thrown away up to `calls` messages, then it says `answers`.
    fn against(script: impl FnOnce(&mut UnixStream) + Send + 'static) -> Result<Bus> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut greeting = [0; 29];
            theirs.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
            script(&mut theirs);
        });
        let address = Address {
            socket: "/nowhere".into(),
            bus: false,
            user: false,
        };
        Bus::open(ours, address)
    }

    /// Accepts, and goes on at once with what it tells everybody.
    fn accept(stream: &mut UnixStream) {
        let mut answer = b"DATA\r\nOK 0123\r\n".to_vec();
        for _ in 0..100 {
            answer.extend(reply(
                Kind::Signal,
                0,
                "UnitNew",
                vec![Value::text("y.scope")],
            ));
        }
        stream.write_all(&answer).unwrap();
    }

    fn read(stream: &mut UnixStream) -> Message {
        let mut fixed = [0; message::FIXED];
        stream.read_exact(&mut fixed).unwrap();
        let mut bytes = fixed.to_vec();
        bytes.resize(message::length(&fixed).unwrap(), 0);
        stream.read_exact(&mut bytes[message::FIXED..]).unwrap();
        Message::decode(&bytes).unwrap()
    }

    fn reply(kind: Kind, to: u32, member: &str, body: Vec<Value>) -> Vec<u8> {
        let message = Message {
            kind,
            serial: 100,
            reply_to: (to != 0).then_some(to),
            path: Some("/x".into()),
            interface: None,
            member: Some(member.into()),
            error: (kind == Kind::Error).then(|| member.into()),
            destination: None,
            body,
        };
        message.encode()
    }

    #[test]
    fn a_job_is_followed_to_its_end() {
        let mut bus = against(|stream| {
            accept(stream);
            let call = read(stream);
            assert_eq!(call.member.as_deref(), Some("StopUnit"));
            let removed = |number, result| {
                let path = Value::ObjectPath(format!("/job/{number}"));
                let body = vec![
                    Value::Uint32(number),
                    path,
                    Value::text("x.scope"),
                    Value::text(result),
                ];
                reply(Kind::Signal, 0, "JobRemoved", body)
            };
            // Another job's end, and our own before the answer to the call.
            stream.write_all(&removed(6, "failed")).unwrap();
            stream.write_all(&removed(7, "done")).unwrap();
            let job = vec![Value::ObjectPath("/job/7".into())];
            stream
                .write_all(&reply(Kind::Return, call.serial, "", job))
                .unwrap();
        })
        .unwrap();
        let job = bus.call("StopUnit", vec![Value::text("x.scope")]).unwrap();
        assert_eq!(bus.wait_for_job(job[0].as_str().unwrap()).unwrap(), "done");
    }

    #[test]
    fn errors_are_systemds_own_words() {
        let mut bus = against(|stream| {
            accept(stream);
            let call = read(stream);
            let words = vec![Value::text("Unit x.scope not loaded.")];
            let name = "org.freedesktop.systemd1.NoSuchUnit";
            stream
                .write_all(&reply(Kind::Error, call.serial, name, words))
                .unwrap();
        })
        .unwrap();
        let error = bus
            .call("StopUnit", vec![Value::text("x.scope")])
            .unwrap_err();
        assert_eq!(error.to_string(), "StopUnit: Unit x.scope not loaded.");
        // The other side is gone by now.
        let error = bus.call("StopUnit", Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("talk to systemd: "), "{error}");
    }

    #[test]
    fn a_refusal_is_an_error() {
        let error = against(|stream| stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap());
        assert_eq!(
            error.err().unwrap().to_string(),
            "connect to systemd: \"REJECTED EXTERNAL\" to the authentication"
        );
    }
}
