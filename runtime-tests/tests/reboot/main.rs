//! A machine that is really started again while containers run, their state on a disk that stays. These tests are executed twice, before
//! and after (`vm test --suite reboot --reboot`): the first time they make what the second time they look at.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use runtime_tests::{
    Output, eventually, fill_rootfs, finish, get, is_coracle, need_root, requires, runtime, shell,
};
use serde_json::{Value, json};

/// A place of a test's own that outlives the machine's end.
struct Place {
    dir: PathBuf,
    /// Where the state of containers is kept.
    root: PathBuf,
}

impl Place {
    fn new(name: &str, root: &str) -> Self {
        need_root();
        let dir = PathBuf::from("/var/lib/reboot").join(name);
        fs::create_dir_all(&dir).unwrap();
        Self {
            root: dir.join(root),
            dir,
        }
    }

    fn coracle(&self, args: &[&str]) -> Output {
        let mut command = Command::new(runtime());
        command.arg("--root").arg(&self.root);
        command.arg("--store").arg(self.dir.join("store"));
        command.args(args);
        finish(command, &self.dir)
    }

    fn inspect(&self, name: &str) -> Value {
        let text = self.coracle(&["inspect", name]).ok();
        let mut all: Value = serde_json::from_str(&text).unwrap();
        all[0].take()
    }

    fn is_empty(&self, name: &str) -> bool {
        fs::read_dir(self.dir.join(name)).is_ok_and(|mut entries| entries.next().is_none())
    }
}

/// Which start of the machine this is, counted from 1; `None` where nobody will start it again.
fn boot() -> Option<u32> {
    std::env::var("VM_BOOT").ok()?.parse().ok()
}

macro_rules! requires_reboot {
    () => {
        requires!(
            is_coracle(),
            "runc and crun expect their state in a /run that is empty then"
        );
        requires!(
            boot().is_some(),
            "only a virtual machine is started again (`make vm-test`)"
        );
    };
}

mod clock;

/// Somebody who has nothing to do with containers, with the pid that one of them had.
fn stranger(pid: u64) -> Child {
    eventually("the pid comes round", || {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let mut child = Command::new("sleep").arg("1000000").spawn().unwrap();
        if u64::from(child.id()) == pid {
            return Some(child);
        }
        child.kill().and_then(|()| child.wait()).unwrap();
        None
    })
}

const BUNDLES: [&str; 3] = ["running", "paused", "created"];

fn make_bundles(place: &Place) {
    let bundle = place.dir.join("bundle");
    fill_rootfs(&bundle.join("rootfs"));
    let mut config = runtime_tests::base_config();
    config["process"]["args"] = json!(["sleep", "1000000"]);
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let bundle = bundle.to_string_lossy();
    for id in BUNDLES {
        place.coracle(&["create", "--bundle", &bundle, id]).ok();
    }
    for id in ["running", "paused"] {
        place.coracle(&["start", id]).ok();
    }
    place.coracle(&["pause", "paused"]).ok();
}

#[test]
fn containers_of_bundles_are_stopped_and_harm_no_stranger() {
    requires_reboot!();
    let place = Place::new("bundles", "state");
    if boot() == Some(1) {
        return make_bundles(&place);
    }
    let table = place.coracle(&["list"]).ok();
    assert_eq!(table.matches(" stopped ").count(), 3, "{table}");
    for id in BUNDLES {
        let record = fs::read_to_string(place.root.join(id).join("state.json")).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        let mut stranger = stranger(record["init"]["pid"].as_u64().unwrap());
        let state: Value = serde_json::from_str(&place.coracle(&["state", id]).ok()).unwrap();
        assert_eq!(
            (&state["status"], &state["pid"]),
            (&json!("stopped"), &json!(0))
        );
        for command in [&["kill", id, "KILL"][..], &["pause", id], &["ps", id]] {
            place
                .coracle(command)
                .fails_with(1, "container not running");
        }
        place.coracle(&["start", id]).fails(1);
        place.coracle(&["delete", id]).ok();
        let lives = stranger.try_wait().unwrap().is_none();
        stranger.kill().and_then(|()| stranger.wait()).unwrap();
        assert!(lives, "{id}: a stranger was killed");
    }
    assert!(place.is_empty("state"), "nothing is left");
}

/// Makes the image that the containers are of.
fn make_image(place: &Place) {
    fill_rootfs(&place.dir.join("rootfs"));
    shell(&format!(
        "cd {} && umoci init --layout layout && umoci new --image layout:1 && umoci insert --image layout:1 rootfs /",
        place.dir.display()
    ));
    let layout = format!("oci:{}:1", place.dir.join("layout").display());
    place.coracle(&["pull", "-q", &layout]).ok();
}

const IMAGE: &str = "localhost/layout:1";

/// What a container serves at `/boots`.
fn boots(port: &str) -> String {
    eventually("it answers", || {
        get(&format!("127.0.0.1:{port}"), "/boots").ok()
    })
}

/// A service that is always to run, and a container that nobody is to see afterwards.
fn make_containers(place: &Place, name: &str, port: &str) {
    let serve = "echo boot >> /data/boots; echo started; mkdir -p /www; cp /data/boots /www; exec httpd -f -p 80 -h /www";
    let (published, volume) = (format!("{port}:80"), format!("{name}:/data"));
    let run = ["run", "-d", "--name", name, "--restart", "always"];
    let flags = ["-p", &published, "-v", &volume, IMAGE, "sh", "-c", serve];
    place.coracle(&[&run[..], &flags].concat()).ok();
    let passing = ["run", "-d", "--rm", "--network", "none", IMAGE];
    place
        .coracle(&[&passing[..], &["sleep", "1000000"]].concat())
        .ok();
    assert_eq!(boots(port), "boot\n");
}

fn containers_come_back(place: &Place, name: &str, port: &str) {
    let table = eventually("what was run with --rm has gone", || {
        let table = place.coracle(&["list"]).ok();
        (table.lines().count() == 2).then_some(table)
    });
    assert!(
        table.contains("Exited (255)") && !table.contains("Up "),
        "{table}"
    );
    let state = place.inspect(name)["State"].take();
    assert_eq!(
        (&state["Running"], &state["Pid"]),
        (&json!(false), &json!(0)),
        "{state}"
    );
    place.coracle(&["start", name]).ok();
    assert_eq!(boots(port), "boot\nboot\n", "the volume is there");
    let log = place.coracle(&["logs", name]).ok();
    assert_eq!(log, "started\nstarted\n");
    // And its policy holds.
    let pid = place.inspect(name)["State"]["Pid"].to_string();
    shell(&format!("kill -9 {pid}"));
    eventually("it is started once more", || {
        (boots(port).lines().count() == 3).then_some(())
    });
    place.coracle(&["rm", "-f", name]).ok();
}

/// With the runtime's state in a place that stays, and in /run as usual.
#[test]
fn containers_of_images_are_ended_and_can_be_started() {
    requires_reboot!();
    let places = [
        (Place::new("images", "state"), "kept", "8080"),
        (Place::new("images", "/run/reboot"), "usual", "8081"),
    ];
    if boot() == Some(1) {
        make_image(&places[0].0);
        for (place, name, port) in &places {
            make_containers(place, name, port);
        }
        return;
    }
    for (place, name, port) in &places {
        containers_come_back(place, name, port);
    }
    for name in ["store/containers", "store/names"] {
        assert!(places[0].0.is_empty(name), "{name} is empty");
    }
    let left = "nft list ruleset; ip -o link show | grep ': cor' || true";
    assert_eq!(shell(left), "");
}
