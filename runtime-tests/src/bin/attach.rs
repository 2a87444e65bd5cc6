//! What the monitor of a container does with the network, as a program: `attach DIR COMMAND …`.
//!
//! - `attach ID NETNS [-p PORT] [--ip IP] [--ip6 IP]`: reserves, attaches, prints the attachment as JSON, and serves as a proxy until its
//!   standard input ends. It does not detach.
//! - `detach ID`, `reload`, `list`

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use network::{Attach, Networks, Port, Proxy, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let (directory, command, rest) = match args {
        [directory, command, rest @ ..] => (directory, command.as_str(), rest),
        _ => panic!("a directory and a command are wanted"),
    };
    let networks = Networks::open(Path::new(directory))?;
    match (command, rest) {
        ("attach", [id, netns, options @ ..]) => attach(&networks, id, Path::new(netns), options),
        ("detach", [id]) => networks.detach(id),
        ("reload", []) => networks.reload(),
        ("list", []) => {
            print(&networks.list()?);
            Ok(())
        }
        _ => panic!("unknown command {command}"),
    }
}

fn attach(networks: &Networks, id: &str, netns: &Path, options: &[String]) -> Result<()> {
    let given = |name: &'static str| {
        let pairs = options.chunks_exact(2);
        pairs
            .filter(move |pair| pair[0] == name)
            .map(|pair| pair[1].as_str())
    };
    let mut ports = Vec::new();
    for text in given("-p") {
        ports.extend(Port::parse(text)?);
    }
    let reservation = networks.reserve(&ports)?;
    let attached = networks.attach(&Attach {
        id,
        netns,
        ports: reservation.ports(),
        ip: given("--ip")
            .next()
            .map(|ip| ip.parse().expect("an IPv4 address")),
        ip6: given("--ip6")
            .next()
            .map(|ip| ip.parse().expect("an IPv6 address")),
        mac: given("--mac-address").next().map(str::parse).transpose()?,
    })?;
    let mut proxy = Proxy::new(&reservation, &attached)?;
    print(&attached);
    let input = io::stdin();
    loop {
        let mut fds = vec![PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            proxy
                .as_ref()
                .map(|proxy| PollFd::new(proxy.as_fd(), PollFlags::POLLIN)),
        );
        poll(&mut fds, PollTimeout::NONE).expect("poll");
        if fds[0].any() == Some(true) {
            return Ok(());
        }
        drop(fds);
        if let Some(proxy) = &mut proxy {
            proxy.handle()?;
        }
    }
}

fn print(value: &impl serde::Serialize) {
    let mut text = serde_json::to_string(value).expect("it is JSON");
    text.push('\n');
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
}
