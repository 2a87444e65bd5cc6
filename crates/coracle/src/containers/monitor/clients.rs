//! Who is connected to a monitor.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::{Context, Result};

use crate::containers::control::{Connection, Message, Stream};

/// Each costs a descriptor and perhaps a message of memory; a container never has so many.
const MOST: usize = 256;

/// One of them.
#[derive(Debug)]
struct Client {
    connection: Connection,
    /// Gets the output.
    attached: bool,
    /// Wants to hear whether the container has started.
    for_start: bool,
    /// Wants to hear of its end.
    for_end: bool,
    /// What it has not taken yet.
    pending: VecDeque<Message>,
    gone: bool,
}

impl Client {
    fn new(connection: Connection) -> Self {
        Client {
            connection,
            attached: false,
            for_start: false,
            for_end: false,
            pending: VecDeque::new(),
            gone: false,
        }
    }

    fn tell(&mut self, message: Message) {
        self.pending.push_back(message);
        self.send();
    }

    fn send(&mut self) {
        while let Some(message) = self.pending.front() {
            match self.connection.send(message, false) {
                Ok(true) => drop(self.pending.pop_front()),
                Ok(false) => return,
                Err(_) => {
                    self.gone = true;
                    self.pending.clear();
                }
            }
        }
    }
}

/// All of them. The place of each is its number for as long as [`Clients::forget_gone`] is not called.
#[derive(Debug, Default)]
pub(super) struct Clients(Vec<Client>);

impl Clients {
    pub(super) fn new(first: Connection) -> Self {
        Clients(vec![Client::new(first)])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes who is waiting at the socket.
    pub(super) fn accept(&mut self, listener: &UnixListener) {
        while let Ok((socket, _)) = listener.accept() {
            if self.0.len() < MOST {
                self.0
                    .push(Client::new(Connection::from(OwnedFd::from(socket))));
            }
        }
    }

    /// Whom to wait for, and what for. Those whose input the container has not taken yet may type no more.
    pub(super) fn watched(
        &self,
        input_is_full: bool,
    ) -> impl Iterator<Item = (usize, BorrowedFd<'_>, PollFlags)> {
        self.0.iter().enumerate().map(move |(at, client)| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, !(input_is_full && client.attached));
            flags.set(PollFlags::POLLOUT, !client.pending.is_empty());
            (at, client.connection.as_fd(), flags)
        })
    }

    /// What one has said; also gives it what it was owed.
    pub(super) fn next(&mut self, at: usize) -> Option<Message> {
        let client = self.0.get_mut(at)?;
        client.send();
        match client.connection.try_receive() {
            Ok(Some(message)) => Some(message),
            Err(Errno::EAGAIN) => None,
            Ok(None) | Err(_) => {
                client.gone = true;
                None
            }
        }
    }

    pub(super) fn forget_gone(&mut self) {
        self.0.retain(|client| !client.gone);
    }

    pub(super) fn attach(&mut self, at: usize) {
        self.0[at].attached = true;
        self.0[at].for_end = true;
    }

    pub(super) fn asks_for_start(&mut self, at: usize) {
        self.0[at].for_start = true;
    }

    pub(super) fn asks_for_end(&mut self, at: usize) {
        self.0[at].for_end = true;
    }

    /// Whether nobody who is attached is behind.
    pub(super) fn have_taken_all(&self) -> bool {
        self.0
            .iter()
            .all(|client| !client.attached || client.pending.is_empty())
    }

    pub(super) fn output(&mut self, stream: Stream, bytes: Vec<u8>) {
        for client in self.0.iter_mut().filter(|client| client.attached) {
            client.tell(Message::Output(stream, bytes.clone()));
        }
    }

    pub(super) fn started(&mut self) {
        self.answer_start(&Message::Started);
    }

    /// Something that those who have asked for the start should know.
    pub(super) fn warn(&mut self, text: &str) {
        for client in self.0.iter_mut().filter(|client| client.for_start) {
            client.tell(Message::Warning(text.to_owned()));
        }
    }

    pub(super) fn failed(&mut self, status: i32, text: &str) {
        self.answer_start(&Message::Failed(status, text.to_owned()));
    }

    fn answer_start(&mut self, message: &Message) {
        for client in self.0.iter_mut().filter(|client| client.for_start) {
            client.for_start = false;
            client.tell(message.clone());
        }
    }

    /// The container has ended for good: those who wait for anything hear that.
    pub(super) fn exited(&mut self, status: i32) {
        for client in self
            .0
            .iter_mut()
            .filter(|client| client.for_end || client.for_start)
        {
            client.tell(Message::Exited(status));
        }
    }

    /// Waits until everybody has taken what was said, or is gone.
    pub(super) fn deliver(mut self) -> Result<()> {
        loop {
            self.0
                .retain(|client| !client.gone && !client.pending.is_empty());
            if self.0.is_empty() {
                return Ok(());
            }
            let mut fds: Vec<_> = self
                .0
                .iter()
                .map(|client| PollFd::new(client.connection.as_fd(), PollFlags::POLLOUT))
                .collect();
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for the last readers"),
            }
            self.0.iter_mut().for_each(Client::send);
        }
    }
}
