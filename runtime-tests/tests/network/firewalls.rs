//! Beside other firewalls.

use runtime_tests::is_coracle;

use crate::machine::{Machine, Namespace};

#[test]
fn a_flushed_firewall_is_put_back() {
    runtime_tests::requires!(is_coracle(), "the command network is Coracle's");
    let machine = Machine::new();
    let web = Namespace::new();
    let _web = machine.attach("web", &web, &["-p", "8080:80"]);
    let _server = web.serve("web", &["80"]);
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
    let web = Namespace::new();
    let _web = machine.attach("web", &web, &["-p", "8080:80"]);
    let _server = web.serve("web", &["80"]);
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
    let web = Namespace::new();
    let _web = machine.attach("web", &web, &["-p", "8080:80"]);
    let _server = web.serve("web", &["80"]);
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
    runtime_tests::requires!(runtime_tests::has_program("socat"), "socat is missing");
    assert_eq!(ask(), "");
    let held = machine.attach("one", &one, &["-p", "5353:53/udp"]);
    assert_eq!(ask(), "one 192.0.2.2\n");
    machine.detach("one");
    drop(held);
    let _held = machine.attach("two", &two, &["-p", "5353:53/udp"]);
    assert_eq!(ask(), "two 192.0.2.2\n");
}
