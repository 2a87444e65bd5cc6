//! A blocking client of netlink(7): one socket, one request at a time, or a batch of nftables that the kernel takes whole or not at all.

#![forbid(unsafe_code)]

pub mod message;

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};

use message::{Answer, Attributes, Message};

/// More than the kernel puts into one datagram of an answer.
const DATAGRAM: usize = 64 << 10;

/// The kernel said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub errno: Errno,
    /// Which message of a transaction it was about, counted from zero.
    at: Option<usize>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.errno.desc().to_lowercase();
        match self.at {
            Some(at) => write!(f, "{reason} (message {at} of the transaction)"),
            None => f.write_str(&reason),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Refusal { errno, at: None }
    }
}

/// Does something in another network namespace, or tells why it cannot be entered. A thread of its own goes there and ends there: one that
/// comes back could fail to, and what it does next would change the wrong machine's network.
pub fn inside<T: Send>(netns: impl AsFd, work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    let netns = netns.as_fd();
    thread::scope(|scope| {
        let there = thread::Builder::new().spawn_scoped(scope, || {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw);
        let there = there.map_err(errno)?;
        there.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// An open socket of one netlink family, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens one in this thread's network namespace.
    pub fn open(protocol: SockProtocol) -> Result<Self, Errno> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Socket { fd, sequence: 0 })
    }

    /// Sends one request and waits for the kernel's verdict.
    pub fn request(&mut self, message: &Message) -> Result<(), Refusal> {
        self.sequence += 1;
        let mut bytes = Vec::new();
        message.write(&mut bytes, libc::NLM_F_ACK, self.sequence);
        self.send(&bytes)?;
        self.verdict(self.sequence..=self.sequence)
            .map_err(|(_, errno)| errno.into())
    }

    /// Sends a request that is answered by one message, or by a list of them with `NLM_F_DUMP`; each goes to `each`.
    pub fn get(
        &mut self,
        message: &Message,
        mut each: impl FnMut(Answer<'_>),
    ) -> Result<(), Refusal> {
        self.sequence += 1;
        let mut bytes = Vec::new();
        let dump = i32::from(message.flags) & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        // With an acknowledgement every answer has an end that can be waited for.
        let ack = if dump { 0 } else { libc::NLM_F_ACK };
        message.write(&mut bytes, ack, self.sequence);
        self.send(&bytes)?;
        let sequence = self.sequence;
        let mut verdict = Ok(());
        self.receive(|answer| {
            if answer.sequence != sequence {
                return false;
            }
            if let libc::NLMSG_DONE | libc::NLMSG_ERROR = i32::from(answer.kind) {
                verdict = status(answer.body);
                return true;
            }
            each(answer);
            false
        })?;
        Ok(verdict?)
    }

    /// Sends messages of nftables as one transaction. A refusal names the first message that the kernel did not like.
    pub fn transaction(&mut self, messages: &[Message]) -> Result<(), Refusal> {
        let Some(last) = messages.len().checked_sub(1) else {
            return Ok(());
        };
        let first = self.sequence + 2;
        let mut bytes = Vec::new();
        let frame = |kind: i32| {
            let header = [0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8];
            Message::new(kind as u16, 0, &header, Attributes::new())
        };
        frame(libc::NFNL_MSG_BATCH_BEGIN).write(&mut bytes, 0, first - 1);
        for (number, message) in messages.iter().enumerate() {
            // The kernel acknowledges after it has committed, so the last one stands for all.
            let ack = if number == last { libc::NLM_F_ACK } else { 0 };
            message.write(&mut bytes, ack, first + number as u32);
        }
        self.sequence = first + messages.len() as u32;
        frame(libc::NFNL_MSG_BATCH_END).write(&mut bytes, 0, self.sequence);
        if bytes.len() > DATAGRAM {
            setsockopt(&self.fd, sockopt::SndBufForce, &(bytes.len() * 2))?;
        }
        self.send(&bytes)?;
        self.verdict(first - 1..=first + last as u32)
            .map_err(|(sequence, errno)| Refusal {
                errno,
                at: sequence.checked_sub(first).map(|at| at as usize),
            })
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)
    }

    /// Waits for the acknowledgement of the last one, or an error of any. An error comes with the number of what it is about.
    fn verdict(&mut self, numbers: RangeInclusive<u32>) -> Result<(), (u32, Errno)> {
        let mut verdict = Ok(());
        self.receive(|answer| {
            let ours = numbers.contains(&answer.sequence);
            if !ours || i32::from(answer.kind) != libc::NLMSG_ERROR {
                return false;
            }
            verdict = status(answer.body).map_err(|errno| (answer.sequence, errno));
            verdict.is_err() || answer.sequence == *numbers.end()
        })
        .map_err(|errno| (*numbers.start(), errno))?;
        verdict
    }

    /// Hands out what comes until `ended` has seen the end.
    fn receive(&self, mut ended: impl FnMut(Answer<'_>) -> bool) -> Result<(), Errno> {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            if message::answers(&buffer[..length]).any(&mut ended) {
                return Ok(());
            }
        }
    }
}

/// The error number in `NLMSG_ERROR` and `NLMSG_DONE`, negative or zero.
fn status(body: &[u8]) -> Result<(), Errno> {
    match message::u32_at(body, 0).map(|number| number as i32) {
        Some(0) => Ok(()),
        Some(number) => Err(Errno::from_raw(number.saturating_neg())),
        None => Err(Errno::EBADMSG),
    }
}
