//! Networks without privileges: pasta(1) of the project passt moves packets between a container's namespace and ordinary sockets.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Context, Error, Kind, Result};
use crate::execute::{PATIENCE, run};
use crate::ports::{Port, Protocol};

/// What pasta connects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Namespaces<'a> {
    pub(crate) netns: &'a Path,
    /// The user namespace that owns it, where that is not the caller's own.
    pub(crate) userns: Option<&'a Path>,
    pub(crate) interface: &'a str,
}

/// Starts pasta in the background. It returns once the interface in the namespace is configured and the ports are bound, with its pid in a
/// file.
pub(crate) fn start(namespaces: Namespaces<'_>, ports: &[Port], pid_file: &Path) -> Result<()> {
    let mut command = Command::new("pasta");
    command.args(arguments(namespaces, ports, pid_file)?);
    let output = match run(&mut command, &[], PATIENCE) {
        Err(error) if error.kind() == Kind::NotFound => {
            return Err(Error::failed(
                "the program pasta is missing: the network of an ordinary user needs the package passt",
            ));
        }
        output => output.context(|| "execute pasta")?,
    };
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    // It also says that it has no system logger to say it to.
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains("syslog"));
    let why = lines.collect::<Vec<_>>().join("; ");
    let hint = match why.contains("tun") {
        true => ": root can make it by \"modprobe tun\"",
        false => "",
    };
    Err(Error::failed(format!(
        "execute pasta: {why} ({}){hint}",
        output.status
    )))
}

/// Ends the pasta that has written this file; one that has ended already is as good.
pub(crate) fn stop(pid_file: &Path) -> Result<()> {
    let text = match fs::read_to_string(pid_file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(|| format!("read {}", pid_file.display())),
    };
    if let Ok(pid) = text.trim().parse::<i32>()
        && writes(pid, pid_file)
    {
        // It has nothing to tidy up.
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context(|| format!("end pasta (process {pid})")),
        }
    }
    fs::remove_file(pid_file).context(|| format!("remove {}", pid_file.display()))
}

/// The process was started with this file as an argument, so it is no other that has got its number.
fn writes(pid: i32, pid_file: &Path) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments
        .split(|byte| *byte == 0)
        .any(|argument| Some(argument) == pid_file.to_str().map(str::as_bytes))
}

fn arguments(namespaces: Namespaces<'_>, ports: &[Port], pid_file: &Path) -> Result<Vec<String>> {
    let path = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Error::invalid(format!("the path {} is not valid UTF-8", path.display()))
        })
    };
    let mut arguments: Vec<String> = [
        "--config-net",
        "--no-map-gw",
        "--quiet",
        "-T",
        "none",
        "-U",
        "none",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.extend([
        "-I".into(),
        namespaces.interface.into(),
        "-P".into(),
        path(pid_file)?,
    ]);
    for (flag, protocol) in [("-t", Protocol::Tcp), ("-u", Protocol::Udp)] {
        let own: Vec<_> = ports
            .iter()
            .filter(|port| port.protocol == protocol)
            .collect();
        if own.is_empty() {
            arguments.extend([flag.into(), "none".into()]);
        }
        for port in own {
            arguments.extend([flag.into(), specification(port)]);
        }
    }
    if let Some(port) = ports.iter().find(|port| port.protocol == Protocol::Sctp) {
        let message = format!("publish port {}: pasta does not know sctp", port.host());
        return Err(Error::invalid(message));
    }
    if let Some(userns) = namespaces.userns {
        arguments.extend(["--userns".into(), path(userns)?]);
    }
    arguments.extend(["--netns".into(), path(namespaces.netns)?]);
    Ok(arguments)
}

/// A port in pasta's words.
fn specification(port: &Port) -> String {
    let ports = format!("{}:{}", port.host_port, port.container_port);
    match port.host_ip {
        None => ports,
        Some(ip) => format!("{ip}/{ports}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_pastas_words() {
        let words = |text: &str| {
            let ports = Port::parse(text).unwrap();
            let path = Path::new("/x");
            let namespaces = Namespaces {
                netns: path,
                userns: Some(path),
                interface: "eth0",
            };
            arguments(namespaces, &ports, path).map(|arguments| arguments.join(" "))
        };
        let tcp = words("127.0.0.1:8080-8081:80-81").unwrap();
        assert!(
            tcp.contains("-t 127.0.0.1/8080:80 -t 127.0.0.1/8081:81 -u none"),
            "{tcp}"
        );
        let udp = words("[::1]:53:53/udp").unwrap();
        assert!(udp.contains("-t none -u ::1/53:53"), "{udp}");
        let error = words("5:5/sctp").unwrap_err().to_string();
        assert_eq!(error, "publish port 5/sctp: pasta does not know sctp");
    }

    #[test]
    fn who_did_not_write_the_file_is_not_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        fs::write(&file, std::process::id().to_string()).unwrap();
        stop(&file).unwrap();
        assert!(!file.exists());
        stop(&file).unwrap();
    }
}
