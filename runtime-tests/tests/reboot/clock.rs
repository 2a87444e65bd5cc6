//! A machine whose clock jumps, while containers of other tests are started in it.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, path::Path};

use runtime_tests::{base_config, eventually, fill_rootfs, is_coracle, requires, shell};
use serde_json::json;

use super::{IMAGE, Place, boot, make_image};

/// In seconds: into the future, and to when there were no containers.
const JUMPS: [i64; 2] = [10 * 31_556_952, -20 * 31_556_952];

/// The time of day, as it would be without us.
struct Clock {
    seconds: i64,
    since: Instant,
}

impl Clock {
    fn new() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Clock {
            seconds: seconds.as_secs().cast_signed(),
            since: Instant::now(),
        }
    }

    fn set(&self, ahead: i64) {
        let seconds = self.seconds + self.since.elapsed().as_secs().cast_signed() + ahead;
        shell(&format!("date -s @{seconds}"));
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A bundle with a hook.
fn make_bundle(dir: &Path, script: &str, timeout: u32) {
    fill_rootfs(&dir.join("rootfs"));
    let mut config = base_config();
    config["process"]["args"] = json!(["sleep", "1000000"]);
    let args = ["sh", "-c", script];
    config["hooks"] =
        json!({ "createRuntime": [{ "path": "/bin/sh", "args": args, "timeout": timeout }] });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn time_limits_are_as_long_as_ever() {
    requires_reboot!();
    if boot() == Some(1) {
        return;
    }
    let place = Place::new("clock", "state");
    make_image(&place);
    let run = ["run", "-d", "--network", "none", "--name"];
    let lasting = ["lasting", "--restart", "always", IMAGE, "sleep", "1000000"];
    place.coracle(&[&run[..], &lasting].concat()).ok();
    let pid = || match &place.inspect("lasting")["State"] {
        state if state["Running"] == json!(true) => Some(state["Pid"].to_string()),
        _ => None,
    };
    let deaf = "trap '' TERM; echo deaf; while :; do sleep 1; done";
    let deaf = [&run[..], &["deaf", IMAGE, "sh", "-c", deaf]].concat();
    let clock = Clock::new();
    for ahead in JUMPS {
        clock.set(ahead);
        place.coracle(&["exec", "lasting", "true"]).ok();
        let before = pid().expect("it still runs");
        shell(&format!("kill -9 {before}"));
        eventually("it is started again", || pid().filter(|pid| *pid != before));
        place.coracle(&deaf).ok();
        eventually("it hears nothing", || {
            (place.coracle(&["logs", "deaf"]).ok() == "deaf\n").then_some(())
        });
        let began = Instant::now();
        // Back to now, while it is waited for.
        thread::scope(|scope| {
            let stop = scope.spawn(|| place.coracle(&["stop", "-t", "3", "deaf"]).ok());
            clock.set(0);
            stop.join().unwrap();
        });
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(3), "killed after {took:?}");
        let table = place.coracle(&["list"]).ok();
        assert!(table.contains("Exited (137)"), "{table}");
        place.coracle(&["rm", "deaf"]).ok();
    }
    place.coracle(&["rm", "-f", "lasting"]).ok();
    assert!(place.is_empty("store/containers"), "nothing is left");
}

#[test]
fn hooks_have_the_time_that_they_had() {
    requires_reboot!();
    if boot() == Some(1) {
        return;
    }
    let place = Place::new("hooks", "state");
    let clock = Clock::new();
    for ahead in JUMPS {
        for (seconds, timeout, code) in [(3, 600, 0), (1_000_000, 3, 1)] {
            let bundle = place.dir.join(format!("{ahead}-{timeout}"));
            let mark = bundle.join("mark");
            let script = format!("touch {}; sleep {seconds}", mark.display());
            make_bundle(&bundle, &script, timeout);
            let bundle = bundle.to_string_lossy();
            let output = thread::scope(|scope| {
                let create = scope.spawn(|| place.coracle(&["create", "--bundle", &bundle, "one"]));
                eventually("the hook runs", || mark.exists().then_some(()));
                clock.set(ahead);
                create.join().unwrap()
            });
            clock.set(0);
            assert_eq!(output.code, code, "{output:?}");
            place.coracle(&["delete", "--force", "one"]).ok();
        }
    }
}
