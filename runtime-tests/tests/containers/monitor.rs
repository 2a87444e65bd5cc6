//! What the monitor does for as long as its container lives, and what becomes of the container when it does not.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::{
    Host, Store, eventually, fill_rootfs, kernel_since, read_text, requires, rootless, shell,
};

fn kill_monitor(store: &Store, name: &str) {
    let pid = store.monitor(name);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("the monitor is gone", || {
        let stat = read_text(format!("/proc/{pid}/stat").as_ref());
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn output_is_logged_and_shown() {
    let store = Store::new();
    let script = "echo one; echo two >&2; printf three";
    let output = store.run(&["--name", "web"], script);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("one\nthree", "two\n")
    );
    let output = store.coracle(&["logs", "web"]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("one\nthree", "two\n")
    );
    let stamped = store.coracle(&["logs", "-t", "--tail", "1", "web"]).stdout;
    assert!(
        stamped.starts_with("20") && stamped.ends_with("Z three"),
        "{stamped}"
    );
    assert_eq!(store.coracle(&["logs", "--since", "0s", "web"]).stdout, "");
    let log = read_text(&store.directory("web").join("log"));
    let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert!(
        first["stream"] == "stdout" && first["log"] == "one\n",
        "{first}"
    );
}

/// Proved with a program that is executed as soon as it can be.
#[test]
fn the_network_is_there_before_the_program() {
    requires!(rootless().is_none(), "a bridge takes root");
    let host = Host::new();
    let rootfs = host.path("rootfs");
    fill_rootfs(&rootfs);
    let rootfs = rootfs.display().to_string();
    let run = ["run", "--rm", "--rootfs", &rootfs, "ls", "/sys/class/net"];
    for _ in 0..3 {
        assert_eq!(host.coracle(&run).ok(), "eth0\nlo\n");
    }
}

#[test]
fn the_log_is_rotated_and_can_be_followed() {
    let store = Store::new();
    let flags = ["--log-opt", "max-size=4k", "--log-opt", "max-file=2"];
    store.detached(
        "web",
        &flags,
        "for i in $(seq 300); do echo line $i; done; echo end",
    );
    let followed = store.coracle(&["logs", "-f", "web"]).ok();
    assert!(followed.ends_with("line 300\nend\n"), "{followed}");
    let directory = store.directory("web");
    for name in ["log", "log.1"] {
        assert!(fs::metadata(directory.join(name)).unwrap().len() <= 4096);
    }
    assert!(!directory.join("log.2").exists());
    let shown = store.coracle(&["logs", "web"]).ok();
    assert!(
        shown.ends_with("line 300\nend\n") && shown.lines().count() < 200,
        "{shown}"
    );
}

#[test]
fn a_detached_container_is_waited_for_and_leaves_with_rm() {
    let store = Store::new();
    store.detached("web", &[], "sleep 0.2; exit 7");
    assert_eq!(store.coracle(&["wait", "web"]).ok(), "7\n");
    assert_eq!(store.state("web", "ExitCode"), 7);
    assert_eq!(store.coracle(&["wait", "web"]).ok(), "7\n", "once more");
    store.coracle(&["rm", "web"]).ok();
    store.coracle(&["inspect", "web"]).fails(1);
    store.detached("gone", &["--rm"], "sleep 2; exit 7");
    assert_eq!(store.coracle(&["wait", "gone"]).ok(), "7\n");
    assert_eq!(store.leftovers(), Vec::<String>::new());
}

#[test]
fn stop_asks_then_kills() {
    let store = Store::new();
    store.detached(
        "polite",
        &[],
        "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done",
    );
    store.wait_to_log("polite", "ready");
    store.coracle(&["stop", "polite"]).ok();
    assert_eq!(store.state("polite", "ExitCode"), 5);
    store.detached(
        "deaf",
        &[],
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
    );
    store.wait_to_log("deaf", "ready");
    store.coracle(&["stop", "-t", "1", "deaf"]).ok();
    assert_eq!(store.state("deaf", "ExitCode"), 137);
    let flags = ["--stop-signal", "USR1", "--stop-timeout", "100"];
    store.detached(
        "other",
        &flags,
        "trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done",
    );
    store.wait_to_log("other", "ready");
    store.coracle(&["stop", "other"]).ok();
    assert_eq!(store.state("other", "ExitCode"), 6);
    store.coracle(&["stop", "other"]).ok();
}

#[test]
fn a_policy_starts_it_again_with_growing_pauses() {
    let store = Store::new();
    let begun = Instant::now();
    store.detached("web", &["--restart", "on-failure:3"], "echo run; exit 1");
    assert_eq!(store.coracle(&["wait", "web"]).ok(), "1\n");
    // 100, 200 and 400 ms.
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert_eq!(store.coracle(&["logs", "web"]).ok(), "run\n".repeat(4));
    assert_eq!(store.inspect("web")["RestartCount"], 3);
    store.detached("fine", &["--restart", "on-failure"], "exit 0");
    assert_eq!(store.coracle(&["wait", "fine"]).ok(), "0\n");
    assert_eq!(store.inspect("fine")["RestartCount"], 0);
    store.detached("always", &["--restart", "always"], "echo run; sleep 0.1");
    eventually("it has run three times", || {
        (store.coracle(&["logs", "always"]).stdout.lines().count() >= 3).then_some(())
    });
    store.coracle(&["stop", "always"]).ok();
    assert_eq!(
        store.state("always", "Status"),
        "exited",
        "a stop is one for good"
    );
}

#[test]
fn restart_starts_what_runs_and_what_has_ended() {
    let store = Store::new();
    store.detached("web", &[], "echo run; exec sleep 1000");
    store.wait_to_log("web", "run");
    let first = store.state("web", "Pid");
    store.coracle(&["restart", "-t", "0", "web"]).ok();
    assert_ne!(store.state("web", "Pid"), first);
    store.coracle(&["stop", "-t", "0", "web"]).ok();
    store.coracle(&["restart", "web"]).ok();
    assert_eq!(store.state("web", "Status"), "running");
    store.wait_to_log("web", "run\nrun\nrun\n");
}

/// The container goes on, nothing it has written is lost, and everything that is asked of it afterwards works.
#[test]
fn a_killed_monitor_loses_neither_container_nor_clean_up() {
    let store = Store::new();
    store.detached(
        "web",
        &[],
        "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done",
    );
    store.wait_to_log("web", "line 2");
    let pid = store.state("web", "Pid");
    kill_monitor(&store, "web");
    let log = store.directory("web").join("log");
    let written = fs::metadata(&log).unwrap().len();
    // It writes on, into its pipe.
    shell("sleep 0.3");
    assert_eq!(fs::metadata(&log).unwrap().len(), written);
    assert_eq!(
        store.state("web", "Pid"),
        pid,
        "looking at it starts another monitor"
    );
    let shown = store.wait_to_log("web", "line 15\n");
    let expected: String = (1..=15).map(|line| format!("line {line}\n")).collect();
    assert!(shown.starts_with(&expected), "{shown}");
    assert_ne!(store.monitor("web"), 0);
    store.coracle(&["stop", "-t", "0", "web"]).ok();
    let status = store.state("web", "ExitCode");
    // Before Linux 6.15 one who is not the parent hears of it only as long as the parent has not.
    let unknown = status == 255 && !kernel_since(6, 15);
    assert!(status == 137 || unknown, "{status}");

    store.detached("short", &["--rm"], "sleep 0.3");
    kill_monitor(&store, "short");
    shell("sleep 0.5");
    store.coracle(&["list"]).ok();
    assert!(
        store.coracle(&["inspect", "short"]).code != 0,
        "what was left of it is gone"
    );

    store.detached("forced", &[], "sleep 1000");
    kill_monitor(&store, "forced");
    store.coracle(&["rm", "-f", "forced", "web"]).ok();
    assert_eq!(store.leftovers(), Vec::<String>::new());
}

/// Somebody else keeps its terminal meanwhile.
#[test]
fn a_killed_monitor_hangs_up_no_terminal() {
    let store = Store::new();
    let name = store.parent.clone();
    let script = "i=0; while read -t 1 line; [ \"$line\" != end ]; do i=$((i+1)); echo line $i $line; done; exit 4";
    store.detached(&name, &["-it"], script);
    store.wait_to_log(&name, "line 1");
    let pid = store.state(&name, "Pid");
    kill_monitor(&store, &name);
    let again = store.wait_to_log(&name, "line 3");
    assert!(again.contains("line 2"), "{again}");
    assert_eq!(store.state(&name, "Pid"), pid);
    kill_monitor(&store, &name);
    let mut terminal = runtime_tests::Terminal::open();
    let mut child = terminal.start(&store.command(&["attach", &name]));
    terminal.type_in("hello\n");
    terminal.wait_to_see("hello");
    terminal.type_in("end\n");
    // As above.
    let status = child.wait().unwrap().code();
    let unknown = status == Some(255) && !kernel_since(6, 15);
    assert!(status == Some(4) || unknown, "{status:?}");
    eventually("nobody keeps the terminal any more", || {
        let keeper = format!("coracle-terminal {name}");
        let found = shell(&format!("pgrep -fx '{keeper}' || true"));
        found.is_empty().then_some(())
    });
}

/// What a failure of the machine leaves of a container whose `run` has not said that it is there: a file whose bytes never came. Proved with a
/// record that has to be whole, and with a directory that stays.
#[test]
fn a_container_without_a_record_is_none() {
    let store = Store::new();
    store.detached("web", &[], "exec sleep 1000");
    let containers = store.path().join("store/containers");
    let lost = containers.join("a".repeat(64));
    fs::create_dir_all(lost.join("upper")).unwrap();
    fs::write(lost.join("container.json"), "").unwrap();
    let list = store.coracle(&["list", "-q"]);
    assert_eq!(list.stderr, "", "{list:?}");
    assert_eq!(list.ok().lines().count(), 1);
    store
        .coracle(&["rm", &"a".repeat(64)])
        .fails_with(1, "container does not exist");
    store.run(&["--rm"], "true").ok();
    assert!(!lost.exists());
    assert_eq!(store.ids().len(), 1, "the others stay");
    store.coracle(&["rm", "-f", "web"]).ok();
}

#[test]
fn whenever_run_is_killed_rm_removes_what_it_has_left() {
    let store = Store::new();
    for pause in 0..24 {
        let args = store.run_args(&["-d", "--name", "web"], &["sleep", "1000"]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut run = store
            .command(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        shell(&format!("sleep 0.{:03}", pause * 2));
        let _ = run.kill();
        let _ = run.wait();
        store.coracle(&["rm", "-f", "web"]).ok();
        // By its id where it had not got its name yet.
        for id in store.ids() {
            store.coracle(&["rm", "-f", &id]).ok();
        }
        assert_eq!(
            store.leftovers(),
            Vec::<String>::new(),
            "after {} ms",
            pause * 2
        );
    }
}

#[test]
fn it_is_small() {
    let store = Store::new();
    store.detached("web", &[], "echo ready; exec sleep 1000");
    store.wait_to_log("web", "ready");
    let rollup = format!("/proc/{}/smaps_rollup", store.monitor("web"));
    let pss = || -> Option<u64> {
        let text = read_text(rollup.as_ref());
        text.lines().find_map(|line| {
            line.strip_prefix("Pss:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
    };
    eventually("it takes at most 1.5 MB", || {
        pss().filter(|kilobytes| *kilobytes <= 1536)
    });
}

#[test]
fn a_full_disk_loses_only_lines_of_the_log() {
    let store = Store::new();
    let place = store.path().join("store");
    fs::create_dir(&place).unwrap();
    shell(&format!(
        "mount -t tmpfs -o size=300k {} {}",
        store.parent,
        place.display()
    ));
    let result = std::panic::catch_unwind(|| {
        store.detached(
            "web",
            &[],
            "while [ ! -e /tmp/go ]; do sleep 0.05; done; seq 100000; exit 3",
        );
        shell(&format!(
            "head -c 1M /dev/zero > {}/filler || true",
            place.display()
        ));
        store.coracle(&["exec", "web", "touch", "/tmp/go"]).ok();
        assert_eq!(store.coracle(&["wait", "web"]).ok(), "3\n");
        fs::remove_file(place.join("filler")).unwrap();
        assert_eq!(store.coracle(&["logs", "web"]).code, 0);
        store.coracle(&["rm", "-f", "web"]).ok();
    });
    let left = store
        .leftovers()
        .into_iter()
        .filter(|left| !left.contains("tmpfs"))
        .count();
    shell(&format!("umount -l {}", place.display()));
    result.unwrap();
    assert_eq!(left, 0);
}

/// With every amount of room that is too small, for files and for their bytes. It was seen failing before a container that could not take its
/// name was removed, before a monitor that cannot begin said why, and before a status that cannot be written was an error.
#[test]
fn a_full_disk_leaves_no_container() {
    let store = Store::new();
    let place = store.path().join("store");
    fs::create_dir(&place).unwrap();
    let (parent, disk) = (&store.parent, place.display());
    shell(&format!("mount -t tmpfs -o size=1m {parent} {disk}"));
    let containers = || {
        let left = store.leftovers().into_iter();
        left.filter(|left| !left.contains("tmpfs"))
            .collect::<Vec<_>>()
    };
    let result = std::panic::catch_unwind(|| {
        // The store's own directories.
        store.run(&["--rm"], "true").ok();
        let used = |what: &str| -> u64 {
            let used = shell(&format!(
                "df --block-size=1k --output={what} {disk} | tail -1"
            ));
            used.trim().parse().unwrap()
        };
        for (limit, unit, step, what) in [("nr_inodes", "", 1, "iused"), ("size", "k", 4, "used")] {
            let used = used(what);
            let mut failures = 0;
            for room in 1.. {
                let room = used + room * step;
                shell(&format!("mount -o remount,{limit}={room}{unit} {disk}"));
                let run = store.run(&["-d", "--name=web"], "exec sleep 1000");
                if run.code == 0 {
                    break;
                }
                assert_eq!(run.code, 125, "{run:?}");
                let words = run.stderr.to_lowercase();
                assert!(words.contains("no space left"), "{run:?}");
                assert_eq!(containers(), [""; 0], "{limit}={room}");
                failures += 1;
            }
            assert!(failures > 2, "{limit}: failed {failures} times only");
            shell(&format!("mount -o remount,size=1m,nr_inodes=1000 {disk}"));
            assert_eq!(store.state("web", "Status"), "running");
            store.coracle(&["rm", "-f", "web"]).ok();
        }
    });
    let left = containers();
    shell(&format!("umount -l {disk}"));
    result.unwrap();
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_memory_kill_is_told() {
    let store = Store::new();
    let output = store.run_with(
        &["--name", "web", "-m", "16m", "--memory-swap", "16m"],
        &["/bin/inside", "hog", "64"],
    );
    assert_eq!(output.code, 137, "{output:#?}");
    assert_eq!(store.state("web", "OOMKilled"), true);
}
