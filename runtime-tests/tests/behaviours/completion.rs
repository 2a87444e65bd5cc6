//! What shells complete, asked as bash asks: through the function that `completion bash` defines.

use std::process::Command;

use runtime_tests::{Container, is_coracle, requires, runtime, shell};

const SHELL: &str = r#"
. <("$0" completion bash)
COMP_LINE=$1 COMP_POINT=${#1}
compopt() { :; }
_coracle
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// What bash would offer at the end of a line, in which the program is `coracle`.
fn offered(c: &Container, line: &str) -> Vec<String> {
    let program = runtime().to_str().expect("a path in UTF-8");
    let line = line.replacen("coracle", program, 1);
    let mut command = Command::new("bash");
    command.args(["-c", SHELL, program, &line]);
    let offered = c.finish(command).ok();
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn commands_flags_and_containers() {
    requires!(is_coracle(), "Coracle's completion");
    let c = Container::idle();
    c.run_detached();
    assert_eq!(offered(&c, "coracle pau"), ["pause"]);
    assert_eq!(
        offered(&c, "coracle --log-format=json create --pid"),
        ["--pidfd-socket", "--pid-file"]
    );
    let root = c.state_root().display();
    assert_eq!(
        offered(&c, &format!("coracle --root {root} state ")),
        [c.id.as_str()]
    );
    assert_eq!(
        offered(&c, &format!("coracle --root {root} state /")),
        [""],
        "nothing, for which bash then offers files"
    );
}

#[test]
fn the_shells_understand_it() {
    requires!(is_coracle(), "Coracle's completion");
    let c = Container::idle();
    for name in ["bash", "zsh", "fish"] {
        let text = c.runtime(&["completion", name]).ok();
        assert!(text.contains("coracle completion") || text.contains("completion of"));
        if shell(&format!("command -v {name} || true")).is_empty() {
            println!("{name} is not installed: its completion was not parsed");
            continue;
        }
        let mut command = Command::new(name);
        let file = c.dir().join(name);
        std::fs::write(&file, text).expect("a file in the test's directory");
        command.arg("-n").arg(file);
        assert_eq!(c.finish(command).ok(), "");
    }
    c.runtime(&["completion", "csh"]).fails_with(
        1,
        "write a completion: \"csh\" is none of bash, zsh and fish",
    );
}

#[test]
fn each_command_has_a_manual_page() {
    requires!(is_coracle(), "Coracle's manual pages");
    let c = Container::idle();
    let overview = c.runtime(&["man"]).ok();
    assert!(overview.contains(".SH EXIT STATUS\n"), "{overview}");
    let create = c.runtime(&["man", "create"]).ok();
    assert!(create.contains("\\fB\\-\\-bundle\\fR"), "{create}");
    c.runtime(&["man", "nonsense"])
        .fails_with(3, "No help topic for 'nonsense'");
}
