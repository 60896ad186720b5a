//! Short text in a header, with or without quotes.

use std::borrow::Cow;

const MAX_BYTES: usize = 255;

/// Returns the text of a header's value: a quoted string (RFC 8941), or a text without quotes. `None` if the
/// value is not valid.
///
/// A comma outside quotes is not valid, because a proxy joins two headers with a comma.
pub(crate) fn parse(value: &[u8]) -> Option<Cow<'_, str>> {
    let value = std::str::from_utf8(value).ok()?;
    let key = match value.strip_prefix('"') {
        Some(rest) => unquote(rest.strip_suffix('"')?)?,
        None if value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',')) => {
            value.into()
        }
        None => return None,
    };
    (1..=MAX_BYTES).contains(&key.len()).then_some(key)
}

/// Replaces the escapes in the text between the quotes. `None` if the text is not valid.
pub(crate) fn unquote(text: &str) -> Option<Cow<'_, str>> {
    let is_printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if !text.bytes().all(is_printable) {
        return None;
    }
    if !text.contains(['"', '\\']) {
        return Some(text.into());
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '"' => return None,
            '\\' => characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?,
            other => other,
        });
    }
    Some(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quoted_and_bare_are_the_same_key() {
        for (text, key) in [
            ("abc", "abc"),
            ("\"abc\"", "abc"),
            (r#""a b,\"\\""#, r#"a b,"\"#),
            ("8e03978e-40d5", "8e03978e-40d5"),
        ] {
            assert_eq!(parse(text.as_bytes()).as_deref(), Some(key), "{text}");
        }
        let long = "k".repeat(255);
        assert!(parse(long.as_bytes()).is_some() && parse(format!("\"{long}\"").as_bytes()).is_some());
    }

    #[test]
    fn invalid_key_is_refused() {
        let long = "k".repeat(256);
        for text in [
            "",
            "\"\"",
            "\"",
            "a b",
            "a,b",
            "a\tb",
            "\"a",
            "a\"",
            r#""a"b""#,
            r#""a\n""#,
            r#""a\"#,
            "\"a\";p=1",
            "ключ",
            &long,
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(b"\xff"), None);
    }

    proptest! {
        #[test]
        fn printable_key_is_unchanged_by_quoting(key in "[ -~]{1,255}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            let parsed = parse(quoted.as_bytes());
            prop_assert_eq!(parsed.as_deref(), Some(&*key));
        }

        #[test]
        fn parsed_key_is_short_ascii_for_any_input(value: Vec<u8>) {
            if let Some(key) = parse(&value) {
                prop_assert!((1..=255).contains(&key.len()) && key.is_ascii());
            }
        }
    }
}
