//! Which functions of a program a command executes: `executed PROGRAM [ARG…]` prints the number of a process, from 0 on, and the symbol of a
//! function. `scripts/order.sh` makes crates/coracle/order.txt of it.
//!
//! Step by step, which takes half a minute for a second of a thousandth. Processes are followed until they execute another program.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

fn main() -> io::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let program = Path::new(&args[0]);
    let symbols = symbols(program)?;
    let executed = execute(program, &args[1..])?;
    let names: BTreeSet<_> = executed
        .into_iter()
        .flat_map(|(process, address)| names_of(&symbols, address).map(move |name| (process, name)))
        .collect();
    for (process, name) in names {
        println!("{process} {name}");
    }
    Ok(())
}

/// A function's first address, that behind its last, and its name.
type Symbol = (u64, u64, String);

/// The functions of a program, by their addresses.
fn symbols(program: &Path) -> io::Result<Vec<Symbol>> {
    let output = Command::new("nm")
        .args(["--print-size", "--defined-only"])
        .arg(program)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut symbols: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let [address, size, kind, name] = line.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            let [address, size] = [address, size].map(|number| u64::from_str_radix(number, 16));
            let address = address.ok().filter(|_| "tTwW".contains(kind))?;
            Some((address, address + size.ok()?, name.to_owned()))
        })
        .collect();
    symbols.sort_unstable();
    Ok(symbols)
}

/// The names of the function at an address: its section has one of them.
fn names_of(symbols: &[Symbol], address: u64) -> impl Iterator<Item = &str> {
    let before = &symbols[..symbols.partition_point(|(start, ..)| *start <= address)];
    let start = before.last().map(|(start, ..)| *start);
    let same = before
        .iter()
        .rev()
        .take_while(move |symbol| Some(symbol.0) == start);
    same.filter(move |(_, end, _)| address < *end)
        .map(|(.., name)| name.as_str())
}

/// The addresses, as in the file, of all instructions of the program that its processes execute, each with the number of the process.
fn execute(program: &Path, args: &[String]) -> io::Result<BTreeSet<(usize, u64)>> {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let own = identity(program)?;
    let mut command = Command::new(program);
    // A container that stays keeps what it gets, and whoever reads our answer waits for its end.
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // SAFETY: ptrace(2) is a system call alone.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let first = Pid::from_raw(command.spawn()?.id().cast_signed());
    waitpid(first, None)?;
    ptrace::setoptions(
        first,
        Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_EXITKILL,
    )?;
    // The number of each process, and where the program lies in it.
    let mut processes = HashMap::from([(first, (0, base(first)?))]);
    let mut executed = BTreeSet::new();
    ptrace::step(first, None)?;
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL)) {
        let (pid, signal) = match status {
            WaitStatus::Stopped(pid, Signal::SIGTRAP | Signal::SIGSTOP) => (pid, None),
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            WaitStatus::PtraceEvent(pid, _, event)
                if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 =>
            {
                if identity(Path::new(&format!("/proc/{pid}/exe")))? != own {
                    ptrace::detach(pid, None)?;
                    continue;
                }
                let at = base(pid)?;
                processes.entry(pid).and_modify(|(_, base)| *base = at);
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, ..) => {
                let child = Pid::from_raw(ptrace::getevent(pid)? as i32);
                let (number, (_, base)) = (processes.len(), processes[&pid]);
                processes.insert(child, (number, base));
                (pid, None)
            }
            _ => continue,
        };
        if let Some((number, base)) = processes.get(&pid) {
            let registers = ptrace::getregs(pid)?;
            #[cfg(target_arch = "x86_64")]
            let at = registers.rip;
            #[cfg(target_arch = "aarch64")]
            let at = registers.pc;
            executed.insert((*number, at.wrapping_sub(*base)));
        }
        ptrace::step(pid, signal)?;
    }
    Ok(executed)
}

/// Where the first part of its program is.
fn base(pid: Pid) -> io::Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let start = maps.split('-').next().unwrap_or_default();
    u64::from_str_radix(start, 16).map_err(io::Error::other)
}
