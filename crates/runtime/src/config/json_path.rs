//! Where in a JSON document an error of serde_json lies, as people write it: `process.rlimits[0].soft`.
//!
//! Only an error pays for this. A deserializer that knows its path all the time (`serde_path_to_error`) is a second copy of the code for
//! every type of the configuration, half a megabyte, on the way to every container.

/// An object or array that has begun and not ended.
enum Level {
    /// The member that was named last, once it is.
    Object(Option<String>),
    /// The element that is read.
    Array(usize),
}

/// The path of the value that is being read, or has just been read, when serde_json is at this line and column. All before it is valid
/// JSON. Empty for the document itself.
pub(super) fn at(document: &[u8], line: usize, column: usize) -> String {
    let before = document
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    let end = before.saturating_add(column).min(document.len());
    path(&levels(&document[..end]))
}

/// What a part of a document leaves open at its end.
fn levels(document: &[u8]) -> Vec<Level> {
    let mut levels = Vec::new();
    let mut at = 0;
    while let Some(byte) = document.get(at) {
        at += 1;
        match (byte, levels.last_mut()) {
            (b'{', _) => levels.push(Level::Object(None)),
            (b'[', _) => levels.push(Level::Array(0)),
            (b'}' | b']', _) => _ = levels.pop(),
            (b',', Some(Level::Object(name))) => *name = None,
            (b',', Some(Level::Array(index))) => *index += 1,
            (b'"', level) => {
                let text = &document[at..];
                let length = string_length(text);
                at += length + 1;
                if let Some(Level::Object(name @ None)) = level {
                    *name = Some(String::from_utf8_lossy(&text[..length]).into_owned());
                }
            }
            _ => {}
        }
    }
    levels
}

/// How long a string is that has begun, up to the quote that ends it, or to the end of what there is.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    let ends = |byte: &u8| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    };
    text.iter().position(ends).unwrap_or(text.len())
}

fn path(levels: &[Level]) -> String {
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Array(index) => path.push_str(&format!("[{index}]")),
            Level::Object(Some(name)) if path.is_empty() => path.push_str(name),
            Level::Object(Some(name)) => path.push_str(&format!(".{name}")),
            Level::Object(None) => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only whether they can be read matters")]
    struct Outer {
        one: Inner,
        many: Vec<Inner>,
        kind: Option<Kind>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only whether they can be read matters")]
    struct Inner {
        text: String,
        number: Option<u8>,
    }

    #[derive(Deserialize)]
    enum Kind {
        This,
    }

    fn error_in(document: &str) -> String {
        let error = serde_json::from_str::<Outer>(document).err().unwrap();
        assert!(error.is_data(), "{document}: {error}");
        at(document.as_bytes(), error.line(), error.column())
    }

    #[test]
    fn the_member_or_element_that_is_wrong() {
        for (document, path) in [
            (r#"{"one": 5, "many": []}"#, "one"),
            (r#"{"one": {"text": 5}, "many": []}"#, "one.text"),
            (r#"{"one": {"text": {}}, "many": []}"#, "one.text"),
            (r#"{"one": {"text": []}, "many": []}"#, "one.text"),
            (r#"{"one": {"text": null}, "many": []}"#, "one.text"),
            (r#"{"one": {"text": true}, "many": []}"#, "one.text"),
            (r#"{"one": {"number": 300, "text": ""}}"#, "one.number"),
            (r#"{"one": {"number": -1}}"#, "one.number"),
            (r#"{"one": {"number": 1.5}}"#, "one.number"),
            (
                r#"{"many": [{"text": "a,[{\"\\"}, {"text": 1}]}"#,
                "many[1].text",
            ),
            (r#"{"many": [[]]}"#, "many[0]"),
            (r#"{"many": {}}"#, "many"),
            (r#"{"kind": "That"}"#, "kind"),
            ("{\n \"one\": {\n  \"text\":\n 7}}", "one.text"),
        ] {
            assert_eq!(error_in(document), path, "{document}");
        }
    }

    #[test]
    fn what_is_missing_is_missing_in_the_object_around_it() {
        assert_eq!(error_in(r#"{"one": {}, "many": []}"#), "one");
        assert_eq!(error_in(r#"{"many": [{"text": ""}, {}]}"#), "many[1]");
        assert_eq!(error_in("{}"), "");
        assert_eq!(error_in("7"), "");
    }

    #[test]
    fn no_position_is_beyond_the_document() {
        assert_eq!(at(b"{\"a\": \"b", 9, 9), "a");
        assert_eq!(at(b"", 0, 0), "");
        assert_eq!(at(b"]]}\"", 1, usize::MAX), "");
    }
}
