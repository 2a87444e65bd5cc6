//! Values that people write with units.

use std::time::Duration;

/// A number of bytes as go-units' `RAMInBytes` reads it (`64m`, `1.5 GiB`, `100`), or -1 for no limit.
pub(crate) fn size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = if unit.len() == 2 {
        unit.strip_suffix('i')?
    } else {
        unit
    };
    let factor = match unit {
        "" => 1,
        "k" => 1_i64 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return None,
    };
    if let Some((whole, fraction)) = number.split_once('.') {
        let part = parts_of(factor as u64, fraction)? as i64;
        return whole
            .parse::<i64>()
            .ok()?
            .checked_mul(factor)?
            .checked_add(part);
    }
    number.parse::<i64>().ok()?.checked_mul(factor)
}

/// A duration as Go's `time.ParseDuration` reads it (`5s`, `1m30s`, `1.5h`, `0`); negative ones are refused.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanoseconds = 0_u64;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) = after.split_at(
            after
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(after.len()),
        );
        let factor = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        if !number.contains(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole = if whole.is_empty() {
            0
        } else {
            whole.parse::<u64>().ok()?
        };
        nanoseconds = nanoseconds
            .checked_add(whole.checked_mul(factor)?)?
            .checked_add(parts_of(factor, fraction)?)?;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_nanos(nanoseconds))
}

/// The decimal fraction `0.digits` of `unit`, rounded down.
fn parts_of(unit: u64, digits: &str) -> Option<u64> {
    if digits.is_empty() {
        return Some(0);
    }
    let digits = digits.get(..digits.len().min(15))?;
    let numerator = u128::from(digits.parse::<u64>().ok()?);
    u64::try_from(u128::from(unit) * numerator / 10_u128.pow(digits.len() as u32)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("100b", 100),
            ("32k", 32 << 10),
            ("32KB", 32 << 10),
            ("32 kib", 32 << 10),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("0.1k", 102),
            ("2T", 2 << 40),
            ("1p", 1 << 50),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "-2",
            "1x",
            "1kk",
            "1i",
            "1  k",
            "1.2.3k",
            ".k",
            "1,5g",
            "9223372036854775808",
            "9000p",
            "é",
            "1é",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("100ms", 100_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("2.s", 2_000_000_000),
            ("1m30s", 90_000_000_000),
            ("2h", 7_200_000_000_000),
            ("3us", 3_000),
            ("3µs", 3_000),
            ("7ns", 7),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_nanos(nanoseconds)),
                "{text}"
            );
        }
        for text in [
            "", "5", "s", "-5s", "5 s", "5x", "1m30", ".s", "9999999h", "1.é",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
