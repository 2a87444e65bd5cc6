//! The process that stays: one thread, one loop over everything that can happen.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use crate::container::Container;
use crate::error::{Context, Result};
use crate::events::Events;
use crate::jobs::Jobs;
use crate::poller::{Poller, Token};
use crate::ttrpc::{Call, Connection, Reply};

/// How long containerd may take for the last events before they are given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that one shim knows.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) namespace: String,
    pub(crate) poller: Poller,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) jobs: Jobs,
    pub(crate) events: Events,
    /// Asked to end; what is still to be sent may be until then.
    pub(crate) ends: Option<Instant>,
    listeners: Vec<UnixListener>,
    signals: SignalFd,
    connections: BTreeMap<u32, Connection>,
}

impl Shim {
    /// Takes over listening sockets. From now on this process is the parent of all that lose theirs below it.
    pub(crate) fn new(
        namespace: &str,
        sockets: Vec<OwnedFd>,
        events: Option<String>,
    ) -> Result<Shim> {
        let starting = || "start".to_owned();
        let poller = Poller::new().context(starting)?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block().context(starting)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context(starting)?;
        poller
            .readable(&signals, Token::Signals)
            .context(starting)?;
        nix::sys::prctl::set_child_subreaper(true).context(starting)?;
        let listeners: Vec<_> = sockets.into_iter().map(UnixListener::from).collect();
        for (number, listener) in (0..).zip(&listeners) {
            listener.set_nonblocking(true).context(starting)?;
            poller
                .readable(listener, Token::Listener(number))
                .context(starting)?;
        }
        Ok(Shim {
            namespace: namespace.to_owned(),
            poller,
            containers: BTreeMap::new(),
            jobs: Jobs::default(),
            events: Events::new(namespace, events),
            ends: None,
            listeners,
            signals,
            connections: BTreeMap::new(),
        })
    }

    /// Serves until somebody says Shutdown, and everything has been told; then nobody finds the socket any more.
    pub(crate) fn serve(&mut self) -> Result<()> {
        while !self.is_over() {
            let tokens = self
                .poller
                .wait(self.timeout())
                .context(|| "wait for events".to_owned())?;
            for token in tokens {
                self.handle(token);
            }
            self.deadlines();
            self.events.go_on(&self.poller);
        }
        for listener in &self.listeners {
            if let Some(path) = listener
                .local_addr()
                .ok()
                .as_ref()
                .and_then(SocketAddr::as_pathname)
            {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let told =
            || self.events.is_idle() && !self.connections.values().any(Connection::has_unsent);
        self.ends
            .is_some_and(|deadline| told() || Instant::now() >= deadline)
    }

    /// Ends as soon as everything has been sent.
    pub(crate) fn end(&mut self) {
        self.ends.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// Milliseconds until something is due.
    fn timeout(&self) -> Option<u32> {
        let due = [self.ends, self.events.deadline(), self.next_deadline()];
        let next = due.into_iter().flatten().min()?;
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up, so that it is over by then.
        Some(u32::try_from(left.as_millis() + 1).unwrap_or(u32::MAX))
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Listener(number) => self.accept(number),
            Token::Signals => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            // What there is to do is done at the end of every round.
            Token::Events => {}
            Token::Connection(number) => self.receive(number),
            Token::Relay(number) => self.relay(number),
            Token::Oom(number) => self.out_of_memory(number),
            Token::Ready(number) => self.logger_ready(number),
        }
    }

    fn accept(&mut self, number: u32) {
        let Some(listener) = self.listeners.get(number as usize) else {
            return;
        };
        match listener.accept().and_then(|(socket, _)| admit(socket)) {
            Ok(socket) => {
                let number = self.poller.number();
                match self.poller.readable(&socket, Token::Connection(number)) {
                    Ok(()) => drop(self.connections.insert(number, Connection::new(socket))),
                    Err(error) => log::error!("serve a connection: {error}"),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => log::error!("accept a connection: {error}"),
        }
    }

    fn receive(&mut self, number: u32) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let mut calls = Vec::new();
        let open = connection
            .flush()
            .and_then(|()| connection.receive(&mut calls));
        for call in calls {
            self.call(number, call);
        }
        match open {
            Ok(true) => self.watch(number),
            Ok(false) => self.disconnect(number),
            Err(error) => {
                log::warn!("a connection fails: {error}");
                self.disconnect(number);
            }
        }
    }

    fn call(&mut self, connection: u32, call: Call) {
        let reply = Reply {
            connection,
            stream: call.stream,
        };
        match call
            .request
            .and_then(|request| self.serve_call(reply, &request))
        {
            Ok(Some(payload)) => self.answer(reply, Ok(payload)),
            // It will be answered when what it asked for has happened.
            Ok(None) => {}
            Err(failure) => self.answer(reply, Err(failure)),
        }
    }

    /// Answers a call, if whoever made it is still there.
    pub(crate) fn answer(&mut self, reply: Reply, answer: Result<Vec<u8>>) {
        if let Err(failure) = &answer {
            log::debug!("refused: {failure}");
        }
        let Some(connection) = self.connections.get_mut(&reply.connection) else {
            return;
        };
        match connection.respond(reply.stream, answer) {
            Ok(()) => self.watch(reply.connection),
            Err(error) => {
                log::warn!("answer: {error}");
                self.disconnect(reply.connection);
            }
        }
    }

    /// Waits for room to write where there is something left to be written.
    fn watch(&mut self, number: u32) {
        let Some(connection) = self.connections.get(&number) else {
            return;
        };
        let wanted = connection.has_unsent();
        let token = Token::Connection(number);
        if let Err(error) = self.poller.also_writable(connection.as_fd(), token, wanted) {
            log::warn!("watch a connection: {error}");
            self.disconnect(number);
        }
    }

    fn disconnect(&mut self, number: u32) {
        self.connections.remove(&number);
        for container in self.containers.values_mut() {
            for (_, process) in container.processes() {
                process.waiters.retain(|reply| reply.connection != number);
            }
        }
    }
}

/// Only who we are ourselves may talk to us.
fn admit(socket: UnixStream) -> io::Result<UnixStream> {
    let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
    if peer.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!(
            "user {} may not connect",
            peer.uid()
        )));
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
