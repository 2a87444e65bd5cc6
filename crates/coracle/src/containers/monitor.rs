//! The monitor: one small process for each container that was run from an image, `coracle` executed again under another name. It has one
//! thread and one loop, and holds what must live as long as the container: its log, its published ports, its exit status.
//!
//! It gets two descriptors: a conversation with the command that started it as standard input, and the container's directory, whose lock
//! comes with it, as standard output. It leads a session of its own, so no terminal's end is its end. When it is killed all the same, the
//! lock is free, and the next command that looks at the container starts another one, which is told to [`Message::Adopt`] it.

mod clients;
mod life;
mod memory;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{SIGKILL, SIGTERM};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::setsid;
use runtime::{Context, Init, Result, Settings};

use super::control::{Connection, Message, Stream};
use super::directory::{self, Container, Lock};
use super::log::Log;
use super::network::Network;
use super::record::{Phase, Status};
use super::restart::Backoff;
use super::streams::{self, Streams};
use clients::Clients;
pub(crate) use life::{failure_status, release};
use memory::Memory;

/// The name under which `coracle` is a monitor.
pub(crate) const NAME: &str = "coracle-monitor";

/// When nothing has happened for so many milliseconds, there is time to tidy up.
const REST: u8 = 100;

/// Starts a monitor for a container, and hands the lock over.
pub(crate) fn spawn(container: &Container, lock: Lock) -> Result<Connection> {
    let (ours, other) = Connection::pair()?;
    let stderr = match log::log_enabled!(log::Level::Debug) {
        true => Stdio::inherit(),
        false => Stdio::null(),
    };
    let mut command = Command::new("/proc/self/exe");
    std::os::unix::process::CommandExt::arg0(&mut command, NAME)
        .arg(&container.record.name)
        .current_dir("/")
        .stdin(other)
        .stdout(lock)
        .stderr(stderr)
        .spawn()
        .context("start the container's monitor")?;
    Ok(ours)
}

/// What the process called [`NAME`] does. Its exit status means nothing: whoever wants to know something asks at the socket.
pub(crate) fn main() -> i32 {
    match monitor() {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}

fn monitor() -> Result<()> {
    // First of all: it may execute us again, with what we were given still in its place.
    runtime::protect()?;
    let (conversation, directory) = streams::take_standard_streams()?;
    // It fails only for a leader of a process group, who is as free of the terminal.
    let _ = setsid();
    let container = Container::inherited(File::from(directory))?;
    let first = Connection::from(conversation);
    let mut monitor = Monitor::new(container).inspect_err(|error| {
        let text = error.to_string();
        let _ = first.send(&Message::Failed(failure_status(&text), text), true);
    })?;
    monitor.clients = Clients::new(first);
    while monitor.end.is_none() {
        monitor.turn()?;
    }
    monitor.part()
}

/// What the timer is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    /// The container had its time to end.
    Kill,
    /// The pause before the next start is over.
    Start,
}

/// What poll(2) has found.
#[derive(Clone, Copy, Debug)]
enum Event {
    Signal,
    Timer,
    Listener,
    Init,
    Output(Stream),
    Input,
    Client(usize),
    Network,
    Memory,
}

struct Monitor {
    container: Container,
    settings: Settings,
    status: Status,
    log: Log,
    signals: SignalFd,
    timer: TimerFd,
    alarm: Alarm,
    listener: UnixListener,
    clients: Clients,
    network: Network,
    init: Option<Init>,
    memory: Memory,
    streams: Streams,
    backoff: Backoff,
    /// Somebody has asked for the container's end: no policy starts it again.
    stopped: bool,
    /// But then this did.
    restart: bool,
    /// The exit status, once there is no more to do.
    end: Option<i32>,
}

impl Monitor {
    fn new(container: Container) -> Result<Self> {
        let timer_flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Monitor {
            settings: container.record.settings(),
            status: container.status(),
            log: Log::open(container.directory()?, container.record.log),
            signals: runtime::forwarded_signals()?,
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, timer_flags).context("make a timer")?,
            alarm: Alarm::Start,
            listener: container.listen(directory::SOCKET)?,
            clients: Clients::default(),
            network: Network::of(&container),
            init: None,
            memory: Memory::default(),
            streams: Streams::none(),
            backoff: Backoff::default(),
            stopped: false,
            restart: false,
            end: None,
            container,
        })
    }

    /// Waits for something to happen, and does what is to be done about it.
    fn turn(&mut self) -> Result<()> {
        for event in self.wait()? {
            match event {
                Event::Signal => self.read_signals()?,
                Event::Timer => self.ring(),
                Event::Listener => self.clients.accept(&self.listener),
                Event::Output(stream) => {
                    if let Some(bytes) = self.streams.read(stream) {
                        self.log.take(stream, &bytes);
                        self.clients.output(stream, bytes);
                    }
                }
                Event::Input => self.streams.write_input(),
                Event::Network => self.network.handle(),
                Event::Memory => self.memory.read(),
                Event::Client(at) => {
                    while let Some(message) = self.clients.next(at) {
                        self.obey(at, message);
                        if self.streams.is_input_full() {
                            break;
                        }
                    }
                }
                Event::Init => {
                    if let Some(init) = &self.init
                        && let Some(exit) = init.exit()?
                    {
                        self.ended(exit);
                    }
                }
            }
        }
        self.clients.forget_gone();
        // The command that started us is gone before it said what to do.
        if self.status.phase == Phase::Created && self.clients.is_empty() {
            self.end = Some(0);
        }
        Ok(())
    }

    fn wait(&self) -> Result<Vec<Event>> {
        let mut events = vec![Event::Signal, Event::Timer, Event::Listener];
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let mut watch = |event, fd, flags| {
            events.push(event);
            fds.push(PollFd::new(fd, flags));
        };
        // Nobody's output is lost: while one reader is behind, the container waits, as it would for a terminal.
        if self.clients.have_taken_all() {
            for (stream, fd) in self.streams.outputs() {
                watch(Event::Output(stream), fd, PollFlags::POLLIN);
            }
        }
        if let Some(input) = self.streams.blocked_input() {
            watch(Event::Input, input, PollFlags::POLLOUT);
        }
        for (at, fd, flags) in self.clients.watched(self.streams.is_input_full()) {
            watch(Event::Client(at), fd, flags);
        }
        if let Some(proxy) = self.network.watched() {
            watch(Event::Network, proxy, PollFlags::POLLIN);
        }
        if let Some(memory) = self.memory.watched() {
            watch(Event::Memory, memory, PollFlags::POLLIN);
        }
        // Last, so that what it has said comes before its end.
        if let Some(init) = &self.init {
            watch(Event::Init, init.as_fd(), PollFlags::POLLIN);
        }
        let found = match poll(&mut fds, REST) {
            // Waiting goes on with as little memory as it takes.
            Ok(0) => {
                runtime::give_back_program();
                poll(&mut fds, PollTimeout::NONE)
            }
            found => found,
        };
        match found {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error).context("wait for events"),
        }
        let is_up = |fd: &PollFd<'_>| fd.revents().is_none_or(|found| !found.is_empty());
        Ok(std::iter::zip(events, &fds)
            .filter_map(|(event, fd)| is_up(fd).then_some(event))
            .collect())
    }

    /// Only the end of the machine (or a person who means it) sends us SIGTERM: the container gets its time to end.
    fn read_signals(&mut self) -> Result<()> {
        while let Some(info) = self.signals.read_signal().context("read the signalfd")? {
            if info.ssi_signo == SIGTERM as u32 {
                self.stop(
                    self.container.record.stop_signal,
                    self.container.record.stop_timeout,
                );
            }
        }
        Ok(())
    }

    fn ring(&mut self) {
        let _ = self.timer.wait();
        let _ = self.timer.unset();
        match self.alarm {
            Alarm::Kill => self.kill(SIGKILL),
            Alarm::Start => self.start_again(),
        }
    }

    fn set_alarm(&mut self, alarm: Alarm, after: Duration) {
        self.alarm = alarm;
        // Nothing would disarm it.
        let after = TimeSpec::from_duration(after.max(Duration::from_nanos(1)));
        let set = self
            .timer
            .set(Expiration::OneShot(after), TimerSetTimeFlags::empty());
        if let Err(error) = set.context("set the timer") {
            log::warn!("{error}");
        }
    }

    fn obey(&mut self, client: usize, message: Message) {
        match message {
            Message::Start => {
                self.clients.asks_for_start(client);
                self.first_start();
            }
            Message::Adopt => {
                self.clients.asks_for_start(client);
                self.adopt();
            }
            Message::Attach => self.clients.attach(client),
            Message::Input(bytes) => self.streams.input(&bytes),
            Message::InputEnd if self.container.record.stdin_once => self.streams.end_input(),
            Message::InputEnd => {}
            Message::Resize(rows, columns) => self.streams.resize(rows, columns),
            Message::Signal(signal) => {
                // Docker: whoever sends one of these means the end.
                self.stopped |= signal == SIGKILL || signal == self.container.record.stop_signal;
                self.kill(signal);
            }
            Message::Stop {
                signal,
                seconds,
                restart,
            } => {
                self.restart = restart;
                match restart {
                    true => self.clients.asks_for_start(client),
                    false => self.clients.asks_for_end(client),
                }
                self.stop(signal, seconds);
            }
            Message::Wait => self.clients.asks_for_end(client),
            Message::Started
            | Message::Warning(_)
            | Message::Failed(..)
            | Message::Output(..)
            | Message::Exited(_) => {}
        }
    }

    /// Sends a signal to the container's process, if it has one.
    fn kill(&self, signal: i32) {
        if let Some(init) = &self.init {
            // The runtime also thaws what only a thawed process can die of.
            let sent = match signal {
                SIGKILL => runtime::kill(&self.settings, &self.container.record.id, SIGKILL, false),
                signal => init.signal(signal),
            };
            if let Err(error) = sent {
                log::warn!("{error}");
            }
        }
    }

    fn stop(&mut self, signal: i32, seconds: u32) {
        self.stopped = true;
        if self.init.is_none() {
            // It waits for its next start.
            match self.restart {
                true => self.start_again(),
                false => self.finish(self.status.exit_code),
            }
            return;
        }
        let _ = runtime::resume(&self.settings, &self.container.record.id);
        self.kill(signal);
        self.set_alarm(Alarm::Kill, Duration::from_secs(seconds.into()));
    }
}
