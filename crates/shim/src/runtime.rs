//! The `coracle` binary: which one it is, how it is called, and what it leaves to be read.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Failure, Result};
use crate::protos::options::Options;

const NAME: &str = "coracle";
/// Below it each namespace of containerd's has a directory of containers.
const ROOT: &str = "/run/containerd/coracle";
/// Beside config.json: how to call the runtime for this container, for whoever cleans up.
const FILE: &str = "runtime.json";
/// Much more than a runtime has to say.
const MAX_COMPLAINT: u64 = 64 << 10;

/// How the runtime is called for one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Runtime {
    binary: PathBuf,
    root: PathBuf,
    systemd_cgroup: bool,
}

/// What is read of a container's state.json.
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    pub(crate) cgroup: Option<cgroups::Location>,
    init: Option<Init>,
}

#[derive(Debug, Deserialize)]
struct Init {
    pid: i32,
}

impl State {
    /// The container's process.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.init.as_ref().map(|init| init.pid)
    }
}

impl Runtime {
    /// As the options say.
    pub(crate) fn new(options: &Options, namespace: &str) -> Runtime {
        let root = match &*options.root {
            "" => Path::new(ROOT),
            root => Path::new(root),
        };
        Runtime {
            binary: find(&options.binary_name),
            root: root.join(namespace),
            systemd_cgroup: options.systemd_cgroup,
        }
    }

    /// Keeps it in a bundle.
    pub(crate) fn save(&self, bundle: &Path) -> Result<()> {
        let path = bundle.join(FILE);
        let writing = || format!("write {}", path.display());
        let json = serde_json::to_vec(self).context(writing)?;
        fs::write(&path, json).context(writing)
    }

    /// Its container is gone.
    pub(crate) fn forget(bundle: &Path) {
        let _ = fs::remove_file(bundle.join(FILE));
    }

    /// As it was kept in a bundle; `None` when there is no container.
    pub(crate) fn load(bundle: &Path) -> Result<Option<Runtime>> {
        let path = bundle.join(FILE);
        let reading = || format!("read {}", path.display());
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map(Some).context(reading),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(reading),
        }
    }

    /// A command of the runtime's, up to the flags that are its own. What it has to say goes to `complaint`.
    pub(crate) fn command(&self, complaint: &Paper) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root);
        command.arg("--log").arg(complaint.path());
        command.args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// What is on record of a container.
    pub(crate) fn state(&self, id: &str) -> Result<State> {
        let path = self.root.join(id).join("state.json");
        let reading = || format!("read {}", path.display());
        let json = fs::read(&path).context(reading)?;
        serde_json::from_slice(&json).context(reading)
    }

    /// The features document.
    pub(crate) fn features(&self) -> Result<Vec<u8>> {
        let asking = || format!("{} features", self.binary.display());
        let output = Command::new(&self.binary)
            .arg("features")
            .output()
            .context(asking)?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(Failure::unknown(format!("{} fails", asking()))),
        }
    }
}

/// The binary by its name: as a path, beside this program, in PATH.
fn find(name: &str) -> PathBuf {
    let name = if name.is_empty() { NAME } else { name };
    let beside = || {
        let own = std::env::current_exe().ok()?;
        let path = own.parent()?.join(name);
        path.is_file().then_some(path)
    };
    match name.contains('/') {
        true => PathBuf::from(name),
        // Whatever else is there, a name of another program means that of PATH.
        false if name != NAME => PathBuf::from(name),
        false => beside().unwrap_or_else(|| PathBuf::from(name)),
    }
}

/// A file without a name, to be read or written by the runtime by way of /proc.
#[derive(Debug)]
pub(crate) struct Paper(File);

impl Paper {
    pub(crate) fn new() -> Result<Paper> {
        let fd: OwnedFd = memfd_create(c"coracle", MFdFlags::MFD_CLOEXEC)
            .context(|| "make a file in memory".to_owned())?;
        Ok(Paper(File::from(fd)))
    }

    /// With this content.
    pub(crate) fn with(content: &[u8]) -> Result<Paper> {
        use std::io::Write;
        let mut paper = Paper::new()?;
        paper
            .0
            .write_all(content)
            .context(|| "write a file in memory".to_owned())?;
        Ok(paper)
    }

    /// The path by which a child finds it while it is open here.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// The last error that the runtime has logged in it, or nothing.
    pub(crate) fn last_error(&mut self) -> String {
        let mut text = String::new();
        let read = self.0.seek(SeekFrom::Start(0)).and_then(|_| {
            self.0
                .by_ref()
                .take(MAX_COMPLAINT)
                .read_to_string(&mut text)
        });
        if read.is_err() {
            return String::new();
        }
        last_error(&text)
    }
}

#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

fn last_error(log: &str) -> String {
    let lines = log
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let mut errors = lines.filter(|line| line.level == "error");
    errors.next().map(|line| line.msg).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_counts() {
        let log = r#"{"level":"error","msg":"first","time":"t"}
{"level":"error","msg":"second: no such file","time":"t"}
{"level":"warning","msg":"after","time":"t"}
half a li"#;
        assert_eq!(last_error(log), "second: no such file");
        assert_eq!(last_error(""), "");
    }

    #[test]
    fn options_choose_binary_and_root() {
        let mut options = Options::default();
        assert_eq!(
            Runtime::new(&options, "ns").root,
            Path::new("/run/containerd/coracle/ns")
        );
        options.binary_name = "/opt/coracle".to_owned();
        options.root = "/r".to_owned();
        let runtime = Runtime::new(&options, "ns");
        assert_eq!(
            (runtime.binary, runtime.root),
            ("/opt/coracle".into(), "/r/ns".into())
        );
    }

    #[test]
    fn paper_is_found_by_its_path() {
        let mut paper = Paper::new().unwrap();
        fs::write(paper.path(), r#"{"level":"error","msg":"no"}"#).unwrap();
        assert_eq!(paper.last_error(), "no");
        assert_eq!(
            fs::read(Paper::with(b"text").unwrap().path()).unwrap(),
            b"text"
        );
    }
}
