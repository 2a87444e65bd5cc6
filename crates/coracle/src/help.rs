//! `--help` and `--version`, made from the table of commands, laid out as runc's.

use std::fmt::Write as _;

use crate::flags::{Flag, Kind};
use crate::table::{Command, GLOBAL, commands};

/// What the program is, in one paragraph and an example.
pub(crate) const ABOUT: &str = "\
Coracle runs containers as the Open Container Initiative (OCI) describes them: a
bundle is a directory with a configuration named \"config.json\" and a root
filesystem. It stands in for runc under container engines such as podman, and can
be used by hand:

    # coracle run [ -b bundle ] <container-id>

where \"<container-id>\" is a name that no other container on this machine has. The
bundle is the current directory when \"-b\" is not given.
";

/// The version of the runtime specification that is implemented.
const SPEC_VERSION: &str = "1.3.0";

/// `coracle --version`.
pub(crate) fn version() -> String {
    format!("coracle version {}\n", version_lines())
}

fn version_lines() -> String {
    format!(
        "{}\ncommit: {}\nspec: {SPEC_VERSION}",
        env!("CARGO_PKG_VERSION"),
        env!("CORACLE_COMMIT")
    )
}

/// `coracle --help`.
pub(crate) fn global() -> String {
    let commands = commands().map(|command| {
        let names = std::iter::once(command.name).chain(command.aliases.iter().copied());
        (
            names.collect::<Vec<_>>().join(", "),
            command.summary.to_owned(),
        )
    });
    format!(
        "NAME:\n   coracle - Open Container Initiative runtime\n\n{ABOUT}\
         \nUSAGE:\n   coracle [global options] command [command options] [arguments...]\n\
         \nVERSION:\n   {}\n\
         \nCOMMANDS:\n{}\
         \nGLOBAL OPTIONS:\n{}",
        version_lines(),
        columns(commands.collect()),
        columns(GLOBAL.iter().map(flag).collect()),
    )
}

/// `coracle COMMAND --help`.
pub(crate) fn command(command: &Command) -> String {
    let mut text = format!(
        "NAME:\n   coracle {} - {}\n\nUSAGE:\n   coracle {}",
        command.name, command.summary, command.name
    );
    if !command.flags.is_empty() {
        text.push_str(" [command options]");
    }
    let _ = writeln!(text, " {}", command.args);
    if !command.description.is_empty() {
        text.push_str("\nDESCRIPTION:\n");
        for line in command.description.lines() {
            let _ = writeln!(text, "{}", format!("   {line}").trim_end());
        }
    }
    if !command.flags.is_empty() {
        let _ = write!(
            text,
            "\nOPTIONS:\n{}",
            columns(command.flags.iter().map(flag).collect())
        );
    }
    text.replace(" \n", "\n")
}

/// A flag's two columns: `--bundle value, -b value` and what it is for.
fn flag(flag: Flag) -> (String, String) {
    let value = if flag.kind == Kind::Switch {
        ""
    } else {
        " value"
    };
    let name = |name: &str| format!("{}{name}{value}", if name.len() == 1 { "-" } else { "--" });
    let names = flag.names().map(name).collect::<Vec<_>>().join(", ");
    (names, usage(flag))
}

/// What a flag is for, with the value that it has when it is not given.
pub(crate) fn usage(flag: Flag) -> String {
    match (flag.default(), flag.kind) {
        ("", _) => flag.usage.to_owned(),
        (default, Kind::Text) => format!("{} (default: {default:?})", flag.usage),
        (default, _) => format!("{} (default: {default})", flag.usage),
    }
}

fn columns(rows: Vec<(String, String)>) -> String {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    rows.iter()
        .map(|(left, right)| format!("   {left:width$}  {right}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_are_what_engines_look_for() {
        assert!(global().starts_with("NAME:\n   coracle - "));
        for each in commands() {
            let help = command(each);
            assert!(
                help.starts_with(&format!("NAME:\n   coracle {} - ", each.name)),
                "{help}"
            );
            assert!(help.lines().all(|line| !line.ends_with(' ')), "{help}");
        }
        assert!(version().starts_with("coracle version "));
        assert!(version().contains("\nspec: 1.3.0\n"));
    }

    #[test]
    fn flags_are_listed_with_all_their_names() {
        let create = command(commands().find(|each| each.name == "create").unwrap());
        assert!(create.contains("   --bundle value, -b value  "), "{create}");
        assert!(create.contains(" (default: 0)\n"), "{create}");
    }
}
