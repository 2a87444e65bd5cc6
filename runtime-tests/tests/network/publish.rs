//! Published ports, from everywhere.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::process::Stdio;

use network::{Networks, Port};
use runtime_tests::{kernel_has, kernel_since, requires, within};

use crate::machine::{Machine, Namespace, Running};

#[test]
fn a_published_port_is_reached_from_everywhere() {
    let machine = Machine::new();
    let (web, other) = (Namespace::new(), Namespace::new());
    let ports = ["-p", "8080:80", "-p", "5353:80/udp"];
    let attached = machine.attach("web", &web, &ports).json();
    let held = machine.attach("other", &other, &[]);
    machine.detach("web");
    let _web = machine.attach("web", &web, &ports);
    let _server = web.serve("web", &["80", "81"]);
    assert_eq!(held.json()["addresses"][0], "10.89.0.3/24");
    assert_eq!(attached["gateways"][0], "10.89.0.1");
    let subnet6 = attached["gateways"][1].as_str().unwrap();

    // A client keeps its address (CVE-2021-20199); proved with everything that enters the bridge masqueraded.
    for (port, protocol) in [("8080", "tcp"), ("5353", "udp")] {
        let ask = |from: &Namespace, ip: &str| from.ask(protocol, &format!("{ip}:{port}"));
        assert_eq!(ask(&machine.neighbour, "192.0.2.1"), "web 192.0.2.2");
        assert_eq!(ask(&machine.neighbour, "[2001:db8::1]"), "web 2001:db8::2");
        assert_eq!(ask(&machine.host, "192.0.2.1"), "web 192.0.2.1");
        // Which the kernel cannot lead on, or only in disguise.
        assert_eq!(ask(&machine.host, "127.0.0.1"), "web 10.89.0.1");
        assert_eq!(ask(&machine.host, "[::1]"), format!("web {subnet6}"));
        // The container itself, and its neighbour.
        assert_eq!(ask(&web, "192.0.2.1"), "web 10.89.0.1");
        assert_eq!(ask(&web, "[2001:db8::1]"), format!("web {subnet6}"));
        assert_eq!(ask(&other, "192.0.2.1"), "web 10.89.0.1");
    }
    // What is not published is not there, not even by the container's address.
    assert_eq!(machine.neighbour.ask("tcp", "192.0.2.1:81"), "refused");
    assert_eq!(machine.neighbour.ask("tcp", "192.0.2.1:80"), "refused");
    assert_eq!(machine.neighbour.ask("tcp", "10.89.0.4:80"), "nothing");
    // The way out is by the machine's address; the way to each other is short.
    let _outside = machine.neighbour.serve("outside", &["90"]);
    assert_eq!(web.ask("tcp", "192.0.2.2:90"), "outside 192.0.2.1");
    assert_eq!(web.ask("tcp", "[2001:db8::2]:90"), "outside 2001:db8::1");
    assert_eq!(other.ask("tcp", "10.89.0.4:81"), "web 10.89.0.3");
}

#[test]
fn a_host_address_limits_who_reaches_a_port() {
    let machine = Machine::new();
    let (one, two) = (Namespace::new(), Namespace::new());
    let _one = machine.attach(
        "one",
        &one,
        &["-p", "192.0.2.1:8080:80", "-p", "127.0.0.1:7070:80"],
    );
    // One port each on two addresses.
    let _two = machine.attach(
        "two",
        &two,
        &["-p", "192.0.2.9:8080:80", "-p", "[::1]:7070:80"],
    );
    let _servers = [one.serve("one", &["80"]), two.serve("two", &["80"])];
    let outside = |address| machine.neighbour.ask("tcp", address);
    assert_eq!(outside("192.0.2.1:8080"), "one 192.0.2.2");
    assert_eq!(outside("192.0.2.9:8080"), "two 192.0.2.2");
    assert_eq!(outside("192.0.2.1:7070"), "refused");
    assert_eq!(outside("[2001:db8::1]:8080"), "refused");
    assert_eq!(machine.host.ask("tcp", "127.0.0.1:7070"), "one 10.89.0.1");
    assert!(machine.host.ask("tcp", "[::1]:7070").starts_with("two fd"));
}

/// CVE-2020-8558: proved each time, by the last lines.
#[test]
fn the_machines_loopback_stays_its_own() {
    requires!(
        kernel_since(5, 16),
        "nftables has egress hooks since Linux 5.16"
    );
    let machine = Machine::new();
    let web = Namespace::new();
    let _web = machine.attach("web", &web, &["-p", "127.0.0.1:7070:80"]);
    let _secret = machine.host.serve("secret", &["6379"]);
    // route_localnet is on for the bridge: only the guard stands between (CVE-2020-8558). What is sent to 198.51.100.1 goes out to 127.0.0.1.
    web.sh("nft add table netdev lie
         nft 'add chain netdev lie out { type filter hook egress device eth0 priority 0; }'
         nft add rule netdev lie out ip daddr 198.51.100.1 ip daddr set 127.0.0.1
         nft 'add chain netdev lie in { type filter hook ingress device eth0 priority 0; }'
         nft add rule netdev lie in ip saddr 127.0.0.1 ip saddr set 198.51.100.1");
    assert_eq!(web.ask("udp", "198.51.100.1:6379"), "nothing");
    assert_eq!(web.ask("tcp", "198.51.100.1:6379"), "nothing");
    machine.host.sh("nft flush chain inet coracle guard");
    // Without the guard it is open, so that is what was tested.
    assert_eq!(web.ask("tcp", "198.51.100.1:6379"), "secret 10.89.0.2");
}

#[test]
fn a_clash_is_an_error_before_anything_starts() {
    let machine = Machine::new();
    let (web, late) = (Namespace::new(), Namespace::new());
    let _web = machine.attach("web", &web, &["-p", "8080:80", "-p", "9000:90/udp"]);
    let _service = machine.host.serve("service", &["6666"]);
    let before = machine.host.sh("nft list ruleset; ip -o link show");
    for (port, why) in [
        ("8080:81", "publish port 8080/tcp: web has it already"),
        (
            "127.0.0.1:8080:81",
            "publish port 127.0.0.1:8080/tcp: web has it already",
        ),
        ("9000:81/udp", "publish port 9000/udp: web has it already"),
        (
            "6666:81",
            "publish port 6666/tcp: it is in use on this machine already",
        ),
        (
            "6666:81/udp",
            "publish port 6666/udp: it is in use on this machine already",
        ),
        (
            "192.0.2.3:80:80",
            "publish port 192.0.2.3:80/tcp: 192.0.2.3 is no address of this machine",
        ),
    ] {
        let output = machine.run(&["attach", "late", &late.path(), "-p", "7000:80", "-p", port]);
        assert_eq!(output.stderr.trim_end(), why);
    }
    for (address, why) in [
        ("10.89.0.2", "address 10.89.0.2 belongs to web already"),
        (
            "10.89.0.1",
            "network, gateway and broadcast of 10.89.0.0/24 are taken",
        ),
        (
            "10.88.0.9",
            "invalid address 10.88.0.9: the network is 10.89.0.0/24",
        ),
    ] {
        let output = machine.run(&["attach", "late", &late.path(), "--ip", address]);
        assert!(output.stderr.contains(why), "{output:?}");
    }
    let output = machine.run(&["attach", "web", &late.path()]);
    assert!(
        output
            .stderr
            .contains("web is attached to the network bridge already"),
        "{output:?}"
    );
    let output = machine.run(&["attach", "late", &machine.host.path()]);
    assert!(
        output.stderr.contains("it is the machine's own"),
        "{output:?}"
    );
    assert_eq!(machine.host.sh("nft list ruleset; ip -o link show"), before);
    // The port is held against others who come later, too.
    if runtime_tests::has_program("socat") {
        let late = "timeout 5 socat TCP-LISTEN:8080,reuseaddr /dev/null 2>&1 || true";
        let said = machine.host.sh(late);
        assert!(said.contains("Address already in use"), "{said}");
    }
}

#[test]
fn any_free_port_is_chosen_and_ranges_are_kept() {
    let machine = Machine::new();
    let web = Namespace::new();
    let options = [
        "-p",
        "80",
        "-p",
        "8000-8002:80-82",
        "-p",
        "127.0.0.1::80/udp",
    ];
    let attached = machine.attach("web", &web, &options);
    let ports = attached.json()["ports"].clone();
    let host_ports: Vec<_> = (0..5)
        .map(|at| ports[at]["hostPort"].as_u64().unwrap())
        .collect();
    assert_eq!(host_ports[1..4], [8000, 8001, 8002]);
    assert!(host_ports[0] > 1023 && host_ports[4] > 1023);
    let _server = web.serve("web", &["80", "82"]);
    let chosen = format!("192.0.2.1:{}", host_ports[0]);
    assert_eq!(machine.neighbour.ask("tcp", &chosen), "web 192.0.2.2");
    assert_eq!(
        machine.neighbour.ask("tcp", "192.0.2.1:8002"),
        "web 192.0.2.2"
    );
}

#[test]
fn addresses_that_are_asked_for() {
    let machine = Machine::new();
    let web = Namespace::new();
    let options = ["--ip", "10.89.0.77", "--mac-address", "02:00:00:00:00:77"];
    let attached = machine.attach("web", &web, &options).json();
    assert_eq!(attached["addresses"][0], "10.89.0.77/24");
    let shown = web.sh(
        "ip -o address show eth0; ip -o link show eth0; cat /proc/sys/net/ipv6/conf/eth0/accept_ra",
    );
    assert!(
        shown.contains("10.89.0.77/24") && shown.contains("02:00:00:00:00:77"),
        "{shown}"
    );
    assert!(shown.ends_with("\n0\n"), "{shown}");
    assert!(web.sh("ip -o link show lo").contains("LOOPBACK,UP"));
}

#[test]
fn another_network_is_chosen_where_the_first_is_in_use() {
    let machine = Machine::new();
    machine
        .host
        .sh("ip route add 10.89.0.128/25 dev uplink; ip route add 10.89.1.0/24 via 192.0.2.2");
    let web = Namespace::new();
    let attached = machine.attach("web", &web, &[]).json();
    assert_eq!(attached["addresses"][0], "10.89.2.2/24");
}

#[test]
fn much_goes_through_the_proxy_in_both_directions() {
    let machine = Machine::new();
    let web = Namespace::new();
    let _web = machine.attach("web", &web, &["-p", "8080:80"]);
    let _server = web.serve("web", &["80"]);
    // The server answers when the client has ended its half, and the client reads only after it has written.
    let said: Vec<u8> = (0..20_000_000u32).map(|at| (at * 7 % 251) as u8).collect();
    let mut client = machine.command(&["ask", "tcp", "[::1]:8080"]);
    let mut client = client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    let writer = {
        let said = said.clone();
        std::thread::spawn(move || input.write_all(&said))
    };
    let answer = client.wait_with_output().unwrap().stdout;
    writer.join().unwrap().unwrap();
    let greeting = answer.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert!(
        answer[greeting..] == said,
        "{} bytes came back",
        answer.len() - greeting
    );
}

/// Nobody is led where no link is: that would cost the client's first packet, and the second that it waits before it sends the next.
#[test]
fn a_port_is_published_when_there_is_a_link() {
    let release = runtime_tests::shell("uname -r");
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next(), numbers.next());
    requires!(
        version >= (Some(6), Some(9)),
        "before Linux 6.9 nobody can wait for a link"
    );
    for _ in 0..3 {
        let machine = Machine::new();
        let web = Namespace::new();
        let _server = web.serve("web", &["80"]);
        let mut client = machine.neighbour.command("bash");
        let knock = "until exec 3<>/dev/tcp/192.0.2.1/8080; do :; done 2>/dev/null";
        let script = format!("echo ready; {knock}; echo answered; exec sleep infinity");
        client.args(["-c", &script]);
        let mut client = Running::start(client);
        let _web = machine.attach("web", &web, &["-p", "8080:80"]);
        assert_eq!(client.next_line(), "answered\n");
        assert_eq!(sent_again(&machine.neighbour), "0");
    }
}

/// How many clients in a network have asked for a connection a second time, as nothing came back.
fn sent_again(network: &Namespace) -> String {
    let text = network.sh("grep ^TcpExt: /proc/net/netstat");
    let mut lines = text.lines().map(|line| line.split_whitespace());
    let mut counters = lines.next().unwrap().zip(lines.next().unwrap());
    let found = counters.find(|(name, _)| *name == "TCPSynRetrans");
    found.unwrap().1.to_owned()
}

/// What takes a port has to listen for a moment: nobody is let in there, and nobody's packet is lost. Proved without the link that there is
/// not.
#[test]
fn a_port_that_is_taken_refuses_at_every_moment() {
    let machine = Machine::new();
    let networks = Networks::open(&machine.store().join("network")).unwrap();
    let ports = Port::parse("127.0.0.1:8080:80").unwrap();
    // What is given back may be held for a moment longer: by a child of another test that has not executed its program yet.
    let take = || {
        (0..2000)
            .filter(|_| networks.reserve(&ports).is_ok())
            .count()
    };
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| within(&machine.host.path(), take));
        within(&machine.host.path(), || {
            while !taker.is_finished() {
                let refused = TcpStream::connect("127.0.0.1:8080").unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            }
        });
        let times = taker.join().unwrap();
        assert!(times > 1000, "{times}");
    });
    assert_eq!(sent_again(&machine.host), "0");
}

/// There is no timer: whoever was silent for longest makes room. Proved without the removal of the one in `Flows::add`.
#[test]
fn the_proxy_has_so_many_clients_and_no_more() {
    let machine = Machine::new();
    let web = Namespace::new();
    let held = machine.attach("web", &web, &["-p", "5353:53/udp"]);
    let _server = web.serve("web", &["53"]);
    let before = held.descriptors();
    for _ in 0..150 {
        let said = machine.host.ask("udp", "[::1]:5353");
        assert!(said.starts_with("web "), "{said}");
    }
    assert_eq!(held.descriptors() - before, 128);
}

/// Proved where the kernel does not, without the sentence for `EPROTONOSUPPORT`.
#[test]
fn sctp_takes_a_kernel_that_knows_it() {
    let machine = Machine::new();
    let web = Namespace::new();
    let output = machine.run(&["attach", "web", &web.path(), "-p", "9000:90/sctp"]);
    // It may have been a module until now.
    if kernel_has("/proc/net/sctp") {
        output.ok();
        assert!(machine.host.sh("nft list ruleset").contains("sctp . 9000"));
        return machine.detach("web");
    }
    assert!(
        output
            .stderr
            .contains("publish port 9000/sctp: this kernel does not know the protocol"),
        "{output:?}"
    );
    machine.assert_clean();
}
