//! The unpackers seen from outside: `coracle` executed again for each layer, as many at a time as there are CPUs.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::NAME;
use super::identity::Identity;
use super::serve::INVALID;
use crate::error::{Context, Error, Kind, Result};

/// How long an unpacker's last words may be.
const LONGEST_ERROR: u64 = 64 << 10;

/// Work for one unpacker.
#[derive(Debug)]
pub(crate) struct Job {
    /// Names the object in errors.
    pub(crate) name: String,
    /// What to do, as `serve` reads it.
    pub(crate) args: Vec<String>,
    pub(crate) blob: Option<File>,
    /// The only directory that it can reach.
    pub(crate) directory: OwnedFd,
}

/// An unpacker at work, killed when it is dropped.
struct Unpacker {
    name: String,
    process: Child,
    /// Its standard error: word of its user namespace, then how it failed.
    connection: UnixStream,
    words: Vec<u8>,
    waits_for_ids: bool,
    identity: Identity,
}

/// Does all jobs, or ends those that are under way and gives the first error.
pub(crate) fn run(jobs: Vec<Job>, identity: Identity) -> Result<()> {
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    let mut jobs = jobs.into_iter();
    let mut working: Vec<Unpacker> = Vec::new();
    loop {
        while working.len() < most
            && let Some(job) = jobs.next()
        {
            working.push(Unpacker::start(job, identity)?);
        }
        if working.is_empty() {
            return Ok(());
        }
        let mut at = wait(&working).context(|| "wait for the unpackers")?;
        while let Some(index) = at.pop() {
            if working[index].listen()? {
                working.swap_remove(index).finish()?;
            }
        }
    }
}

/// The unpackers that have something to say, in order.
fn wait(working: &[Unpacker]) -> nix::Result<Vec<usize>> {
    let mut fds: Vec<_> = working
        .iter()
        .map(|unpacker| PollFd::new(unpacker.connection.as_fd(), PollFlags::POLLIN))
        .collect();
    while let Err(error) = poll(&mut fds, PollTimeout::NONE) {
        if error != Errno::EINTR {
            return Err(error);
        }
    }
    let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
    Ok((0..fds.len()).filter(|at| ready(&fds[*at])).collect())
}

impl Unpacker {
    fn start(job: Job, identity: Identity) -> Result<Self> {
        let starting = || format!("{}: start the unpacker", job.name);
        let (connection, other) = UnixStream::pair().context(starting)?;
        let blob = job.blob.map_or_else(Stdio::null, Stdio::from);
        let process = Command::new("/proc/self/exe")
            .arg0(NAME)
            .arg(identity.as_str())
            .args(&job.args)
            .env_clear()
            .stdin(blob)
            .stdout(Stdio::from(job.directory))
            .stderr(OwnedFd::from(other))
            .spawn()
            .context(starting)?;
        Ok(Unpacker {
            name: job.name,
            process,
            connection,
            words: Vec::new(),
            waits_for_ids: identity == Identity::Ranges,
            identity,
        })
    }

    /// Takes in what it says; `true` when that was all.
    fn listen(&mut self) -> Result<bool> {
        let listening = || format!("{}: listen to the unpacker", self.name);
        if self.waits_for_ids {
            let mut word = [0];
            if self.connection.read(&mut word).context(listening)? == 1 {
                self.identity
                    .map(self.process.id())
                    .and_then(|()| self.connection.write_all(&word).context(|| "go on"))
                    .context(|| format!("{}: map the ids of the user namespace", self.name))?;
            }
            self.waits_for_ids = false;
            return Ok(false);
        }
        // Whoever took it over may talk without end.
        let mut words = (&self.connection).take(LONGEST_ERROR - self.words.len() as u64);
        let mut buffer = [0; 4096];
        let count = words.read(&mut buffer).context(listening)?;
        self.words.extend_from_slice(&buffer[..count]);
        Ok(count == 0)
    }

    fn finish(mut self) -> Result<()> {
        let status = self
            .process
            .wait()
            .context(|| format!("{}: wait for the unpacker", self.name))?;
        if status.success() {
            return Ok(());
        }
        let kind = match status.code() {
            Some(INVALID) => Kind::Invalid,
            _ => Kind::Failed,
        };
        let words = String::from_utf8_lossy(&self.words);
        let words = words.trim_end();
        Err(Error::new(
            kind,
            match status.signal() {
                Some(signal) => format!(
                    "{}: the unpacker was killed by signal {signal} {words}",
                    self.name
                ),
                None => format!("{}: {words}", self.name),
            },
        ))
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        // Both fail when it has been waited for already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
