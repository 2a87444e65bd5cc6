//! `man`: the manual pages, from the same table as the help. Each is a page of section 8 in man(7)'s macros.

use std::fmt::Write as _;

use super::{Invocation, answer};
use crate::flags::{Kind, Table};
use crate::help::{ABOUT, usage};
use crate::table::{self, Command, GLOBAL};
use crate::{Outcome, no_such_command};

pub(crate) fn man(invocation: &Invocation<'_>) -> Outcome {
    let page = match invocation.flags.args.first() {
        None => overview(),
        Some(name) => page(table::command(name).ok_or_else(|| no_such_command(name))?),
    };
    answer(&page)
}

/// coracle(8).
fn overview() -> String {
    let mut page = head("coracle", "Open Container Initiative runtime");
    page.push_str(
        ".SH SYNOPSIS\n.B coracle\n[global options] \\fIcommand\\fR [command options] [arguments...]\n",
    );
    section(&mut page, "DESCRIPTION", ABOUT);
    page.push_str(".SH COMMANDS\n");
    for command in table::commands() {
        let _ = write!(
            page,
            ".TP\n.BR {} (8)\n{}\n",
            escaped(&format!("coracle-{}", command.name)),
            escaped(command.summary)
        );
    }
    options(&mut page, "GLOBAL OPTIONS", GLOBAL);
    for (title, entries) in [
        ("EXIT STATUS", EXIT_STATUS),
        ("ENVIRONMENT", ENVIRONMENT),
        ("FILES", FILES),
    ] {
        let _ = writeln!(page, ".SH {title}");
        for (name, text) in entries {
            let _ = write!(page, ".TP\n.B {}\n{}\n", escaped(name), escaped(text));
        }
    }
    page.push_str(
        ".SH SEE ALSO\nThe runtime specification: https://github.com/opencontainers/runtime\\-spec\n",
    );
    page
}

/// coracle-COMMAND(8).
fn page(command: &Command) -> String {
    let name = format!("coracle-{}", command.name);
    let mut page = head(&name, command.summary);
    page.push_str(".SH SYNOPSIS\n");
    for (at, arguments) in command.args.split(" || ").enumerate() {
        let _ = writeln!(
            page,
            "{}.B coracle {}\n{}{}",
            if at > 0 { ".br\n" } else { "" },
            command.name,
            if command.flags.is_empty() {
                ""
            } else {
                "[options] "
            },
            escaped(arguments.trim())
        );
    }
    if !command.description.is_empty() {
        section(&mut page, "DESCRIPTION", command.description);
    }
    if !command.flags.is_empty() {
        options(&mut page, "OPTIONS", command.flags);
    }
    page.push_str(".SH SEE ALSO\n.BR coracle (8)\n");
    page
}

/// No date: a page is the same whenever it is made.
fn head(name: &str, summary: &str) -> String {
    format!(
        ".TH {} 8 \"\" \"coracle {}\" \"System Manager's Manual\"\n.SH NAME\n{} \\- {}\n",
        escaped(&name.to_uppercase()),
        env!("CARGO_PKG_VERSION"),
        escaped(name),
        escaped(summary)
    )
}

/// Text as the table has it: what is indented is an example.
fn section(page: &mut String, title: &str, text: &str) {
    let _ = writeln!(page, ".SH {title}");
    let (mut in_example, mut ends_paragraph) = (false, false);
    for line in text.lines() {
        if line.is_empty() {
            ends_paragraph = true;
            continue;
        }
        let is_example = line.starts_with(' ');
        page.push_str(match (in_example, is_example) {
            (false, true) => ".PP\n.RS 4\n.EX\n",
            (true, false) => ".EE\n.RE\n.PP\n",
            _ if ends_paragraph => ".PP\n",
            _ => "",
        });
        (in_example, ends_paragraph) = (is_example, false);
        let _ = writeln!(page, "{}", escaped(line.trim_start()));
    }
    if in_example {
        page.push_str(".EE\n.RE\n");
    }
}

fn options(page: &mut String, title: &str, flags: Table) {
    let _ = writeln!(page, ".SH {title}");
    for flag in flags.iter() {
        let value = match flag.kind {
            Kind::Switch => "",
            _ => " \\fIvalue\\fR",
        };
        let name = |name: &str| {
            let dashes = if name.len() == 1 { "-" } else { "--" };
            format!("\\fB{}\\fR{value}", escaped(&format!("{dashes}{name}")))
        };
        let names = flag.names().map(name).collect::<Vec<_>>().join(", ");
        let _ = write!(page, ".TP\n{names}\n{}\n", escaped(&usage(flag)));
    }
}

/// Text that roff(7) prints as it is.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\(rs").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "the command did what it was asked for"),
    (
        "1",
        "it could not, and one sentence on standard error says why",
    ),
    ("3", "there is no such command"),
    ("125", "run could not make the container of an image"),
    (
        "126, 127",
        "the program in the container of an image cannot be executed, or is not there",
    ),
    (
        "other",
        "run and exec end with the status of the process, or 128 and the number of the signal that ended it",
    ),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "XDG_RUNTIME_DIR",
        "an ordinary user's containers have their state below it",
    ),
    (
        "XDG_DATA_HOME, HOME",
        "an ordinary user's images are below them",
    ),
    (
        "LISTEN_FDS, LISTEN_PID",
        "descriptors from 3 on that are handed on to the container",
    ),
    (
        "REGISTRY_AUTH_FILE, DOCKER_CONFIG",
        "file, and directory of the file, with the credentials for registries",
    ),
    (
        "SSL_CERT_FILE",
        "certificates that registries are verified against",
    ),
    (
        "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY",
        "proxy for registries, in small letters too",
    ),
    (
        "CNI_PATH, NETCONFPATH",
        "where network plugins and their configurations are",
    ),
    ("NO_COLOR", "no colours, also on a terminal"),
];

const FILES: &[(&str, &str)] = &[
    ("/run/coracle", "state of root's containers (--root)"),
    (
        "/var/lib/coracle",
        "root's images and what belongs to containers of images (--store)",
    ),
    ("~/.local/share/coracle", "the same for an ordinary user"),
    (
        "/etc/containers/certs.d, /etc/docker/certs.d",
        "certificates for each registry",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_the_overview_names_it() {
        let overview = overview();
        for command in table::commands() {
            let text = page(command);
            assert!(text.starts_with(".TH CORACLE\\-"), "{text}");
            assert!(!text.lines().any(|line| line.starts_with("'")), "{text}");
            let reference = format!(".BR coracle\\-{} (8)\n", escaped(command.name));
            assert!(overview.contains(&reference), "{reference}");
        }
    }

    #[test]
    fn text_is_printed_as_it_is() {
        assert_eq!(escaped(".a-b\\"), "\\&.a\\-b\\(rs");
        let mut page = String::new();
        section(&mut page, "X", "one\n\n    two\n\nthree");
        assert_eq!(
            page,
            ".SH X\none\n.PP\n.RS 4\n.EX\ntwo\n.EE\n.RE\n.PP\nthree\n"
        );
    }
}
