//! Beside other firewalls.

use std::fs;
use std::process::Stdio;

use runtime_tests::{has_program, is_coracle, requires};

use crate::machine::{Machine, Namespace, Running, finish};

/// A container `web` with a server that the machine's port 8080 leads to, for as long as this is kept.
fn publish(machine: &Machine) -> (Namespace, [Running; 2]) {
    let web = Namespace::new();
    let attached = machine.attach("web", &web, &["-p", "8080:80"]);
    let server = web.serve("web", &["80"]);
    (web, [attached, server])
}

/// Only what was published for everybody can be reached: neither a port for the machine's loopback alone, nor the container's own address.
#[track_caller]
fn assert_guarded(machine: &Machine) {
    for (address, answer) in [
        ("192.0.2.1:8080", "web 192.0.2.2"),
        ("192.0.2.1:7070", "refused"),
        ("10.89.0.2:80", "nothing"),
    ] {
        assert_eq!(machine.neighbour.ask("tcp", address), answer, "{address}");
    }
}

/// CVE-2025-54388, CVE-2025-54410: what a firewall is loaded anew for must not open what was closed before. Proved with a `network reload` that
/// leaves out the chain `guard` and the drop at the end of `forward`.
#[test]
fn a_firewall_that_is_loaded_anew_opens_nothing() {
    requires!(is_coracle(), "the command network is Coracle's");
    let machine = Machine::new();
    let web = Namespace::new();
    let ports = ["-p", "8080:80", "-p", "127.0.0.1:7070:80"];
    let _web = machine.attach("web", &web, &ports);
    let _server = web.serve("web", &["80"]);
    assert_guarded(&machine);
    machine.host.sh("nft flush ruleset");
    let output = machine.coracle(&["network", "reload"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_guarded(&machine);
    machine.detach("web");
}

/// Proved with a `network reload` that does nothing, and with one that plugs no container into the bridge again.
#[test]
fn a_flushed_firewall_is_put_back() {
    requires!(is_coracle(), "the command network is Coracle's");
    let machine = Machine::new();
    let _web = publish(&machine);
    let rules = machine.host.sh("nft list ruleset");
    machine.host.sh("nft flush ruleset");
    assert_eq!(machine.neighbour.ask("tcp", "192.0.2.1:8080"), "refused");
    let reload = || {
        let output = machine.coracle(&["network", "reload"]);
        assert!(output.code == 0, "{output:?}");
    };
    reload();
    reload();
    assert_eq!(machine.host.sh("nft list ruleset"), rules);
    assert_eq!(
        machine.neighbour.ask("tcp", "192.0.2.1:8080"),
        "web 192.0.2.2"
    );
    // And the bridge, when somebody has deleted that.
    machine.host.sh("ip link delete cor0");
    reload();
    assert_eq!(
        machine.neighbour.ask("tcp", "192.0.2.1:8080"),
        "web 192.0.2.2"
    );
    let shown = machine.coracle(&["network", "ls"]).stdout;
    assert!(
        shown.contains("bridge") && shown.contains("cor0") && shown.contains("10.89.0.0/24"),
        "{shown}"
    );
    let shown = machine.coracle(&["network", "inspect", "bridge"]).stdout;
    assert!(shown.contains("\"hostPort\": 8080"), "{shown}");
    let output = machine.coracle(&["network", "inspect", "nope"]);
    assert!(
        output.stderr.contains("no network has the name \"nope\""),
        "{output:?}"
    );
}

#[test]
fn a_forward_policy_of_drop_is_met_by_an_accept() {
    let machine = Machine::new();
    machine.host.sh("iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER; ip6tables -P FORWARD DROP");
    machine.host.sh("iptables -A FORWARD -s 192.0.2.66 -j DROP");
    let before = machine.host.sh("iptables -S; ip6tables -S");
    let _web = publish(&machine);
    assert_eq!(
        machine.neighbour.ask("tcp", "192.0.2.1:8080"),
        "web 192.0.2.2"
    );
    assert_eq!(
        machine.neighbour.ask("tcp", "[2001:db8::1]:8080"),
        "web 2001:db8::2"
    );
    assert_eq!(machine.neighbour.ask("tcp", "10.89.0.2:80"), "nothing");
    let rules = machine.host.sh("iptables -S FORWARD");
    for end in ["-i", "-o"] {
        let rule =
            format!("-A FORWARD {end} cor0 -m comment --comment \"coracle cor0\" -j ACCEPT\n");
        assert!(rules.contains(&rule), "{rules}");
    }
    // Once, however often.
    assert!(machine.coracle(&["network", "reload"]).code == 0);
    assert_eq!(machine.host.sh("iptables -S FORWARD"), rules);
    machine.detach("web");
    assert_eq!(machine.host.sh("iptables -S; ip6tables -S"), before);
}

/// Nobody writes into the old tables: the administrator is told how, until it has been done. Proved with
/// tables that are never looked at.
#[test]
fn a_drop_in_the_old_tables_is_told() {
    requires!(is_coracle(), "the command network is Coracle's");
    requires!(has_program("iptables-legacy"), "iptables is missing");
    let machine = Machine::new();
    let has_tables = "iptables-legacy -S && ip6tables-legacy -S || echo none";
    requires!(
        !machine.host.sh(has_tables).contains("none"),
        "the kernel has no old tables"
    );
    let _web = publish(&machine);
    let reload = || {
        let output = machine.coracle(&["network", "reload"]);
        assert_eq!(output.code, 0, "{output:?}");
        output.stderr
    };
    assert_eq!(reload(), "", "tables alone drop nothing");
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        machine.host.sh(&format!("{program} -P FORWARD DROP"));
        let told = reload();
        let warning = format!("the policy of FORWARD in {program} is DROP, so it drops what cor0");
        assert!(told.contains(&warning), "{told}");
        // As told, word for word.
        for remedy in told.split('`').filter(|part| part.starts_with(program)) {
            machine.host.sh(remedy);
        }
        assert_eq!(reload(), "");
    }
    for (address, answer) in [
        ("192.0.2.1:8080", "web 192.0.2.2"),
        ("[2001:db8::1]:8080", "web 2001:db8::2"),
    ] {
        assert_eq!(machine.neighbour.ask("tcp", address), answer);
    }
    machine.detach("web");
}

/// Proved without the accepts, as is the chain of Docker above and of ufw below.
#[test]
fn a_chain_of_firewalld_is_passed() {
    let machine = Machine::new();
    // What firewalld has at the end of its chain.
    machine.host.sh(
        "nft add table inet firewalld
         nft 'add chain inet firewalld filter_FORWARD { type filter hook forward priority filter + 10; policy accept; }'
         nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
    );
    let before = machine.host.sh("nft list ruleset");
    let _web = publish(&machine);
    assert_eq!(
        machine.neighbour.ask("tcp", "192.0.2.1:8080"),
        "web 192.0.2.2"
    );
    machine.detach("web");
    assert_eq!(machine.host.sh("nft list ruleset"), before);
}

#[test]
fn udp_flows_follow_a_mapping_that_changes() {
    let machine = Machine::new();
    let (one, two) = (Namespace::new(), Namespace::new());
    let _servers = [one.serve("one", &["53"]), two.serve("two", &["53"])];
    // The same client port all the time, as a resolver's may be.
    let ask = || {
        machine.neighbour.sh(
            "exec 2>/dev/null; echo x | timeout 2 socat -T 0.5 - UDP:192.0.2.1:5353,sourceport=40000,reuseaddr || true",
        )
    };
    requires!(has_program("socat"), "socat is missing");
    assert_eq!(ask(), "");
    let held = machine.attach("one", &one, &["-p", "5353:53/udp"]);
    assert_eq!(ask(), "one 192.0.2.2\n");
    machine.detach("one");
    drop(held);
    let _held = machine.attach("two", &two, &["-p", "5353:53/udp"]);
    assert_eq!(ask(), "two 192.0.2.2\n");
}

/// A connection to a container that is gone is nobody's: whoever gets the address or the port next is not taken for it.
/// Proved without `forget_address`.
#[test]
fn connections_end_with_their_container() {
    requires!(has_program("conntrack"), "conntrack is missing");
    let machine = Machine::new();
    let web = Namespace::new();
    let attached = machine.attach("web", &web, &["-p", "8080:80", "-p", "5353:80/udp"]);
    let other = Namespace::new();
    let _other = machine.attach("other", &other, &["-p", "8081:80"]);
    let servers = [web.serve("web", &["80"]), other.serve("other", &["80"])];
    for (protocol, port) in [("tcp", 8080), ("udp", 5353), ("tcp", 8081)] {
        for address in ["192.0.2.1", "[2001:db8::1]"] {
            let answer = machine
                .neighbour
                .ask(protocol, &format!("{address}:{port}"));
            assert!(
                answer.contains("2"),
                "{protocol} {address}:{port}: {answer}"
            );
        }
    }
    // One that the container has begun.
    assert_eq!(web.ask("tcp", "192.0.2.9:8081"), "other 10.89.0.1");
    let known = |of: &str| {
        let list = "for family in ipv4 ipv6; do conntrack -L -f $family 2> /dev/null; done";
        let known = machine.host.sh(list);
        known.lines().filter(|line| line.contains(of)).count()
    };
    let addresses = attached.json()["addresses"].clone();
    let addresses = addresses.as_array().expect("a list").iter().map(|address| {
        let (address, _) = address
            .as_str()
            .and_then(|text| text.split_once('/'))
            .expect("with a prefix");
        format!("={address} ")
    });
    let addresses: Vec<_> = addresses.collect();
    assert_eq!((known(&addresses[0]), known(&addresses[1])), (3, 2));
    drop(servers);
    machine.detach("web");
    drop(attached);
    assert_eq!((known(&addresses[0]), known(&addresses[1])), (0, 0));
    assert_eq!(known("dport=8081 "), 2, "those of others stay");
    machine.detach("other");
}

/// Real ones, from Debian's packages: the port stays reachable when they are loaded anew. Proved without the accept in firewalld's chain.
#[test]
fn beside_firewalld_a_port_stays_reachable() {
    requires!(
        has_program("firewalld") && has_program("dbus-daemon"),
        "firewalld or dbus is missing"
    );
    let machine = Machine::new();
    let dir = machine.store().join("firewall");
    fs::create_dir(&dir).unwrap();
    let dir = dir.display();
    // Its bus and its files are for this machine only.
    let script = format!(
        "mount -t tmpfs run /run; mkdir /run/dbus /run/firewalld; mount -t tmpfs log /var/log; mount -t tmpfs etc /etc/firewalld
         dbus-daemon --system --nopidfile --nofork --print-address=3 3> {dir}/address &
         while [ ! -s {dir}/address ]; do sleep 0.05; done
         firewalld --nofork --nopid > {dir}/log 2>&1 &
         while ! firewall-cmd --state; do sleep 0.2; done > /dev/null 2>&1
         echo ready; while read line; do eval \"$line\" 2>&1 | tail -1; done; kill %1 %2; wait"
    );
    let mut firewall = machine.host.command("unshare");
    let alone = [
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "bash",
        "-c",
        &script,
    ];
    firewall.args(alone).stderr(Stdio::null());
    let mut firewall = Running::start(firewall);
    assert_eq!(firewall.line, "ready\n");
    let (web, _running) = publish(&machine);
    let _outside = machine.neighbour.serve("outside", &["81"]);
    // What is sent on to a container has firewalld's leave already, what a container asks for has not.
    let answers = || {
        let inwards = machine.neighbour.ask("tcp", "192.0.2.1:8080");
        [inwards, web.ask("tcp", "192.0.2.2:81")]
    };
    let wanted = ["web 192.0.2.2", "outside 192.0.2.1"];
    assert_eq!(answers(), wanted);
    firewall.say("firewall-cmd --reload");
    assert_eq!(firewall.next_line(), "success\n");
    if answers() != wanted {
        machine.coracle(&["network", "reload"]).ok();
        assert_eq!(answers(), wanted);
    }
    machine.detach("web");
}

#[test]
fn beside_ufw_a_port_stays_reachable() {
    requires!(has_program("ufw"), "ufw is missing");
    let machine = Machine::new();
    // Its files are for this machine only.
    let ufw = |command: &str| {
        let script = format!(
            "mkdir -p {0}/etc; cp -a -n /etc/ufw/. {0}/etc; cp -n /etc/default/ufw {0}/default
             mount --bind {0}/etc /etc/ufw; mount --bind {0}/default /etc/default/ufw
             ufw --force {command}",
            machine.store().join("ufw").display()
        );
        let output = finish(
            machine
                .host
                .command("unshare")
                .args(["--mount", "sh", "-e", "-c", &script]),
        );
        assert_eq!(output.code, 0, "{output:?}");
    };
    ufw("enable");
    let _web = publish(&machine);
    let ask = || machine.neighbour.ask("tcp", "192.0.2.1:8080");
    assert_eq!(ask(), "web 192.0.2.2");
    ufw("reload");
    assert_eq!(ask(), "web 192.0.2.2");
    machine.detach("web");
}
