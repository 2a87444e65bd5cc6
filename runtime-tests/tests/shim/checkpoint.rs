//! A checkpoint that ends the container, and a container that begins with one.

use std::fs;

use runtime_tests::ttrpc::{Alone, FAILED_PRECONDITION, OK, bytes, number, text};
use runtime_tests::{assert_count_goes_on, count_in, counting, has_criu, requires};

use crate::is_strict;

#[test]
fn a_container_that_ended_with_a_checkpoint_goes_on() {
    requires!(has_criu(), "criu is missing, cannot do it, or is root's");
    let alone = Alone::new(&counting("/tmp"));
    let count = || fs::read_to_string(alone.host.path("box/rootfs/tmp/count")).ok();
    // containerd's, for by-products.
    fs::create_dir(alone.host.path("box/work")).unwrap();
    let mut client = alone.connect();
    let the_box = text(1, "box");
    let images = alone.host.path("images").display().to_string();
    // CheckpointOptions.exit = 1
    let options = [
        text(1, "containerd.runc.v1.CheckpointOptions"),
        bytes(2, &number(1, 1)),
    ];
    let checkpoint = [
        the_box.clone(),
        text(2, &images),
        bytes(3, &options.concat()),
    ]
    .concat();
    assert_eq!(client.call("Create", &alone.create("")).0, OK);
    if is_strict() {
        let (code, _) = client.call("Checkpoint", &checkpoint);
        assert_eq!(code, FAILED_PRECONDITION, "it is not started");
    }
    assert_eq!(client.call("Start", &the_box).0, OK);
    count_in(count);
    let (code, answer) = client.call("Checkpoint", &checkpoint);
    assert_eq!(code, OK, "{}", String::from_utf8_lossy(&answer));
    assert_eq!(client.call("Wait", &the_box).0, OK);
    alone.wait_until_empty();
    assert_eq!(client.call("Delete", &the_box).0, OK);
    let before = count_in(count);

    let create = [alone.create(""), text(8, &images)].concat();
    assert_eq!(client.call("Create", &create).0, OK);
    let (code, answer) = client.call("Start", &the_box);
    assert_eq!(code, OK, "{}", String::from_utf8_lossy(&answer));
    assert_count_goes_on(before, count);
    let kill = [the_box.clone(), number(3, 9)].concat();
    for (method, request) in [("Kill", &kill), ("Wait", &the_box), ("Delete", &the_box)] {
        assert_eq!(client.call(method, request).0, OK, "{method}");
    }
    client.call("Shutdown", &the_box);
    alone.wait_until_empty();
}
