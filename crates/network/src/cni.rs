//! `--network cni:NAME`: networks of the Container Network Interface, made by plugins that the machine has already.
//!
//! CNI specification 1.0, sections 1 (configuration), 2 (protocol) and 3 (execution). What was executed and what it answered is kept on
//! record, so that DEL sees the same, whatever has become of the configuration since.

use std::env;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cidr::Cidr;
use crate::error::{Context, Error, Kind, Result};
use crate::execute::{PATIENCE, run};
use crate::mac::Mac;
use crate::names::Dns;
use crate::ports::Port;

const CONFIGURATIONS: &str = "/etc/cni/net.d";
const PLUGINS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/// The most that is read of a configuration.
const LARGEST: u64 = 1 << 20;

/// A list of plugins that make one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Network {
    name: String,
    #[serde(default = "first_version")]
    cni_version: String,
    #[serde(default)]
    disable_check: bool,
    plugins: Vec<Plugin>,
    /// What the last plugin has answered to ADD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

/// The configuration of one plugin.
type Plugin = Map<String, Value>;

/// What a container wants of the plugins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Container<'a> {
    pub(crate) id: &'a str,
    /// Empty when it is gone.
    pub(crate) netns: &'a Path,
    pub(crate) interface: &'a str,
    pub(crate) ports: &'a [Port],
    pub(crate) ips: &'a [IpAddr],
    pub(crate) mac: Option<Mac>,
}

/// What the plugins have made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) mac: Option<Mac>,
    pub(crate) addresses: Vec<Cidr>,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) dns: Dns,
}

fn first_version() -> String {
    "0.1.0".to_owned()
}

impl Network {
    /// Finds a network by name in `$NETCONFPATH` or `/etc/cni/net.d`. Files that are none are passed over.
    pub(crate) fn find(name: &str) -> Result<Network> {
        let directory =
            env::var_os("NETCONFPATH").map_or_else(|| CONFIGURATIONS.into(), PathBuf::from);
        let missing = || {
            let message = format!(
                "no CNI network has the name {name:?} in {}",
                directory.display()
            );
            Error::new(Kind::NotFound, message)
        };
        let entries = fs::read_dir(&directory).map_err(|_| missing())?;
        let mut paths: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        paths.sort();
        let mut network = paths
            .iter()
            .filter_map(|path| read(path).ok())
            .find(|network| network.name == name)
            .ok_or_else(missing)?;
        // Only plugins say what has come of it.
        network.result = None;
        Ok(network)
    }

    /// Executes ADD of each plugin in turn.
    pub(crate) fn add(&mut self, container: &Container<'_>) -> Result<Outcome> {
        for plugin in &self.plugins {
            let answer = self.execute("ADD", plugin, container, self.result.as_ref())?;
            self.result = Some(answer);
        }
        Ok(outcome(self.result.as_ref().unwrap_or(&Value::Null)))
    }

    /// Executes CHECK of each plugin in turn: whether everything is as ADD has left it.
    pub(crate) fn check(&self, container: &Container<'_>) -> Result<()> {
        if self.disable_check
            || matches!(
                self.cni_version.as_str(),
                "0.1.0" | "0.2.0" | "0.3.0" | "0.3.1"
            )
        {
            return Ok(());
        }
        for plugin in &self.plugins {
            self.execute("CHECK", plugin, container, self.result.as_ref())?;
        }
        Ok(())
    }

    /// Executes DEL of each plugin, the last one first.
    pub(crate) fn delete(&self, container: &Container<'_>) -> Result<()> {
        for plugin in self.plugins.iter().rev() {
            self.execute("DEL", plugin, container, self.result.as_ref())?;
        }
        Ok(())
    }

    fn execute(
        &self,
        operation: &str,
        plugin: &Plugin,
        container: &Container<'_>,
        previous: Option<&Value>,
    ) -> Result<Value> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or("");
        let doing = || {
            format!(
                "execute CNI plugin {kind:?} with {operation} for the network {}",
                self.name
            )
        };
        let program = find_plugin(kind).context(doing)?;
        let mut config = plugin.clone();
        config.insert("cniVersion".into(), self.cni_version.as_str().into());
        config.insert("name".into(), self.name.as_str().into());
        if let Some(previous) = previous {
            config.insert("prevResult".into(), previous.clone());
        }
        let wanted = runtime_config(plugin, container);
        config.remove("capabilities");
        if !wanted.is_empty() {
            config.insert("runtimeConfig".into(), wanted.into());
        }
        let mut command = Command::new(&program);
        command
            .env("CNI_COMMAND", operation)
            .env("CNI_CONTAINERID", container.id)
            .env("CNI_NETNS", container.netns)
            .env("CNI_IFNAME", container.interface)
            .env(
                "CNI_PATH",
                env::join_paths(plugin_directories()).unwrap_or_default(),
            );
        let input = Value::from(config).to_string();
        let output = run(&mut command, input.as_bytes(), PATIENCE).context(doing)?;
        let answer = output.stdout;
        if output.status.success() {
            let nothing = answer.iter().all(u8::is_ascii_whitespace);
            return match nothing {
                true => Ok(Value::Null),
                false => serde_json::from_slice(&answer).context(doing),
            };
        }
        Err(Error::failed(
            complaint(&answer).unwrap_or(output.status.to_string()),
        ))
        .context(doing)
    }
}

/// What a plugin says is wrong: an object with `code`, `msg` and `details`.
fn complaint(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let text = |name| {
        answer
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let details = text("details").map(|details| format!(" ({details})"));
    Some(format!("{}{}", text("msg")?, details.unwrap_or_default()))
}

/// Reads a list of plugins, or a single one, which is a list of itself.
fn read(path: &Path) -> Result<Network> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    if !matches!(extension, Some("conflist" | "conf" | "json")) {
        return Err(Error::invalid("not a configuration"));
    }
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(LARGEST).read_to_string(&mut text))
        .context(|| format!("read {}", path.display()))?;
    parse(&text).context(|| format!("read {}", path.display()))
}

fn parse(text: &str) -> Result<Network> {
    let value: Value = serde_json::from_str(text).context(|| "CNI configuration")?;
    let list = match value.get("plugins") {
        Some(_) => value,
        None => {
            json!({ "name": value["name"], "cniVersion": value["cniVersion"], "plugins": [value] })
        }
    };
    serde_json::from_value(list).context(|| "CNI configuration")
}

/// The extras that a plugin says it can do, and that there is something to say about.
fn runtime_config(plugin: &Plugin, container: &Container<'_>) -> Map<String, Value> {
    let can = |name: &str| {
        plugin.get("capabilities").and_then(|can| can.get(name)) == Some(&Value::Bool(true))
    };
    let mut config = Map::new();
    if can("portMappings") && !container.ports.is_empty() {
        let mapping = |port: &Port| {
            let mut mapping = json!({
                "hostPort": port.host_port, "containerPort": port.container_port, "protocol": port.protocol,
            });
            if let Some(ip) = port.host_ip {
                mapping["hostIP"] = ip.to_string().into();
            }
            mapping
        };
        config.insert(
            "portMappings".into(),
            container.ports.iter().map(mapping).collect(),
        );
    }
    if can("ips") && !container.ips.is_empty() {
        config.insert(
            "ips".into(),
            container.ips.iter().map(IpAddr::to_string).collect(),
        );
    }
    if let Some(mac) = container.mac.filter(|_| can("mac")) {
        config.insert("mac".into(), mac.to_string().into());
    }
    config
}

fn plugin_directories() -> Vec<PathBuf> {
    let own = env::var_os("CNI_PATH").unwrap_or_default();
    let own = env::split_paths(&own).filter(|path| path.is_absolute());
    own.chain(PLUGINS.map(PathBuf::from)).collect()
}

/// A plugin's type is a plain file name in one of the directories, never a way out of them (CVE-2021-20206).
fn find_plugin(kind: &str) -> Result<PathBuf> {
    if kind.is_empty() || kind.starts_with('.') || kind.contains(['/', '\0']) {
        return Err(Error::invalid("the type is not a plain file name"));
    }
    let directories = plugin_directories();
    let programs = directories.iter().map(|directory| directory.join(kind));
    programs
        .into_iter()
        .find(|program| program.is_file())
        .ok_or_else(|| {
            let directories: Vec<_> = directories
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            Error::new(
                Kind::NotFound,
                format!("it is in none of {}", directories.join(", ")),
            )
        })
}

/// Reads a result; what is missing or strange in it is left out.
fn outcome(result: &Value) -> Outcome {
    let list = |name: &str| {
        result
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let inside =
        |interface: &&Value| text(interface, "sandbox").is_some_and(|sandbox| !sandbox.is_empty());
    let ips = list("ips");
    Outcome {
        mac: list("interfaces")
            .iter()
            .find(inside)
            .and_then(|interface| text(interface, "mac")?.parse().ok()),
        addresses: ips
            .iter()
            .filter_map(|ip| text(ip, "address")?.parse().ok())
            .collect(),
        gateways: ips
            .iter()
            .filter_map(|ip| text(ip, "gateway")?.parse().ok())
            .collect(),
        dns: result
            .get("dns")
            .and_then(|dns| serde_json::from_value(dns.clone()).ok())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_plugin_is_a_list_of_itself() {
        let network =
            parse(r#"{"cniVersion":"0.4.0","name":"one","type":"bridge","mtu":1400}"#).unwrap();
        assert_eq!(
            (network.name.as_str(), network.cni_version.as_str()),
            ("one", "0.4.0")
        );
        assert_eq!(network.plugins[0]["mtu"], 1400);
        for text in [
            "",
            "[]",
            "{}",
            r#"{"name":"x","plugins":3}"#,
            r#"{"plugins":[{}]}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    // CVE-2021-20206. Proved with names that are only looked for.
    #[test]
    fn plugins_are_plain_file_names() {
        for kind in ["", ".", "..", "../../bin/sh", "/bin/sh", "a/b", "a\0b"] {
            let error = find_plugin(kind).unwrap_err();
            assert!(
                error.to_string().contains("plain file name"),
                "{kind:?}: {error}"
            );
        }
        let error = find_plugin("no-such-plugin").unwrap_err().to_string();
        assert!(error.contains("/opt/cni/bin, /usr/lib/cni"), "{error}");
    }

    #[test]
    fn extras_go_to_who_can_do_them() {
        let ports = Port::parse("127.0.0.1:8080:80/udp").unwrap();
        let container = Container {
            id: "web",
            netns: Path::new("/proc/1/ns/net"),
            interface: "eth0",
            ports: &ports,
            ips: &["10.1.0.9".parse().unwrap()],
            mac: None,
        };
        let plugin = |text| serde_json::from_str::<Plugin>(text).unwrap();
        let portmap =
            plugin(r#"{"type":"portmap","capabilities":{"portMappings":true,"ips":false}}"#);
        let wanted = json!({"portMappings":
            [{"hostPort":8080,"containerPort":80,"protocol":"udp","hostIP":"127.0.0.1"}]});
        assert_eq!(Value::from(runtime_config(&portmap, &container)), wanted);
        assert!(runtime_config(&plugin(r#"{"type":"bridge"}"#), &container).is_empty());
    }

    #[test]
    fn results_and_complaints_are_read() {
        let result = json!({
            "interfaces": [{"name":"cni0","mac":"02:00:00:00:00:01"}, {"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/x"}],
            "ips": [{"address":"10.1.0.9/16","gateway":"10.1.0.1"}, {"address":"nonsense"}],
            "dns": {"nameservers":["10.1.0.1"]},
        });
        let outcome = outcome(&result);
        assert_eq!(outcome.mac.unwrap().to_string(), "02:00:00:00:00:02");
        assert_eq!(outcome.addresses, ["10.1.0.9/16".parse().unwrap()]);
        assert_eq!(outcome.dns.nameservers.len(), 1);
        let answer = br#"{"cniVersion":"1.0.0","code":7,"msg":"no space","details":"pool full"}"#;
        assert_eq!(complaint(answer).unwrap(), "no space (pool full)");
        assert_eq!(complaint(b"Segmentation fault"), None);
    }
}
