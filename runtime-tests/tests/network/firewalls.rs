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

/// Real ones, from Debian's packages: the port stays reachable when they are loaded anew.
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
    let _web = publish(&machine);
    let ask = || machine.neighbour.ask("tcp", "192.0.2.1:8080");
    assert_eq!(ask(), "web 192.0.2.2");
    firewall.say("firewall-cmd --reload");
    assert_eq!(firewall.next_line(), "success\n");
    if ask() != "web 192.0.2.2" {
        machine.coracle(&["network", "reload"]).ok();
        assert_eq!(ask(), "web 192.0.2.2");
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
