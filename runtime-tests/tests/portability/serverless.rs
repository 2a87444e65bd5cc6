//! What serverless platforms ask of a container: `PORT`, SIGTERM and a grace period, logs on stdout and stderr, any user, a read-only root.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use runtime_tests::{
    Host, body, by_systemd, connect, eventually, has_program, requires, rootless, within,
};
use serde_json::Value;

use crate::application;

const IMAGE: &str = "localhost/layout:1";

/// A host with the image.
fn host() -> Host {
    let host = Host::new();
    let layout = application::by_umoci(&host.path("context"), "1");
    host.coracle(&["pull", "-q", &format!("oci:{layout}")]).ok();
    host
}

/// Runs a command of the image, with the flags of a platform that trusts nobody.
#[track_caller]
fn run(host: &Host, flags: &[&str], command: &[&str]) {
    let strict = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"];
    let options = ["--security-opt", "no-new-privileges", "-u", "12345:54321"];
    let run = ["run", "-d", "--name", "app"];
    let all = [&run[..], &strict, &options, flags, &[IMAGE], command];
    host.coracle(&all.concat()).ok();
}

/// Waits until it has logged these words.
#[track_caller]
fn wait_to_log(host: &Host, words: &str, times: usize) {
    eventually(&format!("{words:?} is logged"), || {
        let output = host.coracle(&["logs", "app"]);
        let count = format!("{}{}", output.stdout, output.stderr)
            .matches(words)
            .count();
        (count >= times).then_some(())
    });
}

fn exit_code(host: &Host) -> Value {
    let text = host.coracle(&["inspect", "app"]).ok();
    let mut all: Value = serde_json::from_str(&text).unwrap();
    all[0]["State"]["ExitCode"].take()
}

macro_rules! requires_host {
    () => {
        requires!(
            rootless().is_none() && !by_systemd(),
            "hosts are root's here, without systemd"
        );
        requires!(has_program("umoci"), "umoci is not installed");
    };
}

#[test]
fn port_says_where_to_listen() {
    requires_host!();
    let host = host();
    for port in ["8080", "3000"] {
        let (variable, published) = (format!("PORT={port}"), format!("80:{port}"));
        run(
            &host,
            &["-e", &variable, "-p", &published],
            &["/bin/inside", "serve"],
        );
        wait_to_log(&host, "listening", 1);
        let body = host.get("127.0.0.1:80", "/").unwrap();
        assert_eq!(body, format!("served by 12345 at {port}\n"));
        let script = "touch /x 2>&1; touch /tmp/x && id -u && id -g";
        let seen = host.coracle(&["exec", "app", "sh", "-c", script]).ok();
        assert_eq!(seen, "touch: /x: Read-only file system\n12345\n54321\n");
        host.coracle(&["rm", "-f", "app"]).ok();
    }
}

/// By the kernel's way to the container, and by the proxy's.
#[test]
fn a_request_in_flight_is_answered_within_the_grace_period() {
    requires_host!();
    let host = host();
    let flags = ["-e", "PORT=8080", "-p", "80:8080", "--stop-signal", "TERM"];
    run(&host, &flags, &["/bin/inside", "serve"]);
    wait_to_log(&host, "listening", 1);
    let servers = ["127.0.0.1:80", "[::1]:80"];
    let mut clients = servers.map(|server| {
        let mut client = within(&host.network(), || connect(server)).unwrap();
        write!(client, "GET / HTTP/1.0\r\n").unwrap();
        client
    });
    wait_to_log(&host, "asked", 2);
    thread::scope(|scope| {
        let stop = scope.spawn(|| host.coracle(&["stop", "-t", "60", "app"]));
        wait_to_log(&host, "ending", 1);
        assert!(!stop.is_finished());
        for client in &mut clients {
            write!(client, "\r\n").unwrap();
        }
        for client in clients {
            assert_eq!(body(client).unwrap(), "served by 12345 at 8080\n");
        }
        stop.join().unwrap().ok();
    });
    assert_eq!(exit_code(&host), 0);
    let output = host.coracle(&["logs", "app"]);
    assert_eq!(output.stdout, "listening at 8080\nasked\nasked\n");
    assert_eq!(output.stderr, "ending\n");
    assert!(host.get("127.0.0.1:80", "/").is_err());
    host.coracle(&["rm", "app"]).ok();
}

#[test]
fn who_ignores_sigterm_is_killed_after_the_grace_period() {
    requires_host!();
    let host = host();
    // The first process of a pid namespace ignores what it has no handler for.
    run(&host, &["--stop-signal", "TERM"], &["sleep", "1000000"]);
    let begun = Instant::now();
    host.coracle(&["stop", "-t", "1", "app"]).ok();
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(9),
        "{took:?}"
    );
    assert_eq!(exit_code(&host), 137);
    host.coracle(&["rm", "app"]).ok();
}
