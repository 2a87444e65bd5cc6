use super::*;
use crate::table;

fn parse(line: &[&str]) -> Result<Options, Failure> {
    let args = line.iter().map(|&arg| arg.to_owned()).collect();
    let run = table::command("run").unwrap();
    let flags = Flags::parse(run.flags, args, run.order).map_err(|message| Failure {
        message,
        status: 125,
    })?;
    Options::parse(&flags)
}

#[test]
fn what_follows_the_image_is_the_command() {
    let options = parse(&[
        "-it", "--rm", "-e", "A=1", "alpine:3", "ls", "-la", "--rm=no",
    ])
    .unwrap();
    assert!(options.interactive && options.tty && options.remove && !options.detach);
    assert_eq!(options.image, "alpine:3");
    assert_eq!(options.command, ["ls", "-la", "--rm=no"]);
    assert_eq!(options.env, ["A=1"]);
}

#[test]
fn short_flags_can_be_written_in_one_and_with_their_value() {
    let options = parse(&["-dp8080:80", "-v/srv:/data:ro", "-m64m", "x:1"]).unwrap();
    assert!(options.detach);
    assert_eq!(options.publish, Port::parse("8080:80").unwrap());
    assert_eq!(options.mounts.len(), 1);
    assert_eq!(options.limits.memory, Some(64 << 20));
}

/// Every flag refuses what it does not know, and says which one it is.
#[test]
fn wrong_values_name_the_flag() {
    for (flag, value) in [
        ("name", "-x"),
        ("name", "a/b"),
        ("pull", "sometimes"),
        ("restart", "maybe"),
        ("stop-signal", "NOPE"),
        ("stop-timeout", "soon"),
        ("log-opt", "max-size=x"),
        ("log-opt", "driver=x"),
        ("env", "=x"),
        ("env-file", "/nowhere"),
        ("label", "=x"),
        ("workdir", "relative"),
        ("hostname", "under the bridge"),
        ("network", "overlay"),
        ("publish", "70000:80"),
        ("publish", "80:80/icmp"),
        ("platform", "a/b/c/d"),
        ("ip", "10.0.0"),
        ("dns", "resolver"),
        ("add-host", "name"),
        ("add-host", "name:1.2.3"),
        ("volume", "/a:b"),
        ("mount", "type=what,dst=/x"),
        ("tmpfs", "run"),
        ("shm-size", "0"),
        ("memory", "much"),
        ("memory-swap", "x"),
        ("cpus", "many"),
        ("cpus", "0.001"),
        ("cpus", "100000"),
        ("cpuset-cpus", "4000"),
        ("cpuset-cpus", "a"),
        ("cpu-shares", "-1"),
        ("pids-limit", "x"),
        ("ulimit", "files=3"),
        ("ulimit", "nofile=5:3"),
        ("ulimit", "nofile"),
        ("cap-add", "CAP_FLY"),
        ("cap-drop", "nope"),
        ("security-opt", "nonsense"),
        ("security-opt", "seccomp=/nowhere"),
        ("device", "null"),
        ("device", "/dev/null:/dev/x:q"),
        ("sysctl", "kernel.core_pattern=|x"),
        ("sysctl", "vm.swappiness=1"),
        ("userns", "mine"),
    ] {
        let error = parse(&[&format!("--{flag}={value}"), "x:1"]).expect_err(flag);
        assert!(
            error.message.contains(&format!("-{flag}")),
            "{flag}={value}: {}",
            error.message
        );
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    for line in [
        &["--rm", "--restart=always"][..],
        &["--network=container:web", "-p", "80:80"],
        &["--network=container:web", "-h", "me"],
        &["--network=host", "--ip", "10.0.0.1"],
        &["--network=host", "--sysctl", "net.ipv4.ip_forward=1"],
        &["-v", "/a:/x", "--tmpfs", "/x"],
        &["--memory-swap", "1g"],
        &["-m", "64m", "--memory-reservation", "1g"],
    ] {
        let line: Vec<_> = line.iter().copied().chain(["x:1"]).collect();
        assert!(parse(&line).is_err(), "{line:?}");
    }
}

#[test]
fn an_empty_entrypoint_is_one() {
    assert_eq!(parse(&["x:1"]).unwrap().entrypoint, None);
    assert_eq!(
        parse(&["--entrypoint", "", "x:1"]).unwrap().entrypoint,
        Some(vec![])
    );
    let array = parse(&["--entrypoint", r#"["/a","b"]"#, "x:1"]).unwrap();
    assert_eq!(array.entrypoint.unwrap(), ["/a", "b"]);
}

#[test]
fn addresses_of_hosts_may_have_colons() {
    let options = parse(&["--add-host", "a:fd00::1", "--add-host", "b=[::1]", "x:1"]).unwrap();
    assert_eq!(options.add_host, ["a:fd00::1", "b:::1"]);
}

#[test]
fn devices_come_in_three_forms() {
    for (text, destination, access) in [
        ("/dev/null", "/dev/null", "rwm"),
        ("/dev/null:r", "/dev/null", "r"),
        ("/dev/null:/dev/nil", "/dev/nil", "rwm"),
        ("/dev/null:/dev/nil:rw", "/dev/nil", "rw"),
    ] {
        let device = device(text).unwrap();
        assert_eq!(device.destination, Path::new(destination));
        assert_eq!(device.access, access, "{text}");
    }
}
