//! `inspect` and `port`: what is known of a container, with Docker's names for it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use humantime::format_rfc3339_nanos;
use network::{Attached, Port};
use runtime::{Result, Status as RuntimeStatus};
use serde_json::{Map, Value, json};

use super::directory::{CONFIG_FILE, Container};
use super::lifecycle::settle;
use super::network::attachment;
use super::record::{Phase, Status};
use super::restart::RestartPolicy;
use crate::signals;

/// Everything that is known of a container.
pub(crate) fn describe(container: &Container) -> Result<Value> {
    let status = settle(container)?;
    let record = &container.record;
    let spec: Value = container.read(CONFIG_FILE).unwrap_or_default();
    let attached = attachment(container)?;
    Ok(json!({
        "Id": record.id,
        "Created": record.created,
        "Path": record.command.first(),
        "Args": record.command.get(1..).unwrap_or_default(),
        "State": state(container, &status),
        "Image": record.image_id,
        "ImageName": record.origin(),
        "ImageDigest": record.image,
        "Name": record.name,
        "RestartCount": status.restarts,
        "LogPath": container.path.join(super::log::LOG_FILE),
        "HostConfig": host_config(container, &spec),
        "Mounts": record.mounts,
        "Config": config(container, &spec),
        "NetworkSettings": network_settings(container, attached.as_ref()),
    }))
}

/// Whether a running container is frozen.
pub(crate) fn is_paused(container: &Container) -> bool {
    let record = &container.record;
    runtime::state(&record.settings(), &record.id)
        .is_ok_and(|state| state.status == RuntimeStatus::Paused)
}

fn state(container: &Container, status: &Status) -> Value {
    let time = |time: Option<SystemTime>| match time {
        Some(time) => format_rfc3339_nanos(time).to_string(),
        None => "0001-01-01T00:00:00Z".into(),
    };
    let running = matches!(status.phase, Phase::Running | Phase::Restarting);
    let paused = status.phase == Phase::Running && is_paused(container);
    let name = match status.phase {
        _ if paused => "paused",
        Phase::Created => "created",
        Phase::Running => "running",
        Phase::Restarting => "restarting",
        Phase::Exited => "exited",
    };
    json!({
        "Status": name,
        "Running": running,
        "Paused": paused,
        "Restarting": status.phase == Phase::Restarting,
        "OOMKilled": status.oom_killed,
        "Dead": false,
        "Pid": status.pid,
        "ExitCode": status.exit_code,
        "Error": status.error,
        "StartedAt": time(status.started),
        "FinishedAt": time(status.finished),
    })
}

fn config(container: &Container, spec: &Value) -> Value {
    let record = &container.record;
    let process = &spec["process"];
    let user = format!("{}:{}", process["user"]["uid"], process["user"]["gid"]);
    // As Docker: published ones are exposed as well.
    let exposed = record.exposed_ports.iter().cloned();
    let exposed = exposed.chain(record.network.ports.iter().map(inner));
    let exposed: Map<_, _> = exposed.map(|port| (port, json!({}))).collect();
    json!({
        "Hostname": record.network.hostname,
        "User": user,
        "Tty": record.tty,
        "OpenStdin": record.interactive,
        "StdinOnce": record.stdin_once,
        "ExposedPorts": exposed,
        "Env": process["env"],
        "Cmd": record.command,
        "Image": record.origin(),
        "WorkingDir": process["cwd"],
        "Labels": record.labels,
        "Annotations": spec["annotations"],
        "StopSignal": signals::name(record.stop_signal),
        "StopTimeout": record.stop_timeout,
    })
}

fn host_config(container: &Container, spec: &Value) -> Value {
    let record = &container.record;
    let resources = &spec["linux"]["resources"];
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let nano_cpus = match number(&resources["cpu"]["period"]) {
        0 => 0,
        period => number(&resources["cpu"]["quota"]) * (1_000_000_000 / period),
    };
    let most = match record.restart {
        RestartPolicy::OnFailure(most) => most.unwrap_or(0),
        _ => 0,
    };
    json!({
        "NetworkMode": record.network.mode.name(),
        "PortBindings": bindings(&record.network.ports),
        "RestartPolicy": { "Name": record.restart.name(), "MaximumRetryCount": most },
        "AutoRemove": record.remove,
        "Privileged": record.privileged,
        "UsernsMode": record.userns.name(),
        "ReadonlyRootfs": spec["root"]["readonly"],
        "Capabilities": spec["process"]["capabilities"]["bounding"],
        "Dns": record.network.dns,
        "ExtraHosts": record.network.add_host,
        "CgroupParent": record.cgroup_parent,
        "Memory": number(&resources["memory"]["limit"]),
        "MemorySwap": number(&resources["memory"]["swap"]),
        "MemoryReservation": number(&resources["memory"]["reservation"]),
        "NanoCpus": nano_cpus,
        "CpuShares": number(&resources["cpu"]["shares"]),
        "CpusetCpus": resources["cpu"]["cpus"].as_str().unwrap_or_default(),
        "PidsLimit": resources["pids"]["limit"],
        "Sysctls": spec["linux"]["sysctl"],
        "LogConfig": {
            "Type": "json-file",
            "Config": {
                "max-size": record.log.max_size.to_string(),
                "max-file": record.log.max_files.to_string(),
            },
        },
    })
}

fn network_settings(container: &Container, attached: Option<&Attached>) -> Value {
    let mode = container.record.network.mode.name();
    let Some(attached) = attached else {
        return json!({ "Networks": { mode: {} }, "Ports": {}, "IPAddress": "", "Gateway": "" });
    };
    let first = |is_ipv4: bool| {
        attached
            .addresses
            .iter()
            .find(|own| own.address.is_ipv4() == is_ipv4)
    };
    let text = |value: Option<String>| value.unwrap_or_default();
    let address = text(first(true).map(|own| own.address.to_string()));
    let gateway = attached.gateways.iter().find(|gateway| gateway.is_ipv4());
    let network = json!({
        "IPAddress": address,
        "Gateway": gateway,
        "GlobalIPv6Address": text(first(false).map(|own| own.address.to_string())),
        "MacAddress": attached.mac,
        "Addresses": attached.addresses,
        "Interface": attached.interface,
        "Bridge": attached.bridge,
    });
    json!({
        "IPAddress": address,
        "Gateway": gateway,
        "MacAddress": attached.mac,
        "Bridge": attached.bridge,
        "Ports": bindings(&attached.ports),
        "Networks": { attached.network.clone(): network },
    })
}

/// Docker's map from `80/tcp` to where that is published.
fn bindings(ports: &[Port]) -> Value {
    let mut map: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in ports {
        let binding = json!({
            "HostIp": port.host_ip.map_or("0.0.0.0".into(), |ip| ip.to_string()),
            "HostPort": port.host_port.to_string(),
        });
        map.entry(inner(port)).or_default().push(binding);
    }
    map.into_iter()
        .map(|(key, value)| (key, json!(value)))
        .collect::<Map<_, _>>()
        .into()
}

fn inner(port: &Port) -> String {
    format!("{}/{}", port.container_port, port.protocol)
}

fn outer(port: &Port) -> String {
    match port.host_ip {
        None => format!("0.0.0.0:{}", port.host_port),
        Some(std::net::IpAddr::V6(ip)) => format!("[{ip}]:{}", port.host_port),
        Some(ip) => format!("{ip}:{}", port.host_port),
    }
}

/// What `list` shows of the published ports.
pub(crate) fn published(container: &Container) -> String {
    let attached = attachment(container).ok().flatten();
    attached
        .map(|attached| ports_shown(&attached.ports))
        .unwrap_or_default()
}

fn ports_shown(ports: &[Port]) -> String {
    let shown: Vec<String> = ports
        .iter()
        .map(|port| format!("{}->{}", outer(port), inner(port)))
        .collect();
    shown.join(", ")
}

/// The published ports of a running container; with the ones that were free chosen.
pub(crate) fn ports(container: &Container) -> Result<Vec<Port>> {
    settle(container)?;
    Ok(attachment(container)?
        .map(|attached| attached.ports)
        .unwrap_or_default())
}

/// `port`: a line for each, or those of one port of the container (`80`, `80/udp`).
pub(crate) fn port_lines(ports: &[Port], wanted: Option<&str>) -> Option<String> {
    let Some(wanted) = wanted else {
        let lines = ports
            .iter()
            .map(|port| format!("{} -> {}\n", inner(port), outer(port)));
        return Some(lines.collect());
    };
    let wanted = match wanted.contains('/') {
        true => wanted.to_owned(),
        false => format!("{wanted}/tcp"),
    };
    let found = ports.iter().filter(|port| inner(port) == wanted);
    let lines: String = found.map(|port| format!("{}\n", outer(port))).collect();
    (!lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shown_as_docker_does() {
        let ports = [
            Port::parse("8080:80").unwrap(),
            Port::parse("127.0.0.1:53:53/udp").unwrap(),
            Port::parse("[::1]:81:80").unwrap(),
        ]
        .concat();
        assert_eq!(
            ports_shown(&ports),
            "0.0.0.0:8080->80/tcp, 127.0.0.1:53->53/udp, [::1]:81->80/tcp"
        );
        assert_eq!(
            port_lines(&ports, Some("80")).unwrap(),
            "0.0.0.0:8080\n[::1]:81\n"
        );
        assert_eq!(port_lines(&ports, Some("53")), None);
        assert_eq!(bindings(&ports)["53/udp"][0]["HostPort"], "53");
    }
}
