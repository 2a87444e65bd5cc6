//! What nobody should send: every answer is an error of the right kind, and the shim serves on.

use std::fs;

use runtime_tests::ttrpc::{
    ALREADY_EXISTS, Alone, FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, OK, UNIMPLEMENTED,
    frame, number, text,
};
use runtime_tests::{eventually, requires, shell};

use crate::{DIFFERENCES, is, is_strict};

/// Proved with a shim that takes every message for a request, and one that takes every frame for a whole one: both panic.
#[test]
fn frames_that_are_none() {
    let alone = Alone::new("sleep 1000000");
    let huge = frame(u32::MAX, 1, 1, b"");
    let too_long = frame(5 << 20, 1, 1, &[0; 4096]);
    let unfinished = frame(100, 1, 1, b"no");
    let even = frame(0, 2, 1, b"");
    let other_kind = frame(0, 1, 9, b"");
    let not_protobuf = frame(8, 1, 1, &[0xff; 8]);
    let half_a_head = vec![0; 5];
    for data in [
        huge,
        too_long,
        unfinished,
        even,
        other_kind,
        not_protobuf,
        half_a_head,
    ] {
        let mut client = alone.connect();
        let _ = client.send(&data);
        client.end();
        // An answer, or the end of the connection.
        let _ = client.receive();
        let (code, _) = alone.connect().call("State", &text(1, "box"));
        assert_eq!(code, NOT_FOUND, "after {:?}", &data[..data.len().min(10)]);
    }
    let mut client = alone.connect();
    assert_eq!(client.call("Frobnicate", b"").0, UNIMPLEMENTED);
    let (code, _) = client.call_of("no.such.Service", "State", b"");
    assert_eq!(code, UNIMPLEMENTED);
    client.call("Shutdown", &text(1, "box"));
}

#[test]
fn what_does_not_fit_the_state() {
    let alone = Alone::new("sleep 1000000");
    let mut client = alone.connect();
    let the_box = text(1, "box");
    for method in [
        "Start", "State", "Kill", "Delete", "Pause", "Wait", "Pids", "Stats",
    ] {
        let code = client.call(method, &the_box).0;
        assert!(is(code, NOT_FOUND), "{method} before Create: {code}");
    }
    let create = alone.create("");
    assert_eq!(client.call("Create", &create).0, OK);
    assert!(is(client.call("Create", &create).0, ALREADY_EXISTS));
    assert_eq!(client.call("Start", &the_box).0, OK);
    assert_eq!(client.call("Exec", &alone.exec("one", "true")).0, OK);
    let again = client.call("Exec", &alone.exec("one", "true")).0;
    assert!(is(again, ALREADY_EXISTS));
    let of_none = [the_box.clone(), text(2, "none")].concat();
    for method in [
        "Start",
        "State",
        "Kill",
        "Delete",
        "Wait",
        "ResizePty",
        "CloseIO",
    ] {
        let code = client.call(method, &of_none).0;
        assert!(is(code, NOT_FOUND), "{method} of no process: {code}");
    }
    assert!(is(client.call("Delete", &the_box).0, FAILED_PRECONDITION));
    let kill = [the_box.clone(), number(3, 9)].concat();
    assert_eq!(client.call("Kill", &kill).0, OK);
    assert_eq!(client.call("Wait", &the_box).0, OK);
    assert!(is(client.call("Kill", &kill).0, NOT_FOUND));
    assert_eq!(client.call("Delete", &the_box).0, OK);
    assert!(is(client.call("Delete", &the_box).0, NOT_FOUND));
    client.call("Shutdown", &the_box);
    alone.wait_until_empty();
}

#[test]
fn ids_that_lead_elsewhere() {
    requires!(is_strict(), "{}", DIFFERENCES);
    let alone = Alone::new("sleep 1000000");
    let mut client = alone.connect();
    for id in ["../box", "a/b", "", ".", ".."] {
        let bundle = alone.host.path("box").display().to_string();
        let create = [text(1, id), text(2, &bundle)].concat();
        let (code, _) = client.call("Create", &create);
        assert_eq!(code, INVALID_ARGUMENT, "{id:?}");
    }
    client.call("Shutdown", &text(1, "box"));
}

/// The container stands still, and the shim does not.
#[test]
fn a_fifo_that_nobody_reads() {
    requires!(is_strict(), "{}", DIFFERENCES);
    let alone = Alone::new("yes");
    let fifo = alone.host.path("stdout").display().to_string();
    shell(&format!("mkfifo {fifo}"));
    let mut client = alone.connect();
    assert_eq!(client.call("Create", &alone.create(&fifo)).0, OK);
    assert_eq!(client.call("Start", &text(1, "box")).0, OK);
    for _ in 0..20 {
        assert_eq!(client.call("State", &text(1, "box")).0, OK);
    }
    let kill = [text(1, "box"), number(3, 9)].concat();
    assert_eq!(client.call("Kill", &kill).0, OK);
    assert_eq!(client.call("Wait", &text(1, "box")).0, OK);
    assert_eq!(client.call("Delete", &text(1, "box")).0, OK);
    client.call("Shutdown", &text(1, "box"));
}

#[test]
fn a_disk_that_is_full() {
    requires!(is_strict(), "{}", DIFFERENCES);
    let alone = Alone::new("sleep 1000000");
    let mut client = alone.connect();
    // The runtime's state, and the shim's, are below /run.
    let line = "head -c 9999999 /dev/zero > /run/full 2>/dev/null || true";
    alone
        .host
        .sh(&format!("mount -o remount,size=1m /run; {line}"));
    let (code, _) = client.call("Create", &alone.create(""));
    assert_ne!(code, OK);
    assert_eq!(client.call("State", &text(1, "box")).0, NOT_FOUND);
    alone.wait_until_empty();
    alone
        .host
        .sh("rm /run/full; mount -o remount,size=10m /run");
    eventually("it works again", || {
        (client.call("Create", &alone.create("")).0 == OK).then_some(())
    });
    assert_eq!(client.call("Delete", &text(1, "box")).0, OK);
    client.call("Shutdown", &text(1, "box"));
}

#[test]
fn a_bundle_that_is_none() {
    requires!(is_strict(), "{}", DIFFERENCES);
    let alone = Alone::new("sleep 1000000");
    let mut client = alone.connect();
    let config = alone.host.path("box/config.json");
    let good = fs::read(&config).unwrap();
    for text in ["", "{", "[]", "{\"process\": 7}"] {
        fs::write(&config, text).unwrap();
        assert_ne!(client.call("Create", &alone.create("")).0, OK, "{text:?}");
    }
    fs::write(&config, good).unwrap();
    assert_eq!(client.call("Create", &alone.create("")).0, OK);
    assert_eq!(client.call("Delete", &text(1, "box")).0, OK);
    client.call("Shutdown", &text(1, "box"));
}
