//! The standard streams of a container, as its monitor has them.
//!
//! Without a terminal its output goes into named pipes in the container's directory, which it holds for reading too: when the monitor is
//! killed it can go on writing, at most a pipe's worth, and the next monitor finds all of it there.

use std::fs::File;
use std::io::{stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, read, write};
use runtime::{Context, Result};

use super::control::{CHUNK, Stream};
use super::directory::Container;
use super::terminal::{self, Keeper};

const STDIN: &str = "stdin";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";

/// What a container that has ended may still have in its pipes. They are as large as it made them, and what others write on is not
/// waited for.
const LAST_OUTPUT: usize = 1 << 20;

/// The monitor's ends.
#[derive(Debug)]
pub(crate) struct Streams {
    outputs: Vec<(Stream, OwnedFd)>,
    input: Option<OwnedFd>,
    /// Still to be written to the input.
    typed: Vec<u8>,
    /// The input is to end after that.
    typed_all: bool,
    /// The end that the container has too: see [`runtime::Prepared::start`].
    _peer: Option<OwnedFd>,
    _keeper: Option<Keeper>,
    is_terminal: bool,
}

impl Streams {
    /// Makes what must be there before the first start.
    pub(crate) fn make(container: &Container) -> Result<()> {
        if container.record.tty {
            return Ok(());
        }
        container.make_fifo(STDOUT)?;
        container.make_fifo(STDERR)?;
        match container.record.interactive {
            true => container.make_fifo(STDIN),
            false => Ok(()),
        }
    }

    /// Opens the ends of a container that is about to be made, and makes the other ends our own standard streams, for it to inherit.
    pub(crate) fn hand_out(container: &Container) -> Result<Self> {
        if container.record.tty {
            return Ok(Streams::none());
        }
        let open = |name, flags| open_fifo(&container.directory, name, flags);
        // Without a writer the other end of the input would not open, and without a reader this one.
        let read_end = match container.record.interactive {
            true => {
                let end = open(STDIN, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
                fcntl(&end, FcntlArg::F_SETFL(OFlag::empty())).context("make stdin blocking")?;
                end
            }
            false => null()?,
        };
        let streams = Self::adopt(container)?;
        dup2_stdin(&read_end)
            .and(dup2_stdout(open(STDOUT, OFlag::O_RDWR)?))
            .and(dup2_stderr(open(STDERR, OFlag::O_RDWR)?))
            .context("hand out the standard streams")?;
        Ok(streams)
    }

    /// Opens the ends of a container that another monitor has made.
    pub(crate) fn adopt(container: &Container) -> Result<Self> {
        if container.record.tty {
            return match terminal::fetch(container)? {
                Some(master) => Streams::terminal(runtime::both_ends(master)?, None),
                // Its keeper was killed as well.
                None => Ok(Streams::none()),
            };
        }
        let open = |name, flags| open_fifo(&container.directory, name, flags | OFlag::O_NONBLOCK);
        let input = match container.record.interactive {
            // It has closed its end.
            true => open(STDIN, OFlag::O_WRONLY).ok(),
            false => None,
        };
        Ok(Streams {
            outputs: vec![
                (Stream::Stdout, open(STDOUT, OFlag::O_RDONLY)?),
                (Stream::Stderr, open(STDERR, OFlag::O_RDONLY)?),
            ],
            input,
            ..Streams::none()
        })
    }

    /// The container has a terminal: these are its ends, and who else keeps it.
    pub(crate) fn terminal(ends: (OwnedFd, OwnedFd), keeper: Option<Keeper>) -> Result<Self> {
        let (master, peer) = ends;
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .context("make the terminal non-blocking")?;
        let input = master
            .try_clone()
            .context("copy the terminal's descriptor")?;
        Ok(Streams {
            outputs: vec![(Stream::Stdout, master)],
            input: Some(input),
            _peer: Some(peer),
            _keeper: keeper,
            is_terminal: true,
            ..Streams::none()
        })
    }

    /// None at all.
    pub(crate) fn none() -> Self {
        Streams {
            outputs: Vec::new(),
            input: None,
            typed: Vec::new(),
            typed_all: false,
            _peer: None,
            _keeper: None,
            is_terminal: false,
        }
    }

    /// What to wait for.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        self.outputs
            .iter()
            .map(|(stream, fd)| (*stream, fd.as_fd()))
    }

    /// The input, while something waits to be written to it.
    pub(crate) fn blocked_input(&self) -> Option<BorrowedFd<'_>> {
        let input = self.input.as_ref().filter(|_| !self.typed.is_empty())?;
        Some(input.as_fd())
    }

    /// Whether the container has not taken everything that came for it.
    pub(crate) fn is_input_full(&self) -> bool {
        self.input.is_some() && !self.typed.is_empty()
    }

    /// Takes bytes for the container's input.
    pub(crate) fn input(&mut self, bytes: &[u8]) {
        if self.input.is_some() && !self.typed_all {
            self.typed.extend_from_slice(bytes);
            self.write_input();
        }
    }

    /// There will be no more.
    pub(crate) fn end_input(&mut self) {
        // A terminal has no end of its own; whoever types sends its character.
        self.typed_all = !self.is_terminal;
        self.write_input();
    }

    /// Writes what the container takes now.
    pub(crate) fn write_input(&mut self) {
        let Some(input) = &self.input else { return };
        if !self.typed.is_empty() {
            match write(input, &self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // It does not listen any more.
                Err(_) => {
                    self.typed.clear();
                    self.typed_all = true;
                }
            }
        }
        if self.typed.is_empty() && self.typed_all {
            self.input = None;
        }
    }

    /// What the container has written to one of its outputs; `None` when there is nothing for now.
    pub(crate) fn read(&mut self, stream: Stream) -> Option<Vec<u8>> {
        let at = self.outputs.iter().position(|(each, _)| *each == stream)?;
        let mut buffer = vec![0; CHUNK];
        match read(&self.outputs[at].1, &mut buffer) {
            Ok(length @ 1..) => {
                buffer.truncate(length);
                Some(buffer)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // Closed by all who had it: nothing will ever come, and waiting for it would not wait.
            Ok(_) | Err(_) => {
                self.outputs.remove(at);
                None
            }
        }
    }

    /// After the end of the container: all that is still on the way.
    pub(crate) fn drain(mut self, mut take: impl FnMut(Stream, Vec<u8>)) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut left = LAST_OUTPUT;
            while left > 0
                && let Some(bytes) = self.read(stream)
            {
                left = left.saturating_sub(bytes.len());
                take(stream, bytes);
            }
        }
    }

    /// Follows the window of whoever is attached.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        if self.is_terminal
            && let Some(input) = &self.input
            && let Err(error) = runtime::set_window_size(input.as_fd(), (rows, columns))
        {
            log::warn!("{error}");
        }
    }
}

/// Has no standard input any more.
pub(crate) fn use_null_input() -> Result<()> {
    dup2_stdin(null()?).context("use /dev/null")
}

/// Takes the container's streams away from our own standard ones again.
pub(crate) fn use_null() -> Result<()> {
    let null = null()?;
    dup2_stdin(&null)
        .and(dup2_stdout(&null))
        .and(dup2_stderr(&null))
        .context("use /dev/null")
}

/// What came in as standard input and output, and /dev/null in their place.
pub(crate) fn take_standard_streams() -> Result<(OwnedFd, OwnedFd)> {
    let taking = "take over the standard streams";
    let input = stdin().as_fd().try_clone_to_owned().context(taking)?;
    let output = stdout().as_fd().try_clone_to_owned().context(taking)?;
    let null = null()?;
    dup2_stdin(&null).and(dup2_stdout(&null)).context(taking)?;
    // With --debug it stays where the messages go.
    if !log::log_enabled!(log::Level::Debug) {
        dup2_stderr(&null).context(taking)?;
    }
    Ok((input, output))
}

fn null() -> Result<OwnedFd> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).context("open /dev/null")
}

fn open_fifo(directory: &File, name: &str, flags: OFlag) -> Result<OwnedFd> {
    openat(directory, name, flags | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("open the pipe {name}"))
}
