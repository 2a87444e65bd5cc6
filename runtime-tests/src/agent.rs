//! A seccomp agent, who decides on the system calls that a container's profile has notified.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::Value;

use crate::runtime::is_coracle;

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Debug, Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    /// `struct seccomp_data`.
    data: [u64; 8],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Debug)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

nix::ioctl_readwrite!(receive, b'!', 0, Notification);
nix::ioctl_readwrite!(respond, b'!', 1, Response);

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;

/// Listens at a socket and answers every call until the test ends.
#[derive(Debug)]
pub struct SeccompAgent {
    path: PathBuf,
    states: Arc<Mutex<Vec<Value>>>,
}

impl SeccompAgent {
    /// Answers with this errno, or lets every call pass.
    pub fn listen(dir: &Path, answer: Option<Errno>) -> Self {
        let path = dir.join("agent.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let states: Arc<Mutex<Vec<Value>>> = Arc::default();
        let seen = Arc::clone(&states);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (state, filter) = container_process_state(&stream);
                seen.lock().expect("no panic").push(state);
                thread::spawn(move || answer_all(&filter, answer));
            }
        });
        Self { path, states }
    }

    /// What `listenerPath` says.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The container process states that have come.
    pub fn states(&self) -> Vec<Value> {
        self.states.lock().expect("no panic").clone()
    }
}

/// The state, and the one descriptor that comes with it.
fn container_process_state(stream: &UnixStream) -> (Value, OwnedFd) {
    let mut text = vec![0; 64 << 10];
    let mut fds = Vec::new();
    let mut receive = |at: usize| {
        let mut space = nix::cmsg_space!([i32; 4]);
        let mut buffers = [IoSliceMut::new(&mut text[at..])];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut buffers, Some(&mut space), flags)
            .expect("a message");
        for control in message.cmsgs().expect("control messages") {
            if let ControlMessageOwned::ScmRights(received) = control {
                fds.extend(received);
            }
        }
        let end = at + message.bytes;
        (end, serde_json::from_slice::<Value>(&text[..end]).ok())
    };
    let (mut length, mut state) = receive(0);
    while state.is_none() {
        (length, state) = receive(length);
    }
    // The specification wants the connection closed then; runc leaves it open.
    if is_coracle() {
        assert_eq!(receive(length).0, length, "one state for each connection");
    }
    let state = state.expect("JSON");
    assert_eq!(fds.len(), 1, "one descriptor: {state}");
    // SAFETY: the kernel has just made it for this message.
    (state, unsafe { OwnedFd::from_raw_fd(fds[0]) })
}

/// Until the last process with the filter has gone.
fn answer_all(filter: &OwnedFd, answer: Option<Errno>) {
    loop {
        let mut notification = Notification::default();
        // SAFETY: the kernel fills a struct of this size, which has to be zero before.
        match unsafe { receive(filter.as_raw_fd(), &raw mut notification) } {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(_) => return,
        }
        let mut response = Response {
            id: notification.id,
            value: 0,
            error: answer.map_or(0, |errno| -(errno as i32)),
            flags: if answer.is_none() { CONTINUE } else { 0 },
        };
        // SAFETY: the kernel reads a struct of this size. The process may be gone by now.
        let _ = unsafe { respond(filter.as_raw_fd(), &raw mut response) };
    }
}
