//! Signals as people and engines name them.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// The real-time signals as the kernel, Go and shells number them; a libc keeps some of the first for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal given as a number, `NAME` or `SIGNAME` in any case, `RTMIN+n` or `RTMAX-n`. 0 only asks whether
/// the process is there.
pub(crate) fn parse(text: &str) -> Result<i32, String> {
    let number = match text.parse() {
        Ok(number) => Some(number),
        Err(_) => {
            let name = text.to_ascii_uppercase();
            named(name.strip_prefix("SIG").unwrap_or(&name))
        }
    };
    number
        .filter(|number| (0..=RTMAX).contains(number))
        .ok_or_else(|| format!("unknown signal {text:?}"))
}

/// `SIGTERM` for 15; real-time signals keep their number.
#[cfg(feature = "image")]
pub(crate) fn name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.to_string())
}

fn named(name: &str) -> Option<i32> {
    let offset = |text: &str, sign| match text.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<i32>().ok(),
        Some(_) => None,
        None => text.is_empty().then_some(0),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return RTMIN
            .checked_add(offset(rest, '+')?)
            .filter(|number| *number <= RTMAX);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return RTMAX
            .checked_sub(offset(rest, '-')?)
            .filter(|number| *number >= RTMIN);
    }
    let name = match name {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        name => name,
    };
    Signal::from_str(&format!("SIG{name}"))
        .ok()
        .map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_known() {
        for (text, number) in [
            ("9", 9),
            ("0", 0),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("Usr1", 10),
            ("WINCH", 28),
            ("CLD", 17),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax", 64),
            ("RTMAX-1", 63),
            ("37", 37),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn others_are_refused_in_runcs_words() {
        for text in [
            "",
            "FOO",
            "SIG",
            "SIGSIGKILL",
            "-9",
            "65",
            "RTMIN+31",
            "RTMIN-1",
            "RTMIN++1",
            "RTMAX+1",
            "9x",
        ] {
            assert_eq!(
                parse(text),
                Err(format!("unknown signal {text:?}")),
                "{text}"
            );
        }
    }
}
