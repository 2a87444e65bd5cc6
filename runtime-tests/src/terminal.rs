//! Terminals: one that a test sits at, and the socket that receives a container's.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::openpty;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::command::{code, eventually, wait};

/// A terminal that a test sits at: it types, and reads what has appeared.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    slave: Option<File>,
    device: PathBuf,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// A new terminal of 24 rows and 80 columns.
    pub fn open() -> Self {
        let pair = openpty(None, None).expect("a pty");
        let slave = File::from(pair.slave);
        let device = nix::unistd::ttyname(&slave).expect("the pty has a name");
        let terminal = Self {
            slave: Some(slave),
            device,
            ..Self::of(File::from(pair.master))
        };
        terminal.resize(24, 80);
        terminal
    }

    fn of(master: File) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (master.try_clone().expect("a file"), Arc::clone(&seen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                sink.lock()
                    .expect("no panic")
                    .extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            master,
            slave: None,
            device: PathBuf::new(),
            seen,
        }
    }

    /// Starts a command as the session leader at this terminal.
    pub fn start(&mut self, command: &Command) -> Child {
        let slave = self.slave.as_ref().expect("the terminal is a test's own");
        let stdio = || Stdio::from(slave.try_clone().expect("a file"));
        let mut leader = Command::new("setsid");
        leader
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        leader
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .expect("util-linux is installed")
    }

    /// Runs a command at this terminal to its end: its exit status.
    pub fn run(&mut self, command: &Command) -> i32 {
        let child = self.start(command);
        code(wait(child, &format!("{command:?}")))
    }

    /// Changes the window's size, as a user does by pulling at its corner.
    pub fn resize(&self, rows: u16, columns: u16) {
        crate::shell(&format!(
            "stty -F {} rows {rows} cols {columns}",
            self.device.display()
        ));
    }

    /// The settings that `stty` tells.
    pub fn settings(&self) -> String {
        crate::shell(&format!("stty -F {} -a", self.device.display()))
    }

    /// Types.
    pub fn type_in(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("the terminal takes keys");
    }

    /// What has appeared so far.
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("no panic")).into_owned()
    }

    /// Waits until these words have appeared.
    #[track_caller]
    pub fn wait_to_see(&self, words: &str) -> String {
        eventually(
            &format!("the terminal shows {words:?}, not only {:?}", self.seen()),
            || Some(self.seen()).filter(|seen| seen.contains(words)),
        )
    }
}

/// The unix socket on which an engine waits for a container's terminal.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    /// Where it listens.
    pub path: PathBuf,
}

impl ConsoleSocket {
    /// A socket in a directory.
    pub fn listen(dir: &Path) -> Self {
        let path = dir.join("console.sock");
        Self {
            listener: UnixListener::bind(&path).expect("a socket"),
            path,
        }
    }

    /// The terminal that was sent, and the text that came with it.
    pub fn receive(&self) -> (Terminal, String) {
        let (master, text) = self.receive_descriptor();
        (Terminal::of(File::from(master)), text)
    }

    /// The one descriptor that was sent, and the text that came with it.
    pub fn receive_descriptor(&self) -> (OwnedFd, String) {
        let (stream, _) = self.listener.accept().expect("a connection");
        let mut text = [0; 256];
        let mut space = nix::cmsg_space!([i32; 4]);
        let mut parts = [IoSliceMut::new(&mut text)];
        let message = recvmsg::<()>(
            stream.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .expect("a message");
        let length = message.bytes;
        let fds: Vec<i32> = message
            .cmsgs()
            .expect("control messages")
            .filter_map(|part| {
                if let ControlMessageOwned::ScmRights(fds) = part {
                    Some(fds)
                } else {
                    None
                }
            })
            .flatten()
            .collect();
        let &[fd] = fds.as_slice() else {
            panic!("exactly one descriptor is sent, not {fds:?}")
        };
        // SAFETY: the descriptor was just received, and nothing else owns it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(fd) };
        (
            descriptor,
            String::from_utf8_lossy(&text[..length]).into_owned(),
        )
    }
}
