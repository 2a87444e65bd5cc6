//! Each command, with a fault at each of its system calls: one run for one fault.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use runtime_tests::{Call, Fault, Output, Tracer, has_program, requires};
use serde_json::{Value, json};

use crate::calls::{can_fail, is_carried_out, name_of};
use crate::machine::{
    BUNDLE, IMAGE, Machine, PARENT, STATE, STORE, Said, limited, on_a_machine, processes,
};
use crate::snapshot::Snapshot;

const ERRORS: [Errno; 6] = [
    Errno::EPERM,
    Errno::ENOSPC,
    Errno::EIO,
    Errno::ENOMEM,
    Errno::EINTR,
    Errno::EMFILE,
];

/// How many points of a command are tried in `make test`.
const SAMPLE: usize = 40;
/// After so many faults that were not stood, it is known.
const ENOUGH: usize = 30;

/// What the standard library says when it does not hear of a new process by its socket, for which it has no answer but to panic.
const OF_LIBRARY: &str = "the CLOEXEC pipe failed";

/// A command in which faults happen.
struct Scenario {
    name: &'static str,
    /// What is changed in the bundle's configuration.
    config: fn(&mut Value),
    /// The commands before it.
    before: &'static [&'static [&'static str]],
    command: &'static [&'static str],
    /// When it has failed it has left nothing, and without it what was there is as it was.
    is_undone: bool,
    /// What becomes of it when it succeeds.
    status: &'static [&'static str],
    /// The container is one of an image.
    of_image: bool,
}

impl Scenario {
    const NEW: Self = Scenario {
        name: "",
        config: |_| {},
        before: &[],
        command: &[],
        is_undone: false,
        status: &["running"],
        of_image: false,
    };
}

const CREATE: &[&str] = &["create", "--bundle", BUNDLE, "c1"];
const RUN_IMAGE: &[&str] = &[
    "run",
    "--cgroup-parent",
    PARENT,
    "--detach",
    "-p",
    "8080:80",
    "--name",
    "c1",
    IMAGE,
];
const NEXT_OF_IMAGE: &[&str] = &["run", "--cgroup-parent", PARENT, "--rm", IMAGE, "true"];
const RUN: &[&str] = &["run", "--detach", "--bundle", BUNDLE, "c1"];

/// A fault, and where it happens.
struct Point {
    call: Call,
    fault: Fault,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            Fault::Kill => "SIGKILL".to_owned(),
            Fault::Fail(errno) | Fault::FailLate(errno) => format!("{errno:?}"),
        };
        write!(f, "{} {} {fault}", self.call, name_of(self.call.number))
    }
}

/// All that can happen in a run that made these calls.
fn points(calls: Vec<Call>) -> Vec<Point> {
    let faults = |call: Call| {
        let errors = ERRORS.into_iter().filter(|_| can_fail(call.number));
        let errors = errors.filter_map(|errno| match is_carried_out(call.number) {
            // The standard library ends a program that hears anything else of a directory.
            true => (errno == Errno::EINTR).then_some(Fault::FailLate(errno)),
            false => Some(Fault::Fail(errno)),
        });
        let all: Vec<_> = std::iter::once(Fault::Kill).chain(errors).collect();
        all.into_iter().map(move |fault| Point {
            call: call.clone(),
            fault,
        })
    };
    calls.into_iter().flat_map(faults).collect()
}

/// Those of them that are tried, see [`crate`].
fn chosen(points: Vec<Point>) -> Vec<Point> {
    match std::env::var("FAULTS").as_deref() {
        Ok("all") => points,
        Ok("") | Err(_) => {
            // Of each kind of fault some.
            let mut step = points.len().div_ceil(SAMPLE);
            while step.is_multiple_of(ERRORS.len() + 1) {
                step += 1;
            }
            points.into_iter().step_by(step).collect()
        }
        Ok(word) => points
            .into_iter()
            .filter(|point| point.to_string().contains(word))
            .collect(),
    }
}

/// What came of one run.
struct Run {
    output: Output,
    tracer: Tracer,
}

/// Runs the command of a scenario under the tracer.
fn run(machine: &Machine, args: &[&str], fault: Option<(Call, Fault)>) -> (Run, Option<String>) {
    let mut command = machine.command(args);
    let said = Said::new();
    said.by(&mut command);
    let ((tracer, status), hung) = limited(|| {
        let (mut tracer, pid) = Tracer::start(command, fault).expect("root traces");
        let status = tracer.wait(Some(pid));
        tracer.rest();
        (tracer, status)
    });
    let code = match status {
        Some(WaitStatus::Exited(_, code)) => code,
        Some(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
        other => panic!("the command is lost: {other:?}"),
    };
    let output = said.output(args.join(" "), code);
    (Run { output, tracer }, hung)
}

/// Runs another command while processes of the first are still traced.
fn beside(machine: &Machine, tracer: &mut Tracer, args: &[&str]) -> (Output, Option<String>) {
    let mut command = machine.command(args);
    let said = Said::new();
    said.by(&mut command);
    #[expect(clippy::zombie_processes, reason = "the tracer waits for it")]
    let child = command.spawn().expect("the runtime starts");
    let pid = Pid::from_raw(child.id().cast_signed());
    let (status, hung) = limited(|| tracer.wait(Some(pid)));
    let code = match status {
        Some(WaitStatus::Exited(_, code)) => code,
        _ => 255,
    };
    (said.output(args.join(" "), code), hung)
}

/// Whether everything is as it was, once whoever is about to end has ended.
fn settle(machine: &Machine, tracer: &mut Tracer, before: &Snapshot) -> Result<(), String> {
    let ((), hung) = limited(|| {
        tracer.wait(None);
    });
    if let Some(processes) = hung {
        return Err(format!("processes are left: {processes}"));
    }
    // The kernel takes a network namespace down some time after its last process.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let differences = machine.snapshot().differences(before);
        if differences.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("left: {}", differences.join("; ")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether it was said in one sentence what went wrong.
fn is_clear(output: &Output) -> Result<(), String> {
    let mut errors = output
        .stderr
        .lines()
        .filter(|line| !line.starts_with("time="));
    let sentence = errors.next().unwrap_or_default();
    let is_sentence = sentence.contains(' ') && errors.next().is_none();
    match is_sentence && !output.stderr.contains("panicked") {
        true => Ok(()),
        false => Err(format!("no clear error: {output:?}")),
    }
}

/// The commands before. What they have started is asleep when this returns: to freeze it takes the same calls each time then.
fn prepare(machine: &Machine, scenario: &Scenario) {
    for args in scenario.before {
        machine.coracle(args).ok();
    }
    let are_asleep = || processes().iter().all(|process| !process.contains("(R "));
    while !are_asleep() {
        std::thread::yield_now();
    }
}

/// Removes the container, and whatever there is of it.
fn clean_up(machine: &Machine, tracer: &mut Tracer, scenario: &Scenario) -> Result<(), String> {
    let mut removed = |args: &[&str]| match beside(machine, tracer, args) {
        (_, Some(processes)) => Err(format!("{} hangs: {processes}", args.join(" "))),
        (output, None) if output.code != 0 => Err(format!("is not removed: {output:?}")),
        _ => Ok(()),
    };
    if !scenario.of_image {
        return removed(&["delete", "--force", "c1"]);
    }
    removed(&["rm", "-f", "c1"])?;
    // One that had not got its name yet.
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(format!("{STORE}/{directory}"))
            .into_iter()
            .flatten();
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()
    };
    for id in names("containers").iter().filter(|id| !id.starts_with('.')) {
        removed(&["rm", "-f", id])?;
    }
    // What was no container yet, or no file yet, is cleared away by the next container, however many of them there were.
    let is_unfinished = Path::new(STORE).join("network/state.json.new").exists();
    if is_unfinished || !names("containers").is_empty() || !names("names").is_empty() {
        removed(NEXT_OF_IMAGE)?;
    }
    Ok(())
}

/// Tries one point from a clean machine to a clean machine. Whether the fault has happened.
fn try_point(
    machine: &Machine,
    scenario: &Scenario,
    point: &Point,
    base: &Snapshot,
) -> Result<bool, String> {
    prepare(machine, scenario);
    let is_the_commands = point.call.process.is_empty();
    let (Run { output, mut tracer }, hung) = run(
        machine,
        scenario.command,
        Some((point.call.clone(), point.fault)),
    );
    if let Some(processes) = hung {
        return Err(format!("hangs: {processes}"));
    }
    let is_a_librarys = output.stderr.contains(OF_LIBRARY);
    let is_killed = point.fault == Fault::Kill && tracer.happened;
    let is_dead = (is_killed || is_a_librarys) && is_the_commands;
    let unwanted = |signal: &&Signal| **signal != Signal::SIGKILL && !is_a_librarys;
    if let Some(signal) = tracer.killed.iter().find(unwanted) {
        return Err(format!("ended by {signal}: {output:?}"));
    }
    // What `exec` has executed was killed, and it tells that.
    let is_told = point.fault == Fault::Kill && output.code == 128 + Signal::SIGKILL as i32;
    if output.code != 0 && !is_dead && !is_told {
        if !is_a_librarys {
            is_clear(&output)?;
        }
        if let ((), Some(processes)) = limited(|| tracer.wait_for_all()) {
            return Err(format!("processes are left: {processes} after {output:?}"));
        }
        // A monitor that was killed may have been writing the networks' state.
        if scenario.is_undone && !(is_killed && scenario.of_image) {
            settle(machine, &mut tracer, base)
                .map_err(|left| format!("{left} after {output:?}"))?;
        }
    } else if output.code == 0 && !is_dead && point.fault != Fault::Kill {
        let (state, hung) = beside(machine, &mut tracer, &["state", "c1"]);
        let status = serde_json::from_str::<Value>(&state.stdout).unwrap_or_default();
        let status = status["status"].as_str().unwrap_or("none");
        if hung.is_some() || !scenario.status.contains(&status) {
            return Err(format!(
                "succeeded, but it is {status}: {state:?} {output:?}"
            ));
        }
    }
    clean_up(machine, &mut tracer, scenario).map_err(|why| format!("{why} after {output:?}"))?;
    let cleaned = settle(machine, &mut tracer, base);
    cleaned.map_err(|left| format!("{left} after {output:?} and clean-up"))?;
    Ok(tracer.happened)
}

/// After a leak: the next point shall begin on a machine that works.
fn sweep(machine: &Machine) {
    let _ = nix::sys::signal::kill(Pid::from_raw(-1), Signal::SIGKILL);
    while nix::sys::wait::waitpid(None, None).is_ok() {}
    let _ = fs::remove_dir_all(format!("{STATE}/c1"));
    let of_containers = |dir: &PathBuf| !dir.ends_with(&machine.parent);
    for dir in machine.cgroups().into_iter().filter(of_containers) {
        let _ = fs::remove_dir(dir);
    }
}

fn sweep_through(machine: &Machine, scenario: &Scenario) {
    let begin = Instant::now();
    machine.make_bundle(scenario.config);
    if scenario.of_image {
        requires!(has_program("umoci"), "umoci is not installed");
        machine.make_image();
    }
    let once = |fault| {
        prepare(machine, scenario);
        let (mut run, _) = run(machine, scenario.command, fault);
        assert_eq!(run.output.code, 0, "{:?}", run.output);
        clean_up(machine, &mut run.tracer, scenario).expect("it is removed");
        run.tracer.wait(None);
        run.tracer.calls
    };
    // What is made once for all containers is made by the first.
    once(None);
    let mut base = machine.snapshot();
    let calls = once(None);
    let differences = machine.snapshot().differences(&base);
    assert_eq!(differences, [""; 0], "{} leaves something", scenario.name);
    let mut processes: Vec<_> = calls.iter().map(|call| &call.process).collect();
    processes.sort();
    processes.dedup();
    let summary = format!("{} calls of {} processes", calls.len(), processes.len());
    let points = chosen(points(calls));
    let (mut leaks, mut happened) = (0, 0);
    for point in &points {
        match try_point(machine, scenario, point, &base) {
            Ok(it_happened) => happened += usize::from(it_happened),
            Err(leak) => {
                eprintln!("{}: {point}: {leak}", scenario.name);
                leaks += 1;
                sweep(machine);
                base = machine.snapshot();
                if leaks >= ENOUGH {
                    break;
                }
            }
        }
    }
    eprintln!(
        "{}: {summary}, {happened} points of {}, {leaks} leaks, {:.0?}",
        scenario.name,
        points.len(),
        begin.elapsed()
    );
    assert_eq!(leaks, 0, "{}: see above", scenario.name);
}

/// A test for each command.
macro_rules! scenarios {
    ($(fn $name:ident() $fields:block)+) => {
        $(
            #[test]
            fn $name() {
                let name = stringify!($name);
                on_a_machine(&format!("scenarios::{name}"), |machine| {
                    sweep_through(machine, &Scenario { name, ..$fields });
                });
            }
        )+
    };
}

scenarios! {
    fn faults_in_create() {
        Scenario {
            command: CREATE,
            is_undone: true,
            // Once it is ready nobody is there to be told what goes wrong: it has stopped then.
            status: &["created", "stopped"],
            ..Scenario::NEW
        }
    }
    fn faults_in_start() {
        Scenario {
            before: &[CREATE],
            command: &["start", "c1"],
            ..Scenario::NEW
        }
    }
    fn faults_in_run() {
        Scenario {
            config: everything,
            command: RUN,
            is_undone: true,
            ..Scenario::NEW
        }
    }
    fn faults_in_exec() {
        Scenario {
            before: &[RUN],
            command: &["exec", "c1", "true"],
            ..Scenario::NEW
        }
    }
    fn faults_in_pause() {
        Scenario {
            before: &[RUN],
            command: &["pause", "c1"],
            status: &["paused"],
            ..Scenario::NEW
        }
    }
    fn faults_in_resume() {
        Scenario {
            before: &[RUN, &["pause", "c1"]],
            command: &["resume", "c1"],
            ..Scenario::NEW
        }
    }
    fn faults_in_update() {
        Scenario {
            before: &[RUN],
            command: &["update", "--memory", "32m", "--pids-limit", "20", "c1"],
            ..Scenario::NEW
        }
    }
    fn faults_in_kill() {
        Scenario {
            before: &[RUN],
            command: &["kill", "c1", "KILL"],
            status: &["running", "stopped"],
            ..Scenario::NEW
        }
    }
    fn faults_in_delete() {
        Scenario {
            before: &[RUN],
            command: &["delete", "--force", "c1"],
            status: &["none"],
            ..Scenario::NEW
        }
    }
    fn faults_in_run_an_image() {
        Scenario {
            command: RUN_IMAGE,
            is_undone: true,
            of_image: true,
            ..Scenario::NEW
        }
    }
}

/// A user namespace, hooks, a filter, limits, a pid file.
fn everything(config: &mut Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut();
    namespaces.expect("a list").push(json!({ "type": "user" }));
    let mapping = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    config["linux"]["uidMappings"] = mapping.clone();
    config["linux"]["gidMappings"] = mapping;
    config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
    config["linux"]["resources"]["pids"] = json!({ "limit": 10 });
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["swapon"], "action": "SCMP_ACT_ERRNO" }]
    });
    let hook = json!([{ "path": "/bin/busybox", "args": ["true"] }]);
    for point in ["createRuntime", "createContainer", "poststart", "poststop"] {
        config["hooks"][point] = hook.clone();
    }
}
