//! Many containers.

use std::time::Instant;

use crate::machine::{Machine, Namespace};

#[test]
fn two_hundred_containers_are_attached_and_detached() {
    let machine = Machine::new();
    let containers: Vec<_> = (0..200).map(|_| Namespace::new()).collect();
    let begin = Instant::now();
    let held: Vec<_> = containers
        .iter()
        .enumerate()
        .map(|(number, container)| {
            let port = format!("{}:80", 20000 + number);
            machine.attach(&format!("c{number}"), container, &["-p", &port])
        })
        .collect();
    let attached = begin.elapsed();
    let addresses: std::collections::BTreeSet<_> = held
        .iter()
        .map(|held| held.json()["addresses"].to_string())
        .collect();
    assert_eq!(addresses.len(), 200);
    let _server = containers[199].serve("last", &["80"]);
    assert_eq!(
        machine.neighbour.ask("tcp", "192.0.2.1:20199"),
        "last 192.0.2.2"
    );
    let begin = Instant::now();
    for number in 0..200 {
        machine.detach(&format!("c{number}"));
    }
    eprintln!(
        "200 attachments: {attached:?} to attach, {:?} to detach",
        begin.elapsed()
    );
    machine.assert_clean();
}
