//! `completion`: the lines of shell that make a shell complete commands, flags, containers and images, and the answers to what they ask.

use super::{Invocation, answer};
use crate::flags::{Flag, Flags, Kind, Order, Table};
use crate::table::{self, Command, GLOBAL};
use crate::{Failure, Outcome};

const BASH: &str = include_str!("completion/coracle.bash");
const ZSH: &str = include_str!("completion/_coracle");
const FISH: &str = include_str!("completion/coracle.fish");

pub(crate) fn completion(invocation: &Invocation<'_>) -> Outcome {
    let (shell, words) = (invocation.id(), &invocation.flags.args[1..]);
    match shell {
        "bash" => answer(BASH),
        "zsh" => answer(ZSH),
        "fish" => answer(FISH),
        "of" => answer(&lines(&candidates(words))),
        _ => Err(Failure::new(format!(
            "write a completion: {shell:?} is none of bash, zsh and fish"
        ))),
    }
}

/// What may stand for a word, and what it is for.
type Candidate = (String, &'static str);

fn lines(candidates: &[Candidate]) -> String {
    candidates
        .iter()
        .map(|(word, use_of_it)| format!("{word}\t{use_of_it}\n"))
        .collect()
}

/// What may stand for the last of the words behind the program's name. Nothing means the name of a file.
fn candidates(words: &[String]) -> Vec<Candidate> {
    let Some((current, before)) = words.split_last() else {
        return Vec::new();
    };
    let globals = Progress::of(GLOBAL, Order::FlagsFirst, before);
    let mut found = match globals.arguments.split_first() {
        None => globals.flags_or(current, commands),
        Some((name, rest)) => {
            let Some(command) = table::command(name) else {
                return Vec::new();
            };
            let before_command = &before[..before.len() - globals.arguments.len()];
            let progress = Progress::of(command.flags, command.order, rest.iter().copied());
            progress.flags_or(current, || {
                arguments(command, progress.arguments.len(), before_command)
            })
        }
    };
    found.retain(|(word, _)| word.starts_with(current.as_str()));
    found
}

/// What the words before the current one have used up of a command line.
struct Progress<'a> {
    table: Table,
    /// The last word was a flag that waits for its value.
    awaits_value: bool,
    /// What follows is no flag, whatever it looks like.
    flags_ended: bool,
    arguments: Vec<&'a String>,
}

impl<'a> Progress<'a> {
    fn of(table: Table, order: Order, words: impl IntoIterator<Item = &'a String>) -> Self {
        let mut progress = Progress {
            table,
            awaits_value: false,
            flags_ended: false,
            arguments: Vec::new(),
        };
        for word in words {
            let name = word.trim_start_matches('-');
            if std::mem::take(&mut progress.awaits_value) {
                continue;
            }
            if progress.flags_ended || name.len() == word.len() {
                progress.arguments.push(word);
                progress.flags_ended |= !matches!(order, Order::Mixed);
            } else if name.is_empty() {
                progress.flags_ended = true;
            } else {
                let flag = table.find(name);
                progress.awaits_value = flag.is_some_and(|flag| flag.kind != Kind::Switch);
            }
        }
        progress
    }

    /// Flags where the current word begins like one, nothing where it is a flag's value, else what the arguments are.
    fn flags_or(
        &self,
        current: &str,
        arguments: impl FnOnce() -> Vec<Candidate>,
    ) -> Vec<Candidate> {
        match current.starts_with('-') && !self.flags_ended {
            _ if self.awaits_value => Vec::new(),
            false => arguments(),
            true => {
                let names = |flag: Flag| {
                    let name = flag.name();
                    let dashes = if name.len() == 1 { "-" } else { "--" };
                    (format!("{dashes}{name}"), flag.usage)
                };
                self.table.iter().map(names).collect()
            }
        }
    }
}

fn commands() -> Vec<Candidate> {
    table::commands()
        .map(|command| (command.name.to_owned(), command.summary))
        .collect()
}

/// What the usage line of a command has at a place among its arguments: words that stand there as they are, or the names of what is
/// meant.
fn arguments(command: &Command, place: usize, before_command: &[String]) -> Vec<Candidate> {
    let mut found = Vec::new();
    for usage in command.args.split(" || ") {
        let words: Vec<&str> = usage.split_whitespace().collect();
        let repeated = words.last().filter(|word| word.ends_with("...]"));
        let Some(word) = words.get(place).or(repeated) else {
            continue;
        };
        match word.starts_with(['<', '[']) {
            false if !word.starts_with('-') => found.push((word.to_string(), "")),
            true if *word == "[command]" && place == 0 => found.extend(commands()),
            _ => found.extend(names(word, before_command)),
        }
    }
    found
}

/// The names of the containers or images there are, as far as they can be read: a completion has nobody to complain to.
fn names(word: &str, before_command: &[String]) -> Vec<Candidate> {
    let Ok(globals) = Flags::parse(GLOBAL, before_command.to_vec(), Order::FlagsFirst) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if word.contains("container") {
        let end = if word.contains(":<path>") { ":" } else { "" };
        found.extend(
            containers(&globals)
                .into_iter()
                .map(|name| (name + end, "container")),
        );
    }
    #[cfg(feature = "image")]
    if word.contains("image") {
        found.extend(images(&globals).into_iter().map(|name| (name, "image")));
    }
    found
}

/// By their ids, and those of images below the same state root by their names.
fn containers(globals: &Flags) -> Vec<String> {
    let Ok(settings) = super::settings::from(globals) else {
        return Vec::new();
    };
    let listed = runtime::list(&settings).unwrap_or_default();
    #[cfg_attr(
        not(feature = "image"),
        expect(unused_mut, reason = "images add theirs")
    )]
    let mut names: Vec<String> = listed.into_iter().map(|state| state.id).collect();
    #[cfg(feature = "image")]
    if let Ok(store) = super::settings::store(globals) {
        let mut of_images = crate::containers::Containers::of(&store)
            .list()
            .unwrap_or_default();
        of_images.retain(|container| container.record.root == settings.root);
        names.retain(|id| !of_images.iter().any(|container| container.record.id == *id));
        names.extend(of_images.into_iter().map(|container| container.record.name));
    }
    names
}

#[cfg(feature = "image")]
fn images(globals: &Flags) -> Vec<String> {
    let images = super::settings::store(globals)
        .ok()
        .and_then(|store| image::Store::open(&store).ok()?.images().ok())
        .unwrap_or_default();
    images
        .into_iter()
        .flat_map(|image| image.names)
        .filter_map(|name| Some(name.parse::<image::Reference>().ok()?.familiar()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The candidates for the last word of a line.
    fn of(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        candidates(&words)
            .into_iter()
            .map(|(word, _)| word)
            .collect()
    }

    #[test]
    fn commands_and_the_flags_before_them() {
        assert_eq!(
            of("sta"),
            [
                "start",
                "state",
                #[cfg(feature = "image")]
                "stats"
            ]
        );
        assert_eq!(of("--log-f"), ["--log-format"]);
        assert_eq!(of("--log-format json crea"), ["create"]);
        assert_eq!(of("--debug --ro"), ["--root", "--rootless"]);
        assert!(of("--log ").is_empty(), "that is a file");
        assert!(of("nothing ").is_empty());
        assert!(of("").len() > 10);
    }

    #[test]
    fn flags_of_a_command_until_another_command_line_begins() {
        assert_eq!(of("create --bu"), ["--bundle"]);
        assert_eq!(of("create id --bu"), ["--bundle"]);
        assert!(of("create id --bundle ").is_empty(), "that is a directory");
        assert_eq!(of("exec --cw"), ["--cwd"]);
        assert!(of("exec id --cw").is_empty());
        assert!(of("create --bundle --pid").is_empty(), "that is a value");
        assert_eq!(of("create --bundle=x --pid-"), ["--pid-file"]);
        assert!(of("create -- --bu").is_empty());
    }

    #[test]
    fn words_that_the_usage_line_names() {
        assert_eq!(of("completion "), ["bash", "zsh", "fish"]);
        assert_eq!(of("help pau"), ["pause"]);
        #[cfg(feature = "network")]
        assert_eq!(of("network re"), ["reload"]);
    }
}
