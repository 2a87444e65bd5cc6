//! What a shim costs: Coracle's, and containerd's own above crun, in turn on the same containerd. `exec` and `delete` alone are measured without
//! containerd and `ctr`, whose own start takes longer than ours: their calls come from here.
//!
//! `cargo bench -p runtime-tests --bench shim -- [--rounds N]`. Times are medians in milliseconds, and ratios those of pairs. CPU is that of
//! the whole machine without idling, so nothing else should run.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use runtime_tests::ttrpc::{Alone, Client, OK, number, text};
use runtime_tests::{
    Containerd, Hierarchy, Shim, has_containerd, has_program, hierarchy, need_root, number_of,
    read_text, runtime,
};

/// Pods of a node whose memory is averaged.
const TOGETHER: usize = 10;

fn main() -> ExitCode {
    need_root();
    if !has_containerd() || !has_program("buildah") {
        println!("shim: skipped, containerd or buildah is not installed");
        return ExitCode::SUCCESS;
    }
    let rounds = number_of("--rounds", 15);
    let containerd = Containerd::new();
    // crun refuses hybrid cgroups.
    let usual = match hierarchy() {
        Hierarchy::Hybrid => "runc",
        _ => "crun",
    };
    let theirs = env::var("PEER").unwrap_or_else(|_| usual.to_owned());
    let peers = [
        Peer::new(
            "coracle",
            Shim::under_test(),
            runtime().display().to_string(),
        ),
        Peer::new("go", Shim::runc(), theirs),
    ];
    let mut found = [const { BTreeMap::<&str, Vec<f64>>::new() }; 2];
    for round in 0..=rounds {
        for (peer, found) in peers.iter().zip(&mut found) {
            let figures = peer.times(&containerd);
            // Nobody's first is counted: caches are warm afterwards.
            if round > 0 {
                for (name, value) in figures {
                    found.entry(name).or_default().push(value);
                }
            }
        }
    }
    let mut alone = peers.each_ref().map(Peer::alone);
    for round in 0..=rounds {
        for (alone, found) in alone.iter_mut().zip(&mut found) {
            let figures = [
                ("3 exec alone, ms", alone.exec(&format!("exec-{round}"))),
                ("4 delete alone, ms", alone.delete()),
            ];
            alone.start();
            if round > 0 {
                for (name, value) in figures {
                    found.entry(name).or_default().push(value);
                }
            }
        }
    }
    alone.into_iter().for_each(Running::end);
    for (peer, found) in peers.iter().zip(&mut found) {
        for (name, value) in peer.memory(&containerd) {
            found.insert(name, vec![value]);
        }
    }
    println!("{:<28}{:>10}{:>10}{:>10}", "", "coracle", "go", "ratio");
    for (name, ours) in &found[0] {
        let theirs = &found[1][name];
        let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
        let ratio = median(ratios.collect());
        let [ours, theirs] = [ours, theirs].map(|values| median(values.clone()));
        println!("{name:<28}{ours:>10.1}{theirs:>10.1}{ratio:>10.2}");
    }
    ExitCode::SUCCESS
}

/// A shim with its runtime.
struct Peer {
    name: &'static str,
    shim: Shim,
    runtime: String,
}

impl Peer {
    fn new(name: &'static str, shim: Shim, runtime: String) -> Self {
        Self {
            name,
            shim,
            runtime,
        }
    }

    fn run(&self, containerd: &Containerd, flags: &[&str], id: &str, args: &[&str]) {
        let program = self.shim.runtime_type();
        let cgroup = format!("/{}/{id}", containerd.engine.name);
        let mut all = vec!["run", "--runtime", &program, "--cgroup", &cgroup];
        if self.shim.is_runc() {
            all.extend(["--runc-binary", &self.runtime]);
        }
        all.extend(flags);
        all.extend(["localhost/busybox:latest", id]);
        all.extend(args);
        containerd.ctr(&all).ok();
    }

    fn start(&self, containerd: &Containerd, id: &str) {
        let flags = ["--detach", "--null-io"];
        self.run(containerd, &flags, id, &["sleep", "1000000"]);
    }

    /// One run, one exec and one end.
    fn times(&self, containerd: &Containerd) -> [(&'static str, f64); 4] {
        let cpu = busy();
        let run = time(|| self.run(containerd, &["--rm"], self.name, &["true"]));
        let cpu = busy() - cpu;
        self.start(containerd, self.name);
        let exec = time(|| {
            containerd.exec(self.name, &["true"]).ok();
        });
        let kill = ["tasks", "kill", "--signal", "SIGKILL", self.name];
        containerd.ctr(&kill).ok();
        containerd.wait_for(self.name, "STOPPED");
        let delete = time(|| {
            containerd.ctr(&["tasks", "delete", self.name]);
        });
        containerd.ctr(&["containers", "delete", self.name]).ok();
        [
            ("1 run --rm, ms", run),
            ("2 its CPU, ms", cpu),
            ("3 exec, ms", exec),
            ("4 delete with ctr, ms", delete),
        ]
    }

    /// Its shim with a container and without containerd.
    fn alone(&self) -> Running {
        let runtime = program(&self.runtime);
        let alone = Alone::of(self.shim.clone(), &runtime, "sleep 1000000");
        let client = alone.connect();
        let mut running = Running { alone, client };
        running.start();
        running
    }

    /// Of one shim, and of ten.
    fn memory(&self, containerd: &Containerd) -> Vec<(&'static str, f64)> {
        self.start(containerd, "box-0");
        let shim = self.processes()[0];
        let status = read_text(format!("/proc/{shim}/status").as_ref());
        let mut found = vec![
            ("5 PSS of one, kB", rollup(shim, "Pss:")),
            ("6 private dirty of one, kB", rollup(shim, "Private_Dirty:")),
            ("8 threads", field(&status, "Threads:")),
        ];
        for number in 1..TOGETHER {
            self.start(containerd, &format!("box-{number}"));
        }
        let all: f64 = self
            .processes()
            .iter()
            .map(|&pid| rollup(pid, "Pss:"))
            .sum();
        found.push(("7 PSS of ten, average, kB", all / TOGETHER as f64));
        for number in 0..TOGETHER {
            containerd.remove(&format!("box-{number}"));
        }
        found
    }

    /// The shims of this kind on the whole machine, on which nothing else shall run.
    fn processes(&self) -> Vec<i32> {
        let entries = fs::read_dir("/proc").expect("proc is mounted").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_shim = |pid: &i32| {
            let exe = fs::read_link(format!("/proc/{pid}/exe"));
            exe.is_ok_and(|exe| exe == self.shim.program())
        };
        pids.filter(is_shim).collect()
    }
}

/// A container whose shim is called from here.
struct Running {
    alone: Alone,
    client: Client,
}

impl Running {
    fn start(&mut self) {
        self.call("Create", &self.alone.create(""));
        self.call("Start", &text(1, "box"));
    }

    fn call(&mut self, method: &str, request: &[u8]) {
        assert_eq!(self.client.call(method, request).0, OK, "{method}");
    }

    /// Everything that containerd does for one `exec`, in milliseconds.
    fn exec(&mut self, id: &str) -> f64 {
        let exec = self.alone.exec(id, "true");
        let which = [text(1, "box"), text(2, id)].concat();
        let calls = [
            ("Exec", &exec),
            ("Start", &which),
            ("Wait", &which),
            ("Delete", &which),
        ];
        time(|| {
            for (method, request) in calls {
                self.call(method, request);
            }
        })
    }

    /// The deletion of the container once it has ended, in milliseconds.
    fn delete(&mut self) -> f64 {
        self.call("Kill", &[text(1, "box"), number(3, 9)].concat());
        self.call("Wait", &text(1, "box"));
        time(|| self.call("Delete", &text(1, "box")))
    }

    fn end(mut self) {
        self.delete();
        self.client.call("Shutdown", &text(1, "box"));
    }
}

/// A runtime by its path or its name.
fn program(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).map(|dir| dir.join(name));
    places
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed"))
}

fn time(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e3
}

/// Milliseconds that this machine's processors have worked: by a hierarchy's root in nanoseconds, or else by the clock's ticks.
fn busy() -> f64 {
    if let Ok(usage) = fs::read_to_string("/sys/fs/cgroup/cpuacct/cpuacct.usage") {
        let nanoseconds: f64 = usage.trim().parse().expect("the kernel tells it");
        return nanoseconds / 1e6;
    }
    let text = read_text("/proc/stat".as_ref());
    let numbers = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1);
    let numbers: Vec<f64> = numbers.filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, and interrupts; ticks of 10 ms
    [0, 1, 2, 5, 6].iter().map(|&at| numbers[at]).sum::<f64>() * 10.0
}

fn rollup(pid: i32, key: &str) -> f64 {
    field(
        &read_text(format!("/proc/{pid}/smaps_rollup").as_ref()),
        key,
    )
}

fn field(text: &str, key: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .expect("the kernel tells it")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
