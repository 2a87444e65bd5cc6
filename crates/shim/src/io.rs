//! The standard streams of a process: what containerd names (fifos, `file://`, `binary://`) and what the process gets of it.
//!
//! The process gets pipes of its own and not containerd's fifos: those lie in the host's file system, where a security module may
//! forbid a container to touch them, and a container could open their other ends.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};

use crate::error::{Context, Failure, Result};
use crate::logger::{Logger, LoggerUri};
use crate::poller::Poller;
use crate::relay::Relay;

/// The streams as containerd names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// Where output goes.
#[derive(Debug)]
struct Sink {
    to: OwnedFd,
    reader: Option<OwnedFd>,
}

/// A fifo that is not open yet. A client that has nothing (more) to say tells so by CloseIO, which it can do once Create has been
/// answered; what it writes before that would have it come to the end too early, and never tell.
#[derive(Debug)]
struct Stdin {
    path: PathBuf,
    /// Where it leads to.
    to: Option<OwnedFd>,
}

/// What a process that is about to be started gets, and what stays here.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// For standard input, output and error of the process; `None` is /dev/null. With a terminal all are.
    pub(crate) child: [Option<OwnedFd>; 3],
    pub(crate) io: Io,
    /// A logger has been started, and says on this one when it is ready.
    pub(crate) ready: Option<OwnedFd>,
}

/// What is held here for the streams of a process.
#[derive(Debug, Default)]
pub(crate) struct Io {
    /// From the process outwards.
    pub(crate) output: Vec<Relay>,
    pub(crate) input: Option<Relay>,
    /// A write end of the fifo for standard input: it ends when containerd says so (CloseIO), not when a client goes away.
    stdin: Option<OwnedFd>,
    is_closed: bool,
    /// The terminal's master.
    pub(crate) console: Option<OwnedFd>,
    /// Where the terminal's output goes once there is one.
    terminal: Option<Sink>,
    /// The input, until the process runs.
    unread: Option<Stdin>,
    pub(crate) logger: Option<Logger>,
    /// The read ends of the logger's pipes, for when it has ended before the process has.
    unlogged: Vec<OwnedFd>,
}

/// What the names mean, and whom the process's pipes belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Prepared {
    /// Opens everything. `id` and `namespace` are for a logger.
    pub(crate) fn open(
        stdio: &Stdio,
        owner: Owner,
        id: &str,
        namespace: &str,
        poller: &mut Poller,
    ) -> Result<Prepared> {
        let mut prepared = Prepared::default();
        if !stdio.stdin.is_empty() {
            prepared.read_from(Path::new(&stdio.stdin), stdio.terminal, owner)?;
        }
        // Last, so that nothing is wrong any more when a logger runs.
        if let Some(uri) = LoggerUri::parse(&stdio.stdout)? {
            prepared.log_to(&uri, stdio, owner, id, namespace)?;
        } else {
            prepared.write_to(stdio, owner, poller)?;
        }
        Ok(prepared)
    }

    fn log_to(
        &mut self,
        uri: &LoggerUri,
        stdio: &Stdio,
        owner: Owner,
        id: &str,
        namespace: &str,
    ) -> Result<()> {
        let (stdout_read, stdout) = pipe(owner)?;
        let (stderr_read, stderr) = pipe(owner)?;
        if !stdio.terminal {
            for read in [&stdout_read, &stderr_read] {
                let read = read.try_clone().context(|| "keep a pipe".to_owned())?;
                self.io.unlogged.push(read);
            }
        }
        let (logger, ready) = Logger::start(uri, id, namespace, stdout_read, stderr_read)?;
        self.io.logger = Some(logger);
        self.ready = Some(ready);
        if stdio.terminal {
            unblock(&stdout)?;
            self.io.terminal = Some(Sink {
                to: stdout,
                reader: None,
            });
        } else {
            self.child[1] = Some(stdout);
            self.child[2] = Some(stderr);
        }
        Ok(())
    }

    fn write_to(&mut self, stdio: &Stdio, owner: Owner, poller: &mut Poller) -> Result<()> {
        // All of a process whose standard output goes to a file:// goes there.
        let file = stdio.stdout.starts_with("file://");
        let stderr = if file { &stdio.stdout } else { &stdio.stderr };
        if stdio.terminal {
            self.io.terminal = open_sink(&stdio.stdout)?;
            return Ok(());
        }
        for (index, name) in [(1, &stdio.stdout), (2, stderr)] {
            if let Some(sink) = open_sink(name)? {
                let (read, write) = pipe(owner)?;
                unblock(&read)?;
                let relay = Relay::new(poller, read, sink.to, sink.reader)
                    .context(|| format!("copy to {name}"))?;
                self.io.output.push(relay);
                self.child[index] = Some(write);
            }
        }
        Ok(())
    }

    fn read_from(&mut self, path: &Path, terminal: bool, owner: Owner) -> Result<()> {
        let looking = || format!("stdin: look at {}", path.display());
        if !fs::metadata(path).context(looking)?.file_type().is_fifo() {
            return Err(Failure::invalid(format!(
                "stdin: {} is no fifo",
                path.display()
            )));
        }
        let mut stdin = Stdin {
            path: path.to_owned(),
            to: None,
        };
        if !terminal {
            let (read, write) = pipe(owner)?;
            unblock(&write)?;
            self.child[0] = Some(read);
            stdin.to = Some(write);
        }
        self.io.unread = Some(stdin);
        Ok(())
    }
}

impl Io {
    /// Connects the streams with the master of the terminal that the process has got.
    pub(crate) fn connect(&mut self, master: OwnedFd, poller: &mut Poller) -> Result<()> {
        let copying = || "copy from and to the terminal".to_owned();
        unblock(&master)?;
        if let Some(sink) = self.terminal.take() {
            let from = master.try_clone().context(copying)?;
            let relay = Relay::new(poller, from, sink.to, sink.reader).context(copying)?;
            self.output.push(relay);
        }
        if let Some(stdin) = &mut self.unread {
            stdin.to = Some(master.try_clone().context(copying)?);
        }
        self.console = Some(master);
        Ok(())
    }

    /// The process runs: reads its input.
    pub(crate) fn read_input(&mut self, poller: &mut Poller) -> Result<()> {
        let Some(stdin) = self.unread.take() else {
            return Ok(());
        };
        let Some(to) = stdin.to else {
            return Ok(());
        };
        let opening = || format!("stdin: open {}", stdin.path.display());
        let open = |options: &mut OpenOptions| {
            options
                .custom_flags(libc::O_NONBLOCK)
                .open(&stdin.path)
                .context(opening)
        };
        // Reading first: a fifo cannot be opened for writing alone without waiting for a reader.
        let from = open(OpenOptions::new().read(true))?;
        if !self.is_closed {
            self.stdin = Some(open(OpenOptions::new().write(true))?.into());
        }
        self.input = Some(Relay::new(poller, from.into(), to, None).context(opening)?);
        Ok(())
    }

    /// No more input will come than there is.
    pub(crate) fn close_input(&mut self) {
        self.is_closed = true;
        self.stdin = None;
    }

    /// The process has ended: nobody reads its input, and a terminal's output ends even if a stranger has the terminal open.
    pub(crate) fn process_ended(&mut self, poller: &Poller) {
        self.close_input();
        self.unread = None;
        if let Some(input) = self.input.take() {
            input.close(poller);
        }
        if self.console.is_some() {
            for relay in &mut self.output {
                relay.end_when_empty();
            }
            let numbers: Vec<_> = self.output.iter().map(Relay::number).collect();
            for number in numbers {
                self.pump(number, poller);
            }
        }
    }

    /// The logger has ended. What the process writes from now on is lost, and neither kills it nor holds it up.
    pub(crate) fn logger_ended(&mut self, poller: &mut Poller) -> Result<()> {
        self.logger = None;
        for from in std::mem::take(&mut self.unlogged) {
            let opening = || "open /dev/null".to_owned();
            let nowhere = OpenOptions::new().write(true).open("/dev/null");
            unblock(&from)?;
            let relay = Relay::new(poller, from, nowhere.context(opening)?.into(), None)
                .context(|| "read in the logger's place".to_owned())?;
            self.output.push(relay);
        }
        Ok(())
    }

    /// Copies for the relay with a number, if it is one of these.
    pub(crate) fn pump(&mut self, number: u32, poller: &Poller) -> bool {
        if let Some(at) = self
            .output
            .iter()
            .position(|relay| relay.number() == number)
        {
            if !self.output[at].pump(poller) {
                self.output.remove(at).close(poller);
            }
            return true;
        }
        match &mut self.input {
            Some(input) if input.number() == number => {
                if !input.pump(poller)
                    && let Some(input) = self.input.take()
                {
                    input.close(poller);
                }
                true
            }
            _ => false,
        }
    }

    /// Whether all output has been passed on.
    pub(crate) fn is_drained(&self) -> bool {
        self.output.is_empty() && self.logger.is_none()
    }

    /// Ends everything now; what is left is a logger, which has to be told.
    pub(crate) fn close(&mut self, poller: &Poller) -> Option<Logger> {
        let io = std::mem::take(self);
        for relay in io.output.into_iter().chain(io.input) {
            relay.close(poller);
        }
        io.logger
    }
}

/// A pipe of the process's: read and write end.
fn pipe(owner: Owner) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).context(|| "make a pipe".to_owned())?;
    if owner.uid != 0 || owner.gid != 0 {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        fchown(&read, Some(uid), Some(gid))
            .context(|| format!("give a pipe to user {uid} and group {gid}"))?;
    }
    Ok((read, write))
}

fn unblock(fd: &impl AsFd) -> Result<()> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).context(|| "make a stream".to_owned())?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(fd, FcntlArg::F_SETFL(flags))
        .map(drop)
        .context(|| "make a stream".to_owned())
}

/// Opens what output goes to: a fifo, or a file to append to.
fn open_sink(name: &str) -> Result<Option<Sink>> {
    if name.is_empty() {
        return Ok(None);
    }
    if let Some(path) = name.strip_prefix("file://") {
        return open_file(Path::new(path)).map(Some);
    }
    if let Some((scheme, _)) = name.split_once("://")
        && scheme != "fifo"
    {
        return Err(Failure::invalid(format!("unknown STDIO scheme {scheme}")));
    }
    let path = Path::new(name.strip_prefix("fifo://").unwrap_or(name));
    let opening = || format!("open {} for output", path.display());
    if !fs::metadata(path).context(opening)?.file_type().is_fifo() {
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .context(opening)?;
        return Ok(Some(Sink {
            to: file.into(),
            reader: None,
        }));
    }
    let open = |options: &mut OpenOptions| {
        options
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .context(opening)
    };
    // The reader first, or writing would have to wait for one.
    let reader = open(OpenOptions::new().read(true))?;
    let to = open(OpenOptions::new().write(true))?;
    Ok(Some(Sink {
        to: to.into(),
        reader: Some(reader.into()),
    }))
}

fn open_file(path: &Path) -> Result<Sink> {
    let opening = || format!("open log file {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).context(opening)?;
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
        .context(opening)?;
    Ok(Sink {
        to: file.into(),
        reader: None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    const NOBODY_ELSE: Owner = Owner { uid: 0, gid: 0 };

    fn fifo(directory: &tempfile::TempDir, name: &str) -> String {
        let path = directory.path().join(name);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        path.display().to_string()
    }

    /// A client's end, which does not block.
    fn client(path: &str, write: bool) -> File {
        let mut options = OpenOptions::new();
        options.read(!write).write(write);
        options.custom_flags(libc::O_NONBLOCK).open(path).unwrap()
    }

    fn open(stdio: &Stdio, poller: &mut Poller) -> Prepared {
        Prepared::open(stdio, NOBODY_ELSE, "id", "ns", poller).unwrap()
    }

    fn pump(io: &mut Io, poller: &Poller) {
        let numbers: Vec<_> = io
            .output
            .iter()
            .chain(&io.input)
            .map(Relay::number)
            .collect();
        for number in numbers {
            io.pump(number, poller);
        }
    }

    #[test]
    fn output_goes_on_while_nobody_reads_the_fifo() {
        let directory = tempfile::tempdir().unwrap();
        let mut poller = Poller::new().unwrap();
        let stdio = Stdio {
            stdout: fifo(&directory, "out"),
            ..Default::default()
        };
        let mut prepared = open(&stdio, &mut poller);
        let mut process = File::from(prepared.child[1].take().unwrap());
        let mut text = String::new();
        for line in ["first\n", "second\n"] {
            // Each time another client, and for a while none.
            process.write_all(line.as_bytes()).unwrap();
            pump(&mut prepared.io, &poller);
            let _ = client(&stdio.stdout, false).read_to_string(&mut text);
        }
        assert_eq!(text, "first\nsecond\n");
        assert!(!prepared.io.is_drained());
        drop(process);
        pump(&mut prepared.io, &poller);
        assert!(prepared.io.is_drained());
    }

    #[test]
    fn a_fifo_that_nobody_empties_holds_the_process_up_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let mut poller = Poller::new().unwrap();
        let stdio = Stdio {
            stdout: fifo(&directory, "out"),
            ..Default::default()
        };
        let mut prepared = open(&stdio, &mut poller);
        let mut process = File::from(prepared.child[1].take().unwrap());
        unblock(&process).unwrap();
        let mut written = 0;
        for _ in 0..10 {
            while let Ok(count) = process.write(&[b'x'; 4096]) {
                written += count;
            }
            pump(&mut prepared.io, &poller);
        }
        assert!(written < 512 << 10, "{written} bytes are somewhere");
        drop(process);
        let mut client = client(&stdio.stdout, false);
        let mut read = 0;
        let mut buffer = [0; 4096];
        while read < written {
            match client.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(_) => pump(&mut prepared.io, &poller),
            }
        }
        assert_eq!(read, written);
    }

    #[test]
    fn a_file_gets_both_streams() {
        let directory = tempfile::tempdir().unwrap();
        let mut poller = Poller::new().unwrap();
        let path = directory.path().join("new/log");
        let stdio = Stdio {
            stdout: format!("file://{}", path.display()),
            ..Default::default()
        };
        let mut prepared = open(&stdio, &mut poller);
        for index in [1, 2] {
            let stream = prepared.child[index].take().unwrap();
            File::from(stream).write_all(b"text\n").unwrap();
        }
        pump(&mut prepared.io, &poller);
        assert_eq!(fs::read_to_string(path).unwrap(), "text\ntext\n");
        assert!(prepared.io.is_drained());
    }

    #[test]
    fn input_ends_when_it_is_closed_and_not_when_a_client_goes() {
        let directory = tempfile::tempdir().unwrap();
        let mut poller = Poller::new().unwrap();
        let stdio = Stdio {
            stdin: fifo(&directory, "in"),
            ..Default::default()
        };
        let mut prepared = open(&stdio, &mut poller);
        let mut process = File::from(prepared.child[0].take().unwrap());
        unblock(&process).unwrap();
        prepared.io.read_input(&mut poller).unwrap();
        client(&stdio.stdin, true).write_all(b"text").unwrap();
        pump(&mut prepared.io, &poller);
        let mut buffer = [0; 16];
        assert_eq!(process.read(&mut buffer).unwrap(), 4);
        pump(&mut prepared.io, &poller);
        assert!(process.read(&mut buffer).is_err(), "nothing, but no end");
        prepared.io.close_input();
        pump(&mut prepared.io, &poller);
        assert_eq!(process.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let mut poller = Poller::new().unwrap();
        let mut refused = |stdin: &str, stdout: &str| {
            let stdio = Stdio {
                stdin: stdin.to_owned(),
                stdout: stdout.to_owned(),
                ..Default::default()
            };
            Prepared::open(&stdio, NOBODY_ELSE, "id", "ns", &mut poller).is_err()
        };
        assert!(refused("", "/nonexistent"));
        assert!(refused("", "http://host"));
        assert!(refused(&file.display().to_string(), ""));
        assert!(!refused("", &file.display().to_string()));
    }
}
