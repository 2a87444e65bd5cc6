//! Flags in the syntax of Go's `flag` package, which every engine that calls runc writes: `-flag` and `--flag` are the same,
//! a value follows as `=value` or as the next argument, `--` ends the flags.

use std::time::Duration;

use crate::values;

/// One flag, as the table of commands declares it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// `name,other,spellings=default`; see [`Flag::names`] and [`Flag::default`].
    spelling: &'static str,
    /// What kind of value it takes.
    pub(crate) kind: Kind,
    /// One sentence for people.
    pub(crate) usage: &'static str,
}

/// What kind of value a flag takes. Values are checked while they are parsed, so that reading them cannot fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// None: the flag is given or not, or given as `=true` or `=false`.
    Switch,
    /// Any text. Empty is the same as not given.
    Text,
    /// Any text; the flag can be given several times.
    List,
    /// A whole number, from the first to the second of these.
    Number(i64, i64),
    /// Whole numbers between these; the flag can be given several times.
    Numbers(i64, i64),
    /// A number of bytes with an optional `k`, `m`, `g`…, or -1.
    Size,
    /// `5s`, `1m30s`.
    Duration,
}

/// The flags of one command, made by [`flags!`]. A static file relocates every address among its constants at each start, so the program has
/// one text for all of them, and where in it each one's parts lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    text: &'static str,
    entries: &'static [Entry],
}

/// One flag of a table: its spelling lies in the text from `start` to `middle`, its usage from there to `end`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    kind: Kind,
    start: u16,
    middle: u16,
    end: u16,
}

/// A [`Table`] of a list of flags.
macro_rules! flags {
    ($($flag:expr),* $(,)?) => {{
        const FLAGS: &[$crate::flags::Flag] = &[$($flag),*];
        const TEXT: [u8; $crate::flags::Table::text_length(FLAGS)] = $crate::flags::Table::text(FLAGS);
        const ENTRIES: [$crate::flags::Entry; FLAGS.len()] = $crate::flags::Table::entries(FLAGS);
        $crate::flags::Table::of(&TEXT, &ENTRIES)
    }};
}
pub(crate) use flags;

impl Table {
    /// What [`flags!`] has made of a list.
    pub(crate) const fn of(text: &'static [u8], entries: &'static [Entry]) -> Self {
        match str::from_utf8(text) {
            Ok(text) => Table { text, entries },
            Err(_) => panic!("flags are texts"),
        }
    }

    /// The bytes of all texts of these flags.
    pub(crate) const fn text_length(flags: &[Flag]) -> usize {
        let (mut length, mut index) = (0, 0);
        while index < flags.len() {
            length += flags[index].spelling.len() + flags[index].usage.len();
            index += 1;
        }
        length
    }

    /// All texts of these flags, one after the other.
    pub(crate) const fn text<const LENGTH: usize>(flags: &[Flag]) -> [u8; LENGTH] {
        let mut text = [0; LENGTH];
        let (mut rest, mut index) = (text.as_mut_slice(), 0);
        while index < flags.len() {
            let parts = [flags[index].spelling, flags[index].usage];
            let mut part = 0;
            while part < parts.len() {
                let (own, behind) = rest.split_at_mut(parts[part].len());
                own.copy_from_slice(parts[part].as_bytes());
                (rest, part) = (behind, part + 1);
            }
            index += 1;
        }
        text
    }

    /// Where the texts of these flags lie.
    pub(crate) const fn entries<const COUNT: usize>(flags: &[Flag]) -> [Entry; COUNT] {
        let none = Entry {
            kind: Kind::Switch,
            start: 0,
            middle: 0,
            end: 0,
        };
        let mut entries = [none; COUNT];
        let (mut start, mut index) = (0, 0);
        while index < COUNT {
            let middle = start + flags[index].spelling.len();
            let end = middle + flags[index].usage.len();
            assert!(end <= u16::MAX as usize, "too many texts");
            entries[index] = Entry {
                kind: flags[index].kind,
                start: start as u16,
                middle: middle as u16,
                end: end as u16,
            };
            (start, index) = (end, index + 1);
        }
        entries
    }

    /// Each flag.
    pub(crate) fn iter(self) -> impl Iterator<Item = Flag> + Clone {
        self.entries.iter().map(move |entry| Flag {
            spelling: &self.text[entry.start.into()..entry.middle.into()],
            kind: entry.kind,
            usage: &self.text[entry.middle.into()..entry.end.into()],
        })
    }

    /// Whether there is none.
    pub(crate) fn is_empty(self) -> bool {
        self.entries.is_empty()
    }

    /// The flag that is spelt like this.
    pub(crate) fn find(self, name: &str) -> Option<Flag> {
        self.iter().find(|flag| flag.has_name(name))
    }
}

impl Flag {
    /// A flag without a value.
    pub(crate) const fn switch(spelling: &'static str, usage: &'static str) -> Self {
        Flag::of(Kind::Switch, spelling, usage)
    }

    /// A flag with any text as its value.
    pub(crate) const fn text(spelling: &'static str, usage: &'static str) -> Self {
        Flag::of(Kind::Text, spelling, usage)
    }

    /// A flag with any text as its value that can be given several times.
    pub(crate) const fn list(spelling: &'static str, usage: &'static str) -> Self {
        Flag::of(Kind::List, spelling, usage)
    }

    /// A flag of another kind.
    pub(crate) const fn of(kind: Kind, spelling: &'static str, usage: &'static str) -> Self {
        Flag {
            spelling,
            kind,
            usage,
        }
    }

    /// The name that the code asks for, then other spellings.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> + Clone {
        self.parts().0.split(',')
    }

    /// The name that the code asks for.
    pub(crate) fn name(self) -> &'static str {
        let names = self.parts().0;
        names.split_once(',').map_or(names, |(first, _)| first)
    }

    /// The value when it is not given; nothing for none.
    pub(crate) fn default(self) -> &'static str {
        self.parts().1
    }

    /// Whether it is spelt like this.
    pub(crate) fn has_name(self, name: &str) -> bool {
        self.names().any(|own| own == name)
    }

    fn parts(self) -> (&'static str, &'static str) {
        self.spelling.split_once('=').unwrap_or((self.spelling, ""))
    }

    /// Checks a value. The error is Go's sentence.
    fn check(self, name: &str, value: &str) -> Result<(), String> {
        let problem = match self.kind {
            Kind::Text | Kind::List => None,
            Kind::Switch if boolean(value).is_some() => None,
            Kind::Switch => {
                return Err(format!(
                    "invalid boolean value {value:?} for -{name}: parse error"
                ));
            }
            Kind::Number(least, most) | Kind::Numbers(least, most) => match value.parse() {
                Ok(number) if (least..=most).contains(&number) => None,
                Ok(_) => Some("value out of range"),
                Err(_) => Some("parse error"),
            },
            Kind::Size => values::size(value).is_none().then_some("invalid size"),
            Kind::Duration => values::duration(value).is_none().then_some("parse error"),
        };
        problem.map_or(Ok(()), |problem| {
            Err(format!(
                "invalid value {value:?} for flag -{name}: {problem}"
            ))
        })
    }
}

/// Where flags may stand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Before the first positional argument: what follows belongs to another command line.
    FlagsFirst,
    /// Anywhere.
    Mixed,
    #[cfg(feature = "image")]
    /// Anywhere, unless the first positional argument is one behind which another command line begins.
    Decided(fn(&Flags, &str) -> bool),
}

impl Order {
    /// Whether a short flag's value may follow without a blank: in Docker's own command lines. For runc `-frob` is an unknown flag.
    fn has_attached_values(self) -> bool {
        !matches!(self, Order::FlagsFirst | Order::Mixed)
    }
}

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Flags {
    table: Table,
    given: Vec<(Flag, String)>,
    /// `--help` or `-h` was among them (for tables that do not declare it themselves).
    pub(crate) help: bool,
    /// The positional arguments.
    pub(crate) args: Vec<String>,
}

impl Flags {
    /// Parses arguments by a table. The error is Go's sentence, as scripts and engines know it.
    pub(crate) fn parse(table: Table, args: Vec<String>, order: Order) -> Result<Self, String> {
        let mut flags = Flags {
            table,
            given: Vec::new(),
            help: false,
            args: Vec::new(),
        };
        let mut rest = args.into_iter();
        while let Some(arg) = rest.next() {
            let Some(text) = arg.strip_prefix('-').filter(|text| !text.is_empty()) else {
                let ends_flags = match order {
                    Order::FlagsFirst => true,
                    Order::Mixed => false,
                    #[cfg(feature = "image")]
                    Order::Decided(decide) => flags.args.is_empty() && decide(&flags, &arg),
                };
                flags.args.push(arg);
                if ends_flags {
                    break;
                }
                continue;
            };
            if text == "-" {
                break;
            }
            let several = flags.several(text, order.has_attached_values());
            if !several.is_empty() {
                for text in several {
                    flags.add(&text, &mut rest)?;
                }
                continue;
            }
            let text = text.strip_prefix('-').unwrap_or(text);
            if text.starts_with(['-', '=']) {
                return Err(format!("bad flag syntax: {arg}"));
            }
            flags.add(text, &mut rest)?;
        }
        flags.args.extend(rest);
        Ok(flags)
    }

    /// What stands behind one dash, when it is no flag itself but several short ones in one (`-it`), the last perhaps with its value
    /// (`-dp8080:80`): each as [`Flags::add`] takes it. Go knows no such thing; people who type Docker's commands do.
    fn several(&self, text: &str, attached_values: bool) -> Vec<String> {
        let find = |name: &str| self.table.find(name);
        let mut found = Vec::new();
        if text.starts_with('-') || find(text.split('=').next().unwrap_or(text)).is_some() {
            return found;
        }
        for (at, letter) in text.char_indices() {
            let rest = &text[at + letter.len_utf8()..];
            match find(letter.encode_utf8(&mut [0; 4])) {
                None => return Vec::new(),
                Some(flag) if flag.kind == Kind::Switch => found.push(letter.to_string()),
                Some(_) if rest.is_empty() => found.push(letter.to_string()),
                Some(_) if !attached_values => return Vec::new(),
                // pflag: the value may have an equals sign in front.
                Some(_) => {
                    let value = rest.strip_prefix('=').unwrap_or(rest);
                    found.push(format!("{letter}={value}"));
                    break;
                }
            }
        }
        found
    }

    /// Adds one flag: `name` or `name=value`, its dashes taken off already.
    fn add(&mut self, text: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let Some(flag) = self.table.find(name) else {
            if matches!(name, "help" | "h") {
                self.help = value.is_none_or(|value| boolean(&value) != Some(false));
                return Ok(());
            }
            return Err(format!("flag provided but not defined: -{name}"));
        };
        let value = match value {
            Some(value) => value,
            None if flag.kind == Kind::Switch => "true".to_owned(),
            None => match rest.next() {
                Some(value) => value,
                // Where it is also a flag of the command's own.
                None if name == "h" => {
                    self.help = true;
                    return Ok(());
                }
                None => return Err(format!("flag needs an argument: -{name}")),
            },
        };
        flag.check(name, &value)?;
        self.given.push((flag, value));
        Ok(())
    }

    /// Whether a switch is on. The last one given counts.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.switch(name).unwrap_or(false)
    }

    /// Whether a switch was put on or off.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.text(name).and_then(boolean)
    }

    /// The value that was given last, or the default; `None` when both are empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.last(name).filter(|value| !value.is_empty())
    }

    /// The value that was given last, also when it is empty.
    #[cfg(feature = "image")]
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// The flags that were given, by their first names.
    #[cfg(feature = "image")]
    pub(crate) fn names_given(&self) -> impl Iterator<Item = &'static str> {
        self.given.iter().map(|(flag, _)| flag.name())
    }

    /// Like [`Flags::text`], as whatever the option structs want.
    pub(crate) fn get<T: for<'a> From<&'a str>>(&self, name: &str) -> Option<T> {
        self.text(name).map(T::from)
    }

    /// All values of a flag that can be given several times, in order.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.all(name).map(str::to_owned).collect()
    }

    /// A number, when there is one.
    pub(crate) fn number<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        T::try_from(self.last(name)?.parse().ok()?).ok()
    }

    /// All numbers of a flag that can be given several times, in order.
    pub(crate) fn numbers<T: TryFrom<i64>>(&self, name: &str) -> Vec<T> {
        self.all(name)
            .filter_map(|value| T::try_from(value.parse().ok()?).ok())
            .collect()
    }

    /// A number of bytes, -1 for no limit.
    pub(crate) fn size(&self, name: &str) -> Option<i64> {
        values::size(self.last(name)?)
    }

    /// A duration, when there is one.
    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        values::duration(self.last(name)?)
    }

    fn last(&self, name: &str) -> Option<&str> {
        let flag = self.table.iter().find(|flag| flag.name() == name);
        debug_assert!(flag.is_some(), "the table has no flag {name}");
        self.all(name).last().or_else(|| {
            flag.map(Flag::default)
                .filter(|default| !default.is_empty())
        })
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.given
            .iter()
            .filter(move |(flag, _)| flag.name() == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What Go's `strconv.ParseBool` accepts.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = flags![
        Flag::switch("force,f", ""),
        Flag::text("format=table", ""),
        Flag::text("bundle,b", ""),
        Flag::list("env,e", ""),
        Flag::of(Kind::Number(0, 100), "fds=0", ""),
        Flag::of(Kind::Numbers(0, i64::MAX), "gid,g", ""),
        Flag::of(Kind::Size, "memory", ""),
        Flag::of(Kind::Duration, "interval=5s", ""),
    ];

    fn parse(line: &str, order: Order) -> Result<Flags, String> {
        Flags::parse(
            TABLE,
            line.split_whitespace().map(str::to_owned).collect(),
            order,
        )
    }

    fn error(line: &str) -> String {
        parse(line, Order::Mixed).unwrap_err()
    }

    #[test]
    fn one_dash_is_as_good_as_two_and_values_come_either_way() {
        for line in [
            "-bundle /b",
            "--bundle /b",
            "-bundle=/b",
            "--bundle=/b",
            "-b /b",
            "-b=/b",
            "--b=/b",
        ] {
            assert_eq!(
                parse(line, Order::Mixed).unwrap().text("bundle"),
                Some("/b"),
                "{line}"
            );
        }
        assert_eq!(
            parse("--bundle --force", Order::Mixed)
                .unwrap()
                .text("bundle"),
            Some("--force")
        );
        assert_eq!(
            parse("--bundle a=b", Order::Mixed).unwrap().text("bundle"),
            Some("a=b")
        );
        assert_eq!(
            parse("--bundle=", Order::Mixed).unwrap().text("bundle"),
            None
        );
    }

    #[test]
    fn flags_may_follow_arguments_where_the_command_allows_it() {
        let flags = parse("id --force x", Order::Mixed).unwrap();
        assert!(flags.is_set("force"));
        assert_eq!(flags.args, ["id", "x"]);
        let flags = parse("--format json id ps --force", Order::FlagsFirst).unwrap();
        assert!(!flags.is_set("force"));
        assert_eq!(flags.args, ["id", "ps", "--force"]);
    }

    #[test]
    fn two_dashes_end_the_flags_and_one_is_an_argument() {
        let flags = parse("- --force -- --format -b", Order::Mixed).unwrap();
        assert!(flags.is_set("force"));
        assert_eq!(flags.args, ["-", "--format", "-b"]);
    }

    #[test]
    fn the_last_one_counts_and_lists_keep_all() {
        let flags = parse(
            "--format a --format b -e A=1 --env=B=2 -f --force=false -g 1 -g 2",
            Order::Mixed,
        )
        .unwrap();
        assert_eq!(flags.text("format"), Some("b"));
        assert_eq!(flags.list("env"), ["A=1", "B=2"]);
        assert_eq!(flags.numbers::<u32>("gid"), [1, 2]);
        assert!(!flags.is_set("force"));
    }

    #[test]
    fn defaults_hold_when_nothing_is_given() {
        let flags = parse("", Order::Mixed).unwrap();
        assert_eq!(flags.text("format"), Some("table"));
        assert_eq!(flags.text("bundle"), None);
        assert_eq!(flags.number::<u32>("fds"), Some(0));
        assert_eq!(flags.size("memory"), None);
        assert_eq!(flags.duration("interval"), Some(Duration::from_secs(5)));
        assert!(flags.list("env").is_empty() && !flags.is_set("force") && !flags.help);
    }

    #[test]
    fn short_flags_may_be_written_in_one() {
        let flags = parse("-fe A=1 id", Order::Mixed).unwrap();
        assert!(flags.is_set("force"));
        assert_eq!(flags.list("env"), ["A=1"]);
        assert_eq!(error("-fg7"), "flag provided but not defined: -fg7");
        assert_eq!(error("-fx"), "flag provided but not defined: -fx");
        assert_eq!(error("-fe"), "flag needs an argument: -e");
        assert_eq!(error("--fe A=1"), "flag provided but not defined: -fe");
    }

    #[cfg(feature = "image")]
    #[test]
    fn the_first_argument_may_decide() {
        let decide = Order::Decided(|_, first| first.contains('/'));
        let flags = parse("-fg7 -be=x a", decide).unwrap();
        assert_eq!(flags.numbers::<u32>("gid"), [7]);
        assert_eq!(flags.text("bundle"), Some("e=x"));
        let flags = parse("a/b --force c/d", decide).unwrap();
        assert_eq!(flags.args, ["a/b", "--force", "c/d"]);
        let flags = parse("a --force c/d -b x", decide).unwrap();
        assert!(flags.is_set("force") && flags.text("bundle") == Some("x"));
    }

    #[test]
    fn negative_numbers_are_values() {
        assert_eq!(
            parse("--memory -1", Order::Mixed).unwrap().size("memory"),
            Some(-1)
        );
        assert_eq!(
            parse("--memory=64m", Order::Mixed).unwrap().size("memory"),
            Some(64 << 20)
        );
    }

    #[test]
    fn help_is_known_to_every_command() {
        assert!(parse("--help", Order::Mixed).unwrap().help);
        assert!(parse("id -h", Order::Mixed).unwrap().help);
        assert!(!parse("id -h", Order::FlagsFirst).unwrap().help);
    }

    #[test]
    fn errors_are_gos_sentences() {
        assert_eq!(error("--nope"), "flag provided but not defined: -nope");
        assert_eq!(error("-nope=1"), "flag provided but not defined: -nope");
        assert_eq!(error("id -9"), "flag provided but not defined: -9");
        assert_eq!(error("--bundle"), "flag needs an argument: -bundle");
        assert_eq!(error("---x"), "bad flag syntax: ---x");
        assert_eq!(error("--=x"), "bad flag syntax: --=x");
        assert_eq!(
            error("-f=x"),
            "invalid boolean value \"x\" for -f: parse error"
        );
        assert_eq!(
            error("--fds x"),
            "invalid value \"x\" for flag -fds: parse error"
        );
        assert_eq!(
            error("--fds 101"),
            "invalid value \"101\" for flag -fds: value out of range"
        );
        assert_eq!(
            error("-g -1"),
            "invalid value \"-1\" for flag -g: value out of range"
        );
        assert_eq!(
            error("--memory 1x"),
            "invalid value \"1x\" for flag -memory: invalid size"
        );
        assert_eq!(
            error("--interval 5"),
            "invalid value \"5\" for flag -interval: parse error"
        );
    }
}
