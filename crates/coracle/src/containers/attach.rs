//! A command's standard streams and a container's, by way of its monitor: the foreground of `run`, and `attach`.
//!
//! One loop over poll(2). Signals go to the container, keys too when it has a terminal, until it ends or the keys for leaving are pressed.

use std::collections::VecDeque;
use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{SIGCHLD, SIGCONT, SIGWINCH};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{read, write};
use runtime::{Context, RawMode, Result, output_of_our_own, window_size};

use super::control::{CHUNK, Connection, Message, Stream};
use super::directory::Container;

/// Ctrl-P Ctrl-Q: leave the container alone, and running.
const LEAVE: [u8; 2] = [0x10, 0x11];

/// What there is to attach to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttachOptions {
    /// Our standard input becomes the container's.
    pub(crate) input: bool,
    /// Signals that we get go to the container (`--sig-proxy`).
    pub(crate) forward_signals: bool,
    /// The container runs already; else the monitor will tell when it does, and signals wait until then.
    pub(crate) started: bool,
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parted {
    /// The container has ended, with this status.
    Exited(i32),
    /// It could not be started.
    Failed(i32, String),
    /// The keys were pressed, or the monitor is gone: the container lives on.
    Left,
}

/// Stays with a container until it ends.
pub(crate) fn attach(
    container: &Container,
    connection: Connection,
    options: AttachOptions,
) -> Result<Parted> {
    let attached = Attached::new(container, connection, options)?;
    attached.stay()
}

struct Attached<'a> {
    container: &'a Container,
    connection: Connection,
    options: AttachOptions,
    signals: SignalFd,
    raw_mode: Option<RawMode>,
    outputs: [Output; 2],
    /// What has been typed and not been taken.
    typed: VecDeque<Message>,
    input_open: bool,
    started: bool,
    /// The first of the keys for leaving has been pressed.
    may_leave: bool,
    parted: Option<Parted>,
}

/// One of our outputs.
struct Output {
    fd: OwnedFd,
    pending: Vec<u8>,
}

impl Output {
    fn new(stream: impl AsFd) -> Result<Self> {
        Ok(Output {
            fd: output_of_our_own(stream.as_fd()).context("open standard output")?,
            pending: Vec::new(),
        })
    }

    fn write(&mut self) {
        match write(&self.fd, &self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Nobody listens. The container goes on all the same.
            Err(_) => self.pending.clear(),
        }
    }
}

impl<'a> Attached<'a> {
    fn new(
        container: &'a Container,
        connection: Connection,
        options: AttachOptions,
    ) -> Result<Self> {
        let raw_mode = match container.record.tty && options.input {
            true => RawMode::enter()?,
            false => None,
        };
        let attached = Attached {
            signals: runtime::forwarded_signals()?,
            raw_mode,
            outputs: [Output::new(stdout())?, Output::new(stderr())?],
            typed: VecDeque::new(),
            input_open: options.input,
            started: options.started,
            may_leave: false,
            parted: None,
            container,
            connection,
            options,
        };
        attached.resize()?;
        Ok(attached)
    }

    fn stay(mut self) -> Result<Parted> {
        loop {
            if self.all_is_out()
                && let Some(parted) = self.parted.take()
            {
                return Ok(parted);
            }
            let [signals, input, monitor, out, err] = self.wait()?;
            if signals {
                self.read_signals()?;
            }
            if out {
                self.outputs[0].write();
            }
            if err {
                self.outputs[1].write();
            }
            if input {
                self.read_input();
            }
            if monitor {
                self.send_typed();
                // It may only have room for what is typed.
                if self.all_is_out() {
                    self.listen();
                }
            }
        }
    }

    fn all_is_out(&self) -> bool {
        self.outputs.iter().all(|output| output.pending.is_empty())
    }

    fn wait(&self) -> Result<[bool; 5]> {
        let (stdin, readable) = (stdin(), PollFlags::POLLIN);
        let when = |wanted: bool, flags| if wanted { flags } else { PollFlags::empty() };
        let parted = self.parted.is_some();
        let monitor = when(self.all_is_out() && !parted, readable)
            | when(!self.typed.is_empty(), PollFlags::POLLOUT);
        let wanted = [
            (self.signals.as_fd(), when(self.started, readable)),
            (
                stdin.as_fd(),
                when(self.input_open && self.typed.is_empty(), readable),
            ),
            (self.connection.as_fd(), monitor),
            (
                self.outputs[0].fd.as_fd(),
                when(!self.outputs[0].pending.is_empty(), PollFlags::POLLOUT),
            ),
            (
                self.outputs[1].fd.as_fd(),
                when(!self.outputs[1].pending.is_empty(), PollFlags::POLLOUT),
            ),
        ];
        // One without events would still report a hang-up, for ever.
        let (mut places, mut fds) = (Vec::with_capacity(5), Vec::with_capacity(5));
        for (place, (fd, flags)) in wanted.into_iter().enumerate() {
            if !flags.is_empty() {
                places.push(place);
                fds.push(PollFd::new(fd, flags));
            }
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for the container"),
        }
        let mut ready = [false; 5];
        for (place, fd) in places.into_iter().zip(&fds) {
            ready[place] = fd.revents().is_none_or(|found| !found.is_empty());
        }
        Ok(ready)
    }

    fn read_signals(&mut self) -> Result<()> {
        while let Some(info) = self.signals.read_signal().context("read the signalfd")? {
            match info.ssi_signo as i32 {
                SIGCHLD => {}
                SIGWINCH => self.resize()?,
                signal => {
                    if signal == SIGCONT {
                        self.raw_mode.iter().for_each(RawMode::set);
                        self.resize()?;
                    }
                    if self.options.forward_signals {
                        self.forward(signal);
                    } else if self.parted.is_none() && ends_us(signal) {
                        self.parted = Some(Parted::Left);
                    }
                }
            }
        }
        Ok(())
    }

    /// Not by way of the monitor, which may be waiting for the container to take its input.
    fn forward(&self, signal: i32) {
        let record = &self.container.record;
        if let Err(error) = runtime::kill(&record.settings(), &record.id, signal, false) {
            log::debug!("forward signal {signal}: {error}");
        }
    }

    /// Tells the size of our window, if we have one and the container has a terminal.
    fn resize(&self) -> Result<()> {
        if !self.container.record.tty {
            return Ok(());
        }
        let (stdin, stdout) = (stdin(), stdout());
        match window_size(stdout.as_fd()).or_else(|| window_size(stdin.as_fd())) {
            Some((rows, columns)) => self.connection.say(&Message::Resize(rows, columns)),
            None => Ok(()),
        }
    }

    fn read_input(&mut self) {
        let mut buffer = [0; CHUNK];
        match read(stdin(), &mut buffer) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(length @ 1..) => self.type_bytes(&buffer[..length]),
            // A terminal that is gone has no end of file to say, and a container with one of its own gets none.
            Ok(_) | Err(_) => {
                self.input_open = false;
                self.typed.push_back(Message::InputEnd);
            }
        }
        self.send_typed();
    }

    fn type_bytes(&mut self, bytes: &[u8]) {
        if !self.container.record.tty {
            self.typed.push_back(Message::Input(bytes.to_vec()));
            return;
        }
        let mut typed = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if self.may_leave && byte == LEAVE[1] {
                self.parted = Some(Parted::Left);
                break;
            }
            if std::mem::take(&mut self.may_leave) {
                typed.push(LEAVE[0]);
            }
            match byte == LEAVE[0] {
                true => self.may_leave = true,
                false => typed.push(byte),
            }
        }
        if !typed.is_empty() {
            self.typed.push_back(Message::Input(typed));
        }
    }

    fn send_typed(&mut self) {
        while let Some(message) = self.typed.front() {
            match self.connection.send(message, false) {
                Ok(true) => drop(self.typed.pop_front()),
                Ok(false) => return,
                // Listening tells.
                Err(_) => self.typed.clear(),
            }
        }
    }

    fn listen(&mut self) {
        let message = match self.connection.try_receive() {
            Err(Errno::EAGAIN) => return,
            Ok(Some(message)) => message,
            Ok(None) | Err(_) => {
                self.parted.get_or_insert(Parted::Left);
                return;
            }
        };
        match message {
            Message::Output(stream, bytes) => {
                let output = &mut self.outputs[usize::from(stream == Stream::Stderr)];
                output.pending = bytes;
                output.write();
            }
            Message::Started => self.started = true,
            Message::Warning(text) => log::warn!("{text}"),
            Message::Exited(status) => self.parted = Some(Parted::Exited(status)),
            Message::Failed(status, text) => self.parted = Some(Parted::Failed(status, text)),
            _ => {}
        }
    }
}

/// What ends a command that does not hand it on.
fn ends_us(signal: i32) -> bool {
    use nix::libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM)
}
