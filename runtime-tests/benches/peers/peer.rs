//! Who takes part: a runtime with its state root, its bundles and the mount namespace it lives in.

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use nix::sched::{CloneFlags, setns};
use runtime_tests::{
    Hierarchy, View, docker_config, eventually, fill_rootfs, floor, has_program, runtime,
    template_config, write_floor_plan,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Options;

pub(crate) struct Peer {
    pub name: String,
    pub version: String,
    /// What does not hold for it that holds for the others.
    pub remark: Option<String>,
    pub program: PathBuf,
    pub is_floor: bool,
    hierarchy: Hierarchy,
    /// Its mounts.
    namespace: File,
    view: View,
    template: Value,
    bundles: BTreeSet<String>,
    dir: TempDir,
}

impl Peer {
    /// One whose program is seen in a mount namespace like ours but for `change`, a line of shell.
    pub(crate) fn new(program: &Path, change: &str, hierarchy: Hierarchy) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("bench-")
            // Where states are kept in real life, /run, is a tmpfs: a disk's fsync is not what is measured here.
            .tempdir_in("/dev/shm")
            .expect("/dev/shm is writable");
        fill_rootfs(&dir.path().join("rootfs"));
        fs::create_dir(dir.path().join("state")).expect("a directory");
        go_home();
        let view = View::new(&[], change);
        let mut peer = Self {
            name: "floor".into(),
            version: String::new(),
            remark: None,
            program: program.to_owned(),
            is_floor: program == floor(),
            hierarchy,
            namespace: File::open(view.mount_namespace()).expect("a namespace"),
            template: template(&view),
            view,
            bundles: BTreeSet::new(),
            dir,
        };
        if !peer.is_floor {
            peer.ask_version();
        }
        peer
    }

    /// Its name is the first word of what it says, and the version.
    fn ask_version(&mut self) {
        self.enter();
        let answer = Command::new(&self.program).arg("--version").output();
        let answer = answer.expect("the runtime starts").stdout;
        let answer = String::from_utf8_lossy(&answer);
        self.version = answer.lines().next().unwrap_or_default().to_owned();
        let mut words = self.version.split_whitespace();
        let (name, version) = (words.next().unwrap_or_default(), words.next_back());
        self.name = match name {
            "coracle" => name.to_owned(),
            _ => {
                let version = version.unwrap_or_default();
                let version = version.split(['+', '~', '-']).next().unwrap_or_default();
                format!("{name} {version}")
            }
        };
    }

    /// This process, and all that it starts from now on, sees its mounts.
    pub(crate) fn enter(&self) {
        // As long as a thread that was waited for is not wholly gone, it may not.
        eventually("a mount namespace", || {
            setns(&self.namespace, CloneFlags::CLONE_NEWNS).ok()
        });
    }

    /// The file of its mount namespace.
    pub(crate) fn mounts(&self) -> String {
        self.view.mount_namespace()
    }

    /// The configuration that its bundles start from.
    pub(crate) fn template(&self) -> Value {
        self.template.clone()
    }

    pub(crate) fn docker(&self) -> Value {
        docker_config(self.dir.path(), self.hierarchy)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A bundle of its own for a configuration; all of them have one root file system.
    pub(crate) fn bundle(&mut self, name: &str, config: impl FnOnce(&Self) -> Value) -> String {
        let bundle = self.path(name);
        if self.bundles.insert(name.to_owned()) {
            fs::create_dir(&bundle).expect("a directory");
            let mut config = config(self);
            config["root"]["path"] = json!(self.path("rootfs"));
            fs::write(bundle.join("config.json"), config.to_string()).expect("a file");
            if self.is_floor {
                let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
                write_floor_plan(&bundle, &config, &mounts, self.hierarchy);
            }
        }
        bundle.to_string_lossy().into_owned()
    }

    /// The bundle of the template with a program.
    pub(crate) fn template_bundle(&mut self, name: &str, args: &[&str]) -> String {
        self.bundle(name, |peer| {
            let mut config = peer.template();
            config["process"]["args"] = json!(args);
            config
        })
    }

    /// An id that is nobody else's.
    pub(crate) fn id(&self, name: &str) -> String {
        let unique = self.dir.path().file_name().expect("a name");
        format!("{}-{name}", unique.to_string_lossy())
    }

    /// What it says goes to a file: a container that stays would keep a pipe open.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let said = File::create(self.path("stderr")).expect("a file");
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(self.path("state"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        command
    }

    /// Runs a command to its end: how many µs it took.
    pub(crate) fn time(&self, args: &[&str]) -> Result<f64, String> {
        let mut command = self.command(args);
        let began = Instant::now();
        let status = command.status().map_err(|e| e.to_string())?;
        let took = began.elapsed();
        if status.success() {
            return Ok(took.as_secs_f64() * 1e6);
        }
        let said = self.said();
        let reason = said.lines().last().unwrap_or_default();
        Err(format!("{}: {status}: {reason}", args[0]))
    }

    /// What the last command has written to stderr.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// `create`, or `run` with flags.
    pub(crate) fn begin(&self, command: &[&str], bundle: &str, id: &str) -> Result<f64, String> {
        self.time(&[command, &["--bundle", bundle, id]].concat())
    }

    pub(crate) fn delete_force(&self, id: &str) -> Result<f64, String> {
        self.time(&["delete", "--force", id])
    }

    /// The one container that is there during a measurement, or what a failure has left of it.
    pub(crate) fn one(&self) -> String {
        self.id("one")
    }

    pub(crate) fn has_stopped(&self, id: &str) -> bool {
        let answer = self
            .command(&["state", id])
            .stdout(Stdio::piped())
            .output()
            .expect("the runtime starts");
        String::from_utf8_lossy(&answer.stdout).contains("\"stopped\"")
    }
}

/// What `coracle spec` writes, of a version that older runtimes know.
fn template(view: &View) -> Value {
    let mut config = template_config(runtime(), view);
    config["ociVersion"] = json!("1.0.2");
    config
}

/// This process sees again what it saw at its beginning.
pub(crate) fn go_home() {
    static HOME: OnceLock<File> = OnceLock::new();
    let home = HOME.get_or_init(|| File::open("/proc/self/ns/mnt").expect("a namespace"));
    setns(home, CloneFlags::CLONE_NEWNS).expect("a mount namespace");
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.enter();
        let ids = fs::read_dir(self.path("state")).into_iter().flatten();
        for id in ids.flatten() {
            let _ = self.delete_force(&id.file_name().to_string_lossy());
        }
    }
}

/// Coracle, the floor, and who else is there and runs a container; others are named with their reason.
pub(crate) fn who_takes_part(options: &Options, hierarchy: Hierarchy) -> Vec<Peer> {
    let mut candidates = vec![
        (runtime().to_owned(), "true".to_owned()),
        (floor().to_owned(), "true".to_owned()),
    ];
    candidates.extend(newest(&options.newest));
    for program in ["crun", "runc"] {
        if has_program(program) {
            candidates.push((program.into(), "true".into()));
        } else {
            println!("{program}: skipped, not installed");
        }
    }
    candidates.extend(options.youki.clone().map(|path| (path, "true".into())));
    let mut peers: Vec<Peer> = Vec::new();
    for (program, change) in candidates {
        let peer = Peer::new(&program, &change, hierarchy);
        if peers.iter().any(|other| other.name == peer.name) {
            println!(
                "{}: skipped, the installed {} is the same",
                peer.name,
                program.display()
            );
            continue;
        }
        match admit(peer) {
            Ok(peer) => peers.push(peer),
            Err(reason) => {
                assert!(peers.len() > 1, "{reason}");
                println!("skipped: {reason}");
            }
        }
    }
    for peer in &peers {
        let remark = peer.remark.as_deref().unwrap_or_default();
        println!(
            "  {:<12} {} {} {remark}",
            peer.name,
            peer.version,
            peer.program.display()
        );
    }
    print!("\n{:<30}", "medians");
    peers.iter().for_each(|peer| print!("{:>14}", peer.name));
    println!();
    peers
}

/// It runs a container here; without device rules where it is not allowed to load a program for them (crun 1.8 needs CAP_SYS_RESOURCE).
fn admit(mut peer: Peer) -> Result<Peer, String> {
    peer.enter();
    let bundle = peer.template_bundle("try", &["/bin/true"]);
    let id = peer.one();
    let Err(reason) = peer.begin(&["run"], &bundle, &id) else {
        return Ok(peer);
    };
    let _ = peer.delete_force(&id);
    let linux = peer.template["linux"].as_object_mut();
    linux.expect("an object").remove("resources");
    let bundle = peer.template_bundle("try again", &["/bin/true"]);
    if peer.hierarchy == Hierarchy::V2 && peer.begin(&["run"], &bundle, &id).is_ok() {
        peer.remark = Some(format!("without device rules, since with them: {reason}"));
        return Ok(peer);
    }
    Err(format!("{} runs no container here: {reason}", peer.name))
}

/// The newest crun and runc that Debian has. Their libraries are bound over ours, index included, so they start as they would there.
fn newest(suite: &str) -> Vec<(PathBuf, String)> {
    if suite == "none" {
        return Vec::new();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fetch.sh");
    let fetched = Command::new(script).args([suite, "crun", "runc"]).output();
    let fetched = fetched.expect("the script starts");
    if !fetched.status.success() {
        let reason = String::from_utf8_lossy(&fetched.stderr);
        println!("crun and runc of {suite}: skipped, {}", reason.trim());
        return Vec::new();
    }
    let root = PathBuf::from(String::from_utf8_lossy(&fetched.stdout).trim());
    let libraries = format!("/usr/lib/{ARCH}-linux-gnu");
    let from = root.display();
    let change = format!(
        "mount --bind {from}/etc/ld.so.cache /etc/ld.so.cache; mount --bind {from}{libraries} {libraries}"
    );
    ["usr/bin/crun", "usr/sbin/runc"]
        .map(|program| (root.join(program), change.clone()))
        .into()
}
