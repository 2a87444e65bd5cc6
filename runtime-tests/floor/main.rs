//! The floor: what no runtime can do without for the same container, and nothing else. It reads no JSON, knows no option, checks nothing
//! and protects nothing; benchmarks refer to its times as the limit.
//!
//! `floor [--steps] --root DIR run [--detach] --bundle DIR ID`, `create --bundle DIR ID`, `start ID`, `state ID`, `exec ID PROGRAM [ARG…]`,
//! `delete [--force] ID`; `rss PROGRAM [ARG…]` prints the most memory that a program, or who it waits for, had at once, in KiB: a larger
//! caller's own would count. `--steps` prints what each step took, in µs.
//!
//! What a configuration asks for is in the bundle as a plan, which `runtime_tests::write_floor_plan` makes of config.json; a test compares
//! what such a container and Coracle's look like from inside.

#![no_std]
#![no_main]

mod steps;
mod sys;
mod text;

use core::ffi::{CStr, c_char};
use core::ptr::null;

use sys::Fork;
use text::{Plan, Text, Words, decimal, number};

/// The devices and links that every container has (runtime-spec config-linux.md, "Default Devices", "Default Filesystems").
const DEVICES: [(&CStr, usize, usize); 6] = [
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/tty", 5, 0),
];
const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
    (c"pts/ptmx", c"/dev/ptmx"),
];

const CAPABILITIES: usize = 41;
const MANY: usize = 1100;
const POLLIN: i16 = 1;
const POLLPRI: i16 = 2;

fn main(mut words: sys::Arguments) -> usize {
    let (mut root, mut bundle, mut command) = (c"", c"", c"");
    let (mut detach, mut force) = (false, false);
    words.next();
    let id = loop {
        let Some(word) = words.next() else { usage() };
        match word.to_bytes() {
            b"--steps" => steps::begin(),
            b"--root" => root = words.next().unwrap_or_default(),
            b"--bundle" => bundle = words.next().unwrap_or_default(),
            b"--detach" => detach = true,
            b"--force" => force = true,
            _ if command.is_empty() => command = word,
            _ => break word,
        }
    };
    let container = Container::new(root.to_bytes(), id.to_bytes());
    let status = match command.to_bytes() {
        b"run" => container.run(bundle, detach),
        b"create" => container.create(bundle),
        b"start" => container.start(),
        b"state" => container.state(),
        b"exec" => container.exec(words.rest()),
        b"delete" => container.delete(force),
        b"rss" => rss(id, words.rest()),
        _ => usage(),
    };
    steps::print();
    status
}

fn rss(program: &CStr, rest: &[*const c_char]) -> usize {
    let mut arguments = [null(); 64];
    arguments[0] = program.as_ptr();
    arguments[1..=rest.len()].copy_from_slice(rest);
    match sys::fork(0, None) {
        Fork::Child => sys::execve(&arguments, &[null()]),
        Fork::Parent(pid) => {
            let (status, most) = sys::wait_and_measure(pid);
            let mut digits = [0; 20];
            sys::write(2, decimal(most, &mut digits));
            status
        }
    }
}

fn usage() -> ! {
    sys::write(2, b"floor: see floor/main.rs\n");
    sys::exit(2)
}

/// How a new container goes on once it is made.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    /// Its end.
    Exit,
    /// Its program has been executed.
    Exec,
    /// `start` comes.
    Start,
}

/// The files of one container below the state root.
struct Container<'a> {
    id: &'a [u8],
    directory: Text,
    /// Its process, when that started, and its bundle.
    record: Text,
    /// Its process waits here for `start`.
    fifo: Text,
}

/// What was written down of it.
struct Record {
    pid: usize,
    started: u64,
    bundle: Text,
}

impl<'a> Container<'a> {
    fn new(root: &[u8], id: &'a [u8]) -> Self {
        Self {
            id,
            directory: Text::new(&[root, b"/", id]),
            record: Text::new(&[root, b"/", id, b"/state"]),
            fifo: Text::new(&[root, b"/", id, b"/start"]),
        }
    }

    fn run(&self, bundle: &CStr, detach: bool) -> usize {
        let plan = read_plan(bundle);
        if detach {
            self.make(plan, bundle, Until::Exec);
            return 0;
        }
        let pid = self.make(plan, bundle, Until::Exit);
        let status = sys::wait(pid);
        steps::done("wait for its end");
        self.remove(plan);
        status
    }

    fn create(&self, bundle: &CStr) -> usize {
        self.make(read_plan(bundle), bundle, Until::Start);
        0
    }

    /// Everything up to a process that waits for `start`, runs, or has ended.
    fn make(&self, plan: Plan, bundle: &CStr, until: Until) -> usize {
        sys::mkdir(self.directory.as_c());
        let cgroup = self.make_cgroups(plan);
        let mut tasks = [0; 16];
        let tasks = self.open_tasks(plan, &mut tasks);
        let fifo = (until == Until::Start).then(|| {
            sys::make_fifo(self.fifo.as_c());
            sys::open(self.fifo.as_c(), sys::O_RDWR)
        });
        let pipe = (until != Until::Exit).then(sys::pipe);
        let namespaces = plan.number(b"namespaces") as usize;
        steps::done("prepare");
        match sys::fork(namespaces & !sys::CLONE_NEWCGROUP, cgroup) {
            Fork::Child => {
                steps::in_child();
                let process = Process::of(plan);
                self.set_up(plan, tasks, namespaces);
                process.give_up_rights();
                if let (Some(fifo), Some([_, ready])) = (fifo, pipe) {
                    sys::write(ready, b"1");
                    sys::read(fifo, &mut [0]);
                }
                process.execute()
            }
            Fork::Parent(pid) => {
                steps::done("clone3");
                self.write_down(pid, bundle);
                if let Some([ready, end]) = pipe {
                    sys::close(end);
                    // A byte when it is ready; nothing when execve(2) has closed the pipe.
                    sys::read(ready, &mut [0]);
                    steps::done("wait for it");
                }
                pid
            }
        }
    }

    fn make_cgroups(&self, plan: Plan) -> Option<usize> {
        let (mut directory, mut unified) = (Text::new(&[]), None);
        for (what, mut words) in plan.lines() {
            match what {
                b"cgroup1" | b"cgroup2" => {
                    directory = self.cgroup(words);
                    sys::mkdir(directory.as_c());
                    if what == b"cgroup2" {
                        unified = Some(sys::open(directory.as_c(), sys::O_PATH));
                    }
                    steps::done("make a cgroup");
                }
                b"set" => {
                    let file = Text::new(&[directory.bytes(), b"/", words.word().to_bytes()]);
                    let file = sys::open(file.as_c(), sys::O_WRONLY);
                    sys::write(file, words.word().to_bytes());
                    sys::close(file);
                    steps::done("set a limit");
                }
                b"devices" => {
                    let program = read_file(words.word(), 4096);
                    let cgroup = sys::open(directory.as_c(), 0);
                    sys::attach_devices(cgroup, program);
                    sys::close(cgroup);
                    steps::done("device program");
                }
                _ => {}
            }
        }
        unified
    }

    fn cgroup(&self, mut words: Words) -> Text {
        Text::new(&[words.word().to_bytes(), b"/", self.id])
    }

    /// v1: a single thread that moves itself skips the kernel's global lock, so the files are for the child.
    fn open_tasks<'b>(&self, plan: Plan, tasks: &'b mut [usize; 16]) -> &'b [usize] {
        let mut count = 0;
        for words in plan.about(b"cgroup1") {
            let file = Text::new(&[self.cgroup(words).bytes(), b"/tasks"]);
            tasks[count] = sys::open(file.as_c(), sys::O_WRONLY);
            count += 1;
        }
        &tasks[..count]
    }

    /// The container's process, up to where all is mounted.
    fn set_up(&self, plan: Plan, tasks: &[usize], namespaces: usize) {
        enter(tasks);
        steps::done("enter v1 cgroups");
        sys::setsid();
        if namespaces & sys::CLONE_NEWCGROUP != 0 {
            sys::unshare(sys::CLONE_NEWCGROUP);
            steps::done("cgroup namespace");
        }
        sys::loopback_up();
        steps::done("loopback up");
        sys::umask(0);
        sys::mount(c"", c"/", c"", sys::MS_REC | sys::MS_SLAVE, c"");
        let rootfs = plan.about(b"root").next().map_or(c"", |mut words| words.word());
        let rootfs = sys::clone_tree(rootfs);
        // While the host's paths are there.
        let mut sources = [0; MANY];
        let mut binds = 0;
        for (what, mut words) in plan.lines() {
            sources[binds] = match what {
                b"bind" => sys::clone_tree(words.word()),
                b"bind-cgroup" => sys::clone_tree(self.cgroup(words).as_c()),
                _ => continue,
            };
            binds += 1;
        }
        steps::done("clone mounts");
        sys::attach_tree(rootfs, c"/");
        sys::fchdir(rootfs);
        sys::pivot_root();
        sys::chdir(c"/");
        steps::done("pivot_root");
        self.mount_all(plan, &sources);
        for (path, major, minor) in DEVICES {
            sys::make_device(path, major, minor);
        }
        for (target, path) in LINKS {
            sys::symlink(target, path);
        }
        steps::done("devices and links");
        self.protect(plan, rootfs);
        sys::umask(0o022);
    }

    fn mount_all(&self, plan: Plan, sources: &[usize]) {
        let mut sources = sources.iter();
        for (what, mut words) in plan.lines() {
            match what {
                b"mkdir" => sys::mkdir(words.word()),
                b"mount" => {
                    let (source, target, kind) = (words.word(), words.word(), words.word());
                    let flags = words.number() as usize;
                    sys::mount(source, target, kind, flags, words.word());
                }
                b"bind" | b"bind-cgroup" => {
                    words.word();
                    let target = words.word();
                    let Some(&source) = sources.next() else { usage() };
                    sys::attach_tree(source, target);
                    match words.number() as usize {
                        0 => {}
                        attributes => sys::set_attributes(Some(source), c"", attributes),
                    }
                }
                b"attributes" => {
                    let target = words.word();
                    sys::set_attributes(None, target, words.number() as usize);
                }
                _ => continue,
            }
            steps::done("mounts");
        }
    }

    fn protect(&self, plan: Plan, rootfs: usize) {
        if plan.number(b"readonly-root") == 1 {
            sys::set_attributes(Some(rootfs), c"", sys::ATTR_RDONLY);
        }
        for mut words in plan.about(b"readonly") {
            let path = words.word();
            if sys::exists(path) {
                sys::mount(path, path, c"", sys::MS_BIND | sys::MS_REC, c"");
                sys::set_attributes(None, path, sys::ATTR_RDONLY);
            }
        }
        steps::done("read-only paths");
        let mut empty = c"";
        for mut words in plan.about(b"mask") {
            let path = words.word();
            match sys::is_directory(path) {
                None => {}
                Some(false) => sys::mount(c"/dev/null", path, c"", sys::MS_BIND, c""),
                // One for all of them.
                Some(true) if empty.is_empty() => {
                    empty = path;
                    sys::mount(c"none", path, c"tmpfs", sys::MS_RDONLY, c"nr_inodes=1");
                }
                Some(true) => sys::mount(empty, path, c"", sys::MS_BIND, c""),
            }
        }
        steps::done("masked paths");
        for mut words in plan.about(b"hostname") {
            sys::sethostname(words.word());
        }
    }

    fn write_down(&self, pid: usize, bundle: &CStr) {
        let (mut of_pid, mut of_time) = ([0; 20], [0; 20]);
        let started = started(pid).unwrap_or(0);
        let record = Text::new(&[decimal(pid as u64, &mut of_pid), b" ", decimal(started, &mut of_time), b" ", bundle.to_bytes()]);
        let file = sys::open(self.record.as_c(), sys::O_WRONLY | sys::O_CREAT_EXCL);
        sys::write(file, record.bytes());
        sys::close(file);
        steps::done("write the state");
    }

    fn read_back(&self) -> Record {
        let mut words = read_file(self.record.as_c(), 1024).splitn(3, |&byte| byte == b' ');
        let mut word = || words.next().unwrap_or_default();
        let record = Record { pid: number(word()) as usize, started: number(word()), bundle: Text::new(&[word()]) };
        steps::done("read the state");
        record
    }

    fn start(&self) -> usize {
        let file = sys::open(self.fifo.as_c(), sys::O_WRONLY);
        sys::write(file, b"1");
        let _ = sys::unlink(self.fifo.as_c());
        steps::done("start");
        0
    }

    fn state(&self) -> usize {
        let record = self.read_back();
        let status: &[u8] = match started(record.pid) {
            Some(time) if time == record.started => match sys::exists(self.fifo.as_c()) {
                true => b"created",
                false => b"running",
            },
            _ => b"stopped",
        };
        let mut of_pid = [0; 20];
        let pid = decimal(record.pid as u64, &mut of_pid);
        let parts: [&[u8]; 9] = [
            b"{\"ociVersion\":\"1.0.2\",\"id\":\"",
            self.id,
            b"\",\"status\":\"",
            status,
            b"\",\"pid\":",
            pid,
            b",\"bundle\":\"",
            record.bundle.bytes(),
            b"\"}\n",
        ];
        sys::write(1, Text::new(&parts).bytes());
        steps::done("state");
        0
    }

    fn exec(&self, arguments: &[*const c_char]) -> usize {
        let record = self.read_back();
        let plan = read_plan(record.bundle.as_c());
        let process = Process::of(plan);
        let Ok(pidfd) = sys::pidfd_open(record.pid) else { usage() };
        let cgroup = plan.about(b"cgroup2").next();
        let cgroup = cgroup.map(|words| sys::open(self.cgroup(words).as_c(), sys::O_PATH));
        let mut tasks = [0; 16];
        let tasks = self.open_tasks(plan, &mut tasks);
        sys::setns(pidfd, plan.number(b"namespaces") as usize & sys::ALL_NAMESPACES);
        steps::done("enter the namespaces");
        match sys::fork(0, cgroup) {
            Fork::Child => {
                steps::in_child();
                enter(tasks);
                sys::setsid();
                process.give_up_rights();
                process.execute_other(arguments)
            }
            Fork::Parent(pid) => {
                let status = sys::wait(pid);
                steps::done("wait for its end");
                status
            }
        }
    }

    fn delete(&self, force: bool) -> usize {
        let record = self.read_back();
        let plan = read_plan(record.bundle.as_c());
        let pidfd = sys::pidfd_open(record.pid);
        if let Ok(pidfd) = pidfd
            && started(record.pid) == Some(record.started)
        {
            if !force {
                return 1;
            }
            sys::kill(pidfd);
            sys::poll(pidfd, POLLIN);
            steps::done("kill and wait");
        }
        self.remove(plan);
        0
    }

    /// The cgroups may have members for another moment.
    fn remove(&self, plan: Plan) {
        for (what, words) in plan.lines() {
            if !matches!(what, b"cgroup1" | b"cgroup2") {
                continue;
            }
            let directory = self.cgroup(words);
            while sys::rmdir(directory.as_c()) == Err(sys::EBUSY) {
                let events = Text::new(&[directory.bytes(), b"/cgroup.events"]);
                match sys::try_open(events.as_c(), 0) {
                    Ok(events) => {
                        sys::poll(events, POLLPRI);
                        sys::close(events);
                    }
                    Err(_) => sys::yield_now(),
                }
            }
        }
        steps::done("remove the cgroup");
        let _ = sys::unlink(self.fifo.as_c());
        let _ = sys::unlink(self.record.as_c());
        let _ = sys::rmdir(self.directory.as_c());
        steps::done("remove the state");
    }
}

fn enter(tasks: &[usize]) {
    for &file in tasks {
        sys::write(file, b"0");
    }
}

/// What a process of the container gets, read while the host's paths are there.
struct Process<'a> {
    plan: Plan<'a>,
    filter: Option<&'static [u8]>,
}

impl<'a> Process<'a> {
    fn of(plan: Plan<'a>) -> Self {
        let filter = plan.about(b"seccomp").next();
        Self { plan, filter: filter.map(|mut words| read_file(words.word(), 32 * 1024)) }
    }

    fn give_up_rights(&self) {
        sys::close_others_on_exec();
        for mut words in self.plan.about(b"limit") {
            sys::set_limit(words.number() as usize, words.number(), words.number());
        }
        let bounding = self.plan.number(b"bounding");
        for capability in (0..CAPABILITIES).filter(|capability| bounding >> capability & 1 == 0) {
            sys::prctl(sys::PR_CAPBSET_DROP, capability, 0);
        }
        steps::done("bounding set");
        let no_new_privileges = self.plan.number(b"no-new-privileges") == 1;
        if no_new_privileges {
            sys::prctl(sys::PR_SET_NO_NEW_PRIVS, 1, 0);
        } else {
            self.install_filter();
        }
        sys::drop_groups();
        sys::capset(self.plan.number(b"capabilities"));
        if no_new_privileges {
            self.install_filter();
        }
        steps::done("capabilities, filter");
    }

    fn install_filter(&self) {
        if let Some(filter) = self.filter {
            sys::install_filter(filter);
        }
    }

    fn execute(&self) -> ! {
        let arguments = self.list(b"argument");
        sys::execve(&arguments, &self.list(b"environment"))
    }

    fn execute_other(&self, arguments: &[*const c_char]) -> ! {
        sys::execve(arguments, &self.list(b"environment"))
    }

    fn list(&self, what: &[u8]) -> [*const c_char; 64] {
        let mut list = [null(); 64];
        for (place, mut words) in list.iter_mut().zip(self.plan.about(what)) {
            *place = words.word().as_ptr();
        }
        list
    }
}

fn read_plan(bundle: &CStr) -> Plan<'static> {
    /// Room for a thousand mounts.
    const LONGEST: usize = 256 * 1024;
    let plan = read_file(Text::new(&[bundle.to_bytes(), b"/floor.plan"]).as_c(), LONGEST);
    steps::done("read the plan");
    Plan(plan)
}

/// A file that is no longer than that.
fn read_file(path: &CStr, longest: usize) -> &'static [u8] {
    let into = sys::buffer(longest);
    let file = sys::open(path, 0);
    let length = sys::read(file, into);
    sys::close(file);
    &into[..length]
}

/// When a process started, which tells it from a later one of the same number; nothing once it has ended.
fn started(pid: usize) -> Option<u64> {
    let mut digits = [0; 20];
    let path = Text::new(&[b"/proc/", decimal(pid as u64, &mut digits), b"/stat"]);
    let file = sys::try_open(path.as_c(), 0).ok()?;
    let mut stat = [0; 1024];
    let length = sys::read(file, &mut stat);
    sys::close(file);
    let end = stat[..length].iter().rposition(|&byte| byte == b')')?;
    let mut fields = stat[end + 2..length].split(|&byte| byte == b' ');
    let is_zombie = fields.next() == Some(b"Z");
    fields.nth(18).filter(|_| !is_zombie).map(number)
}
