//! What is known of the networks: one JSON file, replaced atomically under a lock.
//!
//! An attachment is written down before any kernel object of it exists, and crossed out after the last one has gone: whoever is killed in
//! between leaves a record by which everything is found.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::{Attached, Cidr, Port, cni};

/// The content of the file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    /// The kernel's boot id: what was attached before a restart of the machine has gone with it.
    boot: String,
    /// The default network, once it was needed; its addresses stay the same as long as nothing else uses them.
    pub(crate) bridge: Option<Bridge>,
    /// What is attached to the default network, by id.
    pub(crate) attached: BTreeMap<String, Attached>,
    /// What other programs have attached for us, by id.
    #[serde(default)]
    pub(crate) others: BTreeMap<String, Other>,
    /// What CNI plugins had attached before the machine was restarted, by id: they may have kept something, as an address on the disk.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) lost: BTreeMap<String, Other>,
}

/// An attachment that another program has made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Other {
    pub(crate) attached: Attached,
    pub(crate) by: By,
}

/// Who has made it, and what is needed to undo it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum By {
    Cni(cni::Network),
    Pasta,
}

impl State {
    /// Every attachment with its id.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &Attached)> {
        let others = self.others.iter().map(|(id, other)| (id, &other.attached));
        self.attached.iter().chain(others)
    }

    /// An id stands for one attachment, and a published port leads to one.
    pub(crate) fn check_free(&self, id: &str, ports: &[Port]) -> Result<()> {
        if let Some((_, attached)) = self.all().find(|(other, _)| *other == id) {
            let message = format!(
                "{id} is attached to the network {} already",
                attached.network
            );
            return Err(Error::in_use(message));
        }
        ports
            .iter()
            .try_for_each(|port| self.check_unpublished(port))
    }

    /// Nobody on record publishes this port.
    pub(crate) fn check_unpublished(&self, port: &Port) -> Result<()> {
        match self
            .all()
            .find(|(_, attached)| attached.ports.iter().any(|other| other.clashes(port)))
        {
            Some((id, _)) => Err(Error::in_use(format!(
                "publish port {}: {id} has it already",
                port.host()
            ))),
            None => Ok(()),
        }
    }
}

/// A network that is a bridge on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bridge {
    /// The name of its interface.
    pub(crate) interface: String,
    /// The IPv4 network, 24 bits long.
    pub(crate) subnet: Cidr,
    /// The IPv6 network, 64 bits long.
    pub(crate) subnet6: Option<Cidr>,
    /// The number of the address that was given last: one that has just become free is not given again at once.
    pub(crate) last: u32,
    /// Kernel parameters that have changed for it.
    pub(crate) changed: Vec<Change>,
}

/// A kernel parameter: its name, what it was, and what it was set to.
pub(crate) type Change = [String; 3];

/// The state while nobody else can change it.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) state: State,
    pub(crate) directory: PathBuf,
    /// The lock goes when it is closed.
    _lock: File,
}

impl Locked {
    /// Waits for the lock and reads what is there.
    pub(crate) fn open(directory: &Path) -> Result<Locked> {
        let path = directory.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .context(|| format!("open {}", path.display()))?;
        file.lock().context(|| format!("lock {}", path.display()))?;
        Ok(Locked {
            state: read(directory)?,
            directory: directory.to_owned(),
            _lock: file,
        })
    }

    /// Replaces the file. It is not forced onto the disk: after a failure of the machine nothing of it holds any more.
    pub(crate) fn save(&self) -> Result<()> {
        let path = self.directory.join("state.json");
        let new = self.directory.join("state.json.new");
        let write = || {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&serde_json::to_vec(&self.state)?)?;
            fs::rename(&new, &path)
        };
        write()
            .inspect_err(|_| {
                let _ = fs::remove_file(&new);
            })
            .context(|| format!("write {}", path.display()))
    }
}

/// Reads the state as far as it holds since the machine was started. The file is replaced in one step, so it is whole without the lock.
pub(crate) fn read(directory: &Path) -> Result<State> {
    let mut state = parse(directory)?;
    let boot = boot_id()?;
    if state.boot != boot {
        state.attached.clear();
        let lost = std::mem::take(&mut state.others).into_iter();
        let lost = lost.filter(|(_, other)| matches!(other.by, By::Cni(_)));
        state.lost.extend(lost.map(|(id, mut other)| {
            // By now that is the namespace of somebody else.
            other.attached.netns = PathBuf::new();
            (id, other)
        }));
        if let Some(bridge) = &mut state.bridge {
            bridge.changed.clear();
        }
        state.boot = boot;
    }
    Ok(state)
}

fn parse(directory: &Path) -> Result<State> {
    let path = directory.join("state.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).context(|| format!("read {}", path.display())),
    };
    // What a crash of the machine may leave of a file that was not forced onto the disk.
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(State::default());
    }
    serde_json::from_slice(&bytes).context(|| format!("read {}", path.display()))
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).context(|| format!("read {path}"))?;
    Ok(text.trim_end().to_owned())
}

/// An id is a file name and stands in messages.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    if id.is_empty() || id.len() > 255 || id.starts_with('.') || !id.bytes().all(good) {
        return Err(Error::invalid(format!(
            "invalid id {id:?} of an attachment"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut locked = Locked::open(dir.path()).unwrap();
        assert!(locked.state.bridge.is_none());
        let bridge = Bridge {
            interface: "cor0".into(),
            subnet: "10.89.0.0/24".parse().unwrap(),
            subnet6: Some("fd12::/64".parse().unwrap()),
            last: 7,
            changed: vec![["ipv4/ip_forward", "0", "1"].map(str::to_owned)],
        };
        locked.state.bridge = Some(bridge.clone());
        locked.save().unwrap();
        assert_eq!(read(dir.path()).unwrap().bridge, Some(bridge));
        assert!(!dir.path().join("state.json.new").exists());
    }

    #[test]
    fn nothing_is_attached_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"boot":"another","bridge":null,"attached":{"web":{"network":"bridge","interface":"eth0","hostInterface":"cor1",
            "bridge":"cor0","mac":null,"addresses":[],"gateways":[],"ports":[],"netns":"/proc/7/ns/net"}}}"#;
        fs::write(dir.path().join("state.json"), text).unwrap();
        assert_eq!(parse(dir.path()).unwrap().all().count(), 1);
        let state = read(dir.path()).unwrap();
        assert_eq!(state.all().count(), 0, "with a lock or without");
        assert_ne!(state.boot, "another");
    }

    #[test]
    fn what_plugins_keep_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let attached = r#"{"network":"cni:net","interface":"eth0","hostInterface":"","bridge":"","mac":null,"addresses":[],
            "gateways":[],"ports":[],"netns":"/proc/self/ns/net"}"#;
        let by = r#"{"cni":{"name":"net","cniVersion":"1.0.0","plugins":[]}}"#;
        let text = format!(
            r#"{{"boot":"another","bridge":null,"attached":{{}},"others":{{"web":{{"attached":{attached},"by":{by}}},
            "pasta":{{"attached":{attached},"by":"pasta"}}}}}}"#
        );
        fs::write(dir.path().join("state.json"), text).unwrap();
        let locked = Locked::open(dir.path()).unwrap();
        assert_eq!(locked.state.all().count(), 0);
        locked.save().unwrap();
        let lost = read(dir.path()).unwrap().lost;
        assert_eq!(lost.keys().collect::<Vec<_>>(), ["web"]);
        assert_eq!(lost["web"].attached.netns, Path::new(""));
    }

    #[test]
    fn damage_is_told_and_emptiness_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, [0; 100]).unwrap();
        assert!(read(dir.path()).unwrap().attached.is_empty());
        fs::write(&path, "{").unwrap();
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("state.json: EOF"), "{error}");
    }

    #[test]
    fn ids_are_plain_names() {
        for id in ["web", "a.b_c-d+e", "0123456789abcdef"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", ".hidden", "a/b", "a b", "a\n", "ä"] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
