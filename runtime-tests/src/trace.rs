//! Follows a command and the processes that it makes from system call to system call, with ptrace(2), and lets a fault happen at one of
//! them: the process is killed, or the call fails.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// One system call of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which child of which child makes it, in the order of their births; empty for the command's own process.
    pub process: Vec<u32>,
    /// How many that process had made before.
    pub index: usize,
    /// What is called.
    pub number: i64,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0")?;
        self.process
            .iter()
            .try_for_each(|child| write!(f, ".{child}"))?;
        write!(f, "#{}", self.index)
    }
}

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before it.
    Kill,
    /// It fails, and does nothing.
    Fail(Errno),
    /// It does what it is to do, and fails all the same.
    FailLate(Errno),
}

/// A process that is followed.
#[derive(Debug, Default)]
struct Tracee {
    lineage: Vec<u32>,
    children: u32,
    calls: usize,
    /// The answer of the call that it is in.
    answer: Option<Errno>,
}

/// The processes of one command, until they execute another program. Whoever has one is the only one who waits for children, in the one
/// thread that made it.
#[derive(Debug)]
pub struct Tracer {
    program: (u64, u64),
    tracees: HashMap<Pid, Tracee>,
    /// Born, but their parents have not said so yet.
    early: Vec<Pid>,
    /// Every call, while they are written down.
    pub calls: Vec<Call>,
    records: bool,
    /// Which is still to happen.
    fault: Option<(Call, Fault)>,
    /// The fault has happened.
    pub happened: bool,
    /// How those ended that did not exit.
    pub killed: Vec<Signal>,
}

impl Tracer {
    /// Starts a command, whose program has to be a file that is executed as it is. With a fault it happens; without one the calls
    /// are written down.
    pub fn start(mut command: Command, fault: Option<(Call, Fault)>) -> io::Result<(Self, Pid)> {
        let program = file(&fs::metadata(command.get_program())?);
        // SAFETY: ptrace(2) is a system call alone.
        unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
        let pid = Pid::from_raw(command.spawn()?.id().cast_signed());
        let tracer = Tracer {
            program,
            tracees: HashMap::from([(pid, Tracee::default())]),
            early: Vec::new(),
            calls: Vec::new(),
            records: fault.is_none(),
            fault,
            happened: false,
            killed: Vec::new(),
        };
        // It has been stopped by its execve(2).
        waitpid(pid, None)?;
        ptrace::setoptions(
            pid,
            Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACEEXEC
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_EXITKILL,
        )?;
        tracer.go_on(pid, None);
        Ok((tracer, pid))
    }

    /// Waits until a child has ended, or with `None` until there are no more children.
    pub fn wait(&mut self, child: Option<Pid>) -> Option<WaitStatus> {
        loop {
            let status = self.step()?;
            if status.pid() == child && is_end(status) {
                return Some(status);
            }
        }
    }

    /// Waits until all processes of the command have ended, or executed another program.
    pub fn wait_for_all(&mut self) {
        while !self.tracees.is_empty() && self.step().is_some() {}
    }

    /// Waits for the next thing that happens to a child.
    fn step(&mut self) -> Option<WaitStatus> {
        let status = loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(Errno::EINTR) => {}
                status => break status.ok()?,
            }
        };
        match (status, status.pid()) {
            (WaitStatus::Signaled(_, signal, _), Some(pid)) => {
                self.killed
                    .extend(self.tracees.remove(&pid).map(|_| signal));
            }
            (WaitStatus::Exited(..), Some(pid)) => drop(self.tracees.remove(&pid)),
            _ => self.stopped(status),
        }
        Some(status)
    }

    /// From here on nothing happens any more, and nothing is written down.
    pub fn rest(&mut self) {
        self.fault = None;
        self.records = false;
    }

    fn stopped(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::PtraceSyscall(pid) => self.at_call(pid),
            WaitStatus::PtraceEvent(pid, _, event) if event == Event::PTRACE_EVENT_EXEC as i32 => {
                self.executed(pid);
            }
            WaitStatus::PtraceEvent(pid, ..) => {
                self.bore(pid);
                self.go_on(pid, None);
            }
            // Its first stop.
            WaitStatus::Stopped(pid, _) if !self.tracees.contains_key(&pid) => {
                self.early.push(pid);
                self.let_strangers_go();
            }
            WaitStatus::Stopped(pid, Signal::SIGSTOP) => self.go_on(pid, None),
            // As the first process of a pid namespace it does not even die of that while it is traced (kernel/signal.c, force_sig_info).
            WaitStatus::Stopped(pid, signal @ Signal::SIGSEGV) => {
                self.killed.push(signal);
                self.leave(pid);
            }
            WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal)),
            _ => {}
        }
    }

    /// Lets a stopped process go on: to its next call where that matters. One that has been killed meanwhile is gone by itself.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        let waits_here =
            |lineage| matches!(&self.fault, Some((call, _)) if call.process == lineage);
        let is_followed = self.tracees.get(&pid).is_some_and(|tracee| {
            self.records || tracee.answer.is_some() || waits_here(tracee.lineage.as_slice())
        });
        let _ = match is_followed {
            true => ptrace::syscall(pid, signal),
            false => ptrace::cont(pid, signal),
        };
    }

    /// A process has made another.
    fn bore(&mut self, pid: Pid) {
        let (Ok(child), Some(parent)) = (ptrace::getevent(pid), self.tracees.get_mut(&pid)) else {
            return;
        };
        let child = Pid::from_raw(child as i32);
        let lineage = [&parent.lineage[..], &[parent.children]].concat();
        parent.children += 1;
        let tracee = Tracee {
            lineage,
            ..Tracee::default()
        };
        self.tracees.insert(child, tracee);
        if let Some(at) = self.early.iter().position(|early| *early == child) {
            self.early.remove(at);
            self.go_on(child, None);
        }
    }

    /// Whoever has made a process may have been killed before it could say so. Once nothing is waited for any more it does not matter who that was.
    fn let_strangers_go(&mut self) {
        if self.records || self.fault.is_some() {
            return;
        }
        for pid in std::mem::take(&mut self.early) {
            self.tracees.insert(pid, Tracee::default());
            self.go_on(pid, None);
        }
    }

    /// A process has executed a program: another one than that of the command is nothing to us.
    fn executed(&mut self, pid: Pid) {
        let found = fs::metadata(format!("/proc/{pid}/exe"));
        if found.is_ok_and(|found| file(&found) == self.program) {
            self.go_on(pid, None);
        } else {
            self.leave(pid);
        }
    }

    /// A process is followed no longer.
    fn leave(&mut self, pid: Pid) {
        self.tracees.remove(&pid);
        let _ = ptrace::detach(pid, None);
    }

    /// A process is about to make a call, or has made one.
    fn at_call(&mut self, pid: Pid) {
        let Ok(info) = ptrace::syscall_info(pid) else {
            return;
        };
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: `op` tells that this is the field.
            let number = unsafe { info.u.entry.nr } as i64;
            self.enters(pid, number);
        } else if let Some(tracee) = self.tracees.get_mut(&pid)
            && let Some(errno) = tracee.answer.take()
        {
            answer(pid, errno);
        }
        self.go_on(pid, None);
    }

    fn enters(&mut self, pid: Pid, number: i64) {
        let Some(tracee) = self.tracees.get_mut(&pid) else {
            return;
        };
        let call = Call {
            process: tracee.lineage.clone(),
            index: tracee.calls,
            number,
        };
        tracee.calls += 1;
        if self.records {
            self.calls.push(call);
            return;
        }
        let Some((_, fault)) = self.fault.take_if(|(wanted, _)| *wanted == call) else {
            return;
        };
        self.happened = true;
        match fault {
            Fault::Kill => drop(kill(pid, Signal::SIGKILL)),
            Fault::Fail(errno) => {
                tracee.answer = Some(errno);
                skip(pid);
            }
            Fault::FailLate(errno) => tracee.answer = Some(errno),
        }
        self.let_strangers_go();
    }
}

fn is_end(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
}

/// Which file it is.
fn file(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The call that a process is about to make is none.
fn skip(pid: Pid) {
    change(pid, |registers| registers.orig_rax = u64::MAX);
}

/// The call that a process has made has this answer.
fn answer(pid: Pid, errno: Errno) {
    change(pid, |registers| {
        registers.rax = (-(errno as i64)).cast_unsigned();
    });
}

fn change(pid: Pid, edit: impl FnOnce(&mut libc::user_regs_struct)) {
    if let Ok(mut registers) = ptrace::getregs(pid) {
        edit(&mut registers);
        let _ = ptrace::setregs(pid, registers);
    }
}
