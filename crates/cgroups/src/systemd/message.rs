//! D-Bus messages as bytes (D-Bus specification, "Message Protocol"): the types that systemd's interface uses, in the byte order of
//! the machine, since both ends are on it.

use std::fmt;

/// One value with its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    String(String),
    ObjectPath(String),
    Signature(String),
    /// The signature of the elements, which an empty array needs as well, and the elements. A dictionary is an array of two-element
    /// structures with the signature `{kv}`.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

/// Structures within structures that are still read; the specification allows 64 in all.
const DEPTH: usize = 64;

/// The specification's limit.
const MESSAGE_MAX: usize = 128 << 20;

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Value {
        Value::String(text.into())
    }

    pub(crate) fn variant(self) -> Value {
        Value::Variant(Box::new(self))
    }

    /// The type's signature.
    pub(crate) fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::Int16(_) => "n".into(),
            Value::Uint16(_) => "q".into(),
            Value::Int32(_) => "i".into(),
            Value::Uint32(_) => "u".into(),
            Value::Int64(_) => "x".into(),
            Value::Uint64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::String(_) => "s".into(),
            Value::ObjectPath(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => format!("({})", signature(fields)),
            Value::Variant(_) => "v".into(),
        }
    }

    /// The string of a string, an object path or a variant with one in it.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) | Value::ObjectPath(text) => Some(text),
            Value::Variant(value) => value.as_str(),
            _ => None,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        align(out, alignment(self.signature().as_bytes()[0]));
        match self {
            Value::Byte(value) => out.push(*value),
            Value::Bool(value) => out.extend(u32::from(*value).to_ne_bytes()),
            Value::Int16(value) => out.extend(value.to_ne_bytes()),
            Value::Uint16(value) => out.extend(value.to_ne_bytes()),
            Value::Int32(value) => out.extend(value.to_ne_bytes()),
            Value::Uint32(value) => out.extend(value.to_ne_bytes()),
            Value::Int64(value) => out.extend(value.to_ne_bytes()),
            Value::Uint64(value) => out.extend(value.to_ne_bytes()),
            Value::Double(value) => out.extend(value.to_ne_bytes()),
            Value::String(text) | Value::ObjectPath(text) => {
                out.extend((text.len() as u32).to_ne_bytes());
                out.extend(text.as_bytes());
                out.push(0);
            }
            Value::Signature(text) => {
                out.push(text.len() as u8);
                out.extend(text.as_bytes());
                out.push(0);
            }
            Value::Array(element, values) => {
                let length_at = out.len();
                out.extend(0_u32.to_ne_bytes());
                // The padding before the first element is there even without one, and does not count.
                align(out, alignment(element.as_bytes()[0]));
                let start = out.len();
                values.iter().for_each(|value| value.write(out));
                let length = (out.len() - start) as u32;
                out[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
            }
            Value::Struct(fields) => fields.iter().for_each(|field| field.write(out)),
            Value::Variant(value) => {
                Value::Signature(value.signature()).write(out);
                value.write(out);
            }
        }
    }
}

/// The signature of several values in a row.
pub(crate) fn signature(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

fn alignment(kind: u8) -> usize {
    match kind {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Where the first complete type of a signature ends; `None` when it is malformed.
pub(crate) fn type_end(signature: &str) -> Option<usize> {
    fn end(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
        if depth > DEPTH {
            return None;
        }
        match bytes.get(at)? {
            b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g'
            | b'v' | b'h' => Some(at + 1),
            b'a' => end(bytes, at + 1, depth + 1),
            open @ (b'(' | b'{') => {
                let close = if *open == b'(' { b')' } else { b'}' };
                // At least one type: an empty structure would take no room, and so never come to an end in an array.
                let mut at = end(bytes, at + 1, depth + 1)?;
                while *bytes.get(at)? != close {
                    at = end(bytes, at, depth + 1)?;
                }
                Some(at + 1)
            }
            _ => None,
        }
    }
    end(signature.as_bytes(), 0, 0)
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Call = 1,
    Return = 2,
    Error = 3,
    Signal = 4,
}

/// A message, whole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) serial: u32,
    /// The serial of the call that this answers.
    pub(crate) reply_to: Option<u32>,
    pub(crate) path: Option<String>,
    pub(crate) interface: Option<String>,
    pub(crate) member: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) destination: Option<String>,
    pub(crate) body: Vec<Value>,
}

/// The message is not what the specification says, or longer than it allows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a malformed D-Bus message")
    }
}

const ORDER: u8 = if cfg!(target_endian = "little") {
    b'l'
} else {
    b'B'
};

/// How much of a message there must be to know its length.
pub(crate) const FIXED: usize = 16;

/// The length of the message that begins with these bytes.
pub(crate) fn length(fixed: &[u8; FIXED]) -> Result<usize, Malformed> {
    let number = |at: usize| {
        u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize
    };
    let length = (FIXED + number(12)).next_multiple_of(8) + number(4);
    if fixed[0] == ORDER && fixed[3] == 1 && length <= MESSAGE_MAX {
        Ok(length)
    } else {
        Err(Malformed)
    }
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.body.iter().for_each(|value| value.write(&mut body));
        let mut fields = Vec::new();
        let mut field = |code: u8, value: Option<Value>| {
            if let Some(value) = value {
                fields.push(Value::Struct(vec![Value::Byte(code), value.variant()]));
            }
        };
        field(1, self.path.clone().map(Value::ObjectPath));
        field(2, self.interface.clone().map(Value::String));
        field(3, self.member.clone().map(Value::String));
        field(4, self.error.clone().map(Value::String));
        field(5, self.reply_to.map(Value::Uint32));
        field(6, self.destination.clone().map(Value::String));
        let types = signature(&self.body);
        field(8, (!types.is_empty()).then_some(Value::Signature(types)));
        let mut out = vec![ORDER, self.kind as u8, 0, 1];
        out.extend((body.len() as u32).to_ne_bytes());
        out.extend(self.serial.to_ne_bytes());
        Value::Array("(yv)".into(), fields).write(&mut out);
        align(&mut out, 8);
        out.extend(body);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        let mut reader = Reader { bytes, at: 0 };
        let head = reader.values("yyyyuua(yv)")?;
        let [
            _,
            Value::Byte(kind),
            _,
            _,
            _,
            Value::Uint32(serial),
            Value::Array(_, fields),
        ] = head.as_slice()
        else {
            return Err(Malformed);
        };
        let mut message = Message {
            kind: match kind {
                1 => Kind::Call,
                2 => Kind::Return,
                3 => Kind::Error,
                4 => Kind::Signal,
                _ => return Err(Malformed),
            },
            serial: *serial,
            reply_to: None,
            path: None,
            interface: None,
            member: None,
            error: None,
            destination: None,
            body: Vec::new(),
        };
        let mut types = String::new();
        for field in fields {
            let Value::Struct(field) = field else {
                return Err(Malformed);
            };
            let [Value::Byte(code), Value::Variant(value)] = field.as_slice() else {
                return Err(Malformed);
            };
            let text = || value.as_str().map(str::to_owned);
            match (code, value.as_ref()) {
                (1, _) => message.path = text(),
                (2, _) => message.interface = text(),
                (3, _) => message.member = text(),
                (4, _) => message.error = text(),
                (5, Value::Uint32(serial)) => message.reply_to = Some(*serial),
                (6, _) => message.destination = text(),
                (8, Value::Signature(signature)) => types.clone_from(signature),
                _ => {}
            }
        }
        reader.align(8)?;
        message.body = reader.values(&types)?;
        Ok(message)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.align(N)?;
        let taken = self.bytes.get(self.at..self.at + N).ok_or(Malformed)?;
        self.at += N;
        taken.try_into().map_err(|_| Malformed)
    }

    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        self.at = self.at.next_multiple_of(to);
        if self.at <= self.bytes.len() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    fn text(&mut self, length: usize) -> Result<String, Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        let text = self.bytes.get(self.at..end).ok_or(Malformed)?;
        // With the zero byte behind it.
        self.at = end + 1;
        String::from_utf8(text.to_vec()).map_err(|_| Malformed)
    }

    /// Values of these types, one after the other.
    fn values(&mut self, signature: &str) -> Result<Vec<Value>, Malformed> {
        self.row(signature, 0)
    }

    fn row(&mut self, mut signature: &str, depth: usize) -> Result<Vec<Value>, Malformed> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (one, rest) = signature.split_at(type_end(signature).ok_or(Malformed)?);
            values.push(self.value(one, depth)?);
            signature = rest;
        }
        Ok(values)
    }

    fn value(&mut self, signature: &str, depth: usize) -> Result<Value, Malformed> {
        if depth > DEPTH {
            return Err(Malformed);
        }
        Ok(match signature.as_bytes()[0] {
            b'y' => Value::Byte(u8::from_ne_bytes(self.take()?)),
            b'b' => Value::Bool(u32::from_ne_bytes(self.take()?) != 0),
            b'n' => Value::Int16(i16::from_ne_bytes(self.take()?)),
            b'q' => Value::Uint16(u16::from_ne_bytes(self.take()?)),
            b'i' => Value::Int32(i32::from_ne_bytes(self.take()?)),
            b'u' | b'h' => Value::Uint32(u32::from_ne_bytes(self.take()?)),
            b'x' => Value::Int64(i64::from_ne_bytes(self.take()?)),
            b't' => Value::Uint64(u64::from_ne_bytes(self.take()?)),
            b'd' => Value::Double(f64::from_ne_bytes(self.take()?)),
            kind @ (b's' | b'o') => {
                let length = u32::from_ne_bytes(self.take()?) as usize;
                let text = self.text(length)?;
                if kind == b's' {
                    Value::String(text)
                } else {
                    Value::ObjectPath(text)
                }
            }
            b'g' => {
                let [length] = self.take()?;
                Value::Signature(self.text(length.into())?)
            }
            b'a' => {
                let element = &signature[1..];
                let length = u32::from_ne_bytes(self.take()?) as usize;
                self.align(alignment(element.as_bytes()[0]))?;
                let end = self.at.checked_add(length).ok_or(Malformed)?;
                if end > self.bytes.len() {
                    return Err(Malformed);
                }
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.value(element, depth + 1)?);
                }
                Value::Array(element.to_owned(), values)
            }
            b'(' | b'{' => {
                self.align(8)?;
                Value::Struct(self.row(&signature[1..signature.len() - 1], depth + 1)?)
            }
            b'v' => {
                let [length] = self.take()?;
                let inner = self.text(length.into())?;
                if type_end(&inner) != Some(inner.len()) {
                    return Err(Malformed);
                }
                self.value(&inner, depth + 1)?.variant()
            }
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: Vec<Value>) -> Message {
        Message {
            kind: Kind::Call,
            serial: 7,
            reply_to: None,
            path: Some("/org/freedesktop/systemd1".into()),
            interface: Some("org.freedesktop.systemd1.Manager".into()),
            member: Some("StartTransientUnit".into()),
            error: None,
            destination: Some("org.freedesktop.systemd1".into()),
            body,
        }
    }

    fn every_type() -> Vec<Value> {
        let property =
            |name: &str, value: Value| Value::Struct(vec![Value::text(name), value.variant()]);
        vec![
            Value::Byte(1),
            Value::Bool(true),
            Value::Int16(-2),
            Value::Uint16(3),
            Value::Int32(-4),
            Value::Uint32(5),
            Value::Int64(-6),
            Value::Uint64(u64::MAX),
            Value::Double(0.5),
            Value::ObjectPath("/a".into()),
            Value::Signature("a(sv)".into()),
            Value::Array(
                "(sv)".into(),
                vec![
                    property("PIDs", Value::Array("u".into(), vec![Value::Uint32(77)])),
                    property(
                        "AllowedCPUs",
                        Value::Array("y".into(), vec![Value::Byte(3)]),
                    ),
                    property("Slice", Value::text("system.slice")),
                ],
            ),
            Value::Array("(sa(sv))".into(), Vec::new()),
            Value::Array("{sv}".into(), vec![property("key", Value::Bool(false))]),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let message = call(every_type());
        let bytes = message.encode();
        assert_eq!(length(bytes[..FIXED].try_into().unwrap()), Ok(bytes.len()));
        assert_eq!(Message::decode(&bytes), Ok(message));
    }

    /// The call that `busctl --user call org.freedesktop.DBus / org.freedesktop.DBus.Peer Ping` sends, byte by byte.
    #[test]
    #[cfg(target_endian = "little")]
    fn the_bytes_are_the_specifications() {
        let ping = Message {
            path: Some("/".into()),
            interface: None,
            member: Some("Ping".into()),
            destination: None,
            serial: 1,
            ..call(vec![Value::text("hi")])
        };
        let expected = b"l\x01\x00\x01\x07\x00\x00\x00\x01\x00\x00\x00\x27\x00\x00\x00\
            \x01\x01o\x00\x01\x00\x00\x00/\x00\x00\x00\x00\x00\x00\x00\
            \x03\x01s\x00\x04\x00\x00\x00Ping\x00\x00\x00\x00\
            \x08\x01g\x00\x01s\x00\x00\
            \x02\x00\x00\x00hi\x00";
        assert_eq!(ping.encode(), expected);
    }

    #[test]
    fn damage_is_an_error_and_no_panic() {
        let bytes = call(every_type()).encode();
        for cut in 0..bytes.len() {
            assert!(Message::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            for change in [1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                let _ = Message::decode(&damaged);
            }
        }
    }

    #[test]
    fn signatures() {
        assert_eq!(type_end("a(sv)u"), Some(5));
        assert_eq!(type_end("a{s(iai)}"), Some(9));
        for bad in ["", "a", "(s", "z", "a(", "a()", &"a".repeat(100)] {
            assert_eq!(type_end(bad), None, "{bad}");
        }
    }
}
