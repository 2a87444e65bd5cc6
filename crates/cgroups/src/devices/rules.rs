//! Device rules as parsed, and as the lists that v1 takes.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::FIELD;
use crate::{Error, Result};

/// `mknod`, by the kernel's BPF_DEVCG_ACC_MKNOD.
pub(super) const MKNOD: u32 = 1;
/// `read`, BPF_DEVCG_ACC_READ.
pub(super) const READ: u32 = 2;
/// `write`, BPF_DEVCG_ACC_WRITE.
pub(super) const WRITE: u32 = 4;
pub(super) const ALL: u32 = MKNOD | READ | WRITE;

/// Block or character; the numbers are the kernel's BPF_DEVCG_DEV_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Block = 1,
    Char = 2,
}

/// The devices of a rule; `None` stands for every value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

const EVERYTHING: Set = Set {
    kind: None,
    major: None,
    minor: None,
};

/// One rule: `access` to these devices is allowed or denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) set: Set,
    /// Bits of [`MKNOD`], [`READ`] and [`WRITE`], at least one.
    pub(super) access: u32,
}

impl Set {
    fn covers(&self, other: &Set) -> bool {
        fn one<T: PartialEq>(mine: Option<T>, other: Option<T>) -> bool {
            mine.is_none() || mine == other
        }
        one(self.kind, other.kind) && one(self.major, other.major) && one(self.minor, other.minor)
    }

    fn meets(&self, other: &Set) -> bool {
        fn one<T: PartialEq>(mine: Option<T>, other: Option<T>) -> bool {
            mine.is_none() || other.is_none() || mine == other
        }
        one(self.kind, other.kind) && one(self.major, other.major) && one(self.minor, other.minor)
    }
}

/// Reads the rules of the configuration; an error names the rule by its place.
pub(super) fn parse(wanted: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    wanted
        .iter()
        .enumerate()
        .map(|(i, rule)| parse_one(rule).map_err(|(key, problem)| bad(i, key, problem)))
        .collect()
}

fn bad(i: usize, key: &str, problem: String) -> Error {
    Error::config(format!("{FIELD}[{i}].{key}"), problem)
}

fn parse_one(wanted: &LinuxDeviceCgroup) -> Result<Rule, (&'static str, String)> {
    let kind = match wanted.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Char),
        Some(LinuxDeviceType::P) => {
            return Err((
                "type",
                "a fifo is not a device that can be controlled".into(),
            ));
        }
    };
    let number = |key, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n)
            .map(Some)
            .map_err(|_| (key, format!("{n} is not a device number"))),
    };
    let mut access = 0;
    for letter in wanted.access().as_deref().unwrap_or_default().chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(("access", format!("{letter:?} is none of r, w and m"))),
        };
    }
    // The specification leaves open what no access at all means; every runtime takes it for all.
    let access = if access == 0 { ALL } else { access };
    let set = Set {
        kind,
        major: number("major", wanted.major())?,
        minor: number("minor", wanted.minor())?,
    };
    Ok(Rule {
        allow: wanted.allow(),
        set,
        access,
    })
}

/// The lines for v1, each with its file. v1 knows one default and a list of exceptions from it; it takes a rule that
/// would make a hole in an exception, or remove several at once, without an error and without effect. So the final list
/// is worked out here and written as a whole.
///
/// # Errors
/// For a rule that excepts some devices from a wider exception, which v1 cannot express.
pub(super) fn legacy(rules: &[Rule]) -> Result<Vec<(&'static str, String)>> {
    let mut default_allow = false;
    let mut exceptions: Vec<(Set, u32)> = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        if rule.set == EVERYTHING && rule.access == ALL {
            default_allow = rule.allow;
            exceptions.clear();
        } else if rule.allow != default_allow {
            match exceptions.iter_mut().find(|(set, _)| *set == rule.set) {
                Some((_, access)) => *access |= rule.access,
                None => exceptions.push((rule.set, rule.access)),
            }
        } else {
            for (set, access) in &mut exceptions {
                if rule.set.covers(set) {
                    *access &= !rule.access;
                } else if rule.set.meets(set) && *access & rule.access != 0 {
                    let problem = "cannot be taken out of an earlier, wider rule on cgroup v1";
                    return Err(Error::config(format!("{FIELD}[{i}]"), problem));
                }
            }
            exceptions.retain(|(_, access)| *access != 0);
        }
    }
    let (default, except) = if default_allow {
        ("devices.allow", "devices.deny")
    } else {
        ("devices.deny", "devices.allow")
    };
    let mut lines = vec![(default, "a".to_owned())];
    for (set, access) in exceptions {
        // A line with type `a` means everything to v1, whatever numbers follow.
        let kinds = match set.kind {
            Some(Kind::Block) => "b",
            Some(Kind::Char) => "c",
            None => "bc",
        };
        lines.extend(kinds.chars().map(|kind| (except, line(kind, set, access))));
    }
    Ok(lines)
}

fn line(kind: char, set: Set, access: u32) -> String {
    let number = |value: Option<u32>| value.map_or("*".to_owned(), |n| n.to_string());
    format!(
        "{kind} {}:{} {}",
        number(set.major),
        number(set.minor),
        letters(access)
    )
}

fn letters(access: u32) -> String {
    let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    letters
        .iter()
        .filter(|(bit, _)| access & bit != 0)
        .map(|(_, letter)| letter)
        .collect()
}

/// See [`super::allowed`].
pub(super) fn patterns(rules: &[Rule]) -> Option<Vec<(String, String)>> {
    let mut found = Some(Vec::new());
    for rule in rules {
        match &mut found {
            _ if rule.set == EVERYTHING && rule.access == ALL => {
                found = (!rule.allow).then(Vec::new);
            }
            Some(found) if rule.allow => {
                for (kind, name) in [(Kind::Block, "block"), (Kind::Char, "char")] {
                    if rule.set.kind.is_some_and(|only| only != kind) {
                        continue;
                    }
                    let pattern = match (rule.set.major, rule.set.minor) {
                        (Some(major), Some(minor)) => format!("/dev/{name}/{major}:{minor}"),
                        (Some(major), None) => format!("{name}-{major}"),
                        (None, _) => format!("{name}-*"),
                    };
                    found.push((pattern, letters(rule.access)));
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `+c 1:3 rwm` allows, `-` denies.
    pub(in crate::devices) fn rule(text: &str) -> Rule {
        let (sign, rest) = text.split_at(1);
        let fields: Vec<_> = rest.split([' ', ':']).collect();
        let number = |text: &str| text.parse().ok();
        let kind = match fields[0] {
            "b" => Some(Kind::Block),
            "c" => Some(Kind::Char),
            _ => None,
        };
        let bits = [("r", READ), ("w", WRITE), ("m", MKNOD)];
        let access = bits
            .iter()
            .filter(|(letter, _)| fields[3].contains(letter))
            .map(|(_, bit)| bit)
            .sum();
        Rule {
            allow: sign == "+",
            set: Set {
                kind,
                major: number(fields[1]),
                minor: number(fields[2]),
            },
            access,
        }
    }

    fn lines(rules: &[&str]) -> Result<Vec<String>> {
        let rules: Vec<_> = rules.iter().map(|text| rule(text)).collect();
        Ok(legacy(&rules)?
            .into_iter()
            .map(|(file, line)| format!("{file} {line}"))
            .collect())
    }

    #[test]
    fn the_usual_list() {
        let lines = lines(&["-a *:* rwm", "+c 1:3 rw", "+c 1:3 m", "+c *:* m"]).unwrap();
        assert_eq!(
            lines,
            [
                "devices.deny a",
                "devices.allow c 1:3 rwm",
                "devices.allow c *:* m"
            ]
        );
    }

    #[test]
    fn type_a_with_numbers_is_not_everything() {
        let lines = lines(&["+a 1:3 r"]).unwrap();
        assert_eq!(
            lines,
            [
                "devices.deny a",
                "devices.allow b 1:3 r",
                "devices.allow c 1:3 r"
            ]
        );
    }

    #[test]
    fn later_rules_take_back() {
        let first = lines(&[
            "+c 1:3 rw",
            "+c 1:5 r",
            "+b 8:0 r",
            "-c 1:* w",
            "-b *:* rwm",
        ])
        .unwrap();
        assert_eq!(
            first,
            [
                "devices.deny a",
                "devices.allow c 1:3 r",
                "devices.allow c 1:5 r"
            ]
        );
        let second = lines(&["+a *:* rwm", "-c 1:3 w", "-c 1:5 r", "+c 1:5 rwm"]).unwrap();
        assert_eq!(second, ["devices.allow a", "devices.deny c 1:3 w"]);
    }

    #[test]
    fn a_hole_in_a_wider_rule_is_an_error() {
        let error = lines(&["+c 1:* rw", "-c 1:3 w"]).unwrap_err().to_string();
        assert!(
            error.starts_with("linux.resources.devices[1]: cannot be taken out"),
            "{error}"
        );
        assert!(lines(&["+c 1:* r", "-c 1:3 w"]).is_ok());
    }

    #[test]
    fn parse_names_the_rule() {
        let parse =
            |json: &str| parse(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap());
        let rules = parse(
            r#"[{"allow":false},{"allow":true,"type":"c","major":1,"minor":-1,"access":"rw"}]"#,
        )
        .unwrap();
        assert_eq!(rules, [rule("-a *:* rwm"), rule("+c 1:* rw")]);
        let error = parse(r#"[{"allow":true,"access":"rx"}]"#)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "linux.resources.devices[0].access: 'x' is none of r, w and m"
        );
    }
}
