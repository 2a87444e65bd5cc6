//! Three hosts that share nothing but a switch and a registry: the one file on each, the same image, and a rolling update under load.

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use runtime_tests::{
    Host, Registry, by_systemd, cable, eventually, get, has_program, requires, rootless, within,
};
use serde_json::Value;

use crate::application::{self, PORT, page};

/// The switch's own address, where the registry is.
const SWITCH: &str = "192.0.2.254";

/// Requests that have to be answered in each phase of the update.
const REQUESTS: usize = 20;

struct Fleet {
    hosts: Vec<(Host, String)>,
    registry: Registry,
    switch: Host,
}

impl Fleet {
    fn new() -> Self {
        let switch = Host::new();
        switch.sh(&format!(
            "ip link add bridge type bridge; ip address add {SWITCH}/24 dev bridge; ip link set bridge up"
        ));
        let hosts = (1..=3).map(|number| {
            let (host, port) = (Host::new(), format!("port{number}"));
            cable((&switch.network(), &port), (&host.network(), "uplink"));
            switch.sh(&format!("ip link set {port} master bridge up"));
            let address = format!("192.0.2.{number}");
            host.sh(&format!(
                "ip address add {address}/24 dev uplink; ip link set uplink up"
            ));
            (host, address)
        });
        Self {
            hosts: hosts.collect(),
            registry: Registry::plain_at(SWITCH, switch.command::<&str>("docker-registry", &[])),
            switch,
        }
    }

    /// Builds a version and pushes it: its name in the registry.
    fn release(&self, version: &str) -> String {
        let layout = application::by_umoci(&self.switch.path(version), version);
        let image = self.registry.image(&format!("app:{version}"));
        self.switch
            .coracle(&["pull", "-q", &format!("oci:{layout}")])
            .ok();
        let name = format!("localhost/layout:{version}");
        self.switch.coracle(&["tag", &name, &image]).ok();
        let push = ["push", "-q", "--tls-verify=false", &image];
        self.switch.coracle(&push).ok();
        image
    }
}

/// Runs the image on a host, and waits until the host answers with its version.
fn deploy(fleet: &Fleet, (host, address): &(Host, String), image: &str, version: &str) {
    let published = format!("80:{PORT}");
    let run = ["run", "-d", "--init", "--name", "app", "-p", &published];
    let run = [&run[..], &["--tls-verify=false", "-m", "64m", image]].concat();
    host.coracle(&run).ok();
    let body = eventually(&format!("{address} answers"), || {
        fleet.switch.get(&format!("{address}:80"), "/").ok()
    });
    assert_eq!(body, page(version));
}

fn digest(host: &Host, image: &str) -> Value {
    let text = host.coracle(&["inspect", image]).ok();
    let mut images: Value = serde_json::from_str(&text).unwrap();
    images[0]["Digest"].take()
}

/// Clients that ask the hosts in rotation, and what became of their requests.
struct Clients {
    rotation: RwLock<Vec<String>>,
    answered: AtomicUsize,
    lost: RwLock<Vec<String>>,
    done: AtomicBool,
}

impl Clients {
    fn ask(&self) {
        let mut turn = 0;
        while !self.done.load(Ordering::Relaxed) {
            // Held until the answer is there: who takes a host out of rotation waits for what it has begun with.
            let rotation = self.rotation.read().unwrap();
            let server = &rotation[turn % rotation.len()];
            match get(server, "/") {
                Ok(_) => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
                Err(error) => self
                    .lost
                    .write()
                    .unwrap()
                    .push(format!("{server}: {error}")),
            }
            turn += 1;
        }
    }

    fn wait_for_more(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("requests are answered", || {
            let answered = self.answered.load(Ordering::Relaxed);
            (answered >= before + REQUESTS || !self.lost.read().unwrap().is_empty()).then_some(())
        });
    }

    fn take_out(&self, server: &str) {
        self.rotation.write().unwrap().retain(|one| one != server);
    }

    fn put_back(&self, server: &str) {
        self.rotation.write().unwrap().push(server.to_owned());
    }
}

/// The end of the clients, however the update ends.
struct Done<'a>(&'a Clients);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Relaxed);
    }
}

fn update(fleet: &Fleet, clients: &Clients, image: &str, version: &str) {
    let _done = Done(clients);
    clients.wait_for_more();
    for host in &fleet.hosts {
        let server = format!("{}:80", host.1);
        clients.take_out(&server);
        host.0.coracle(&["stop", "app"]).ok();
        assert!(fleet.switch.get(&server, "/").is_err(), "it has stopped");
        clients.wait_for_more();
        host.0.coracle(&["rm", "app"]).ok();
        deploy(fleet, host, image, version);
        clients.put_back(&server);
        clients.wait_for_more();
    }
}

#[test]
fn a_rolling_update_loses_no_request() {
    requires!(
        rootless().is_none() && !by_systemd(),
        "hosts are root's here, without systemd"
    );
    for program in ["docker-registry", "umoci"] {
        requires!(has_program(program), "{program} is not installed");
    }
    let fleet = Fleet::new();
    let first = fleet.release("1");
    let released = digest(&fleet.switch, &first);
    for host in &fleet.hosts {
        deploy(&fleet, host, &first, "1");
        assert_eq!(digest(&host.0, &first), released, "one image, one digest");
    }

    let second = fleet.release("2");
    let servers = fleet.hosts.iter().map(|host| format!("{}:80", host.1));
    let clients = Clients {
        rotation: RwLock::new(servers.collect()),
        answered: AtomicUsize::new(0),
        lost: RwLock::default(),
        done: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| within(&fleet.switch.network(), || clients.ask()));
        }
        update(&fleet, &clients, &second, "2");
    });
    assert_eq!(*clients.lost.read().unwrap(), Vec::<String>::new());
    for (host, address) in &fleet.hosts {
        let body = fleet.switch.get(&format!("{address}:80"), "/").unwrap();
        assert_eq!(body, page("2"));
        host.coracle(&["rm", "-f", "app"]).ok();
        assert_eq!(host.coracle(&["list", "-q"]).ok(), "");
    }
}
