//! What the monitor of a container does with the network, as a program: `attach DIR COMMAND …`.
//!
//! - `attach ID NETNS [-p PORT] [--ip IP] [--ip6 IP]`: reserves, attaches, prints the attachment as JSON, and serves as a proxy until its
//!   standard input ends. It does not detach.
//! - `attach-cni NAME ID NETNS [-p PORT]` and `attach-pasta ID NETNS USERNS [-p PORT]` do the same with other networks.
//! - `detach ID`, `check ID`
//! - `serve NAME PORT…`: answers on TCP and UDP with its name and the client's address
//! - `ask tcp|udp ADDRESS`: prints what is answered

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use network::{Attach, Attached, Networks, Port, Proxy, Reservation, Result};
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
    match (command, rest) {
        ("serve", [name, ports @ ..]) => serve(name, ports),
        ("ask", [protocol, address]) => ask(protocol, address.parse().expect("an address")),
        _ => return with_networks(&mut Networks::open(Path::new(directory))?, command, rest),
    }
    Ok(())
}

fn with_networks(networks: &mut Networks, command: &str, rest: &[String]) -> Result<()> {
    match (command, rest) {
        ("attach", [id, netns, options @ ..]) => {
            let reservation = networks.reserve(&ports(options)?)?;
            let attached = networks.attach(&request(id, netns, options, reservation.ports())?)?;
            hold(&reservation, &attached)
        }
        ("attach-cni", [name, id, netns, options @ ..]) => {
            let reservation = networks.reserve(&ports(options)?)?;
            let request = request(id, netns, options, reservation.ports())?;
            let attached = networks.attach_cni(name, &request)?;
            hold(&reservation, &attached)
        }
        ("attach-pasta", [id, netns, userns, options @ ..]) => {
            let chosen = networks.reserve(&ports(options)?)?.ports().to_vec();
            let request = request(id, netns, options, &chosen)?;
            let attached = networks.attach_pasta(&request, Some(Path::new(userns)))?;
            hold(&networks.reserve(&[])?, &attached)
        }
        ("detach", [id]) => networks.detach(id),
        ("check", [id]) => networks.check_cni(id),
        _ => panic!("unknown command {command}"),
    }
}

fn given<'a>(options: &'a [String], name: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = options.chunks_exact(2).filter(move |pair| pair[0] == name);
    pairs.map(|pair| pair[1].as_str())
}

fn ports(options: &[String]) -> Result<Vec<Port>> {
    let ports: Result<Vec<_>> = given(options, "-p").map(Port::parse).collect();
    Ok(ports?.concat())
}

fn request<'a>(
    id: &'a str,
    netns: &'a str,
    options: &[String],
    ports: &'a [Port],
) -> Result<Attach<'a>> {
    let ip = given(options, "--ip").next();
    let ip6 = given(options, "--ip6").next();
    Ok(Attach {
        id,
        netns: Path::new(netns),
        ports,
        ip: ip.map(|ip| ip.parse().expect("an IPv4 address")),
        ip6: ip6.map(|ip| ip.parse().expect("an IPv6 address")),
        mac: given(options, "--mac-address")
            .next()
            .map(str::parse)
            .transpose()?,
    })
}

/// Says what has been attached, and is its proxy until nobody wants it any more.
fn hold(reservation: &Reservation, attached: &Attached) -> Result<()> {
    let mut proxy = Proxy::new(reservation, attached)?;
    print(attached);
    let input = io::stdin();
    loop {
        let mut fds = vec![PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        let watched = proxy.as_ref().map(AsFd::as_fd);
        fds.extend(watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
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

fn serve(name: &str, ports: &[String]) {
    for port in ports {
        let address = format!("[::]:{port}");
        let (tcp, udp) = (TcpListener::bind(&address), UdpSocket::bind(&address));
        let (tcp, udp) = (
            tcp.expect("the port is free"),
            udp.expect("the port is free"),
        );
        let by = name.to_owned();
        std::thread::spawn(move || {
            for mut client in tcp.incoming().flatten() {
                let by = by.clone();
                // What the client says comes back behind the greeting, once it has said all.
                std::thread::spawn(move || {
                    let peer = client.peer_addr()?.ip().to_canonical();
                    let mut said = Vec::new();
                    client.read_to_end(&mut said)?;
                    writeln!(client, "{by} {peer}")?;
                    client.write_all(&said)
                });
            }
        });
        let by = name.to_owned();
        std::thread::spawn(move || {
            let mut buffer = [0; 2000];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let text = format!("{by} {}\n", peer.ip().to_canonical());
                let _ = udp.send_to(text.as_bytes(), peer);
            }
        });
    }
    println!("ready");
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

/// Standard input goes there, the answer to standard output; a failure is an answer too.
fn ask(protocol: &str, address: SocketAddr) {
    let patience = Duration::from_secs(1);
    let tcp = || {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(20 * patience))?;
        let mut answer = Vec::new();
        std::thread::scope(|scope| {
            let mut writer = stream.try_clone()?;
            scope.spawn(move || {
                let _ = io::copy(&mut io::stdin(), &mut writer);
                let _ = writer.shutdown(std::net::Shutdown::Write);
            });
            stream.read_to_end(&mut answer)
        })?;
        Ok::<_, io::Error>(answer)
    };
    let udp = || {
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(patience))?;
        socket.connect(address)?;
        socket.send(b"hello")?;
        let mut buffer = [0; 2000];
        let length = socket.recv(&mut buffer)?;
        Ok(buffer[..length].to_vec())
    };
    let answer = if protocol == "udp" { udp() } else { tcp() };
    let answer = answer.unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => b"refused\n".to_vec(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => b"nothing\n".to_vec(),
        _ => format!("{error}\n").into_bytes(),
    });
    let _ = io::stdout().write_all(&answer);
}

fn print(value: &impl serde::Serialize) {
    let mut text = serde_json::to_string(value).expect("it is JSON");
    text.push('\n');
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
}
