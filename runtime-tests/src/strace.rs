//! Counting system calls with strace.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

/// A command line with strace in front of the program in it: in a view, nsenter comes first.
///
/// # Panics
/// If the program is not in it.
pub fn traced(command: &Command, program: &Path, log: &Path) -> Command {
    let words: Vec<_> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .collect();
    let at = words.iter().position(|word| *word == program.as_os_str());
    let (before, rest) = words.split_at(at.expect("the program is in its command line"));
    // What the caller ignores is reset, one by one.
    let strace = ["env", "--default-signal", "strace", "-f", "-o"];
    let mut all = before.iter().copied().chain(strace.map(AsRef::as_ref));
    let mut traced = Command::new(all.next().expect("strace"));
    traced.args(all).arg(log).args(rest);
    traced
}

/// The system calls in a log of `strace -f`, without those of the user's program, which is below /bin.
///
/// # Panics
/// If it is no such log.
pub fn count_calls(log: &str) -> usize {
    let mut users = HashSet::new();
    let mut count = 0;
    for line in log.lines() {
        let (pid, call) = line.split_once(' ').expect("a pid and a call");
        let call = call.trim_start();
        let is_call = !call.starts_with(['<', '+', '-']);
        if is_call && !users.contains(pid) {
            count += 1;
        }
        if call.starts_with("execve(\"/bin/") {
            users.insert(pid);
        }
    }
    count
}
