//! Our standard input and output on one side, a pty's master on the other.

use std::io::{Stdin, stderr, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::PollFlags;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::termios::{
    OutputFlags, SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr,
};
use nix::unistd::{getpgrp, isatty, read, tcgetpgrp, write};

use super::Ready;
use crate::sys::pty::open_peer;
use crate::sys::terminal::{set_window_size, window_size};
use crate::{Context, Result};

/// What is read at once, and so what each direction holds at most. A pipe that poll(2) calls writable takes this much without
/// blocking (PIPE_BUF).
const CHUNK: usize = 4096;

/// The last output of a process fits into what the kernel buffers; more comes only from others that write on, and those are
/// not waited for.
const LAST_OUTPUT: usize = 1 << 20;

/// Gives a new pty our window's size, and plain newlines when our output is not a terminal, as runc does.
/// Belongs before the process runs, so that it never sees anything else.
pub(crate) fn fit_terminal(master: BorrowedFd<'_>) {
    copy_window_size(master);
    if !isatty(stdout()).unwrap_or(false)
        && let Ok(mut settings) = tcgetattr(master)
    {
        settings.output_flags.remove(OutputFlags::ONLCR);
        let _ = tcsetattr(master, SetArg::TCSANOW, &settings);
    }
}

/// Does nothing when none of our standard streams is a terminal.
fn copy_window_size(master: BorrowedFd<'_>) {
    let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
    let size = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
        .into_iter()
        .find_map(|fd| window_size(fd).ok());
    if let Some(size) = size {
        let _ = set_window_size(master, &size);
    }
}

/// The two directions of a terminal session. No call of it blocks.
#[derive(Debug)]
pub(super) struct Relay {
    master: OwnedFd,
    /// The pty's other end. While we hold it, a container that closes its terminal and opens it again does not make the master
    /// report a hang-up for ever, which would be a busy loop.
    _peer: Option<OwnedFd>,
    /// The kernel did not give us the other end, and the container has closed its last one.
    hung_up: bool,
    raw_mode: Option<RawMode>,
    stdin: Stdin,
    stdout: OwnedFd,
    stdin_open: bool,
    stdout_open: bool,
    /// Still to be written to the master.
    typed: Vec<u8>,
    /// Still to be written to standard output.
    shown: Vec<u8>,
    /// The last byte that came from standard input.
    last_typed: u8,
    /// How much is still taken from the master after the process has ended.
    last_output: Option<usize>,
}

impl Relay {
    pub(super) fn new(master: OwnedFd) -> Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .context("make the terminal non-blocking")?;
        Ok(Relay {
            _peer: open_peer(master.as_fd()).ok(),
            hung_up: false,
            raw_mode: RawMode::enter()?,
            stdin: stdin(),
            stdout: output_of_our_own(stdout().as_fd()).context("open standard output")?,
            master,
            stdin_open: true,
            stdout_open: true,
            typed: Vec::with_capacity(CHUNK),
            shown: Vec::with_capacity(CHUNK),
            last_typed: b'\n',
            last_output: None,
        })
    }

    /// Hands a change of our window's size on.
    pub(super) fn resize(&self) {
        copy_window_size(self.master.as_fd());
    }

    /// After this process was stopped and goes on.
    pub(super) fn resume(&self) {
        self.raw_mode.iter().for_each(RawMode::set);
        self.resize();
    }

    pub(super) fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    pub(super) fn stdin(&self) -> BorrowedFd<'_> {
        self.stdin.as_fd()
    }

    pub(super) fn stdout(&self) -> BorrowedFd<'_> {
        self.stdout.as_fd()
    }

    pub(super) fn master_events(&self) -> PollFlags {
        let mut events = PollFlags::empty();
        if self.last_output.is_none() && !self.hung_up {
            events.set(PollFlags::POLLIN, self.shown.is_empty());
            events.set(PollFlags::POLLOUT, !self.typed.is_empty());
        }
        events
    }

    pub(super) fn stdin_events(&self) -> PollFlags {
        let wanted =
            self.stdin_open && self.typed.is_empty() && self.last_output.is_none() && !self.hung_up;
        if wanted {
            PollFlags::POLLIN
        } else {
            PollFlags::empty()
        }
    }

    pub(super) fn stdout_events(&self) -> PollFlags {
        if self.shown.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::POLLOUT
        }
    }

    /// Moves what can be moved.
    pub(super) fn advance(&mut self, ready: &Ready) {
        if ready.stdin {
            self.read_stdin();
        }
        if ready.master_writable {
            self.write_master();
        }
        if ready.stdout {
            self.write_stdout();
        }
        if self.shown.is_empty() && (ready.master_readable || self.last_output.is_some()) {
            self.read_master();
        }
    }

    /// Nothing more is typed; what the process has written is still handed out.
    pub(super) fn process_ended(&mut self) {
        self.last_output = Some(LAST_OUTPUT);
        if self.shown.is_empty() {
            self.read_master();
        }
    }

    /// Whether all output is out.
    pub(super) fn is_done(&self) -> bool {
        self.last_output == Some(0) && self.shown.is_empty()
    }

    fn read_stdin(&mut self) {
        let mut buffer = [0; CHUNK];
        match read(self.stdin(), &mut buffer) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(count) if count > 0 => {
                self.last_typed = buffer[count - 1];
                self.typed.extend_from_slice(&buffer[..count]);
            }
            // End of file, or a terminal that has gone.
            Ok(_) | Err(_) => {
                self.stdin_open = false;
                self.type_end_of_file();
            }
        }
    }

    /// What script(1) does when its input was a pipe or a file: types the character that means "end of file", twice after an
    /// unfinished line, so that a shell that reads commands from us ends.
    fn type_end_of_file(&mut self) {
        if self.raw_mode.is_some() {
            return;
        }
        if let Ok(settings) = tcgetattr(&self.master) {
            let character = settings.control_chars[SpecialCharacterIndices::VEOF as usize];
            let times = if self.last_typed == b'\n' { 1 } else { 2 };
            self.typed.extend(std::iter::repeat_n(character, times));
        }
    }

    fn write_master(&mut self) {
        match write(&self.master, &self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.typed.clear(),
        }
    }

    fn read_master(&mut self) {
        let mut buffer = [0; CHUNK];
        match read(&self.master, &mut buffer) {
            Ok(count) if count > 0 => {
                // When nobody takes our output the process must not block because of that.
                if self.stdout_open {
                    self.shown.extend_from_slice(&buffer[..count]);
                }
                self.last_output = self.last_output.map(|left| left.saturating_sub(count));
            }
            Err(Errno::EINTR) => {}
            // EAGAIN: nothing left, and the kernel has looked into every buffer of the pty before it said so. EIO: hung up.
            end => {
                self.last_output = self.last_output.map(|_| 0);
                self.hung_up |= end == Err(Errno::EIO);
            }
        }
    }

    fn write_stdout(&mut self) {
        match write(&self.stdout, &self.shown) {
            Ok(count) => drop(self.shown.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => {
                self.stdout_open = false;
                self.shown.clear();
            }
        }
    }
}

/// A standard stream, so that writing never blocks. Setting O_NONBLOCK on the descriptor itself would set it for everybody who
/// shares it (the shell), so pipes and terminals are opened once more; the rest, and what we may not open, is written to in
/// pieces that poll(2) has promised to take.
pub fn output_of_our_own(stream: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    let kind = fstat(stream).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    if kind == Ok(SFlag::S_IFIFO) || isatty(stream) == Ok(true) {
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
        if let Ok(own) = open(path.as_str(), flags, Mode::empty()) {
            return Ok(own);
        }
    }
    stream.try_clone_to_owned()
}

/// Our terminal in raw mode: every key goes to the container. Dropping it restores the terminal.
#[derive(Debug)]
pub struct RawMode {
    saved: Termios,
    raw: Termios,
}

impl RawMode {
    /// `None` when standard input is not a terminal. Called from the background this stops us, until `fg`.
    pub fn enter() -> Result<Option<Self>> {
        let Ok(saved) = tcgetattr(stdin()) else {
            return Ok(None);
        };
        let mut raw = saved.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).context("set the terminal to raw mode")?;
        Ok(Some(RawMode { saved, raw }))
    }

    /// Sets it again, after somebody else used the terminal.
    pub fn set(&self) {
        apply(&self.raw);
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        apply(&self.saved);
    }
}

/// In the background the terminal is somebody else's: left alone.
fn apply(settings: &Termios) {
    if tcgetpgrp(stdin()).is_ok_and(|group| group == getpgrp()) {
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, settings);
    }
}
