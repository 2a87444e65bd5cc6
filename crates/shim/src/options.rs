//! A runtime's options, in both forms that containerd sends them in: runc's message, and for runtimes of other names TOML.

use prost::Message;

use crate::error::{Context, Failure, Result};
use crate::protos::Any;
use crate::protos::options::{Options, RuntimeOptions};

/// Reads what came with a request; nothing is the default.
pub(crate) fn read(any: Option<&Any>) -> Result<Options> {
    let Some(any) = any.filter(|any| !any.value.is_empty()) else {
        return Ok(Options::default());
    };
    let invalid = |error: prost::DecodeError| Failure::invalid(format!("options: {error}"));
    match any.name() {
        "containerd.runc.v1.Options" => Options::decode(&*any.value).map_err(invalid),
        "runtimeoptions.v1.Options" => {
            from_toml(&RuntimeOptions::decode(&*any.value).map_err(invalid)?)
        }
        name => Err(Failure::invalid(format!(
            "options: {name} is no type of options"
        ))),
    }
}

fn from_toml(options: &RuntimeOptions) -> Result<Options> {
    let path = &options.config_path;
    let file;
    let text = match path.is_empty() {
        true => &options.config_body,
        false => {
            file = std::fs::read(path).context(|| format!("options: read {path}"))?;
            &file
        }
    };
    let text = std::str::from_utf8(text).context(|| "options: read as text".to_owned())?;
    parse(text)
}

/// `Key = value` lines, with the keys of runc's options as they stand in containerd's own configuration. That is all of TOML that an
/// option takes.
fn parse(text: &str) -> Result<Options> {
    let mut options = Options::default();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = || Failure::invalid(format!("options: {line:?} sets no option"));
        let (key, value) = line.split_once('=').ok_or_else(bad)?;
        let value = Value::parse(value.trim()).ok_or_else(bad)?;
        set(&mut options, key.trim(), value).ok_or_else(bad)?;
    }
    Ok(options)
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Switch(bool),
    Number(u32),
    Text(String),
}

impl Value {
    fn parse(text: &str) -> Option<Value> {
        // A comment may follow, but not inside of a string.
        let word = text.split('#').next().unwrap_or_default().trim_end();
        match word {
            "true" => return Some(Value::Switch(true)),
            "false" => return Some(Value::Switch(false)),
            _ => {}
        }
        if let Ok(number) = word.parse() {
            return Some(Value::Number(number));
        }
        let quote = text
            .chars()
            .next()
            .filter(|quote| matches!(quote, '"' | '\''))?;
        let mut content = String::new();
        let mut rest = text[1..].chars();
        loop {
            match rest.next()? {
                letter if letter == quote => break,
                '\\' if quote == '"' => content.push(match rest.next()? {
                    letter @ ('"' | '\\') => letter,
                    _ => return None,
                }),
                letter => content.push(letter),
            }
        }
        let rest = rest.as_str().trim_start();
        (rest.is_empty() || rest.starts_with('#')).then_some(Value::Text(content))
    }
}

/// `None` when the value is of another type. An option that we have no use for is passed over, as containerd does.
fn set(options: &mut Options, key: &str, value: Value) -> Option<()> {
    match (key, value) {
        ("NoPivotRoot", Value::Switch(on)) => options.no_pivot_root = on,
        ("NoNewKeyring", Value::Switch(on)) => options.no_new_keyring = on,
        ("SystemdCgroup", Value::Switch(on)) => options.systemd_cgroup = on,
        ("IoUid", Value::Number(id)) => options.io_uid = id,
        ("IoGid", Value::Number(id)) => options.io_gid = id,
        ("ShimCgroup", Value::Text(text)) => options.shim_cgroup = text,
        ("BinaryName", Value::Text(text)) => options.binary_name = text,
        ("Root", Value::Text(text)) => options.root = text,
        ("CriuImagePath", Value::Text(text)) => options.criu_image_path = text,
        ("CriuWorkPath", Value::Text(text)) => options.criu_work_path = text,
        (
            "NoPivotRoot" | "NoNewKeyring" | "SystemdCgroup" | "IoUid" | "IoGid" | "ShimCgroup"
            | "BinaryName" | "Root" | "CriuImagePath" | "CriuWorkPath",
            _,
        ) => return None,
        _ => log::warn!("option {key} is unknown"),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(body: &str) -> Result<Options> {
        let options = RuntimeOptions {
            config_body: body.as_bytes().to_vec(),
            ..Default::default()
        };
        read(Some(&Any::new("runtimeoptions.v1.Options", &options)))
    }

    #[test]
    fn both_types_say_the_same() {
        let expected = Options {
            systemd_cgroup: true,
            binary_name: "/opt/coracle".to_owned(),
            io_uid: 1000,
            ..Default::default()
        };
        let any = Any::new("containerd.runc.v1.Options", &expected);
        assert_eq!(read(Some(&any)).unwrap(), expected);
        let body = "\n# ours\nSystemdCgroup = true # yes\n  BinaryName = \"/opt/coracle\"\nIoUid = 1000\nOther = 'x'\n";
        assert_eq!(toml(body).unwrap(), expected);
        assert_eq!(read(None).unwrap(), Options::default());
    }

    #[test]
    fn strings_have_two_kinds_of_quotes() {
        assert_eq!(
            toml(r#"Root = "/a\\b \"c\" # d""#).unwrap().root,
            r#"/a\b "c" # d"#
        );
        assert_eq!(toml(r"Root = 'C:\n' # x").unwrap().root, r"C:\n");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for bad in [
            "SystemdCgroup",
            "SystemdCgroup = 1",
            "Root = \"/x",
            "Root = /x",
            "IoUid = -1",
            "[options]",
        ] {
            assert!(toml(bad).is_err(), "{bad}");
        }
        let unknown = Any::new(
            "some.Other",
            &Options {
                io_uid: 1,
                ..Default::default()
            },
        );
        assert!(read(Some(&unknown)).is_err());
        let garbage = Any {
            type_url: "containerd.runc.v1.Options".to_owned(),
            value: vec![0xff; 9],
        };
        assert!(read(Some(&garbage)).is_err());
    }
}
