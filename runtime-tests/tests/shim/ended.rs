//! What is known of a container that has ended.

use runtime_tests::requires;
use runtime_tests::ttrpc::{Alone, OK, text};

use crate::is_strict;

/// A containerd that comes back, from 1.7 on, removes a container that says it has no processes, and its exit status is lost.
#[test]
fn it_has_its_first_process_until_delete() {
    requires!(
        is_strict(),
        "containerd's own shim shows an ended container as empty"
    );
    let alone = Alone::new("exit 7");
    let mut client = alone.connect();
    let the_box = text(1, "box");
    assert_eq!(client.call("Create", &alone.create("")).0, OK);
    let created = client.call("Pids", &the_box);
    assert_eq!(client.call("Start", &the_box).0, OK);
    assert_eq!(client.call("Wait", &the_box).0, OK);
    alone.wait_until_empty();
    assert_ne!(created, (OK, Vec::new()));
    assert_eq!(client.call("Pids", &the_box), created);
    assert_eq!(client.call("Delete", &the_box).0, OK);
    client.call("Shutdown", &the_box);
}
