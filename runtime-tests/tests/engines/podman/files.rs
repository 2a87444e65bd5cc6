//! What podman puts into a container: mounts of every kind, secrets, open files.

use std::fs;

use runtime_tests::requires;

use super::{IMAGE, engine, printed_with, version};

#[test]
fn mounts_by_the_long_flag() {
    let engine = engine!();
    let directory = engine.path("given");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("file"), "of the host\n").unwrap();
    let bind = format!("type=bind,source={},target=/given,ro", directory.display());
    let script = "cat /given/file; touch /given/x 2>/dev/null || echo read-only";
    assert_eq!(
        printed_with(&engine, &["--mount", &bind], script),
        "of the host\nread-only\n"
    );
    let tmpfs = "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770";
    let script = "stat -c %a /t; df -k /t | tail -n 1 | awk '{ print $2 }'; head -c 2m /dev/zero > /t/x 2>/dev/null || echo full";
    assert_eq!(
        printed_with(&engine, &["--mount", tmpfs], script),
        "1770\n1024\nfull\n"
    );
    let image = format!("type=image,source={IMAGE},target=/image");
    assert_eq!(
        printed_with(
            &engine,
            &["--mount", &image],
            "test -x /image/bin/sh && echo there"
        ),
        "there\n"
    );
    // The image's own content, then what the first container has written.
    let volume = "type=volume,source=kept,target=/etc";
    let script = "test -e /etc/passwd && echo copied; cat /etc/written 2>/dev/null; echo again > /etc/written";
    assert_eq!(
        printed_with(&engine, &["--mount", volume], script),
        "copied\n"
    );
    assert_eq!(
        printed_with(&engine, &["--mount", volume], script),
        "copied\nagain\n"
    );
}

#[test]
fn part_of_a_volume() {
    let engine = engine!();
    requires!(version(&engine) >= (5, 4), "podman has subpath since 5.4");
    let whole = "type=volume,source=kept,target=/v";
    printed_with(
        &engine,
        &["--mount", whole],
        "mkdir /v/part; echo in part > /v/part/file",
    );
    let part = format!("{whole},subpath=part");
    assert_eq!(
        printed_with(&engine, &["--mount", &part], "cat /v/file"),
        "in part\n"
    );
}

#[test]
fn secrets_are_files_or_variables() {
    let engine = engine!();
    let file = engine.path("secret");
    fs::write(&file, "hush").unwrap();
    engine
        .podman(&["secret", "create", "token", &file.to_string_lossy()])
        .ok();
    let script =
        "cat /run/secrets/token; stat -c ' %a' /run/secrets/token; grep -c hush /proc/mounts";
    let flags = ["--secret", "token,mode=0400"];
    assert_eq!(
        printed_with(&engine, &flags, &format!("{script}; true")),
        "hush 400\n0\n"
    );
    let flags = ["--secret", "token,type=env,target=TOKEN"];
    assert_eq!(printed_with(&engine, &flags, "echo $TOKEN"), "hush\n");
}

#[test]
fn open_files_are_handed_on() {
    let engine = engine!();
    fs::write(engine.path("one"), "one\n").unwrap();
    fs::write(engine.path("two"), "two\n").unwrap();
    // The command line that podman has, below a shell that opens files for it.
    let podman = engine.podman_command(&[
        "run",
        "--rm",
        "--preserve-fds=2",
        IMAGE,
        "sh",
        "-c",
        "cat <&3; cat <&4; ls /proc/self/fd | wc -l",
    ]);
    let words: Vec<String> = podman
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let at = words.iter().position(|word| word == "podman").unwrap();
    let script = "cd \"$HOME\"; exec 3<one 4<two; exec \"$@\"";
    let args = [
        &["-c", script, "sh"],
        &words[at..].iter().map(String::as_str).collect::<Vec<_>>()[..],
    ];
    let mut command = engine.command("sh", &args.concat());
    command.envs(
        podman
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    // ls itself opens the directory.
    assert_eq!(
        runtime_tests::finish(command, engine.dir()).ok(),
        "one\ntwo\n6\n"
    );
}
