//! The program that benchmarks refer to as the limit: what its containers are like is what Coracle's are like, or its times would mean
//! nothing. Proved by leaving out one step of it after the other, such as masking paths or dropping capabilities: each time something fails.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::{
    Container, Hierarchy, View, by_systemd, docker_config, eventually, floor,
    hierarchy as machines_hierarchy, is_coracle, kernel_since, requires, rootless, runtime,
    template_config, write_floor_plan,
};
use serde_json::{Value, json};

/// What can be seen from inside, without what differs between two containers anyway.
const LOOK: &str = "
    grep -E 'Cap|NoNew|Seccomp|Groups|Umask' /proc/self/status
    cat /proc/self/cgroup
    ls -ln /dev | sed 's/ [A-Z][a-z][a-z] .*[0-9][0-9]:[0-9][0-9] / /'
    ip addr show
    hostname; id; env | sort; pwd; ulimit -n; ulimit -Hn; echo $$
    for path in /proc/keys /proc/timer_list /sys/firmware /proc/acpi; do ls $path | wc; wc < $path; done 2>&1
    for path in /new /proc/sys/vm/new /sys/new /dev/shm/new; do touch $path; done 2>&1
    mknod /dev/fuse c 10 229 && true < /dev/fuse
    cat /etc/hosts 2>&1; true";

/// The same command line with another program in the runtime's place.
fn by_floor(command: &Command) -> Command {
    let mut other = Command::new(command.get_program());
    other.args(command.get_args().map(|word| match word {
        word if word == runtime().as_os_str() => floor().as_os_str(),
        word => word,
    }));
    other
}

type Config = fn(&Container, &View, Hierarchy) -> Value;

fn template(_: &Container, view: &View, _: Hierarchy) -> Value {
    template_config(runtime(), view)
}

fn docker(c: &Container, _: &View, hierarchy: Hierarchy) -> Value {
    docker_config(&c.bundle(), hierarchy)
}

/// A container with a configuration and the floor's plan for it, in a view of this kind of cgroups.
fn container(config: Config, hierarchy: Hierarchy, script: &str) -> Option<Container> {
    let view = View::of(hierarchy)?;
    let mut c = Container::idle();
    c.config = config(&c, &view, hierarchy);
    c.set("/process/args", json!(["/bin/sh", "-c", script]));
    // Nothing asks a runtime to add it.
    c.push("/process/env", json!("HOME=/root"));
    write_floor_plan(&c.bundle(), &c.config, &view.mounts(), hierarchy);
    Some(c.in_view(view))
}

fn can_be_compared() -> bool {
    // The shared host's own limits, and whoever makes cgroups, are the same for both.
    is_coracle() && rootless().is_none() && !by_systemd() && kernel_since(5, 12)
}

/// Mounts as a set: without the numbers, and without whether the file system as a whole is read-only.
fn mounts(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| {
        let (mount, system) = line.split_once(" - ").expect("mountinfo");
        let mount: Vec<&str> = mount.split(' ').skip(3).collect();
        let (kind, options) = system.rsplit_once(' ').expect("mountinfo");
        let options: Vec<&str> = options
            .split(',')
            .filter(|option| !matches!(*option, "ro" | "rw"))
            .collect();
        format!("{} - {kind} {}", mount.join(" "), options.join(","))
    });
    lines.collect()
}

/// The namespaces that are not ours.
fn namespaces(text: &str) -> BTreeSet<&str> {
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}"));
    text.lines()
        .filter_map(|line| {
            let kind = line.split(':').next()?;
            own(kind)
                .is_ok_and(|own| own.to_str() != Some(line))
                .then_some(kind)
        })
        .collect()
}

#[track_caller]
fn compare(config: Config, hierarchy: Hierarchy) {
    requires!(can_be_compared(), "about root's Coracle containers");
    requires!(
        machines_hierarchy() != Hierarchy::V2,
        "on cgroup v2 alone clone3 answers the floor with ENOENT"
    );
    let namespace_files = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done";
    for (script, what) in [
        (LOOK, "from inside"),
        ("cat /proc/self/mountinfo", "mounts"),
        (namespace_files, "namespaces"),
    ] {
        let c = container(config, hierarchy, script);
        requires!(c.is_some(), "this machine's cgroups cannot be seen so");
        let c = c.unwrap();
        // The second one: the first hands down the controllers.
        c.run().ok();
        let ours = c.run();
        let theirs = c.to_files(by_floor(&c.bundle_command("run", &[])));
        assert_eq!(ours.code, theirs.code, "{theirs:#?}");
        match what {
            "mounts" => assert_eq!(mounts(&ours.stdout), mounts(&theirs.stdout)),
            "namespaces" => {
                let ours = namespaces(&ours.stdout);
                assert!(ours.len() >= 5, "{ours:?}");
                assert_eq!(ours, namespaces(&theirs.stdout));
            }
            _ => {
                // Where the kernel has /proc/kcore, runc's tradition is a link to it, which no specification asks for.
                let ours_said = ours
                    .stdout
                    .lines()
                    .filter(|line| !line.ends_with("-> /proc/kcore"));
                assert!(
                    ours_said.eq(theirs.stdout.lines()),
                    "{ours:#?}\n{theirs:#?}"
                );
                assert_eq!(ours.stderr, theirs.stderr);
            }
        }
    }
}

#[test]
fn a_template_container_is_the_same_on_v2() {
    compare(template, Hierarchy::V2);
}

#[test]
fn a_template_container_is_the_same_on_v1() {
    compare(template, Hierarchy::V1);
}

#[test]
fn a_docker_like_container_is_the_same_on_v2() {
    compare(docker, Hierarchy::V2);
}

#[test]
fn a_docker_like_container_is_the_same_on_v1() {
    compare(docker, Hierarchy::V1);
}

/// What exec adds to a container is the same, and what `state` tells; nothing is left behind.
#[test]
fn its_commands_do_what_they_are_compared_with() {
    requires!(can_be_compared(), "about root's Coracle containers");
    requires!(
        machines_hierarchy() != Hierarchy::V2,
        "on cgroup v2 alone clone3 answers the floor with ENOENT"
    );
    for hierarchy in [Hierarchy::V2, Hierarchy::V1] {
        let c = container(docker, hierarchy, "exec sleep 1000000");
        requires!(c.is_some(), "this machine's cgroups cannot be seen so");
        let c = c.unwrap();
        let look = [
            "exec",
            &c.id,
            "/bin/sh",
            "-c",
            "grep -E 'Cap|NoNew|Seccomp|Groups|Umask' /proc/self/status; cat /proc/self/cgroup; pwd; ls /proc | grep -c '^1$'; env | sort",
        ];
        c.run_detached();
        let ours = c.runtime(&look).ok();
        c.delete_force().ok();

        let floor = |args: &[&str]| c.to_files(by_floor(&c.command(args)));
        let state = || -> Value { serde_json::from_str(&floor(&["state", &c.id]).ok()).unwrap() };
        let status = || state()["status"].as_str().unwrap().to_owned();
        c.to_files(by_floor(&c.bundle_command("create", &[]))).ok();
        assert_eq!(status(), "created");
        floor(&["start", &c.id]).ok();
        assert_eq!(status(), "running");
        assert_eq!(floor(&look).ok(), ours);
        floor(&["delete", &c.id]).fails(1);
        floor(&["delete", "--force", &c.id]).ok();
        c.assert_nothing_left();

        c.to_files(by_floor(&c.bundle_command("run", &["--detach"])))
            .ok();
        let pid = Pid::from_raw(state()["pid"].as_i64().unwrap() as i32);
        kill(pid, Signal::SIGKILL).unwrap();
        eventually("it has stopped", || (status() == "stopped").then_some(()));
        floor(&["delete", &c.id]).ok();
        c.assert_nothing_left();
    }
}
