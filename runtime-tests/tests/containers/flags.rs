//! Each flag of `run`, seen from inside the container.

use std::fs;

use runtime_tests::{
    Hierarchy, Profile, Store, has_apparmor, has_controller, hierarchy, requires, rootless,
};

/// Flag, what is run, and what it says.
#[test]
fn flags_are_seen_from_inside() {
    let store = Store::new();
    let host = store.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "from the host\n").unwrap();
    let bind = format!("{}:/data:ro", host.display());
    let mount = format!("type=bind,src={},dst=/data", host.display());
    let env_file = store.path().join("env");
    fs::write(&env_file, "# comment\nB=file\nC=file\n").unwrap();
    let env_file = env_file.display().to_string();
    let shm = "awk '$2 == \"/dev/shm\" { print $4 }' /proc/mounts | grep -o 'size=[0-9]*k'";
    for (flags, script, said) in [
        (&["-e", "A=1", "-e", "B=x y"][..], "echo $A-$B", "1-x y\n"),
        (
            &["--env-file", &env_file, "-e", "C=flag"],
            "echo $B $C",
            "file flag\n",
        ),
        (&["-w", "/tmp"], "pwd", "/tmp\n"),
        (&["-u", "user"], "id -u; id -g", "1000\n1000\n"),
        (&["-u", "7:8"], "id -u; id -g", "7\n8\n"),
        (
            &["-u", "7", "--group-add", "42"],
            "id -G | grep -wo 42",
            "42\n",
        ),
        (
            &["-h", "box"],
            "hostname; cat /etc/hostname; grep -c box /etc/hosts",
            "box\nbox\n1\n",
        ),
        (
            &["--add-host", "db:10.1.2.3"],
            "grep 10.1.2.3 /etc/hosts",
            "10.1.2.3\tdb\n",
        ),
        (
            &["--dns", "9.9.9.9"],
            "grep nameserver /etc/resolv.conf",
            "nameserver 9.9.9.9\n",
        ),
        (
            &["-v", &bind],
            "cat /data/file; touch /data/x 2>/dev/null || echo ro",
            "from the host\nro\n",
        ),
        (
            &["--mount", &mount],
            "touch /data/x && cat /data/file",
            "from the host\n",
        ),
        (
            &["--tmpfs", "/run:size=64k,mode=700"],
            "stat -f -c %T /run; stat -c %a /run",
            "tmpfs\n700\n",
        ),
        (
            &["--read-only", "--tmpfs", "/tmp"],
            "touch /x 2>/dev/null || echo ro; touch /tmp/x && echo rw",
            "ro\nrw\n",
        ),
        (&["--shm-size", "1m"], shm, "size=1024k\n"),
        (
            &["--ulimit", "nofile=100:200"],
            "ulimit -n; ulimit -Hn",
            "100\n200\n",
        ),
        (
            &["--sysctl", "kernel.msgmax=9000"],
            "cat /proc/sys/kernel/msgmax",
            "9000\n",
        ),
        (
            &["--cap-drop", "ALL"],
            "grep CapBnd /proc/self/status",
            "CapBnd:\t0000000000000000\n",
        ),
        (
            &["--cap-drop", "all", "--cap-add", "CHOWN"],
            "grep CapEff /proc/self/status",
            "CapEff:\t0000000000000001\n",
        ),
        (
            &[],
            "grep CapBnd /proc/self/status",
            "CapBnd:\t00000000a80425fb\n",
        ),
        (
            &["-u", "7"],
            "grep CapEff /proc/self/status",
            "CapEff:\t0000000000000000\n",
        ),
        (
            &["--security-opt", "no-new-privileges"],
            "grep NoNewPrivs /proc/self/status",
            "NoNewPrivs:\t1\n",
        ),
        (
            &["--security-opt", "seccomp=unconfined"],
            "grep '^Seccomp:' /proc/self/status",
            "Seccomp:\t0\n",
        ),
        (&[], "grep '^Seccomp:' /proc/self/status", "Seccomp:\t2\n"),
        (
            &["--device", "/dev/null:/dev/nil:rw"],
            "echo x > /dev/nil && stat -c %t:%T /dev/nil",
            "1:3\n",
        ),
        (
            &["--privileged"],
            "grep '^Seccomp:' /proc/self/status; test -w /sys && echo sys",
            "Seccomp:\t0\nsys\n",
        ),
        (
            &["--init"],
            "cat /proc/1/comm; echo $$ | grep -v '^1$' > /dev/null && echo child",
            "coracle-init\nchild\n",
        ),
        (&["--entrypoint", "/bin/echo"], "x", "-c x\n"),
        (&["--network=host"], "readlink /proc/self/ns/net", "HOST"),
    ] {
        // /sys is the machine's root's.
        if rootless().is_some() && flags.contains(&"--privileged") {
            continue;
        }
        let command: &[&str] = match flags.contains(&"--entrypoint") {
            true => &["-c", script],
            false => &["sh", "-c", script],
        };
        let flags: Vec<&str> = ["--rm"].into_iter().chain(flags.iter().copied()).collect();
        let output = store.run_with(&flags, command);
        let said = match said {
            "HOST" => format!(
                "{}\n",
                fs::read_link("/proc/self/ns/net").unwrap().display()
            ),
            said => said.to_owned(),
        };
        assert_eq!(output.stdout, said, "{flags:?} {script}: {output:#?}");
        assert_eq!(output.code, 0, "{output:#?}");
    }
    assert_eq!(store.leftovers(), Vec::<String>::new());
}

#[test]
fn limits_are_those_of_the_cgroup() {
    requires!(
        has_controller("memory") && has_controller("pids"),
        "no memory or pids controller"
    );
    let store = Store::new();
    store.detached(
        "web",
        &["-m", "64m", "--pids-limit", "50", "--cpus", "0.5"],
        "sleep 1000",
    );
    let host = &store.inspect("web")["HostConfig"];
    assert_eq!(host["Memory"], 64 << 20);
    assert_eq!(host["PidsLimit"], 50);
    assert_eq!(host["NanoCpus"], 500_000_000);
    let stats = store
        .coracle(&["stats", "--no-stream", "--format", "json", "web"])
        .ok();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert!(
        stats["MemUsage"].as_str().unwrap().ends_with("/ 64MiB"),
        "{stats}"
    );
    assert_eq!(stats["Name"], "web");
    if hierarchy() == Hierarchy::V2 {
        let script = "cat /proc/self/cgroup /sys/fs/cgroup/memory.max";
        let seen = store.coracle(&["exec", "web", "sh", "-c", script]).ok();
        assert_eq!(seen, "0::/\n67108864\n");
    }
}

/// A page of help would hide what was wrong.
#[test]
fn a_wrong_flag_is_told_in_one_line() {
    let store = Store::new();
    for (args, why) in [
        (
            &["run", "--nope", "app:1"][..],
            "flag provided but not defined: -nope: see \"coracle run --help\"",
        ),
        (
            &["run", "-m", "3q", "app:1"],
            "invalid value \"3q\" for flag -m",
        ),
        (&["images", "--nope"], "see \"coracle images --help\""),
        (
            &["logs"],
            "\"logs\" requires exactly 1 argument(s): see \"coracle logs --help\"",
        ),
    ] {
        let output = store.coracle(args);
        assert_eq!(output.stdout, "", "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        output.fails_with(125, why);
    }
}

#[test]
fn wrong_values_are_refused_before_anything_exists() {
    let store = Store::new();
    for (flags, words) in [
        (&["--memory=lots"][..], "-memory"),
        (&["--cpus=1000000"], "--cpus"),
        (&["--restart=sometimes"], "--restart"),
        (&["--network=nowhere"], "--network"),
        (&["-v", "/a:b"], "--volume"),
        (&["-p", "80:80/icmp"], "--publish"),
        (&["-p", "70000:80"], "--publish"),
        (&["--cap-add", "FLY"], "--cap-add"),
        (&["--frob"], "frob"),
        (&["--rm", "--restart=always"], "--restart and --rm"),
        (&["--bundle=/x"], "--bundle"),
        (&["-u", "nobody-here"], "nobody-here"),
        (&["--device", "/nowhere"], "/nowhere"),
    ] {
        let output = store.run(flags, "true");
        assert_ne!(output.code, 0, "{flags:?}");
        assert!(output.stderr.contains(words), "{flags:?}: {output:#?}");
        assert_eq!(store.leftovers(), Vec::<String>::new(), "{flags:?}");
    }
}

/// 125 is ours, 126 and 127 are about the program, all else is its own.
#[test]
fn exit_statuses_are_dockers() {
    let store = Store::new();
    for (command, status) in [
        (&["sh", "-c", "exit 42"][..], 42),
        (&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        (&["no-such-program"], 127),
        (&["/no/such/program"], 127),
        (&["/etc/passwd"], 126),
        (&["/etc"], 126),
    ] {
        let output = store.run_with(&["--rm"], command);
        assert_eq!(output.code, status, "{command:?}: {output:#?}");
        assert_eq!(store.leftovers(), Vec::<String>::new(), "{command:?}");
    }
    let output = store.run(&["-d", "--rm"], "exit 1");
    assert_eq!(output.code, 0, "{output:#?}");
    store.run(&["-v", "/proc/none/x:/x"], "true").fails(125);
}

#[test]
fn an_argument_without_a_colon_is_a_bundle() {
    let store = Store::new();
    let mut command = store.command(&["run", "web"]);
    command.current_dir(store.path());
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("localhost/web or web:latest"), "{message}");
    store
        .coracle(&["run", "-p", "80:80", "web"])
        .fails_with(1, "web:latest");
}

#[test]
fn volumes_outlive_their_containers_unless_they_have_no_name() {
    let store = Store::new();
    let rootfs = store.rootfs();
    fs::create_dir(rootfs.join("seed")).unwrap();
    fs::write(rootfs.join("seed/file"), "seeded\n").unwrap();
    store
        .run(
            &["--rm", "-v", "data:/seed"],
            "cat /seed/file; echo more >> /seed/file",
        )
        .ok();
    let said = store
        .run(&["--rm", "-v", "data:/seed"], "cat /seed/file")
        .ok();
    assert_eq!(said, "seeded\nmore\n");
    let said = store
        .run(&["--rm", "-v", "empty:/seed:nocopy"], "ls /seed")
        .ok();
    assert_eq!(said, "");
    store.run(&["--rm", "-v", "/seed"], "cat /seed/file").ok();
    let mut names: Vec<_> = fs::read_dir(store.path().join("store/volumes"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["data", "empty"]);
}

#[test]
fn a_container_can_join_anothers_network() {
    requires!(rootless().is_none(), "it takes root");
    let store = Store::new();
    store.detached("one", &[], "sleep 1000");
    let network = "readlink /proc/self/ns/net";
    let own = store.coracle(&["exec", "one", "sh", "-c", network]).ok();
    let joined = store
        .run(&["--rm", "--network=container:one"], network)
        .ok();
    assert_eq!(joined, own);
    let output = store.run(&["--rm", "--network=container:none"], "true");
    assert!(
        output.code == 125 && output.stderr.contains("does not exist"),
        "{output:#?}"
    );
}

/// CVE-2026-55686: a link in the image says where the working directory is, and the host has such a path too. Proved with one that
/// is made by its path below the root file system before that is the root.
#[test]
fn a_working_directory_that_is_a_link_stays_inside() {
    let store = Store::new();
    let host = store.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("secret"), "of the host\n").unwrap();
    let links = [("absolute", host.clone()), ("upwards", "../../..".into())];
    for (name, target) in &links {
        std::os::unix::fs::symlink(target, store.rootfs().join(name)).unwrap();
    }
    let outside = store.run(&["-w", "/absolute"], "pwd; ls");
    assert!(!outside.stdout.contains("secret"), "{outside:?}");
    assert!(!host.join("missing").exists());
    assert_eq!(store.run(&["-w", "/upwards"], "pwd").ok(), "/\n");
    let below = store.run(&["-w", "/absolute/missing"], "pwd; ls");
    assert!(!below.stdout.contains("secret"), "{below:?}");
    assert!(!host.join("missing").exists(), "made on the host");
}

/// Nobody has to say anything for it, and a container does not stay down because it is gone since.
#[test]
fn the_default_apparmor_profile_is_what_another_engine_has_loaded() {
    requires!(
        has_apparmor(),
        "it takes AppArmor in the kernel, and root to load profiles"
    );
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap();
    requires!(
        !loaded.contains("docker-default") && !loaded.contains("containers-default"),
        "an engine has loaded its profile already"
    );
    let store = Store::new();
    let script = "cat /proc/self/attr/current";
    let docker = Profile::load("docker-default", store.path());
    assert_eq!(store.run(&[], script).ok(), docker.enforced());
    for flags in [
        &["--privileged"][..],
        &["--security-opt", "apparmor=unconfined"],
    ] {
        assert_eq!(store.run(flags, script).ok(), "unconfined\n", "{flags:?}");
    }
    let own = Profile::load("coracle-test-own", store.path());
    let asked = store.run(&["--security-opt", "apparmor=coracle-test-own"], script);
    assert_eq!(asked.ok(), own.enforced());

    let idle = format!("{script}; exec sleep 1000");
    store.detached("web", &[], &idle);
    store.wait_to_log("web", &docker.enforced());
    let exec = |flags: &[&str]| {
        let words = [&["exec"][..], flags, &["web", "sh", "-c", script]].concat();
        store.coracle(&words).ok()
    };
    assert_eq!(exec(&[]), docker.enforced());
    assert_eq!(exec(&["--privileged"]), "unconfined\n");
    assert_eq!(exec(&["--apparmor", "coracle-test-own"]), own.enforced());
    store.coracle(&["stop", "-t", "0", "web"]).ok();
    drop(docker);
    store.coracle(&["start", "web"]).ok();
    store.wait_to_log("web", "unconfined\n");
}
