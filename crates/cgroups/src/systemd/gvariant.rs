//! Values in GVariant text format, in which annotations give unit properties: `uint64 5000000`, `'inactive-or-failed'`,
//! `@as ['a', 'b']`, `[('/dev/null', 'rw')]`.

use super::message::{Value, signature, type_end};

/// How deep arrays and tuples may be nested.
const DEPTH: usize = 16;

/// Reads one value; the error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text };
    let value = parser.value(None, 0)?;
    parser.skip_space();
    if parser.rest.is_empty() {
        Ok(value)
    } else {
        Err(format!("unexpected {:?} after the value", parser.rest))
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: char) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// The letters, digits and signs up to anything else.
    fn word(&mut self) -> String {
        self.skip_space();
        let ends = |c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c));
        let (word, rest) = self
            .rest
            .split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        word.to_owned()
    }

    /// A value, of the type `wanted` where that is known.
    fn value(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        if depth > DEPTH {
            return Err("nested too deeply".into());
        }
        self.skip_space();
        match self.rest.chars().next() {
            None => Err("a value is missing".into()),
            Some('@') => {
                let end = type_end(&self.rest[1..]).ok_or("the type after @ is malformed")?;
                let (annotated, rest) = self.rest[1..].split_at(end);
                let annotated = annotated.to_owned();
                self.rest = rest;
                self.value(Some(&annotated), depth + 1)
            }
            Some('[') => self.array(wanted, depth),
            Some('(') => self.tuple(wanted, depth),
            Some('<') => {
                self.take('<');
                let value = self.value(None, depth + 1)?;
                self.close('>')?;
                Ok(value.variant())
            }
            Some('\'' | '"') => {
                let text = self.string()?;
                match wanted {
                    None | Some("s") => Ok(Value::String(text)),
                    Some("o") => Ok(Value::ObjectPath(text)),
                    Some("g") => Ok(Value::Signature(text)),
                    Some(other) => Err(format!("{text:?} is not of type {other}")),
                }
            }
            Some(_) => self.plain(wanted, depth),
        }
    }

    fn close(&mut self, bracket: char) -> Result<(), String> {
        if self.take(bracket) {
            Ok(())
        } else {
            Err(format!("{bracket:?} is missing"))
        }
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let mut element = match wanted {
            Some(wanted) => Some(
                wanted
                    .strip_prefix('a')
                    .ok_or_else(|| format!("an array is not of type {wanted}"))?
                    .to_owned(),
            ),
            None => None,
        };
        self.take('[');
        let mut values = Vec::new();
        while !self.take(']') {
            if !values.is_empty() {
                self.close(',')?;
            }
            let value = self.value(element.as_deref(), depth + 1)?;
            match &element {
                Some(element) if *element != value.signature() => {
                    return Err(format!("an element is not of type {element}"));
                }
                _ => element = Some(value.signature()),
            }
            values.push(value);
        }
        match element {
            Some(element) => Ok(Value::Array(element, values)),
            None => Err("an empty array needs its type, as in @as []".into()),
        }
    }

    fn tuple(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let mut types = match wanted {
            Some(wanted) => wanted
                .strip_prefix('(')
                .and_then(|inner| inner.strip_suffix(')'))
                .ok_or_else(|| format!("a tuple is not of type {wanted}"))?,
            None => "",
        };
        self.take('(');
        let mut values = Vec::new();
        while !self.take(')') {
            if !values.is_empty() {
                self.close(',')?;
                // A tuple of one has a comma behind it.
                if values.len() == 1 && self.take(')') {
                    break;
                }
            }
            let (one, rest) = types.split_at(type_end(types).unwrap_or(0));
            types = rest;
            values.push(self.value((!one.is_empty()).then_some(one), depth + 1)?);
        }
        let made = format!("({})", signature(&values));
        match wanted {
            Some(wanted) if wanted != made => {
                Err(format!("a tuple is of type {made}, not {wanted}"))
            }
            _ if values.is_empty() => Err("a tuple must not be empty".into()),
            _ => Ok(Value::Struct(values)),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let mut chars = self.rest.chars();
        let quote = chars.next();
        let mut text = String::new();
        loop {
            match chars.next() {
                None => return Err("the end of a string is missing".into()),
                Some('\0') => return Err("a string holds a zero byte".into()),
                end if end == quote => break,
                Some('\\') => match chars.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(escaped @ ('\\' | '\'' | '"')) => text.push(escaped),
                    _ => return Err("a string holds an escape that is not known".into()),
                },
                Some(other) => text.push(other),
            }
        }
        self.rest = chars.as_str();
        Ok(text)
    }

    /// A boolean, a number, or the name of a type before a value.
    fn plain(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let word = self.word();
        let named = match word.as_str() {
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "objectpath" => "o",
            "signature" => "g",
            "true" | "false" => {
                return match wanted {
                    None | Some("b") => Ok(Value::Bool(word == "true")),
                    Some(other) => Err(format!("{word} is not of type {other}")),
                };
            }
            _ => return number(&word, wanted),
        };
        self.value(Some(named), depth + 1)
    }
}

/// A number: decimal, `0x` or octal, an int32 or a double unless something else is wanted.
fn number(word: &str, wanted: Option<&str>) -> Result<Value, String> {
    let bad = || match wanted {
        Some(wanted) => format!("{word:?} is not of type {wanted}"),
        None => format!("{word:?} is not a value"),
    };
    let whole = || {
        let (sign, digits) = match word.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, word.strip_prefix('+').unwrap_or(word)),
        };
        let (digits, radix) = match digits.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
            None => (digits, 10),
        };
        let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let value = i128::from_str_radix(digits, radix).ok().filter(|_| plain);
        value.map(|value| sign * value).ok_or_else(bad)
    };
    fn fit<T: TryFrom<i128>>(value: i128, bad: impl Fn() -> String) -> Result<T, String> {
        T::try_from(value).map_err(|_| bad())
    }
    match wanted {
        Some("y") => Ok(Value::Byte(fit(whole()?, bad)?)),
        Some("n") => Ok(Value::Int16(fit(whole()?, bad)?)),
        Some("q") => Ok(Value::Uint16(fit(whole()?, bad)?)),
        Some("u") => Ok(Value::Uint32(fit(whole()?, bad)?)),
        Some("x") => Ok(Value::Int64(fit(whole()?, bad)?)),
        Some("t") => Ok(Value::Uint64(fit(whole()?, bad)?)),
        Some("i") => Ok(Value::Int32(fit(whole()?, bad)?)),
        None if whole().is_ok() => Ok(Value::Int32(fit(whole()?, bad)?)),
        None | Some("d") if word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            word.parse().map(Value::Double).map_err(|_| bad())
        }
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let text = Value::text;
        for (written, value) in [
            ("true", Value::Bool(true)),
            ("uint64 5000000", Value::Uint64(5_000_000)),
            ("uint64 18446744073709551615", Value::Uint64(u64::MAX)),
            ("int64 -0x10", Value::Int64(-16)),
            ("byte 017", Value::Byte(15)),
            ("7", Value::Int32(7)),
            (" -2.5e3 ", Value::Double(-2500.0)),
            ("'inactive-or-failed'", text("inactive-or-failed")),
            (r#""it's \"\\\" x""#, text(r#"it's "\" x"#)),
            ("objectpath '/a'", Value::ObjectPath("/a".into())),
            ("@as []", Value::Array("s".into(), vec![])),
            (
                "['a', 'b']",
                Value::Array("s".into(), vec![text("a"), text("b")]),
            ),
            (
                "@a(ss) [('/dev/null', 'rw')]",
                Value::Array(
                    "(ss)".into(),
                    vec![Value::Struct(vec![text("/dev/null"), text("rw")])],
                ),
            ),
            ("(uint32 1,)", Value::Struct(vec![Value::Uint32(1)])),
            (
                "@(st) ('a', 5)",
                Value::Struct(vec![text("a"), Value::Uint64(5)]),
            ),
            ("<'x'>", text("x").variant()),
        ] {
            assert_eq!(parse(written), Ok(value), "{written}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            "uint64",
            "uint32 -1",
            "byte 256",
            "'open",
            "[]",
            "[1, 'a']",
            "(1",
            "()",
            "@z 1",
            "@as 5",
            "x",
            "5 6",
            "0x",
            "99999999999",
            "uint64 'a'",
            "@(ss) ('a', 5)",
            "boolean 1",
            "nan",
            "infinity",
            "--1",
            "-+1",
            "'\\q'",
            &"[".repeat(50),
            "@a(",
            "é",
        ] {
            assert!(parse(bad).is_err(), "{bad}: {:?}", parse(bad));
        }
    }
}
