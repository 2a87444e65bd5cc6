//! `start`: finds the shim of a container's group, or starts it, and says where it listens.
//!
//! containerd has said what it wants in two ways. Up to 2.2 an `Any` with the runtime's options stands on standard input, and the
//! answer is an address. (1.7 and 2.0 understand JSON with a version too, but not each other's, and nothing tells them apart; the
//! bare address means the same to all.) From 2.3 on there is a `BootstrapParams`, answered by a `BootstrapResult`.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use prost::Message;
use sha2::{Digest, Sha256};

use crate::container::Config;
use crate::error::{Context, Failure, Result};
use crate::protos::Any;
use crate::protos::bootstrap::{BootstrapParams, BootstrapResult};
use crate::protos::options::Options;
use crate::{Arguments, options, sys};

/// Where shims have their sockets.
const SOCKETS: &str = "/run/containerd/s";
/// Much more than options take.
const MAX_INPUT: u64 = 4 << 20;

/// What stands on standard input.
#[derive(Debug, PartialEq)]
pub(crate) struct Input {
    pub(crate) options: Options,
    /// The options as they came.
    pub(crate) any: Option<Any>,
    socket_dir: PathBuf,
    /// The answer is to be a message, too.
    new: bool,
}

impl Input {
    /// Reads it to its end.
    pub(crate) fn read(arguments: &Arguments) -> Result<Input> {
        let mut bytes = Vec::new();
        std::io::stdin()
            .take(MAX_INPUT)
            .read_to_end(&mut bytes)
            .context(|| "read standard input".to_owned())?;
        Input::parse(&bytes, arguments)
    }

    /// An `Any` decodes as `BootstrapParams`, too: only that which names this very container is one.
    fn parse(bytes: &[u8], arguments: &Arguments) -> Result<Input> {
        let params = BootstrapParams::decode(bytes).ok().filter(|params| {
            params.instance_id == arguments.id && params.namespace == arguments.namespace
        });
        if let Some(params) = params {
            let any = params.extensions.into_iter().find_map(|extension| {
                extension
                    .value
                    .filter(|any| any.name().ends_with(".Options"))
            });
            return Ok(Input {
                options: options::read(any.as_ref())?,
                any,
                socket_dir: match &*params.socket_dir {
                    "" => SOCKETS.into(),
                    directory => directory.into(),
                },
                new: true,
            });
        }
        let any = match bytes {
            [] => None,
            bytes => Some(Any::decode(bytes).context(|| "standard input".to_owned())?),
        };
        Ok(Input {
            options: options::read(any.as_ref())?,
            any,
            socket_dir: SOCKETS.into(),
            new: false,
        })
    }

    fn answer(&self, address: String) -> Vec<u8> {
        if !self.new {
            return address.into_bytes();
        }
        let result = BootstrapResult {
            version: 3,
            address,
            protocol: "ttrpc".to_owned(),
        };
        result.encode_to_vec()
    }
}

/// Makes sure that there is a shim for the container in the current directory, and prints where it listens.
pub(crate) fn start(arguments: &Arguments) -> Result<()> {
    let input = Input::read(arguments)?;
    let bundle = std::env::current_dir().context(|| "find the bundle".to_owned())?;
    let config = Config::read(&bundle)?;
    let group = config.group().unwrap_or(&arguments.id);
    let socket = Socket::of(&input.socket_dir, arguments, group);
    if let Some(listener) = socket.listen()? {
        let started = spawn(arguments, &input.options, listener);
        if started.is_err() {
            let _ = fs::remove_file(&socket.path);
        }
        started?;
    }
    write_address(&bundle, &socket.address())?;
    std::io::stdout()
        .write_all(&input.answer(socket.address()))
        .context(|| "answer".to_owned())
}

/// The socket of a group.
#[derive(Debug)]
struct Socket {
    path: PathBuf,
}

impl Socket {
    fn of(directory: &Path, arguments: &Arguments, group: &str) -> Socket {
        let name: PathBuf = [&*arguments.address, &*arguments.namespace, group]
            .iter()
            .collect();
        let hash = Sha256::digest(name.as_os_str().as_encoded_bytes());
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Socket {
            path: directory.join(hex),
        }
    }

    fn address(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Listens there; `None` when somebody does already.
    fn listen(&self) -> Result<Option<UnixListener>> {
        let listening = || format!("listen at {}", self.path.display());
        if let Some(directory) = self.path.parent() {
            make_private(directory).context(listening)?;
        }
        let listener = match UnixListener::bind(&self.path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                if UnixStream::connect(&self.path).is_ok() {
                    return Ok(None);
                }
                // Left by a shim that was killed.
                fs::remove_file(&self.path).context(listening)?;
                UnixListener::bind(&self.path)
            }
            listener => listener,
        };
        let listener = listener.context(listening)?;
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).context(listening)?;
        Ok(Some(listener))
    }
}

/// Makes a directory that nobody else enters, unless it is there; those above it are as others make them.
fn make_private(directory: &Path) -> std::io::Result<()> {
    if let Some(above) = directory.parent() {
        fs::create_dir_all(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Executes this program once more, to stay. Nothing of ours is left open in it, or containerd would wait for the end of the answer.
fn spawn(arguments: &Arguments, options: &Options, listener: UnixListener) -> Result<()> {
    let starting = || "start the shim".to_owned();
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        sys::own_scheduling_core().context(|| "make a scheduling core of its own".to_owned())?;
    }
    // What the shim inherits.
    join(&options.shim_cgroup)?;
    adjust_oom_score()?;
    let mut command = Command::new(std::env::current_exe().context(starting)?);
    command
        .args(["-namespace", &arguments.namespace, "-id", &arguments.id])
        .args(["-address", &arguments.address])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    if arguments.debug {
        command.arg("-debug");
    }
    sys::hand_over(&mut command, vec![OwnedFd::from(listener)]);
    command.spawn().map(drop).context(starting)
}

/// Moves this process into a cgroup that exists.
fn join(path: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let joining = |error: cgroups::Error| {
        Failure::unknown(format!(
            "options: shim_cgroup: failed to join {path}: {error}"
        ))
    };
    let host = cgroups::Host::probe().map_err(joining)?;
    let location =
        cgroups::Location::resolve(&host, &Path::new("/").join(path)).map_err(joining)?;
    let cgroup = cgroups::Cgroup::open(&location).map_err(joining)?;
    if cgroup.clone_into().is_none() && cgroup.tasks().map_err(joining)?.is_empty() {
        let text = format!("options: shim_cgroup: there is no cgroup {path}");
        return Err(Failure::unknown(text));
    }
    cgroup.add(std::process::id() as i32).map_err(joining)
}

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// One more than containerd: when memory is short, rather the shim.
fn adjust_oom_score() -> Result<()> {
    let adjusting = || "adjust the OOM score of the shim".to_owned();
    // Inherited from containerd, which may be out of sight.
    let inherited = fs::read_to_string(OOM_SCORE).context(adjusting)?;
    let score: i32 = inherited.trim().parse().context(adjusting)?;
    match fs::write(OOM_SCORE, (score + 1).min(1000).to_string()) {
        // Without the right to go below what we have.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        written => written.context(adjusting),
    }
}

/// Takes the socket away that a bundle names, if nobody listens there.
pub(crate) fn remove_dead_socket(bundle: &Path) {
    let Ok(address) = fs::read_to_string(bundle.join("address")) else {
        return;
    };
    if let Some(path) = address.strip_prefix("unix://")
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    {
        let _ = fs::remove_file(path);
    }
}

/// Where containerd 1.6 and 1.7 find the shim again after a restart.
fn write_address(bundle: &Path, address: &str) -> Result<()> {
    let path = bundle.join("address");
    let temporary = bundle.join(".address");
    let writing = || format!("write {}", path.display());
    fs::write(&temporary, address).context(writing)?;
    fs::rename(&temporary, &path).context(writing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protos::bootstrap::Extension;

    fn arguments() -> Arguments {
        Arguments {
            namespace: "k8s.io".to_owned(),
            id: "abc".to_owned(),
            address: "/run/containerd/containerd.sock".to_owned(),
            ..Default::default()
        }
    }

    fn some_options() -> Any {
        let options = Options {
            systemd_cgroup: true,
            ..Default::default()
        };
        Any::new("containerd.runc.v1.Options", &options)
    }

    #[test]
    fn nothing_and_an_any_are_answered_by_an_address() {
        let input = Input::parse(&[], &arguments()).unwrap();
        assert_eq!(input.answer("unix:///s".to_owned()), b"unix:///s");
        assert_eq!(input.options, Options::default());
        // As containerd 1.6 and 1.7 write it.
        let recorded = b"\x0a\x1acontainerd.runc.v1.Options\x12\x02\x48\x01";
        let input = Input::parse(recorded, &arguments()).unwrap();
        assert!(input.options.systemd_cgroup && !input.new);
        assert_eq!(input.any, Some(some_options()));
    }

    #[test]
    fn bootstrap_params_are_answered_by_a_message() {
        let mut bytes = Vec::new();
        bytes.extend(b"\x0a\x03abc\x12\x06k8s.io\x18\x04\x22\x052.3.1\x2a\x0funix:///c.ttrpc");
        let extension = Extension {
            value: Some(some_options()),
        };
        bytes.push(0x42);
        bytes.push(extension.encoded_len() as u8);
        bytes.extend(extension.encode_to_vec());
        bytes.extend(b"\x4a\x04/run");
        let input = Input::parse(&bytes, &arguments()).unwrap();
        assert!(input.new && input.options.systemd_cgroup);
        assert_eq!(input.socket_dir, Path::new("/run"));
        assert_eq!(
            input.answer("unix:///s".to_owned()),
            b"\x08\x03\x12\x09unix:///s\x1a\x05ttrpc"
        );
        let mut other = arguments();
        other.id = "other".to_owned();
        assert!(
            !Input::parse(&some_options().encode_to_vec(), &other)
                .unwrap()
                .new
        );
    }

    #[test]
    fn garbage_is_refused() {
        assert!(Input::parse(&[0xff; 30], &arguments()).is_err());
    }

    #[test]
    fn the_socket_is_named_after_the_group() {
        let socket = Socket::of(Path::new(SOCKETS), &arguments(), "pod");
        // sha256 of /run/containerd/containerd.sock/k8s.io/pod
        assert_eq!(socket.path.parent(), Some(Path::new(SOCKETS)));
        let expected: String = Sha256::digest(b"/run/containerd/containerd.sock/k8s.io/pod")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert!(socket.address().ends_with(&expected));
        assert_eq!(expected.len(), 64);
    }
}
