//! What a container is attacked with, as far as engines meet it too; the rest of the table in `docs/SECURITY.md` has a suite of its own.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use runtime_tests::{Container, eventually, is_coracle, requires, runtime, shell};
use serde_json::json;

/// The command line behind a shell that opens descriptors first, as a careless engine may.
fn with_open_files(c: &Container, inner: &Command, opening: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{opening}; exec \"$@\""))
        .arg("sh")
        .current_dir(c.dir());
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

const HOST_DIRECTORIES: &str = "exec 3</ 4</ 5</ 6</ 7</ 8</ 9</";

const LEAK: &str = "exec 3</etc/passwd 4</ 7</tmp";

#[test]
fn no_file_of_the_host_stays_open() {
    // CVE-2024-21626. This and the next two are proved with descriptors that are not closed.
    let c = Container::inside(&["fds"]);
    let command = with_open_files(&c, &c.bundle_command("run", &[]), LEAK);
    assert_eq!(c.to_files(command).ok(), "0 1 2\n");
}

#[test]
fn no_file_of_the_host_stays_open_in_exec() {
    let c = Container::inside(&["wait"]);
    c.run_detached();
    let command = with_open_files(&c, &c.command(&["exec", &c.id, "/bin/inside", "fds"]), LEAK);
    assert_eq!(c.finish(command).ok(), "0 1 2\n");
}

#[test]
fn init_holds_nothing_open_between_create_and_start() {
    let c = Container::idle();
    let command = with_open_files(&c, &c.bundle_command("create", &[]), LEAK);
    c.to_files(command).ok();
    let fds = shell(&format!("ls -l /proc/{}/fd", c.pid()));
    assert!(!fds.contains("/etc/passwd") || !is_coracle(), "{fds}");
    c.start().ok();
    eventually("only stdio", || {
        (fs::read_dir(format!("/proc/{}/fd", c.pid()))
            .unwrap()
            .count()
            == 3)
            .then_some(())
    });
}

#[test]
fn preserved_files_reach_the_container() {
    let c = Container::new("cat <&3; cat <&4; ls /proc/self/fd | grep -c '^[567]$'");
    fs::write(c.dir().join("a"), "a\n").unwrap();
    fs::write(c.dir().join("b"), "b\n").unwrap();
    let command = with_open_files(
        &c,
        &c.bundle_command("run", &["--preserve-fds", "2"]),
        "exec 3<a 4<b 5<a",
    );
    assert_eq!(
        c.to_files(command).stdout,
        "a\nb\n1\n",
        "ls itself has one more open"
    );
}

#[test]
fn preserved_files_may_have_holes() {
    requires!(is_coracle(), "runc 1.3 refuses holes");
    let c = Container::inside(&["fds"]);
    let command = with_open_files(
        &c,
        &c.bundle_command("run", &["--preserve-fds", "6"]),
        "exec 3</etc/passwd 8</etc/passwd",
    );
    assert_eq!(c.to_files(command).ok(), "0 1 2 3 8\n");
}

#[test]
fn preserved_files_of_exec() {
    let c = Container::inside(&["wait"]);
    c.run_detached();
    let inner = c.command(&["exec", "--preserve-fds", "1", &c.id, "/bin/inside", "fds"]);
    let command = with_open_files(&c, &inner, "exec 3</etc/passwd 4</etc/passwd");
    assert_eq!(c.finish(command).ok(), "0 1 2 3\n");
}

#[test]
fn sockets_of_socket_activation_are_passed_on() {
    let c = Container::new("echo $LISTEN_FDS $LISTEN_PID; ls -l /proc/self/fd/3 | grep -c passwd");
    let opening = "exec 3</etc/passwd; export LISTEN_FDS=1 LISTEN_PID=$$";
    let command = with_open_files(&c, &c.bundle_command("run", &[]), opening);
    assert_eq!(c.to_files(command).ok(), "1 1\n1\n");
}

#[test]
fn a_working_directory_by_a_leaked_file_is_refused() {
    // CVE-2024-21626: /proc/self/fd/N would be a directory of the host. Proved with descriptors that are not closed, and without getcwd(2).
    requires!(is_coracle(), "runc 1.1.5 has this hole");
    for n in 3..64 {
        let mut c = Container::new("pwd; ls; cat etc/hostname ../etc/hostname ../../etc/hostname");
        c.set("/process/cwd", json!(format!("/proc/self/fd/{n}")));
        let command = with_open_files(&c, &c.bundle_command("run", &[]), HOST_DIRECTORIES);
        let output = c.to_files(command);
        assert!(
            output.code != 0 && output.stdout.is_empty(),
            "{n}: {output:?}"
        );
        c.assert_nothing_left();
    }
}

#[test]
fn a_working_directory_of_exec_by_a_leaked_file_is_refused() {
    // CVE-2024-21626. Proved as above, without both. In a pid namespace the process that looks it up has no /proc/self, which is a defence
    // too: so one container is without.
    for left_out in ["pid", "none"] {
        let mut c = Container::idle();
        let namespaces = c.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != left_out);
        c.run_detached();
        for n in 3..16 {
            let cwd = format!("/proc/self/fd/{n}");
            let inner = c.command(&["exec", "--cwd", &cwd, &c.id, "cat", "../../etc/passwd"]);
            let output = c.finish(with_open_files(&c, &inner, HOST_DIRECTORIES));
            assert!(
                output.code != 0 && output.stdout.is_empty(),
                "{n}: {output:?}"
            );
        }
    }
}

/// Somebody in a container who gets hold of every program that is not the image's, and writes to it as soon as it runs no more.
struct Thief(Container);

impl Thief {
    fn new() -> Self {
        let c = Container::inside(&["steal"]);
        c.run_detached();
        c.wait_to_say("looking\n");
        Thief(c)
    }

    fn counts(&self, word: &str) -> usize {
        self.0.said().lines().filter(|line| *line == word).count()
    }

    /// `command` executes `/script` below `root`, which executes the runtime: it stands still until it has been got hold of.
    fn looks_at(&self, root: &Path, mut command: Command) {
        let log = root.join("log");
        fs::write(root.join("script"), "#!/proc/self/exe --log=/log\n").unwrap();
        shell(&format!(
            "chmod 755 {}/script; mkfifo {}",
            root.display(),
            log.display()
        ));
        let before = self.counts("held");
        let mut program = command.stderr(Stdio::null()).spawn().unwrap();
        eventually("it is got hold of", || {
            (self.counts("held") > before).then_some(())
        });
        File::open(log).unwrap();
        program.wait().unwrap();
        eventually("it was tried", || {
            let tried = self.counts("refused") + self.counts("written");
            (tried == self.counts("held")).then_some(())
        });
    }

    fn ends(self, digest: &str) {
        File::create(self.0.rootfs().join("stop")).unwrap();
        let said = self.0.wait_to_say("done\n");
        assert!(
            said.contains("refused") && !said.contains("written"),
            "{said}"
        );
        assert_eq!(digest_of_the_runtime(), digest);
    }
}

fn digest_of_the_runtime() -> String {
    shell(&format!("sha256sum {}", runtime().display()))
}

#[test]
fn the_runtimes_own_binary_cannot_be_written() {
    // CVE-2019-5736: an entrypoint that is the runtime itself, and someone inside who waits for it. Proved with the
    // binary as it lies there, without both places that execute it from elsewhere.
    let before = digest_of_the_runtime();
    let thief = Thief::new();
    let c = &thief.0;
    symlink("/proc/self/exe", c.rootfs().join("entry")).unwrap();
    for program in ["/proc/self/exe", "/entry"] {
        for _ in 0..10 {
            let _ = c.exec_with(&[], &[program, "--version"]);
        }
    }
    thief.looks_at(&c.rootfs(), c.command(&["exec", &c.id, "/script"]));
    thief.ends(&before);
}

#[test]
fn an_entrypoint_that_is_the_runtime_itself() {
    // CVE-2019-5736: the same of the first process of a container, beside one that waits for it. Proved in the same way.
    let before = digest_of_the_runtime();
    let thief = Thief::new();
    for args in [&["/proc/self/exe", "--log=/log", "none"][..], &["/script"]] {
        let mut c = Container::with_args(args);
        let namespaces = c.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        let path = format!("/proc/{}/ns/pid", thief.0.pid());
        namespaces.push(json!({ "type": "pid", "path": path }));
        thief.looks_at(&c.rootfs(), c.bundle_command("run", &[]));
        c.assert_nothing_left();
    }
    thief.ends(&before);
}

#[test]
fn a_proc_that_is_a_symlink_is_refused() {
    // CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867. Proved with links that are followed.
    for name in ["proc", "sys"] {
        let c = Container::new("cat /proc/sys/kernel/hostname > /dev/null; echo ran");
        let fake = c.rootfs().join("fake");
        fs::create_dir_all(fake.join("self/attr")).unwrap();
        fs::remove_dir(c.rootfs().join(name)).unwrap();
        symlink("/fake", c.rootfs().join(name)).unwrap();
        let output = c.run();
        assert!(
            output.code == 1 && output.message().contains(name),
            "{output:?}"
        );
        assert!(
            output
                .message()
                .contains("must be mounted on ordinary directory"),
            "{output:?}"
        );
        c.assert_nothing_left();
    }
}

#[test]
fn something_else_mounted_on_proc_is_refused() {
    // CVE-2019-16884. Proved without the look at what covers /proc.
    for kind in ["tmpfs", "bind"] {
        let mut c = Container::new("echo ran");
        let source = c.dir().join("fake");
        fs::create_dir_all(source.join("self/attr")).unwrap();
        c.set("/mounts/0", json!({ "destination": "/proc", "type": kind, "source": source, "options": if kind == "bind" { vec!["bind"] } else { vec![] } }));
        let output = c.run();
        assert!(
            output.code == 1 && output.message().contains("/proc"),
            "{kind}: {output:?}"
        );
        c.assert_nothing_left();
    }
}

#[test]
fn exec_cannot_be_watched_by_the_container() {
    // CVE-2016-9962: while it is still the runtime's, the joining process is not dumpable, and holds nothing of the host. Proved with descriptors
    // that are not closed; who may not trace others sees them only where it is dumpable too.
    requires!(
        is_coracle(),
        "runc's own program is seen as it starts in the container"
    );
    for may_trace in [false, true] {
        let mut c = Container::inside(&["watch"]);
        for set in ["bounding", "effective", "permitted"] {
            if may_trace {
                c.push(
                    &format!("/process/capabilities/{set}"),
                    json!("CAP_SYS_PTRACE"),
                );
            }
        }
        c.run_detached();
        c.wait_to_say("looking\n");
        for _ in 0..20 {
            c.exec("true").ok();
        }
        File::create(c.rootfs().join("stop")).unwrap();
        let said = c.wait_to_say("done\n");
        assert!(!said.contains("host file"), "{may_trace}: {said}");
    }
}

#[test]
fn ptrace_files_of_the_state_root_are_not_visible() {
    let c = Container::new("cat /proc/1/environ | tr '\\0' '\\n'; cat /proc/1/cmdline");
    let mut command = c.bundle_command("run", &[]);
    command.env("SECRET", "of the host");
    assert!(!c.to_files(command).stdout.contains("of the host"));
}

#[test]
fn a_huge_passwd_file_does_no_harm() {
    // GO-2026-5475, CVE-2026-47262: bounded, and regular files only. Proved without the bound, and with an open(2) that waits for a fifo.
    let c = Container::new("echo $HOME");
    let passwd = c.rootfs().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
    requires!(is_coracle(), "runc reads a terabyte of zeros");
    assert_eq!(c.run().ok(), "/\n");
    fs::remove_file(&passwd).unwrap();
    shell(&format!("mkfifo {}", passwd.display()));
    assert_eq!(c.run().ok(), "/\n");
    fs::remove_file(&passwd).unwrap();
    symlink("/proc/self/fd/0", &passwd).unwrap();
    assert_eq!(c.run().ok(), "/\n");
}
